//! The outcome `suspend`: a job gives its worker back until a time, a signal or the end of a child.

use crate::{
    shard::{Context, Shard},
    steps::{Parent, Wait, check_name},
    transition::Change,
};
use compact_str::{CompactString, ToCompactString};
use kit::Timestamp;
use model::{Cause, JobRef, NewJob, Reject, State, StepValue, Until, limits};

impl Shard {
    /// Refuses a suspension with its follow-up jobs; changes nothing.
    pub(crate) fn check_suspend(
        &self,
        slot: u32,
        step: &str,
        until: &Until,
        push: &[NewJob],
        now: Timestamp,
    ) -> Result<(), Reject> {
        let too_long = |field| Err(Reject::Invalid { field, reason: "is at most ten years".into() });
        check_name("step", step)?;
        match until {
            Until::Time { after_ms } if *after_ms > limits::SUSPENSION_MS_MAX => return too_long("after_ms"),
            Until::Signal { timeout_ms, .. } if *timeout_ms > limits::SUSPENSION_MS_MAX => {
                return too_long("timeout_ms");
            }
            Until::Signal { name, .. } => check_name("signal", name)?,
            Until::Time { .. } | Until::Child { .. } => {}
        }
        if self.step(slot, step).is_some() {
            return self.check_follow_up(push, None, now);
        }
        match until {
            Until::Child { job } => {
                let jobs: Vec<_> = std::iter::once(&**job).chain(push).cloned().collect();
                self.check_follow_up(&jobs, None, now)?;
            }
            Until::Time { .. } | Until::Signal { .. } => self.check_follow_up(push, None, now)?,
        }
        self.check_steps(slot, step.len())?;
        if let Until::Child { job } = until
            && self.own_child(slot, step, job, now).is_none()
            && self.would_be_answered(job, now)?
        {
            let asked = job.id.as_ref().map(|id| id.to_compact_string());
            let key = job.unique.as_ref().map(|unique| unique.key.clone());
            return Err(Reject::ChildExists { id: asked.or(key).unwrap_or_default() });
        }
        Ok(())
    }

    /// The child that an earlier life of the parent made for the same step, if it has the id or the unique key of `new`.
    fn own_child(&self, slot: u32, step: &str, new: &NewJob, now: Timestamp) -> Option<u32> {
        let named = new
            .id
            .as_ref()
            .and_then(|id| self.find(&JobRef { queue: Some(new.queue.clone()), id: id.clone() }));
        let holder = || {
            let queue = *self.queue_index.get(&new.queue)?;
            self.unique_holder(queue, &new.unique.as_ref()?.key, now)
        };
        named.or_else(holder).filter(|child| self.is_child(*child, slot, step))
    }

    /// Whether a job was made as the child of that step, in this life of its parent or in an earlier one.
    fn is_child(&self, child: u32, parent: u32, step: &str) -> bool {
        let asked = self.jobs[child].asked.as_ref();
        asked
            .and_then(|asked| asked.parent.as_deref())
            .is_some_and(|link| link.sequence == self.jobs[parent].sequence && link.step == step)
    }

    /// Suspends an active job as [`Shard::check_suspend`] allowed; its state then.
    pub(crate) fn suspend(
        &mut self,
        slot: u32,
        step: &CompactString,
        until: &Until,
        context: &mut Context<'_>,
    ) -> State {
        self.jobs[slot].attempt -= 1;
        match until {
            Until::Time { after_ms } => self.sleep(slot, step, context.now + *after_ms, context),
            Until::Signal { name, timeout_ms } => self.await_signal(slot, step, name, *timeout_ms, context),
            Until::Child { job } => self.await_child(slot, step, job, context),
        }
        self.jobs[slot].state
    }

    fn go_on(&mut self, slot: u32, context: &mut Context<'_>) {
        self.wait(slot, Change::new(State::Waiting, Cause::Suspend), context);
    }

    fn sleep(&mut self, slot: u32, step: &CompactString, until: Timestamp, context: &mut Context<'_>) {
        if self.step(slot, step).is_some() {
            return self.go_on(slot, context);
        }
        self.add_step(slot, step, StepValue::Slept { until }, context.now);
        if until <= context.now {
            return self.go_on(slot, context);
        }
        self.transition(slot, Change::new(State::Delayed, Cause::Suspend).due(until), context);
    }

    fn await_signal(
        &mut self,
        slot: u32,
        step: &CompactString,
        name: &CompactString,
        timeout_ms: u64,
        context: &mut Context<'_>,
    ) {
        if self.step(slot, step).is_some() {
            return self.go_on(slot, context);
        }
        if let Some(body) = self.take_signal(slot, name) {
            self.add_step(slot, step, StepValue::Signal(body), context.now);
            return self.go_on(slot, context);
        }
        let timeout_ms = if timeout_ms == 0 { limits::SIGNAL_WAIT_MS_DEFAULT } else { timeout_ms };
        self.transition(
            slot,
            Change::new(State::Suspended, Cause::Suspend).due(context.now + timeout_ms),
            context,
        );
        self.wait_for(slot, Wait::Signal { step: step.clone(), name: name.clone() });
    }

    fn await_child(&mut self, slot: u32, step: &CompactString, new: &NewJob, context: &mut Context<'_>) {
        if self.step(slot, step).is_none() {
            let child = match self.own_child(slot, step, new, context.now) {
                Some(child) => child,
                None => self.push_child(slot, step, new, context),
            };
            let queue = self.queues[self.jobs[child].queue as usize].name.clone();
            let id = self.jobs[child].id(self.id);
            self.add_step(slot, step, StepValue::Child { queue, id, end: None }, context.now);
            if self.jobs[child].state.is_final() {
                self.tell_parent(child);
                self.wake_parents(context);
            }
        }
        if matches!(self.step(slot, step).map(|step| &step.value), Some(StepValue::Child { end: None, .. })) {
            self.transition(slot, Change::new(State::WaitingChildren, Cause::Suspend), context);
            self.wait_for(slot, Wait::Child { step: step.clone() });
        } else {
            self.go_on(slot, context);
        }
    }

    fn push_child(
        &mut self,
        slot: u32,
        step: &CompactString,
        new: &NewJob,
        context: &mut Context<'_>,
    ) -> u32 {
        let parent = Parent { sequence: self.jobs[slot].sequence, step: step.clone() };
        let pushed = self.push_checked(std::slice::from_ref(new), context);
        let id = pushed.into_iter().map(|pushed| pushed.id).next();
        let child = id.and_then(|id| self.find(&JobRef { queue: Some(new.queue.clone()), id }));
        let child = child.expect("a checked job was pushed");
        self.jobs[child].asked.get_or_insert_default().parent = Some(Box::new(parent));
        child
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_job_sleeps_without_a_worker_and_uses_no_attempt() {
        check(
            "
            0s  push mail id=a attempts=1
            0s  fetch mail                             -> a 1/1 t1
            1s  sleep a t1 cool-down after=10s         -> delayed
            1s  show a                                 -> delayed 0/1 due 11s
            1s  explain a                              -> delayed DelayedUntil at 11s
            1s  steps a                                -> cool-down: sleep until 11s (1s, 0)
            10s fetch mail                             -> none
            11s fetch mail                             -> a 1/1 t2, 1 step
            12s sleep a t2 cool-down after=10s         -> waiting
            12s fetch mail                             -> a 1/1 t3, 1 step
            12s sleep a t3 no-time                     -> waiting
            12s fetch mail                             -> a 1/1 t4, 2 steps
            12s retry a t4 oops                        -> dead
            12s history a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 1s 3 w1 suspend delayed 0, \
                11s 5 - due waiting 0, 11s 5 w1 fetch active 1, 12s 6 w1 suspend waiting 0, \
                12s 7 w1 fetch active 1, 12s 8 w1 suspend waiting 0, 12s 9 w1 fetch active 1, 12s 10 w1 fail dead 1 oops
        ",
        );
    }

    #[test]
    fn a_sleeper_can_be_woken_or_cancelled() {
        check(
            "
            0s  push mail id=a ; mail id=b
            0s  fetch mail max=2                       -> a 1/5 t1, b 1/5 t2
            1s  sleep a t1 nap after=1h                -> delayed
            1s  sleep b t2 nap after=1h                -> delayed
            2s  promote a                              -> waiting
            2s  cancel b                               -> cancelled
            3s  fetch mail                             -> a 1/5 t3, 1 step
            3s  redrive b                              -> waiting
            3s  fetch mail                             -> b 1/5 t4, 1 step
        ",
        );
    }

    #[test]
    fn a_suspension_is_fenced_and_bounded() {
        check(
            "
            0s  push mail id=a
            0s  fetch mail lease=5s                    -> a 1/5 t1
            5s  wait-signal a t1 ok go                 -> ! stale_lease
            5s  sleep a t1 nap after=1s                -> ! stale_lease
            5s  wait-child a t1 kid child mail id=c    -> ! stale_lease
            5s  show c                                 -> gone
            5s  fetch mail                             -> a 2/5 t2
            5s  sleep a t2 nap after=3654d             -> ! invalid after_ms
            5s  wait-signal a t2 ok go after=3654d     -> ! invalid timeout_ms
            5s  show a                                 -> active 2/5 crashes 1 due 35s
        ",
        );
    }

    #[test]
    fn follow_up_jobs_go_with_a_suspension() {
        check(
            "
            0s  push mail id=a
            0s  fetch mail                                             -> a 1/5 t1
            0s  sleep a t1 nap after=1s push mail id=b attempts=0      -> ! invalid attempts
            0s  wait-child a t1 kid child mail id=c push mail id=b     -> waiting-children + b waiting
            0s  upcoming mail                                          -> c b
        ",
        );
    }

    #[test]
    fn a_parent_waits_until_its_child_is_final_and_gets_its_result() {
        check(
            "
            0s  push order id=a
            0s  fetch order                                     -> a 1/5 t1
            1s  wait-child a t1 resize child image id=c         -> waiting-children
            1s  show a                                          -> waiting-children 0/5
            1s  explain a                                       -> waiting-children WaitsForChild at never
            1s  steps a                                         -> resize: child c live (1s, 0)
            2s  fetch image                                     -> c 1/5 t2
            3s  retry c t2 oops after=1s                        -> retrying
            4s  fetch image                                     -> c 2/5 t3
            5s  done c t3 result=small by=w2                    -> completed
            5s  heard                                           -> 1 in order
            5s  steps a                                         -> resize: child c completed small (5s, 0)
            6s  fetch order                                     -> a 1/5 t4, 1 step
            6s  done a t4                                       -> completed
            6s  history a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 1s 3 w1 suspend waiting-children 0, \
                5s 7 w2 child_ended waiting 0, 6s 8 w1 fetch active 1, 6s 9 w1 complete completed 1
        ",
        );
    }

    #[test]
    fn however_a_child_ends_its_parent_goes_on() {
        check(
            "
            0s  push order id=a ; order id=b ; order id=c ; order id=d ; order id=e
            0s  fetch order max=5 -> a 1/5 t1, b 1/5 t2, c 1/5 t3, d 1/5 t4, e 1/5 t5
            1s  wait-child a t1 kid child mail id=ka            -> waiting-children
            1s  wait-child b t2 kid child mail id=kb            -> waiting-children
            1s  wait-child c t3 kid child mail id=kc delay=1h   -> waiting-children
            1s  wait-child d t4 kid child mail id=kd expires=9s -> waiting-children
            1s  wait-child e t5 kid child junk id=ke            -> waiting-children
            2s  fetch mail                                      -> ka 1/5 t6
            3s  fail ka t6 oops                                 -> dead
            4s  cancel kb                                       -> cancelled
            5s  remove kc                                       -> ok
            10s bulk purge junk                                 -> bulk 1: 0 of 0
            10s tick
            10s steps a                                         -> kid: child ka dead oops (3s, 0)
            10s steps b                                         -> kid: child kb cancelled cancelled (4s, 0)
            10s steps c                                         -> kid: child kc removed (5s, 0)
            10s steps d                                         -> kid: child kd expired (10s, 0)
            10s steps e                                         -> kid: child ke removed (10s, 0)
            10s counts order                                    -> 5 waiting
            11s redrive ka                                      -> waiting
            11s fetch mail                                      -> ka 1/5 t7
            11s done ka t7 result=late                          -> completed
            11s steps a                                         -> kid: child ka dead oops (3s, 0)
        ",
        );
    }

    #[test]
    fn there_is_one_child_however_often_its_parent_starts() {
        check(
            "
            0s  push order id=a
            0s  fetch order                                     -> a 1/5 t1
            1s  wait-child a t1 kid child mail                  -> waiting-children
            2s  cancel a                                        -> cancelled
            3s  redrive a                                       -> waiting
            3s  fetch order                                     -> a 1/5 t2, 1 step
            3s  wait-child a t2 kid child mail                  -> waiting-children
            3s  counts mail                                     -> 1 waiting
            4s  cancel a                                        -> cancelled
            5s  fetch mail                                      -> #2 1/5 t3
            5s  done #2 t3 result=r                             -> completed
            5s  show a                                          -> cancelled 0/5
            6s  redrive a                                       -> waiting
            6s  fetch order                                     -> a 1/5 t4, 1 step
            6s  steps a                                         -> kid: child #2 completed r (5s, 0)
            6s  wait-child a t4 kid child mail                  -> waiting
            6s  totals mail                                     -> pushed 1 started 1 completed 1 failed 0 dead 0
        ",
        );
    }

    #[test]
    fn a_child_is_a_new_job_or_the_same_one_as_in_an_earlier_life() {
        check(
            "
            0s  push order id=a ; mail id=b unique=k
            0s  fetch order                                     -> a 1/5 t1
            1s  wait-child a t1 kid child mail id=b             -> ! child_exists
            1s  wait-child a t1 kid child mail unique=k         -> ! child_exists
            1s  wait-child a t1 kid child order id=a            -> ! child_exists
            1s  wait-child a t1 kid child mail id=c             -> waiting-children
            2s  cancel a                                        -> cancelled
            2s  restart a                                       -> waiting
            2s  fetch order                                     -> a 1/5 t2
            2s  wait-child a t2 other child mail id=c           -> ! child_exists
            2s  wait-child a t2 kid child mail id=c             -> waiting-children
            3s  cancel a                                        -> cancelled
            3s  cancel c                                        -> cancelled
            3s  restart a                                       -> waiting
            3s  fetch order                                     -> a 1/5 t3
            3s  wait-child a t3 kid child mail id=c             -> waiting
            3s  steps a                                         -> kid: child c cancelled cancelled (3s, 0)
        ",
        );
    }

    #[test]
    fn a_child_of_an_earlier_life_says_nothing() {
        check(
            "
            0s  push order id=a
            0s  fetch order                                     -> a 1/5 t1
            1s  wait-child a t1 kid child mail                  -> waiting-children
            2s  cancel a                                        -> cancelled
            2s  restart a                                       -> waiting
            2s  fetch order                                     -> a 1/5 t2
            2s  wait-child a t2 kid child mail                  -> waiting-children
            3s  cancel #2                                       -> cancelled
            3s  show a                                          -> waiting-children 0/5
            4s  cancel #3                                       -> cancelled
            4s  show a                                          -> waiting 0/5
            5s  remove a                                        -> ok
        ",
        );
    }

    #[test]
    fn a_child_is_not_moved_away_from_its_parent() {
        check(
            "
            0s  push order id=a
            0s  fetch order                                     -> a 1/5 t1
            1s  wait-child a t1 kid child mail id=c             -> waiting-children
            2s  bulk move mail to=slow
            3s  tick
            3s  upcoming mail                                   -> c
            3s  explain a                                       -> waiting-children WaitsForChild at never
            4s  cancel c                                        -> cancelled
            4s  show a                                          -> waiting 0/5
        ",
        );
    }

    #[test]
    fn a_removed_parent_leaves_its_child_to_itself() {
        check(
            "
            0s  push order id=a
            0s  fetch order                                     -> a 1/5 t1
            1s  wait-child a t1 kid child mail id=c             -> waiting-children
            2s  remove a                                        -> ok
            3s  fetch mail                                      -> c 1/5 t2
            3s  done c t2                                       -> completed
            4s  remove c                                        -> ok
        ",
        );
    }
}
