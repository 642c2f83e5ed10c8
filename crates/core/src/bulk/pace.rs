//! How fast an operation goes. Everything here follows from the log's time, so that a replay goes at the same pace.

use super::Bulk;
use crate::shard::Shard;
use kit::{Millis, Timestamp};
use model::{BulkStatus, limits};

/// What one job costs.
pub(crate) const JOB: u64 = 1_000;
/// An operation with a rate moves on at most so often in a second, with as many jobs as that takes.
const STEPS_PER_SECOND: u64 = 10;

impl Bulk {
    /// What must be saved up before it moves on.
    fn step(&self) -> u64 {
        (u64::from(self.rate) / STEPS_PER_SECOND).max(1) * JOB
    }

    /// What its rate allows by now: never more than the work of one second, however long nobody looked.
    pub(crate) fn credit_at(&self, now: Timestamp) -> u64 {
        if self.worked_at == Timestamp::ZERO {
            return self.step();
        }
        let rate = u64::from(self.rate);
        (self.credit + (now - self.worked_at).saturating_mul(rate)).min((rate * JOB).max(self.step()))
    }

    /// When it can move on, if nothing else holds it back.
    pub(crate) fn due(&self) -> Timestamp {
        if self.rate == 0 || self.worked_at == Timestamp::ZERO {
            return Timestamp::ZERO;
        }
        let missing = self.step().saturating_sub(self.credit);
        self.worked_at + missing.div_ceil(u64::from(self.rate))
    }

    /// When its node may look up the next bodies.
    pub(crate) fn read_due(&self, shard: &Shard) -> Timestamp {
        match self.worked_at {
            Timestamp::ZERO => Timestamp::ZERO,
            worked_at => self.due().max(worked_at + shard.bulk_pause(self.worked_position)),
        }
    }

    /// Whether ticks move it. One that asks about bodies is moved by its node.
    pub(crate) fn walks(&self) -> bool {
        self.status == BulkStatus::Running && self.filter.body.is_empty()
    }

    /// Whether its node must look up bodies for it.
    pub(crate) fn reads(&self) -> bool {
        self.status == BulkStatus::Running && !self.filter.body.is_empty()
    }
}

impl Shard {
    /// When an operation can next move on; `None` if none is under way.
    pub(crate) fn bulk_due(&self) -> Option<Timestamp> {
        let due = self.bulks.values().filter(|bulk| bulk.walks()).map(Bulk::due).min()?;
        Some(due.max(self.bulk_gate()).max(self.counters.time))
    }

    /// Before this time no operation moves on: a little later if the log shows that others are at work.
    pub(crate) fn bulk_gate(&self) -> Timestamp {
        let walking = self.bulks.values().filter(|bulk| bulk.walks());
        let newest = walking.map(|bulk| (bulk.worked_at, bulk.worked_position)).max();
        match newest {
            Some((at, position)) if at != Timestamp::ZERO => at + self.bulk_pause(position),
            _ => Timestamp::ZERO,
        }
    }

    /// How long operations rest after the command at that position. One command is the next tick.
    pub(crate) fn bulk_pause(&self, position: u64) -> Millis {
        let quiet = self.counters.position <= position + 1;
        if quiet { limits::BULK_EVERY_MS } else { limits::BULK_EVERY_BUSY_MS }
    }
}
