//! The smallest Faktory client, so that tests see the very lines.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and all of it is test code")]

use serde_json::Value;
use server::serve::Server;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

pub(crate) async fn start(settings: &[(&str, &str)]) -> Server {
    let own = [("faktory", "127.0.0.1:0")];
    crate::support::start(&[&own, settings].concat()).await
}

/// One connection.
pub(crate) struct Wire<S = TcpStream> {
    stream: BufReader<S>,
    /// The server's first line.
    pub(crate) hi: String,
}

impl Wire {
    pub(crate) async fn connect(server: &Server) -> Wire {
        Wire::over(TcpStream::connect(server.faktory_addr().unwrap()).await.unwrap()).await
    }

    /// A producer.
    pub(crate) async fn client(server: &Server) -> Wire {
        let mut wire = Wire::connect(server).await;
        assert_eq!(wire.say(r#"HELLO {"v":2}"#).await, "+OK");
        wire
    }

    /// A worker process of this id.
    pub(crate) async fn worker(server: &Server, wid: &str) -> Wire {
        let mut wire = Wire::connect(server).await;
        let hello = format!(r#"HELLO {{"v":2,"wid":"{wid}","hostname":"h","pid":1,"labels":["test"]}}"#);
        assert_eq!(wire.say(&hello).await, "+OK");
        wire
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Wire<S> {
    pub(crate) async fn over(stream: S) -> Wire<S> {
        let mut wire = Wire { stream: BufReader::new(stream), hi: String::new() };
        wire.hi = wire.hear().await;
        wire
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // It may be answered and closed before all of it is read.
        let _ = self.stream.get_mut().write_all(bytes).await;
    }

    /// The next answer: its line, or what a bulk holds; empty when the server has closed the connection.
    pub(crate) async fn hear(&mut self) -> String {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return String::new();
        }
        let line = line.trim_end().to_owned();
        match line.strip_prefix('$').map(|length| length.parse::<usize>()) {
            Some(Ok(length)) => {
                let mut bytes = vec![0; length + 2];
                self.stream.read_exact(&mut bytes).await.unwrap();
                bytes.truncate(length);
                String::from_utf8(bytes).unwrap()
            }
            _ => line,
        }
    }

    pub(crate) async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.hear().await
    }

    pub(crate) async fn json(&mut self, line: &str) -> Value {
        let text = self.say(line).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    /// Pushes a job with these fields beside those that every job has.
    pub(crate) async fn push(&mut self, jid: &str, more: &str) -> String {
        self.say(&format!("PUSH {}", job(jid, more))).await
    }

    /// The id of the job that this fetch brings.
    pub(crate) async fn fetch(&mut self, queues: &str) -> Option<String> {
        let text = self.say(&format!("FETCH {queues}")).await;
        let job: Value = serde_json::from_str(&text).ok()?;
        job["jid"].as_str().map(str::to_owned)
    }
}

pub(crate) fn job(jid: &str, more: &str) -> String {
    format!(r#"{{"jid":"{jid}","jobtype":"mail","args":[1,"two"]{more}}}"#)
}

/// What a client shows for a password, by what the server said.
pub(crate) fn pwdhash(hi: &str, password: &str) -> String {
    let said: Value = serde_json::from_str(hi.strip_prefix("+HI ").unwrap()).unwrap();
    let mut hash = format!("{password}{}", said["s"].as_str().unwrap()).into_bytes();
    for _ in 0..said["i"].as_u64().unwrap() {
        hash = Sha256::digest(&hash).to_vec();
    }
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
