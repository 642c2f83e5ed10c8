//! Bugs on purpose, for the simulator to find. Compiled only with the feature `plant`, which nothing published turns on.

use std::cell::Cell;

/// A mistake that somebody could make in this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A lost worker gives its attempt back.
    CountAttemptOnFailureOnly,
    /// A reported crash uses up its attempt.
    CountCrashAsAttempt,
    /// A restart forgets how often a job crashed.
    ForgetCrashes,
    /// A lease is not asked for its token.
    AcceptStaleToken,
    /// A lease ends by the machine's clock, not by the log's time.
    LeaseFromWallClock,
    /// A checkpoint leaves the idempotency keys out.
    DropDedupeKeyOnCheckpoint,
    /// Queues are served in the order of a hash table.
    HashOrder,
    /// Timers fire a second early.
    FireEarly,
    /// Slots fire a second early.
    FireSlotEarly,
    /// Every fifth slot makes two jobs.
    FireSlotTwice,
    /// Every seventh slot makes none.
    MissSlot,
    /// A repeated call is done again.
    ForgetIdempotency,
    /// A join ends with its first member, whatever its policy.
    JoinTooEarly,
    /// A join that has ended leaves its losers alone.
    KeepLosers,
    /// Now and then a continuation is not told that its join has ended.
    ForgetContinuation,
    /// A step that is stored is stored again, with another result.
    StoreStepAgain,
    /// A signal that nobody waits for is dropped.
    DropEarlySignal,
    /// A signal stays after it was taken.
    KeepTakenSignal,
    /// A child that is removed does not wake its parent.
    ForgetRemovedChild,
    /// A debounced job's wait begins anew with every push.
    DebounceForEver,
    /// Who stands by for a unique key is not called when its holder ends.
    ForgetWhoStandsBy,
    /// An operation takes what was pushed after it began.
    BulkTakesLateJobs,
    /// A lost lease keeps its slots.
    LeakSlot,
    /// A retry lets go of its ordering key.
    ReleaseOrderOnRetry,
    /// A checkpoint leaves out what gates remember.
    ForgetGates,
    /// A group's turns are not counted.
    StopGroupTime,
    /// A group's weight does not count.
    IgnoreWeight,
    /// A class of errors counts its first death only.
    CountErrorClassOnce,
    /// A queue whose producers wait never says that it has room.
    HideRoom,
    /// A dead letter that is to go on is forgotten.
    LoseDeadLetter,
    /// An alert is told again with every death.
    TellAlertAgain,
    /// An alert is told one death too late.
    TellAlertLate,
    /// A body is changed although it is not the one that was looked at.
    PatchBlindly,
}

thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Plants a bug in this thread, or takes it out again.
pub fn set(bug: Option<Bug>) {
    PLANTED.set(bug);
}

pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// The time that nobody should ask for in here.
pub(crate) fn machine_millis() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64 / 1_000 % 60_000)
}
