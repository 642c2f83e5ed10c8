//! Programs as handlers, in any language: [`OneShot`] starts one process per job, [`Pool`] keeps children that take
//! many jobs in turn over JSON lines (`docs/handlers.md` has the protocol).
//!
//! Both give a program a clean environment and a process group of its own, which is killed as a whole; they keep a bounded
//! tail of what it wrote to stderr as the error text, and read everything it writes without keeping it.

mod child;
mod children;
mod exit;
mod group;
mod lines;
mod one_shot;
mod pool;
mod program;
pub(crate) mod protocol;
mod tail;

pub use exit::crash_of;
pub use one_shot::OneShot;
pub use pool::{Pool, PoolOptions, PoolTotals};
pub use program::{Explained, Launcher, Program};

/// Reads a child's line as a worker does, and says whether it means something: for fuzzers.
#[doc(hidden)]
pub fn fuzz_line(line: &[u8]) -> bool {
    protocol::read(line).is_ok() | protocol::read_outcome(line).is_ok()
}
