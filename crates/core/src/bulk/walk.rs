//! The way of an operation through its queue.

use super::{Bulk, Cursor, JOB};
use crate::shard::{Context, Shard};
use bytes::Bytes;
use kit::Timestamp;
use model::{BodyTest, BulkStatus, Priority, State, limits};

/// Jobs that one fetch may leave to operations before it answers; its queue wakes it again when they have moved on.
pub(crate) const OVERTAKEN_MAX: usize = 64;

/// Bodies that must be looked at before an operation can move on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// For which operation.
    pub operation: u64,
    /// What must hold of a body; every one of them.
    pub tests: Vec<BodyTest>,
    /// The jobs that are meant if their bodies match: the shard's own numbers, and the bodies that are in memory.
    pub jobs: Vec<(u64, Option<Bytes>)>,
    pub(crate) stage: u32,
    pub(crate) priority: Priority,
    pub(crate) order: u64,
}

impl Unread {
    /// The command that tells the operation which of the jobs are meant: some of `jobs`, in their order.
    pub fn choose(self, mut jobs: Vec<u64>) -> model::Command {
        jobs.sort_unstable();
        let Unread { operation, stage, priority, order, .. } = self;
        model::Command::Choose(Box::new(model::Chosen { operation, stage, priority, order, jobs }))
    }
}

impl Shard {
    /// Moves on with the operations whose time has come: `budget` jobs in all, shared evenly.
    pub(crate) fn advance_bulks(&mut self, budget: usize, context: &mut Context<'_>) {
        let now = context.now;
        if self.bulks.is_empty() || self.bulk_gate() > now {
            return;
        }
        let due = self.bulks.values().filter(|bulk| bulk.walks() && bulk.due() <= now);
        let mut due: Vec<u64> = due.map(|bulk| bulk.id).collect();
        for id in &due {
            let bulk = self.bulk_mut(*id);
            bulk.credit = bulk.credit_at(now);
            (bulk.worked_at, bulk.worked_position) = (now, context.position);
        }
        let mut left = budget.min(limits::BULK_WORK_MAX);
        while left > 0 && !due.is_empty() {
            let share = (left / due.len()).max(1);
            due.retain(|id| {
                let used = self.advance_bulk(*id, share.min(left), context);
                left -= used;
                used == share
            });
        }
    }

    /// Moves on with one operation. Returns how many jobs it looked at: fewer than `budget` if it ended or must wait.
    fn advance_bulk(&mut self, id: u64, budget: usize, context: &mut Context<'_>) -> usize {
        let states = self.bulks[&id].states();
        let mut used = 0;
        while used < budget {
            let bulk = &self.bulks[&id];
            if bulk.rate > 0 && bulk.credit < JOB {
                break;
            }
            let mut cursor = bulk.cursor;
            let Some(slot) = self.walk(bulk, &states, &mut cursor) else {
                self.end_bulk(id, BulkStatus::Finished, context.now);
                break;
            };
            self.bulk_mut(id).cursor = cursor;
            used += 1;
            self.bulk_meet(id, slot, context);
        }
        self.release_claimed(id, context);
        used
    }

    /// A fetch leaves what a purge claims, and waits again. Now there may be something for it behind that.
    pub(crate) fn release_claimed(&self, id: u64, context: &mut Context<'_>) {
        let Some(bulk) = self.bulks.get(&id) else { return };
        let waiting = self.queues[bulk.queue as usize].waiting_count();
        if waiting > 0 && bulk.claims_when_running() {
            context.ready.push((bulk.queue, waiting.min(u64::from(u32::MAX)) as u32));
        }
    }

    /// The next job on the way, and the place behind it; `None` at the end.
    pub(crate) fn walk(&self, bulk: &Bulk, states: &[State], cursor: &mut Cursor) -> Option<u32> {
        let queue = &self.queues[bulk.queue as usize];
        loop {
            let state = *states.get(cursor.stage)?;
            let until = if bulk.stands() { cursor.until.min(bulk.newest_order) } else { cursor.until };
            let here = |found: &(u64, u32)| found.0 <= until;
            let next = if state == State::Waiting {
                queue.waiting_lanes().filter(|(priority, _)| *priority >= cursor.priority).find_map(
                    |(priority, lane)| {
                        let from = if priority == cursor.priority { cursor.order } else { 0 };
                        Some((priority, lane.next_from(from).filter(here)?))
                    },
                )
            } else {
                let lane = queue.lane(state, cursor.priority);
                lane.and_then(|lane| lane.next_from(cursor.order))
                    .filter(here)
                    .map(|found| (cursor.priority, found))
            };
            match next {
                Some((priority, (order, slot))) => {
                    (cursor.priority, cursor.order) = (priority, order + 1);
                    return Some(slot);
                }
                None => *cursor = Cursor::stage(cursor.stage + 1, self.counters.order),
            }
        }
    }

    /// Looks at one job, and changes it if it is meant.
    pub(crate) fn bulk_meet(&mut self, id: u64, slot: u32, context: &mut Context<'_>) {
        self.bulk_mut(id).examined += 1;
        if self.bulks[&id].wants(&self.jobs[slot], self.id) {
            self.bulk_apply(id, slot, context);
        }
    }

    /// Lets the operations that change running jobs, too, have one that started before they reached it.
    pub(crate) fn catch_up(&mut self, slot: u32, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        let late = |bulk: &&Bulk| bulk.walks() && bulk.follows() && bulk.wants(job, self.id);
        let late: Vec<u64> = self.bulks.values().filter(late).map(|bulk| bulk.id).collect();
        for id in late {
            self.bulk_meet(id, slot, context);
        }
    }

    /// Lets a running operation have a job that is about to start and would be beyond its reach then; true if it did.
    pub(crate) fn overtake(&mut self, slot: u32, context: &mut Context<'_>) -> bool {
        if self.bulks.is_empty() {
            return false;
        }
        let job = &self.jobs[slot];
        let claimed = self.bulks.values().find(|bulk| bulk.claims() && bulk.wants(job, self.id));
        let Some(id) = claimed.map(|bulk| bulk.id) else { return false };
        let changed = self.bulks[&id].changed;
        self.bulk_meet(id, slot, context);
        self.bulks[&id].changed > changed
    }

    /// Bodies that an operation must know before it can move on: at most `jobs` jobs with at most `bytes` bytes of bodies,
    /// but one at least. `None` if no operation waits for any now.
    pub fn unread(&self, now: Timestamp, jobs: usize, bytes: u64) -> Option<Unread> {
        let bulk = self.bulks.values().find(|bulk| bulk.reads() && bulk.read_due(self) <= now)?;
        let states = bulk.states();
        let mut unread = Unread {
            operation: bulk.id,
            tests: bulk.filter.body.clone(),
            jobs: Vec::new(),
            stage: bulk.cursor.stage as u32,
            priority: Priority(u8::MAX),
            order: u64::MAX,
        };
        let (mut cursor, mut held) = (bulk.cursor, 0);
        for _ in 0..jobs.min(limits::BULK_WORK_MAX) {
            let mut next = cursor;
            let slot = self.walk(bulk, &states, &mut next).filter(|_| next.stage == bulk.cursor.stage);
            let Some(slot) = slot else { return Some(unread) };
            let job = &self.jobs[slot];
            if bulk.wants(job, self.id) {
                held += u64::from(job.body_len);
                if held > bytes && !unread.jobs.is_empty() {
                    break;
                }
                unread.jobs.push((job.sequence, job.body.as_deref().map(Bytes::copy_from_slice)));
            }
            cursor = next;
        }
        (unread.priority, unread.order) = (cursor.priority, cursor.order - 1);
        Some(unread)
    }

    /// When [`Shard::unread`] should be asked; `None` while no operation asks about bodies.
    pub fn unread_due(&self) -> Option<Timestamp> {
        self.bulks.values().filter(|bulk| bulk.reads()).map(|bulk| bulk.read_due(self)).min()
    }
}
