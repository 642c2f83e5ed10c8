use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use bytes::Bytes;
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
        let pushes: usize = settlements.iter().map(|settlement| settlement.push.len()).sum();
        if pushes > limits::BATCH_MAX {
            return Err(Reject::TooMany {
                what: "follow-up jobs in one call",
                limit: limits::BATCH_MAX as u64,
            });
        }
        Ok(Reply::Settled(
            settlements.iter().map(|settlement| self.settle_one(settlement, context)).collect(),
        ))
    }

    fn settle_one(&mut self, settlement: &Settlement, context: &mut Context<'_>) -> Result<Settled, Reject> {
        let slot = self.leased(&settlement.lease)?;
        check_outcome(&settlement.outcome)?;
        let ends = matches!(
            settlement.outcome,
            Outcome::Done { .. } | Outcome::Fail { .. } | Outcome::Cancel { .. }
        );
        self.check_follow_up(&settlement.push, ends.then_some(slot), context.now)?;
        let state = match &settlement.outcome {
            Outcome::Done { result } => self.complete(slot, result.as_ref(), context),
            Outcome::Retry { error, after_ms } => {
                self.fail_attempt(slot, Cause::Fail, error.clone(), *after_ms, context)
            }
            Outcome::Fail { error } => self.bury(slot, Cause::Fail, error.clone(), context),
            Outcome::Snooze { after_ms } => self.snooze(slot, *after_ms, context),
            Outcome::Cancel { reason } => {
                let error =
                    ErrorInfo { kind: "cancelled".into(), message: reason.clone(), ..ErrorInfo::default() };
                self.transition(slot, Change::new(State::Cancelled, Cause::Cancel).error(error), context);
                State::Cancelled
            }
        };
        Ok(Settled { state, pushed: self.push_checked(&settlement.push, context) })
    }

    fn complete(&mut self, slot: u32, result: Option<&Bytes>, context: &mut Context<'_>) -> State {
        let job = &mut self.jobs[slot];
        let queue = job.queue as usize;
        // A copy, so that a small result does not keep a large request in memory.
        job.run_mut().result = result.map(|result| Bytes::copy_from_slice(result));
        self.queues[queue].totals.completed += 1;
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

    /// Makes a job waiting. One that was never started can still expire.
    pub(crate) fn wait(&mut self, slot: u32, change: Change, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        let due = if job.token() == 0 { job.expires_at() } else { None };
        self.transition(slot, change.due(due.unwrap_or(Timestamp::ZERO)), context);
    }
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
        Outcome::Done { .. }
        | Outcome::Retry { .. }
        | Outcome::Fail { .. }
        | Outcome::Snooze { .. }
        | Outcome::Cancel { .. } => Ok(()),
    }
}

fn error_bytes(error: &ErrorInfo) -> usize {
    error.kind.len() + error.message.len() + error.stack.len()
}
