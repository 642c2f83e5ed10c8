//! The poison guard. Crashes of workers and of their handlers' processes are counted apart from errors, so that a job that kills
//! whoever runs it is found out early and put into quarantine: dead, until somebody redrives it.

use crate::shard::{Context, Shard};
use kit::random::mix;
use model::{Cause, Crash, ErrorInfo, State};

impl Shard {
    /// The worker saw the handler's process die. That is no error of the attempt, so no attempt is used; the job alone waits, longer
    /// with every crash.
    pub(crate) fn crash(&mut self, slot: u32, crash: &Crash, context: &mut Context<'_>) -> State {
        let error = ErrorInfo {
            kind: Crash::KIND.into(),
            message: crash.to_string().into(),
            stack: crash.stderr.clone(),
        };
        self.jobs[slot].attempt -= 1;
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::CountCrashAsAttempt) {
            self.jobs[slot].attempt += 1;
        }
        if self.count_crash(slot) {
            return self.quarantine(slot, error, context);
        }
        self.record_end(slot, true);
        let job = &self.jobs[slot];
        let wait = self.backoff(slot).delay(job.crashes.into(), mix(job.sequence, job.token()));
        self.try_again(slot, Cause::Crash, error, wait, context)
    }

    /// The worker was not heard of until its lease ended. Nobody knows how far it came, so its attempt is used up.
    pub(crate) fn lose_worker(&mut self, slot: u32, context: &mut Context<'_>) -> State {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::CountAttemptOnFailureOnly) {
            self.jobs[slot].attempt -= 1;
        }
        let message = "the worker was not heard of until its lease ended";
        let error = ErrorInfo { kind: "lease_lost".into(), message: message.into(), ..ErrorInfo::default() };
        if self.count_crash(slot) {
            return self.quarantine(slot, error, context);
        }
        self.fail_attempt(slot, Cause::LeaseLost, error, Some(0), context)
    }

    /// Counts a crash; true if it is the last that the job may have.
    fn count_crash(&mut self, slot: u32) -> bool {
        let job = &mut self.jobs[slot];
        job.crashes = job.crashes.saturating_add(1);
        job.crashes >= job.max_crashes
    }

    fn quarantine(&mut self, slot: u32, error: ErrorInfo, context: &mut Context<'_>) -> State {
        self.record_end(slot, true);
        self.bury(slot, Cause::Quarantine, error, context)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_job_whose_handler_dies_waits_alone_and_uses_no_attempt() {
        check(
            "
            0s  push mail id=a attempts=1 backoff=list:2s,7s ; mail id=b
            0s  fetch mail                             -> a 1/1 t1
            1s  crash a t1 signal=SIGSEGV              -> retrying
            1s  show a                                 -> retrying 0/1 crashes 1 due 3s
            1s  explain a                              -> retrying RetryAt at 3s
            1s  fetch mail                             -> b 1/5 t2
            3s  fetch mail                             -> a 1/1 t3
            3s  crash a t3 exit=3                      -> retrying
            3s  show a                                 -> retrying 0/1 crashes 2 due 10s
            10s fetch mail                             -> a 1/1 t4
            11s retry a t4 oops                        -> dead
            11s history a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 1s 3 w1 crash retrying 0 crash, \
                3s 5 - due waiting 0, 3s 5 w1 fetch active 1, 3s 6 w1 crash retrying 0 crash, \
                10s 7 - due waiting 0, 10s 7 w1 fetch active 1, 11s 8 w1 fail dead 1 oops
        ",
        );
    }

    #[test]
    fn the_last_crash_is_quarantine_and_a_redrive_is_a_new_life() {
        check(
            "
            0s  push mail id=a crashes=2 backoff=fixed:0s
            0s  fetch mail                             -> a 1/5 t1
            0s  crash a t1 signal=SIGABRT stderr=boom  -> waiting
            0s  fetch mail                             -> a 1/5 t2
            1s  crash a t2 signal=SIGABRT stderr=boom  -> dead
            1s  show a                                 -> dead 0/5 crashes 2
            1s  explain a                              -> dead Quarantined at never
            1s  totals mail                            -> pushed 1 started 2 completed 0 failed 2 dead 1
            1s  history a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 0s 3 w1 crash waiting 0 crash, \
                0s 4 w1 fetch active 1, 1s 5 w1 quarantine dead 0 crash
            2s  redrive a                              -> waiting
            2s  show a                                 -> waiting 0/5
            2s  fetch mail                             -> a 1/5 t3
            2s  crash a t3                             -> waiting
            2s  fetch mail                             -> a 1/5 t4
            2s  done a t4                              -> completed
        ",
        );
    }

    #[test]
    fn lost_workers_and_reported_crashes_count_together() {
        check(
            "
            0s  push mail id=a crashes=2 ; mail id=b crashes=1
            0s  fetch mail lease=10s                   -> a 1/5 t1
            10s fetch mail by=w2 lease=10s             -> b 1/5 t2
            10s fetch mail by=w2                       -> a 2/5 t3
            11s crash a t3 signal=SIGKILL by=w2        -> dead
            20s tick
            20s explain b                              -> dead Quarantined at never
            20s history b -> 0s 1 w1 push waiting 0, 10s 3 w2 fetch active 1, 20s 6 - quarantine dead 1 lease_lost
        ",
        );
    }

    #[test]
    fn a_crash_is_fenced_and_bounded() {
        let mut script = check(
            "
            0s  push mail id=a
            0s  fetch mail lease=5s                    -> a 1/5 t1
            5s  crash a t1 signal=SIGSEGV              -> ! stale_lease
            5s  fetch mail                             -> a 2/5 t2
            6s  cancel a                               -> cancelled
            6s  crash a t2 signal=SIGSEGV              -> ! cancelled
            6s  push mail id=b
            6s  fetch mail                             -> b 1/5 t3
        ",
        );
        let long = "x".repeat(model::limits::CRASH_STDERR_BYTES_MAX + 1);
        assert_eq!(script.line(&format!("6s crash b t3 stderr={long}")), "! invalid crash");
        assert_eq!(script.line(&format!("6s crash b t3 signal={}", &long[..129])), "! invalid crash");
        assert_eq!(script.line("6s show b"), "active 1/5 due 36s");
        assert_eq!(script.line(&format!("6s crash b t3 stderr={}", &long[1..])), "retrying");
    }

    #[test]
    fn a_quarantine_counts_for_its_breaker_like_any_failure() {
        check(
            "
            0s  configure mail breaker=50:2:60s:10s:1  -> configured
            0s  push mail x4 crashes=1
            0s  fetch mail max=2                       -> #1 1/5 t1, #2 1/5 t2
            1s  crash #1 t1                            -> dead
            1s  crash #2 t2                            -> dead
            1s  fetch mail                             -> none
        ",
        );
    }
}
