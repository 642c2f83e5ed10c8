//! What was asked, what was told, and what the log says happened.

use kit::{Durability, Timestamp};
use model::{Actor, Envelope, Reject, Reply};

/// Whether this may not have been the last answer: the caller waits for room, and asks again.
pub(crate) fn waited_on(reply: &Result<Reply, Reject>) -> bool {
    matches!(reply, Err(Reject::QueueFull { waits: true, .. }))
}

/// One call as its caller knows it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) envelope: Envelope,
    pub(crate) level: Durability,
    pub(crate) told: Told,
}

/// What a caller was told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Told {
    /// Nothing yet.
    Nothing,
    /// It happened, at this position.
    Done { reply: Reply, position: u64 },
    /// The state machine said no.
    Refused(Reject),
    /// It did not happen: overloaded, disk full, stopping.
    NotDone,
    /// Nobody knows: no answer came, or one that a crash was allowed to undo.
    Unknown,
}

/// One command as the log has it, with the reply that a replay from genesis gives.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) position: u64,
    pub(crate) time: Timestamp,
    pub(crate) envelope: Envelope,
    pub(crate) reply: Result<Reply, Reject>,
}

/// A rule was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which invariant, `I1` to `I12`.
    pub invariant: &'static str,
    /// What happened.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Shorthand of every check.
pub(crate) type Check = Result<(), Violation>;

/// A broken rule as the result of a check.
pub(crate) fn broken<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, what: what.into() })
}

/// The actor of a call, so that its command is known again in the log.
pub(crate) fn actor_of(call: usize) -> Actor {
    Actor::new(&format!("call {call}"))
}

/// The call that an actor stands for.
pub(crate) fn call_of(actor: &Actor) -> Option<usize> {
    actor.as_str().strip_prefix("call ")?.parse().ok()
}
