use crate::{
    changes::Dirty,
    flow::{GateKey, Group, Memory},
    job::Job,
    record,
    schedule::{Course, Schedule},
    shard::Shard,
    slots::Slots,
    steps::Entry,
};
use bytes::Bytes;
use kit::codec::Malformed;
use model::{JobId, QueueName, ScheduleId, ScheduleSpec, State, Step, When};
use std::collections::BTreeMap;

/// A checkpoint cannot be restored: a record is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "checkpoint record {key}: {reason}; restore the data directory from a backup, or let a replica send its copy"
)]
pub struct RestoreError {
    /// The record's key, printable.
    pub key: String,
    /// The record's key.
    pub record: Vec<u8>,
    /// What is wrong with it.
    pub reason: String,
}

/// Builds a shard from the records of a checkpoint.
///
/// Feed it every record but the bodies, in any order, then [`finish`](Restore::finish). Bodies stay on disk until they are needed.
#[derive(Debug)]
pub struct Restore {
    shard: Shard,
    id: u16,
    jobs: Vec<Job>,
    queues: Vec<(u32, crate::queue::Queue)>,
    joins: crate::join::Restored,
    gates: Vec<(GateKey, Memory)>,
    groups: Vec<(u32, Group)>,
    schedules: BTreeMap<ScheduleId, (ScheduleSpec, Option<u128>)>,
    courses: BTreeMap<ScheduleId, Course>,
    zones: BTreeMap<u128, Bytes>,
    /// By the sequence of their job and their number.
    steps: BTreeMap<(u64, u64), Step>,
    has_meta: bool,
}

impl Restore {
    /// The first byte of the keys of bodies, which are not needed here.
    pub const BODY_PREFIX: u8 = b'b';

    /// Begins a restore of that shard.
    pub fn new(shard: u16) -> Self {
        Self {
            shard: Shard::new(shard),
            id: shard,
            jobs: Vec::new(),
            queues: Vec::new(),
            joins: Default::default(),
            gates: Vec::new(),
            groups: Vec::new(),
            schedules: BTreeMap::new(),
            courses: BTreeMap::new(),
            zones: BTreeMap::new(),
            steps: BTreeMap::new(),
            has_meta: false,
        }
    }

    /// A record that stands in for a queue whose own is lost, so that its jobs have a place: with the name `salvaged-` and its number, and
    /// paused, as nothing is known of how its jobs may run.
    pub fn stand_in_queue(index: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        let mut queue = crate::queue::Queue::new(QueueName::new(&format!("salvaged-{index}")).ok()?);
        queue.paused = true;
        Some((record::queue_key(index), record::queue(&queue)))
    }

    /// The id of the job that a record of shard `shard` holds, and the key of its queue's record.
    pub fn job_in(key: &[u8], value: &[u8], shard: u16) -> Option<(JobId, Vec<u8>)> {
        let job = record::read_job(value).ok().filter(|job| record::job_key(job.sequence) == key)?;
        Some((job.id(shard), record::queue_key(job.queue)))
    }

    /// The name of the queue that a record holds.
    pub fn queue_in(value: &[u8]) -> Option<QueueName> {
        record::read_queue(value).ok().map(|queue| queue.name)
    }

    /// Takes one record.
    ///
    /// # Errors
    /// The record is not one of ours, or of a version that is too new.
    pub fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), RestoreError> {
        self.read(key, value).map_err(|malformed| refuse(key, malformed.to_string()))
    }

    fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let unknown = |what| Malformed { what, offset: 0 };
        let (kind, rest) = key.split_first().ok_or(unknown("key"))?;
        match kind {
            b'b' => {}
            b'g' => {
                let gate = record::read_gate_key(rest).ok_or(unknown("gate"))?;
                self.gates.push((gate, record::read_memory(value)?));
            }
            b'h' => {
                let (queue, name) = record::read_group_key(rest).ok_or(unknown("group"))?;
                self.groups.push((queue, record::read_group(name, value)?));
            }
            b'l' => {
                let pattern = std::str::from_utf8(rest).map_err(|_| unknown("limit"))?;
                self.shard.flow.rules.set(pattern, Some(record::read_limit_record(value)?));
            }
            b'e' => {
                let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes);
                let (Ok(sequence), Ok(step)) =
                    (number(&rest[..rest.len().min(8)]), number(&rest[rest.len().min(8)..]))
                else {
                    return Err(unknown("key"));
                };
                self.steps.insert((sequence, step), record::read_stored_step(value)?);
            }
            b'i' => {
                let name = std::str::from_utf8(rest).map_err(|_| unknown("key"))?;
                self.shard.idempotency.insert(name.into(), record::read_call(value)?);
            }
            b'j' => self.jobs.push(record::read_job(value)?),
            b'm' => {
                let (id, counters) = record::read_meta(value)?;
                if id != self.id {
                    return Err(unknown("counters: they are of another shard"));
                }
                self.shard.counters = counters;
                self.has_meta = true;
            }
            b'n' => self.joins.read(rest, value).map_err(|malformed| malformed.unwrap_or(unknown("key")))?,
            b'o' => {
                let bulk = record::read_bulk(value)?;
                self.shard.bulks.insert(bulk.id, bulk);
            }
            b'q' => {
                let index = rest.try_into().map(u32::from_be_bytes).map_err(|_| unknown("key"))?;
                self.queues.push((index, record::read_queue(value)?));
            }
            b's' => match rest.split_first() {
                Some((b'=', id)) => {
                    self.schedules.insert(schedule_id(id)?, record::read_schedule(value)?);
                }
                Some((b'+', id)) => {
                    self.courses.insert(schedule_id(id)?, record::read_course(value)?);
                }
                Some((b'/', hash)) => {
                    let hash = hash.try_into().map(u128::from_be_bytes).map_err(|_| unknown("key"))?;
                    self.zones.insert(hash, record::read_zone(value)?);
                }
                _ => return Err(unknown("key")),
            },
            b'd' => {
                let (queue, print) = rest.split_first_chunk().ok_or(unknown("key"))?;
                let print = print.try_into().map(u64::from_be_bytes).map_err(|_| unknown("key"))?;
                self.shard.classes.insert((u32::from_be_bytes(*queue), print), record::read_class(value)?);
            }
            b'u' => {
                let (queue, name) = rest.split_first_chunk().ok_or(unknown("key"))?;
                let name = std::str::from_utf8(name).map_err(|_| unknown("key"))?;
                let throttle = record::read_throttle(value)?;
                self.shard.throttles.insert(u32::from_be_bytes(*queue), name.into(), throttle);
            }
            _ => return Err(unknown("key")),
        }
        Ok(())
    }

    /// Rebuilds every index.
    ///
    /// # Errors
    /// The records do not fit together.
    pub fn finish(mut self) -> Result<Shard, RestoreError> {
        if !self.has_meta {
            if self.jobs.is_empty() && self.queues.is_empty() {
                return Ok(self.shard);
            }
            return Err(refuse(record::META_KEY, "the counters are missing".to_string()));
        }
        self.queues.sort_by_key(|(index, _)| *index);
        for (expected, (index, queue)) in self.queues.into_iter().enumerate() {
            if index as usize != expected {
                return Err(refuse(&record::queue_key(expected as u32), "the queue is missing".to_string()));
            }
            self.shard.queue_index.insert(queue.name.clone(), index);
            self.shard.queues.push(queue);
        }
        let held = restore_flow(&mut self.shard, self.gates, self.groups)?;
        // Lanes are filled in the order of their entries, whatever the state: order numbers are the shard's own.
        self.jobs.sort_unstable_by_key(|job| job.order);
        for mut job in self.jobs {
            take_steps(&mut job, &mut self.steps)?;
            place(&mut self.shard, job)?;
        }
        self.shard.place_joins(self.joins).map_err(|(key, reason)| refuse(&key, reason.to_string()))?;
        finish_flow(&mut self.shard, held);
        for (id, (spec, hash)) in self.schedules {
            let course = self.courses.remove(&id);
            place_schedule(&mut self.shard, id, spec, course, hash, &self.zones)?;
        }
        if let Some((sequence, number)) = self.steps.keys().next() {
            return Err(refuse(&record::step_key(*sequence, *number), "its job is missing".to_string()));
        }
        self.shard.dirty = Dirty::restored(&self.shard);
        self.shard.check_standing_by()?;
        self.shard.check_bulks()?;
        Ok(self.shard)
    }
}

/// Gates with what they remember, queues with their gates and groups, before any job takes its place.
fn restore_flow(
    shard: &mut Shard,
    gates: Vec<(GateKey, Memory)>,
    groups: Vec<(u32, Group)>,
) -> Result<Held, RestoreError> {
    let count = shard.queues.len() as u32;
    let mut used = Vec::new();
    for (key, stored) in gates {
        let (GateKey::Order(queue, _) | GateKey::Queue(queue) | GateKey::Retries(queue)) = &key else {
            used.push(shard.restore_gate(key, stored));
            continue;
        };
        if *queue >= count {
            return Err(refuse(&record::gate_key(&key), "its queue is missing".to_string()));
        }
        used.push(shard.restore_gate(key, stored));
    }
    for queue in 0..count {
        if let Some(lineup) = shard.queues[queue as usize].lineup.take() {
            shard.ensure_lineup(queue);
            shard.lineup_mut(queue).clock = lineup.clock;
        }
    }
    let mut known = Vec::new();
    for (queue, group) in groups {
        if queue >= count {
            return Err(refuse(&record::group_key(queue, &group.name), "its queue is missing".to_string()));
        }
        shard.ensure_lineup(queue);
        let lineup = shard.lineup_mut(queue);
        let number = lineup.group(&group.name);
        lineup.set_group(number, Some(group.weight), Some(group.paused));
        let found = &mut lineup.groups[number];
        // One waiting job too many, so that its jobs do not arrive as if it had been idle.
        (found.tag, found.seat, found.waiting) = (group.tag, group.seat, 1);
        known.push((queue, number));
    }
    (0..count).for_each(|queue| shard.set_queue_gates(queue));
    Ok(Held { gates: used, groups: known })
}

/// What the restore itself holds until every job has its place.
struct Held {
    gates: Vec<u32>,
    groups: Vec<(u32, u32)>,
}

/// What no job needs goes; what time changes gets its timer. Nobody is told: a restored shard has no listeners yet.
fn finish_flow(shard: &mut Shard, held: Held) {
    for (queue, group) in held.groups {
        let lineup = shard.queues[queue as usize].lineup.as_mut().expect("a group has a lineup");
        lineup.groups[group].waiting -= 1;
        lineup.retire(queue, group, &mut shard.dirty);
    }
    for queue in 0..shard.queues.len() as u32 {
        shard.drop_lineup(queue);
    }
    for gate in held.gates {
        shard.gate_moved(gate, false);
        shard.drop_gate(gate);
    }
    shard.flow.stirred.clear();
    // What was rebuilt is what the checkpoint has.
    for queue in &mut shard.queues {
        queue.dirty = false;
        if let Some(lineup) = &mut queue.lineup {
            lineup.groups.iter_mut().for_each(|group| group.dirty = false);
        }
    }
    shard.flow.gates.iter_mut().for_each(|gate| gate.dirty = false);
}

fn schedule_id(bytes: &[u8]) -> Result<ScheduleId, Malformed> {
    let id = std::str::from_utf8(bytes).ok().and_then(|id| ScheduleId::new(id).ok());
    id.ok_or(Malformed { what: "key", offset: 0 })
}

fn place_schedule(
    shard: &mut Shard,
    id: ScheduleId,
    mut spec: ScheduleSpec,
    course: Option<Course>,
    hash: Option<u128>,
    zones: &BTreeMap<u128, Bytes>,
) -> Result<(), RestoreError> {
    let bad = |reason: &str| refuse(&record::schedule_key(&id), reason.to_string());
    let course = course.ok_or_else(|| bad("how far it has come is missing"))?;
    if let (Some(hash), When::Cron { rules, .. }) = (hash, &mut spec.when) {
        *rules = zones.get(&hash).ok_or_else(|| bad("the rules of its time zone are missing"))?.clone();
    }
    let slots = Slots::of(&spec).map_err(|reject| bad(&reject.to_string()))?;
    let schedule = Schedule::new(&id, spec, slots, course);
    shard.schedules.insert(id, schedule);
    Ok(())
}

fn refuse(key: &[u8], reason: String) -> RestoreError {
    RestoreError { key: key.escape_ascii().to_string(), record: key.to_vec(), reason }
}

/// Gives a job its steps: all of those that its record speaks of.
fn take_steps(job: &mut Job, records: &mut BTreeMap<(u64, u64), Step>) -> Result<(), RestoreError> {
    let Some(steps) = job.run.as_mut().and_then(|run| run.steps.as_deref_mut()) else { return Ok(()) };
    for number in steps.first..steps.next {
        let Some(step) = records.remove(&(job.sequence, number)) else {
            return Err(refuse(&record::step_key(job.sequence, number), "the step is missing".to_string()));
        };
        steps.bytes += step.bytes() as u64;
        steps.entries.push(Entry { number, step, written: true, stored: true });
    }
    Ok(())
}

fn place(shard: &mut Shard, mut job: Job) -> Result<(), RestoreError> {
    let bad = |reason: &str| Err(refuse(&record::job_key(job.sequence), reason.to_string()));
    let (sequence, queue) = (job.sequence, job.queue);
    if queue as usize >= shard.queues.len() {
        return bad("its queue is missing");
    }
    if sequence > shard.counters.sequence || job.order > shard.counters.order || job.state == State::Blocked {
        return bad("it is newer than the counters");
    }
    if shard.slot_of(sequence).is_some() {
        return bad("it is there twice");
    }
    if job.body_len == 0 {
        job.body = Some(Box::default());
    }
    if let Some(asked) = &job.asked {
        if let Some(id) = &asked.id {
            shard.by_given_id.insert((queue, id.clone()), sequence);
        }
        if let Some(key) = asked.unique_key.as_ref().filter(|_| !job.state.is_final()) {
            let mut hold = shard.unique.get(&(queue, key.clone())).copied().unwrap_or_default();
            match asked.stands_by {
                None => hold.holder = sequence,
                Some(_) => hold.next = Some(sequence),
            }
            shard.unique.insert((queue, key.clone()), hold);
        }
    }
    let live = !job.state.is_final();
    let steps = job.run.as_ref().and_then(|run| run.steps.as_ref());
    shard.steps_bytes += steps.map_or(0, |steps| steps.total());
    let slot = shard.jobs.insert(job);
    let jobs = &shard.jobs;
    shard.by_sequence.insert(sequence, slot, |slot| jobs[slot].sequence);
    if live {
        shard.join_line(slot);
    }
    shard.index(slot);
    Ok(())
}

impl Shard {
    /// Who stands by for a key that nobody holds would do so for ever.
    fn check_standing_by(&self) -> Result<(), RestoreError> {
        let alone = |job: &Job| {
            let key = job.asked.as_ref().and_then(|asked| asked.unique_key.clone()).unwrap_or_default();
            self.unique.get(&(job.queue, key)).is_none_or(|hold| hold.holder == 0)
        };
        match self.jobs.iter().find(|(_, job)| job.stands_by() && alone(job)) {
            Some((_, job)) => {
                let reason = "nobody holds the unique key that it stands by for".to_string();
                Err(refuse(&record::job_key(job.sequence), reason))
            }
            None => Ok(()),
        }
    }

    fn check_bulks(&self) -> Result<(), RestoreError> {
        match self.bulks.values().find(|bulk| bulk.queue as usize >= self.queues.len()) {
            Some(bulk) => Err(refuse(&record::bulk_key(bulk.id), "its queue is missing".to_string())),
            None => Ok(()),
        }
    }
}
