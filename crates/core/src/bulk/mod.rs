//! Background operations over the jobs of one queue, done a little at a time.

mod change;
mod filter;
mod pace;
mod preview;
mod walk;

pub use preview::{Preview, Previewed};
pub use walk::Unread;
pub(crate) use {pace::JOB, walk::OVERTAKEN_MAX};

use crate::job::Job;
use kit::Timestamp;
use model::{Actor, BulkAction, BulkStatus, BulkView, Filter, NewBulk, Priority, QueueName, State, limits};

/// An operation, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bulk {
    pub(crate) id: u64,
    pub(crate) queue: u32,
    pub(crate) action: BulkAction,
    pub(crate) filter: Filter,
    pub(crate) rate: u32,
    pub(crate) reason: compact_str::CompactString,
    pub(crate) by: Actor,
    pub(crate) status: BulkStatus,
    /// Jobs pushed later are not meant.
    pub(crate) newest: u64,
    /// The order counter when it began: what entered a state later was not in it then.
    pub(crate) newest_order: u64,
    pub(crate) cursor: Cursor,
    pub(crate) total: u64,
    pub(crate) examined: u64,
    pub(crate) changed: u64,
    pub(crate) skipped: u64,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Option<Timestamp>,
    /// When it last moved on; zero if it has not since it was started or resumed.
    pub(crate) worked_at: Timestamp,
    /// The command that moved it on then.
    pub(crate) worked_position: u64,
    /// Thousandths of a job that its rate allowed then and that were not used.
    pub(crate) credit: u64,
}

/// A place on the way through a queue: which of the states, for `waiting` in which priority, and from which order on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) stage: usize,
    pub(crate) priority: Priority,
    pub(crate) order: u64,
    /// The order counter when this state's turn came. What enters the state later is not looked at, so every walk ends.
    pub(crate) until: u64,
}

impl Cursor {
    pub(crate) fn stage(stage: usize, until: u64) -> Self {
        Self { stage, priority: Priority(0), order: 0, until }
    }
}

/// The order in which states are walked. `waiting` comes last of the live ones, so a job that becomes ready meanwhile is still met.
const WALK: [State; 10] = [
    State::Active,
    State::Delayed,
    State::Retrying,
    State::WaitingChildren,
    State::Suspended,
    State::Waiting,
    State::Completed,
    State::Dead,
    State::Cancelled,
    State::Expired,
];

/// The states that an action is for, and those that it takes if the filter names them.
pub(crate) fn scope(action: &BulkAction) -> (&'static [State], &'static [State]) {
    use State::*;
    const LIVE: &[State] = &[Active, Delayed, Retrying, WaitingChildren, Suspended, Waiting];
    const IDLE: &[State] = &[Delayed, Retrying, WaitingChildren, Suspended, Waiting];
    const FINAL: &[State] = &[Completed, Dead, Cancelled, Expired];
    match action {
        BulkAction::Purge => (IDLE, IDLE),
        BulkAction::Redrive => (&[Dead], FINAL),
        BulkAction::Remove => (FINAL, FINAL),
        BulkAction::Cancel | BulkAction::Reprioritise { .. } => (LIVE, LIVE),
        BulkAction::Promote => (&[Delayed, Retrying], &[Delayed, Retrying]),
        BulkAction::Retag { .. } => (LIVE, &WALK),
        BulkAction::Move { .. } => (&[Delayed, Retrying, Waiting], &[Delayed, Retrying, Waiting, Dead]),
    }
}

impl Bulk {
    /// The states that this operation walks through, in order.
    pub(crate) fn states(&self) -> Vec<State> {
        states(&self.action, &self.filter)
    }

    /// Whether a job must have stood in its state since the operation began. Otherwise it may have moved between live states, so
    /// that a purge meets one that became ready; but a job that is redriven and dies again is not redriven for ever.
    pub(crate) fn stands(&self) -> bool {
        !self.filter.states.is_empty() || matches!(self.action, BulkAction::Redrive | BulkAction::Remove)
    }

    /// Whether a job is meant, as far as the shard can tell.
    pub(crate) fn wants(&self, job: &Job, shard: u16) -> bool {
        #[cfg(feature = "plant")]
        let late = crate::plant::is(crate::plant::Bug::BulkTakesLateJobs);
        #[cfg(not(feature = "plant"))]
        let late = false;
        job.queue == self.queue
            && (job.sequence <= self.newest || late)
            && (job.order <= self.newest_order || !self.stands())
            && filter::matches(&self.filter, job, shard)
    }

    /// Whether a job that is about to start is its: what is purged, cancelled or moved does not start here any more.
    pub(crate) fn claims(&self) -> bool {
        self.status == BulkStatus::Running && self.claims_when_running()
    }

    pub(crate) fn claims_when_running(&self) -> bool {
        let takes = matches!(self.action, BulkAction::Purge | BulkAction::Cancel | BulkAction::Move { .. });
        takes && self.filter.body.is_empty()
    }

    /// Whether it changes running jobs, too, and so those that have just started.
    pub(crate) fn follows(&self) -> bool {
        matches!(self.action, BulkAction::Retag { .. } | BulkAction::Reprioritise { .. })
    }

    pub(crate) fn view(&self, queue: &QueueName) -> BulkView {
        BulkView {
            id: self.id,
            asked: NewBulk {
                queue: queue.clone(),
                action: self.action.clone(),
                filter: self.filter.clone(),
                rate: self.rate,
                reason: self.reason.clone(),
            },
            by: self.by.clone(),
            status: self.status,
            total: self.total,
            examined: self.examined,
            changed: self.changed,
            skipped: self.skipped,
            started_at: self.started_at,
            finished_at: self.finished_at,
        }
    }
}

/// The states that an order walks through: those of its filter, or those that its action is for.
pub(crate) fn states(action: &BulkAction, filter: &Filter) -> Vec<State> {
    let (usual, _) = scope(action);
    let named = if filter.states.is_empty() { usual } else { &filter.states };
    WALK.into_iter().filter(|state| named.contains(state)).collect()
}

impl crate::shard::Shard {
    pub(crate) fn bulk_mut(&mut self, id: u64) -> &mut Bulk {
        self.dirty.bulks.insert(id);
        self.bulks.get_mut(&id).expect("an operation under way is kept")
    }

    /// Ends an operation, and forgets the oldest of those that had ended before.
    pub(crate) fn end_bulk(&mut self, id: u64, status: BulkStatus, now: Timestamp) {
        let bulk = self.bulk_mut(id);
        (bulk.status, bulk.finished_at) = (status, Some(now));
        let ended: Vec<_> = self
            .bulks
            .values()
            .filter(|bulk| bulk.status.is_over())
            .map(|bulk| (bulk.finished_at, bulk.id))
            .collect();
        if ended.len() > limits::BULKS_KEPT
            && let Some((_, oldest)) = ended.into_iter().filter(|(_, ended)| *ended != id).min()
        {
            self.bulks.remove(&oldest);
            self.dirty.bulks.insert(oldest);
        }
    }
}
