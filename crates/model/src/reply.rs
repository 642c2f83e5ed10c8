use crate::{BulkView, DispatchedJob, JobId, Joined, QueueSettings, Reject, Scheduled, State, Step};
use kit::Timestamp;

/// The answer to a command that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To a push, in the order of the jobs.
    Pushed(Vec<Pushed>),
    /// To a fetch; empty if nothing could be handed out.
    Fetched(Vec<DispatchedJob>),
    /// To a renew, in the order of the leases.
    Renewed(Vec<Result<Renewed, Reject>>),
    /// To a settle, in the order of the settlements.
    Settled(Vec<Result<Settled, Reject>>),
    /// To a change of one or several named jobs: their states now, in order.
    Changed(Vec<State>),
    /// To a change of settings: all of them now.
    Configured(Box<QueueSettings>),
    /// To a graph of joins.
    Joined(Joined),
    /// To the start of a bulk operation, or a change of it: as it is now.
    Operation(Box<BulkView>),
    /// To everything that has nothing to say.
    Done,
    /// To a put, a pause or a resume of a schedule.
    Scheduled(Scheduled),
    /// To a step: what the job had under that name already; `None` if it was stored now.
    Step(Option<Step>),
    /// To a signal.
    Signalled {
        /// The job's state now.
        state: State,
        /// True if the job does not wait for it yet: it is kept until the job does.
        buffered: bool,
    },
}

/// One pushed job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Its id.
    pub id: JobId,
    /// Its state.
    pub state: State,
    /// True if an existing job was found instead.
    pub deduplicated: bool,
    /// True if that job is no longer kept: its unique key is throttled for longer than its retention. Its state is the last it had.
    pub forgotten: bool,
}

/// One renewed lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// It ends here now.
    pub lease_until: Timestamp,
}

/// One settled attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The job's state now.
    pub state: State,
    /// The jobs that were added with it.
    pub pushed: Vec<Pushed>,
}
