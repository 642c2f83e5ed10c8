//! I1: what was acknowledged survives every fault that its level covers.

use crate::history::{Check, broken};
use kit::Durability;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process alone: what the operating system has stays.
    Process,
    /// The machine, or the disk failed: what was not flushed may be gone.
    Power,
}

impl Crash {
    /// The weakest level that must survive this.
    pub(crate) fn covered_by(self) -> Durability {
        match self {
            Crash::Process => Durability::Os,
            Crash::Power => Durability::Disk,
        }
    }
}

/// A position beyond the recovered log was acknowledged at `level`.
pub(crate) fn may_be_lost(position: u64, end: u64, level: Durability, crash: Crash) -> Check {
    if level >= crash.covered_by() {
        return broken(
            "I1",
            format!(
                "position {position} was acknowledged at {level}; after a {crash:?} crash the log ends at {end}"
            ),
        );
    }
    Ok(())
}

/// The log ends at record `end`; a flush covered everything up to `claimed`.
pub(crate) fn flushed_is_there(end: u64, claimed: u64, crash: Crash) -> Check {
    if end < claimed {
        return broken(
            "I1",
            format!("{claimed} records were flushed; after a {crash:?} crash there are {end}"),
        );
    }
    Ok(())
}

/// The level told must be the one asked for, or better.
pub(crate) fn level_kept(asked: Durability, told: Durability) -> Check {
    if told < asked {
        return broken("I1", format!("{asked} was asked for and {told} was answered with an OK"));
    }
    Ok(())
}
