use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use model::{Cause, JobRef, Reject, Reply, State};

impl Shard {
    /// Gives final jobs another life: attempts and crashes start from zero, history and token go on.
    pub(crate) fn redrive(&mut self, jobs: &[JobRef], context: &mut Context<'_>) -> Result<Reply, Reject> {
        let slots = self.select(jobs, |job| {
            if job.state.is_final() { Ok(()) } else { Err("only a final job can be redriven") }
        })?;
        for slot in slots {
            self.redrive_slot(slot, context);
        }
        Ok(Reply::Changed(vec![State::Waiting; jobs.len()]))
    }

    pub(crate) fn redrive_slot(&mut self, slot: u32, context: &mut Context<'_>) {
        let job = &mut self.jobs[slot];
        (job.attempt, job.crashes) = (0, 0);
        let (queue, sequence) = (job.queue, job.sequence);
        if let Some(run) = &mut job.run {
            run.result = None;
        }
        if let Some(asked) = &mut job.asked {
            // It ran out of time once already; its new life has no such end.
            asked.expires_at = None;
        }
        let key = job.asked.as_ref().and_then(|asked| asked.unique_key.clone());
        if let Some(key) = key {
            if self.unique_holder(queue, &key, context.now).is_none() {
                self.take_unique(queue, &key, sequence);
            } else if let Some(asked) = &mut self.jobs[slot].asked {
                asked.unique_key = None;
            }
        }
        self.wait(slot, Change::new(State::Waiting, Cause::Redrive), context);
    }
}
