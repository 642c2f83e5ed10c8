//! Faults on the real binary and the real disk. Every row of [`ROWS`] runs a server, breaks something at a chosen
//! moment, starts it again, and compares what is there with the ledger of what was acknowledged.
//!
//! It knows the server as any client does: `millpond torture` gives it its own binary to run, the binary `faults` of this crate runs
//! one that was built beside it.

mod disk;
mod faketime;
mod group;
mod ledger;
mod load;
mod pond;
mod process;
mod proxy;
mod rows;
mod script;
mod strace;
mod talk;
mod worker;

pub use rig::{TempDir, choose};
pub use rows::{ROWS, Row};

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// What a row is told.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Trials, or points per system call.
    pub count: u64,
    /// Where its randomness begins. It decides what is broken and when; how the machine shares its time among processes, nobody decides.
    pub seed: u64,
    /// The folder in which it makes its data directories, and removes them.
    pub place: PathBuf,
    /// What is counted on the way.
    pub tally: Arc<Tally>,
}

/// What was done so far. Clones of a [`Plan`] share one.
#[derive(Debug, Default)]
pub struct Tally {
    faults: AtomicU64,
    acknowledged: AtomicU64,
}

impl Tally {
    /// Faults that were injected.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Acknowledged pushes and completions that were looked for after a fault, and found.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn found(&self, acknowledged: u64) {
        self.acknowledged.fetch_add(acknowledged, Ordering::Relaxed);
    }
}

/// How a row ended without a breach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ran {
    /// So many trials, and what was seen.
    Passed(u64, String),
    /// It cannot run here.
    Skipped(String),
}

/// What a row found broken, for people.
pub type Breach = String;
