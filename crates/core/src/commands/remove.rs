use crate::shard::{Context, Shard};
use model::{JobRef, Reject, Reply, State};

impl Shard {
    /// Forgets jobs that no worker has.
    pub(crate) fn remove(&mut self, jobs: &[JobRef], context: &mut Context<'_>) -> Result<Reply, Reject> {
        let slots = self.select(jobs, |job| match job.state {
            State::Active => Err("cancel a running job before removing it"),
            _ => Ok(()),
        })?;
        for slot in slots {
            self.remove_slot(slot, context);
        }
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_removed_job_leaves_no_trace() {
        check(
            "
            0s push mail id=a unique=k delay=1h ; mail id=b ; mail id=c
            1s fetch mail                -> b 1/5 t1
            1s remove a b                -> ! wrong_state active
            1s remove a c z              -> ! unknown_job
            1s counts mail               -> 1 waiting, 1 delayed, 1 active
            2s remove a c                -> ok
            2s next                      -> 31s
            2s counts mail               -> 1 active
            2s push mail id=a unique=k   -> a waiting
            3s done b t1                 -> completed
            3s remove b                  -> ok
        ",
        );
    }
}
