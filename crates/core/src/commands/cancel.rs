use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use compact_str::{CompactString, ToCompactString};
use model::{Cause, Effect, ErrorInfo, JobRef, Reject, Reply, State, limits};

impl Shard {
    /// Calls a job off. A running attempt loses its lease at once: whatever it reports later is refused.
    pub(crate) fn cancel(
        &mut self,
        job: &JobRef,
        reason: &CompactString,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if reason.len() > limits::LOG_LINE_BYTES_MAX {
            return Err(Reject::Invalid { field: "reason", reason: "has at most 4096 bytes".into() });
        }
        let slot = self.known_job(job)?;
        let state = self.jobs[slot].state;
        if state != State::Cancelled {
            if state.is_final() {
                let wanted = "only a job that is not final can be cancelled";
                return Err(Reject::WrongState { id: job.id.to_compact_string(), state, wanted });
            }
            self.cancel_slot(slot, reason, context);
        }
        Ok(Reply::Changed(vec![State::Cancelled]))
    }

    pub(crate) fn cancel_slot(&mut self, slot: u32, reason: &CompactString, context: &mut Context<'_>) {
        self.revoke(slot, context);
        let error = ErrorInfo { kind: "cancelled".into(), message: reason.clone(), ..ErrorInfo::default() };
        self.transition(slot, Change::new(State::Cancelled, Cause::Cancel).error(error), context);
    }

    /// Tells the worker of a running attempt that its lease is gone.
    pub(crate) fn revoke(&self, slot: u32, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        if job.state == State::Active {
            context.effects.list.push(Effect::Revoked {
                worker: job.run.as_ref().map(|run| run.worker.clone()).unwrap_or_default(),
                queue: self.queues[job.queue as usize].name.clone(),
                id: job.id(self.id),
                lease_token: job.token(),
            });
        }
    }
}
