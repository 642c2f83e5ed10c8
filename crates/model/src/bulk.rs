//! Operations over all jobs of a queue that match a filter: what is asked, and what is seen of them.

use crate::{Actor, Priority, QueueName, State};
use compact_str::CompactString;
use kit::Timestamp;

/// An operation to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBulk {
    /// Over the jobs of this queue.
    pub queue: QueueName,
    /// What to do.
    pub action: BulkAction,
    /// To which jobs.
    pub filter: Filter,
    /// Jobs changed per second at most, 1 to [`crate::limits::BULK_RATE_MAX`]; 0 for as fast as dispatch allows.
    pub rate: u32,
    /// For the history of cancelled jobs; at most [`crate::limits::LOG_LINE_BYTES_MAX`] bytes.
    pub reason: CompactString,
}

impl NewBulk {
    /// An operation at full speed.
    pub fn new(queue: QueueName, action: BulkAction, filter: Filter) -> Self {
        Self { queue, action, filter, rate: 0, reason: CompactString::default() }
    }
}

/// What a bulk operation does to each job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BulkAction {
    /// Forget waiting, delayed and retrying jobs (or those of the filter's states). They no longer start from this moment on.
    Purge,
    /// Another life for dead jobs (or those of the filter's final states).
    Redrive,
    /// Forget final jobs.
    Remove,
    /// Cancel live jobs, running ones too.
    Cancel,
    /// Make delayed and retrying jobs waiting now.
    Promote,
    /// Change the tags of live jobs (or those of the filter's states).
    Retag {
        /// Tags that each job has afterwards.
        add: Vec<CompactString>,
        /// Tags that no job has afterwards.
        remove: Vec<CompactString>,
    },
    /// Give live jobs another priority. One that runs has it from its next attempt on.
    Reprioritise {
        /// The new one.
        priority: Priority,
    },
    /// Move waiting, delayed and retrying jobs (or dead ones) to another queue, with their history and attempts.
    Move {
        /// Where to; made if it is new.
        to: QueueName,
    },
}

impl BulkAction {
    /// The name used on every surface.
    pub const fn name(&self) -> &'static str {
        match self {
            BulkAction::Purge => "purge",
            BulkAction::Redrive => "redrive",
            BulkAction::Remove => "remove",
            BulkAction::Cancel => "cancel",
            BulkAction::Promote => "promote",
            BulkAction::Retag { .. } => "retag",
            BulkAction::Reprioritise { .. } => "reprioritise",
            BulkAction::Move { .. } => "move",
        }
    }
}

/// Which jobs of a queue are meant: those for which every condition holds. Empty means all that the action applies to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    /// In one of these states; none means those that the action is for.
    pub states: Vec<State>,
    /// With at least one of these tags.
    pub tags_any: Vec<CompactString>,
    /// With all of these tags.
    pub tags_all: Vec<CompactString>,
    /// The newest error is of this kind.
    pub error_kind: Option<CompactString>,
    /// The message of the newest error contains this text.
    pub error_contains: Option<CompactString>,
    /// Pushed before.
    pub created_before: Option<Timestamp>,
    /// Pushed at or after.
    pub created_after: Option<Timestamp>,
    /// Became final before.
    pub finished_before: Option<Timestamp>,
    /// Became final at or after.
    pub finished_after: Option<Timestamp>,
    /// At least this number: not more urgent than.
    pub priority_min: Option<Priority>,
    /// At most this number: at least as urgent as.
    pub priority_max: Option<Priority>,
    /// Started at least this many attempts.
    pub attempts_min: Option<u32>,
    /// Started at most this many attempts.
    pub attempts_max: Option<u32>,
    /// The id, as text, begins with this.
    pub id_prefix: Option<CompactString>,
    /// Something holds of the body. The shard knows no bodies, so its node looks them up and tells it which jobs are meant.
    pub body: Vec<BodyTest>,
}

/// A condition on one value inside a JSON body. A body that is not JSON, or has no such value, does not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyTest {
    /// Where: a JSON pointer (RFC 6901), such as `/customer/id`; empty for the whole body.
    pub path: CompactString,
    /// How.
    pub compare: Compare,
    /// With what: a JSON string, number, `true`, `false` or `null`.
    pub value: CompactString,
}

/// How a value of the body is compared. Numbers with numbers, text with text; anything else is only ever equal or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Compare {
    /// `==`
    Equal = 0,
    /// `!=`
    NotEqual = 1,
    /// `<`
    Less = 2,
    /// `<=`
    AtMost = 3,
    /// `>`
    Greater = 4,
    /// `>=`
    AtLeast = 5,
    /// `~`: the text contains the other.
    Contains = 6,
}

impl Compare {
    /// Every comparison with its sign, by number.
    pub const ALL: [(Compare, &'static str); 7] = [
        (Compare::Equal, "=="),
        (Compare::NotEqual, "!="),
        (Compare::Less, "<"),
        (Compare::AtMost, "<="),
        (Compare::Greater, ">"),
        (Compare::AtLeast, ">="),
        (Compare::Contains, "~"),
    ];

    /// The sign used on every surface.
    pub const fn sign(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What can be done to an operation under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BulkControl {
    /// Stop for now. What it has not reached is as if it were not there: a purge lets its jobs start again.
    Pause = 0,
    /// Go on.
    Resume = 1,
    /// Stop for good. What was changed stays changed.
    Cancel = 2,
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BulkStatus {
    /// Under way.
    Running = 0,
    /// Until somebody resumes it.
    Paused = 1,
    /// It has reached every job.
    Finished = 2,
    /// Somebody stopped it.
    Cancelled = 3,
}

impl BulkStatus {
    /// Every status, by number.
    pub const ALL: [BulkStatus; 4] =
        [BulkStatus::Running, BulkStatus::Paused, BulkStatus::Finished, BulkStatus::Cancelled];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            BulkStatus::Running => "running",
            BulkStatus::Paused => "paused",
            BulkStatus::Finished => "finished",
            BulkStatus::Cancelled => "cancelled",
        }
    }

    /// True if nothing more comes of it.
    pub const fn is_over(self) -> bool {
        matches!(self, BulkStatus::Finished | BulkStatus::Cancelled)
    }
}

/// A bulk operation as people and tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkView {
    /// Its number.
    pub id: u64,
    /// What was asked.
    pub asked: NewBulk,
    /// Who asked.
    pub by: Actor,
    /// Where it stands.
    pub status: BulkStatus,
    /// Jobs that were in the states it walks when it began: about how many it will look at.
    pub total: u64,
    /// Jobs looked at.
    pub examined: u64,
    /// Jobs changed.
    pub changed: u64,
    /// Jobs that were meant and could not be changed.
    pub skipped: u64,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// Up to where a batch of bodies was read, and which of its jobs are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// For which operation.
    pub operation: u64,
    /// The state whose jobs were read, by its place in the operation's walk.
    pub stage: u32,
    /// The last job read: its priority if the state is `waiting`, else 0.
    pub priority: Priority,
    /// The last job read: its place in line.
    pub order: u64,
    /// The jobs whose bodies match, by the shard's own numbers, rising.
    pub jobs: Vec<u64>,
}
