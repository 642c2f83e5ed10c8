use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use kit::Timestamp;
use model::{Actor, Cause, ErrorInfo, Priority, Reject, Reply, State, limits};

/// Idempotency keys forgotten by one command at most.
const EXPIRED_KEYS_MAX: usize = 16;

impl Shard {
    /// Spends what the prologue left of the budget on bulk operations.
    pub(crate) fn tick(&mut self, work: usize, context: &mut Context<'_>) -> Result<Reply, Reject> {
        self.advance_bulks(limits::TICK_WORK_MAX - work, context);
        Ok(Reply::Done)
    }

    /// The prologue of every command: moves what is due, at most [`limits::TICK_WORK_MAX`] jobs. Returns how many.
    ///
    /// It runs before the command so that a job due at 12:00 stands in line before one pushed at 12:01, however late the tick is.
    pub(crate) fn advance(&mut self, context: &mut Context<'_>) -> usize {
        self.idempotency.expire(context.now, EXPIRED_KEYS_MAX);
        let engine = Actor::default();
        let mut quiet = context.unattended(&engine);
        let work = self.advance_as(&mut quiet);
        let ready = quiet.ready;
        context.ready = ready;
        work
    }

    fn advance_as(&mut self, context: &mut Context<'_>) -> usize {
        let mut work = 0;
        while work < limits::TICK_WORK_MAX
            && let Some(&(due, sequence)) = self.timers.first()
            && due <= context.now
        {
            let slot = self.slot_of(sequence).expect("a timer belongs to a job");
            self.fire(slot, context);
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
            State::Waiting | State::Delayed | State::Retrying if job.has_expired(context.now) => {
                self.transition(slot, Change::new(State::Expired, Cause::Expire), context);
            }
            State::Delayed | State::Retrying => {
                self.wait(slot, Change::new(State::Waiting, Cause::Due), context)
            }
            State::Active if job.run.as_ref().is_some_and(|run| run.timeout_at <= context.now) => {
                let message = format!("the attempt ran longer than {} ms", job.timeout_ms);
                let error =
                    ErrorInfo { kind: "timeout".into(), message: message.into(), ..ErrorInfo::default() };
                self.revoke(slot, context);
                self.fail_attempt(slot, Cause::Timeout, error, None, context);
            }
            State::Active => {
                self.revoke(slot, context);
                self.crash(slot, context);
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
