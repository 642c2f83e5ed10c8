//! I14: a stored step keeps its value, a signal is delivered once and never lost, a suspended job starts when what it waits for
//! has come and not before.

use crate::{
    history::{Check, broken},
    shadow::Key,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use model::{DispatchedJob, JobId, QueueName, State, Step, StepValue, limits};
use std::collections::{BTreeMap, VecDeque};

/// What a job has stored, waits for and was told, as the shadow sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps {
    pub(crate) stored: BTreeMap<CompactString, Value>,
    signals: VecDeque<(CompactString, Bytes)>,
    pub(crate) wait: Option<Wait>,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Result(Bytes),
    Slept,
    Signal(Bytes),
    TimedOut,
    /// The end of a child is heard of once, whatever becomes of it after that.
    Child {
        queue: QueueName,
        id: JobId,
        ended: bool,
    },
}

/// What a suspended job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    Signal { step: CompactString, name: CompactString, until: Timestamp },
    Child(QueueName, JobId),
}

impl Value {
    fn is(&self, value: &StepValue) -> bool {
        match (self, value) {
            (Value::Result(mine), StepValue::Result(told))
            | (Value::Signal(mine), StepValue::Signal(told)) => mine == told,
            (Value::Slept, StepValue::Slept { .. }) | (Value::TimedOut, StepValue::TimedOut) => true,
            (Value::Child { queue, id, .. }, StepValue::Child { queue: told_queue, id: told, .. }) => {
                queue == told_queue && id == told
            }
            _ => false,
        }
    }
}

impl Steps {
    /// A step was stored, or the one that was there was shown.
    pub(crate) fn store(&mut self, name: &CompactString, result: &Bytes, had: Option<&Step>) -> Check {
        match (self.stored.get(name), had) {
            (None, None) => {
                self.stored.insert(name.clone(), Value::Result(result.clone()));
                Ok(())
            }
            (Some(value), Some(step)) if step.name == *name && value.is(&step.value) => Ok(()),
            (value, had) => {
                broken("I14", format!("step {name} holds {value:?} and was answered with {had:?}"))
            }
        }
    }

    /// What the answer to a step says, of a job that is not followed in all it does.
    pub(crate) fn hear(&mut self, name: &CompactString, result: &Bytes, had: Option<&Step>) {
        let value = match had.map(|step| &step.value) {
            None => Value::Result(result.clone()),
            Some(StepValue::Result(bytes)) => Value::Result(bytes.clone()),
            Some(StepValue::Signal(bytes)) => Value::Signal(bytes.clone()),
            Some(StepValue::Slept { .. }) => Value::Slept,
            Some(StepValue::TimedOut) => Value::TimedOut,
            Some(StepValue::Child { queue, id, end }) => {
                Value::Child { queue: queue.clone(), id: id.clone(), ended: end.is_some() }
            }
        };
        self.stored.insert(name.clone(), value);
    }

    /// The job was suspended until a signal comes; the state that follows.
    pub(crate) fn await_signal(
        &mut self,
        step: &CompactString,
        name: &CompactString,
        timeout_ms: u64,
        now: Timestamp,
    ) -> State {
        if self.stored.contains_key(step) {
            return State::Waiting;
        }
        if let Some(at) = self.signals.iter().position(|(other, _)| other == name)
            && let Some((_, body)) = self.signals.remove(at)
        {
            self.stored.insert(step.clone(), Value::Signal(body));
            return State::Waiting;
        }
        let timeout_ms = if timeout_ms == 0 { limits::SIGNAL_WAIT_MS_DEFAULT } else { timeout_ms };
        let until = now + timeout_ms;
        self.wait = Some(Wait::Signal { step: step.clone(), name: name.clone(), until });
        State::Suspended
    }

    /// A signal was taken: delivered to whoever waits for it, kept otherwise.
    pub(crate) fn signal(&mut self, name: &CompactString, body: &Bytes, buffered: bool) -> Check {
        match &self.wait {
            Some(Wait::Signal { step, name: wanted, .. }) if wanted == name => {
                if buffered {
                    return broken("I14", format!("signal {name} was kept, though the job waits for it"));
                }
                self.stored.insert(step.clone(), Value::Signal(body.clone()));
                self.wait = None;
            }
            wait if !buffered => {
                return broken(
                    "I14",
                    format!("signal {name} was delivered to a job that waits for {wait:?}"),
                );
            }
            _ => self.signals.push_back((name.clone(), body.clone())),
        }
        Ok(())
    }

    /// A job has ended or is gone: if it was a child that this one knows of, it waits for it no longer.
    pub(crate) fn child_ended(&mut self, child: &Key) {
        for value in self.stored.values_mut() {
            if let Value::Child { queue, id, ended } = value
                && (&*queue, &*id) == (&child.0, &child.1)
            {
                *ended = true;
            }
        }
        self.wait.take_if(
            |wait| matches!(wait, Wait::Child(queue, id) if (&*queue, &*id) == (&child.0, &child.1)),
        );
    }

    /// Time has passed: a signal that did not come in time is waited for no longer.
    pub(crate) fn lapse(&mut self, now: Timestamp) {
        if let Some(Wait::Signal { step, until, .. }) = &self.wait
            && *until <= now
        {
            self.stored.insert(step.clone(), Value::TimedOut);
            self.wait = None;
        }
    }

    /// The job is handed out: it waits for nothing, and nothing that it stored is missing.
    pub(crate) fn may_start(&self, given: &DispatchedJob) -> Check {
        let name = format!("job {} of {}", given.id, given.queue);
        if let Some(wait) = &self.wait {
            return broken("I14", format!("{name} was handed out while it waits for {wait:?}"));
        }
        if given.steps as usize != self.stored.len() {
            return broken(
                "I14",
                format!("{name} was handed out with {} steps; it has {:?}", given.steps, self.stored),
            );
        }
        Ok(())
    }
}
