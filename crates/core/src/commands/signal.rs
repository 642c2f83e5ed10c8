use crate::{
    shard::{Context, Shard},
    steps::{Signal, Wait, check_name},
    transition::Change,
};
use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use model::{Cause, JobRef, Reject, Reply, State, StepValue, limits};

impl Shard {
    /// Hands a job what it waits for; what it does not wait for yet is kept until it does.
    pub(crate) fn signal(
        &mut self,
        job: &JobRef,
        name: &CompactString,
        body: &Bytes,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        check_name("signal", name)?;
        if body.len() > limits::SIGNAL_BYTES_MAX {
            return Err(Reject::Invalid { field: "body", reason: "has at most 64 KiB".into() });
        }
        let slot = self.known_job(job)?;
        let state = self.jobs[slot].state;
        if state.is_final() {
            let wanted = "only a job that is not final can be signalled";
            return Err(Reject::WrongState { id: job.id.to_compact_string(), state, wanted });
        }
        // A copy, so that a small body does not keep a large request in memory.
        let body = Bytes::copy_from_slice(body);
        let waits = self.steps(slot).and_then(|steps| steps.wait.clone());
        if let Some(Wait::Signal { step, name: wanted }) = waits
            && wanted == *name
        {
            self.add_step(slot, &step, StepValue::Signal(body), context.now);
            self.wait(slot, Change::new(State::Waiting, Cause::Signal), context);
            return Ok(Reply::Signalled { state: State::Waiting, buffered: false });
        }
        let signal = Signal { name: name.clone(), body };
        self.check_signals(slot, signal.bytes())?;
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::DropEarlySignal) {
            return Ok(Reply::Signalled { state, buffered: true });
        }
        self.keep_signal(slot, signal);
        Ok(Reply::Signalled { state, buffered: true })
    }

    fn check_signals(&self, slot: u32, bytes: u64) -> Result<(), Reject> {
        let (count, held) = self.steps(slot).map_or((0, 0), |s| (s.signals.len(), s.signal_bytes));
        let full = |limit, unit| {
            let id = self.jobs[slot].id(self.id).to_compact_string();
            Err(Reject::SignalsFull { id, limit, unit })
        };
        if count >= limits::SIGNALS_MAX {
            return full(limits::SIGNALS_MAX as u64, "signals");
        }
        if held + bytes > limits::SIGNALS_BYTES_MAX {
            return full(limits::SIGNALS_BYTES_MAX, "bytes of signals");
        }
        if self.steps_bytes + bytes > limits::STEPS_SHARD_BYTES_MAX {
            return full(limits::STEPS_SHARD_BYTES_MAX, "bytes of steps in this pond");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_signal_wakes_the_job_that_waits_for_it_and_becomes_the_step() {
        check(
            "
            0s  push order id=a attempts=1
            0s  fetch order                           -> a 1/1 t1
            1s  wait-signal a t1 ok approved after=1h -> suspended
            1s  show a                                -> suspended 0/1 due 3601s
            1s  explain a                             -> suspended WaitsForSignal at never
            2s  signal a declined no                  -> suspended, kept
            3s  signal a approved yes by=ada          -> waiting
            3s  heard                                 -> 1 in order
            4s  fetch order                           -> a 1/1 t2, 1 step
            4s  steps a                               -> ok: signal yes (3s, 0)
            5s  done a t1                             -> ! stale_lease
            5s  done a t2                             -> completed
            5s  history a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 1s 3 w1 suspend suspended 0, \
                3s 5 ada signal waiting 0, 4s 6 w1 fetch active 1, 5s 8 w1 complete completed 1
        ",
        );
    }

    #[test]
    fn a_signal_sent_early_is_kept_and_taken_once_oldest_first() {
        check(
            "
            0s  push order id=a
            0s  signal a go 1                         -> waiting, kept
            1s  fetch order                           -> a 1/5 t1
            1s  signal a go 2                         -> active, kept
            2s  wait-signal a t1 first go             -> waiting
            3s  fetch order                           -> a 1/5 t2, 1 step
            3s  wait-signal a t2 second go            -> waiting
            4s  fetch order                           -> a 1/5 t3, 2 steps
            4s  wait-signal a t3 third go             -> suspended
            4s  steps a                               -> first: signal 1 (2s, 0), second: signal 2 (3s, 0)
        ",
        );
    }

    #[test]
    fn a_final_or_unknown_job_is_not_signalled() {
        check(
            "
            0s  push order id=a
            1s  cancel a                              -> cancelled
            1s  signal a go 1                         -> ! wrong_state cancelled
            1s  signal b go 1                         -> ! unknown_job
        ",
        );
    }

    #[test]
    fn a_call_with_a_key_signals_once() {
        check(
            "
            0s  push order id=a
            0s  signal a go 1 key=k                   -> waiting, kept
            9s  signal a go 1 key=k                   -> waiting, kept
            9s  signal a go 2 key=k                   -> ! idempotency_conflict
            9s  fetch order                           -> a 1/5 t1
            9s  wait-signal a t1 x go                 -> waiting
            9s  fetch order                           -> a 1/5 t2, 1 step
            9s  wait-signal a t2 y go                 -> suspended
        ",
        );
    }

    #[test]
    fn without_a_signal_the_job_wakes_at_its_time_out() {
        check(
            "
            0s  push order id=a
            0s  fetch order                           -> a 1/5 t1
            0s  wait-signal a t1 ok approved          -> suspended
            0s  next                                  -> 86400s
            86400s fetch order                        -> a 1/5 t2, 1 step
            86400s steps a                            -> ok: timeout (86400s, 0)
            86401s signal a approved late             -> active, kept
        ",
        );
    }

    #[test]
    fn signals_are_bounded() {
        let mut script = check("0s push order id=a ; order id=b");
        for _ in 0..100 {
            assert_eq!(script.line("1s signal a go x"), "waiting, kept");
        }
        assert_eq!(script.line("1s signal a go x"), "! signals_full 100");
        let big = "x".repeat((64 << 10) + 1);
        assert_eq!(script.line(&format!("1s signal b go {big}")), "! invalid body");
        for _ in 0..3 {
            assert_eq!(script.line(&format!("1s signal b go {}", &big[1..])), "waiting, kept");
        }
        assert_eq!(script.line(&format!("1s signal b go {}", &big[1..])), "! signals_full 262144");
        assert_eq!(script.line(&format!("1s signal b {} x", "n".repeat(129))), "! invalid signal");
    }
}
