//! I13: an operation changes only what its filter means, reaches all of it, counts right, and ends.
//!
//! Only the swept queue is looked at: there nothing but named calls, timers and operations changes a job, so what changes in a
//! tick, a fetch or a choice beyond what timers do was done by an operation.

use crate::{
    history::{Check, broken},
    workload,
};
use kit::Timestamp;
use millpond_core::{ListQuery, Shard};
use model::{BulkAction, BulkStatus, BulkView, Cause, Filter, JobId, JobRef, JobView, QueueName, State};
use std::collections::{BTreeMap, BTreeSet};

/// Retention of final jobs is left alone by the workload: a day.
const KEPT_MS: u64 = 24 * 3_600_000;

/// What a job looked like, and where in the log it was pushed and last changed.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) job: JobView,
    pushed: u64,
    changed: u64,
    /// What changed it last.
    cause: Option<Cause>,
}

/// The swept queue, the queue that it is moved to, and the operations, at one moment.
pub(crate) struct Moment {
    jobs: BTreeMap<u64, Seen>,
    beside: BTreeMap<u64, JobId>,
    bulks: Vec<BulkView>,
}

/// Where in the log each operation began.
#[derive(Default)]
pub(crate) struct Operations {
    began: BTreeMap<u64, u64>,
    /// Those that others were beside at some time: another one may make a job match that they have passed.
    beside: BTreeSet<u64>,
}

/// Whether it is under way in the swept queue.
fn sweeps(bulk: &BulkView) -> bool {
    bulk.asked.queue == workload::swept() && bulk.status == BulkStatus::Running
}

fn listed(shard: &Shard, queue: &QueueName) -> Vec<JobView> {
    let mut query = ListQuery { limit: 1_000, ..ListQuery::default() };
    let mut jobs = Vec::new();
    while let Ok(page) = shard.list(queue, &query) {
        jobs.extend(page.jobs);
        query.cursor = page.next;
        if page.next.is_none() {
            break;
        }
    }
    jobs
}

impl Moment {
    /// `None` while no operation is under way in the swept queue.
    pub(crate) fn of(shard: &Shard) -> Option<Moment> {
        let bulks = shard.bulks();
        bulks.iter().any(sweeps).then(|| Self::taken(shard, bulks))
    }

    /// What came after.
    pub(crate) fn after(shard: &Shard) -> Moment {
        Self::taken(shard, shard.bulks())
    }

    /// This moment, as the one before the next command; `None` if no operation is under way in the swept queue.
    pub(crate) fn under_way(self) -> Option<Moment> {
        self.bulks.iter().any(sweeps).then_some(self)
    }

    fn taken(shard: &Shard, bulks: Vec<BulkView>) -> Moment {
        let seen = |job: JobView| {
            let named = JobRef { queue: Some(job.queue.clone()), id: job.id.clone() };
            let history = shard.history(&named).unwrap_or_default();
            let [pushed, changed] = [history.first(), history.last()].map(|e| e.map_or(0, |e| e.position));
            let cause = history.last().map(|entry| entry.cause);
            (job.sequence, Seen { job, pushed, changed, cause })
        };
        Moment {
            jobs: listed(shard, &workload::swept()).into_iter().map(seen).collect(),
            beside: listed(shard, &workload::beside())
                .into_iter()
                .map(|job| (job.sequence, job.id))
                .collect(),
            bulks,
        }
    }

    fn running(&self) -> impl Iterator<Item = &BulkView> {
        self.bulks.iter().filter(|bulk| bulk.status == BulkStatus::Running)
    }

    /// Whether one operation is under way, and so all that is done is done by it. Of several, one may do what makes the next one
    /// mean a job.
    fn alone(&self) -> bool {
        self.running().count() == 1
    }
}

impl Operations {
    /// An operation was started at this position.
    pub(crate) fn begin(&mut self, operation: u64, position: u64) {
        self.began.entry(operation).or_insert(position);
    }

    /// Compares the moments before and after a command. Returns the jobs that were moved.
    pub(crate) fn compare(
        &mut self,
        before: &Moment,
        after: &Moment,
        now: Timestamp,
    ) -> Result<Vec<JobId>, crate::history::Violation> {
        let open: Vec<_> = before.bulks.iter().filter(|bulk| !bulk.status.is_over()).collect();
        if open.len() > 1 {
            self.beside.extend(open.iter().map(|bulk| bulk.id));
        }
        let mut moved = Vec::new();
        let mut done = 0;
        for (sequence, seen) in &before.jobs {
            for kind in changes(seen, after, *sequence, now) {
                self.meant(before, seen, kind)?;
                if kind == "move" {
                    moved.push(seen.job.id.clone());
                }
                done += 1;
            }
        }
        let counted: u64 = before.bulks.iter().map(|bulk| counted(bulk, after)).sum();
        let alone = before.alone();
        if alone && done != counted {
            let bulks: Vec<_> = before.running().collect();
            return broken("I13", format!("{done} jobs changed, {counted} were counted: {bulks:?}"));
        }
        for bulk in &after.bulks {
            if bulk.changed + bulk.skipped > bulk.examined {
                return broken("I13", format!("more was done than was looked at: {bulk:?}"));
            }
            if bulk.status == BulkStatus::Finished
                && before.running().any(|earlier| earlier.id == bulk.id)
                && !self.beside.contains(&bulk.id)
            {
                self.complete(bulk, after)?;
            }
        }
        Ok(moved)
    }

    /// Some operation under way meant this job to change like this.
    fn meant(&self, before: &Moment, seen: &Seen, kind: &str) -> Check {
        let began = |bulk: &BulkView| self.began.get(&bulk.id).copied().unwrap_or(0);
        let exact =
            |bulk: &BulkView| bulk.asked.action.name() == kind && matches(&bulk.asked.filter, &seen.job);
        let meant =
            before.running().any(|bulk| seen.pushed < began(bulk) && (exact(bulk) || !before.alone()));
        if meant {
            return Ok(());
        }
        let bulks: Vec<_> = before.running().collect();
        broken("I13", format!("nobody meant to {kind} {:?}, pushed at {}: {bulks:?}", seen.job, seen.pushed))
    }

    /// An operation that has ended left nothing that it meant and that stood there all the time.
    fn complete(&self, bulk: &BulkView, after: &Moment) -> Check {
        let began = self.began.get(&bulk.id).copied().unwrap_or(0);
        let left = after.jobs.values().find(|seen| {
            seen.pushed < began
                && seen.changed < began
                && matches(&bulk.asked.filter, &seen.job)
                && usual(bulk).contains(&stored(seen.job.state))
                && !as_wanted(&bulk.asked.action, &seen.job)
        });
        match left {
            Some(seen) if bulk.skipped == 0 => {
                broken("I13", format!("{bulk:?} has ended and left {:?}", seen.job))
            }
            _ => Ok(()),
        }
    }
}

/// No operation is under way any more.
pub(crate) fn ended(shard: &Shard) -> Check {
    match shard.bulks().into_iter().find(|bulk| !bulk.status.is_over()) {
        Some(bulk) => broken("I13", format!("an operation never ended: {bulk:?}")),
        None => Ok(()),
    }
}

fn counted(before: &BulkView, after: &Moment) -> u64 {
    let now = after.bulks.iter().find(|bulk| bulk.id == before.id);
    now.map_or(0, |now| now.changed.saturating_sub(before.changed))
}

/// What operations did to a job, by the names of their actions.
fn changes(seen: &Seen, after: &Moment, sequence: u64, now: Timestamp) -> Vec<&'static str> {
    let was = &seen.job;
    let Some(Seen { job: is, changed, cause, .. }) = after.jobs.get(&sequence) else {
        return match was.finished_at {
            _ if after.beside.get(&sequence) == Some(&was.id) => vec!["move"],
            Some(at) if at + KEPT_MS <= now => Vec::new(),
            Some(_) => vec!["remove"],
            None => vec!["purge"],
        };
    };
    let mut found = Vec::new();
    if was.tags != is.tags {
        found.push("retag");
    }
    if was.priority != is.priority {
        found.push("reprioritise");
    }
    if was.state != State::Cancelled && is.state == State::Cancelled {
        found.push("cancel");
    }
    if was.state.is_final() && !is.state.is_final() {
        found.push("redrive");
    }
    // One that was due may have waited for a tick to say so, or have become one in the same command: its history knows.
    let promoted = *changed > seen.changed && *cause == Some(Cause::Promote);
    let delayed = matches!(was.state, State::Delayed | State::Retrying);
    let early = delayed && was.due_at.is_some_and(|due| due > now);
    if (promoted || early) && stored(is.state) == State::Waiting {
        found.push("promote");
    }
    found
}

/// A paused queue shows its waiting jobs as blocked.
fn stored(state: State) -> State {
    if state == State::Blocked { State::Waiting } else { state }
}

fn usual(bulk: &BulkView) -> Vec<State> {
    use State::*;
    if !bulk.asked.filter.states.is_empty() {
        return bulk.asked.filter.states.clone();
    }
    match bulk.asked.action {
        BulkAction::Purge | BulkAction::Move { .. } => vec![Waiting, Delayed, Retrying],
        BulkAction::Redrive => vec![Dead],
        BulkAction::Remove => vec![Completed, Dead, Cancelled, Expired],
        BulkAction::Promote => vec![Delayed, Retrying],
        BulkAction::Cancel | BulkAction::Retag { .. } | BulkAction::Reprioritise { .. } => {
            vec![Waiting, Delayed, Retrying, Active]
        }
    }
}

fn as_wanted(action: &BulkAction, job: &JobView) -> bool {
    match action {
        BulkAction::Retag { add, remove } => {
            add.iter().all(|tag| job.tags.contains(tag)) && !remove.iter().any(|tag| job.tags.contains(tag))
        }
        BulkAction::Reprioritise { priority } => job.priority == *priority,
        BulkAction::Purge
        | BulkAction::Redrive
        | BulkAction::Remove
        | BulkAction::Cancel
        | BulkAction::Promote
        | BulkAction::Move { .. } => false,
    }
}

/// The filter once more, as far as the workload uses it. A timer may change the state in the same command, so it is not asked.
fn matches(filter: &Filter, job: &JobView) -> bool {
    filter.tags_all.iter().all(|tag| job.tags.contains(tag))
        && (filter.tags_any.is_empty() || filter.tags_any.iter().any(|tag| job.tags.contains(tag)))
        && filter.created_before.is_none_or(|time| job.created_at < time)
        && filter.priority_min.is_none_or(|least| job.priority.0 >= least.0)
        && filter.attempts_max.is_none_or(|most| job.attempt <= most)
        && filter.id_prefix.as_ref().is_none_or(|prefix| job.id.to_string().starts_with(&prefix[..]))
        && filter.body.iter().all(|test| {
            let number = job.body.as_deref().and_then(workload::number_of);
            number.is_none_or(|number| test.value.parse::<u64>().is_ok_and(|limit| number < limit))
        })
}
