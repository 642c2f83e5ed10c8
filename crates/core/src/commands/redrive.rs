use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use compact_str::CompactString;
use kit::Timestamp;
use model::{Cause, JobRef, Reject, Reply, State};
use std::collections::BTreeMap;

impl Shard {
    /// Gives final jobs another life: attempts and crashes start from zero, history and token go on. A job whose unique key another
    /// one has by now is refused, so that a key never has two live jobs.
    pub(crate) fn redrive(&mut self, jobs: &[JobRef], context: &mut Context<'_>) -> Result<Reply, Reject> {
        for slot in self.final_jobs(jobs, "only a final job can be redriven", context.now)? {
            self.redrive_slot(slot, context);
        }
        Ok(Reply::Changed(vec![State::Waiting; jobs.len()]))
    }

    /// Finds jobs that can have another life, all of them or none.
    pub(crate) fn final_jobs(
        &self,
        jobs: &[JobRef],
        wanted: &'static str,
        now: Timestamp,
    ) -> Result<Vec<u32>, Reject> {
        let slots = self.select(jobs, |job| if job.state.is_final() { Ok(()) } else { Err(wanted) })?;
        let mut keys = BTreeMap::new();
        for slot in &slots {
            let Some(key) = self.key_of(*slot) else { continue };
            let holder = keys.insert(key.clone(), *slot).or(self.unique_holder(key.0, &key.1, now));
            if let Some(holder) = holder {
                return Err(self.conflict(&key.1, holder));
            }
        }
        Ok(slots)
    }

    fn key_of(&self, slot: u32) -> Option<(u32, CompactString)> {
        let job = &self.jobs[slot];
        Some((job.queue, job.asked.as_ref()?.unique_key.clone()?))
    }

    /// Redrives one job; false if another one has its unique key.
    pub(crate) fn redrive_slot(&mut self, slot: u32, context: &mut Context<'_>) -> bool {
        if let Some((queue, key)) = self.key_of(slot) {
            if self.unique_holder(queue, &key, context.now).is_some() {
                return false;
            }
            self.take_unique(queue, &key, self.jobs[slot].sequence);
        }
        let job = &mut self.jobs[slot];
        (job.attempt, job.crashes) = (0, 0);
        if let Some(run) = &mut job.run {
            run.result = None;
        }
        if let Some(asked) = &mut job.asked {
            // It ran out of time once already; its new life has no such end.
            asked.expires_at = None;
        }
        self.wait(slot, Change::new(State::Waiting, Cause::Redrive), context);
        true
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
    fn it_takes_its_unique_key_again_and_is_refused_while_another_has_it() {
        check(
            "
            0s  push mail id=a unique=k ; mail id=b unique=l
            1s  cancel a                 -> cancelled
            1s  cancel b                 -> cancelled
            2s  push mail id=c unique=l  -> c waiting
            3s  redrive a b              -> ! unique_conflict
            3s  show a                   -> cancelled 0/5
            3s  redrive a                -> waiting
            4s  push mail unique=k       -> a waiting again
            4s  push mail unique=l       -> c waiting again
            5s  cancel c                 -> cancelled
            6s  redrive b c              -> ! unique_conflict
            6s  redrive b                -> waiting
            6s  redrive c                -> ! unique_conflict
        ",
        );
    }

    #[test]
    fn a_bulk_redrive_leaves_out_whose_unique_key_is_taken() {
        check(
            "
            0s  push mail id=a unique=k attempts=1 ; mail id=b attempts=1
            0s  fetch mail max=2         -> a 1/1 t1, b 1/1 t2
            1s  retry a t1 oops          -> dead
            1s  retry b t2 oops          -> dead
            2s  push mail id=c unique=k  -> c waiting
            3s  bulk redrive mail
            3s  tick
            3s  counts mail              -> 2 waiting, 1 dead
            3s  show a                   -> dead 1/1
        ",
        );
    }
}
