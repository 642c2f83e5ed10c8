//! I9: once the faults are over, every job reaches its end.

use crate::history::{Check, broken};
use millpond_core::{ListQuery, Shard};
use model::JobRef;

/// Jobs that are not final.
pub(crate) fn live(shard: &Shard) -> u64 {
    shard.queues(None, 1_000).iter().map(|queue| queue.counts.live()).sum()
}

/// After the drain nothing is left.
pub(crate) fn drained(shard: &Shard) -> Check {
    match live(shard) {
        0 => Ok(()),
        left => {
            let queues = shard.queues(None, 1_000);
            let first = queues.iter().find(|queue| queue.counts.live() > 0);
            let jobs = first.and_then(|queue| shard.list(&queue.name, &ListQuery::default()).ok());
            let job = jobs.into_iter().flat_map(|page| page.jobs).find(|job| !job.state.is_final());
            let why = job.and_then(|job| {
                shard.explain(&JobRef { queue: Some(job.queue.clone()), id: job.id.clone() })
            });
            broken("I9", format!("{left} jobs never reached a final state, one of them: {why:?}"))
        }
    }
}
