use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use compact_str::{CompactString, ToCompactString};
use model::{Cause, Effect, ErrorInfo, JobRef, Reject, Reply, Revocation, State, limits};

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
        self.revoke(slot, Revocation::Cancelled, context);
        let error = ErrorInfo { kind: "cancelled".into(), message: reason.clone(), ..ErrorInfo::default() };
        self.transition(slot, Change::new(State::Cancelled, Cause::Cancel).error(error), context);
    }

    /// Tells the worker of a running attempt that its lease is gone.
    pub(crate) fn revoke(&self, slot: u32, why: Revocation, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        if job.state == State::Active {
            context.effects.list.push(Effect::Revoked {
                worker: job.run.as_ref().map(|run| run.worker.clone()).unwrap_or_default(),
                queue: self.queues[job.queue as usize].name.clone(),
                id: job.id(self.id),
                lease_token: job.token(),
                why,
                position: context.position,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_job_can_be_called_off_until_it_is_final_and_again_without_harm() {
        check(
            "
            0s push mail id=a ; mail id=b delay=1h ; mail id=c ; mail id=d unique=k
            1s fetch mail                -> a 1/5 t1
            2s cancel a by=ops           -> cancelled
            2s heard                     -> w1 lost a t1 cancelled
            2s cancel b                  -> cancelled
            2s cancel c                  -> cancelled
            2s cancel c                  -> cancelled
            2s history c -> 0s 1 w1 push waiting 0, 2s 5 w1 cancel cancelled 0 cancelled
            2s next                      -> 86402s
            3s fetch mail                -> d 1/5 t2
            3s done d t2                 -> completed
            3s cancel d                  -> ! wrong_state completed
            3s cancel z                  -> ! unknown_job
            4s show a                    -> cancelled 1/5
        ",
        );
    }

    #[test]
    fn a_cancelled_job_frees_its_unique_key() {
        check(
            "
            0s push mail id=a unique=k
            1s cancel a                        -> cancelled
            2s push mail id=b unique=k         -> b waiting
            3s redrive a                       -> ! unique_conflict
            3s push mail unique=k              -> b waiting again
        ",
        );
    }

    #[test]
    fn a_reason_is_bounded() {
        let mut script = check("0s push mail id=a");
        let reason = "r".repeat(4_097).into();
        let job = model::JobRef { queue: None, id: script.shard.job(&job()).unwrap().id };
        let command = model::Command::Cancel { job, reason };
        let envelope = model::Envelope { actor: model::Actor::default(), idempotency_key: None, command };
        let at = kit::Timestamp(crate::tests::EPOCH + 1);
        assert_eq!(script.apply(at, envelope).unwrap_err().code(), "invalid");
    }

    fn job() -> model::JobRef {
        let queue = model::QueueName::new("mail").ok();
        model::JobRef { queue, id: model::JobId::Text("a".into()) }
    }
}
