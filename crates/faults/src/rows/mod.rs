//! One fault, one file. The names are those of the fault table in `docs/operations.md`.

mod directory;
mod disk_full;
mod interrupted;
mod kill;
mod linear;
mod poison;
mod rotate;
mod system_calls;
mod terminate;

use crate::{Breach, Plan, Ran};

/// One kind of fault.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Trials in CI, or points per system call.
    pub(crate) count: u64,
    pub(crate) run: fn(&Plan) -> Result<Ran, Breach>,
}

#[rustfmt::skip]
pub(crate) const ROWS: &[Row] = &[
    Row { name: "F1", about: "kill -9 at random moments under load", count: 100, run: kill::run },
    Row { name: "F2", about: "kill at each system call of a short story", count: 8, run: system_calls::run },
    Row { name: "F9", about: "a flush fails with EIO", count: 12, run: poison::flush_fails },
    Row { name: "F12", about: "the disk is full", count: 1, run: disk_full::run },
    Row { name: "F14", about: "writes are interrupted, or write nothing", count: 8, run: interrupted::run },
    Row { name: "F19", about: "a foreign, a cut and a busy directory", count: 1, run: directory::run },
    Row { name: "K1", about: "kill -9 while the key is changed", count: 20, run: rotate::run },
    Row { name: "L1", about: "what is answered has an order, over a kill -9", count: 40, run: linear::run },
    Row { name: "F45", about: "SIGTERM under load", count: 10, run: terminate::run },
];
