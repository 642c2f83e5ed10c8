use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use kit::{Backoff, Millis, random::mix};
use model::{Cause, ErrorInfo, State};

impl Shard {
    /// An attempt ended without success: the next one after a wait, or none is left and the job is dead.
    pub(crate) fn fail_attempt(
        &mut self,
        slot: u32,
        cause: Cause,
        error: ErrorInfo,
        after_ms: Option<Millis>,
        context: &mut Context<'_>,
    ) -> State {
        self.record_end(slot, true);
        let job = &self.jobs[slot];
        if job.attempt >= u32::from(job.attempts) {
            return self.bury(slot, cause, error, context);
        }
        let jittered = || self.backoff(slot).delay(job.attempt, mix(job.sequence, job.token()));
        let wait = after_ms.unwrap_or_else(jittered);
        self.try_again(slot, cause, error, wait, context)
    }

    /// How long a job waits between attempts.
    pub(crate) fn backoff(&self, slot: u32) -> &Backoff {
        let job = &self.jobs[slot];
        let own = job.asked.as_ref().and_then(|asked| asked.backoff.as_ref());
        own.unwrap_or(&self.queues[job.queue as usize].settings.backoff)
    }

    /// Puts off a job whose attempt went wrong.
    pub(crate) fn try_again(
        &mut self,
        slot: u32,
        cause: Cause,
        error: ErrorInfo,
        wait: Millis,
        context: &mut Context<'_>,
    ) -> State {
        self.queues[self.jobs[slot].queue as usize].totals.failed += 1;
        if wait == 0 {
            self.wait(slot, Change::new(State::Waiting, cause).error(error), context);
            return State::Waiting;
        }
        self.transition(
            slot,
            Change::new(State::Retrying, cause).due(context.now + wait).error(error),
            context,
        );
        State::Retrying
    }

    /// Makes a job dead.
    pub(crate) fn bury(
        &mut self,
        slot: u32,
        cause: Cause,
        error: ErrorInfo,
        context: &mut Context<'_>,
    ) -> State {
        self.queues[self.jobs[slot].queue as usize].totals.failed += 1;
        self.die(slot, cause, error, context);
        State::Dead
    }

    /// Makes a job dead that no attempt has failed. Where its queue has a target, it goes on and waits there.
    pub(crate) fn die(&mut self, slot: u32, cause: Cause, error: ErrorInfo, context: &mut Context<'_>) {
        let queue = self.jobs[slot].queue;
        self.queues[queue as usize].totals.dead += 1;
        let class = self.count_death(slot, &error, context.now);
        self.count_for_alert(queue, context.now);
        let onward = self.onward(slot, class);
        let change = Change::new(State::Dead, cause).error(error);
        self.transition(slot, Change { onward, ..change }, context);
        self.raise_alert(queue, context);
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_job_is_dead_after_its_last_attempt() {
        check(
            "
            0s  push mail id=a attempts=2 backoff=fixed:10s
            1s  fetch mail               -> a 1/2 t1
            2s  retry a t1 oops          -> retrying
            2s  show a                   -> retrying 1/2 due 12s
            2s  explain a                -> retrying RetryAt at 12s
            11s fetch mail               -> none
            12s fetch mail               -> a 2/2 t2
            13s retry a t2 oops          -> dead
            13s totals mail              -> pushed 1 started 2 completed 0 failed 2 dead 1
            13s explain a                -> dead Final at never
        ",
        );
    }

    #[test]
    fn every_backoff_waits_as_it_says() {
        check(
            "
            0s  push list id=a backoff=list:2s,7s
            0s  fetch list               -> a 1/5 t1
            0s  retry a t1 oops          -> retrying
            0s  show a                   -> retrying 1/5 due 2s
            2s  fetch list               -> a 2/5 t2
            2s  retry a t2 oops          -> retrying
            2s  show a                   -> retrying 2/5 due 9s
            9s  fetch list               -> a 3/5 t3
            9s  retry a t3 oops after=1s -> retrying
            9s  show a                   -> retrying 3/5 due 10s
            10s fetch list               -> a 4/5 t4
            10s retry a t4 oops after=0s -> waiting
            10s fetch list               -> a 5/5 t5
            20s configure own backoff=fixed:3s -> configured
            20s push own id=b
            20s fetch own                -> b 1/5 t6
            20s retry b t6 oops          -> retrying
            20s show b                   -> retrying 1/5 due 23s
        ",
        );
    }

    #[test]
    fn a_jittered_backoff_stays_below_its_cap() {
        let mut script = check("0s push mail x200 backoff=exponential:10s:1h\n0s fetch mail max=200");
        for job in 1..=200 {
            assert_eq!(script.line(&format!("0s retry #{job} t{job} oops")), "retrying");
        }
        let mut dues: Vec<_> = (1..=200).map(|job| script.line(&format!("0s show #{job}"))).collect();
        dues.sort();
        dues.dedup();
        assert!(dues.len() > 150, "they do not come back together");
        assert_eq!(script.line("10s counts mail"), "200 retrying");
        script.line("10s tick");
        assert_eq!(script.line("10s counts mail"), "200 waiting");
    }

    #[test]
    fn fail_is_final_whatever_is_left() {
        check(
            "
            0s  push mail id=a
            0s  fetch mail               -> a 1/5 t1
            1s  fail a t1 oops           -> dead
            1s  history a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 1s 3 w1 fail dead 1 oops
        ",
        );
    }

    #[test]
    fn a_lost_worker_counts_apart_and_the_job_waits_at_once() {
        check(
            "
            0s  push mail id=a attempts=9 crashes=2 ; mail id=b attempts=1 crashes=9
            0s  fetch mail lease=10s     -> a 1/9 t1
            10s fetch mail               -> b 1/1 t2
            10s show a                   -> waiting 1/9 crashes 1
            11s fetch mail lease=10s     -> a 2/9 t3
            21s tick
            21s show a                   -> dead 2/9 crashes 2
            40s tick
            40s heard                    -> w1 lost b t2 lease_lost
            40s show b                   -> dead 1/1 crashes 1
        ",
        );
    }

    #[test]
    fn a_job_that_crashed_goes_behind_those_that_waited() {
        check(
            "
            0s  push mail id=a ; mail id=b
            0s  fetch mail lease=10s     -> a 1/5 t1
            10s upcoming mail            -> b
            10s tick
            10s heard                    -> w1 lost a t1 lease_lost, 1 in mail
            10s upcoming mail            -> b a
        ",
        );
    }

    #[test]
    fn a_worker_lost_before_its_timeout_is_a_crash_however_late_it_is_noticed() {
        check(
            "
            0s  push mail id=a timeout=20s
            0s  fetch mail lease=10s     -> a 1/5 t1
            60s tick
            60s show a                   -> waiting 1/5 crashes 1
        ",
        );
    }

    #[test]
    fn an_attempt_that_runs_too_long_failed() {
        check(
            "
            0s  push mail id=a timeout=20s backoff=fixed:5s crashes=1
            0s  fetch mail lease=20s     -> a 1/5 t1
            10s renew a t1               -> until 20s
            20s tick
            20s heard                    -> w1 lost a t1 timeout
            20s history a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 20s 4 - timeout retrying 1 timeout
            20s done a t1                -> ! stale_lease
            25s fetch mail               -> a 2/5 t2
        ",
        );
    }
}
