//! Runtimes for handlers. A [`Runtime`] takes jobs from a [`JobSource`], gives each to a [`Handler`], keeps the
//! leases alive and reports how every attempt ended, all of it in batches.
//!
//! A handler is an async function or, in [`process`], a program in any language: one process per job, or a pool of
//! children that take many jobs in turn. With the feature `http` it may be an endpoint, to which every job is posted.
//!
//! This crate does not know where jobs come from. Whoever has jobs implements [`JobSource`].

mod counters;
mod durable;
#[cfg(feature = "http")]
pub mod endpoint;
mod gather;
mod handler;
mod manual;
pub mod process;
mod runtime;
mod signal;
mod source;

pub use counters::{Counters, Totals};
pub use gather::{BatchOptions, Gather};
pub use handler::{BatchHandler, Context, Handler, Verdict, error, one_each};
pub use manual::Attempt;
pub use runtime::{Drained, Keeper, Options, Runtime};
pub use signal::{Cancelled, Reason};
pub use source::{JobSource, Revoked, SourceError};
