//! What must hold of a shard at every moment. For tests and the simulator: it walks everything.

use crate::{
    job::Job,
    queue::Queue,
    shard::Shard,
    steps::{Parent, Signal, Wait},
};
use kit::Timestamp;
use model::{JobRef, ScheduleId, State, StepValue, limits};
use std::collections::BTreeSet;

impl Shard {
    /// Compares every index and counter with the jobs themselves.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn check(&self) -> Result<(), String> {
        let mut counts = vec![[0u64; State::COUNT]; self.queues.len()];
        let mut bytes = vec![0u64; self.queues.len()];
        let mut cold = vec![0u64; self.queues.len()];
        let mut waiting = vec![0u64; self.queues.len()];
        let mut steps_bytes = 0;
        let (mut timers, mut given, mut unique, mut resident, mut retention) = (0, 0, 0, 0, 0);
        for (slot, job) in self.jobs.iter() {
            let fail = |what: &str| Err(format!("job {} ({}): {what}", job.sequence, job.state));
            let queue = &self.queues[job.queue as usize];
            counts[job.queue as usize][job.state as usize] += 1;
            if !job.state.is_final() {
                bytes[job.queue as usize] += u64::from(job.body_len);
            }
            waiting[job.queue as usize] +=
                if job.state == State::Waiting { u64::from(job.body_len) } else { 0 };
            cold[job.queue as usize] += u64::from(job.state == State::Waiting && job.body.is_none());
            resident += if job.body.is_some() { u64::from(job.body_len) } else { 0 };
            if self.slot_of(job.sequence) != Some(slot) {
                return fail("its sequence number does not lead to it");
            }
            let lane = queue.lane(job.state, job.priority);
            if lane.and_then(|lane| lane.next_from(job.order)) != Some((job.order, slot)) {
                return fail("it does not stand in the lane of its state");
            }
            if job.due != Timestamp::ZERO {
                timers += 1;
                if !self.timers.contains(&(job.due, job.sequence)) {
                    return fail("its timer is not set");
                }
            } else if matches!(job.state, State::Active | State::Delayed | State::Retrying | State::Suspended)
                && !job.stands_by()
            {
                return fail("it would stay here for ever: it has no timer");
            }
            steps_bytes += self.check_steps_of(slot)?;
            if job.state.is_final() && job.finished_at() == Timestamp::ZERO {
                return fail("it is final without an end");
            }
            if job.state == State::Active && (job.token() == 0 || job.token() > self.counters.token) {
                return fail("its token was never granted");
            }
            let forgotten_by = queue.retention_timers[job.state as usize];
            if job.state.is_final()
                && (forgotten_by == Timestamp::ZERO
                    || forgotten_by > queue.forget_at(job.state, job.finished_at()))
            {
                return fail("nothing will forget it in time");
            }
            if let Some(id) = job.asked.as_ref().and_then(|asked| asked.id.clone()) {
                given += 1;
                if self.by_given_id.get(&(job.queue, id)) != Some(&job.sequence) {
                    return fail("its given id does not lead to it");
                }
            }
            if let Some(key) = job.asked.as_ref().and_then(|asked| asked.unique_key.clone())
                && !job.state.is_final()
            {
                let hold = self.unique.get(&(job.queue, key)).copied().unwrap_or_default();
                if job.stands_by() {
                    let holder = self.slot_of(hold.holder).map(|holder| &self.jobs[holder]);
                    if hold.next != Some(job.sequence) || holder.is_none_or(|job| job.state.is_final()) {
                        return fail("it stands by for nobody");
                    }
                    if job.state != State::Delayed {
                        return fail("it stands by in the wrong state");
                    }
                } else {
                    unique += 1;
                    if hold.holder != job.sequence {
                        return fail("it does not hold its unique key");
                    }
                    if hold.next.is_some_and(|next| self.slot_of(next).is_none()) {
                        return fail("a job that is gone stands by for its unique key");
                    }
                }
            }
        }
        self.check_flow()?;
        self.schedules.check()?;
        for (id, schedule) in self.schedules.iter() {
            for sequence in &schedule.course.live {
                let job = self.slot_of(*sequence).map(|slot| &self.jobs[slot]);
                let own = |job: &Job| ScheduleId::of_job(&job.id(self.id)).as_ref() == Some(id);
                if !job.is_some_and(|job| !job.state.is_final() && own(job)) {
                    return Err(format!(
                        "schedule {id}: it waits for job {sequence}, which is none of its live jobs"
                    ));
                }
            }
        }
        for (index, queue) in self.queues.iter().enumerate() {
            if queue.counts.by_state != counts[index] {
                return Err(format!(
                    "queue {}: counts {:?}, jobs {:?}",
                    queue.name, queue.counts.by_state, counts[index]
                ));
            }
            if (queue.live_bytes, queue.waiting_bytes, queue.cold_waiting)
                != (bytes[index], waiting[index], cold[index])
            {
                return Err(format!("queue {}: its bytes are miscounted", queue.name));
            }
            self.check_dead_letters(queue)?;
            // There may be fewer: classes are forgotten, and jobs died before there were any.
            let counted: u64 = self.classes.of(index as u32).map(|(_, class)| class.count).sum();
            if counted > queue.totals.dead {
                return Err(format!(
                    "queue {}: {counted} deaths by class of {}",
                    queue.name, queue.totals.dead
                ));
            }
            for state in State::ALL {
                let at = queue.retention_timers[state as usize];
                if at != Timestamp::ZERO {
                    retention += 1;
                    if !self.retention.contains(&(at, index as u32, state)) {
                        return Err(format!("queue {}: its retention timer is not set", queue.name));
                    }
                }
            }
        }
        self.check_joins().map_err(|(join, what)| format!("join {join}: {what}"))?;
        for (id, bulk) in &self.bulks {
            let over = bulk.status.is_over();
            let sound = bulk.id == *id
                && *id <= self.counters.bulk
                && (bulk.queue as usize) < self.queues.len()
                && bulk.changed + bulk.skipped <= bulk.examined
                && bulk.newest <= self.counters.sequence
                && over == bulk.finished_at.is_some();
            if !sound {
                return Err(format!("operation {id} is not sound: {bulk:?}"));
            }
        }
        let sums = [
            ("timers", self.timers.len(), timers),
            ("retention timers", self.retention.len(), retention),
            ("unique keys", self.unique.len(), unique),
            ("calls", self.idempotency.len(), self.idempotency.iter().count()),
            ("given ids", self.by_given_id.len(), given),
            ("bytes of steps", self.steps_bytes as usize, steps_bytes as usize),
            ("children untold", self.orphans.len(), 0),
            ("body bytes", self.dirty.bodies_resident as usize, resident as usize),
        ];
        match sums.into_iter().find(|(_, kept, counted)| kept != counted) {
            Some((what, kept, counted)) => Err(format!("{what}: {kept} kept, {counted} counted")),
            None => Ok(()),
        }
    }

    /// Its target leads nowhere back, and it remembers deaths where it has an alert.
    fn check_dead_letters(&self, queue: &Queue) -> Result<(), String> {
        let fail = |what: &str| Err(format!("queue {}: {what}", queue.name));
        let mut at = queue;
        for _ in 0..self.queues.len() {
            let Some(target) = &at.settings.dead_letter.queue else { break };
            match self.queue_by_name(target) {
                Some(next) if next.name != queue.name => at = next,
                Some(_) => return fail("its dead letters come back"),
                None => return fail("the target of its dead letters is missing"),
            }
        }
        if queue.alarm.is_some() != (queue.settings.dead_letter.alert != Default::default()) {
            return fail("it has an alert and remembers nothing, or the other way round");
        }
        Ok(())
    }

    /// A job's steps and what it waits for; returns the bytes they hold.
    fn check_steps_of(&self, slot: u32) -> Result<u64, String> {
        let job = &self.jobs[slot];
        let fail = |what: &str| Err(format!("job {} ({}): {what}", job.sequence, job.state));
        let Some(steps) = self.steps(slot) else {
            return if job.state == State::Suspended { fail("it waits for nothing") } else { Ok(0) };
        };
        let names: BTreeSet<_> = steps.entries.iter().map(|entry| &entry.step.name).collect();
        if names.len() != steps.entries.len() || names.len() > limits::STEPS_MAX {
            return fail("two of its steps have one name, or it has too many");
        }
        if !steps.entries.iter().map(|entry| entry.number).eq(steps.first..steps.next) {
            return fail("its steps are not numbered in order");
        }
        let bytes: u64 = steps.entries.iter().map(|entry| entry.step.bytes() as u64).sum();
        let signals: u64 = steps.signals.iter().map(Signal::bytes).sum();
        if (steps.bytes, steps.signal_bytes) != (bytes, signals) {
            return fail("the bytes of its steps are miscounted");
        }
        match (&steps.wait, job.state) {
            (Some(Wait::Signal { step, name }), State::Suspended) => {
                if steps.get(step).is_some() || steps.signals.iter().any(|signal| signal.name == *name) {
                    return fail("it waits for what it has");
                }
            }
            (Some(Wait::Child { step }), State::WaitingChildren) => {
                let Some(StepValue::Child { queue, id, end: None }) = steps.get(step).map(|step| &step.value)
                else {
                    return fail("it waits for a child that it does not have");
                };
                let child = self.find(&JobRef { queue: Some(queue.clone()), id: id.clone() });
                let parent = child.and_then(|child| self.jobs[child].asked.as_ref()?.parent.as_deref());
                if child.is_none_or(|child| self.jobs[child].state.is_final())
                    || parent != Some(&Parent { sequence: job.sequence, step: step.clone() })
                {
                    return fail("it waits for a child that has ended, or is not its own");
                }
            }
            (None, state) if state != State::Suspended => {}
            _ => return fail("it waits for something that its state does not say"),
        }
        Ok(bytes + signals)
    }
}
