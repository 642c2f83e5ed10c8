use super::{Language, Peer, Session};
use crate::{
    error::{Error, Result},
    install::{Debian, Store, run},
    native::{Local, Native, Producer},
    plan::Durability,
    server::{Server, command, free_port},
    sink::Sink,
};
use futures_util::{StreamExt, future::BoxFuture};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use std::{
    env, fs,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::task::JoinSet;

/// Connections of all producers, and of a worker: each is a process of the server, and there are few cores.
const CONNECTIONS: usize = 4;
/// Deliveries ahead of their acknowledgement; its authors advise 100 to 300 for throughput.
const PREFETCH: u16 = 300;
/// Survives a restart of the server.
const PERSISTENT: u8 = 2;
const SERVER: &str = "usr/lib/rabbitmq/lib";

/// Publishers confirm, many messages at a time; consumers acknowledge what has come with one `multiple`.
pub(crate) struct RabbitMq;

impl Peer for RabbitMq {
    fn name(&self) -> &'static str {
        "rabbitmq"
    }

    fn language(&self) -> Language {
        Language::Rust
    }

    fn setting(&self, durability: Durability) -> &'static str {
        match durability {
            Durability::Flushed => "quorum queue, one node, persistent messages, confirms",
            Durability::Default => "classic queue, transient messages, confirms",
        }
    }

    /// Without a plugin there is only a time to live in front of a second queue.
    fn has_delays(&self) -> bool {
        false
    }

    fn install(&self, store: &Store) -> Result<String> {
        let debian = store.debian("rabbitmq-server")?;
        // The script of the runtime names the folder where Debian puts it.
        let script = debian.path("usr/lib/erlang/bin/erl");
        let text = fs::read_to_string(&script)?;
        let here = format!("ROOTDIR={}", debian.path("usr/lib/erlang").display());
        fs::write(&script, text.replace("ROOTDIR=/usr/lib/erlang\n", &format!("{here}\n")))?;
        Ok(format!("RabbitMQ {}, lapin 4", version(&debian)?))
    }

    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let debian = store.debian("rabbitmq-server")?;
            let (port, names, nodes) = (free_port()?, free_port()?, free_port()?);
            // Of its own and not a daemon, so that it ends with the server.
            let mut epmd = command(debian.path("usr/bin/epmd"));
            epmd.args(["-address", "127.0.0.1", "-port", &names.to_string()]);
            let epmd = Server::start(epmd, folder)?.listens(names)?;
            let (config, plugins) = (folder.join("rabbitmq.conf"), folder.join("plugins"));
            fs::write(&config, format!("listeners.tcp.1 = 127.0.0.1:{port}\n"))?;
            fs::write(&plugins, "[].\n")?;
            let program = format!("{SERVER}/rabbitmq_server-{}/sbin/rabbitmq-server", version(&debian)?);
            let mut serve = command(debian.path(&program));
            let path = env::var("PATH").unwrap_or_default();
            serve.env("PATH", format!("{}:{path}", debian.path("usr/lib/erlang/bin").display()));
            serve.env("LD_LIBRARY_PATH", debian.libraries()).env("HOME", folder);
            serve.env("ERL_EPMD_ADDRESS", "127.0.0.1").env("ERL_EPMD_PORT", names.to_string());
            serve.env("RABBITMQ_NODENAME", "peer@localhost").env("RABBITMQ_DIST_PORT", nodes.to_string());
            serve
                .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
                .env("RABBITMQ_LOG_BASE", folder.join("log"));
            serve.env("RABBITMQ_CONFIG_FILE", config).env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins);
            serve
                .env("RABBITMQ_PID_FILE", folder.join("pid"))
                .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"));
            let server = Server::start(serve, folder)?.listens(port)?.with(epmd);
            let mut connections = Vec::new();
            for _ in 0..CONNECTIONS {
                connections.push(connect(port).await?);
            }
            let remote = Remote { port, durability, connections, next: AtomicUsize::new(0) };
            Ok(Session { client: Local::boxed(remote), server })
        })
    }
}

/// As the unpacked folder is named.
fn version(debian: &Debian) -> Result<String> {
    let listed = run(Command::new("ls").arg(debian.path(SERVER)))?;
    let found = listed.lines().find_map(|name| name.strip_prefix("rabbitmq_server-"));
    found.map(str::to_owned).ok_or_else(|| Error::client("the package holds no server"))
}

async fn connect(port: u16) -> Result<Connection> {
    let url = format!("amqp://127.0.0.1:{port}/%2f");
    Connection::connect(&url, ConnectionProperties::default()).await.map_err(Error::client)
}

struct Remote {
    port: u16,
    durability: Durability,
    connections: Vec<Connection>,
    next: AtomicUsize,
}

impl Remote {
    async fn channel(&self) -> Result<Channel> {
        let place = self.next.fetch_add(1, Relaxed) % self.connections.len();
        self.connections[place].create_channel().await.map_err(Error::client)
    }

    async fn declare(&self, channel: &Channel, queue: &str) -> Result<u32> {
        let mut arguments = FieldTable::default();
        let kind = if self.durability == Durability::Flushed { "quorum" } else { "classic" };
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.queue_declare(queue.into(), options, arguments).await;
        Ok(declared.map_err(Error::client)?.message_count())
    }
}

impl Native for Remote {
    type Producer = Caller;

    async fn producer(&self, queue: &str) -> Result<Caller> {
        let channel = self.channel().await?;
        self.declare(&channel, queue).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(Error::client)?;
        let properties = match self.durability {
            Durability::Flushed => BasicProperties::default().with_delivery_mode(PERSISTENT),
            Durability::Default => BasicProperties::default(),
        };
        Ok(Caller { channel, queue: queue.to_owned(), properties })
    }

    async fn work(&self, queue: &str, handlers: usize, sink: Arc<Sink>) -> Result<()> {
        self.declare(&self.channel().await?, queue).await?;
        let mut workers = JoinSet::new();
        for _ in 0..handlers.min(CONNECTIONS) {
            let (port, sink, queue) = (self.port, sink.clone(), queue.to_owned());
            workers.spawn(async move { consume(port, &queue, &sink).await });
        }
        while let Some(ended) = workers.join_next().await {
            ended.map_err(Error::client)??;
        }
        Ok(())
    }

    /// Those that are ready; what was out without an acknowledgement is ready again when a worker has closed its connection.
    async fn waiting(&self, queue: &str) -> Result<u64> {
        Ok(self.declare(&self.channel().await?, queue).await?.into())
    }

    async fn clear(&self, queue: &str) -> Result<()> {
        let channel = self.channel().await?;
        channel
            .queue_delete(queue.into(), QueueDeleteOptions::default())
            .await
            .map(drop)
            .map_err(Error::client)
    }
}

async fn consume(port: u16, queue: &str, sink: &Sink) -> Result<()> {
    let connection = connect(port).await?;
    let channel = connection.create_channel().await.map_err(Error::client)?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(Error::client)?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await;
    let mut deliveries = consumer.map_err(Error::client)?.ready_chunks(PREFETCH.into());
    loop {
        let chunk = tokio::select! {
            chunk = deliveries.next() => chunk.ok_or_else(|| Error::client("the consumer was cancelled"))?,
            () = sink.full() => break,
        };
        let count = chunk.len();
        let mut last = None;
        for delivery in chunk {
            let delivery = delivery.map_err(Error::client)?;
            sink.handle(&delivery.data);
            last = Some(delivery);
        }
        if let Some(last) = last {
            last.ack(BasicAckOptions { multiple: true }).await.map_err(Error::client)?;
            sink.acknowledged(count);
        }
    }
    connection.close(200, "done".into()).await.map_err(Error::client)
}

struct Caller {
    channel: Channel,
    queue: String,
    properties: BasicProperties,
}

impl Producer for Caller {
    async fn push(&mut self, bodies: &[String], _: &[u64]) -> Result<()> {
        let mut confirms = Vec::with_capacity(bodies.len());
        for body in bodies {
            let options = BasicPublishOptions::default();
            let (queue, properties) = (self.queue.as_str().into(), self.properties.clone());
            let sent =
                self.channel.basic_publish("".into(), queue, options, body.as_bytes(), properties).await;
            confirms.push(sent.map_err(Error::client)?);
        }
        for confirm in confirms {
            match confirm.await.map_err(Error::client)? {
                Confirmation::Ack(None) => {}
                other => return Err(Error::client(format!("not confirmed: {other:?}"))),
            }
        }
        Ok(())
    }
}
