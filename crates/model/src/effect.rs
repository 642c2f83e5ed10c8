use crate::{Actor, Cause, JobId, QueueName, State};
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
    /// A running attempt was called off; its worker should stop.
    Revoked {
        /// Whose.
        worker: Actor,
        /// In which queue.
        queue: QueueName,
        /// Which job.
        id: JobId,
        /// Its lease.
        lease_token: u64,
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
        /// When.
        at: Timestamp,
        /// Where in the log.
        position: u64,
    },
}
