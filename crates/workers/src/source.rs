//! The seam to whoever has the jobs.

use crate::Reason;
use bytes::Bytes;
use compact_str::CompactString;
use kit::Millis;
use model::{DispatchedJob, JobRef, LeaseRef, Reject, Renewed, Settled, Settlement, Step};
use std::{future::Future, time::Duration};

/// Why a source could not answer. Nothing is known of what became of the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Try again later.
    #[error("the job source does not answer ({reason}); it is asked again")]
    Unavailable {
        /// What happened.
        reason: String,
        /// When to try again, if the source said so.
        retry_after_ms: Option<Millis>,
    },
    /// The call as a whole was refused and changed nothing.
    #[error(transparent)]
    Refused(#[from] Reject),
    /// The source has closed for good: the worker finishes what it has and takes no more.
    #[error("the job source is closed")]
    Closed,
}

/// What a source knows of leases that were taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// This one, and why.
    Lease(LeaseRef, Reason),
    /// Some may have been missed: every lease in hand is to be renewed now, which shows those that are gone.
    Missed,
}

/// Where a [`crate::Runtime`] gets its jobs. Which queues, under which worker's name, at what durability: the source knows.
///
/// Every call takes many at once and may be made from several tasks, and threads, at the same time.
/// An answer to a list has one entry for each item, in order.
pub trait JobSource: Send + Sync + 'static {
    /// The lease that every fetch and renew asks for.
    fn lease(&self) -> Duration;

    /// Leases up to `max` jobs; if there are none, waits up to `wait` for the first. Dropping the future withdraws the wait.
    fn fetch(
        &self,
        max: usize,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<DispatchedJob>, SourceError>> + Send;

    /// Reports how attempts ended. After an error the runtime repeats the call, so a settlement that had
    /// arrived the first time may be shown again; the lease token makes the second one harmless.
    fn settle(
        &self,
        settlements: Vec<Settlement>,
    ) -> impl Future<Output = Result<Vec<Result<Settled, Reject>>, SourceError>> + Send;

    /// Extends leases.
    fn renew(
        &self,
        leases: Vec<LeaseRef>,
    ) -> impl Future<Output = Result<Vec<Result<Renewed, Reject>>, SourceError>> + Send;

    /// Stores a running job's progress: one JSON value.
    fn progress(&self, lease: LeaseRef, value: Bytes)
    -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Stores the result of a step of a running job. What the job had under that name already, if it had.
    fn store_step(
        &self,
        lease: LeaseRef,
        name: CompactString,
        result: Bytes,
    ) -> impl Future<Output = Result<Option<Step>, SourceError>> + Send;

    /// The steps that a job has stored.
    fn steps(&self, job: JobRef) -> impl Future<Output = Result<Vec<Step>, SourceError>> + Send;

    /// Appends lines to a running job's log.
    fn log(
        &self,
        lease: LeaseRef,
        lines: Vec<CompactString>,
    ) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// The next attempt that was called off while it ran. A source that cannot tell never answers; the worker
    /// then learns it from the next renewal.
    fn next_revoked(&self) -> impl Future<Output = Revoked> + Send {
        std::future::pending()
    }
}
