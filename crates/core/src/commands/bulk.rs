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
        match self.bulk_mut(id).action {
            BulkAction::Purge | BulkAction::Remove => self.forget(slot),
            BulkAction::Redrive => {
                if !self.redrive_slot(slot, context) {
                    return;
                }
            }
            BulkAction::Cancel => self.cancel_slot(slot, &"cancelled in bulk".into(), context),
        }
        self.bulk_mut(id).changed += 1;
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

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_purge_takes_what_has_not_started_a_little_at_each_tick() {
        check(
            "
            0s push mail id=run
            0s fetch mail                -> run 1/5 t1
            0s push mail x1500 ; mail x300 delay=1h
            0s bulk purge mail           -> bulk 1: 0 of 0
            0s counts mail               -> 1500 waiting, 300 delayed, 1 active
            0s next                      -> 0s
            1s push mail id=new
            1s tick
            1s bulks                     -> bulk 1: 1000 of 1000
            2s tick
            2s bulks                     -> bulk 1: 1800 of 1801 finished
            2s counts mail               -> 1 waiting, 1 active
            2s fetch mail                -> new 1/5 t2
            3s next                      -> 30s
        ",
        );
    }

    #[test]
    fn no_fetch_overtakes_a_purge() {
        check(
            "
            0s push mail id=a ; mail id=b tag=red ; mail id=c delay=5s tag=red
            0s bulk purge mail tag=red   -> bulk 1: 0 of 0
            5s push mail id=d tag=red
            5s fetch mail max=9          -> a 1/5 t1, d 1/5 t2
            5s bulks                     -> bulk 1: 2 of 2
            6s tick
            6s bulks                     -> bulk 1: 2 of 2 finished
            6s show c                    -> gone
        ",
        );
    }

    #[test]
    fn a_redrive_gives_each_dead_job_one_life() {
        check(
            "
            0s push mail id=a attempts=1 ; mail id=b attempts=1 ; mail id=c
            0s fetch mail max=3          -> a 1/1 t1, b 1/1 t2, c 1/5 t3
            0s fail a t1 oops            -> dead
            0s fail b t2 TypeError       -> dead
            1s bulk redrive mail kind=oops -> bulk 1: 0 of 0
            1s fail c t3 oops            -> dead
            2s tick
            2s bulks                     -> bulk 1: 1 of 2 finished
            2s upcoming mail             -> a
            2s show c                    -> dead 1/5
        ",
        );
    }

    #[test]
    fn a_job_that_dies_again_is_not_redriven_for_ever() {
        check(
            "
            0s push mail x1002 attempts=1
            0s fetch mail max=2000 lease=100ms
            1s tick
            1s counts mail               -> 2 active, 1000 dead
            1s bulk redrive mail         -> bulk 1: 0 of 0
            1s counts mail               -> 1002 dead
            2s tick
            2s counts mail               -> 1000 waiting, 2 dead
            2s fetch mail                -> #1 1/1 t1003
            2s fail #1 t1003 oops        -> dead
            3s tick
            3s bulks                     -> bulk 1: 1002 of 1002 finished
            3s counts mail               -> 1001 waiting, 1 dead
        ",
        );
    }

    #[test]
    fn a_bulk_remove_and_a_bulk_cancel_take_what_they_are_for() {
        check(
            "
            0s push mail id=a ; mail id=b delay=1h ; mail id=c
            1s cancel c                  -> cancelled
            2s fetch mail                -> a 1/5 t1
            3s bulk cancel mail          -> bulk 1: 0 of 0
            4s tick
            4s heard                     -> w1 lost a t1 cancelled
            4s counts mail               -> 3 cancelled
            5s bulk remove mail before=0s -> bulk 2: 0 of 0
            5s tick
            5s counts mail               -> 3 cancelled
            6s bulk remove mail state=cancelled -> bulk 3: 0 of 0
            6s tick
            6s bulks -> bulk 1: 2 of 2 finished, bulk 2: 0 of 3 finished, bulk 3: 3 of 3 finished
            6s counts mail               ->
        ",
        );
    }

    #[test]
    fn a_purge_by_state_leaves_what_enters_that_state_later() {
        check(
            "
            0s push mail id=a ; mail id=b delay=1s
            0s bulk purge mail state=waiting -> bulk 1: 0 of 0
            1s fetch mail max=9              -> b 1/5 t1
            1s tick
            1s bulks                         -> bulk 1: 1 of 1 finished
        ",
        );
    }

    #[test]
    fn an_action_on_a_state_it_is_not_for_is_refused() {
        check(
            "
            0s push mail id=a
            0s bulk purge mail state=active      -> ! invalid state
            0s bulk purge mail state=dead        -> ! invalid state
            0s bulk redrive mail state=waiting   -> ! invalid state
            0s bulk remove mail state=retrying   -> ! invalid state
            0s bulk cancel mail state=completed  -> ! invalid state
            0s bulk purge nowhere                -> ! unknown_queue
        ",
        );
    }

    #[test]
    fn ended_operations_are_kept_for_a_while_and_running_ones_are_bounded() {
        let mut script = check("0s push mail id=a");
        for _ in 0..256 {
            script.line("1s bulk purge mail tag=none");
        }
        assert_eq!(script.line("1s bulk purge mail"), "! too_many 256");
        script.line("2s tick");
        let bulks = script.line("2s bulks");
        assert_eq!(bulks.split(", ").count(), super::FINISHED_KEPT);
        assert!(bulks.starts_with("bulk 225: 0 of 1 finished"), "{bulks}");
    }
}
