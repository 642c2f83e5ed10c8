//! INFO: the server as Faktory clients and their dashboards know it.

use super::{
    answer::{Answer, Refusal},
    session::Session,
};
use crate::{access::Right, now};
use model::{QueueName, QueueView, State};
use serde::Serialize;
use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

/// The version of Faktory whose protocol is spoken here; clients read it.
const FAKTORY_VERSION: &str = "1.9.3";
/// Queues that one look at the pond goes through.
const PAGE: usize = 500;

#[derive(Debug, Default, Serialize)]
struct Info {
    now: String,
    server_utc_time: String,
    faktory: Faktory,
    server: Server,
}

#[derive(Debug, Default, Serialize)]
struct Faktory {
    queues: BTreeMap<String, u64>,
    sets: Sets,
    tasks: BTreeMap<String, u64>,
    total_failures: u64,
    total_processed: u64,
    total_enqueued: u64,
    total_queues: u64,
}

#[derive(Debug, Default, Serialize)]
struct Sets {
    scheduled: u64,
    retries: u64,
    dead: u64,
    working: u64,
}

#[derive(Debug, Default, Serialize)]
struct Server {
    description: &'static str,
    faktory_version: &'static str,
    millpond_version: &'static str,
    uptime: u64,
    connections: u64,
    command_count: u64,
    used_memory_mb: u64,
}

impl Faktory {
    fn add(&mut self, queue: &QueueView) {
        let of = |state| queue.counts.of(state);
        self.sets.scheduled += of(State::Delayed);
        self.sets.retries += of(State::Retrying);
        self.sets.dead += of(State::Dead);
        self.sets.working += of(State::Active);
        self.total_failures += queue.failed_total;
        self.total_processed += queue.completed_total + queue.failed_total;
        // A queue is there as long as it has jobs, be they done.
        if State::ALL.iter().any(|state| of(*state) > 0) {
            self.total_enqueued += of(State::Waiting);
            self.total_queues += 1;
            self.queues.insert(queue.name.to_string(), of(State::Waiting));
        }
    }
}

impl Session<'_> {
    /// The queues that the client may see, a page at a time.
    pub(super) async fn queues(&self) -> Result<Vec<QueueView>, Refusal> {
        let mut all: Vec<QueueView> = Vec::new();
        loop {
            let (after, caller): (Option<QueueName>, _) =
                (all.last().map(|queue| queue.name.clone()), self.caller.clone());
            let page = self
                .app
                .node
                .read(move |shard| shard.queues_among(after.as_ref(), PAGE, |queue| caller.reaches(queue)));
            let page = page.await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    pub(super) async fn info(&self) -> Result<Answer, Refusal> {
        self.check(Right::Read)?;
        let mut faktory = Faktory::default();
        self.queues().await?.iter().for_each(|queue| faktory.add(queue));
        let time = now().to_string();
        let info = Info {
            // 2026-01-02T03:04:05Z
            server_utc_time: format!("{} UTC", time.get(11..19).unwrap_or_default()),
            now: time,
            faktory,
            server: Server {
                description: "Millpond",
                faktory_version: FAKTORY_VERSION,
                millpond_version: env!("CARGO_PKG_VERSION"),
                uptime: self.hall.since.elapsed().as_secs(),
                connections: self.hall.connections.load(Relaxed),
                command_count: self.hall.commands.load(Relaxed),
                used_memory_mb: self.app.node.stats().shard.resident_body_bytes >> 20,
            },
        };
        Ok(Answer::Bulk(serde_json::to_vec(&info).unwrap_or_default()))
    }
}
