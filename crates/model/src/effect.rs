use crate::{Actor, Cause, JobId, JobValues, QueueName, State};
use bytes::Bytes;
use kit::Timestamp;

/// What the world should hear after a command was applied. Not state: a replay drops them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Jobs of this queue became ready; that many waiting fetches can be served.
    Available {
        /// Where.
        queue: QueueName,
        /// How many.
        jobs: u32,
    },
    /// The lease of a running attempt was taken away; its worker should stop.
    Revoked {
        /// Whose.
        worker: Actor,
        /// In which queue.
        queue: QueueName,
        /// Which job.
        id: JobId,
        /// Its lease.
        lease_token: u64,
        /// Why.
        why: Revocation,
        /// Where in the log.
        position: u64,
    },
    /// A job changed its state. Sent only while somebody listens.
    Changed {
        /// In which queue.
        queue: QueueName,
        /// Which job.
        id: JobId,
        /// The state before; `None` for the push.
        from: Option<State>,
        /// The state after.
        to: State,
        /// Why.
        cause: Cause,
        /// Which attempt.
        attempt: u32,
        /// When it goes on by itself, if it is put off.
        due_at: Option<Timestamp>,
        /// What it brought along.
        values: Option<Box<JobValues>>,
        /// When.
        at: Timestamp,
        /// Where in the log.
        position: u64,
    },
    /// A running job said how far it is. Sent only while somebody listens.
    Progress {
        /// In which queue.
        queue: QueueName,
        /// Which job.
        id: JobId,
        /// Which attempt.
        attempt: u32,
        /// How far, as the handler put it.
        value: Bytes,
        /// When.
        at: Timestamp,
        /// Where in the log.
        position: u64,
    },
    /// A job is gone because somebody removed it. Sent only while somebody listens.
    Removed {
        /// In which queue.
        queue: QueueName,
        /// Which job.
        id: JobId,
        /// The state it was in.
        from: State,
        /// Which attempt it had reached.
        attempt: u32,
        /// When.
        at: Timestamp,
        /// Where in the log.
        position: u64,
    },
    /// A queue changed. Sent only while somebody listens.
    Queue {
        /// Which.
        queue: QueueName,
        /// How.
        change: QueueChange,
        /// When.
        at: Timestamp,
        /// Where in the log.
        position: u64,
    },
}

/// What happened to a queue as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueChange {
    /// It hands out no more jobs.
    Paused,
    /// It does again.
    Resumed,
    /// Its settings were changed.
    Configured,
    /// Its last waiting job was taken, or went otherwise.
    Drained,
    /// Its last job that was not final ended, or went otherwise.
    Empty,
    /// Its dead letters passed the threshold of its alert.
    DeadAlert,
}

impl QueueChange {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Paused, Self::Resumed, Self::Configured, Self::Drained, Self::Empty, Self::DeadAlert];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Configured => "configured",
            Self::Drained => "drained",
            Self::Empty => "empty",
            Self::DeadAlert => "dead_alert",
        }
    }
}

/// Why a worker lost a lease before it reported an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Revocation {
    /// Somebody cancelled the job.
    Cancelled,
    /// The attempt ran longer than its timeout.
    Timeout,
    /// The lease ended without a renewal.
    LeaseLost,
}

impl Revocation {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cancelled, Self::Timeout, Self::LeaseLost];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::LeaseLost => "lease_lost",
        }
    }

    /// The reason of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.name() == name)
    }
}
