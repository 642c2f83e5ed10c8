use crate::{
    bulk::Bulk,
    shard::{Context, Shard},
};
use model::{BulkAction, Filter, Priority, QueueName, Reject, Reply, State, limits};

/// Operations that have ended and can still be looked at.
const FINISHED_KEPT: usize = 32;

impl Shard {
    /// Starts an operation over all jobs that match now. The work itself is done by ticks.
    pub(crate) fn start_bulk(
        &mut self,
        name: &QueueName,
        action: BulkAction,
        filter: &Filter,
    ) -> Result<Reply, Reject> {
        let queue = self.known_queue(name)?;
        if filter.state.is_some_and(|state| !allowed(action, state)) {
            return Err(Reject::Invalid { field: "state", reason: wanted(action).into() });
        }
        if self.bulks.values().filter(|bulk| !bulk.finished).count() >= limits::BULKS_MAX {
            return Err(Reject::TooMany {
                what: "bulk operations under way",
                limit: limits::BULKS_MAX as u64,
            });
        }
        self.counters.bulk += 1;
        let bulk = Bulk {
            id: self.counters.bulk,
            queue,
            action,
            filter: filter.clone(),
            newest: self.counters.sequence,
            newest_order: self.counters.order,
            stage: 0,
            priority: Priority(0),
            order: 0,
            examined: 0,
            changed: 0,
            finished: false,
        };
        let view = bulk.view(name);
        self.dirty.bulks.insert(bulk.id);
        self.bulks.insert(bulk.id, bulk);
        Ok(Reply::Started(view))
    }

    /// Walks on with the operations under way, `budget` jobs in all.
    pub(crate) fn advance_bulks(&mut self, mut budget: usize, context: &mut Context<'_>) {
        while budget > 0 {
            let Some(id) = self.bulks.values().find(|bulk| !bulk.finished).map(|bulk| bulk.id) else {
                return;
            };
            self.dirty.bulks.insert(id);
            while budget > 0 {
                let Some(slot) = self.bulk_next(id) else { break };
                budget -= 1;
                self.bulk_examine(id);
                if self.bulks[&id].wants(&self.jobs[slot]) {
                    self.bulk_apply(id, slot, context);
                }
            }
            if self.bulks[&id].finished {
                self.drop_old_bulks();
            }
        }
    }

    fn bulk_mut(&mut self, id: u64) -> &mut Bulk {
        self.bulks.get_mut(&id).expect("an operation under way is kept")
    }

    /// The next job on the way, or `None` at its end, which is then marked.
    fn bulk_next(&mut self, id: u64) -> Option<u32> {
        let bulk = &self.bulks[&id];
        let queue = &self.queues[bulk.queue as usize];
        let states = bulk.states();
        let (mut stage, mut priority, mut order) = (bulk.stage, bulk.priority, bulk.order);
        let found = loop {
            let Some(&state) = states.get(stage) else { break None };
            let next = if state == State::Waiting {
                queue.waiting_lanes().find_map(|(lane_priority, lane)| match lane_priority.cmp(&priority) {
                    std::cmp::Ordering::Less => None,
                    std::cmp::Ordering::Equal => lane.next_from(order).map(|found| (lane_priority, found)),
                    std::cmp::Ordering::Greater => lane.first().map(|found| (lane_priority, found)),
                })
            } else {
                queue
                    .lane(state, priority)
                    .and_then(|lane| lane.next_from(order))
                    .filter(|(found, _)| *found <= bulk.newest_order || !bulk.stands())
                    .map(|found| (priority, found))
            };
            match next {
                // What was pushed after the operation began is examined and left.
                Some((at, (found, slot))) => {
                    (priority, order) = (at, found + 1);
                    break Some(slot);
                }
                None => (stage, priority, order) = (stage + 1, Priority(0), 0),
            }
        };
        let bulk = self.bulk_mut(id);
        (bulk.stage, bulk.priority, bulk.order) = (stage, priority, order);
        bulk.finished = found.is_none();
        found
    }

    pub(crate) fn bulk_examine(&mut self, id: u64) {
        self.bulk_mut(id).examined += 1;
    }

    /// Does to one job what the operation is for.
    pub(crate) fn bulk_apply(&mut self, id: u64, slot: u32, context: &mut Context<'_>) {
        self.dirty.bulks.insert(id);
        let bulk = self.bulk_mut(id);
        bulk.changed += 1;
        match bulk.action {
            BulkAction::Purge | BulkAction::Remove => self.forget(slot),
            BulkAction::Redrive => self.redrive_slot(slot, context),
            BulkAction::Cancel => self.cancel_slot(slot, &"cancelled in bulk".into(), context),
        }
    }

    fn drop_old_bulks(&mut self) {
        let finished: Vec<u64> =
            self.bulks.values().filter(|bulk| bulk.finished).map(|bulk| bulk.id).collect();
        for id in finished.iter().take(finished.len().saturating_sub(FINISHED_KEPT)) {
            self.bulks.remove(id);
            self.dirty.bulks.insert(*id);
        }
    }
}

fn allowed(action: BulkAction, state: State) -> bool {
    match action {
        BulkAction::Redrive => state.is_final(),
        BulkAction::Purge | BulkAction::Cancel | BulkAction::Remove => Bulk::stages(action).contains(&state),
    }
}

fn wanted(action: BulkAction) -> &'static str {
    match action {
        BulkAction::Purge => "purge takes waiting, delayed or retrying jobs",
        BulkAction::Redrive => "redrive takes dead, cancelled, expired or completed jobs",
        BulkAction::Remove => "remove takes completed, dead, cancelled or expired jobs",
        BulkAction::Cancel => "cancel takes waiting, delayed, retrying or active jobs",
    }
}
