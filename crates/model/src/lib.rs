//! The vocabulary of Millpond: what can be asked ([`Command`]), what is answered ([`Reply`]), what is refused
//! ([`Reject`]), what the world is told ([`Effect`]), and how commands are written to the log ([`codec`]).
//!
//! There are no decisions here, no tables, and no JSON.

mod bulk;
pub mod codec;
mod command;
mod crash;
mod effect;
mod event;
mod id;
mod job;
mod join;
mod limit;
pub mod limits;
mod queue;
mod reject;
mod reply;
mod schedule;
mod step;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use bulk::{BodyTest, BulkAction, BulkControl, BulkStatus, BulkView, Chosen, Compare, Filter, NewBulk};
pub use command::{Command, Envelope, LeaseRef, NewJob, OnConflict, Outcome, Settlement, Unique};
pub use crash::Crash;
pub use effect::{Effect, QueueChange, Revocation};
pub use event::{BadEventId, Event, EventFilter, EventId, EventKind, JobEvent, JobValues};
pub use id::{Actor, BadName, JobId, JobRef, QueueName};
pub use job::{Cause, DispatchedJob, ErrorInfo, HistoryEntry, JobView, LogLine, Priority, State};
pub use join::{
    Graph, Ignore, JoinState, JoinView, Joined, MemberOf, MemberState, MemberView, NamedJob, NewJoin,
    OnFailure, Policy, Rest,
};
pub use limit::{Breaker, Bulkhead, Limit, LimitUse, Order, Rate, RetryBudget, Route};
pub use queue::{
    Alert, Capacity, DeadLetter, Keep, OnFull, QueueCounts, QueuePatch, QueueSettings, QueueView,
};
pub use reject::Reject;
pub use reply::{Pushed, Renewed, Reply, Settled};
pub use schedule::{
    CatchUp, Firing, FiringResult, Overlap, ScheduleChange, ScheduleId, ScheduleSpec, ScheduleState,
    ScheduleView, Scheduled, When,
};
pub use step::{Awaited, ChildEnd, Step, StepValue, Until};
