use crate::job::Job;
use model::{BulkAction, BulkView, Filter, Priority, QueueName, State};

/// A background operation over the jobs of one queue, done a little at each tick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bulk {
    pub(crate) id: u64,
    pub(crate) queue: u32,
    pub(crate) action: BulkAction,
    pub(crate) filter: Filter,
    /// Jobs pushed later are not meant.
    pub(crate) newest: u64,
    /// The order counter when it began: what entered a state later was not in it then.
    pub(crate) newest_order: u64,
    /// Which of `stages` is being walked, for `waiting` in which priority, and from which order on.
    pub(crate) stage: usize,
    pub(crate) priority: Priority,
    pub(crate) order: u64,
    pub(crate) examined: u64,
    pub(crate) changed: u64,
    pub(crate) finished: bool,
}

impl Bulk {
    /// The states an action walks through. `waiting` comes last, so a job that becomes ready meanwhile is still met.
    pub(crate) fn stages(action: BulkAction) -> &'static [State] {
        match action {
            BulkAction::Purge => {
                &[State::Delayed, State::Retrying, State::WaitingChildren, State::Suspended, State::Waiting]
            }
            BulkAction::Cancel => &[
                State::Active,
                State::Delayed,
                State::Retrying,
                State::WaitingChildren,
                State::Suspended,
                State::Waiting,
            ],
            BulkAction::Redrive => &[State::Dead],
            BulkAction::Remove => &[State::Completed, State::Dead, State::Cancelled, State::Expired],
        }
    }

    /// The states this operation walks through: those of its action, or the one of its filter.
    pub(crate) fn states(&self) -> Vec<State> {
        match self.filter.state {
            None => Self::stages(self.action).to_vec(),
            Some(state) => vec![state],
        }
    }

    /// Whether a job must have stood in its state since the operation began. Otherwise it may have moved between live states, so
    /// that a purge meets one that became ready; but a job that is redriven and dies again is not redriven for ever.
    pub(crate) fn stands(&self) -> bool {
        self.filter.state.is_some() || matches!(self.action, BulkAction::Redrive | BulkAction::Remove)
    }

    /// Whether a job is meant.
    pub(crate) fn wants(&self, job: &Job) -> bool {
        job.queue == self.queue
            && job.sequence <= self.newest
            && (job.order <= self.newest_order || !self.stands())
            && matches(&self.filter, job)
    }

    pub(crate) fn view(&self, queue: &QueueName) -> BulkView {
        BulkView {
            id: self.id,
            queue: queue.clone(),
            action: self.action,
            filter: self.filter.clone(),
            examined: self.examined,
            changed: self.changed,
            finished: self.finished,
        }
    }
}

fn matches(filter: &Filter, job: &Job) -> bool {
    let error = job.run.as_ref().and_then(|run| run.error.as_ref());
    filter.state.is_none_or(|state| state == job.state)
        && filter.tag.as_ref().is_none_or(|tag| job.has_tag(tag))
        && filter.error_kind.as_ref().is_none_or(|kind| error.is_some_and(|error| error.kind == *kind))
        && filter.created_before.is_none_or(|time| job.created_at < time)
}
