use crate::{QueueName, ScheduleId, State};
use compact_str::CompactString;
use kit::Millis;

/// A refusal: a value that the caller can expect and act on. It changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// A value is not allowed.
    #[error("{field}: {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong, and what is right.
        reason: CompactString,
    },
    /// A limit of [`crate::limits`] would be passed.
    #[error("{what} is limited to {limit}")]
    TooMany {
        /// What.
        what: &'static str,
        /// How many.
        limit: u64,
    },
    /// The body is too large.
    #[error("the body has {bytes} bytes; {limit} are allowed")]
    BodyTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The queue holds as much as it may.
    #[error("queue {queue} is full ({limit} {unit}); retry later or raise its capacity")]
    QueueFull {
        /// Which.
        queue: QueueName,
        /// The limit met.
        limit: u64,
        /// `jobs` or `bytes`.
        unit: &'static str,
        /// Producers wait for room there, and this push would fit once there is some.
        waits: bool,
    },
    /// The shard holds as many jobs as it may.
    #[error("this pond holds its limit of {limit} jobs; let workers drain it, or purge")]
    PondFull {
        /// The limit.
        limit: u64,
    },
    /// No queue of that name.
    #[error("there is no queue {queue}; a queue is made by its first push or by configuring it")]
    UnknownQueue {
        /// Which.
        queue: QueueName,
    },
    /// No job of that id.
    #[error("there is no job {id}; it may have been removed when its retention ended")]
    UnknownJob {
        /// Which.
        id: CompactString,
    },
    /// The lease is not the job's newest, or has ended.
    #[error(
        "lease {token} of job {id} is no longer valid; the job may be with another worker: drop this result"
    )]
    StaleLease {
        /// Which job.
        id: CompactString,
        /// The token shown.
        token: u64,
    },
    /// The job was cancelled while it ran.
    #[error("job {id} was cancelled; drop this result")]
    Cancelled {
        /// Which.
        id: CompactString,
    },
    /// The job's state does not allow it.
    #[error("job {id} is {state}; {wanted}")]
    WrongState {
        /// Which.
        id: CompactString,
        /// Its state.
        state: State,
        /// What would be allowed.
        wanted: &'static str,
    },
    /// The unique key is held.
    #[error("unique key {key} is held by job {holder}")]
    UniqueConflict {
        /// The key.
        key: CompactString,
        /// Who holds it.
        holder: CompactString,
    },
    /// No bulk operation of that number.
    #[error("there is no operation {operation}; the newest {kept} that have ended are kept", kept = crate::limits::BULKS_KEPT)]
    UnknownOperation {
        /// Which.
        operation: u64,
    },
    /// The bulk operation has ended.
    #[error("operation {operation} is {status}; start another one")]
    OperationEnded {
        /// Which.
        operation: u64,
        /// How it ended.
        status: &'static str,
    },
    /// A node chose jobs for an operation that has moved on.
    #[error("operation {operation} is not where this choice begins; nothing was lost")]
    StaleChoice {
        /// Which.
        operation: u64,
    },
    /// The idempotency key was used for another call.
    #[error("idempotency key {key} was used for a call with other content; use a new key")]
    IdempotencyConflict {
        /// The key.
        key: CompactString,
    },
    /// No join of that id.
    #[error("there is no join {id}; it may have been forgotten with its continuation")]
    UnknownJoin {
        /// Which.
        id: CompactString,
    },
    /// A graph of joins does not fit together.
    #[error("{name}: {reason}")]
    BadGraph {
        /// The job or the join that does not fit, as the graph calls it.
        name: CompactString,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The join takes no more members.
    #[error("join {id} takes no more members: it is {state}")]
    JoinClosed {
        /// Which.
        id: CompactString,
        /// `sealed`, or how it ended.
        state: &'static str,
    },
    /// A cron expression cannot be read, or never fires.
    #[error("cron: {field} (character {at}): {help}")]
    BadCron {
        /// The field of the expression.
        field: CompactString,
        /// Where it is wrong: the character, the first being 1.
        at: u32,
        /// What is wrong, and what is right.
        help: CompactString,
    },
    /// A time zone is not known, or its rules cannot be read.
    #[error("time zone {zone}: {help}")]
    BadZone {
        /// Its name.
        zone: CompactString,
        /// What is wrong, and what may have been meant.
        help: CompactString,
    },
    /// No schedule of that id.
    #[error("there is no schedule {id}; it may have been removed")]
    UnknownSchedule {
        /// Which.
        id: ScheduleId,
    },
    /// The job holds as many steps as it may.
    #[error("job {id} holds its limit of {limit} {unit}; store less, or split the work into child jobs")]
    StepsFull {
        /// Which job.
        id: CompactString,
        /// The limit met.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// The job holds as many signals that it did not wait for as it may.
    #[error("job {id} holds its limit of {limit} {unit}; signal it again when it has taken some")]
    SignalsFull {
        /// Which job.
        id: CompactString,
        /// The limit met.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// A step's child would be a job that exists.
    #[error("job {id} exists already; a child is a new job: leave out its id and its unique key")]
    ChildExists {
        /// Which job.
        id: CompactString,
    },
    /// Dead letters would come back to the queue they left.
    #[error(
        "dead letters of {queue} cannot go to {target}: from there they would come back to it; name a queue that sends none there"
    )]
    DeadLetterCycle {
        /// The queue to configure.
        queue: QueueName,
        /// Its target.
        target: QueueName,
    },
    /// The body is not the one that the change was made for.
    #[error("the body of job {id} was changed meanwhile; read it again and repeat the change")]
    BodyChanged {
        /// Which job.
        id: CompactString,
    },
}

impl Reject {
    /// The stable code, the same on every surface.
    pub const fn code(&self) -> &'static str {
        match self {
            Reject::Invalid { .. } => "invalid",
            Reject::TooMany { .. } => "too_many",
            Reject::BodyTooLarge { .. } => "body_too_large",
            Reject::QueueFull { .. } => "queue_full",
            Reject::PondFull { .. } => "pond_full",
            Reject::UnknownQueue { .. } => "unknown_queue",
            Reject::UnknownJob { .. } => "unknown_job",
            Reject::StaleLease { .. } => "stale_lease",
            Reject::Cancelled { .. } => "cancelled",
            Reject::WrongState { .. } => "wrong_state",
            Reject::UniqueConflict { .. } => "unique_conflict",
            Reject::IdempotencyConflict { .. } => "idempotency_conflict",
            Reject::UnknownJoin { .. } => "unknown_join",
            Reject::BadGraph { .. } => "bad_graph",
            Reject::JoinClosed { .. } => "join_closed",
            Reject::BadCron { .. } => "bad_cron",
            Reject::BadZone { .. } => "bad_zone",
            Reject::UnknownSchedule { .. } => "unknown_schedule",
            Reject::StepsFull { .. } => "steps_full",
            Reject::SignalsFull { .. } => "signals_full",
            Reject::ChildExists { .. } => "child_exists",
            Reject::UnknownOperation { .. } => "unknown_operation",
            Reject::OperationEnded { .. } => "operation_ended",
            Reject::StaleChoice { .. } => "stale_choice",
            Reject::BodyChanged { .. } => "body_changed",
            Reject::DeadLetterCycle { .. } => "dead_letter_cycle",
        }
    }

    /// How long to wait before trying again, where that helps.
    pub const fn retry_after_ms(&self) -> Option<Millis> {
        match self {
            Reject::QueueFull { .. } | Reject::PondFull { .. } | Reject::SignalsFull { .. } => Some(1_000),
            _ => None,
        }
    }
}
