use crate::shard::{Context, Shard};
use model::{JobRef, Reject, Reply, State};

impl Shard {
    /// Gives final jobs another life from the very beginning: their steps and signals are forgotten.
    pub(crate) fn restart(&mut self, jobs: &[JobRef], context: &mut Context<'_>) -> Result<Reply, Reject> {
        for slot in self.final_jobs(jobs, "only a final job can be restarted", context.now)? {
            self.forget_steps(slot);
            self.redrive_slot(slot, context);
        }
        Ok(Reply::Changed(vec![State::Waiting; jobs.len()]))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_redriven_job_keeps_its_steps_and_a_restarted_one_does_not() {
        check(
            "
            0s  push mail id=a
            0s  fetch mail                     -> a 1/5 t1
            0s  step a t1 charge paid          -> stored
            0s  signal a go 1                  -> active, kept
            1s  fail a t1 oops                 -> dead
            2s  redrive a                      -> waiting
            2s  fetch mail                     -> a 1/5 t2, 1 step
            2s  restart a                      -> ! wrong_state active
            3s  fail a t2 oops                 -> dead
            3s  restart a                      -> waiting
            3s  fetch mail                     -> a 1/5 t3
            3s  step a t3 charge anew          -> stored
            3s  steps a                        -> charge: result anew (3s, 1)
            4s  wait-signal a t3 ok go         -> suspended
        ",
        );
    }
    #[test]
    fn a_restart_that_another_holder_of_the_key_forbids_forgets_nothing() {
        check(
            "
            0s  push mail id=a unique=k
            0s  fetch mail                     -> a 1/5 t1
            0s  step a t1 charge paid          -> stored
            1s  fail a t1 oops                 -> dead
            2s  push mail id=b unique=k        -> b waiting
            2s  restart a                      -> ! unique_conflict
            2s  steps a                        -> charge: result paid (0s, 1)
            3s  cancel b                       -> cancelled
            3s  restart a                      -> waiting
            3s  fetch mail                     -> a 1/5 t2
        ",
        );
    }
}
