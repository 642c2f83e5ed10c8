use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use model::{Cause, JobRef, Reject, Reply, State};

impl Shard {
    /// Makes delayed or retrying jobs waiting now.
    pub(crate) fn promote(&mut self, jobs: &[JobRef], context: &mut Context<'_>) -> Result<Reply, Reject> {
        let slots = self.select(jobs, |job| match job.state {
            State::Delayed if job.stands_by() => {
                Err("it stands by until the job that holds its unique key ends")
            }
            State::Delayed | State::Retrying => Ok(()),
            _ => Err("only a delayed or retrying job can be promoted"),
        })?;
        for slot in slots {
            self.promote_slot(slot, context);
        }
        Ok(Reply::Changed(vec![State::Waiting; jobs.len()]))
    }

    pub(crate) fn promote_slot(&mut self, slot: u32, context: &mut Context<'_>) {
        self.wait(slot, Change::new(State::Waiting, Cause::Promote), context);
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_promoted_job_waits_now_and_can_still_expire() {
        check(
            "
            0s  push mail id=a delay=1h expires=10s ; mail id=b ; mail id=c backoff=fixed:1h
            1s  fetch mail               -> b 1/5 t1
            1s  fetch mail               -> c 1/5 t2
            2s  retry c t2 oops          -> retrying
            3s  promote a c              -> waiting, waiting
            3s  heard                    -> 2 in mail
            3s  upcoming mail            -> a c
            10s tick
            10s show a                   -> expired 0/5
            10s fetch mail               -> c 2/5 t3
        ",
        );
    }

    #[test]
    fn all_or_none_are_promoted() {
        check(
            "
            0s push mail id=a delay=1h ; mail id=b
            1s promote a b               -> ! wrong_state waiting
            1s promote a z               -> ! unknown_job
            1s show a                    -> delayed 0/5 due 3600s
            1s promote a a               -> waiting, waiting
            1s upcoming mail             -> b a
        ",
        );
    }
}
