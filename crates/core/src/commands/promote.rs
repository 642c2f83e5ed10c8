use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use model::{Cause, JobRef, Reject, Reply, State};

impl Shard {
    /// Makes delayed or retrying jobs waiting now.
    pub(crate) fn promote(&mut self, jobs: &[JobRef], context: &mut Context<'_>) -> Result<Reply, Reject> {
        let slots = self.select(jobs, |job| match job.state {
            State::Delayed | State::Retrying => Ok(()),
            _ => Err("only a delayed or retrying job can be promoted"),
        })?;
        for slot in slots {
            self.wait(slot, Change::new(State::Waiting, Cause::Promote), context);
        }
        Ok(Reply::Changed(vec![State::Waiting; jobs.len()]))
    }
}
