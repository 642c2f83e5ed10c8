//! A server in memory and the smallest client that can talk to it, so that tests see the very bytes.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and all of it is test code")]

use serde_json::Value;
use server::{
    config::{Config, Sources},
    serve::Server,
};
use std::net::Ipv4Addr;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

pub(crate) const TOKEN: &str = "a token of some length";

pub(crate) async fn start(settings: &[(&str, &str)]) -> Server {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut flags: Vec<_> = [("listen", "127.0.0.1:0"), ("memory", "true")].iter().map(own).collect();
    flags.extend(settings.iter().map(own));
    let config = Config::load(&Sources { flags, ..Sources::default() }).unwrap();
    Server::start(&config).await.unwrap()
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn json_or_null(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One request on a connection of its own; `headers` are whole lines.
pub(crate) async fn send(server: &Server, line: &str, headers: &[&str], body: &[u8]) -> Answer {
    let stream = TcpStream::connect(server.addr()).await.unwrap();
    send_over(stream, server, line, headers, body).await
}

/// The same from one of the addresses of this machine: 127.0.0.0 and so many.
pub(crate) async fn send_from(
    from: u32,
    server: &Server,
    line: &str,
    headers: &[&str],
    body: &[u8],
) -> Answer {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(0x7f00_0000 + from), 0).into()).unwrap();
    send_over(socket.connect(server.addr()).await.unwrap(), server, line, headers, body).await
}

async fn send_over(
    mut stream: TcpStream,
    server: &Server,
    line: &str,
    headers: &[&str],
    body: &[u8],
) -> Answer {
    let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|header| header.to_lowercase().starts_with("host:")) {
        head.push_str(&format!("host: {}\r\n", server.addr()));
    }
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body);
    // A refused request may be answered before all of it is read.
    let _ = stream.write_all(&bytes).await;
    // A stream of events would not end by itself, once it was opened.
    if line.contains("GET /v1/events") {
        read_head(&mut stream).await
    } else {
        read_answer(&mut stream).await
    }
}

async fn read_head(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") && stream.read_buf(&mut bytes).await.unwrap() > 0
    {
    }
    answer(&bytes)
}

pub(crate) async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    answer(&bytes)
}

fn answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, text) = text.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_lowercase(), text: text.to_owned() }
}

pub(crate) async fn call(server: &Server, line: &str, body: &str) -> Answer {
    send(server, line, &[], body.as_bytes()).await
}

/// A path with something in each of its places.
pub(crate) fn concrete(path: &str) -> String {
    path.replace("{queue}", "mail")
        .replace("{id}", "7")
        .replace("{worker}", "w1")
        .replace("{key}", "api")
        .replace("{group}", "g")
}
