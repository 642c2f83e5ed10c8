//! The durable steps of a job: what happened once in its life, what it waits for, and the signals that came before it waited.

use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use kit::Timestamp;
use model::{Awaited, Cause, ChildEnd, JobId, Reject, State, Step, StepValue, limits};
use std::collections::VecDeque;

/// What only a job with steps or signals has.
#[derive(Debug, Default, Clone)]
pub(crate) struct Steps {
    /// In the order in which they began.
    pub(crate) entries: Vec<Entry>,
    /// The numbers of the entries are `first..next`. They only rise, so that no record is written that is still to be deleted.
    pub(crate) first: u64,
    pub(crate) next: u64,
    /// What the job is suspended for.
    pub(crate) wait: Option<Wait>,
    /// Those that nobody has taken, oldest first.
    pub(crate) signals: VecDeque<Signal>,
    /// Of the entries.
    pub(crate) bytes: u64,
    /// Of the signals.
    pub(crate) signal_bytes: u64,
}

/// One step and where it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) step: Step,
    /// The checkpoint has it as it is. Not part of the state.
    pub(crate) written: bool,
    /// The checkpoint has some version of it. Not part of the state.
    pub(crate) stored: bool,
}

/// What a suspended job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A signal, until the job's timer fires. What comes is the value of the step.
    Signal { step: CompactString, name: CompactString },
    /// The child of this step.
    Child { step: CompactString },
}

/// A signal that came before the job waited for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signal {
    pub(crate) name: CompactString,
    pub(crate) body: Bytes,
}

impl Signal {
    pub(crate) fn bytes(&self) -> u64 {
        (self.name.len() + self.body.len()) as u64
    }
}

/// Which step of which job waits for the end of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parent {
    /// The job's sequence number.
    pub(crate) sequence: u64,
    pub(crate) step: CompactString,
}

/// A child that ended and whose parent does not know it yet. None is left when a command has been applied.
#[derive(Debug)]
pub(crate) struct Orphan {
    parent: Parent,
    id: JobId,
    end: ChildEnd,
}

impl Steps {
    pub(crate) fn get(&self, name: &str) -> Option<&Step> {
        self.entries.iter().map(|entry| &entry.step).find(|step| step.name == name)
    }

    /// What the job is suspended for, for people; `due` is when its timer fires.
    pub(crate) fn awaited(&self, due: Timestamp) -> Option<Awaited> {
        match self.wait.as_ref()? {
            Wait::Signal { name, .. } => Some(Awaited::Signal { name: name.clone(), until: due }),
            Wait::Child { step } => match &self.get(step)?.value {
                StepValue::Child { queue, id, .. } => {
                    Some(Awaited::Child { queue: queue.clone(), id: id.clone() })
                }
                _ => None,
            },
        }
    }

    /// Bytes that they hold in memory.
    pub(crate) fn total(&self) -> u64 {
        self.bytes + self.signal_bytes
    }

    fn add(&mut self, step: Step) {
        self.bytes += step.bytes() as u64;
        self.entries.push(Entry { number: self.next, step, written: false, stored: false });
        self.next += 1;
    }

    /// The oldest signal of that name.
    fn take_signal(&mut self, name: &str) -> Option<Signal> {
        let at = self.signals.iter().position(|signal| signal.name == name)?;
        let signal = self.signals.remove(at)?;
        self.signal_bytes -= signal.bytes();
        Some(signal)
    }
}

/// Refuses the name of a step or of a signal.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<(), Reject> {
    if name.is_empty() || name.len() > limits::STEP_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Reject::Invalid {
            field,
            reason: "has a name of 1 to 128 bytes, none of control".into(),
        });
    }
    Ok(())
}

impl Shard {
    pub(crate) fn steps(&self, slot: u32) -> Option<&Steps> {
        self.jobs[slot].run.as_ref().and_then(|run| run.steps.as_deref())
    }

    fn steps_mut(&mut self, slot: u32) -> &mut Steps {
        self.jobs[slot].run_mut().steps.get_or_insert_default()
    }

    pub(crate) fn step(&self, slot: u32, name: &str) -> Option<&Step> {
        self.steps(slot).and_then(|steps| steps.get(name))
    }

    /// Refuses a step beyond what a job or the shard may hold. `bytes` are those that are known before it begins.
    pub(crate) fn check_steps(&self, slot: u32, bytes: usize) -> Result<(), Reject> {
        let full = |limit, unit| {
            let id = self.jobs[slot].id(self.id).to_compact_string();
            Err(Reject::StepsFull { id, limit, unit })
        };
        let bytes = bytes as u64;
        let (count, held) = self.steps(slot).map_or((0, 0), |steps| (steps.entries.len(), steps.bytes));
        if count >= limits::STEPS_MAX {
            return full(limits::STEPS_MAX as u64, "steps");
        }
        if held + bytes > limits::STEPS_BYTES_MAX {
            return full(limits::STEPS_BYTES_MAX, "bytes of steps");
        }
        if self.steps_bytes + bytes > limits::STEPS_SHARD_BYTES_MAX {
            return full(limits::STEPS_SHARD_BYTES_MAX, "bytes of steps in this pond");
        }
        Ok(())
    }

    /// Adds a step that was checked.
    pub(crate) fn add_step(&mut self, slot: u32, name: &CompactString, value: StepValue, now: Timestamp) {
        let attempt = self.jobs[slot].attempt;
        let step = Step { name: name.clone(), at: now, attempt, value };
        let bytes = step.bytes() as u64;
        self.steps_mut(slot).add(step);
        self.steps_bytes += bytes;
        self.dirty.add_bytes(bytes);
        self.touch(slot);
    }

    /// The planted bug: what was stored makes room for another result.
    #[cfg(feature = "plant")]
    pub(crate) fn forget_step(&mut self, slot: u32, name: &str) {
        let Some(steps) = self.jobs[slot].run.as_mut().and_then(|run| run.steps.as_mut()) else { return };
        if let Some(entry) = steps.entries.iter_mut().find(|entry| entry.step.name == name) {
            entry.step.name = compact_str::format_compact!("{name} of position {}", self.counters.position);
        }
    }

    /// Keeps a signal until the job waits for it.
    pub(crate) fn keep_signal(&mut self, slot: u32, signal: Signal) {
        let bytes = signal.bytes();
        let steps = self.steps_mut(slot);
        steps.signal_bytes += bytes;
        steps.signals.push_back(signal);
        self.steps_bytes += bytes;
        self.dirty.add_bytes(bytes);
        self.touch(slot);
    }

    /// A kept signal for a job that waits for it now.
    pub(crate) fn take_signal(&mut self, slot: u32, name: &str) -> Option<Bytes> {
        let steps = self.jobs[slot].run.as_mut()?.steps.as_mut()?;
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::KeepTakenSignal) {
            return steps.signals.iter().find(|signal| signal.name == name).map(|signal| signal.body.clone());
        }
        let signal = steps.take_signal(name)?;
        self.steps_bytes -= signal.bytes();
        self.touch(slot);
        Some(signal.body)
    }

    pub(crate) fn wait_for(&mut self, slot: u32, wait: Wait) {
        self.steps_mut(slot).wait = Some(wait);
    }

    /// A suspended job stops waiting, for whatever reason. What it waited for, if anything.
    pub(crate) fn stop_waiting(&mut self, slot: u32) -> Option<Wait> {
        self.jobs[slot].run.as_mut()?.steps.as_mut()?.wait.take()
    }

    /// Its timer fired: if it waited for a signal, that did not come.
    pub(crate) fn time_out(&mut self, slot: u32, context: &mut Context<'_>) {
        if let Some(Wait::Signal { step, .. }) = self.stop_waiting(slot) {
            self.add_step(slot, &step, StepValue::TimedOut, context.now);
        }
        self.wait(slot, Change::new(State::Waiting, Cause::Due), context);
    }

    /// Forgets a job's steps and signals.
    pub(crate) fn forget_steps(&mut self, slot: u32) {
        let job = &mut self.jobs[slot];
        let Some(steps) = job.run.as_mut().and_then(|run| run.steps.as_deref_mut()) else { return };
        self.steps_bytes -= steps.total();
        let sequence = job.sequence;
        let stored = steps.entries.drain(..).filter(|entry| entry.stored);
        self.dirty.steps_forgotten.extend(stored.map(|entry| (sequence, entry.number)));
        steps.signals.clear();
        steps.first = steps.next;
        (steps.bytes, steps.signal_bytes) = (0, 0);
        steps.wait = None;
    }

    /// A job is final, or is about to be forgotten: its parent will hear of it at the end of the command.
    pub(crate) fn tell_parent(&mut self, slot: u32) {
        let job = &self.jobs[slot];
        let Some(parent) = job.asked.as_ref().and_then(|asked| asked.parent.as_deref()) else { return };
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::ForgetRemovedChild) && !job.state.is_final() {
            return;
        }
        let run = job.run.as_deref();
        let failed = matches!(job.state, State::Dead | State::Cancelled | State::Expired);
        let end = ChildEnd {
            state: job.state.is_final().then_some(job.state),
            result: run.and_then(|run| run.result.clone()).filter(|_| job.state == State::Completed),
            error: run.and_then(|run| run.error.as_deref().cloned()).filter(|_| failed),
        };
        self.orphans.push(Orphan { parent: parent.clone(), id: job.id(self.id), end });
    }

    /// Gives the parents of ended children their results, and calls up those that wait.
    pub(crate) fn wake_parents(&mut self, context: &mut Context<'_>) {
        for orphan in std::mem::take(&mut self.orphans) {
            self.wake_parent(orphan, context);
        }
    }

    fn wake_parent(&mut self, orphan: Orphan, context: &mut Context<'_>) {
        let Orphan { parent, id: ended, end: new } = orphan;
        let Some(slot) = self.slot_of(parent.sequence) else { return };
        let Some(steps) = self.jobs[slot].run.as_mut().and_then(|run| run.steps.as_deref_mut()) else {
            return;
        };
        let Some(entry) = steps.entries.iter_mut().find(|entry| entry.step.name == parent.step) else {
            return;
        };
        let before = entry.step.bytes();
        match &mut entry.step.value {
            // A child of an earlier life, or one that ended before and was redriven, says nothing new.
            StepValue::Child { id, end: end @ None, .. } if *id == ended => *end = Some(new),
            _ => return,
        }
        entry.step.at = context.now;
        entry.written = false;
        let bytes = (entry.step.bytes() - before) as u64;
        steps.bytes += bytes;
        self.steps_bytes += bytes;
        self.dirty.add_bytes(bytes);
        self.touch(slot);
        if self.steps(slot).is_some_and(|steps| steps.wait == Some(Wait::Child { step: parent.step })) {
            self.wait(slot, Change::new(State::Waiting, Cause::ChildEnded), context);
        }
    }
}
