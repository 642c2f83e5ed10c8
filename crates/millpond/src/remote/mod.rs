//! A pond on a server, over one connection.
//!
//! ```text
//!  callers ──► requests waiting ──► pieces ──► thread ──► socket
//!                    ▲                           │
//!                    └───────── answers ◄────────┤
//!  runtimes ◄── jobs, lost leases ◄──────────────┘
//! ```
//!
//! The connection has a thread of its own, so that handlers which block their runtime block neither renewals nor signs of life.

mod address;
mod events;
mod link;
mod source;
mod thread;
#[cfg(feature = "tls")]
mod tls;

pub use address::Connect;
pub(crate) use address::host;
pub(crate) use events::RemoteEvents;
pub(crate) use link::{Failure, Link, Repeat};
pub(crate) use source::RemoteSource;
#[cfg(feature = "tls")]
pub use tls::{TrustError, trusted};

use crate::{Error, Explanation, backend::Answer};
use kit::{Durability, Timestamp};
use model::{
    Alert, BulkView, Command, Envelope, HistoryEntry, JobId, JobRef, JobView, JoinView, LogLine, QueueName,
    QueueView, Reject, ScheduleId, ScheduleView, State, Step,
};
use std::time::{Duration, Instant};
use wire::{Dead, DeadClass, Explained, FromServer, Input, Pack, Read, What};

/// How long a push that waits for room waits before it asks again.
const WAIT: Duration = Duration::from_secs(10);

impl Link {
    /// A change, and its answer. With a key it may be sent twice.
    pub(crate) async fn call(&self, envelope: Envelope, level: Durability) -> Result<Answer, Error> {
        let repeat = if envelope.idempotency_key.is_some() { Repeat::Safe } else { Repeat::Never };
        let command = wire::Command::of(&envelope.command, envelope.idempotency_key, Some(level));
        match self.ask("command", &command, repeat).await? {
            FromServer::Reply(answer) => {
                let mut reader = kit::codec::Reader::new(&answer.reply);
                let reply = model::codec::decode_reply(&mut reader).map_err(|_| Error::Mismatch)?;
                Ok(Answer { reply, position: answer.position, durability: answer.durability })
            }
            _ => Err(Error::Mismatch),
        }
    }

    /// A push, which waits for room as long as it may.
    pub(crate) async fn push(
        &self,
        envelope: Envelope,
        wait: Option<Duration>,
        level: Durability,
    ) -> Result<Answer, Error> {
        let Command::Push { jobs } = envelope.command else { return self.call(envelope, level).await };
        let repeat = if envelope.idempotency_key.is_some() { Repeat::Safe } else { Repeat::Never };
        let until = wait.map(|wait| Instant::now() + wait);
        let mut push =
            wire::Push { jobs, key: envelope.idempotency_key, wait_ms: 0, durability: Some(level) };
        loop {
            let left = until.map_or(WAIT, |until| until.saturating_duration_since(Instant::now()));
            let asked = left.min(WAIT);
            push.wait_ms = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
            let started = Instant::now();
            match self.ask("push", &push, repeat).await {
                Ok(FromServer::Pushed(pushed)) => {
                    let wire::Pushed { position, durability, jobs } = pushed;
                    return Ok(Answer { reply: model::Reply::Pushed(jobs), position, durability });
                }
                // It has waited as long as it said, and may wait longer.
                Err(Error::Refused(Reject::QueueFull { .. }))
                    if started.elapsed() >= asked && until.is_none_or(|until| Instant::now() < until) => {}
                Ok(_) => return Err(Error::Mismatch),
                Err(error) => return Err(error),
            }
        }
    }

    async fn view<T: Pack>(&self, read: Read) -> Result<T, Error> {
        match self.ask("read", &read, Repeat::Safe).await? {
            FromServer::View(view) => T::unpack(&mut Input::new(&view.0)).map_err(|_| Error::Mismatch),
            _ => Err(Error::Mismatch),
        }
    }

    pub(crate) async fn job(&self, job: JobRef) -> Result<Option<JobView>, Error> {
        self.view(of_job(What::Job, job)).await
    }

    pub(crate) async fn jobs(&self, queue: QueueName, state: State) -> Result<Vec<JobView>, Error> {
        self.view(Read { queue: Some(queue), state: Some(state), ..Read::new(What::Jobs) }).await
    }

    pub(crate) async fn history(&self, job: JobRef) -> Result<Option<Vec<HistoryEntry>>, Error> {
        self.view(of_job(What::History, job)).await
    }

    pub(crate) async fn log_lines(&self, job: JobRef) -> Result<Option<Vec<LogLine>>, Error> {
        self.view(of_job(What::Log, job)).await
    }

    pub(crate) async fn steps(&self, job: JobRef) -> Result<Option<Vec<Step>>, Error> {
        self.view(of_job(What::Steps, job)).await
    }

    pub(crate) async fn explain(&self, job: JobRef) -> Result<Option<Explanation>, Error> {
        let why: Option<Explained> = self.view(of_job(What::Explain, job)).await?;
        Ok(why.map(|why| {
            let Explained { state, summary, expected_at } = why;
            Explanation { state, summary, expected_at }
        }))
    }

    pub(crate) async fn schedule(&self, id: &ScheduleId) -> Result<Option<ScheduleView>, Error> {
        self.view(Read { id: id.as_str().into(), ..Read::new(What::Schedule) }).await
    }

    pub(crate) async fn schedules(
        &self,
        after: Option<&ScheduleId>,
        limit: usize,
    ) -> Result<Vec<ScheduleView>, Error> {
        let after = after.map(|id| id.as_str().into());
        self.view(Read { after, limit: limit as u64, ..Read::new(What::Schedules) }).await
    }

    pub(crate) async fn schedule_slots(
        &self,
        id: &ScheduleId,
        limit: usize,
    ) -> Result<Option<Vec<Timestamp>>, Error> {
        self.view(Read { id: id.as_str().into(), limit: limit as u64, ..Read::new(What::Slots) }).await
    }

    pub(crate) async fn join(&self, id: JobId) -> Result<Option<JoinView>, Error> {
        self.view(of_job(What::Join, JobRef { queue: None, id })).await
    }

    pub(crate) async fn queue(&self, name: QueueName) -> Result<Option<QueueView>, Error> {
        self.view(Read { queue: Some(name), ..Read::new(What::Queue) }).await
    }

    pub(crate) async fn producers(&self, name: QueueName) -> Result<u64, Error> {
        self.view(Read { queue: Some(name), ..Read::new(What::Producers) }).await
    }

    pub(crate) async fn dead_letters(&self, name: QueueName) -> Result<Option<node::DeadLetters>, Error> {
        let found: Option<Dead> = self.view(Read { queue: Some(name), ..Read::new(What::Dead) }).await?;
        Ok(found.map(|found| {
            let Dead { dead, oldest_at, classes, others, target, alert: (count, per_minute), alert_since } =
                found;
            let (classes, alert) = (classes.into_iter().map(class).collect(), Alert { count, per_minute });
            node::DeadLetters { dead, oldest_at, classes, others, target, alert, alert_since }
        }))
    }

    pub(crate) async fn operations(&self) -> Result<Vec<BulkView>, Error> {
        self.view(Read::new(What::Operations)).await
    }

    async fn ask(&self, name: &'static str, fields: &impl Pack, repeat: Repeat) -> Result<FromServer, Error> {
        self.send(name, fields, repeat).await.map_err(Error::from)
    }
}

fn class(class: DeadClass) -> node::ErrorClass {
    let DeadClass { fingerprint, kind, message, count, first_at, last_at, sample, per_minute, per_hour } =
        class;
    node::ErrorClass { fingerprint, kind, message, count, first_at, last_at, sample, per_minute, per_hour }
}

fn of_job(what: What, job: JobRef) -> Read {
    Read { queue: job.queue, id: compact_str::format_compact!("{}", job.id), ..Read::new(what) }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::Call(node::CallError::Stopping),
            Failure::Away(reason) => Self::Away(reason),
            Failure::Unknown(reason) => Self::Call(node::CallError::Unknown { reason }),
            Failure::TooLarge { limit } => {
                Self::Refused(Reject::TooMany { what: "the size of a message in bytes", limit })
            }
            Failure::Refused(refused) => match refused.reject() {
                Some(reject) => Self::Refused(reject),
                None => match refused.code.as_str() {
                    code @ ("overloaded" | "memory_full") => {
                        let scarce = match code {
                            "overloaded" => node::Scarce::Room,
                            _ => node::Scarce::Memory,
                        };
                        let retry_after_ms = refused.retry_after_ms.unwrap_or(100);
                        Self::Call(node::CallError::Overloaded { scarce, retry_after_ms })
                    }
                    "disk_full" => Self::Call(node::CallError::DiskFull),
                    "stopping" => Self::Call(node::CallError::Stopping),
                    "unknown_outcome" => {
                        Self::Call(node::CallError::Unknown { reason: refused.detail.into() })
                    }
                    _ => Self::Server { code: refused.code.into(), detail: refused.detail.into() },
                },
            },
        }
    }
}
