use crate::{Actor, Awaited, JobId, JoinView, QueueName};
use bytes::Bytes;
use compact_str::CompactString;
use core::{fmt, str::FromStr};
use kit::{Millis, Timestamp};

/// How urgent a job is: lower starts first; first in, first out within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub u8);

impl Priority {
    /// 0
    pub const CRITICAL: Priority = Priority(0);
    /// 50
    pub const HIGH: Priority = Priority(50);
    /// 100, the default
    pub const NORMAL: Priority = Priority(100);
    /// 150
    pub const LOW: Priority = Priority(150);
    /// 200
    pub const BACKGROUND: Priority = Priority(200);
    /// The five named levels, most urgent first.
    pub const NAMED: [(&'static str, Priority); 5] = [
        ("critical", Self::CRITICAL),
        ("high", Self::HIGH),
        ("normal", Self::NORMAL),
        ("low", Self::LOW),
        ("background", Self::BACKGROUND),
    ];
}

impl Default for Priority {
    fn default() -> Self {
        Self::NORMAL
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(_, level)| level == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for Priority {
    type Err = crate::BadName;

    /// Reads a name or a number of 0..=255.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some((_, level)) = Self::NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*level);
        }
        text.parse().map(Priority).map_err(|_| crate::BadName {
            what: "a priority",
            reason: "is 0 to 255 or one of critical, high, normal, low, background",
        })
    }
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// May start as soon as a worker asks.
    Waiting = 0,
    /// Not before a time.
    Delayed = 1,
    /// Would be waiting, but something holds it: a paused queue, today. Shown, never stored.
    Blocked = 2,
    /// Leased to a worker.
    Active = 3,
    /// Failed an attempt and waits for the next.
    Retrying = 4,
    /// Done. Final.
    Completed = 5,
    /// Failed for good; can be redriven. Final.
    Dead = 6,
    /// Called off. Final.
    Cancelled = 7,
    /// Not started in time. Final.
    Expired = 8,
    /// Until its children, or the members of its join, have ended.
    WaitingChildren = 9,
    /// It gave its worker back and waits to be called up: by a signal, or at a time-out.
    Suspended = 10,
}

impl State {
    /// How many states there are.
    pub const COUNT: usize = 11;
    /// Every state, by number.
    pub const ALL: [State; State::COUNT] = [
        State::Waiting,
        State::Delayed,
        State::Blocked,
        State::Active,
        State::Retrying,
        State::Completed,
        State::Dead,
        State::Cancelled,
        State::Expired,
        State::WaitingChildren,
        State::Suspended,
    ];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Delayed => "delayed",
            State::Blocked => "blocked",
            State::Active => "active",
            State::Retrying => "retrying",
            State::Completed => "completed",
            State::Dead => "dead",
            State::Cancelled => "cancelled",
            State::Expired => "expired",
            State::WaitingChildren => "waiting-children",
            State::Suspended => "suspended",
        }
    }

    /// True if nothing happens to the job any more unless somebody redrives it.
    pub const fn is_final(self) -> bool {
        matches!(self, State::Completed | State::Dead | State::Cancelled | State::Expired)
    }

    /// The state with this number.
    pub fn from_u8(number: u8) -> Option<State> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for State {
    type Err = crate::BadName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(crate::BadName {
            what: "a state",
            reason: "is one of waiting, delayed, blocked, active, retrying, completed, dead, cancelled, expired, \
                     waiting-children, suspended",
        })
    }
}

/// Why a job changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Cause {
    /// A client pushed it.
    Push = 0,
    /// A worker took it.
    Fetch = 1,
    /// The worker reported success.
    Complete = 2,
    /// The worker reported an error.
    Fail = 3,
    /// The attempt ran longer than its timeout.
    Timeout = 4,
    /// The lease ended without a word from the worker: counted as a crash, see also [`Cause::Quarantine`].
    LeaseLost = 5,
    /// The worker put it off without using an attempt.
    Snooze = 6,
    /// Somebody cancelled it.
    Cancel = 7,
    /// Its time came.
    Due = 8,
    /// Somebody called it up before its time.
    Promote = 9,
    /// Somebody gave a final job another life.
    Redrive = 10,
    /// It was not started in time.
    Expire = 11,
    /// A newer job with the same unique key took its place.
    Replace = 12,
    /// A full queue dropped its oldest job.
    DropOldest = 13,
    /// The worker gave it back until something comes.
    Suspend = 14,
    /// The signal that it waited for came.
    Signal = 15,
    /// The child that it waited for ended.
    ChildEnded = 16,
    /// An operation gave it another priority.
    Reprioritise = 17,
    /// An operation moved it to this queue.
    Move = 18,
    /// What its handler needs told it to come later.
    RateLimited = 19,
    /// Somebody changed its body.
    Patch = 20,
    /// It waits for the jobs that it pushed.
    Wait = 21,
    /// A join ended, or was called off.
    Join = 22,
    /// It died, and its queue sends dead letters on to this one.
    DeadLetter = 23,
    /// The worker saw the handler's process die.
    Crash = 24,
    /// It crashed as often as it may.
    Quarantine = 25,
}

impl Cause {
    /// Every cause, by number.
    pub const ALL: [Cause; 26] = [
        Cause::Push,
        Cause::Fetch,
        Cause::Complete,
        Cause::Fail,
        Cause::Timeout,
        Cause::LeaseLost,
        Cause::Snooze,
        Cause::Cancel,
        Cause::Due,
        Cause::Promote,
        Cause::Redrive,
        Cause::Expire,
        Cause::Replace,
        Cause::DropOldest,
        Cause::Suspend,
        Cause::Signal,
        Cause::ChildEnded,
        Cause::Reprioritise,
        Cause::Move,
        Cause::RateLimited,
        Cause::Patch,
        Cause::Wait,
        Cause::Join,
        Cause::DeadLetter,
        Cause::Crash,
        Cause::Quarantine,
    ];

    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::Push => "push",
            Cause::Fetch => "fetch",
            Cause::Complete => "complete",
            Cause::Fail => "fail",
            Cause::Timeout => "timeout",
            Cause::LeaseLost => "lease_lost",
            Cause::Snooze => "snooze",
            Cause::Cancel => "cancel",
            Cause::Due => "due",
            Cause::Promote => "promote",
            Cause::Redrive => "redrive",
            Cause::Expire => "expire",
            Cause::Replace => "replace",
            Cause::DropOldest => "drop_oldest",
            Cause::RateLimited => "rate_limited",
            Cause::Suspend => "suspend",
            Cause::Signal => "signal",
            Cause::ChildEnded => "child_ended",
            Cause::Wait => "wait",
            Cause::Join => "join",
            Cause::DeadLetter => "dead_letter",
            Cause::Crash => "crash",
            Cause::Quarantine => "quarantine",
            Cause::Reprioritise => "reprioritise",
            Cause::Move => "move",
            Cause::Patch => "patch",
        }
    }
}

/// What went wrong in an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorInfo {
    /// A short class for grouping, such as `timeout`, `TypeError`, `exit`.
    pub kind: CompactString,
    /// For people.
    pub message: CompactString,
    /// Where, if known; may be empty.
    pub stack: CompactString,
}

/// One change of a job, kept with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The state before; `None` for the push.
    pub from: Option<State>,
    /// The state after.
    pub to: State,
    /// When, in the log's time.
    pub at: Timestamp,
    /// Why.
    pub cause: Cause,
    /// Which attempt, 0 before the first.
    pub attempt: u32,
    /// By whom; empty for the engine itself.
    pub actor: Actor,
    /// The position of the command in the log.
    pub position: u64,
    /// The error or the reason, if there was one.
    pub error: Option<ErrorInfo>,
}

/// One line that a handler wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the line reached the log.
    pub at: Timestamp,
    /// In which attempt.
    pub attempt: u32,
    /// The text.
    pub text: CompactString,
}

/// A job as a worker receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchedJob {
    /// The shard's own number of the job, for finding a body that is not in memory.
    pub sequence: u64,
    /// The id.
    pub id: JobId,
    /// The queue.
    pub queue: QueueName,
    /// The body, or `None` if it must be read from the checkpoint store. A node never lets `None` reach a worker.
    pub body: Option<Bytes>,
    /// MIME type of the body; empty means JSON.
    pub content_type: CompactString,
    /// Which attempt this is, 1 for the first.
    pub attempt: u32,
    /// How many attempts there are.
    pub attempts: u32,
    /// How often a worker was lost while it had this job.
    pub crashes: u32,
    /// The fencing token: larger than that of every lease granted before.
    pub lease_token: u64,
    /// The lease ends here unless renewed.
    pub lease_until: Timestamp,
    /// The attempt is failed here, renewed or not.
    pub timeout_at: Timestamp,
    /// How urgent.
    pub priority: Priority,
    /// When it was pushed.
    pub created_at: Timestamp,
    /// Searchable words.
    pub tags: Vec<CompactString>,
    /// Headers, trace context.
    pub meta: Vec<(CompactString, CompactString)>,
    /// The join it waited for, with the results of the members, if it waited for one.
    pub children: Option<Box<JoinView>>,
    /// How many steps earlier attempts stored; whoever runs the job asks for them.
    pub steps: u32,
    /// The fairness group of the push.
    pub group: Option<CompactString>,
}

/// All there is to say of a job, for people and tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// The shard's own number of the job.
    pub sequence: u64,
    /// The id.
    pub id: JobId,
    /// The queue.
    pub queue: QueueName,
    /// The state as shown: `blocked` where a waiting job is held.
    pub state: State,
    /// How urgent.
    pub priority: Priority,
    /// Attempts started.
    pub attempt: u32,
    /// Attempts allowed.
    pub attempts: u32,
    /// Workers lost.
    pub crashes: u32,
    /// Workers that may be lost before the job is dead.
    pub max_crashes: u32,
    /// When it was pushed.
    pub created_at: Timestamp,
    /// When it may start, will be retried, or when its lease ends.
    pub due_at: Option<Timestamp>,
    /// When the newest attempt started.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub finished_at: Option<Timestamp>,
    /// When it expires if not started.
    pub expires_at: Option<Timestamp>,
    /// Who has it.
    pub worker: Option<Actor>,
    /// The newest lease token, 0 if it was never leased.
    pub lease_token: u64,
    /// Bytes of the body.
    pub body_bytes: u32,
    /// The CRC32C of the body, for [`crate::Command::PatchBody`].
    pub body_crc: u32,
    /// The body if it is in memory.
    pub body: Option<Bytes>,
    /// MIME type of the body; empty means JSON.
    pub content_type: CompactString,
    /// What the handler returned.
    pub result: Option<Bytes>,
    /// The newest progress value, as the handler sent it.
    pub progress: Option<Bytes>,
    /// The newest error.
    pub error: Option<ErrorInfo>,
    /// Searchable words.
    pub tags: Vec<CompactString>,
    /// Headers, trace context.
    pub meta: Vec<(CompactString, CompactString)>,
    /// The unique key, if it has one.
    pub unique_key: Option<CompactString>,
    /// How long an attempt may take.
    pub timeout_ms: Millis,
    /// The join that it waits for, or waited for.
    pub waits_for: Option<JobId>,
    /// The joins that it is a member of.
    pub joins: Vec<JobId>,
    /// How many steps it has stored.
    pub steps: u32,
    /// How many signals are kept for it.
    pub signals: u32,
    /// What it is suspended for.
    pub awaits: Option<Awaited>,
}
