//! Where a worker's jobs come from.

use crate::{backend::Jobs, remote::RemoteSource};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Durability, Millis};
use model::{
    Actor, Command, Envelope, JobRef, LeaseRef, QueueName, Reject, Renewed, Reply, Settled, Settlement, Step,
};
use std::{collections::VecDeque, time::Duration};
use tokio::sync::Mutex;
use workers::{JobSource, Revoked, SourceError};

/// A node in this process, or a server.
pub(crate) enum Source {
    Node(NodeSource),
    Remote(RemoteSource),
}

macro_rules! of_either {
    ($self:ident, $call:ident($($argument:expr),*)) => {
        match $self {
            Self::Node(source) => source.$call($($argument),*).await,
            Self::Remote(source) => source.$call($($argument),*).await,
        }
    };
}

impl JobSource for Source {
    fn lease(&self) -> Duration {
        match self {
            Self::Node(source) => source.lease(),
            Self::Remote(source) => source.lease(),
        }
    }

    async fn fetch(&self, max: usize, wait: Duration) -> Result<Jobs, SourceError> {
        of_either!(self, fetch(max, wait))
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Result<Settled, Reject>>, SourceError> {
        of_either!(self, settle(settlements))
    }

    async fn renew(&self, leases: Vec<LeaseRef>) -> Result<Vec<Result<Renewed, Reject>>, SourceError> {
        of_either!(self, renew(leases))
    }

    async fn progress(&self, lease: LeaseRef, value: Bytes) -> Result<(), SourceError> {
        of_either!(self, progress(lease, value))
    }

    async fn log(&self, lease: LeaseRef, lines: Vec<CompactString>) -> Result<(), SourceError> {
        of_either!(self, log(lease, lines))
    }

    async fn store_step(
        &self,
        lease: LeaseRef,
        name: CompactString,
        result: Bytes,
    ) -> Result<Option<Step>, SourceError> {
        of_either!(self, store_step(lease, name, result))
    }

    async fn steps(&self, job: JobRef) -> Result<Vec<Step>, SourceError> {
        of_either!(self, steps(job))
    }

    async fn next_revoked(&self) -> Revoked {
        of_either!(self, next_revoked())
    }
}

/// An embedded node.
pub(crate) struct NodeSource {
    pub(crate) handle: node::Handle,
    pub(crate) actor: Actor,
    pub(crate) queues: Vec<QueueName>,
    pub(crate) lease: Duration,
    pub(crate) level: Durability,
    pub(crate) revoked: Mailbox,
}

/// What the node said of leases that were taken away, and from where it is to be asked next.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<(VecDeque<Revoked>, Option<u64>)>);

impl NodeSource {
    fn lease_ms(&self) -> Millis {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }

    async fn call(&self, command: Command) -> Result<Reply, SourceError> {
        let envelope = Envelope { actor: self.actor.clone(), idempotency_key: None, command };
        self.handle.call(envelope, self.level).await.map(|answer| answer.reply).map_err(source_error)
    }
}

impl JobSource for NodeSource {
    fn lease(&self) -> Duration {
        self.lease
    }

    async fn fetch(&self, max: usize, wait: Duration) -> Result<Jobs, SourceError> {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        self.handle
            .fetch(self.actor.clone(), self.queues.clone(), max, self.lease_ms(), wait, self.level)
            .await
            .map_err(source_error)
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Result<Settled, Reject>>, SourceError> {
        match self.call(Command::Settle { settlements }).await? {
            Reply::Settled(answers) => Ok(answers),
            _ => Err(mismatch()),
        }
    }

    async fn renew(&self, leases: Vec<LeaseRef>) -> Result<Vec<Result<Renewed, Reject>>, SourceError> {
        match self.call(Command::Renew { leases, lease_ms: self.lease_ms() }).await? {
            Reply::Renewed(answers) => Ok(answers),
            _ => Err(mismatch()),
        }
    }

    async fn progress(&self, lease: LeaseRef, value: Bytes) -> Result<(), SourceError> {
        self.call(Command::Progress { lease, value }).await.map(drop)
    }

    async fn log(&self, lease: LeaseRef, lines: Vec<CompactString>) -> Result<(), SourceError> {
        self.call(Command::Log { lease, lines }).await.map(drop)
    }

    async fn store_step(
        &self,
        lease: LeaseRef,
        name: CompactString,
        result: Bytes,
    ) -> Result<Option<Step>, SourceError> {
        match self.call(Command::Step { lease, name, result }).await? {
            Reply::Step(had) => Ok(had),
            _ => Err(mismatch()),
        }
    }

    async fn steps(&self, job: JobRef) -> Result<Vec<Step>, SourceError> {
        let steps = self.handle.read(move |shard| shard.job_steps(&job)).await.map_err(source_error)?;
        Ok(steps.unwrap_or_default())
    }

    async fn next_revoked(&self) -> Revoked {
        let mut mailbox = self.revoked.0.lock().await;
        let (news, after) = &mut *mailbox;
        loop {
            if let Some(news) = news.pop_front() {
                return news;
            }
            let revoked = self.handle.revoked(&self.actor, *after, Duration::MAX).await;
            *after = Some(revoked.position);
            news.extend(revoked.missed.then_some(Revoked::Missed));
            news.extend(revoked.leases.into_iter().map(|(lease, why)| Revoked::Lease(lease, why.into())));
        }
    }
}

fn source_error(error: node::CallError) -> SourceError {
    match error {
        node::CallError::Refused(reject) => SourceError::Refused(reject),
        node::CallError::Stopping => SourceError::Closed,
        node::CallError::Overloaded { retry_after_ms, .. } => {
            SourceError::Unavailable { reason: error.to_string(), retry_after_ms: Some(retry_after_ms) }
        }
        node::CallError::DiskFull | node::CallError::TooDurable { .. } | node::CallError::Unknown { .. } => {
            SourceError::Unavailable { reason: error.to_string(), retry_after_ms: None }
        }
    }
}

fn mismatch() -> SourceError {
    SourceError::Unavailable { reason: "an answer of the wrong kind".into(), retry_after_ms: None }
}
