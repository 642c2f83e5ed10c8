//! The one way a job changes its state. Every index, counter, timer, history entry and effect follows from here, so that no
//! command can forget one of them.

use crate::{
    dead_letter::Onward,
    flow::NO_LINE,
    job::Job,
    shard::{Context, Shard},
};
use kit::Timestamp;
use model::{Cause, Effect, ErrorInfo, HistoryEntry, JobValues, QueueChange, State};

/// Where a job goes, and why.
pub(crate) struct Change {
    pub(crate) to: State,
    /// When its timer fires there; zero for never.
    pub(crate) due: Timestamp,
    pub(crate) cause: Cause,
    pub(crate) error: Option<ErrorInfo>,
    /// What it becomes on the way, where a newer push took it over.
    pub(crate) content: Option<Box<Job>>,
    /// Where it goes on to when it has died.
    pub(crate) onward: Option<Onward>,
}

impl Change {
    pub(crate) fn new(to: State, cause: Cause) -> Self {
        Self { to, due: Timestamp::ZERO, cause, error: None, content: None, onward: None }
    }

    pub(crate) fn due(mut self, due: Timestamp) -> Self {
        self.due = due;
        self
    }

    pub(crate) fn error(mut self, error: ErrorInfo) -> Self {
        self.error = Some(error);
        self
    }
}

/// What a change brought along, for whoever listens.
fn values(job: &Job, from: Option<State>, cause: Cause) -> Option<Box<JobValues>> {
    let run = job.run.as_deref();
    let failed = job.state == State::Dead || matches!(cause, Cause::Fail | Cause::Timeout | Cause::Crash);
    JobValues {
        meta: job
            .asked
            .as_ref()
            .filter(|_| from.is_none())
            .map(|asked| asked.meta.clone())
            .unwrap_or_default(),
        result: run.filter(|_| job.state == State::Completed).and_then(|run| run.result.clone()),
        error: run.filter(|_| failed).and_then(|run| run.error.as_deref().cloned()),
        progress: None,
    }
    .carried()
}

impl Shard {
    /// Adds a job that was checked, in the state it begins with.
    pub(crate) fn admit(&mut self, job: Job, context: &mut Context<'_>) -> u32 {
        let (sequence, queue, length) = (job.sequence, job.queue, u64::from(job.body_len));
        let slot = self.jobs.insert(job);
        let jobs = &self.jobs;
        self.by_sequence.insert(sequence, slot, |slot| jobs[slot].sequence);
        self.dirty.bodies_resident += length;
        if self.jobs[slot].asked.as_ref().is_some_and(|asked| asked.route.is_some()) {
            self.join_line(slot);
        }
        let home = &mut self.queues[queue as usize];
        home.totals.pushed += 1;
        self.enter(slot);
        self.after_change(slot, None, Cause::Push, context);
        slot
    }

    /// Moves a job to another state.
    pub(crate) fn transition(&mut self, slot: u32, change: Change, context: &mut Context<'_>) {
        let from = self.jobs[slot].state;
        self.leave(slot);
        (self.jobs[slot].state, self.jobs[slot].due) = (change.to, change.due);
        if let Some(content) = change.content {
            self.take_content(slot, *content);
            self.change_line(slot);
        }
        self.reclass(slot, from, change.cause);
        self.record(slot, from, change.cause, change.error, context);
        let run = self.jobs[slot].run_mut();
        run.finished_at = if change.to.is_final() { context.now } else { Timestamp::ZERO };
        if matches!(from, State::Suspended | State::WaitingChildren) {
            self.stop_waiting(slot);
        }
        if change.to.is_final() {
            self.release_unique(slot);
            self.tell_parent(slot);
        }
        if change.to.is_final() != from.is_final() {
            self.note_schedule(slot, !change.to.is_final());
        }
        self.enter(slot);
        self.after_change(slot, Some(from), change.cause, context);
        let turned = from.is_final() != change.to.is_final() || from == State::WaitingChildren;
        if turned && self.jobs[slot].ties().is_some() {
            self.tied_job_changed(slot, from, context.now);
        }
        if let Some(onward) = change.onward {
            self.send_on(slot, onward, context);
        } else if change.to.is_final() {
            self.trim_finals(slot);
        }
    }

    /// Moves a job between lines where the change makes it unlike those it stood with.
    fn reclass(&mut self, slot: u32, from: State, cause: Cause) {
        let to = self.jobs[slot].state;
        #[cfg(feature = "plant")]
        if to == State::Retrying && crate::plant::is(crate::plant::Bug::ReleaseOrderOnRetry) {
            self.occupy_order(slot, false);
            self.jobs[slot].run_mut().holds_order = false;
        }
        let job = &mut self.jobs[slot];
        if to.is_final() {
            self.quit_line(slot);
            if let Some(run) = self.jobs[slot].run.as_deref_mut() {
                (run.holds_order, run.budgeted) = (false, false);
            }
            return;
        }
        if from.is_final() {
            return self.join_line(slot);
        }
        let fails = matches!(cause, Cause::Fail | Cause::Timeout | Cause::LeaseLost | Cause::Crash)
            && self.queues[job.queue as usize].settings.retry_budget != model::RetryBudget::default()
            && !job.run_mut().budgeted;
        if job.line == NO_LINE && !fails {
            return;
        }
        let ordered = job.route().is_some_and(|route| route.ordering_key.is_some());
        let (starts, ends) = (to == State::Active, from == State::Active);
        let run = job.run_mut();
        run.budgeted |= fails;
        if fails || run.holds_order && starts != ends {
            self.change_line(slot);
        } else if starts && ordered && !run.holds_order {
            run.holds_order = true;
            self.occupy_order(slot, true);
        }
    }

    /// Adds an entry to a job's history.
    pub(crate) fn record(
        &mut self,
        slot: u32,
        from: State,
        cause: Cause,
        error: Option<ErrorInfo>,
        context: &Context<'_>,
    ) {
        let job = &mut self.jobs[slot];
        let base = (job.created_at, job.position);
        let entry = HistoryEntry {
            from: Some(from),
            to: job.state,
            at: context.now,
            cause,
            attempt: job.attempt,
            actor: context.actor.clone(),
            position: context.position,
            error,
        };
        let run = job.run_mut();
        run.history.push(base, &entry);
        if let Some(error) = entry.error {
            run.error = Some(Box::new(error));
        }
    }

    /// Gives a job the content of a newer push, and the state that this one asks for. One that stands in line keeps its place, or
    /// a stream of pushes would hold it at the end for ever.
    pub(crate) fn rewrite(&mut self, slot: u32, fresh: Job, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        let from = job.state;
        let same_place =
            (from, job.priority) == (fresh.state, fresh.priority) && job.route() == fresh.route();
        if !same_place || from != State::Waiting {
            let change =
                Change { content: Some(Box::new(fresh)), ..Change::new(State::Waiting, Cause::Replace) };
            let (to, due) = change.content.as_ref().map_or((from, job.due), |fresh| (fresh.state, fresh.due));
            return self.transition(slot, Change { to, due, ..change }, context);
        }
        self.timers.remove(&(job.due, job.sequence));
        self.weigh(slot, fresh.body_len);
        let due = fresh.due;
        self.take_content(slot, fresh);
        let job = &mut self.jobs[slot];
        job.due = due;
        if due != Timestamp::ZERO {
            self.timers.insert((due, job.sequence));
        }
        self.record(slot, from, Cause::Replace, None, context);
        self.touch(slot);
        self.after_change(slot, Some(from), Cause::Replace, context);
    }

    /// Corrects the sums of its queue for a job whose body is about to change.
    fn weigh(&mut self, slot: u32, bytes: u32) {
        let job = &self.jobs[slot];
        let queue = &mut self.queues[job.queue as usize];
        if !job.state.is_final() {
            queue.live_bytes = queue.live_bytes - u64::from(job.body_len) + u64::from(bytes);
        }
        if job.state == State::Waiting {
            queue.waiting_bytes = queue.waiting_bytes - u64::from(job.body_len) + u64::from(bytes);
            queue.cold_waiting -= u64::from(job.body.is_none());
        }
    }

    /// A job becomes what another was made of. Identity, history, attempts, state and place stay its own.
    fn take_content(&mut self, slot: u32, fresh: Job) {
        let Job {
            sequence: _,
            created_at: _,
            position: _,
            order: _,
            due: _,
            body,
            body_len,
            body_crc,
            queue: _,
            line: _,
            attempt: _,
            timeout_ms,
            attempts,
            max_crashes,
            crashes: _,
            priority,
            state: _,
            stored: _,
            asked,
            run: _,
        } = fresh;
        self.take_body(slot, (body, body_len, body_crc));
        let job = &mut self.jobs[slot];
        (job.timeout_ms, job.attempts, job.max_crashes) = (timeout_ms, attempts, max_crashes);
        job.priority = priority;
        let rank = job.asked.as_ref().map_or(0, |asked| asked.rank);
        job.asked = asked;
        if rank != 0 {
            job.asked.get_or_insert_default().rank = rank;
        }
    }

    fn take_body(&mut self, slot: u32, (body, bytes, crc): (Option<Box<[u8]>>, u32, u32)) {
        let job = &mut self.jobs[slot];
        if job.body.is_some() {
            self.dirty.bodies_resident -= u64::from(job.body_len);
        }
        self.dirty.bodies_resident += u64::from(bytes);
        (job.body, job.body_len, job.body_crc) = (body, bytes, crc);
        self.dirty.replace_body(job);
    }

    /// Gives a job another body, and nothing else.
    pub(crate) fn replace_body(&mut self, slot: u32, body: &[u8], cause: Cause, context: &mut Context<'_>) {
        self.weigh(slot, body.len() as u32);
        self.take_body(slot, (Some(Box::from(body)), body.len() as u32, crc32c::crc32c(body)));
        let state = self.jobs[slot].state;
        self.record(slot, state, cause, None, context);
        self.touch(slot);
        self.after_change(slot, Some(state), cause, context);
    }

    /// Gives a job another place, in another queue or priority, and leaves its state and its timer as they are. It goes to the end
    /// of its new line.
    pub(crate) fn relocate(
        &mut self,
        slot: u32,
        cause: Cause,
        context: &mut Context<'_>,
        change: impl FnOnce(&mut Job),
    ) {
        self.leave(slot);
        // The change may take its hold of its ordering key from it.
        self.occupy_order(slot, false);
        change(&mut self.jobs[slot]);
        self.occupy_order(slot, true);
        let job = &mut self.jobs[slot];
        let state = job.state;
        if state.is_final() {
            // It is kept from now on, as if it had ended here.
            job.run_mut().finished_at = context.now;
        } else {
            self.change_line(slot);
        }
        self.record(slot, state, cause, None, context);
        self.enter(slot);
        self.after_change(slot, Some(state), cause, context);
        if state.is_final() {
            self.trim_finals(slot);
        }
    }

    /// Puts a job into the indexes of its state.
    pub(crate) fn enter(&mut self, slot: u32) {
        self.counters.order += 1;
        let order = self.counters.order;
        self.jobs[slot].order = order;
        if self.jobs[slot].state == State::Waiting {
            self.assign_rank(slot);
        }
        self.index(slot);
        self.touch(slot);
    }

    /// Indexes a job under the order it has; a restored job keeps its own.
    pub(crate) fn index(&mut self, slot: u32) {
        let job = &self.jobs[slot];
        let queue = &mut self.queues[job.queue as usize];
        let lane = queue.lane_mut(job.state, job.priority);
        let was_empty = lane.is_empty();
        lane.push(job.order, slot);
        queue.counts.by_state[job.state as usize] += 1;
        if !job.state.is_final() {
            queue.live_bytes += u64::from(job.body_len);
        }
        if job.state == State::Waiting {
            queue.waiting_bytes += u64::from(job.body_len);
            queue.cold_waiting += u64::from(job.body.is_none());
        }
        if job.due != Timestamp::ZERO {
            self.timers.insert((job.due, job.sequence));
        }
        if job.state.is_final() && was_empty {
            self.schedule_retention(job.queue, job.state);
        }
        self.index_flow(slot, true);
    }

    /// Waiting jobs stand in lines where there are any, active ones hold slots of their limits.
    fn index_flow(&mut self, slot: u32, enters: bool) {
        let job = &self.jobs[slot];
        let queue = &self.queues[job.queue as usize];
        match job.state {
            State::Waiting if queue.lineup.is_some() && enters => self.line_up(slot),
            State::Waiting if queue.lineup.is_some() => self.line_out(slot),
            State::Active if job.line != NO_LINE || !queue.gates.is_empty() => self.charge(slot, enters),
            _ => {}
        }
    }

    /// Takes a job out of the indexes of its state.
    pub(crate) fn leave(&mut self, slot: u32) {
        self.index_flow(slot, false);
        let job = &self.jobs[slot];
        let queue = &mut self.queues[job.queue as usize];
        let found = queue.lane_mut(job.state, job.priority).remove(job.order);
        assert!(found, "a job stands in the lane of its state");
        queue.counts.by_state[job.state as usize] -= 1;
        if !job.state.is_final() {
            queue.live_bytes -= u64::from(job.body_len);
        }
        if job.state == State::Waiting {
            queue.waiting_bytes -= u64::from(job.body_len);
            queue.cold_waiting -= u64::from(job.body.is_none());
        }
        if job.due != Timestamp::ZERO {
            self.timers.remove(&(job.due, job.sequence));
        }
    }

    /// Gives an active job's timer another time.
    pub(crate) fn reschedule(&mut self, slot: u32, due: Timestamp) {
        let job = &mut self.jobs[slot];
        self.timers.remove(&(job.due, job.sequence));
        job.due = due;
        self.timers.insert((job.due, job.sequence));
        self.touch(slot);
    }

    /// Notes and tells what follows from a change of a job that has its new place.
    pub(crate) fn after_change(
        &mut self,
        slot: u32,
        from: Option<State>,
        cause: Cause,
        context: &mut Context<'_>,
    ) {
        self.dirty.touch_queue(&mut self.queues, self.jobs[slot].queue);
        let job = &self.jobs[slot];
        if job.state == State::Waiting && from != Some(State::Waiting) && self.may_start(slot) {
            context.tell_ready(job.queue);
        }
        if context.effects.want_changes {
            context.effects.list.push(Effect::Changed {
                queue: self.queues[job.queue as usize].name.clone(),
                id: job.id(self.id),
                from,
                to: job.state,
                cause,
                attempt: job.attempt,
                due_at: matches!(job.state, State::Delayed | State::Retrying).then_some(job.due),
                values: values(job, from, cause),
                at: context.now,
                position: context.position,
            });
            if let Some(from) = from {
                self.tell_levels(self.jobs[slot].queue, from, Some(self.jobs[slot].state), context);
            }
        }
    }

    /// Says that the queue ran out of waiting jobs, or of live ones, if a job that left `from` was the last.
    fn tell_levels(&self, queue: u32, from: State, to: Option<State>, context: &mut Context<'_>) {
        let counts = &self.queues[queue as usize].counts;
        let stays_live = to.is_some_and(|to| !to.is_final());
        if from == State::Waiting && to != Some(State::Waiting) && counts.of(State::Waiting) == 0 {
            self.tell_queue(queue, QueueChange::Drained, context);
        }
        if !from.is_final() && !stays_live && counts.live() == 0 {
            self.tell_queue(queue, QueueChange::Empty, context);
        }
    }

    /// Tells whoever listens that a queue changed.
    pub(crate) fn tell_queue(&self, queue: u32, change: QueueChange, context: &mut Context<'_>) {
        if context.effects.want_changes {
            context.effects.list.push(Effect::Queue {
                queue: self.queues[queue as usize].name.clone(),
                change,
                at: context.now,
                position: context.position,
            });
        }
    }

    /// Removes every trace of a job because somebody asked for it, and tells whoever listens.
    pub(crate) fn remove_slot(&mut self, slot: u32, context: &mut Context<'_>) {
        let job = &self.jobs[slot];
        let (queue, from) = (job.queue, job.state);
        if context.effects.want_changes {
            context.effects.list.push(Effect::Removed {
                queue: self.queues[queue as usize].name.clone(),
                id: job.id(self.id),
                from,
                attempt: job.attempt,
                at: context.now,
                position: context.position,
            });
        }
        self.forget(slot);
        if context.effects.want_changes {
            self.tell_levels(queue, from, None, context);
        }
    }

    /// Forgets the oldest of a final state beyond the count its queue keeps. A lowered count is met by a few more each time.
    fn trim_finals(&mut self, slot: u32) {
        let (queue, state) = (self.jobs[slot].queue, self.jobs[slot].state);
        for _ in 0..4 {
            let home = &self.queues[queue as usize];
            let kept = home.counts.of(state);
            if kept <= home.keep(state).count {
                return;
            }
            let Some((_, oldest)) = home.lane(state, model::Priority::NORMAL).and_then(|lane| lane.first())
            else {
                return;
            };
            self.forget(oldest);
        }
    }

    /// Removes every trace of a job.
    pub(crate) fn forget(&mut self, slot: u32) {
        if self.jobs[slot].ties().is_some() {
            self.tied_job_gone(slot, self.counters.time);
        }
        self.leave(slot);
        self.quit_line(slot);
        if !self.jobs[slot].state.is_final() {
            self.tell_parent(slot);
        }
        self.forget_steps(slot);
        self.release_unique(slot);
        self.note_schedule(slot, false);
        let job = &self.jobs[slot];
        let (sequence, queue) = (job.sequence, job.queue);
        if let Some(key) = job.asked.as_ref().and_then(|asked| asked.unique_key.as_ref()) {
            self.throttles.outlive(queue, key, sequence, job.state);
        }
        self.by_sequence.remove(sequence, slot);
        if let Some(id) = job.asked.as_ref().and_then(|asked| asked.id.clone()) {
            self.by_given_id.remove(&(queue, id));
        }
        if job.body.is_some() {
            self.dirty.bodies_resident -= u64::from(job.body_len);
        }
        self.dirty.forgotten(job);
        self.jobs.remove(slot);
        self.touch_queue(queue);
    }

    pub(crate) fn touch(&mut self, slot: u32) {
        self.dirty.touch(&mut self.jobs[slot]);
    }

    pub(crate) fn touch_queue(&mut self, queue: u32) {
        self.dirty.touch_queue(&mut self.queues, queue);
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn every_change_is_an_event_with_an_id_that_a_replay_gives_again() {
        check(
            "
            0s push mail id=a ; mail id=b delay=5s
            0s told                      -> 1.0 added a, 1.1 added b
            1s fetch mail                -> a 1/5 t1
            1s told                      -> 2.0 active a, 2.1 drained mail
            5s pause mail                -> ok
            5s told                      -> 3.0 waiting b, 3.1 paused mail
            5s pause mail                -> ok
            5s told                      ->
            6s done a t1                 -> completed
            6s told                      -> 5.0 completed a
            7s remove b                  -> ok
            7s told                      -> 6.0 removed b, 6.1 drained mail, 6.2 empty mail
            8s resume mail               -> ok
            8s told                      -> 7.0 resumed mail
            8s configure mail attempts=1 -> configured
            8s told                      -> 8.0 configured mail
            9s push mail id=c
            9s fetch mail                -> c 1/1 t2
            9s fail c t2 no              -> dead
            9s told                      -> 11.0 dead c, 11.1 empty mail
        ",
        );
    }

    #[test]
    fn an_event_carries_what_the_change_brought_along() {
        check(
            "
            0s push mail id=a attempts=2 backoff=fixed:1s
            0s brought                   ->
            0s fetch mail                -> a 1/2 t1
            0s brought                   ->
            1s retry a t1 oops           -> retrying
            1s brought                   -> retrying a error oops
            2s fetch mail                -> a 2/2 t2
            2s brought                   ->
            3s done a t2 result=7        -> completed
            3s brought                   -> completed a result 7
            4s redrive a                 -> waiting
            4s brought                   ->
            5s fetch mail                -> a 1/2 t3
            6s fail a t3 no              -> dead
            6s brought                   -> dead a error no
        ",
        );
    }
}
