use super::{Language, Peer, Session};
use crate::{
    client::now_us,
    error::{Error, Result},
    install::{Store, run},
    native::{Local, Native, Producer},
    plan::Durability,
    server::{Server, command, free_port},
    sink::Sink,
};
use futures_util::future::BoxFuture;
use std::{fmt::Write as _, fs, path::Path, process::Command, sync::Arc};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    task::JoinSet,
};

/// Connections of a worker at most. The server has one thread: more of them only cost it calls of the system.
const CONNECTIONS_MAX: usize = 8;
/// Jobs that a connection reserves in one go at least, so that one handler does not wait for each.
const AHEAD: usize = 100;
/// Seconds that a job may take.
const TIME_TO_RUN: u32 = 120;

/// The protocol has no command for many jobs, but takes commands one behind the other without waiting for answers: that is how it
/// is fast, so calls in bulk and workers are pipelined.
pub(crate) struct Beanstalkd;

impl Peer for Beanstalkd {
    fn name(&self) -> &'static str {
        "beanstalkd"
    }

    fn language(&self) -> Language {
        Language::Rust
    }

    fn setting(&self, durability: Durability) -> &'static str {
        match durability {
            Durability::Flushed => "`-b DIR -f0`",
            Durability::Default => "no log",
        }
    }

    fn has_delays(&self) -> bool {
        true
    }

    fn install(&self, store: &Store) -> Result<String> {
        let program = store.debian("beanstalkd")?.path("usr/bin/beanstalkd");
        Ok(format!("{}, pipelined over TCP", run(Command::new(program).arg("-v"))?.trim()))
    }

    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let port = free_port()?;
            let mut serve = command(store.debian("beanstalkd")?.path("usr/bin/beanstalkd"));
            serve.args(["-l", "127.0.0.1", "-p", &port.to_string()]);
            if durability == Durability::Flushed {
                let log = folder.join("log");
                fs::create_dir(&log)?;
                serve.arg("-b").arg(log).arg("-f0");
            }
            let server = Server::start(serve, folder)?.listens(port)?;
            Ok(Session { client: Local::boxed(Remote { port }), server })
        })
    }
}

struct Remote {
    port: u16,
}

impl Native for Remote {
    type Producer = Caller;

    async fn producer(&self, queue: &str) -> Result<Caller> {
        let mut connection = Connection::open(self.port).await?;
        connection.write(format!("use {queue}\r\n").as_bytes()).await?;
        connection.expect("USING").await?;
        Ok(Caller { connection })
    }

    async fn work(&self, queue: &str, handlers: usize, sink: Arc<Sink>) -> Result<()> {
        let connections = handlers.min(CONNECTIONS_MAX);
        let mut workers = JoinSet::new();
        for _ in 0..connections {
            let mut connection = Connection::open(self.port).await?;
            connection.write(format!("watch {queue}\r\nignore default\r\n").as_bytes()).await?;
            connection.expect("WATCHING").await?;
            connection.expect("WATCHING").await?;
            let (sink, ahead) = (sink.clone(), AHEAD.max(handlers / connections));
            workers.spawn(async move {
                let mut worker = Worker { connection, ahead, handled: Vec::new() };
                tokio::select! {
                    ended = worker.run(&sink) => ended,
                    () = sink.full() => Ok(()),
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended.map_err(Error::client)??;
        }
        Ok(())
    }

    async fn waiting(&self, queue: &str) -> Result<u64> {
        let mut connection = Connection::open(self.port).await?;
        connection.write(format!("stats-tube {queue}\r\n").as_bytes()).await?;
        let answer = connection.line().await?;
        let Some(bytes) = answer.strip_prefix("OK ") else { return Ok(0) };
        let stats = connection.data(bytes.parse().map_err(Error::client)?).await?;
        let stats = String::from_utf8_lossy(&stats);
        let counts = stats.lines().filter_map(|line| {
            let (name, count) = line.split_once(": ")?;
            let live =
                ["current-jobs-ready", "current-jobs-reserved", "current-jobs-delayed"].contains(&name);
            live.then(|| count.parse::<u64>().ok())?
        });
        Ok(counts.sum())
    }

    /// Delays are whole seconds, counted from the call.
    fn due_us(&self, wanted_us: u64) -> u64 {
        let now = now_us();
        now + wanted_us.saturating_sub(now).div_ceil(1_000_000) * 1_000_000
    }
}

struct Caller {
    connection: Connection,
}

impl Producer for Caller {
    async fn push(&mut self, bodies: &[String], due_us: &[u64]) -> Result<()> {
        let mut text = String::with_capacity(bodies.iter().map(|body| body.len() + 40).sum());
        let now = now_us();
        for (place, body) in bodies.iter().enumerate() {
            let delay = due_us.get(place).map_or(0, |due| (due.saturating_sub(now) + 500_000) / 1_000_000);
            // Writing to a string does not fail.
            let _ = write!(text, "put 100 {delay} {TIME_TO_RUN} {}\r\n{body}\r\n", body.len());
        }
        self.connection.write(text.as_bytes()).await?;
        for _ in bodies {
            self.connection.expect("INSERTED").await?;
        }
        Ok(())
    }
}

struct Worker {
    connection: Connection,
    ahead: usize,
    /// Jobs to be deleted.
    handled: Vec<u64>,
}

impl Worker {
    /// Goes on until it is dropped.
    async fn run(&mut self, sink: &Sink) -> Result<()> {
        // As many as came the last time and more: an idle queue is not asked a hundred times for nothing.
        let mut asked = 1;
        loop {
            let mut text = String::new();
            for id in &self.handled {
                let _ = write!(text, "delete {id}\r\n");
            }
            // The first waits for a job, and the others take what is there then.
            text.push_str("reserve\r\n");
            text.push_str(&"reserve-with-timeout 0\r\n".repeat(asked - 1));
            self.connection.write(text.as_bytes()).await?;
            for _ in &self.handled {
                self.connection.expect("DELETED").await?;
            }
            sink.acknowledged(self.handled.len());
            self.handled.clear();
            for _ in 0..asked {
                let answer = self.connection.line().await?;
                if answer == "TIMED_OUT" {
                    continue;
                }
                let mut words = answer.split(' ');
                let (Some("RESERVED"), Some(id), Some(bytes)) = (words.next(), words.next(), words.next())
                else {
                    return Err(Error::client(answer));
                };
                let id = id.parse().map_err(Error::client)?;
                let body = self.connection.data(bytes.parse().map_err(Error::client)?).await?;
                sink.handle(&body);
                self.handled.push(id);
            }
            asked = (self.handled.len() * 2).clamp(1, self.ahead);
        }
    }
}

struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream) })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes).await?)
    }

    /// One line without its end.
    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(Error::client("beanstalkd closed the connection"));
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    async fn expect(&mut self, word: &str) -> Result<()> {
        let line = self.line().await?;
        if line.starts_with(word) { Ok(()) } else { Err(Error::client(format!("{line} instead of {word}"))) }
    }

    /// So many bytes and the end of their line.
    async fn data(&mut self, bytes: usize) -> Result<Vec<u8>> {
        let mut data = vec![0; bytes + 2];
        self.stream.read_exact(&mut data).await?;
        data.truncate(bytes);
        Ok(data)
    }
}
