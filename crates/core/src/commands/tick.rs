use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use kit::Timestamp;
use model::{Actor, Cause, ErrorInfo, Priority, Reject, Reply, Revocation, State, limits};

/// Idempotency keys forgotten by one command at most.
const EXPIRED_KEYS_MAX: usize = 16;

impl Shard {
    /// Spends what the prologue left of the budget on bulk operations.
    pub(crate) fn tick(&mut self, work: usize, context: &mut Context<'_>) -> Result<Reply, Reject> {
        self.advance_bulks(limits::TICK_WORK_MAX.saturating_sub(work), context);
        Ok(Reply::Done)
    }

    /// The prologue of every command: moves what is due, at most [`limits::TICK_WORK_MAX`] jobs. Returns how many.
    ///
    /// It runs before the command so that a job due at 12:00 stands in line before one pushed at 12:01, however late the tick is.
    pub(crate) fn advance(&mut self, context: &mut Context<'_>) -> usize {
        self.idempotency.expire(context.now, EXPIRED_KEYS_MAX);
        self.open_gates();
        self.throttles.expire(context.now, EXPIRED_KEYS_MAX);
        let engine = Actor::default();
        let mut quiet = context.unattended(&engine);
        let work = self.advance_as(&mut quiet);
        let ready = quiet.ready;
        context.ready = ready;
        work
    }

    fn advance_as(&mut self, context: &mut Context<'_>) -> usize {
        let mut work = 0;
        let horizon = context.now;
        #[cfg(feature = "plant")]
        let horizon = horizon + if crate::plant::is(crate::plant::Bug::FireEarly) { 1_000 } else { 0 };
        while work < limits::TICK_WORK_MAX {
            let timer = self.timers.first().filter(|(due, _)| *due <= horizon);
            if let Some((due, id)) = self.schedules.first()
                && *due <= slot_horizon(context.now)
                && timer.is_none_or(|(other, _)| due < other)
            {
                work += self.fire_schedule(&id.clone(), context);
                continue;
            }
            let Some(&(_, sequence)) = timer else { break };
            let slot = self.slot_of(sequence).expect("a timer belongs to a job");
            self.fire(slot, context);
            work += 1;
        }
        while work < limits::TICK_WORK_MAX
            && let Some(&(due, join)) = self.joins.timers.first()
            && due <= context.now
        {
            self.fire_join(join, context.now);
            work += 1;
        }
        while work < limits::TICK_WORK_MAX
            && let Some(&(due, queue, state)) = self.retention.first()
            && due <= context.now
        {
            self.retention.remove(&(due, queue, state));
            self.queues[queue as usize].retention_timers[state as usize] = Timestamp::ZERO;
            // An entry may be early, its job long gone. Then only the timer moves, so that what is forgotten, and in which
            // order, follows from the jobs alone.
            if let Some((slot, forget_at)) = self.oldest_final(queue, state)
                && forget_at == due
            {
                self.forget(slot);
                work += 1;
            }
            self.schedule_retention(queue, state);
        }
        work
    }

    /// Something happens to a job by itself.
    fn fire(&mut self, slot: u32, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        match job.state {
            State::Waiting | State::Delayed | State::Retrying | State::WaitingChildren
                if job.has_expired(context.now) =>
            {
                self.transition(slot, Change::new(State::Expired, Cause::Expire), context);
            }
            State::Delayed | State::Retrying => {
                self.wait(slot, Change::new(State::Waiting, Cause::Due), context)
            }
            // Nobody called it up in time.
            State::Suspended => self.time_out(slot, context),
            State::WaitingChildren => self.wait(slot, Change::new(State::Waiting, Cause::Due), context),
            // A lease renewed up to the timeout was held by a live worker; one that ended before was lost, however late that is seen.
            State::Active if job.run.as_ref().is_some_and(|run| run.timeout_at <= run.lease_until) => {
                let message = format!("the attempt ran longer than {} ms", job.timeout_ms);
                let error =
                    ErrorInfo { kind: "timeout".into(), message: message.into(), ..ErrorInfo::default() };
                self.revoke(slot, Revocation::Timeout, context);
                self.fail_attempt(slot, Cause::Timeout, error, None, context);
            }
            State::Active => {
                self.revoke(slot, Revocation::LeaseLost, context);
                self.lose_worker(slot, context);
            }
            State::Waiting
            | State::Blocked
            | State::Completed
            | State::Dead
            | State::Cancelled
            | State::Expired => {
                unreachable!("a job in this state has no timer")
            }
        }
    }

    /// Expires a waiting job whose timer is among more than one prologue can move; true if it was late.
    pub(crate) fn expire_late(&mut self, slot: u32, context: &mut Context<'_>) -> bool {
        let late = self.jobs[slot].has_expired(context.now);
        if late {
            self.fire(slot, &mut context.unattended(&Actor::default()));
        }
        late
    }

    fn oldest_final(&self, queue: u32, state: State) -> Option<(u32, Timestamp)> {
        let home = &self.queues[queue as usize];
        let (_, slot) = home.lane(state, Priority::NORMAL)?.first()?;
        Some((slot, home.forget_at(state, self.jobs[slot].finished_at())))
    }

    /// Sets the timer of a final lane to when its oldest job is forgotten, unless it fires before that anyway. A lane has one.
    pub(crate) fn schedule_retention(&mut self, queue: u32, state: State) {
        let Some((_, forget_at)) = self.oldest_final(queue, state) else { return };
        let timer = &mut self.queues[queue as usize].retention_timers[state as usize];
        if *timer == Timestamp::ZERO || forget_at < *timer {
            self.retention.remove(&(*timer, queue, state));
            *timer = forget_at;
            self.retention.insert((forget_at, queue, state));
        }
    }
}

/// Until when the slots of schedules are due.
fn slot_horizon(now: Timestamp) -> Timestamp {
    #[cfg(feature = "plant")]
    if crate::plant::is(crate::plant::Bug::FireSlotEarly) {
        return now + 1_000;
    }
    now
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn one_command_moves_a_bounded_number_in_the_order_they_were_due() {
        check(
            "
            0s  push mail x1200 delay=10s ; mail id=z delay=5s
            20s tick
            20s counts mail              -> 1000 waiting, 201 delayed
            20s next                     -> 10s
            20s push mail id=new         -> new waiting
            20s counts mail              -> 1202 waiting
            20s fetch mail               -> z 1/5 t1
        ",
        );
    }

    #[test]
    fn every_command_moves_what_is_due_first() {
        check(
            "
            0s  push mail id=a delay=10s
            11s push mail id=b           -> b waiting
            11s upcoming mail            -> a b
        ",
        );
    }

    #[test]
    fn time_does_not_run_backwards() {
        check(
            "
            10s push mail id=a delay=10s
            5s  push mail id=b delay=1s   -> b delayed
            5s  show b                    -> delayed 0/5 due 11s
            5s  tick
            5s  show b                    -> delayed 0/5 due 11s
        ",
        );
    }

    #[test]
    fn final_jobs_go_by_age_each_kind_by_its_own() {
        check(
            "
            0s  configure mail keep=10s:9 keep_dead=30s:9 -> configured
            0s  push mail id=a ; mail id=b ; mail id=c ; mail id=d expires=1s
            0s  fetch mail max=3         -> a 1/5 t1, b 1/5 t2, c 1/5 t3
            0s  done a t1                -> completed
            1s  fail b t2 oops           -> dead
            2s  cancel c                 -> cancelled
            9s  counts mail              -> 1 completed, 1 dead, 1 cancelled, 1 expired
            10s tick
            10s show a                   -> gone
            11s tick
            11s show d                   -> gone
            12s tick
            12s counts mail              -> 1 dead
            31s tick
            31s counts mail              ->
            31s next                     -> never
        ",
        );
    }

    #[test]
    fn final_jobs_go_by_count_oldest_first() {
        check(
            "
            0s  configure mail keep=1h:2 -> configured
            0s  push mail id=a ; mail id=b ; mail id=c
            1s  cancel b                 -> cancelled
            2s  cancel a                 -> cancelled
            3s  cancel c                 -> cancelled
            3s  show b                   -> gone
            3s  counts mail              -> 2 cancelled
            4s  configure mail keep=1h:0 -> configured
            5s  push mail id=d
            5s  cancel d                 -> cancelled
            5s  counts mail              ->
        ",
        );
    }

    #[test]
    fn a_queue_that_keeps_nothing_has_one_retention_timer() {
        let mut script = check("0s configure mail keep=24h:0");
        for second in 1..200 {
            script.line(&format!("{second}s push mail id=a"));
            assert_eq!(script.line(&format!("{second}s cancel a")), "cancelled");
        }
        assert_eq!(script.shard.retention.len(), 1);
    }
}
