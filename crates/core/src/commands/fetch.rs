use crate::{
    bulk::OVERTAKEN_MAX,
    shard::{Context, Shard},
    transition::Change,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Millis;
use model::{Cause, DispatchedJob, QueueName, Reject, Reply, State, limits};

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
        let (mut ended, mut overtaken) = (0, 0);
        #[cfg(feature = "plant")]
        let shuffled: std::collections::HashSet<_> = queues.iter().collect();
        #[cfg(feature = "plant")]
        let queues = match crate::plant::is(crate::plant::Bug::HashOrder) {
            true => shuffled.into_iter().collect(),
            false => queues.iter().collect::<Vec<_>>(),
        };
        'queues: for name in queues {
            let Some(&queue) = self.queue_index.get(name) else { continue };
            while jobs.len() < max as usize && !self.queues[queue as usize].paused {
                let Some(slot) = self.next_in_line(queue) else { break };
                if self.expire_late(slot, context) || self.fence(slot, context) {
                    ended += 1;
                    if ended == limits::TICK_WORK_MAX {
                        break 'queues;
                    }
                    continue;
                }
                if self.overtake(slot, context) {
                    overtaken += 1;
                    // What is left there is for the operation; another queue may have something at once.
                    if overtaken >= OVERTAKEN_MAX {
                        continue 'queues;
                    }
                    continue;
                }
                jobs.push(self.lease(slot, lease_ms, context));
                if !self.bulks.is_empty() {
                    self.catch_up(slot, context);
                }
            }
        }
        Ok(Reply::Fetched(jobs))
    }

    pub(crate) fn lease(&mut self, slot: u32, lease_ms: Millis, context: &mut Context<'_>) -> DispatchedJob {
        let shard = self.id;
        let queue = self.jobs[slot].queue as usize;
        self.take_turn(slot);
        self.queues[queue].totals.started += 1;
        let lease_ms = if lease_ms == 0 { self.queues[queue].settings.lease_ms } else { lease_ms };
        self.counters.token += 1;
        let token = self.counters.token;
        let job = &mut self.jobs[slot];
        job.attempt += 1;
        let timeout_at = context.now + u64::from(job.timeout_ms);
        #[cfg(feature = "plant")]
        let lease_ms = match crate::plant::is(crate::plant::Bug::LeaseFromWallClock) {
            true => lease_ms + crate::plant::machine_millis(),
            false => lease_ms,
        };
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
            children: job.ties().and_then(|ties| self.children(ties.waits_for)),
            steps: job.step_count(),
            group: job.group(),
        }
    }
}

/// Refuses a lease that is too short to renew or too long to notice a dead worker.
pub(crate) fn check_lease(lease_ms: Millis) -> Result<(), Reject> {
    if lease_ms == 0 || (limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX).contains(&lease_ms) {
        return Ok(());
    }
    Err(Reject::Invalid { field: "lease_ms", reason: "is 100 ms to 24 h, or 0 for the queue's".into() })
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn jobs_start_by_priority_then_in_line() {
        check(
            "
            0s push mail id=a p=low ; mail id=b ; mail id=c ; mail id=d p=critical
            0s upcoming mail             -> d b c a
            0s explain d                 -> waiting NextInLine at 0s
            0s explain c                 -> waiting Behind at never
            1s fetch mail max=3          -> d 1/5 t1, b 1/5 t2, c 1/5 t3
            2s fetch mail max=3          -> a 1/5 t4
            3s fetch mail                -> none
        ",
        );
    }

    #[test]
    fn a_job_stands_in_line_from_when_it_was_due() {
        check(
            "
            0s  push mail id=late delay=9s ; mail id=soon delay=5s
            4s  push mail id=first            -> first waiting
            10s push mail id=last             -> last waiting
            10s fetch mail max=9              -> first 1/5 t1, soon 1/5 t2, late 1/5 t3, last 1/5 t4
        ",
        );
    }

    #[test]
    fn queues_are_served_in_the_order_they_are_named() {
        check(
            "
            0s push mail id=a ; video id=b p=0 ; mail id=c
            1s fetch mail,nowhere,video max=3   -> a 1/5 t1, c 1/5 t2, b 1/5 t3
            2s push mail id=d ; video id=e
            2s fetch video,mail                 -> e 1/5 t4
        ",
        );
    }

    #[test]
    fn a_paused_queue_hands_out_nothing() {
        check(
            "
            0s push mail id=a
            1s pause mail              -> ok
            2s fetch mail              -> none
            2s show a                  -> blocked 0/5
            2s explain a               -> blocked QueuePaused at never
            2s counts mail             -> 1 blocked
            2s push mail id=b          -> b waiting
            2s heard                   ->
            3s resume mail             -> ok
            3s heard                   -> 2 in mail
            3s fetch mail              -> a 1/5 t1
        ",
        );
    }

    #[test]
    fn a_lease_ends_with_the_attempt_at_the_latest() {
        check(
            "
            0s push mail id=a timeout=10s ; mail id=b timeout=1h
            0s configure mail lease=20s     -> configured
            0s fetch mail max=2             -> a 1/5 t1, b 1/5 t2
            0s show a                       -> active 1/5 due 10s
            0s show b                       -> active 1/5 due 20s
            0s push mail id=c
            0s fetch mail lease=5s          -> c 1/5 t3
            0s show c                       -> active 1/5 due 5s
        ",
        );
    }

    #[test]
    fn a_fetch_that_asks_for_nonsense_is_refused() {
        check(
            "
            0s push mail id=a
            0s fetch                       -> ! invalid queues
            0s fetch mail max=0            -> ! invalid max
            0s fetch mail max=10001        -> ! invalid max
            0s fetch mail lease=99ms       -> ! invalid lease_ms
            0s fetch mail lease=25h        -> ! invalid lease_ms
            0s fetch nowhere               -> none
            0s fetch mail                  -> a 1/5 t1
        ",
        );
    }

    #[test]
    fn tokens_rise_for_ever() {
        check(
            "
            0s push mail id=a attempts=1
            1s fetch mail                  -> a 1/1 t1
            2s fail a t1 oops              -> dead
            3s redrive a                   -> waiting
            4s fetch mail                  -> a 1/1 t2
            5s done a t1                   -> ! stale_lease
            5s done a t2                   -> completed
        ",
        );
    }

    #[test]
    fn an_expired_job_never_starts_however_many_expire_at_once() {
        check(
            "
            0s  push mail x2500 expires=10s
            0s  push mail id=z
            10s fetch mail                 -> none
            11s fetch mail                 -> z 1/5 t1
            11s counts mail                -> 1 active, 2500 expired
        ",
        );
    }

    #[test]
    fn a_fetch_from_several_queues_outruns_no_purge_and_waits_for_none() {
        check(
            "
            0s push a x1500 ; b x1500 ; c id=z
            0s bulk purge a                -> bulk 1: 0 of 0
            0s bulk purge b                -> bulk 2: 0 of 0
            1s fetch a,b,c                 -> z 1/5 t1
            1s bulks                       -> bulk 1: 64 of 64, bulk 2: 1 of 1
            2s tick
            3s tick
            4s tick
            4s bulks                       -> bulk 1: 1500 of 1500 finished, bulk 2: 1500 of 1500 finished
        ",
        );
    }

    #[test]
    fn a_body_that_is_not_in_memory_is_left_out_and_comes_back() {
        let mut script = check(
            "
            0s push mail id=a bytes=10 ; mail id=b bytes=20
            1s tick
        ",
        );
        assert_eq!(script.shard.resident_bytes(), 30);
        assert!(!script.shard.evict_bodies(15), "the newest went, and that was enough");
        assert_eq!(script.shard.resident_bytes(), 10);
        script.shard.evict_bodies(0);
        script.shard.check().unwrap();
        let cold = script.shard.cold_ahead(10);
        assert_eq!(cold, [1, 2]);
        assert!(!script.shard.warm(1, &b"something else"[..].into()), "another body is refused");
        assert!(script.shard.warm(1, &vec![b'x'; 10].into()));
        assert_eq!(script.shard.cold_ahead(10), [2]);
        script.shard.check().unwrap();
        assert_eq!(script.line("2s fetch mail max=2"), "a 1/5 t1, b 1/5 t2");
    }
}
