//! I9: once the faults are over, every job reaches its end.

use crate::history::{Check, broken};
use millpond_core::Shard;

/// Jobs that are not final.
pub(crate) fn live(shard: &Shard) -> u64 {
    shard.queues(None, 1_000).iter().map(|queue| queue.counts.live()).sum()
}

/// After the drain nothing is left.
pub(crate) fn drained(shard: &Shard) -> Check {
    match live(shard) {
        0 => Ok(()),
        left => {
            broken("I9", format!("{left} jobs never reached a final state; due next: {:?}", shard.next_due()))
        }
    }
}
