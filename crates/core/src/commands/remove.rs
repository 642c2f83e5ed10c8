use crate::shard::Shard;
use model::{JobRef, Reject, Reply, State};

impl Shard {
    /// Forgets jobs that no worker has.
    pub(crate) fn remove(&mut self, jobs: &[JobRef]) -> Result<Reply, Reject> {
        let slots = self.select(jobs, |job| match job.state {
            State::Active => Err("cancel a running job before removing it"),
            _ => Ok(()),
        })?;
        for slot in slots {
            self.forget(slot);
        }
        Ok(Reply::Done)
    }
}
