use crate::shard::{Context, Shard};
use bytes::Bytes;
use compact_str::ToCompactString;
use model::{Cause, JobRef, Reject, Reply, State, limits};

impl Shard {
    /// Gives a job that no worker has another body, if its body is still the one that the new one was made from.
    pub(crate) fn patch_body(
        &mut self,
        job: &JobRef,
        expected_crc: u32,
        body: &Bytes,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if body.len() > limits::BODY_BYTES_MAX {
            return Err(Reject::BodyTooLarge {
                bytes: body.len() as u64,
                limit: limits::BODY_BYTES_MAX as u64,
            });
        }
        let slot = self.known_job(job)?;
        let (id, found) = (job.id.to_compact_string(), &self.jobs[slot]);
        let state = found.state;
        if state == State::Active {
            let wanted = "the body of a job can be changed while no worker has it";
            return Err(Reject::WrongState { id, state, wanted });
        }
        let differs = found.body_crc != expected_crc;
        #[cfg(feature = "plant")]
        let differs = differs && !crate::plant::is(crate::plant::Bug::PatchBlindly);
        if differs {
            return Err(Reject::BodyChanged { id });
        }
        let grows = (body.len() as u64).saturating_sub(u64::from(found.body_len));
        let home = &self.queues[found.queue as usize];
        let limit = home.settings.capacity.bytes;
        if !state.is_final() && limit > 0 && grows > 0 && home.live_bytes + grows > limit {
            return Err(Reject::QueueFull { queue: home.name.clone(), limit, unit: "bytes", waits: false });
        }
        self.replace_body(slot, body, Cause::Patch, context);
        Ok(Reply::Changed(vec![state]))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_body_is_changed_in_any_state_but_active_and_the_change_is_in_the_history() {
        check(
            "
            0s push mail id=a body=old attempts=1 ; mail id=b body=old delay=1h
            1s patch a old new                   -> waiting
            1s patch b old new                   -> delayed
            1s fetch mail                        -> a 1/1 t1
            2s patch a new newer                 -> ! wrong_state active
            2s retry a t1 oops                   -> dead
            3s patch a new newest                -> dead
            3s body a                            -> newest
            4s redrive a                         -> waiting
            4s history a -> 0s 1 w1 push waiting 0, 1s 2 w1 patch waiting 0, 1s 4 w1 fetch active 1, \
                2s 6 w1 fail dead 1 oops, 3s 7 w1 patch dead 1, 4s 8 w1 redrive waiting 0
            5s fetch mail                        -> a 1/1 t2
        ",
        );
    }

    #[test]
    fn a_body_that_changed_meanwhile_is_not_overwritten() {
        check(
            "
            0s push mail id=a body=1
            1s patch a 1 2                       -> waiting
            1s patch a 1 3                       -> ! body_changed
            1s patch z 1 3                       -> ! unknown_job
            1s body a                            -> 2
        ",
        );
    }

    #[test]
    fn a_larger_body_needs_room() {
        check(
            "
            0s configure mail bytes=4
            0s push mail id=a body=12
            1s patch a 12 12345                  -> ! queue_full
            1s patch a 12 1234                   -> waiting
            1s push mail bytes=1                 -> ! queue_full
            1s patch a 1234 1                    -> waiting
            1s push mail bytes=3                 -> #2 waiting
            2s cancel a                          -> cancelled
            2s patch a 1 1234567                 -> cancelled
            3s redrive a                         -> waiting
        ",
        );
    }
}
