use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use kit::{Millis, random::mix};
use model::{Cause, ErrorInfo, State};

impl Shard {
    /// An attempt ended without success: the next one after a wait, or none is left and the job is dead.
    pub(crate) fn fail_attempt(
        &mut self,
        slot: u32,
        cause: Cause,
        error: ErrorInfo,
        after_ms: Option<Millis>,
        context: &mut Context<'_>,
    ) -> State {
        let job = &self.jobs[slot];
        if job.attempt >= u32::from(job.attempts) {
            return self.bury(slot, cause, error, context);
        }
        let queue = job.queue as usize;
        let backoff = job.asked.as_ref().and_then(|asked| asked.backoff.as_ref());
        let backoff = backoff.unwrap_or(&self.queues[queue].settings.backoff);
        let wait = after_ms.unwrap_or_else(|| backoff.delay(job.attempt, mix(job.sequence, job.token())));
        self.queues[queue].totals.failed += 1;
        if wait == 0 {
            self.wait(slot, Change::new(State::Waiting, cause).error(error), context);
            return State::Waiting;
        }
        self.transition(
            slot,
            Change::new(State::Retrying, cause).due(context.now + wait).error(error),
            context,
        );
        State::Retrying
    }

    /// The worker was lost. It is counted apart from errors, so that a job that kills its workers is found out early.
    pub(crate) fn crash(&mut self, slot: u32, context: &mut Context<'_>) -> State {
        let job = &mut self.jobs[slot];
        job.crashes = job.crashes.saturating_add(1);
        let message = "the worker was not heard of until its lease ended";
        let error = ErrorInfo { kind: "lease_lost".into(), message: message.into(), ..ErrorInfo::default() };
        if job.crashes >= job.max_crashes {
            return self.bury(slot, Cause::LeaseLost, error, context);
        }
        self.fail_attempt(slot, Cause::LeaseLost, error, Some(0), context)
    }

    /// Makes a job dead.
    pub(crate) fn bury(
        &mut self,
        slot: u32,
        cause: Cause,
        error: ErrorInfo,
        context: &mut Context<'_>,
    ) -> State {
        let totals = &mut self.queues[self.jobs[slot].queue as usize].totals;
        totals.failed += 1;
        totals.dead += 1;
        self.transition(slot, Change::new(State::Dead, cause).error(error), context);
        State::Dead
    }
}
