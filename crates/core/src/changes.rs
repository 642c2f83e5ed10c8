//! What changed since the last checkpoint, so that a checkpoint writes that and nothing else.

use crate::{
    flow::{Gate, GateKey, Group},
    job::Job,
    queue::Queue,
    record,
    shard::Shard,
};
use compact_str::CompactString;
use model::ScheduleId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The records to write, and which bodies are in memory. None of it is state: a restored shard starts clean.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Sequences; each once.
    jobs: Vec<u64>,
    /// Sequences of jobs that a checkpoint holds and the shard has forgotten.
    forgotten: Vec<u64>,
    /// Steps that a checkpoint holds and the shard has forgotten: sequence and number.
    pub(crate) steps_forgotten: Vec<(u64, u64)>,
    queues: Vec<u32>,
    pub(crate) idempotency: Vec<CompactString>,
    pub(crate) bulks: BTreeSet<u64>,
    /// Joins, and their members by place.
    joins: BTreeSet<(u64, Option<u32>)>,
    pub(crate) gates: BTreeSet<GateKey>,
    pub(crate) groups: BTreeSet<(u32, CompactString)>,
    pub(crate) limits: BTreeSet<CompactString>,
    /// Schedules that were put or removed.
    schedules: BTreeSet<ScheduleId>,
    /// Schedules that have come further.
    pub(crate) courses: BTreeSet<ScheduleId>,
    /// Rules of time zones that came or went.
    zones: BTreeSet<u128>,
    bytes: u64,
    generation: u64,
    position: u64,
    /// Jobs whose bodies went into a generation that is not yet stored.
    in_flight: VecDeque<(u64, Vec<u64>)>,
    /// Jobs whose bodies are both stored and in memory, oldest first; may name jobs that are gone.
    pub(crate) evictable: VecDeque<u64>,
    /// Jobs that have another body than the store, until it is stored: the generation that has it, none for the next one.
    replaced: BTreeMap<u64, Option<u64>>,
    pub(crate) bodies_resident: u64,
}

/// About what a job's record takes beyond its body.
const RECORD_BYTES: u64 = 100;

impl Dirty {
    /// Of a shard that was just read from a checkpoint: nothing to write.
    pub(crate) fn restored(shard: &Shard) -> Self {
        Self { position: shard.counters.position, ..Self::default() }
    }

    pub(crate) fn touch(&mut self, job: &mut Job) {
        if !job.stored.dirty {
            job.stored.dirty = true;
            self.jobs.push(job.sequence);
            self.bytes += RECORD_BYTES + if job.stored.body { 0 } else { u64::from(job.body_len) };
        }
    }

    /// A job got another body than the one that is stored, if one is.
    pub(crate) fn replace_body(&mut self, job: &mut Job) {
        if std::mem::take(&mut job.stored.body) || self.replaced.contains_key(&job.sequence) {
            self.replaced.insert(job.sequence, None);
        }
    }

    /// Whether the store may still have an older body of that job than the newest.
    pub(crate) fn is_replaced(&self, sequence: u64) -> bool {
        self.replaced.contains_key(&sequence)
    }

    pub(crate) fn touch_join(&mut self, id: u64, place: Option<u32>) {
        if self.joins.insert((id, place)) {
            self.bytes += RECORD_BYTES;
        }
    }
    /// More that the next checkpoint writes.
    pub(crate) fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    pub(crate) fn touch_queue(&mut self, queues: &mut [Queue], index: u32) {
        let queue = &mut queues[index as usize];
        if !queue.dirty {
            queue.dirty = true;
            self.queues.push(index);
        }
    }

    /// A schedule was put or removed, and with it rules of time zones.
    pub(crate) fn put_schedule(
        &mut self,
        id: &ScheduleId,
        body_bytes: usize,
        zones: impl IntoIterator<Item = u128>,
    ) {
        self.schedules.insert(id.clone());
        self.courses.insert(id.clone());
        self.zones.extend(zones);
        self.bytes += RECORD_BYTES + body_bytes as u64;
    }

    /// A gate's memory changed.
    pub(crate) fn touch_gate(&mut self, gate: &mut Gate) {
        if !gate.dirty && gate.meter.is_timed() {
            gate.dirty = true;
            self.gates.insert(gate.key.clone());
        }
    }

    /// A group's time changed.
    pub(crate) fn touch_group(&mut self, queue: u32, group: &mut Group) {
        if !group.dirty {
            group.dirty = true;
            self.groups.insert((queue, group.name.clone()));
        }
    }

    pub(crate) fn forgotten(&mut self, job: &Job) {
        self.replaced.remove(&job.sequence);
        if job.stored.record {
            self.forgotten.push(job.sequence);
            self.bytes += RECORD_BYTES / 4;
        } else if job.stored.dirty {
            // It came and went between two checkpoints: the store never hears of it.
            self.bytes = self.bytes.saturating_sub(RECORD_BYTES + u64::from(job.body_len));
        }
    }
}

/// Names of gone jobs that may stand in the list of evictable bodies, beyond one for each job there is.
const EVICTABLE_SLACK: usize = 1_024;

/// What a checkpoint must write to catch up with the shard. Keys and values mean nothing to anyone else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// To be given to [`Shard::changes_stored`] when these are durable.
    pub generation: u64,
    /// The position of the newest command they contain.
    pub position: u64,
    /// A key with its new value, or with `None` to delete it. Each key once, also among the bodies.
    pub records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Bodies to be written.
    pub bodies: Vec<NewBody>,
}

/// A body that the checkpoint store does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewBody {
    /// Its key.
    pub key: Vec<u8>,
    /// As it was pushed.
    pub bytes: Vec<u8>,
    /// The number of its queue, for a store that makes use of what bodies of a queue have in common.
    pub queue: u32,
}

impl Shard {
    /// How many records changed since the last [`Shard::take_changes`].
    pub fn dirty(&self) -> usize {
        let dirty = &self.dirty;
        let records = dirty.jobs.len()
            + dirty.forgotten.len()
            + dirty.steps_forgotten.len()
            + dirty.queues.len()
            + dirty.idempotency.len()
            + dirty.bulks.len()
            + dirty.joins.len()
            + dirty.gates.len()
            + dirty.groups.len()
            + dirty.limits.len()
            + dirty.schedules.len()
            + dirty.courses.len()
            + dirty.zones.len()
            + self.throttles.dirty.len()
            + self.classes.dirty.len();
        records + usize::from(dirty.position != self.counters.position)
    }

    /// About how many bytes [`Shard::take_changes`] would return.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty.bytes
    }

    /// Everything that changed since the last call, as records for the checkpoint store.
    pub fn take_changes(&mut self) -> Changes {
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut records = Vec::with_capacity(dirty.jobs.len() + dirty.forgotten.len() * 2 + 16);
        let (mut bodies, mut stored) = (Vec::new(), Vec::new());
        for sequence in dirty.jobs.drain(..) {
            let Some(slot) = self.slot_of(sequence) else { continue };
            let job = &mut self.jobs[slot];
            job.stored.dirty = false;
            job.stored.record = true;
            records.push((record::job_key(sequence), Some(record::job(job))));
            let steps = job.run.as_mut().and_then(|run| run.steps.as_deref_mut());
            for entry in steps.into_iter().flat_map(|steps| &mut steps.entries).filter(|entry| !entry.written)
            {
                (entry.written, entry.stored) = (true, true);
                records.push((record::step_key(sequence, entry.number), Some(record::step(&entry.step))));
            }
            if let Some(body) = job.body.as_deref().filter(|_| !job.stored.body) {
                let key = record::body_key(sequence);
                bodies.push(NewBody { key, bytes: body.to_vec(), queue: job.queue });
                job.stored.body = true;
                stored.push(sequence);
                if let Some(stored_by) = dirty.replaced.get_mut(&sequence) {
                    *stored_by = Some(dirty.generation + 1);
                }
            }
        }
        for sequence in dirty.forgotten.drain(..) {
            records.push((record::job_key(sequence), None));
            records.push((record::body_key(sequence), None));
        }
        for (sequence, number) in dirty.steps_forgotten.drain(..) {
            records.push((record::step_key(sequence, number), None));
        }
        for index in dirty.queues.drain(..) {
            let queue = &mut self.queues[index as usize];
            queue.dirty = false;
            records.push((record::queue_key(index), Some(record::queue(queue))));
        }
        let keys: BTreeSet<_> =
            dirty.idempotency.drain(..).chain(self.idempotency.expired.drain(..)).collect();
        for key in keys {
            #[cfg(feature = "plant")]
            if crate::plant::is(crate::plant::Bug::DropDedupeKeyOnCheckpoint) {
                continue;
            }
            records.push((record::call_key(&key), self.idempotency.get(&key).map(record::call)));
        }
        for key in std::mem::take(&mut self.classes.dirty) {
            records.push((record::class_key(key), self.classes.get(key).map(record::class)));
        }
        for key in std::mem::take(&mut self.throttles.dirty) {
            let value = self.throttles.stored(&key).map(record::throttle);
            records.push((record::throttle_key(key.0, &key.1), value));
        }
        for id in std::mem::take(&mut dirty.bulks) {
            records.push((record::bulk_key(id), self.bulks.get(&id).map(record::bulk)));
        }
        for (id, place) in std::mem::take(&mut dirty.joins) {
            let join = self.joins.all.get(&id);
            records.push(match place {
                None => (record::join_key(id), join.map(record::join)),
                Some(place) => {
                    let member = join.and_then(|join| join.members.get(place as usize));
                    (record::member_key(id, place), member.map(record::member))
                }
            });
        }
        for key in std::mem::take(&mut dirty.gates) {
            #[cfg(feature = "plant")]
            if crate::plant::is(crate::plant::Bug::ForgetGates) {
                continue;
            }
            let gate = self.flow.gate_index.get(&key).map(|number| &mut self.flow.gates[*number]);
            let value = gate.and_then(|gate| {
                gate.dirty = false;
                gate.meter.memory(self.counters.time)
            });
            let value = value.map(|memory| record::memory(&memory));
            records.push((record::gate_key(&key), value));
        }
        for (queue, name) in std::mem::take(&mut dirty.groups) {
            let home = &mut self.queues[queue as usize];
            if let Some(lineup) = home.lineup.as_mut().or(home.shelf.as_mut())
                && let Some(group) = lineup.group_index.get(&name)
            {
                lineup.groups[*group].dirty = false;
            }
            records.push((record::group_key(queue, &name), self.group_to_keep(queue, &name)));
        }
        for pattern in std::mem::take(&mut dirty.limits) {
            let limit = self.flow.rules.get(&pattern);
            records.push((record::limit_key(&pattern), limit.map(|limit| record::limit(&limit))));
        }
        for id in std::mem::take(&mut dirty.schedules) {
            let spec = self.schedules.get(&id).map(|schedule| record::schedule(&schedule.spec));
            records.push((record::schedule_key(&id), spec));
        }
        for id in std::mem::take(&mut dirty.courses) {
            let course = self.schedules.get(&id).map(|schedule| record::course(&schedule.course));
            records.push((record::course_key(&id), course));
        }
        for hash in std::mem::take(&mut dirty.zones) {
            records.push((record::zone_key(hash), self.schedules.rules_by(hash).map(record::zone)));
        }
        records.push((record::META_KEY.to_vec(), Some(record::meta(self.id, &self.counters))));
        dirty.generation += 1;
        dirty.bytes = 0;
        dirty.position = self.counters.position;
        dirty.in_flight.push_back((dirty.generation, stored));
        let changes = Changes { generation: dirty.generation, position: dirty.position, records, bodies };
        self.dirty = dirty;
        changes
    }

    /// The changes of that generation, and of those before it, are durable: their bodies may leave the memory.
    pub fn changes_stored(&mut self, generation: u64) {
        self.dirty.replaced.retain(|_, stored_by| stored_by.is_none_or(|stored_by| stored_by > generation));
        while self.dirty.in_flight.front().is_some_and(|(other, _)| *other <= generation) {
            let (_, bodies) = self.dirty.in_flight.pop_front().unwrap_or_default();
            let stale = 2 * bodies.len();
            self.dirty.evictable.extend(bodies);
            for _ in 0..stale {
                let Some(&oldest) = self.dirty.evictable.front() else { break };
                if self.slot_of(oldest).is_some_and(|slot| self.jobs[slot].body.is_some()) {
                    break;
                }
                self.dirty.evictable.pop_front();
            }
        }
        // One long-lived job at the front must not keep the names of all that came and went behind it.
        if self.dirty.evictable.len() > 2 * self.jobs.len() + EVICTABLE_SLACK {
            let mut evictable = std::mem::take(&mut self.dirty.evictable);
            evictable.retain(|sequence| self.slot_of(*sequence).is_some());
            self.dirty.evictable = evictable;
        }
    }

    /// The record of a group whose time or settings a checkpoint must keep.
    fn group_to_keep(&self, queue: u32, name: &CompactString) -> Option<Vec<u8>> {
        let lineup = self.queues[queue as usize].lineup.as_ref()?;
        let group = &lineup.groups[*lineup.group_index.get(name)?];
        let kept = group.waiting > 0 || group.tag > lineup.clock || group.is_set();
        kept.then(|| record::group(group, lineup.clock))
    }

    /// Hands every record of the state to `visit`, bodies excepted: their checksums stand in the jobs.
    pub(crate) fn each_record(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (_, job) in self.jobs.iter() {
            visit(&record::job_key(job.sequence), &record::job(job));
            let steps = job.run.as_ref().and_then(|run| run.steps.as_deref());
            for entry in steps.into_iter().flat_map(|steps| &steps.entries) {
                visit(&record::step_key(job.sequence, entry.number), &record::step(&entry.step));
            }
        }
        for (index, queue) in self.queues.iter().enumerate() {
            visit(&record::queue_key(index as u32), &record::queue(queue));
        }
        for (key, call) in self.idempotency.iter() {
            visit(&record::call_key(key), &record::call(call));
        }
        for (queue, print, class) in self.classes.iter() {
            visit(&record::class_key((queue, print)), &record::class(class));
        }
        for (queue, key, throttle) in self.throttles.iter() {
            visit(&record::throttle_key(queue, key), &record::throttle(throttle));
        }
        for (id, bulk) in &self.bulks {
            visit(&record::bulk_key(*id), &record::bulk(bulk));
        }
        for (id, join) in &self.joins.all {
            visit(&record::join_key(*id), &record::join(join));
            for (place, member) in (0..).zip(&join.members) {
                visit(&record::member_key(*id, place), &record::member(member));
            }
        }
        for (_, gate) in self.flow.gates.iter() {
            if let Some(memory) = gate.meter.memory(self.counters.time) {
                visit(&record::gate_key(&gate.key), &record::memory(&memory));
            }
        }
        for (index, queue) in self.queues.iter().enumerate() {
            for name in queue.lineup.iter().flat_map(|lineup| lineup.group_index.keys()) {
                if let Some(group) = self.group_to_keep(index as u32, name) {
                    visit(&record::group_key(index as u32, name), &group);
                }
            }
        }
        for (pattern, limit) in self.flow.rules.iter() {
            visit(&record::limit_key(&pattern), &record::limit(&limit));
        }
        for (id, schedule) in self.schedules.iter() {
            visit(&record::schedule_key(id), &record::schedule(&schedule.spec));
            visit(&record::course_key(id), &record::course(&schedule.course));
        }
        for (hash, rules) in self.schedules.rules() {
            visit(&record::zone_key(hash), &record::zone(rules));
        }
        visit(record::META_KEY, &record::meta(self.id, &self.counters));
    }
}

#[cfg(test)]
mod tests {
    use super::EVICTABLE_SLACK;
    use crate::tests::check;

    #[test]
    fn what_came_and_went_between_two_checkpoints_is_never_written() {
        let mut shard = check("0s push mail id=a").shard;
        assert_eq!(shard.dirty(), 0);
        let mut apply = |second: u64, command| {
            let at = kit::Timestamp(crate::tests::EPOCH + second * 1_000);
            let actor = model::Actor::default();
            let envelope = model::Envelope { actor, idempotency_key: None, command };
            let position = shard.position() + 1;
            shard.apply(position, at, &envelope, &mut crate::Effects::default()).unwrap()
        };
        let queue = model::QueueName::new("mail").unwrap();
        let named =
            |id: &str| vec![model::JobRef { queue: Some(queue.clone()), id: model::JobId::Text(id.into()) }];
        let mut job = model::NewJob::new(queue.clone(), vec![0; 5_000]);
        job.id = Some(model::JobId::Text("b".into()));
        apply(1, model::Command::Push { jobs: vec![job] });
        apply(2, model::Command::Remove { jobs: named("b") });
        assert!(shard.dirty_bytes() < 1_000, "{}", shard.dirty_bytes());
        let changes = shard.take_changes();
        let keys: Vec<_> = changes.records.into_iter().map(|(key, _)| key[0]).collect();
        assert_eq!(keys, *b"qm", "the queue's totals and the counters");
        assert_eq!(changes.bodies, []);
    }

    #[test]
    fn the_names_of_gone_bodies_do_not_pile_up_behind_one_that_stays() {
        let mut script = check("0s push mail id=stays delay=30d");
        for second in 1..2 * EVICTABLE_SLACK as u64 {
            script.line(&format!("{second}s push mail id=a"));
            script.line(&format!("{second}s remove a"));
        }
        assert!(script.shard.dirty.evictable.len() <= EVICTABLE_SLACK + 2);
    }
}
