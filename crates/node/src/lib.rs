//! The driver of a shard: turns calls into batches of a log, batches into state, and state into answers.
//!
//! [`Handle`] runs one on threads of its own. Below it lie three parts that know no threads and no clock, so that a simulator can
//! step through them: [`Driver`] (queues of commands, the state), [`Writer`] (the log) and [`Keeper`] (the checkpoints).
//!
//! There are no decisions about jobs here and no HTTP. Of JSON it knows how to find one value in a body, for operations that ask.

mod answer;
mod backup;
mod batch;
mod body_test;
mod driver;
mod error;
mod feed;
mod keeper;
mod options;
mod producers;
mod recover;
mod rewrite;
mod salvage;
mod shell;
mod verify;
mod waiters;
mod writer;

pub use answer::{Answer, CallError, Poison, Scarce, Stats};
pub use backup::{BackupFailure, Moment, Restored, backup, open_folder, read_backup, restore};
pub use batch::Batch;
pub use body_test::passes;
pub use driver::{Answered, Committed, Driver, Packed, Sealed, Snapshot, Ticket};
pub use error::OpenError;
pub use feed::{EVENTS_BYTES_MAX, EVENTS_MAX, Events, Gone};
pub use keeper::Keeper;
pub use millpond_core::{DeadLetters, ErrorClass};
pub use options::Options;
pub use recover::{Recovered, recover};
pub use rewrite::rewrite;
pub use salvage::{Loss, Salvaged, State, salvage};
pub use shell::{Handle, Health, ManualClock, Revoked};
pub use verify::{Contents, Verified, verify};
pub use waiters::Waiter;
pub use writer::Writer;

/// The only shard there is, until ponds are split.
const SHARD: u16 = 0;
