//! Durable background jobs in your process: one directory, no server, no configuration.
//!
//! ```
//! use millpond::Pond;
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Email {
//!     to: String,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), millpond::Error> {
//!     let pond = Pond::in_memory().await?; // or Pond::open("./data")
//!     let emails = pond.queue::<Email>("emails")?;
//!     let worker = emails.worker(|email: Email, _job| async move { println!("to {}", email.to) }).start()?;
//!     let receipt = emails.push(&Email { to: "ada@example.org".into() }).await?;
//!     pond.wait(&receipt.id).await?;
//!     worker.stop().await;
//!     pond.close().await
//! }
//! ```
//!
//! An acknowledged push survives power loss unless a weaker [`Durability`] was asked for. A job runs at least once: make its
//! effects harmless to repeat with [`Job::id`] and [`Job::token`].

mod backend;
mod batch;
mod dead;
mod error;
mod events;
mod job;
mod join;
mod merge;
mod middleware;
mod outcome;
mod pond;
mod push;
mod queue;
mod remote;
mod schedule;
mod signal;
mod source;
mod step;
mod testing;
mod worker;

pub use batch::{Batches, IntoOutcomes};
pub use error::Error;
pub use events::{Batch, Debounce, EventStream, Heard, Listener, Stream, Throttle};
pub use job::Job;
pub use join::{AddJoin, Children, Join, Joined, Member};
pub use kit::{Backoff, Durability, Timestamp};
pub use merge::merge_patch;
pub use middleware::Next;
pub use model::{
    Alert, BodyTest, BulkAction, BulkControl, BulkStatus, BulkView, CatchUp, Compare, DeadLetter, Event,
    EventFilter, EventId, EventKind, Filter, Firing, FiringResult, HistoryEntry, JobEvent, JobId, JobView,
    JoinState, JoinView, LogLine, NewJob, OnConflict, Overlap, Priority, QueueChange, QueueName, QueuePatch,
    QueueView, Reject, ScheduleChange, ScheduleId, ScheduleState, ScheduleView, Scheduled, State, Step,
    StepValue,
};
pub use model::{Breaker, Bulkhead, Capacity, Limit, OnFull, Order, Rate, RetryBudget};
pub use node::{DeadLetters, ErrorClass};
pub use outcome::{IntoOutcome, Outcome};
pub use pond::{Explanation, Pond};
pub use push::{Push, Receipt};
pub use queue::Queue;
pub use remote::Connect;
#[cfg(feature = "tls")]
pub use remote::{TrustError, trusted};
pub use schedule::{PutSchedule, Schedule, ScheduleBuilder};
pub use signal::{Signal, Signalled};
pub use step::{Child, StepError};
pub use testing::{Ran, TestPond};
pub use worker::{Worker, WorkerBuilder};
pub use workers::{Cancelled, Drained, Reason, Totals};

/// The limits of an embedded pond, for [`Pond::open_with`].
pub use node::Options;
/// Encryption and compression of what lies on the disk: [`Options::at_rest`]. [`rewrite`] changes the key of a closed pond.
///
/// ```
/// use millpond::{AtRest, Key, Keyring, Options, Pond};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let place = tempfile::tempdir()?;
/// # let dir = place.path().join("pond");
/// # let keys = Keyring::parse(&Key::generate()?)?;
/// // let keys = Keyring::read("/etc/millpond/keys".as_ref())?;
/// let at_rest = AtRest { keys, ..AtRest::default() };
/// let pond = Pond::open_with(&dir, Options { at_rest, ..Options::default() }).await?;
/// # pond.close().await?;
/// # Ok(())
/// # }
/// ```
pub use node::{Contents, Verified, rewrite, verify};
pub use storage::{AtRest, Damage, Inspection, Key, KeyError, KeyId, Keyring, Part, Rewritten};
