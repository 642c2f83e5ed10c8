use crate::{
    Actor, BulkControl, Chosen, Crash, ErrorInfo, Graph, JobId, JobRef, Limit, NamedJob, NewBulk, Priority,
    QueueName, QueuePatch, Route, ScheduleId, ScheduleSpec, Until,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Backoff, Millis, Timestamp};

/// A command with what is known of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who asked.
    pub actor: Actor,
    /// For 24 hours the same key gets the first reply again; with other content it is refused.
    pub idempotency_key: Option<CompactString>,
    /// What was asked.
    pub command: Command,
}

/// All that can change a shard. One variant, one file in the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Adds jobs, all or none, over any queues.
    Push {
        /// At most [`crate::limits::BATCH_MAX`].
        jobs: Vec<NewJob>,
    },
    /// Leases up to `max` jobs, from the first queue that has any, then the next.
    Fetch {
        /// In order of preference.
        queues: Vec<QueueName>,
        /// At most this many.
        max: u32,
        /// 0 takes the queue's.
        lease_ms: Millis,
    },
    /// Extends leases; each is answered by itself.
    Renew {
        /// Which.
        leases: Vec<LeaseRef>,
        /// 0 takes the queue's.
        lease_ms: Millis,
    },
    /// Reports how attempts ended; each is answered by itself.
    Settle {
        /// How each ended.
        settlements: Vec<Settlement>,
    },
    /// Calls a job off, waiting or running.
    Cancel {
        /// Which.
        job: JobRef,
        /// For the history.
        reason: CompactString,
    },
    /// Stores a running job's progress.
    Progress {
        /// Which, and by what lease.
        lease: LeaseRef,
        /// Any JSON value, at most 16 KiB.
        value: Bytes,
    },
    /// Appends lines to a running job's log.
    Log {
        /// Which, and by what lease.
        lease: LeaseRef,
        /// The lines.
        lines: Vec<CompactString>,
    },
    /// Makes delayed or retrying jobs waiting now.
    Promote {
        /// Which; all or none.
        jobs: Vec<JobRef>,
    },
    /// Gives final jobs another life: state waiting, attempts from zero.
    Redrive {
        /// Which; all or none.
        jobs: Vec<JobRef>,
    },
    /// Forgets jobs that are not active.
    Remove {
        /// Which; all or none.
        jobs: Vec<JobRef>,
    },
    /// Stops handing out a queue's jobs.
    Pause {
        /// Which.
        queue: QueueName,
    },
    /// Undoes pause.
    Resume {
        /// Which.
        queue: QueueName,
    },
    /// Changes a queue's settings; creates the queue if it is new.
    Configure {
        /// Which.
        queue: QueueName,
        /// What changes.
        patch: QueuePatch,
    },
    /// Starts a tracked background operation over the jobs that match now.
    Bulk(Box<NewBulk>),
    /// Adds a graph of jobs and joins, all or none.
    Join {
        /// The graph.
        graph: Graph,
    },
    /// Adds members to a join that is open, all or none.
    Extend {
        /// Which.
        join: JobId,
        /// The members.
        jobs: Vec<NamedJob>,
        /// No more will come.
        seal: bool,
    },
    /// Calls a join off, with its continuation and the members that have not ended.
    CancelJoin {
        /// Which.
        join: JobId,
        /// For the history.
        reason: CompactString,
    },
    /// Gives a key, or all keys that begin with a pattern's text, a limit; or takes it away.
    SetLimit {
        /// A key, or the beginning of keys followed by `*`. The most specific one counts: the key itself, then the longest beginning.
        pattern: CompactString,
        /// `None` removes the limit.
        limit: Option<Limit>,
    },
    /// Changes a group of a queue.
    SetGroup {
        /// In which queue.
        queue: QueueName,
        /// Which.
        group: CompactString,
        /// Its share: twice the weight, twice the jobs; 1 to 1,000.
        weight: Option<u32>,
        /// Whether its jobs are held.
        paused: Option<bool>,
    },
    /// Stores the result of a step of a running job, unless the job has a step of that name already.
    Step {
        /// Which, and by what lease.
        lease: LeaseRef,
        /// Unique within the job.
        name: CompactString,
        /// Opaque.
        result: Bytes,
    },
    /// Hands a job what it waits for, or will wait for.
    Signal {
        /// Which; not final.
        job: JobRef,
        /// The signal's name.
        name: CompactString,
        /// Opaque.
        body: Bytes,
    },
    /// Gives final jobs another life from the very beginning: as redrive, but their steps and signals are forgotten.
    Restart {
        /// Which; all or none.
        jobs: Vec<JobRef>,
    },
    /// Gives a job that no worker has another body, unless the body changed meanwhile.
    PatchBody {
        /// Which.
        job: JobRef,
        /// The CRC32C of the body that the new one was made from.
        expected_crc: u32,
        /// The new body, whole.
        body: Bytes,
    },
    /// Nothing but the passing of time: moves what is due, at most [`crate::limits::TICK_WORK_MAX`] jobs.
    Tick,
    /// Makes a schedule, or makes the one of that id like this. The same again touches nothing.
    PutSchedule {
        /// Which.
        id: ScheduleId,
        /// What it shall be.
        spec: Box<ScheduleSpec>,
    },
    /// Stops a schedule; slots until it is resumed fire nothing.
    PauseSchedule {
        /// Which.
        id: ScheduleId,
    },
    /// Undoes the pause of a schedule.
    ResumeSchedule {
        /// Which.
        id: ScheduleId,
    },
    /// Pushes a schedule's job now, beside its slots, paused or not.
    RunSchedule {
        /// Which.
        id: ScheduleId,
    },
    /// Forgets a schedule; the jobs it made stay.
    RemoveSchedule {
        /// Which.
        id: ScheduleId,
    },
    /// Pauses, resumes or cancels a background operation.
    ControlBulk {
        /// Its number.
        operation: u64,
        /// What to do to it.
        control: BulkControl,
    },
    /// Tells an operation whose filter asks about bodies which jobs are meant. Comes from the node itself.
    Choose(Box<Chosen>),
    /// Makes the tokens of all later leases larger than any that may have been granted in a future that was lost. Comes from a restore.
    RaiseTokens {
        /// The time of the restore, in Unix seconds; at most [`crate::limits::TOKEN_EPOCH_MAX`].
        seconds: u64,
    },
}

/// A job to be added. `None` takes the queue's setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Where to.
    pub queue: QueueName,
    /// `None` generates one.
    pub id: Option<JobId>,
    /// Opaque bytes.
    pub body: Bytes,
    /// MIME type; empty means JSON.
    pub content_type: CompactString,
    /// How urgent.
    pub priority: Priority,
    /// Not before: a span from now.
    pub delay_ms: Millis,
    /// Not before: an instant; the later of the two counts.
    pub run_at: Option<Timestamp>,
    /// How many attempts, 1..=10,000.
    pub attempts: Option<u32>,
    /// How many lost workers.
    pub max_crashes: Option<u32>,
    /// How long to wait between attempts.
    pub backoff: Option<Backoff>,
    /// How long one attempt may take.
    pub timeout_ms: Option<Millis>,
    /// Expires if not started within this span.
    pub expires_ms: Option<Millis>,
    /// At most one live job per key.
    pub unique: Option<Unique>,
    /// Searchable words.
    pub tags: Vec<CompactString>,
    /// Headers, trace context.
    pub meta: Vec<(CompactString, CompactString)>,
    /// Group, ordering key, limits, deadline. A route that says nothing is left out.
    pub route: Option<Box<Route>>,
}

impl NewJob {
    /// A job with defaults for everything but queue and body.
    pub fn new(queue: QueueName, body: impl Into<Bytes>) -> Self {
        Self {
            queue,
            id: None,
            body: body.into(),
            content_type: CompactString::default(),
            priority: Priority::NORMAL,
            delay_ms: 0,
            run_at: None,
            attempts: None,
            max_crashes: None,
            backoff: None,
            timeout_ms: None,
            expires_ms: None,
            unique: None,
            tags: Vec::new(),
            meta: Vec::new(),
            route: None,
        }
    }
}

/// A key that one live job of a queue may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The key.
    pub key: CompactString,
    /// The key is free again after this span, or when the job ends, whichever is first; 0 for the end only. For
    /// [`OnConflict::Throttle`] the end of the job does not count, and the span is at least 1.
    pub ttl_ms: Millis,
    /// What a second push meets.
    pub on_conflict: OnConflict,
}

/// What happens when a unique key is held already.
///
/// A holder has *begun* when it was leased once. Under `Debounce` and `KeepLast` it is never disturbed from then on: the newest push
/// becomes, or renews, the one job that *stands by* and takes the key when the holder ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// The push answers with the job that holds it.
    #[default]
    Return,
    /// The push is refused with `unique_conflict`.
    Reject,
    /// The holder is cancelled if it is not active, and the new job takes the key; an active holder is returned.
    Replace,
    /// A holder that has not begun takes the body and the options of the new push, and its wait (`delay_ms`, `run_at`) begins anew.
    Debounce {
        /// Counted from the first push, the wait does not begin anew beyond this span: so the job runs at last. 0 takes
        /// [`crate::limits::DEBOUNCE_WAITS`] times the first push's wait.
        max_wait_ms: Millis,
    },
    /// The key stays taken for the whole span, also after the job has ended: at most one job in `ttl_ms`. The push answers with
    /// the first job, even if that was forgotten meanwhile.
    Throttle,
    /// A holder that has not begun takes the body and the options of the new push and keeps its place: only the last survives.
    KeepLast,
}

impl OnConflict {
    /// The name used on every surface.
    pub const fn name(self) -> &'static str {
        match self {
            OnConflict::Return => "return",
            OnConflict::Reject => "reject",
            OnConflict::Replace => "replace",
            OnConflict::Debounce { .. } => "debounce",
            OnConflict::Throttle => "throttle",
            OnConflict::KeepLast => "keep_last_if_active",
        }
    }
}

/// A lease as its worker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRef {
    /// The job.
    pub job: JobRef,
    /// The token handed out with it.
    pub token: u64,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Which attempt.
    pub lease: LeaseRef,
    /// How.
    pub outcome: Outcome,
    /// Jobs to add in the same atomic change.
    pub push: Vec<NewJob>,
}

/// What a worker wants to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done {
        /// Kept with the job.
        result: Option<Bytes>,
    },
    /// Failed; try again if attempts are left.
    Retry {
        /// Why.
        error: ErrorInfo,
        /// Overrides the backoff, milliseconds.
        after_ms: Option<Millis>,
    },
    /// Failed for good: dead now.
    Fail {
        /// Why.
        error: ErrorInfo,
    },
    /// Later; no attempt is used.
    Snooze {
        /// Milliseconds; 0 hands it back at once.
        after_ms: Millis,
    },
    /// What the handler needs told it to come later. No attempt is used, and nothing that counts against the same limit starts before.
    RateLimited {
        /// The limit that is spent, one of the job's; `None` for the queue as a whole.
        key: Option<CompactString>,
        /// Milliseconds until it can be asked again.
        after_ms: Millis,
    },
    /// Called off by its own handler.
    Cancel {
        /// Why.
        reason: CompactString,
    },
    /// Adds these and waits for them; no attempt is used. The job is handed out again, with their results, when the last join of
    /// the graph ends. That join names no continuation: it is this job.
    Wait {
        /// What to wait for.
        children: Graph,
    },
    /// The handler's process died. Counted apart from errors: no attempt is used, the job waits by its backoff, and after `max_crashes`
    /// it is dead.
    Crash(Crash),
    /// Lets go of the job until something comes; no attempt is used. What came is the value of a step.
    Suspend {
        /// The step; if the job has it already, nothing is waited for.
        step: CompactString,
        /// What is waited for.
        until: Until,
    },
}

impl Outcome {
    /// Its word where people and clients meet it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Retry { .. } => "retry",
            Self::Fail { .. } => "fail",
            Self::Snooze { .. } => "snooze",
            Self::RateLimited { .. } => "rate_limited",
            Self::Cancel { .. } => "cancel",
            Self::Wait { .. } => "wait",
            Self::Crash(_) => "crash",
            Self::Suspend { until: Until::Time { .. }, .. } => "sleep",
            Self::Suspend { until: Until::Signal { .. }, .. } => "wait_for_signal",
            Self::Suspend { until: Until::Child { .. }, .. } => "wait_for_child",
        }
    }
}
