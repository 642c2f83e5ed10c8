use super::{metrics::Metrics, problem::Problem, rates::Rates, request_id::RequestIds, stream::Streams};
use crate::{access::Keeper, disk::Disk, memory, registry::Registry};
use kit::{Durability, Millis};
use model::Command;
use node::{Answer, Handle};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, watch};

/// What the HTTP side obeys. See [`crate::config::Config`] for the meaning of each.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The listener is on a loopback address: only local host names are answered.
    pub loopback: bool,
    /// More host names that are ours.
    pub hosts: Vec<String>,
    /// The level of a call that does not say.
    pub durability: Durability,
    /// Bytes of one request's body.
    pub body_bytes_max: usize,
    /// Bytes of memory that the process may use, if there is a limit.
    pub memory: Option<u64>,
    /// A body must have arrived within this.
    pub body_timeout: Duration,
    /// The longest wait of a fetch or a push.
    pub wait_ms_max: Millis,
}

/// Bytes of request bodies in memory at once; who comes then waits, and is refused after a second.
const BODIES_BYTES_MAX: usize = 256 << 20;

impl Rules {
    /// The same within this memory: an eighth of it may be bodies of requests that are being read.
    pub fn within(self, memory: Option<u64>) -> Self {
        let body_bytes_max =
            share(memory).map_or(self.body_bytes_max, |share| share.min(self.body_bytes_max));
        Self { memory, body_bytes_max, ..self }
    }

    fn bodies_bytes_max(&self) -> usize {
        share(self.memory).map_or(BODIES_BYTES_MAX, |share| share.min(BODIES_BYTES_MAX))
    }
}

fn share(memory: Option<u64>) -> Option<usize> {
    memory.map(|memory| usize::try_from(memory / 8).unwrap_or(usize::MAX))
}

/// What every handler shares. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// The one state behind all clones of an [`App`].
pub struct Shared {
    pub(crate) node: Handle,
    pub(crate) rules: Rules,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) metrics: Metrics,
    pub(crate) disk: Disk,
    pub(crate) request_ids: RequestIds,
    pub(crate) rates: Rates,
    pub(crate) bodies: Arc<Semaphore>,
    /// One backup at a time.
    pub(crate) backups: Arc<Semaphore>,
    pub(crate) streams: Streams,
    pub(crate) registry: Arc<Registry>,
    stopping: watch::Sender<bool>,
}

impl std::ops::Deref for App {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// An API over `node`, for those whom the keeper lets in.
    pub fn new(node: Handle, rules: Rules, keeper: Arc<Keeper>) -> Self {
        let bodies = Arc::new(Semaphore::new(rules.bodies_bytes_max() >> 10));
        Self(Arc::new(Shared {
            node,
            rules,
            keeper,
            metrics: Metrics::default(),
            disk: Disk::default(),
            request_ids: RequestIds::new(),
            rates: Rates::default(),
            bodies,
            backups: Arc::new(Semaphore::new(1)),
            streams: Streams::default(),
            registry: Arc::default(),
            stopping: watch::Sender::new(false),
        }))
    }

    /// Lets long polls, event streams and waits for room end; everything else goes on.
    pub fn begin_stop(&self) {
        self.node.end_waits();
        self.stopping.send_replace(true);
    }

    /// Resolves once [`App::begin_stop`] was called.
    pub(crate) async fn stopping(&self) {
        // The sender lives as long as this App, so waiting cannot fail.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    pub(crate) async fn call(&self, call: super::extract::Call, command: Command) -> Result<Answer, Problem> {
        let level = call.level;
        let envelope = call.envelope(self, command).await?;
        Ok(self.node.call(envelope, level).await?)
    }

    /// Watches the disk of the data directory until the server stops.
    pub async fn watch_disk(&self, folder: PathBuf, low: u64) {
        tokio::select! {
            () = self.disk.watch(folder, low) => {}
            () = self.stopping() => {}
        }
    }

    /// Watches the memory of the process until the server stops, if there is a limit.
    pub async fn watch_memory(&self) {
        let Some(limit) = self.rules.memory else { return };
        tokio::select! {
            () = memory::watch(limit, |short| self.node.short_of_memory(short)) => {}
            () = self.stopping() => {}
        }
    }

    /// Takes samples for the rates until the server stops.
    pub async fn sample_rates(&self) {
        tokio::select! {
            () = self.rates.sample(&self.node) => {}
            () = self.stopping() => {}
        }
    }
}
