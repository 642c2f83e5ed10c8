//! What somebody does who means no good, or knows no better, and what it meets. `docs/security.md` lists it by these tests.
#![allow(clippy::unwrap_used, reason = "test code")]

mod cli_support;
mod support;

use cli_support::millpond;
use serde_json::{Value, json};
use server::{http::routes, serve::Server};
use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Stdio},
};
use support::{Answer, call, concrete, read_answer, send, send_from, start};
use tokio::{io::AsyncWriteExt, net::TcpStream};

async fn position(server: &Server) -> String {
    let page = call(server, "GET /metrics", "").await.text;
    page.lines().find(|line| line.starts_with("millpond_log_position ")).unwrap().to_owned()
}

/// Bytes as they are, on a connection of their own.
async fn raw(server: &Server, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    // It may be answered and closed before all of it is read.
    let _ = stream.write_all(bytes).await;
    read_answer(&mut stream).await
}

#[tokio::test]
async fn nothing_that_only_asks_changes_anything() {
    let server = start(&[]).await;
    call(&server, "POST /v1/queues/mail/jobs", r#"{"body":1}"#).await;
    let before = position(&server).await;
    for route in routes().iter().filter(|route| route.path != "/v1/events") {
        let path = concrete(route.path);
        for method in ["GET", "HEAD"] {
            for over in ["x-http-method-override: POST", "x-method-override: DELETE", "x-http-method: PUT"] {
                let body = br#"{"body":1,"worker":"w","queues":["mail"]}"#;
                send(&server, &format!("{method} {path}?_method=POST"), &[over], body).await;
            }
        }
    }
    assert_eq!(position(&server).await, before);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_page_of_another_site_posts_in_vain_whatever_it_calls_its_content() {
    let server = start(&[]).await;
    let before = position(&server).await;
    for content in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json",
    ] {
        for site in [
            "sec-fetch-site: cross-site",
            "sec-fetch-site: same-site",
            "origin: https://evil.example",
            "origin: null",
        ] {
            let headers = [&format!("content-type: {content}"), site, "cookie: a=b"];
            let answer = send(&server, "POST /v1/queues/mail/jobs", &headers, br#"{"body":1}"#).await;
            assert_eq!((answer.status, answer.code().as_str()), (403, "cross_site"), "{headers:?}");
            assert!(!answer.head.contains("access-control"), "{}", answer.head);
        }
    }
    let asked = ["origin: https://evil.example", "access-control-request-method: POST"];
    assert_eq!(send(&server, "OPTIONS /v1/queues/mail/jobs", &asked, b"").await.status, 403);
    assert_eq!(position(&server).await, before);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn pages_and_cursors_at_their_extremes_are_cut_or_refused() {
    let server = start(&[]).await;
    let jobs: Vec<_> = (0..3).map(|n| json!({"queue": format!("q{n}"), "body": n})).collect();
    call(&server, "POST /v1/push", &json!({ "jobs": jobs }).to_string()).await;
    for (query, status) in [
        ("limit=0", 200),
        ("limit=1000000", 200),
        ("limit=18446744073709551616", 422),
        ("limit=-1", 422),
        ("limit=1e3", 422),
        ("limit=", 422),
        ("limit=1&limit=2", 422),
        ("limit=%00", 422),
        ("cursor=", 400),
        ("cursor=zz", 400),
        ("cursor=%00", 400),
        ("cursor=00000000000000000000", 400),
    ] {
        let answer = call(&server, &format!("GET /v1/queues?{query}"), "").await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text);
    }
    let long = "f".repeat(60_000);
    assert_eq!(call(&server, &format!("GET /v1/queues?cursor={long}"), "").await.status, 400);
    let cursor = call(&server, "GET /v1/queues?limit=1", "").await.json()["cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    let elsewhere = call(&server, &format!("GET /v1/schedules?cursor={cursor}"), "").await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (400, "bad_cursor"));
    for at in 0..cursor.len() {
        let mut altered = cursor.to_owned().into_bytes();
        altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
        let altered = String::from_utf8(altered).unwrap();
        assert_eq!(call(&server, &format!("GET /v1/queues?cursor={altered}"), "").await.status, 400);
    }
    server.stop().await.unwrap();
}

/// One line for each file of JSONTestSuite (see the licence beside it): what is demanded, its name, its bytes; `N*` repeats what follows.
const JSON_TEST_SUITE: &str = include_str!("fixtures/json_test_suite.txt");

fn bytes(hex: &str) -> Vec<u8> {
    hex.split('+')
        .flat_map(|part| {
            let (times, hex) = part.split_once('*').unwrap_or(("1", part));
            let one: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
                .collect();
            one.repeat(times.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn the_json_test_suite_is_judged_as_it_demands() {
    let server = start(&[]).await;
    let mut judged = [0; 3];
    for line in JSON_TEST_SUITE.lines().filter(|line| !line.starts_with('#')) {
        let (name, hex) = line.split_once(' ').unwrap();
        let mut body = b"{\"body\":".to_vec();
        body.extend(bytes(hex));
        body.push(b'}');
        let answer = send(&server, "POST /v1/queues/q/jobs", &[], &body).await;
        let refused = (400, "invalid_json".to_owned());
        match name.as_bytes()[0] {
            b'y' => {
                assert_eq!(answer.status, 201, "{name}: {}", answer.text);
                judged[0] += 1;
            }
            b'n' => {
                assert_eq!((answer.status, answer.code()), refused, "{name}");
                judged[1] += 1;
            }
            _ => {
                assert!(
                    answer.status == 201 || (answer.status, answer.code()) == refused,
                    "{name}: {}",
                    answer.text
                );
                judged[2] += 1;
            }
        }
    }
    assert_eq!(judged, [95, 188, 35]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn nesting_costs_nothing_and_is_refused_beyond_128() {
    let server = start(&[]).await;
    let deep =
        |open: &str, close: &str, depth: usize| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let push = "POST /v1/queues/q/jobs";
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        for (depth, status) in [(127, 201), (100_000, 400)] {
            let body = format!("{{\"body\":{}}}", deep(open, close, depth));
            let answer = call(&server, push, &body).await;
            assert_eq!(
                answer.status,
                status,
                "{open} {depth}: {}",
                &answer.text[..answer.text.len().min(300)]
            );
        }
        for (line, field) in [
            (push, "tags"),
            (push, "meta"),
            (push, "backoff"),
            ("POST /v1/joins", "joins"),
            ("PUT /v1/schedules/s", "job"),
            ("PATCH /v1/queues/q", "capacity"),
            ("POST /v1/queues/q/operations", "body"),
        ] {
            let body = format!("{{\"{field}\":{}}}", deep(open, close, 100_000));
            let answer = call(&server, line, &body).await;
            assert!(matches!(answer.status, 400 | 422), "{line} {field}: {}", answer.status);
        }
    }
    // Other languages nest, too.
    for cron in ["1,".repeat(30_000), "*/".repeat(30_000), "(".repeat(30_000)] {
        let body = json!({"cron": format!("{cron} * * * *")}).to_string();
        let answer = call(&server, "POST /v1/schedules/preview", &body).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
    }
    let path = json!({"action": "purge", "body": [{"path": "/a".repeat(100_000), "value": 1}]}).to_string();
    assert_eq!(call(&server, "POST /v1/queues/q/operations", &path).await.status, 422);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn odd_values_are_kept_in_bodies_as_they_are_and_refused_in_fields() {
    let server = start(&[]).await;
    for body in
        ["1e400", "-0", "18446744073709551616", r#""\ud800""#, r#"{"a":1,"a":2}"#, "0.1e-999", r#""\u0000""#]
    {
        let pushed = call(&server, "POST /v1/queues/q/jobs", &format!("{{\"body\":{body}}}")).await.json();
        let path = format!("GET /v1/jobs/{}", pushed["jobs"][0]["id"].as_str().unwrap());
        let shown = call(&server, &path, "").await.text;
        assert!(shown.contains(&format!("\"body\":{body},")), "{body}: {shown}");
    }
    for fields in [
        r#""delay_ms":1e400"#,
        r#""delay_ms":18446744073709551616"#,
        r#""delay_ms":-1"#,
        r#""delay_ms":1.5"#,
        r#""priority":-0.5"#,
        r#""id":"\ud800""#,
        r#""id":"a","id":"b""#,
        r#""__proto__":{}"#,
        r#""constructor":{}"#,
    ] {
        let answer = call(&server, "POST /v1/queues/q/jobs", &format!("{{\"body\":1,{fields}}}")).await;
        assert!(matches!(answer.status, 400 | 422), "{fields}: {} {}", answer.status, answer.text);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_too_large_is_refused_before_it_is_read() {
    let server = start(&[("body-max", "1MiB")]).await;
    let head = "POST /v1/queues/q/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    for length in ["1048577", "9223372036854775807"] {
        let answer = raw(&server, format!("{head}content-length: {length}\r\n\r\n{{").as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"), "{length}");
    }
    // Without a length it is read up to the limit, in however small pieces.
    let piece = format!("400\r\n{}\r\n", "x".repeat(1_024));
    let trickled = format!("{head}transfer-encoding: chunked\r\n\r\n{}", piece.repeat(1_025));
    assert_eq!(raw(&server, trickled.as_bytes()).await.code(), "body_too_large");
    for encoding in ["gzip", "br", "zstd", "deflate", "gzip, gzip"] {
        let header = format!("content-encoding: {encoding}");
        let answer = send(&server, "POST /v1/queues/q/jobs", &[&header], b"\x1f\x8b").await;
        assert_eq!((answer.status, answer.code().as_str()), (415, "unsupported_encoding"), "{encoding}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn names_without_end_meet_their_limits() {
    let server = start(&[]).await;
    let push = "POST /v1/queues/q/jobs";
    let words: Vec<_> = (0..10_000).map(|n| format!("t{n}")).collect();
    let meta: serde_json::Map<_, _> = words.iter().map(|word| (word.clone(), json!(1))).collect();
    for body in [
        json!({"body": 1, "tags": words}),
        json!({"body": 1, "meta": meta}),
        json!({"body": 1, "limits": words}),
        json!({"body": 1, "tags": ["t".repeat(10_000)]}),
        json!({"body": 1, "group": "g".repeat(10_000)}),
        json!({"body": 1, "id": "i".repeat(10_000)}),
    ] {
        let answer = call(&server, push, &body.to_string()).await;
        assert_eq!(answer.status, 422, "{}", answer.text);
    }
    let queues = json!({"worker": "w", "queues": words});
    assert_eq!(call(&server, "POST /v1/fetch", &queues.to_string()).await.status, 422);
    let jobs: Vec<_> = (0..10_001).map(|_| json!({"queue": "q", "body": 1})).collect();
    let many = call(&server, "POST /v1/push", &json!({ "jobs": jobs }).to_string()).await;
    assert_eq!((many.status, many.code().as_str()), (422, "too_many"));

    let headers: Vec<_> = (0..200).map(|n| format!("x-{n}: 1")).collect();
    let headers: Vec<_> = headers.iter().map(String::as_str).collect();
    assert_eq!(send(&server, "GET /livez", &headers, b"").await.status, 431);
    let cookie = format!("cookie: {}", "c".repeat(100_000));
    assert_eq!(send(&server, "GET /livez", &[&cookie], b"").await.status, 431);
    let target = format!("GET /v1/queues?{}", "a".repeat(100_000));
    assert!(matches!(call(&server, &target, "").await.status, 414 | 431));

    // A million queues would be no more series than a hundred.
    let jobs: Vec<_> = (0..500).map(|n| json!({"queue": format!("many-{n}"), "body": n})).collect();
    assert_eq!(call(&server, "POST /v1/push", &json!({ "jobs": jobs }).to_string()).await.status, 201);
    let page = call(&server, "GET /metrics", "").await.text;
    assert_eq!(page.lines().filter(|line| line.starts_with("millpond_queue_paused{")).count(), 100);
    for path in ["/a", "/b", "/v1/x", "/%f0%9f"] {
        call(&server, &format!("GET {path}"), "").await;
    }
    let page = call(&server, "GET /metrics", "").await.text;
    assert!(page.contains("route=\"other\",status=\"4xx\"} 4"), "unknown paths share one series");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn paths_lead_nowhere_but_to_routes() {
    let server = start(&[]).await;
    for path in [
        "/../etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%252e%252e/etc/passwd",
        "/%c0%ae%c0%ae/etc/passwd",
        "/..\\..\\etc\\passwd",
        "/..%5c..%5cetc",
        "/etc/passwd%00.json",
        "//etc/passwd",
        "/v1/queues/..%2f..%2fmetrics",
        "/v1/queues/../../metrics",
        "/livez/../metrics",
        "/./livez",
        "/LIVEZ",
    ] {
        let answer = call(&server, &format!("GET {path}"), "").await;
        assert!(matches!(answer.status, 400 | 404 | 422), "{path}: {} {}", answer.status, answer.text);
        assert!(!answer.text.contains("root:") && !answer.text.contains("millpond_"), "{path}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_is_no_proxy_and_knows_its_methods() {
    let server = start(&[]).await;
    for (line, status) in [
        ("TRACE /livez", 405),
        ("TRACE /", 405),
        ("CONNECT evil.example:443", 421),
        ("CONNECT localhost:7077", 404),
        ("GET http://evil.example/livez", 421),
        ("GET http://evil.example@localhost/livez", 421),
        ("GET http://localhost/livez", 200),
        ("PROPFIND /v1/queues", 405),
        ("DELETE /livez", 405),
    ] {
        let answer = call(&server, line, "").await;
        assert!(answer.status == status, "{line}: {} {}", answer.status, answer.text);
        assert!(!answer.text.contains("connection: close\r\n"), "{line} is echoed");
    }
    let long = format!("{} /livez", "M".repeat(10_000));
    assert!(matches!(call(&server, &long, "").await.status, 400 | 405 | 431 | 501));
    for forwarded in
        ["x-forwarded-host: evil.example", "forwarded: host=evil.example", "x-original-url: /v1/queues"]
    {
        let answer = send(&server, "GET /livez", &[forwarded, "x-forwarded-for: 10.0.0.1"], b"").await;
        assert_eq!((answer.status, answer.json()), (200, json!({"live": true})), "{forwarded}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn line_ends_get_into_no_header_and_no_answer_is_split() {
    let server = start(&[]).await;
    let head = "GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    for header in ["x: a\rb", "x: a\nb c", "x: a\0b", "x\r: y", "millpond-actor: a\rset-cookie: b"] {
        let answer = raw(&server, format!("{head}{header}\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.status, 400, "{header:?}");
    }
    for path in
        ["/v1/queues/a%0d%0aset-cookie:%20x", "/v1/jobs/a%0d%0ax:y", "/v1/limits/%0d%0a", "/%0d%0ax:%20y"]
    {
        for method in ["GET", "POST", "DELETE"] {
            let answer = call(&server, &format!("{method} {path}"), "").await;
            assert!(answer.status < 500, "{path}");
            assert!(!answer.head.contains("set-cookie") && !answer.head.contains("x: y"), "{}", answer.head);
            assert!(serde_json::from_str::<Value>(&answer.text).is_ok(), "{}", answer.text);
        }
    }
    // Two lengths, or a length beside chunks, are two ways to read one request.
    for pair in [
        "content-length: 1\r\ncontent-length: 2",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding: xchunked",
        "content-length: +1",
        "content-length: 0x1",
    ] {
        let text = format!(
            "POST /v1/queues/q/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{pair}\r\n\r\n0\r\n\r\n"
        );
        let answer = raw(&server, text.as_bytes()).await;
        assert!(matches!(answer.status, 400 | 501), "{pair:?}: {}", answer.status);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_others_are_served() {
    let server = start(&[("send-timeout", "200ms")]).await;
    let body = format!("{{\"body\":\"{}\"}}", "x".repeat(1_000_000));
    for _ in 0..20 {
        assert_eq!(call(&server, "POST /v1/queues/q/jobs", &body).await.status, 201);
    }
    let fetch = r#"{"worker":"w","queues":["q"],"max":20}"#;
    let mut greedy = TcpStream::connect(server.addr()).await.unwrap();
    let head =
        format!("POST /v1/fetch HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", fetch.len());
    greedy.write_all((head + fetch).as_bytes()).await.unwrap();
    let connections = async || {
        let page = call(&server, "GET /metrics", "").await.text;
        page.lines()
            .find_map(|line| line.strip_prefix("millpond_http_connections ").map(str::to_owned))
            .unwrap()
    };
    // The one that asks is there itself.
    while connections().await != "2" {}
    while connections().await != "1" {}
    drop(greedy);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn one_address_does_not_take_the_places_of_all() {
    let server = start(&[("connections-per-address", "2")]).await;
    let held =
        [TcpStream::connect(server.addr()).await.unwrap(), TcpStream::connect(server.addr()).await.unwrap()];
    assert_eq!(call(&server, "GET /livez", "").await.status, 503);
    assert_eq!(send_from(9, &server, "GET /livez", &[], b"").await.status, 200);
    drop(held);
    while call(&server, "GET /livez", "").await.status != 200 {}
    server.stop().await.unwrap();
}

/// The real binary, with all that it writes.
struct Noisy {
    child: Child,
    url: String,
}

impl Noisy {
    fn start(limit: &str, more: &[&str]) -> Self {
        let script = format!("{limit} exec \"$0\" serve --memory --listen 127.0.0.1:0 \"$@\"");
        let binary = millpond();
        let mut child = std::process::Command::new("sh")
            .args(["-c", &script])
            .arg(binary.get_program())
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line
            .split([' ', ','])
            .find(|word| word.starts_with("http://"))
            .unwrap_or_else(|| panic!("{line:?}"));
        Self { url: url.to_owned(), child }
    }

    fn ask(&self, text: &str) -> String {
        let mut stream = std::net::TcpStream::connect(&self.url["http://".len()..]).unwrap();
        let _ = stream.write_all(text.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Ends it; what it wrote meanwhile.
    fn end(mut self) -> String {
        self.child.kill().unwrap();
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        self.child.wait().unwrap();
        text
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_out_of_file_descriptors_waits_and_goes_on() {
    let mut server = Noisy::start("ulimit -n 48;", &[]);
    let address = &server.url["http://".len()..];
    let crowd: Vec<_> = (0..100).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    // It waits ever longer; the same pause each time would be a loop that spins.
    let mut log = BufReader::new(server.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(log.any(|line| line.contains("cannot take connections") && line.contains("pause=80ms")));
    drop(crowd);
    let answer = server.ask("GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.end();
}

#[test]
fn no_secret_is_in_a_log_a_metric_or_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "canary-of-the-token\n").unwrap();
    let server = Noisy::start("", &["--log", "trace", "--token-file", path.to_str().unwrap()]);
    let head = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let right = "authorization: Bearer canary-of-the-token\r\n";
    let mut said = String::new();
    for (line, headers, body) in [
        ("GET /metrics", right, ""),
        ("GET /v1/queues", "authorization: Bearer canary-that-is-wrong\r\n", ""),
        ("GET /v1/queues", "authorization: Basic canary-of-basic\r\n", ""),
        ("GET /v1/queues?token=canary-in-the-query", "", ""),
        ("GET /v1/queues?canary=canary-in-the-name", right, ""),
        (
            "POST /v1/queues/q/jobs",
            right,
            "{\"body\":\"canary-of-the-body\",\"meta\":{\"k\":\"canary-of-meta\"}}",
        ),
        ("POST /v1/queues/q/jobs", right, "{\"body\":\"canary-of-what-is-broken\""),
        ("POST /v1/queues/q/jobs", right, "{\"body\":1,\"delay_ms\":\"canary-of-a-value\"}"),
        (
            "POST /v1/queues/\u{1b}[31m/jobs",
            "cookie: canary-of-a-cookie\r\nidempotency-key: canary-of-a-key\r\n",
            "",
        ),
        ("GET /livez", "x: \u{1b}[2J\u{7}canary-of-a-header\r\n", ""),
        ("GET /livez", "x: canary-of-a-header\r\nmillpond-actor: canary-of-an-actor\r\n", ""),
    ] {
        let length = body.len();
        let answer = server.ask(&format!("{line} {head}{headers}content-length: {length}\r\n\r\n{body}"));
        // What a caller sends wrong, it may be told; its credentials and its jobs it is not.
        for secret in [
            "canary-of-the-token",
            "canary-that-is-wrong",
            "canary-of-basic",
            "canary-in-the-query",
            "canary-of-the-body",
        ] {
            assert!(!answer.contains(secret), "{line}: {answer}");
        }
        said += &answer;
    }
    // The same by HTTP/2, whose library has a log of its own: settings, then a head with the token, its bytes not compressed.
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let mut block = vec![0x82, 0x86, 0x84];
    for (name, value) in [(":authority", "localhost"), ("authorization", "Bearer canary-of-the-token")] {
        block.extend([0x10, name.len() as u8]);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    frames.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    frames.extend(block);
    // Said goodbye to, it closes the connection.
    frames.extend([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut stream = std::net::TcpStream::connect(&server.url["http://".len()..]).unwrap();
    stream.write_all(&frames).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(String::from_utf8_lossy(&answer).contains("links"), "the token was taken: {answer:?}");
    let log = server.end();
    assert!(log.contains("refused at the gate"), "the log says what happens: {log}");
    assert!(!log.contains("canary"), "{}", log.lines().find(|line| line.contains("canary")).unwrap());
    assert!(!log.contains(['\u{1b}', '\u{7}']), "what a caller sends steers no terminal");
    for page in ["live", "millpond_log_position"] {
        assert!(said.contains(page), "{page}");
    }
}

#[tokio::test]
async fn who_is_not_known_learns_no_version_and_no_more_than_that_it_lives() {
    let server = start(&[("token", support::TOKEN)]).await;
    let version = env!("CARGO_PKG_VERSION");
    for path in ["/", "/metrics", "/openapi.json", "/v1/queues", "/nothing", "/livez", "/readyz"] {
        let answer = call(&server, &format!("GET {path}"), "").await;
        assert!(
            !answer.text.contains(version) && !answer.head.contains("server:"),
            "{path}: {}",
            answer.text
        );
        let probe = matches!(path, "/livez" | "/readyz");
        assert_eq!(answer.status, if probe { 200 } else { 401 }, "{path}");
    }
    assert_eq!(call(&server, "GET /readyz", "").await.json(), json!({"ready": true}));
    server.stop().await.unwrap();
}

#[test]
fn the_table_of_what_is_refused_names_tests_that_are_there() {
    let page = include_str!("../../../docs/security.md");
    let tests = [
        include_str!("hostile.rs"),
        include_str!("access.rs"),
        include_str!("tls.rs"),
        include_str!("api.rs"),
        include_str!("cli_commands.rs"),
        include_str!("../src/config/tests.rs"),
    ];
    let rows =
        page.lines().skip_while(|line| *line != "## What is refused").filter(|line| line.starts_with("| "));
    let mut named = 0;
    for row in rows.skip(1) {
        let last = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
        for name in last.split('`').skip(1).step_by(2) {
            assert!(
                tests.iter().any(|text| text.contains(&format!("fn {name}("))),
                "{name} is no test: {row}"
            );
            named += 1;
        }
    }
    assert!(named > 15, "{named} tests are named");
}
