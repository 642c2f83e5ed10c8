//! FETCH, ACK, FAIL and BEAT: what workers say.

use super::{
    answer::{Answer, Refusal},
    job::{self, DEFAULT_QUEUE, Failure, RESERVE_MS},
    session::Session,
};
use crate::{
    access::Right,
    now,
    registry::{Door, Stage},
};
use compact_str::{CompactString, ToCompactString, format_compact};
use model::{Command, DispatchedJob, ErrorInfo, JobId, JobRef, LeaseRef, Outcome, Reply, Settlement, State};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// How long a fetch waits for a job.
const WAIT: Duration = Duration::from_secs(2);
/// Leases that a connection remembers. The others are found by their jobs.
const LEASES_MAX: usize = 1_000;
/// What is kept of a failure: characters of its type and message, lines and bytes of its backtrace.
const ERRTYPE_CHARS: usize = 100;
const MESSAGE_CHARS: usize = 1_000;
const BACKTRACE_LINES: usize = 50;
const BACKTRACE_BYTES: usize = 10 << 10;

/// A lease of this client.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) lease: LeaseRef,
    /// The job is not wanted any more when this attempt fails.
    is_discarded: bool,
}

/// What a connection has fetched, so that its outcomes need no look at the pond.
pub(super) type Leases = HashMap<JobId, Held>;

#[derive(Debug, Deserialize)]
struct Fail {
    jid: String,
    #[serde(default)]
    errtype: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    backtrace: Option<Vec<String>>,
}

impl Fail {
    fn error(&self) -> ErrorInfo {
        let cut = |text: &Option<String>, max: usize| -> CompactString {
            let text = text.as_deref().unwrap_or_default().trim();
            if text.is_empty() { "unknown".into() } else { text.chars().take(max).collect() }
        };
        let mut stack = CompactString::default();
        for line in self.backtrace.iter().flatten().take(BACKTRACE_LINES) {
            if stack.len() + line.len() >= BACKTRACE_BYTES {
                break;
            }
            stack.push_str(line);
            stack.push('\n');
        }
        ErrorInfo {
            kind: cut(&self.errtype, ERRTYPE_CHARS),
            message: cut(&self.message, MESSAGE_CHARS),
            stack: stack.trim_end().to_compact_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Beat {
    wid: String,
    #[serde(default)]
    current_state: Option<String>,
    #[serde(default)]
    rss_kb: Option<i64>,
}

/// How far a worker says that it is.
fn said_by(state: Option<&str>) -> Stage {
    match state {
        Some("quiet") => Stage::Quiet,
        Some("terminate") => Stage::Stopping,
        _ => Stage::Running,
    }
}

/// What a worker is told; nothing as long as all is well.
fn told(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::Running => None,
        Stage::Quiet => Some("quiet"),
        Stage::Stopping => Some("terminate"),
    }
}

impl Session<'_> {
    /// FETCH: a job as JSON and its lease, or nothing after two seconds.
    pub(super) async fn fetch(&mut self, names: &[u8]) -> Result<Option<(Vec<u8>, LeaseRef)>, Refusal> {
        self.check(Right::Work)?;
        let names = String::from_utf8_lossy(names);
        let mut queues = Vec::new();
        for name in names.split_ascii_whitespace() {
            queues.push(self.queue(name)?);
        }
        if queues.is_empty() {
            queues.push(self.queue(DEFAULT_QUEUE)?);
        }
        let worker = self.is_worker.then(|| self.app.registry.fetches(&self.worker, Door::Faktory, &queues));
        let fetch = Command::Fetch { queues, max: 1, lease_ms: RESERVE_MS };
        let envelope = self.envelope(fetch).await?;
        let held_back = async {
            match &worker {
                Some(worker) => self.app.registry.held_back(worker).await,
                None => std::future::pending().await,
            }
        };
        let until = Instant::now() + WAIT;
        let jobs = tokio::select! {
            biased;
            () = held_back => {
                tokio::time::sleep_until(until).await;
                return Ok(None);
            }
            jobs = self.app.node.fetch_as(envelope, WAIT, self.app.rules.durability) => jobs?,
        };
        let Some(job) = jobs.into_iter().next() else { return Ok(None) };
        let lease = LeaseRef {
            job: JobRef { queue: Some(job.queue.clone()), id: job.id.clone() },
            token: job.lease_token,
        };
        let body = job.body.as_deref().unwrap_or_default();
        match job::reservation(body) {
            RESERVE_MS => {}
            lease_ms => drop(self.call(Command::Renew { leases: vec![lease.clone()], lease_ms }).await?),
        }
        let failure = if job.attempt > 1 { self.failure(&job).await? } else { None };
        let bytes = job::write(&job, failure.as_ref(), now());
        if self.leases.len() >= LEASES_MAX {
            self.leases.clear();
        }
        let is_discarded = job.attempt >= job.attempts && job::is_discarded(&job.meta);
        self.leases.insert(job.id, Held { lease: lease.clone(), is_discarded });
        Ok(Some((bytes, lease)))
    }

    /// How the attempt before this one failed.
    async fn failure(&self, job: &DispatchedJob) -> Result<Option<Failure>, Refusal> {
        let asked = JobRef { queue: Some(job.queue.clone()), id: job.id.clone() };
        let found = self.app.node.read(move |shard| {
            let (view, history) = (shard.job(&asked)?, shard.history(&asked)?);
            let newest = history.into_iter().rev().find(|entry| entry.error.is_some())?;
            let error = newest.error?;
            Some(Failure::new(&view, &error, newest.at))
        });
        Ok(found.await?)
    }

    /// The lease of a job. Another connection of the same worker may have fetched it, and the server may have been started anew since: then
    /// the job itself says whose it is. A client that is no worker process may speak for any.
    pub(super) async fn held(&self, jid: &str) -> Result<Option<Held>, Refusal> {
        let Ok(id) = JobId::parse(jid) else { return Ok(None) };
        if let Some(held) = self.leases.get(&id) {
            return Ok(Some(held.clone()));
        }
        let (caller, worker) = (self.caller.clone(), self.is_worker.then(|| self.worker.clone()));
        let found = self.app.node.read(move |shard| {
            shard.job_anywhere(&id, |view| {
                view.state == State::Active
                    && caller.reaches(&view.queue)
                    && worker.as_ref().is_none_or(|worker| view.worker.as_ref() == Some(worker))
            })
        });
        Ok(found.await?.map(|view| Held {
            is_discarded: view.attempt >= view.attempts && job::is_discarded(&view.meta),
            lease: LeaseRef { job: JobRef { queue: Some(view.queue), id: view.id }, token: view.lease_token },
        }))
    }

    /// Reports how an attempt ended; false if the lease is not this client's any more.
    async fn settle(&mut self, held: Held, outcome: Outcome) -> Result<bool, Refusal> {
        self.leases.remove(&held.lease.job.id);
        let settlement = Settlement { lease: held.lease, outcome, push: Vec::new() };
        let done = self.call(Command::Settle { settlements: vec![settlement] }).await?;
        let Reply::Settled(results) = done.reply else { return Err(Self::mismatched()) };
        Ok(results.first().is_some_and(Result::is_ok))
    }

    /// A job that the client did not get after all.
    pub(super) async fn give_back(&mut self, lease: LeaseRef) {
        let held = Held { lease, is_discarded: false };
        if let Err(refusal) = self.settle(held, Outcome::Snooze { after_ms: 0 }).await {
            tracing::debug!(?refusal, "a job could not be handed back; its reservation ends by itself");
        }
    }

    /// ACK: done. What is not leased to the client is answered like what is: a worker whose answer was lost asks again.
    pub(super) async fn acknowledge(&mut self, said: &[u8]) -> Result<Answer, Refusal> {
        self.check(Right::Work)?;
        #[derive(Deserialize)]
        struct Ack {
            jid: String,
        }
        let ack: Ack =
            serde_json::from_slice(said).map_err(|error| Refusal::new(format!("invalid ACK: {error}")))?;
        if let Some(held) = self.held(&ack.jid).await? {
            self.settle(held, Outcome::Done { result: None }).await?;
        }
        Ok(Answer::Ok)
    }

    /// FAIL: tried in vain.
    pub(super) async fn fail(&mut self, said: &[u8]) -> Result<Answer, Refusal> {
        self.check(Right::Work)?;
        let fail: Fail =
            serde_json::from_slice(said).map_err(|error| Refusal::new(format!("invalid FAIL: {error}")))?;
        let unknown = || Refusal::new(format!("Job not found {}", fail.jid));
        let held = self.held(&fail.jid).await?.ok_or_else(unknown)?;
        let error = fail.error();
        let outcome = if held.is_discarded {
            Outcome::Cancel { reason: format_compact!("{}: {}", error.kind, error.message) }
        } else {
            Outcome::Retry { error, after_ms: None }
        };
        if self.settle(held, outcome).await? { Ok(Answer::Ok) } else { Err(unknown()) }
    }

    /// BEAT: the worker lives, and hears whether it should go on.
    pub(super) fn heartbeat(&self, said: &[u8]) -> Result<Answer, Refusal> {
        self.check(Right::Work)?;
        let beat: Beat =
            serde_json::from_slice(said).map_err(|error| Refusal::new(format!("invalid BEAT: {error}")))?;
        if !self.is_worker || self.worker != self.caller.worker(&super::workers::name(Some(&beat.wid))) {
            return Err(Refusal::new(format!("Unknown worker {}", beat.wid)));
        }
        let rss_bytes = u64::try_from(beat.rss_kb.unwrap_or(0)).unwrap_or(0) << 10;
        let own = said_by(beat.current_state.as_deref());
        let stage = self.app.registry.beats(&self.worker, Door::Faktory, own, rss_bytes).stage();
        Ok(match told(stage) {
            None => Answer::Ok,
            Some(name) => Answer::Bulk(format!("{{\"state\":\"{name}\"}}").into_bytes()),
        })
    }
}
