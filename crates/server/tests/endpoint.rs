//! `millpond work --to`: jobs posted to an HTTP endpoint.
#![allow(clippy::unwrap_used, reason = "test code")]

mod cli_support;

use base64::{Engine, prelude::BASE64_STANDARD};
use cli_support::Server;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

const KEY: &[u8] = b"twenty-four bytes, or so";

/// A request that came.
struct Posted {
    headers: HashMap<String, String>,
    body: Vec<u8>,
    stream: TcpStream,
}

impl Posted {
    fn read(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut lines = reader.by_ref().lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "POST /jobs?key=1 HTTP/1.1");
        let headers: HashMap<String, String> = lines
            .take_while(|line| !line.is_empty())
            .map(|line| {
                line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).unwrap()
            })
            .collect();
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        Self { headers, body, stream }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn is_signed(&self) -> bool {
        let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
        mac.update(
            format!("{}.{}.", self.headers["webhook-id"], self.headers["webhook-timestamp"]).as_bytes(),
        );
        mac.update(&self.body);
        let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        self.headers["webhook-signature"].split(' ').any(|signature| signature == expected)
    }

    fn answer(mut self, head: &str, body: &str) {
        let bytes = body.len();
        write!(self.stream, "HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n{body}")
            .unwrap();
    }
}

/// A worker that is ended with the test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn work(server: &Server, listener: &TcpListener, more: &[&str]) -> Worker {
    let url = format!("http://{}/jobs?key=1", listener.local_addr().unwrap());
    let words = [&["work", "mail", "--to", &url], more].concat();
    Worker(server.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

fn becomes(server: &Server, id: &str, state: &str) -> Value {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let job = server.json(&["job", id, "mail"]);
        if job["state"] == state {
            return job;
        }
        assert!(Instant::now() < until, "{job}");
        std::thread::yield_now();
    }
}

#[test]
fn a_job_is_posted_and_signed_and_the_answer_is_its_outcome() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(KEY));
    let other = format!("whsec_{}", BASE64_STANDARD.encode([7; 32]));
    std::fs::write(server.path().join("secret"), format!("{other}\n{secret}\n")).unwrap();
    server.json(&[
        "push",
        "mail",
        r#"{"to":"ada"}"#,
        "--id",
        "one",
        "--meta",
        "traceparent=00-ab-cd-01",
        "--meta",
        "host=evil",
    ]);
    let _worker =
        work(&server, &listener, &["--secret-file", "secret", "--header", "authorization: Bearer x"]);
    let posted = Posted::read(&listener);
    assert!(posted.is_signed());
    assert_eq!(posted.headers["webhook-id"], "mail/one");
    assert_eq!(posted.headers["authorization"], "Bearer x");
    assert_eq!(posted.headers["traceparent"], "00-ab-cd-01");
    assert!(posted.headers["host"].starts_with("127.0.0.1:"), "meta is no header");
    let job = posted.json();
    assert_eq!((&job["id"], &job["queue"], &job["attempt"]), (&json!("one"), &json!("mail"), &json!(1)));
    assert_eq!(job["body"], json!({"to": "ada"}));
    posted.answer("200 OK", r#"{"sent":true}"#);
    assert_eq!(becomes(&server, "one", "completed")["result"], json!({"sent": true}));

    server.json(&["push", "mail", "2", "--id", "two"]);
    Posted::read(&listener).answer("422 Unprocessable Entity", "no such user");
    let dead = becomes(&server, "two", "dead");
    assert_eq!(dead["error"]["kind"], "http_422", "{dead}");

    server.json(&["push", "mail", "3", "--id", "three"]);
    let posted = Posted::read(&listener);
    posted.answer(
        "200 OK\r\ncontent-type: application/vnd.millpond.outcome+json",
        r#"{"type":"wait_for_signal","name":"ok","signal":"go"}"#,
    );
    becomes(&server, "three", "suspended");
    server.json(&["signal", "mail", "three", "go"]);
    let posted = Posted::read(&listener);
    assert_eq!(posted.json()["steps"]["ok"]["kind"], "signal");
    posted.answer("302 Found\r\nlocation: http://127.0.0.1:1/", "");
    assert_eq!(becomes(&server, "three", "retrying")["error"]["kind"], "http_302");
}

#[test]
fn while_nobody_listens_jobs_use_no_attempt() {
    let server = Server::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/jobs?key=1");
    server.json(&["push", "mail", "1", "--id", "one"]);
    let _worker =
        Worker(server.command(&["work", "mail", "--to", &url]).stderr(Stdio::null()).spawn().unwrap());
    let job = becomes(&server, "one", "delayed");
    assert_eq!(job["attempt"], 0, "{job}");
    assert!(server.run(&["job", "one", "mail", "log"]).out.contains("cannot reach"));
    let listener = TcpListener::bind(address).unwrap();
    let posted = Posted::read(&listener);
    assert_eq!(posted.json()["attempt"], 1);
    posted.answer("204 No Content", "");
    becomes(&server, "one", "completed");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_starts() {
    let server = Server::start();
    std::fs::write(server.path().join("short"), "whsec_c2hvcnQ=").unwrap();
    for (words, part) in [
        (&["--to", "ftp://a"][..], "http:// or https://"),
        (&["--to", "http://user:pass@a"], "no user"),
        (&["--to", "http://a", "--secret-file", "short"], "24 to 64 bytes"),
        (&["--to", "http://a", "--secret-file", "missing"], "missing"),
        (&["--to", "http://a", "--header", "x-key"], "no X_KEY in the environment"),
        (&["--to", "http://a", "--pool"], "cannot be used with"),
        (&["--to", "http://a", "--sandbox", "strict"], "cannot be used with"),
        (&["--to", "http://a", "--", "sort"], "cannot be used with"),
        (&["--secret-file", "short", "--", "sort"], "--to"),
        (&[], "required"),
    ] {
        let ran = server.run(&[&["work", "mail"], words].concat());
        assert!(ran.code == 2 && ran.err.contains(part), "{words:?}: {ran:?}");
    }
}
