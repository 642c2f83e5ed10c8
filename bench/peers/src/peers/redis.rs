use super::{Language, Peer, Session};
use crate::{
    error::{Error, Result},
    install::{Store, run},
    native::{Local, Native, Producer},
    plan::Durability,
    server::{Server, command, free_port},
    sink::Sink,
};
use futures_util::future::BoxFuture;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection, streams::StreamReadReply};
use std::{path::Path, process::Command, sync::Arc};
use tokio::task::JoinSet;

/// Connections of a worker at most.
const CONNECTIONS_MAX: usize = 8;
/// Entries of one read: what is read ahead is acknowledged together.
const AHEAD: usize = 100;
const GROUP: &str = "workers";

/// A stream with a consumer group: `XADD`, `XREADGROUP`, `XACK` and, so that memory does not grow for ever, `XDEL`; calls in bulk are
/// pipelined. Nothing is retried and nothing delayed: it is the floor of what a queue on Redis costs.
pub(crate) struct Streams;

impl Peer for Streams {
    fn name(&self) -> &'static str {
        "redis-streams"
    }

    fn language(&self) -> Language {
        Language::Rust
    }

    fn setting(&self, durability: Durability) -> &'static str {
        setting(durability)
    }

    fn has_delays(&self) -> bool {
        false
    }

    fn install(&self, store: &Store) -> Result<String> {
        Ok(format!("{}, redis-rs 1.8", version(store)?))
    }

    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let (server, port) = serve(store, durability, folder)?;
            let client = Client::open(("127.0.0.1", port)).map_err(Error::client)?;
            let shared = connect(&client).await?;
            Ok(Session { client: Local::boxed(Remote { client, shared }), server })
        })
    }
}

pub(super) fn setting(durability: Durability) -> &'static str {
    match durability {
        Durability::Flushed => "`appendonly yes`, `appendfsync always`",
        Durability::Default => "snapshots only",
    }
}

pub(super) fn version(store: &Store) -> Result<String> {
    let debian = store.debian("redis-server")?;
    let mut say = Command::new(debian.path("usr/bin/redis-server"));
    let said = run(say.arg("--version").env("LD_LIBRARY_PATH", debian.libraries()))?;
    let version = said.split(' ').find_map(|word| word.strip_prefix("v=")).unwrap_or_default();
    Ok(format!("Redis {version}"))
}

pub(super) fn serve(store: &Store, durability: Durability, folder: &Path) -> Result<(Server, u16)> {
    let debian = store.debian("redis-server")?;
    let port = free_port()?;
    let mut serve = command(debian.path("usr/bin/redis-server"));
    serve.env("LD_LIBRARY_PATH", debian.libraries());
    serve.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(folder);
    if durability == Durability::Flushed {
        serve.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    }
    Ok((Server::start(serve, folder)?.listens(port)?, port))
}

/// A read that waits must not be cut off by the client's own limit.
async fn connect(client: &Client) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(Error::client)
}

/// Callers share a connection, which pipelines what they ask at the same time.
struct Remote {
    client: Client,
    shared: MultiplexedConnection,
}

impl Native for Remote {
    type Producer = Caller;

    async fn producer(&self, queue: &str) -> Result<Caller> {
        Ok(Caller { connection: self.shared.clone(), queue: queue.to_owned() })
    }

    async fn work(&self, queue: &str, handlers: usize, sink: Arc<Sink>) -> Result<()> {
        let mut create = redis::cmd("XGROUP");
        create.arg("CREATE").arg(queue).arg(GROUP).arg("0").arg("MKSTREAM");
        create.query_async::<()>(&mut self.shared.clone()).await.map_err(Error::client)?;
        let mut workers = JoinSet::new();
        for place in 0..handlers.min(CONNECTIONS_MAX) {
            let connection = connect(&self.client).await?;
            let (sink, queue) = (sink.clone(), queue.to_owned());
            workers.spawn(async move {
                tokio::select! {
                    ended = consume(connection, &queue, place, &sink) => ended,
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
        redis::cmd("XLEN").arg(queue).query_async(&mut self.shared.clone()).await.map_err(Error::client)
    }

    async fn clear(&self, queue: &str) -> Result<()> {
        redis::cmd("UNLINK").arg(queue).query_async(&mut self.shared.clone()).await.map_err(Error::client)
    }
}

/// Goes on until it is dropped.
async fn consume(
    mut connection: MultiplexedConnection,
    queue: &str,
    place: usize,
    sink: &Sink,
) -> Result<()> {
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP").arg(GROUP).arg(place).arg("COUNT").arg(AHEAD).arg("BLOCK").arg(1_000);
    read.arg("STREAMS").arg(queue).arg(">");
    loop {
        let reply: StreamReadReply = read.query_async(&mut connection).await.map_err(Error::client)?;
        let entries = reply.keys.first().map_or(&[][..], |key| &key.ids);
        if entries.is_empty() {
            continue;
        }
        for entry in entries {
            if let Some(redis::Value::BulkString(body)) = entry.map.get("b") {
                sink.handle(body);
            }
        }
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
        let mut acknowledge = redis::pipe();
        acknowledge.cmd("XACK").arg(queue).arg(GROUP).arg(&ids).cmd("XDEL").arg(queue).arg(&ids);
        let (acknowledged, _): (usize, usize) =
            acknowledge.query_async(&mut connection).await.map_err(Error::client)?;
        sink.acknowledged(acknowledged);
    }
}

struct Caller {
    connection: MultiplexedConnection,
    queue: String,
}

impl Producer for Caller {
    async fn push(&mut self, bodies: &[String], _: &[u64]) -> Result<()> {
        let mut add = redis::pipe();
        for body in bodies {
            add.cmd("XADD").arg(&self.queue).arg("*").arg("b").arg(body).ignore();
        }
        add.query_async(&mut self.connection).await.map_err(Error::client)
    }
}
