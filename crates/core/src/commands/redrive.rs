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

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_redriven_job_starts_from_zero() {
        check(
            "
            0s  push mail id=a attempts=2 crashes=1
            0s  fetch mail lease=1s      -> a 1/2 t1
            1s  tick
            1s  show a                   -> dead 1/2 crashes 1
            2s  redrive a                -> waiting
            2s  show a                   -> waiting 0/2
            2s  redrive a                -> ! wrong_state waiting
            3s  fetch mail               -> a 1/2 t2
            4s  done a t2                -> completed
            5s  redrive a                -> waiting
            6s  fetch mail               -> a 1/2 t3
            7s  redrive a                -> ! wrong_state active
        ",
        );
    }

    #[test]
    fn an_expired_job_does_not_expire_again() {
        check(
            "
            0s  push mail id=a expires=5s
            5s  redrive a                -> waiting
            99s fetch mail               -> a 1/5 t1
        ",
        );
    }

    #[test]
    fn it_takes_its_unique_key_again_unless_another_has_it() {
        check(
            "
            0s  push mail id=a unique=k ; mail id=b unique=l
            1s  cancel a                 -> cancelled
            1s  cancel b                 -> cancelled
            2s  push mail id=c unique=l  -> c waiting
            3s  redrive a b              -> waiting, waiting
            4s  push mail unique=k       -> a waiting again
            4s  push mail unique=l       -> c waiting again
            5s  cancel c                 -> cancelled
            6s  push mail id=d unique=l  -> d waiting
        ",
        );
    }
}
