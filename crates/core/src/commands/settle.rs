use crate::{
    flow::GateKey,
    shard::{Context, Shard},
    transition::Change,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use model::{Cause, ErrorInfo, Outcome, Reject, Reply, Settled, Settlement, State, limits};

impl Shard {
    /// Reports how attempts ended. Each settlement is one atomic change with its follow-up jobs, answered by itself.
    pub(crate) fn settle(
        &mut self,
        settlements: &[Settlement],
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if settlements.len() > limits::BATCH_MAX {
            return Err(Reject::TooMany { what: "outcomes in one call", limit: limits::BATCH_MAX as u64 });
        }
        let pushes: usize = settlements.iter().map(pushes).sum();
        if pushes > limits::BATCH_MAX {
            return Err(Reject::TooMany {
                what: "follow-up jobs in one call",
                limit: limits::BATCH_MAX as u64,
            });
        }
        let mut budget = limits::TICK_WORK_MAX;
        let mut settled = Vec::with_capacity(settlements.len());
        for settlement in settlements {
            settled.push(self.settle_one(settlement, context));
            // What one outcome ends must not be reported by the next.
            if !self.joins.work.is_empty() {
                budget = self.advance_joins(budget, context);
            }
        }
        Ok(Reply::Settled(settled))
    }

    fn settle_one(&mut self, settlement: &Settlement, context: &mut Context<'_>) -> Result<Settled, Reject> {
        self.fence_lease(&settlement.lease, context);
        let slot = self.leased(&settlement.lease)?;
        check_outcome(&settlement.outcome)?;
        if let Outcome::Wait { children } = &settlement.outcome {
            return self.wait_for_children(slot, children, &settlement.push, context);
        }
        self.check_rate_limited(slot, &settlement.outcome)?;
        let ends = matches!(
            settlement.outcome,
            Outcome::Done { .. } | Outcome::Fail { .. } | Outcome::Cancel { .. }
        );
        if let Outcome::Suspend { step, until } = &settlement.outcome {
            self.check_suspend(slot, step, until, &settlement.push, context.now)?;
        } else {
            self.check_follow_up(&settlement.push, ends.then_some(slot), context.now)?;
        }
        let state = match &settlement.outcome {
            Outcome::Done { result } => self.complete(slot, result.as_ref(), context),
            Outcome::Retry { error, after_ms } => {
                self.fail_attempt(slot, Cause::Fail, error.clone(), *after_ms, context)
            }
            Outcome::Fail { error } => {
                self.record_end(slot, true);
                self.bury(slot, Cause::Fail, error.clone(), context)
            }
            Outcome::Snooze { after_ms } => self.snooze(slot, *after_ms, context),
            Outcome::RateLimited { key, after_ms } => {
                self.rate_limited(slot, key.as_ref(), *after_ms, context)
            }
            Outcome::Cancel { reason } => {
                let error =
                    ErrorInfo { kind: "cancelled".into(), message: reason.clone(), ..ErrorInfo::default() };
                self.transition(slot, Change::new(State::Cancelled, Cause::Cancel).error(error), context);
                State::Cancelled
            }
            Outcome::Wait { .. } => State::WaitingChildren,
            Outcome::Suspend { step, until } => self.suspend(slot, step, until, context),
            Outcome::Crash(crash) => self.crash(slot, crash, context),
        };
        Ok(Settled { state, pushed: self.push_checked(&settlement.push, context) })
    }

    fn complete(&mut self, slot: u32, result: Option<&Bytes>, context: &mut Context<'_>) -> State {
        let job = &mut self.jobs[slot];
        let queue = job.queue as usize;
        // A copy, so that a small result does not keep a large request in memory.
        job.run_mut().result = result.map(|result| Bytes::copy_from_slice(result));
        self.queues[queue].totals.completed += 1;
        self.record_end(slot, false);
        self.earn_retries(queue as u32);
        self.transition(slot, Change::new(State::Completed, Cause::Complete), context);
        State::Completed
    }

    /// Puts a job off without using an attempt.
    fn snooze(&mut self, slot: u32, after_ms: u64, context: &mut Context<'_>) -> State {
        let job = &mut self.jobs[slot];
        job.attempt -= 1;
        if after_ms == 0 {
            self.wait(slot, Change::new(State::Waiting, Cause::Snooze), context);
            return State::Waiting;
        }
        self.transition(
            slot,
            Change::new(State::Delayed, Cause::Snooze).due(context.now + after_ms),
            context,
        );
        State::Delayed
    }

    /// What the job needs said to come later: nothing that counts against the same limit starts before, and no attempt is used.
    fn rate_limited(
        &mut self,
        slot: u32,
        key: Option<&CompactString>,
        after_ms: u64,
        context: &mut Context<'_>,
    ) -> State {
        let until = context.now + after_ms;
        let queue = self.jobs[slot].queue;
        self.jobs[slot].attempt -= 1;
        self.wait(slot, Change::new(State::Waiting, Cause::RateLimited), context);
        match key.and_then(|key| self.flow.gate_index.get(&GateKey::Limit(key.clone())).copied()) {
            Some(gate) => self.close_gate(gate, until),
            None => self.close_queue(queue, until),
        }
        State::Waiting
    }

    /// Refuses a limit that the job does not count against: closing it would hold others for nothing.
    fn check_rate_limited(&self, slot: u32, outcome: &Outcome) -> Result<(), Reject> {
        let Outcome::RateLimited { key, after_ms } = outcome else { return Ok(()) };
        if !(1..=limits::SPAN_MS_MAX).contains(after_ms) {
            return Err(Reject::Invalid { field: "after_ms", reason: "is 1 ms to 1 year".into() });
        }
        let route = self.jobs[slot].asked.as_ref().and_then(|asked| asked.route.as_deref());
        let counts =
            |key: &CompactString| route.is_some_and(|route| route.limits.iter().any(|used| used.key == *key));
        if key.as_ref().is_some_and(|key| !counts(key)) {
            let reason = "is not a limit of this job; leave it out to hold the queue";
            return Err(Reject::Invalid { field: "limit", reason: reason.into() });
        }
        Ok(())
    }

    /// Makes a job waiting. One that was never started can still expire.
    pub(crate) fn wait(&mut self, slot: u32, change: Change, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        let due = if job.token() == 0 { job.expires_at() } else { None };
        self.transition(slot, change.due(due.unwrap_or(Timestamp::ZERO)), context);
    }
}

/// How many jobs it adds.
fn pushes(settlement: &Settlement) -> usize {
    let children = match &settlement.outcome {
        Outcome::Wait { children } => children.jobs.len(),
        Outcome::Done { .. }
        | Outcome::Retry { .. }
        | Outcome::Fail { .. }
        | Outcome::Snooze { .. }
        | Outcome::RateLimited { .. }
        | Outcome::Cancel { .. }
        | Outcome::Crash(_)
        | Outcome::Suspend { .. } => 0,
    };
    children + settlement.push.len()
}

/// Refuses an outcome that is too large to keep.
fn check_outcome(outcome: &Outcome) -> Result<(), Reject> {
    match outcome {
        Outcome::Done { result: Some(result) } if result.len() > limits::RESULT_BYTES_MAX => {
            Err(Reject::Invalid { field: "result", reason: "has at most 1 MiB".into() })
        }
        Outcome::Retry { error, .. } | Outcome::Fail { error }
            if error_bytes(error) > limits::ERROR_BYTES_MAX =>
        {
            Err(Reject::Invalid { field: "error", reason: "has at most 16 KiB in all".into() })
        }
        Outcome::Cancel { reason } if reason.len() > limits::LOG_LINE_BYTES_MAX => {
            Err(Reject::Invalid { field: "reason", reason: "has at most 4096 bytes".into() })
        }
        Outcome::Crash(crash)
            if crash.stderr.len() > limits::CRASH_STDERR_BYTES_MAX
                || crash.signal.as_ref().is_some_and(|name| name.len() > limits::TAG_BYTES_MAX) =>
        {
            Err(Reject::Invalid {
                field: "crash",
                reason: "has at most 4 KiB of stderr and 128 bytes of signal".into(),
            })
        }
        Outcome::Done { .. }
        | Outcome::Retry { .. }
        | Outcome::Fail { .. }
        | Outcome::Snooze { .. }
        | Outcome::RateLimited { .. }
        | Outcome::Cancel { .. }
        | Outcome::Crash(_)
        | Outcome::Wait { .. }
        | Outcome::Suspend { .. } => Ok(()),
    }
}

fn error_bytes(error: &ErrorInfo) -> usize {
    error.kind.len() + error.message.len() + error.stack.len()
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn done_adds_its_follow_up_jobs_in_the_same_change() {
        check(
            "
            0s push mail id=a
            1s fetch mail                                       -> a 1/5 t1
            2s done a t1 push mail attempts=0                   -> ! invalid attempts
            2s show a                                           -> active 1/5 due 31s
            2s done a t1 push mail id=b ; news id=c delay=1s    -> completed + b waiting, c delayed
            2s history b                                        -> 2s 4 w1 push waiting 0
            2s done a t1 push mail id=d                         -> ! stale_lease
            2s show d                                           -> gone
        ",
        );
    }

    #[test]
    fn work_that_began_may_end_in_a_full_queue() {
        check(
            "
            0s configure mail jobs=1            -> configured
            0s push mail id=a
            0s fetch mail                       -> a 1/5 t1
            0s done a t1 push mail x2           -> completed + #2 waiting, #3 waiting
            0s push mail                        -> ! queue_full
        ",
        );
    }

    #[test]
    fn a_job_hands_its_unique_key_to_its_follow_up() {
        check(
            "
            0s push mail id=a unique=k
            0s fetch mail                                             -> a 1/5 t1
            0s snooze a t1 push mail id=b unique=k conflict=reject    -> ! unique_conflict
            0s done a t1 push mail id=b unique=k conflict=reject      -> completed + b waiting
            1s push mail unique=k                                     -> b waiting again
        ",
        );
    }

    #[test]
    fn a_result_under_an_old_lease_is_refused() {
        check(
            "
            0s  push mail id=a
            0s  fetch mail lease=5s            -> a 1/5 t1
            5s  done a t1                      -> ! stale_lease
            5s  fetch mail by=w2               -> a 2/5 t2
            6s  done a t1                      -> ! stale_lease
            6s  done a t2                      -> completed
            7s  done a t2                      -> ! stale_lease
            7s  done b t2                      -> ! unknown_job
        ",
        );
    }

    #[test]
    fn a_cancelled_attempt_is_told_so() {
        check(
            "
            0s  push mail id=a ; mail id=b
            0s  fetch mail max=2               -> a 1/5 t1, b 1/5 t2
            1s  cancel a                       -> cancelled
            2s  done a t1                      -> ! cancelled
            2s  done a t9                      -> ! stale_lease
            3s  giveup b t2 pointless          -> cancelled
            3s  history b -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 3s 6 w1 cancel cancelled 1 cancelled
        ",
        );
    }

    #[test]
    fn snooze_does_not_consume_an_attempt() {
        check(
            "
            0s  push mail id=a attempts=1
            0s  fetch mail                     -> a 1/1 t1
            1s  snooze a t1 after=10s          -> delayed
            1s  show a                         -> delayed 0/1 due 11s
            11s fetch mail                     -> a 1/1 t2
            12s snooze a t2                    -> waiting
            12s fetch mail                     -> a 1/1 t3
            13s retry a t3 oops                -> dead
            13s totals mail                    -> pushed 1 started 3 completed 0 failed 1 dead 1
        ",
        );
    }

    #[test]
    fn a_job_has_one_history_and_it_is_exact() {
        check(
            "
            0s  push mail id=a by=shop attempts=2 delay=1s
            2s  fetch mail by=w7               -> a 1/2 t1
            3s  retry a t1 oops after=4s by=w7 -> retrying
            8s  fetch mail by=w8 lease=1s      -> a 2/2 t2
            9s  tick
            9s  heard                          -> w8 lost a t2 lease_lost
            10s redrive a by=ops               -> waiting
            11s fetch mail by=w7               -> a 1/2 t3
            12s done a t3 by=w7                -> completed
            13s history a -> 0s 1 shop push delayed 0, 2s 2 - due waiting 0, 2s 2 w7 fetch active 1, \
                3s 3 w7 fail retrying 1 oops, 8s 4 - due waiting 1, 8s 4 w8 fetch active 2, \
                9s 5 - lease_lost dead 2 lease_lost, 10s 6 ops redrive waiting 0, 11s 7 w7 fetch active 1, \
                12s 8 w7 complete completed 1
        ",
        );
    }

    #[test]
    fn a_long_history_keeps_its_beginning_and_its_end() {
        let mut script = check("0s push mail id=a");
        for round in 1..=400 {
            script.line(&format!("{round}s fetch mail"));
            script.line(&format!("{round}s snooze a t{round}"));
        }
        let history = script.line("401s history a");
        let entries: Vec<_> = history.split(", ").collect();
        assert!(entries.len() <= model::limits::HISTORY_MAX + 1, "{}", entries.len());
        assert_eq!(entries[0], "0s 1 w1 push waiting 0");
        assert_eq!(entries[2], "1s 3 w1 snooze waiting 0");
        assert_eq!(entries[16], "8s 17 w1 snooze waiting 0");
        assert_eq!(entries[entries.len() - 1], "400s 801 w1 snooze waiting 0");
        assert_eq!(entries[entries.len() - 100], "351s 702 w1 fetch active 1");
    }

    #[test]
    fn a_call_with_too_much_is_refused() {
        let mut script = check("0s push mail id=a\n0s fetch mail");
        let big = "r".repeat((1 << 20) + 1);
        assert_eq!(script.line(&format!("1s done a t1 result={big}")), "! invalid result");
        assert_eq!(script.line(&format!("1s fail a t1 {}", &big[..9_000])), "! invalid error");
        assert_eq!(script.line(&format!("1s giveup a t1 {}", &big[..5_000])), "! invalid reason");
        assert_eq!(script.line(&format!("1s done a t1 result={}", &big[..1 << 20])), "completed");
    }
}
