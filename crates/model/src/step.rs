use crate::{ErrorInfo, JobId, NewJob, QueueName, State};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Millis, Timestamp};

/// A durable step: something that happened once in the life of a job and is not done again by later attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Unique within the job.
    pub name: CompactString,
    /// When it was stored; for what was waited for, when it came.
    pub at: Timestamp,
    /// The attempt that stored it or began to wait.
    pub attempt: u32,
    /// What came of it.
    pub value: StepValue,
}

impl Step {
    /// Bytes that it counts for.
    pub fn bytes(&self) -> usize {
        self.name.len() + self.value.bytes()
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepValue {
    /// What the handler stored.
    Result(Bytes),
    /// It slept.
    Slept {
        /// Until then.
        until: Timestamp,
    },
    /// The signal came, with this body.
    Signal(Bytes),
    /// The signal did not come in time.
    TimedOut,
    /// A child job.
    Child {
        /// Its queue.
        queue: QueueName,
        /// Its id.
        id: JobId,
        /// How it ended; `None` while it has not.
        end: Option<ChildEnd>,
    },
}

impl StepValue {
    /// Its kind in one word, the same on every surface.
    pub const fn kind(&self) -> &'static str {
        match self {
            StepValue::Result(_) => "result",
            StepValue::Slept { .. } => "sleep",
            StepValue::Signal(_) => "signal",
            StepValue::TimedOut => "timeout",
            StepValue::Child { .. } => "child",
        }
    }

    /// Bytes of what it holds.
    pub fn bytes(&self) -> usize {
        match self {
            StepValue::Result(value) | StepValue::Signal(value) => value.len(),
            StepValue::Slept { .. } | StepValue::TimedOut => 0,
            StepValue::Child { end, .. } => end.as_ref().map_or(0, ChildEnd::bytes),
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildEnd {
    /// Its final state; `None` if it was removed before it had one.
    pub state: Option<State>,
    /// What its handler returned.
    pub result: Option<Bytes>,
    /// Why it failed or was called off.
    pub error: Option<ErrorInfo>,
}

impl ChildEnd {
    fn bytes(&self) -> usize {
        let error = |error: &ErrorInfo| error.kind.len() + error.message.len() + error.stack.len();
        self.result.as_ref().map_or(0, Bytes::len) + self.error.as_ref().map_or(0, error)
    }
}

/// What a suspended job waits for. When it has come it is the value of a step, and the job starts again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// A span has passed.
    Time {
        /// Milliseconds, at most [`crate::limits::SUSPENSION_MS_MAX`].
        after_ms: Millis,
    },
    /// Somebody signals the job.
    Signal {
        /// The signal's name.
        name: CompactString,
        /// How long to wait for it; 0 for [`crate::limits::SIGNAL_WAIT_MS_DEFAULT`].
        timeout_ms: Millis,
    },
    /// A child is final, or gone. It is pushed in the same atomic change.
    Child {
        /// The child.
        job: Box<NewJob>,
    },
}

/// What a suspended job waits for, as people and tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaited {
    /// A signal.
    Signal {
        /// Its name.
        name: CompactString,
        /// How long.
        until: Timestamp,
    },
    /// A child job.
    Child {
        /// Its queue.
        queue: QueueName,
        /// Its id.
        id: JobId,
    },
}
