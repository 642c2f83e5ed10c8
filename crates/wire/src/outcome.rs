//! How an attempt ended: one flat map, with the names of the HTTP route.

use crate::pack::{Fields, Input, Pack};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Millis, codec::Malformed};
use model::{
    Crash, ErrorInfo, Graph, JobId, JobRef, LeaseRef, NewJob, Outcome, QueueName, Settlement, Until,
};

crate::pack::map!(Crash { signal, exit, stderr });

/// How long what is rate limited is left alone if the handler does not say.
const RATE_LIMITED_MS: Millis = 1_000;

impl Pack for Settlement {
    fn pack(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out);
        let LeaseRef { job, token } = &self.lease;
        fields.add("queue", &job.queue).add("id", &job.id).add("lease_token", token);
        fields.text("outcome", self.outcome.name());
        match &self.outcome {
            Outcome::Done { result } => fields.add("result", result),
            Outcome::Retry { error, after_ms } => fields.add("error", error).add("after_ms", after_ms),
            Outcome::Fail { error } => fields.add("error", error),
            Outcome::Snooze { after_ms } => fields.add("after_ms", after_ms),
            Outcome::RateLimited { key, after_ms } => {
                fields.add("limit", key).add("after_ms", &Some(*after_ms))
            }
            Outcome::Cancel { reason } => fields.add("reason", reason),
            Outcome::Wait { children } => fields.add("children", children),
            Outcome::Crash(crash) => fields.add("crash", crash),
            Outcome::Suspend { step, until: Until::Time { after_ms } } => {
                fields.add("step", step).add("after_ms", after_ms)
            }
            Outcome::Suspend { step, until: Until::Signal { name, timeout_ms } } => {
                fields.add("step", step).add("signal", name).add("timeout_ms", timeout_ms)
            }
            Outcome::Suspend { step, until: Until::Child { job } } => {
                fields.add("step", step).add("child", job)
            }
        };
        fields.add("push", &self.push);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("an outcome");
        let mut said = Said::default();
        input.map("an outcome", |name, input| said.read(name, input))?;
        said.settlement().ok_or(start)
    }
}

/// What was read of an outcome.
#[derive(Default)]
struct Said<'a> {
    queue: Option<QueueName>,
    id: Option<JobId>,
    lease_token: u64,
    outcome: &'a str,
    result: Option<Bytes>,
    push: Vec<NewJob>,
    rest: Rest,
}

/// What most outcomes do not have.
#[derive(Default)]
struct Rest {
    error: Option<ErrorInfo>,
    after_ms: Option<Millis>,
    limit: Option<CompactString>,
    reason: Option<CompactString>,
    children: Option<Graph>,
    step: CompactString,
    signal: CompactString,
    timeout_ms: Millis,
    child: Option<Box<NewJob>>,
    crash: Option<Crash>,
}

impl<'a> Said<'a> {
    fn read(&mut self, name: &[u8], input: &mut Input<'a>) -> Result<bool, Malformed> {
        match name {
            b"queue" => self.queue = Pack::unpack(input)?,
            b"id" => self.id = Pack::unpack(input)?,
            b"lease_token" => self.lease_token = Pack::unpack(input)?,
            b"outcome" => self.outcome = input.text("outcome")?,
            b"result" => self.result = Pack::unpack(input)?,
            b"push" => self.push = Pack::unpack(input)?,
            b"error" => self.rest.error = Pack::unpack(input)?,
            b"after_ms" => self.rest.after_ms = Pack::unpack(input)?,
            b"limit" => self.rest.limit = Pack::unpack(input)?,
            b"reason" => self.rest.reason = Pack::unpack(input)?,
            b"children" => self.rest.children = Pack::unpack(input)?,
            b"step" => self.rest.step = Pack::unpack(input)?,
            b"signal" => self.rest.signal = Pack::unpack(input)?,
            b"timeout_ms" => self.rest.timeout_ms = Pack::unpack(input)?,
            b"child" => self.rest.child = Pack::unpack(input)?,
            b"crash" => self.rest.crash = Pack::unpack(input)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// `None` if something is missing, or the outcome is not known.
    fn settlement(self) -> Option<Settlement> {
        let lease = LeaseRef { job: JobRef { queue: self.queue, id: self.id? }, token: self.lease_token };
        let rest = self.rest;
        let error = rest.error.unwrap_or_default();
        let after_ms = rest.after_ms.unwrap_or(0);
        let suspend = |step, until| Outcome::Suspend { step, until };
        let outcome = match self.outcome {
            "done" => Outcome::Done { result: self.result },
            "retry" => Outcome::Retry { error, after_ms: rest.after_ms },
            "fail" => Outcome::Fail { error },
            "snooze" => Outcome::Snooze { after_ms },
            "rate_limited" => {
                Outcome::RateLimited { key: rest.limit, after_ms: rest.after_ms.unwrap_or(RATE_LIMITED_MS) }
            }
            "cancel" => Outcome::Cancel { reason: rest.reason.unwrap_or_default() },
            "wait" => Outcome::Wait { children: rest.children? },
            "crash" => Outcome::Crash(rest.crash.unwrap_or_default()),
            "sleep" => suspend(rest.step, Until::Time { after_ms }),
            "wait_for_signal" => {
                suspend(rest.step, Until::Signal { name: rest.signal, timeout_ms: rest.timeout_ms })
            }
            "wait_for_child" => suspend(rest.step, Until::Child { job: rest.child? }),
            _ => return None,
        };
        Some(Settlement { lease, outcome, push: self.push })
    }
}
