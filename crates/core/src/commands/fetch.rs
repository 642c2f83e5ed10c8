use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Millis;
use model::{BulkAction, Cause, DispatchedJob, QueueName, Reject, Reply, State, limits};

impl Shard {
    /// Leases up to `max` jobs: of the first queue named that has any, then of the next. Within a queue by priority, then in line.
    pub(crate) fn fetch(
        &mut self,
        queues: &[QueueName],
        max: u32,
        lease_ms: Millis,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if queues.is_empty() {
            return Err(Reject::Invalid { field: "queues", reason: "names at least one queue".into() });
        }
        if queues.len() > limits::FETCH_QUEUES_MAX {
            return Err(Reject::TooMany {
                what: "queues in one fetch",
                limit: limits::FETCH_QUEUES_MAX as u64,
            });
        }
        if max == 0 || max as usize > limits::BATCH_MAX {
            return Err(Reject::Invalid { field: "max", reason: "is 1 to 10000".into() });
        }
        check_lease(lease_ms)?;
        let mut jobs = Vec::new();
        // What has expired or is claimed by a running purge ends here instead of starting, but only so many in one go.
        let mut ended = 0;
        'queues: for name in queues {
            let Some(&queue) = self.queue_index.get(name) else { continue };
            while jobs.len() < max as usize && !self.queues[queue as usize].paused {
                let Some(slot) = self.queues[queue as usize].head() else { break };
                if self.expire_late(slot, context) || self.overtake(slot, context) {
                    ended += 1;
                    if ended == limits::TICK_WORK_MAX {
                        break 'queues;
                    }
                    continue;
                }
                jobs.push(self.lease(slot, lease_ms, context));
            }
        }
        Ok(Reply::Fetched(jobs))
    }

    fn lease(&mut self, slot: u32, lease_ms: Millis, context: &mut Context<'_>) -> DispatchedJob {
        let shard = self.id;
        let queue = self.jobs[slot].queue as usize;
        self.queues[queue].totals.started += 1;
        let lease_ms = if lease_ms == 0 { self.queues[queue].settings.lease_ms } else { lease_ms };
        self.counters.token += 1;
        let token = self.counters.token;
        let job = &mut self.jobs[slot];
        job.attempt += 1;
        let timeout_at = context.now + u64::from(job.timeout_ms);
        let lease_until = (context.now + lease_ms).min(timeout_at);
        let run = job.run_mut();
        run.worker = context.actor.clone();
        run.token = token;
        run.lease_until = lease_until;
        run.timeout_at = timeout_at;
        run.started_at = context.now;
        run.progress = None;
        self.transition(slot, Change::new(State::Active, Cause::Fetch).due(lease_until), context);
        let job = &self.jobs[slot];
        let asked = job.asked.as_deref();
        DispatchedJob {
            sequence: job.sequence,
            id: job.id(shard),
            queue: self.queues[queue].name.clone(),
            body: job.body.as_deref().map(Bytes::copy_from_slice),
            content_type: asked.map_or(CompactString::default(), |asked| asked.content_type.clone()),
            attempt: job.attempt,
            attempts: u32::from(job.attempts),
            crashes: u32::from(job.crashes),
            lease_token: token,
            lease_until,
            timeout_at,
            priority: job.priority,
            created_at: job.created_at,
            tags: asked.map_or(Vec::new(), |asked| asked.tags.clone()),
            meta: asked.map_or(Vec::new(), |asked| asked.meta.clone()),
        }
    }

    /// Lets a running purge or cancel have a job that is about to start; true if it did.
    fn overtake(&mut self, slot: u32, context: &mut Context<'_>) -> bool {
        if self.bulks.is_empty() {
            return false;
        }
        let claimed = self.bulks.values().find(|bulk| {
            !bulk.finished
                && matches!(bulk.action, BulkAction::Purge | BulkAction::Cancel)
                && bulk.wants(&self.jobs[slot])
        });
        let Some(id) = claimed.map(|bulk| bulk.id) else { return false };
        self.bulk_examine(id);
        self.bulk_apply(id, slot, context);
        true
    }
}

/// Refuses a lease that is too short to renew or too long to notice a dead worker.
pub(crate) fn check_lease(lease_ms: Millis) -> Result<(), Reject> {
    if lease_ms == 0 || (limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX).contains(&lease_ms) {
        return Ok(());
    }
    Err(Reject::Invalid { field: "lease_ms", reason: "is 100 ms to 24 h, or 0 for the queue's".into() })
}
