use crate::{
    shard::{Context, Shard},
    steps::check_name,
};
use bytes::Bytes;
use compact_str::CompactString;
use model::{LeaseRef, Reject, Reply, StepValue, limits};

impl Shard {
    /// Stores the result of a step. The first result of a name is the one that stays, whoever stores another.
    pub(crate) fn store_step(
        &mut self,
        lease: &LeaseRef,
        name: &CompactString,
        result: &Bytes,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        check_name("step", name)?;
        if result.len() > limits::STEP_BYTES_MAX {
            return Err(Reject::Invalid { field: "result", reason: "has at most 1 MiB".into() });
        }
        let slot = self.leased(lease)?;
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::StoreStepAgain) {
            self.forget_step(slot, name);
        }
        if let Some(step) = self.step(slot, name) {
            return Ok(Reply::Step(Some(step.clone())));
        }
        self.check_steps(slot, name.len() + result.len())?;
        // A copy, so that a small result does not keep a large request in memory.
        let value = StepValue::Result(Bytes::copy_from_slice(result));
        self.add_step(slot, name, value, context.now);
        Ok(Reply::Step(None))
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn the_first_result_of_a_name_stays_over_all_attempts() {
        check(
            "
            0s  push mail id=a backoff=fixed:1s
            0s  fetch mail                     -> a 1/5 t1
            1s  step a t1 charge paid          -> stored
            2s  step a t1 charge again         -> had paid
            3s  retry a t1 oops                -> retrying
            4s  fetch mail by=w2               -> a 2/5 t2, 1 step
            5s  step a t2 charge twice         -> had paid
            5s  step a t2 ship sent            -> stored
            6s  steps a                        -> charge: result paid (1s, 1), ship: result sent (5s, 2)
            6s  done a t2                      -> completed
            7s  steps a                        -> charge: result paid (1s, 1), ship: result sent (5s, 2)
            8s  remove a                       -> ok
            8s  steps a                        -> gone
        ",
        );
    }

    #[test]
    fn a_stale_lease_stores_nothing() {
        check(
            "
            0s  push mail id=a
            0s  fetch mail lease=5s            -> a 1/5 t1
            5s  step a t1 charge paid          -> ! stale_lease
            5s  fetch mail by=w2               -> a 2/5 t2
            6s  step a t1 charge paid          -> ! stale_lease
            6s  steps a                        ->
            6s  step a t2 charge paid          -> stored
            7s  cancel a                       -> cancelled
            7s  step a t2 ship sent            -> ! cancelled
            7s  step b t2 ship sent            -> ! unknown_job
        ",
        );
    }

    #[test]
    fn steps_are_bounded_by_name_number_and_bytes() {
        let mut script = check("0s push mail id=a ; mail id=b\n0s fetch mail max=2 -> a 1/5 t1, b 1/5 t2");
        assert_eq!(script.line(&format!("1s step a t1 {} x", "n".repeat(129))), "! invalid step");
        let big = "r".repeat((1 << 20) + 1);
        assert_eq!(script.line(&format!("1s step a t1 big {big}")), "! invalid result");
        for step in 0..7 {
            assert_eq!(script.line(&format!("1s step a t1 s{step} {}", &big[..1 << 20])), "stored");
        }
        assert_eq!(script.line(&format!("1s step a t1 s7 {}", &big[..1 << 20])), "! steps_full 8388608");
        assert_eq!(script.line(&format!("1s step a t1 s0 {big}")), "! invalid result");
        let mut store = |number: usize, result: &'static str| {
            let job = model::JobRef { queue: None, id: model::JobId::Text("b".into()) };
            let job = model::JobRef { queue: model::QueueName::new("mail").ok(), ..job };
            let command = model::Command::Step {
                lease: model::LeaseRef { job, token: 2 },
                name: compact_str::format_compact!("s{number}"),
                result: result.into(),
            };
            let envelope = model::Envelope { actor: model::Actor::default(), idempotency_key: None, command };
            let (at, position) = (script.shard.time(), script.shard.position() + 1);
            script.shard.apply(position, at, &envelope, &mut crate::Effects::default())
        };
        assert!((0..1_000).all(|number| store(number, "x") == Ok(model::Reply::Step(None))));
        assert!(matches!(store(999, "y"), Ok(model::Reply::Step(Some(_)))));
        let full = store(1_000, "x").unwrap_err();
        assert_eq!(
            full.to_string(),
            "job b holds its limit of 1000 steps; store less, or split the work into child jobs"
        );
        script.shard.check().unwrap();
    }
}
