//! Bugs on purpose. A suite that misses one of them proves nothing about the others.

use millpond_core::plant::Bug;

/// A planted bug: in the shims around the production code, or in the core behind its feature `plant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// The log says "flushed" without flushing.
    AckBeforeFsync,
    /// The log is told of an append's success one flush too early.
    ApplyBeforeCommit,
    /// Names of new files are never made durable.
    SkipDirectoryFsync,
    /// A failed flush is tried again, and believed.
    RetryFailedFsync,
    /// A record is served although a bit of it is wrong.
    IgnoreCrc,
    /// Damage in the middle of the log is cut off with all that follows.
    TruncateAtDamage,
    /// A checkpoint says "stored" before it is, and the log is trimmed.
    TrimBeforeCheckpointSync,
    /// A settlement and its follow-up jobs are two records.
    CompletionAndPushInTwoRecords,
    /// One in the core.
    Core(Bug),
}

impl Planted {
    /// Every planted bug.
    pub const ALL: [Planted; 41] = [
        Planted::AckBeforeFsync,
        Planted::ApplyBeforeCommit,
        Planted::SkipDirectoryFsync,
        Planted::RetryFailedFsync,
        Planted::IgnoreCrc,
        Planted::TruncateAtDamage,
        Planted::TrimBeforeCheckpointSync,
        Planted::CompletionAndPushInTwoRecords,
        Planted::Core(Bug::CountAttemptOnFailureOnly),
        Planted::Core(Bug::CountCrashAsAttempt),
        Planted::Core(Bug::ForgetCrashes),
        Planted::Core(Bug::AcceptStaleToken),
        Planted::Core(Bug::LeaseFromWallClock),
        Planted::Core(Bug::DropDedupeKeyOnCheckpoint),
        Planted::Core(Bug::HashOrder),
        Planted::Core(Bug::FireEarly),
        Planted::Core(Bug::FireSlotEarly),
        Planted::Core(Bug::FireSlotTwice),
        Planted::Core(Bug::MissSlot),
        Planted::Core(Bug::ForgetIdempotency),
        Planted::Core(Bug::JoinTooEarly),
        Planted::Core(Bug::KeepLosers),
        Planted::Core(Bug::ForgetContinuation),
        Planted::Core(Bug::StoreStepAgain),
        Planted::Core(Bug::DropEarlySignal),
        Planted::Core(Bug::KeepTakenSignal),
        Planted::Core(Bug::ForgetRemovedChild),
        Planted::Core(Bug::DebounceForEver),
        Planted::Core(Bug::ForgetWhoStandsBy),
        Planted::Core(Bug::BulkTakesLateJobs),
        Planted::Core(Bug::LeakSlot),
        Planted::Core(Bug::ReleaseOrderOnRetry),
        Planted::Core(Bug::ForgetGates),
        Planted::Core(Bug::StopGroupTime),
        Planted::Core(Bug::IgnoreWeight),
        Planted::Core(Bug::CountErrorClassOnce),
        Planted::Core(Bug::HideRoom),
        Planted::Core(Bug::LoseDeadLetter),
        Planted::Core(Bug::TellAlertAgain),
        Planted::Core(Bug::TellAlertLate),
        Planted::Core(Bug::PatchBlindly),
    ];

    /// The part of it that lives in the core.
    pub fn core(self) -> Option<Bug> {
        match self {
            Planted::Core(bug) => Some(bug),
            Planted::AckBeforeFsync
            | Planted::ApplyBeforeCommit
            | Planted::SkipDirectoryFsync
            | Planted::RetryFailedFsync
            | Planted::IgnoreCrc
            | Planted::TruncateAtDamage
            | Planted::TrimBeforeCheckpointSync
            | Planted::CompletionAndPushInTwoRecords => None,
        }
    }
}
