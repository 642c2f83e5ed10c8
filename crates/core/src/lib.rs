//! One shard of a pond: a deterministic state machine.
//!
//! [`Shard::apply`] takes a command, its position in the log and the time written there, and returns a reply and effects. It reads
//! no clock, draws no chance, opens no file, and never depends on the order of a hash table: the same log gives the same state, byte
//! for byte. One command is one file under `commands/`; every change of a job's state goes through `transition`.
//!
//! ```
//! use kit::Timestamp;
//! use millpond_core::{Effects, Shard};
//! use model::{Actor, Command, Envelope, NewJob, QueueName, Reply};
//!
//! let mut shard = Shard::new(0);
//! let mut effects = Effects::default();
//! let mut at = 0;
//! let mut apply = |command| {
//!     at += 1;
//!     let envelope = Envelope { actor: Actor::new("worker-1"), idempotency_key: None, command };
//!     shard.apply(at, Timestamp(1_000 + at), &envelope, &mut effects)
//! };
//! let mail = QueueName::new("mail")?;
//! apply(Command::Push { jobs: vec![NewJob::new(mail.clone(), &b"hello"[..])] })?;
//! let Reply::Fetched(jobs) = apply(Command::Fetch { queues: vec![mail], max: 10, lease_ms: 0 })? else { panic!() };
//! assert_eq!(jobs[0].attempt, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bodies;
mod bulk;
mod capacity;
mod changes;
mod check;
mod commands;
mod dead;
mod dead_letter;
mod explain;
mod firing;
mod flow;
mod history;
mod idempotency;
mod job;
mod join;
mod lane;
#[cfg(feature = "plant")]
pub mod plant;
mod queue;
mod record;
mod restore;
mod schedule;
mod shard;
mod slots;
mod split;
mod steps;
mod suspend;
mod table;
mod throttle;
mod transition;
mod unique;
mod views;

pub use bodies::Cold;
pub use bulk::{Preview, Previewed, Unread};
pub use capacity::{Growth, Room};
pub use changes::{Changes, NewBody};
pub use dead::{DeadLetters, ErrorClass};
pub use explain::{Explanation, Limited, Reason};
pub use join::JoinQuery;
pub use record::body_key;
pub use restore::{Restore, RestoreError};
pub use shard::{Effects, Shard};
pub use slots::Slots;
pub use views::{ListQuery, Page, ShardStats};

#[cfg(test)]
mod tests;
