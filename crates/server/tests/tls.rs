//! The server under TLS, as clients meet it.
#![allow(clippy::unwrap_used, reason = "test code")]

mod cli_support;
mod support;

use cli_support::{Ran, millpond};
use millpond::{Connect, Error, Pond};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use server::serve::Server;
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use support::{read_answer, start};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// An authority, and the files that a server has of it.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, folder: TempDir::new().unwrap() };
        std::fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority.issue("cert.pem", "key.pem", 2099);
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a new certificate for this machine and its key.
    fn issue(&self, cert: &str, key: &str, until: i32) -> CertificateDer<'static> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let pair = KeyPair::generate().unwrap();
        let issued = params.signed_by(&pair, &self.issuer).unwrap();
        std::fs::write(self.path(cert), issued.pem()).unwrap();
        std::fs::write(self.path(key), pair.serialize_pem()).unwrap();
        issued.der().clone()
    }

    async fn server(&self, more: &[(&str, &str)]) -> Server {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let own = [("tls-cert", cert.to_str().unwrap()), ("tls-key", key.to_str().unwrap())];
        start(&[&own, more].concat()).await
    }

    async fn connect(&self, server: &Server, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_to(server.addr(), protocols).await
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(server::tls::provider());
        let mut config = builder
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
    }
}

/// The certificate that the server shows.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_trusts_the_authority_is_served_and_another_is_not() {
    let authority = Authority::new();
    let server = authority.server(&[]).await;
    let url = server.url();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let ca = authority.path("ca.pem").display().to_string();
    let run = |more: Vec<String>| async {
        let run = move || Ran::of(millpond().args(more).output().unwrap());
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let pushed = run(words(&["--url", &url, "--ca", &ca, "push", "mail", "1", "--json"])).await;
    assert_eq!(pushed.code, 0, "{pushed:?}");
    let foreign = run(words(&["--url", &url, "push", "mail", "1"])).await;
    assert!(foreign.code == 3 && foreign.err.contains("certificate"), "{foreign:?}");
    let plain = run(words(&["--url", &url.replace("https", "http"), "push", "mail", "1"])).await;
    assert_eq!(plain.code, 3, "{plain:?}");
    let missing = run(words(&["--url", &url, "--ca", "/nowhere.pem", "queues"])).await;
    assert!(missing.code == 2 && missing.err.contains("/nowhere.pem"), "{missing:?}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_connects_under_tls_and_believes_only_whom_it_was_told_to() {
    let authority = Authority::new();
    let server = authority.server(&[]).await;
    let with = |ca: PathBuf| Connect { ca: Some(ca), ..Connect::default() };
    let pond = Pond::connect_with(&server.url(), with(authority.path("ca.pem"))).await.unwrap();
    let (sender, mut handled) = tokio::sync::mpsc::unbounded_channel();
    let mail = pond.queue::<u32>("mail").unwrap();
    let handler = move |number: u32, _| {
        sender.send(number).unwrap();
        async {}
    };
    let worker = mail.worker(handler).start().unwrap();
    mail.push(&7).await.unwrap();
    assert_eq!(handled.recv().await, Some(7));
    worker.stop().await;
    pond.close().await.unwrap();

    // Another authority's: it would be the same tomorrow, so nobody waits.
    let other = Authority::new();
    let foreign = Connect { patience: Duration::from_secs(3_600), ..with(other.path("ca.pem")) };
    let refused = Pond::connect_with(&server.url(), foreign).await.unwrap_err();
    assert!(matches!(&refused, Error::Server { code, .. } if code == "not_trusted"), "{refused}");
    let unread = Pond::connect_with(&server.url(), with("/nowhere.pem".into())).await.unwrap_err();
    assert!(matches!(unread, Error::Trust(_)) && unread.to_string().contains("/nowhere.pem"), "{unread}");
    let plain = server.url().replace("https", "http");
    let hasty = Connect { patience: Duration::ZERO, ..Connect::default() };
    let away = Pond::connect_with(&plain, hasty).await.unwrap_err();
    assert!(matches!(away, Error::Away(_)), "{away}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn http_2_is_agreed_upon_and_http_1_1_is_there_for_the_others() {
    let authority = Authority::new();
    let server = authority.server(&[]).await;
    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let mut stream = authority.connect(&server, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        let first: &[u8] = match agreed {
            Some("h2") => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            _ => b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        stream.write_all(first).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        // The first frame of HTTP/2 is of type 4: settings.
        assert!(if agreed == Some("h2") { answer[3] == 4 } else { &answer == b"HTTP/1.1 200" }, "{answer:?}");
    }
    assert!(authority.connect(&server, &["spdy/3"]).await.is_err());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart_and_a_wrong_one_never() {
    let authority = Authority::new();
    let server = authority.server(&[]).await;
    let first = shown(&authority.connect(&server, &[]).await.unwrap());
    // The certificate is there already, its key is still on its way.
    let second = authority.issue("cert.pem", "key.new", 2099);
    server.reload();
    assert_eq!(shown(&authority.connect(&server, &[]).await.unwrap()), first);
    std::fs::rename(authority.path("key.new"), authority.path("key.pem")).unwrap();
    // By itself, without being told.
    while shown(&authority.connect(&server, &[]).await.unwrap()) != second {
        tokio::task::yield_now().await;
    }
    std::fs::write(authority.path("cert.pem"), "nonsense").unwrap();
    server.reload();
    assert_eq!(shown(&authority.connect(&server, &[]).await.unwrap()), second);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn who_says_nothing_or_something_else_than_tls_is_not_waited_for() {
    let authority = Authority::new();
    let server = authority.server(&[("header-timeout", "200ms"), ("connections-max", "1")]).await;
    for first in ["", "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", "\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        stream.write_all(first.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream).await.status, 0, "{first:?}");
    }
    // The one place is free again.
    while authority.connect(&server, &[]).await.is_err() {}
    server.stop().await.unwrap();
}

#[test]
fn files_that_do_not_fit_are_named_before_anything_starts() {
    let authority = Authority::new();
    authority.issue("other.pem", "other-key.pem", 2099);
    std::fs::write(authority.path("empty.pem"), "").unwrap();
    let serve = |cert: &str, key: &str| {
        let mut command = millpond();
        command
            .args(["serve", "--memory", "--listen", "127.0.0.1:0", "--tls-cert"])
            .arg(authority.path(cert));
        Ran::of(command.arg("--tls-key").arg(authority.path(key)).output().unwrap())
    };
    for (cert, key, part) in [
        ("other.pem", "key.pem", "must be the one of this key"),
        ("missing.pem", "key.pem", "missing.pem: no certificate could be read"),
        ("empty.pem", "key.pem", "empty.pem: there is no certificate in it"),
        ("key.pem", "key.pem", "key.pem: there is no certificate in it"),
        ("cert.pem", "cert.pem", "cert.pem: no private key could be read"),
    ] {
        let ran = serve(cert, key);
        assert!(ran.code == 2 && ran.err.contains(part), "{cert} {key}: {ran:?}");
    }
}

#[test]
fn an_expired_certificate_is_named_in_the_log() {
    use std::io::{BufRead, BufReader};
    let authority = Authority::new();
    authority.issue("cert.pem", "key.pem", 2020);
    let mut child = millpond()
        .args(["serve", "--memory", "--listen", "127.0.0.1:0", "--tls-cert"])
        .arg(authority.path("cert.pem"))
        .arg("--tls-key")
        .arg(authority.path("key.pem"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let named = lines.find(|line| line.contains("expired at 2020-01-01"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(named.is_some_and(|line| line.contains("ERROR") && line.contains("cert.pem")));
}

#[tokio::test]
async fn faktory_clients_meet_the_same_certificate() {
    let authority = Authority::new();
    let server = authority.server(&[("faktory", "127.0.0.1:0")]).await;
    let address = server.faktory_addr().unwrap();
    let mut stream = authority.connect_to(address, &[]).await.unwrap();
    stream.write_all(b"HELLO {\"v\":2}\r\nEND\r\n").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "+HI {\"v\":2}\r\n+OK\r\n+OK\r\n");
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"HELLO {\"v\":2}\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"+"), "who speaks no TLS gets nothing but its alert");
    server.stop().await.unwrap();
}
