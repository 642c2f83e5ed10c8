//! What an operation does to one job.

use super::JOB;
use crate::{
    job::{Asked, Job},
    shard::{Context, Shard},
};
use compact_str::CompactString;
use model::{BulkAction, Cause, Priority, limits};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Changed,
    /// It is already as it should be.
    Same,
    /// It cannot be changed.
    Skipped,
}

impl Shard {
    /// Does to one job that is meant what the operation is for, in the name of who started it.
    pub(crate) fn bulk_apply(&mut self, id: u64, slot: u32, context: &mut Context<'_>) {
        let bulk = &self.bulks[&id];
        let (action, by) = (bulk.action.clone(), bulk.by.clone());
        let mut named = context.unattended(&by);
        let outcome = match action {
            BulkAction::Purge | BulkAction::Remove => {
                self.remove_slot(slot, &mut named);
                Outcome::Changed
            }
            // Another job may have its unique key.
            BulkAction::Redrive => match self.redrive_slot(slot, &mut named) {
                true => Outcome::Changed,
                false => Outcome::Skipped,
            },
            BulkAction::Cancel => {
                let reason = match bulk.reason.as_str() {
                    "" => "cancelled in bulk".into(),
                    reason => reason.into(),
                };
                self.cancel_slot(slot, &reason, &mut named);
                Outcome::Changed
            }
            BulkAction::Promote if self.stands_by(slot) => Outcome::Skipped,
            BulkAction::Promote => {
                self.promote_slot(slot, &mut named);
                Outcome::Changed
            }
            BulkAction::Retag { add, remove } => self.retag(slot, &add, &remove),
            BulkAction::Reprioritise { priority } => self.reprioritise(slot, priority, &mut named),
            BulkAction::Move { to } => {
                let to = self.ensure_queue(&to);
                self.move_to(slot, to, &mut named)
            }
        };
        for (queue, jobs) in named.ready {
            (0..jobs).for_each(|_| context.tell_ready(queue));
        }
        let bulk = self.bulk_mut(id);
        match outcome {
            Outcome::Changed => {
                bulk.changed += 1;
                bulk.credit = bulk.credit.saturating_sub(JOB);
            }
            Outcome::Same => {}
            Outcome::Skipped => bulk.skipped += 1,
        }
    }

    fn retag(&mut self, slot: u32, add: &[CompactString], remove: &[CompactString]) -> Outcome {
        let job = &mut self.jobs[slot];
        let old: &[CompactString] = job.asked.as_ref().map_or(&[], |asked| &asked.tags);
        let kept = old.iter().filter(|tag| !remove.contains(tag));
        let new = add.iter().filter(|tag| !old.contains(tag));
        let tags: Vec<_> = kept.chain(new).cloned().collect();
        if tags == old {
            return Outcome::Same;
        }
        if tags.len() > limits::TAGS_MAX {
            return Outcome::Skipped;
        }
        job.asked.get_or_insert_default().tags = tags;
        if job.asked.as_deref() == Some(&Asked::default()) {
            job.asked = None;
        }
        self.touch(slot);
        Outcome::Changed
    }

    fn reprioritise(&mut self, slot: u32, priority: Priority, context: &mut Context<'_>) -> Outcome {
        if self.jobs[slot].priority == priority {
            return Outcome::Same;
        }
        self.relocate(slot, Cause::Reprioritise, context, |job| job.priority = priority);
        Outcome::Changed
    }

    /// Whether a job waits until another one of its unique key has ended.
    fn stands_by(&self, slot: u32) -> bool {
        self.jobs[slot].asked.as_ref().is_some_and(|asked| asked.stands_by.is_some())
    }

    /// Moves a job to the end of its line in another queue, unless that is full or has another job of the same given id or
    /// unique key, or the job is a child, or stands by for its unique key.
    fn move_to(&mut self, slot: u32, to: u32, context: &mut Context<'_>) -> Outcome {
        let job = &self.jobs[slot];
        let (from, sequence, live) = (job.queue, job.sequence, !job.state.is_final());
        let asked = job.asked.as_deref();
        let id = asked.and_then(|asked| asked.id.clone());
        let key = asked.and_then(|asked| asked.unique_key.clone()).filter(|_| live);
        let target = &self.queues[to as usize];
        let capacity = target.settings.capacity;
        let full = capacity.jobs > 0 && target.counts.live() + 1 > capacity.jobs
            || capacity.bytes > 0 && target.live_bytes + u64::from(job.body_len) > capacity.bytes;
        // Its parent knows it by its queue and its id.
        let child = asked.is_some_and(|asked| asked.parent.is_some());
        if child
            || self.stands_by(slot)
            || live && full
            || id.as_ref().is_some_and(|id| self.by_given_id.get(&(to, id.clone())).is_some())
            || key.as_ref().is_some_and(|key| self.unique_holder(to, key, context.now).is_some())
        {
            return Outcome::Skipped;
        }
        if let Some(key) = key {
            self.release_unique(slot);
            self.take_unique(to, &key, sequence);
        }
        if let Some(id) = id {
            self.by_given_id.remove(&(from, id.clone()));
            self.by_given_id.insert((to, id), sequence);
        }
        self.touch_queue(from);
        self.relocate(slot, Cause::Move, context, |job: &mut Job| {
            job.queue = to;
            // What it held was of the queue it leaves.
            if let Some(run) = &mut job.run {
                (run.holds_order, run.budgeted) = (false, false);
            }
        });
        Outcome::Changed
    }
}
