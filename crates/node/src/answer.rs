use kit::{Durability, Millis};
use model::{Reject, Reply};
use std::{fmt, sync::Arc};

/// What a call that was not refused brings back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The reply of the state machine.
    pub reply: Reply,
    /// The position of the command in the log.
    pub position: u64,
    /// The level that the change had reached when it was answered: the one asked for, or a stronger one.
    pub durability: Durability,
}

/// Why a call brought no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The state machine refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Reject),
    /// There is too much already; nothing was changed.
    #[error("{scarce}; retry in {retry_after_ms} ms")]
    Overloaded {
        /// What there is too little of.
        scarce: Scarce,
        /// When to try again.
        retry_after_ms: Millis,
    },
    /// The log cannot grow; nothing was changed.
    #[error("the disk is full: new work is refused, running work can finish; free disk space and retry")]
    DiskFull,
    /// The log cannot keep what was asked; nothing was changed.
    #[error("durability {wanted} is not kept by this log; the strongest is {strongest}")]
    TooDurable {
        /// The level asked for.
        wanted: Durability,
        /// The best there is.
        strongest: Durability,
    },
    /// The change may have happened or not.
    #[error("the outcome is unknown ({reason}); repeat the call with the same idempotency key")]
    Unknown {
        /// What went wrong.
        reason: String,
    },
    /// No new calls are taken; nothing was changed.
    #[error("the pond is stopping")]
    Stopping,
}

/// What an overloaded node has too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    /// Room for calls that wait.
    Room,
    /// Memory for new work; all other calls are taken.
    Memory,
}

impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Room => "too many calls are waiting",
            Self::Memory => {
                "the memory is full: new work is refused, running work can finish; add workers, or remove what nobody needs"
            }
        })
    }
}

impl CallError {
    pub(crate) fn unknown(reason: &str) -> Self {
        Self::Unknown { reason: reason.into() }
    }
}

/// Why the log takes nothing any more. Shared, because every later call is told.
pub type Poison = Arc<str>;

/// What the node did so far; all totals since the start.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Commands applied, ticks included.
    pub commands: u64,
    /// Records appended to the log.
    pub batches: u64,
    /// Flushes to the disk.
    pub flushes: u64,
    /// Bytes of payload appended to the log.
    pub bytes_logged: u64,
    /// Commands that wait for their answer now.
    pub pending: u64,
    /// Fetches that wait for jobs now.
    pub waiting_fetches: u64,
    /// Pushes that wait for room in their queues now.
    pub waiting_pushes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// The position that the newest checkpoint reaches to.
    pub checkpoint_position: u64,
    /// Whether the log failed; only a restart helps.
    pub poisoned: bool,
    /// Whether new work is refused because the disk is full.
    pub disk_full: bool,
    /// Log records replayed at the start.
    pub recovered_records: u64,
    /// How long the start took, milliseconds.
    pub recovery_ms: u64,
    /// Bytes that the node holds by its own account: jobs and their bodies, what this checkpoint and the next are made of, and what waits.
    pub held_bytes: u64,
    /// The state machine's own numbers.
    pub shard: millpond_core::ShardStats,
}
