use crate::{
    bulk::Bulk,
    changes::Dirty,
    dead::Classes,
    flow::Flow,
    idempotency::Idempotency,
    job::{Job, Slab},
    join::Joins,
    queue::Queue,
    schedule::Schedules,
    split::{SequenceIndex, SplitMap},
    steps::Orphan,
    throttle::Throttles,
    unique::Hold,
};
use compact_str::{CompactString, ToCompactString};
use kit::{Timestamp, codec};
use model::{Actor, Command, Effect, Envelope, JobId, JobRef, QueueName, Reject, Reply, State, limits};
use std::collections::{BTreeMap, BTreeSet};

/// One shard: every queue and job of it, changed by nothing but [`Shard::apply`].
///
/// The same commands at the same positions and times give the same state on every machine, in every build.
#[derive(Debug)]
pub struct Shard {
    pub(crate) id: u16,
    pub(crate) counters: Counters,
    pub(crate) jobs: Slab,
    pub(crate) by_sequence: SequenceIndex,
    /// Jobs with an id that a client chose.
    pub(crate) by_given_id: SplitMap<(u32, JobId), u64>,
    /// Who holds a unique key.
    pub(crate) unique: SplitMap<(u32, CompactString), Hold>,
    pub(crate) throttles: Throttles,
    pub(crate) classes: Classes,
    pub(crate) queues: Vec<Queue>,
    pub(crate) queue_index: BTreeMap<QueueName, u32>,
    /// When something happens to a job by itself, with its sequence number.
    pub(crate) timers: BTreeSet<(Timestamp, u64)>,
    /// When the oldest job of a final lane is forgotten: (time, queue, state). May fire early, never late.
    pub(crate) retention: BTreeSet<(Timestamp, u32, State)>,
    pub(crate) idempotency: Idempotency,
    pub(crate) bulks: BTreeMap<u64, Bulk>,
    pub(crate) joins: Joins,
    pub(crate) flow: Flow,
    pub(crate) schedules: Schedules,
    /// Bytes of the steps and signals of all jobs. Follows from them.
    pub(crate) steps_bytes: u64,
    /// Children whose ends their parents have not heard of; empty between commands.
    pub(crate) orphans: Vec<Orphan>,
    pub(crate) dirty: Dirty,
}

/// The numbers that only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counters {
    pub(crate) position: u64,
    pub(crate) time: Timestamp,
    pub(crate) sequence: u64,
    pub(crate) order: u64,
    pub(crate) token: u64,
    pub(crate) bulk: u64,
}

/// Where `apply` puts what the world should hear.
#[derive(Debug, Default)]
pub struct Effects {
    /// What happened, in order.
    pub list: Vec<Effect>,
    /// Whether somebody listens to [`Effect::Changed`]; off, they are not made.
    pub want_changes: bool,
}

/// What every step of one command needs to know.
pub(crate) struct Context<'a> {
    pub(crate) position: u64,
    pub(crate) now: Timestamp,
    pub(crate) actor: &'a Actor,
    pub(crate) effects: &'a mut Effects,
    /// Jobs that became ready, by queue: told once, at the end.
    pub(crate) ready: Vec<(u32, u32)>,
}

impl Context<'_> {
    /// The same moment with nobody to name, for what happens by itself.
    pub(crate) fn unattended<'a>(&'a mut self, engine: &'a Actor) -> Context<'a> {
        Context {
            position: self.position,
            now: self.now,
            actor: engine,
            effects: &mut *self.effects,
            ready: Vec::new(),
        }
    }

    pub(crate) fn tell_ready(&mut self, queue: u32) {
        self.tell_many_ready(queue, 1);
    }

    pub(crate) fn tell_many_ready(&mut self, queue: u32, count: u32) {
        match self.ready.iter_mut().rev().find(|(other, _)| *other == queue) {
            Some((_, ready)) => *ready += count,
            None => self.ready.push((queue, count)),
        }
    }
}

impl Shard {
    /// An empty shard. `id` becomes part of every generated job id; at most 4,095.
    pub fn new(id: u16) -> Self {
        Self {
            id,
            counters: Counters::default(),
            jobs: Slab::default(),
            by_sequence: SequenceIndex::new(),
            by_given_id: SplitMap::new(),
            unique: SplitMap::new(),
            throttles: Throttles::new(),
            classes: Classes::default(),
            queues: Vec::new(),
            queue_index: BTreeMap::new(),
            timers: BTreeSet::new(),
            retention: BTreeSet::new(),
            idempotency: Idempotency::default(),
            bulks: BTreeMap::new(),
            joins: Joins::default(),
            flow: Flow::new(),
            schedules: Schedules::default(),
            steps_bytes: 0,
            orphans: Vec::new(),
            dirty: Dirty::default(),
        }
    }

    /// Applies one command. Pure: no clock, no I/O, no chance.
    ///
    /// Positions rise by one from 1. A `time` earlier than one seen before counts as the latest seen, so time inside the
    /// engine never runs backwards. What is due by then is moved first, whatever the command.
    ///
    /// # Errors
    /// The refusal. It changed nothing.
    pub fn apply(
        &mut self,
        position: u64,
        time: Timestamp,
        envelope: &Envelope,
        effects: &mut Effects,
    ) -> Result<Reply, Reject> {
        assert_eq!(position, self.counters.position + 1, "a command was skipped or applied twice");
        self.counters.position = position;
        self.counters.time = self.counters.time.max(time);
        let now = self.counters.time;
        let mut context = Context { position, now, actor: &envelope.actor, effects, ready: Vec::new() };
        let work = self.advance(&mut context);
        self.wake_parents(&mut context);
        let reply = match &envelope.idempotency_key {
            None => self.command(&envelope.command, work, &mut context),
            Some(key) => self.once(key, &envelope.command, work, &mut context),
        };
        if !self.joins.work.is_empty() {
            self.advance_joins(limits::TICK_WORK_MAX, &mut context);
        }
        for queue in std::mem::take(&mut self.flow.stirred) {
            let waits = self.queues[queue as usize].waiting_count() > 0;
            if waits && !context.ready.iter().any(|(other, _)| *other == queue) {
                context.ready.push((queue, 1));
            }
        }
        self.wake_parents(&mut context);
        for (queue, jobs) in std::mem::take(&mut context.ready) {
            let queue = &self.queues[queue as usize];
            if !queue.paused {
                context.effects.list.push(Effect::Available { queue: queue.name.clone(), jobs });
            }
        }
        reply
    }

    fn command(
        &mut self,
        command: &Command,
        work: usize,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        match command {
            Command::Push { jobs } => self.push(jobs, context).map(Reply::Pushed),
            Command::Fetch { queues, max, lease_ms } => self.fetch(queues, *max, *lease_ms, context),
            Command::Renew { leases, lease_ms } => self.renew(leases, *lease_ms, context),
            Command::Settle { settlements } => self.settle(settlements, context),
            Command::Cancel { job, reason } => self.cancel(job, reason, context),
            Command::Progress { lease, value } => self.progress(lease, value, context),
            Command::Log { lease, lines } => self.log(lease, lines, context),
            Command::Promote { jobs } => self.promote(jobs, context),
            Command::Redrive { jobs } => self.redrive(jobs, context),
            Command::Remove { jobs } => self.remove(jobs, context),
            Command::Pause { queue } => self.pause(queue, context),
            Command::Resume { queue } => self.resume(queue, context),
            Command::Configure { queue, patch } => self.configure(queue, patch, context),
            Command::Bulk(asked) => self.start_bulk(asked, context),
            Command::PatchBody { job, expected_crc, body } => {
                self.patch_body(job, *expected_crc, body, context)
            }
            Command::Tick => self.tick(work, context),
            Command::Join { graph } => self.join(graph, context),
            Command::Extend { join, jobs, seal } => self.extend_join(join, jobs, *seal, context),
            Command::CancelJoin { join, reason } => self.cancel_join(join, reason, context),
            Command::SetLimit { pattern, limit } => self.set_limit(pattern, limit.as_ref()),
            Command::SetGroup { queue, group, weight, paused } => {
                self.set_group(queue, group, *weight, *paused)
            }
            Command::PutSchedule { id, spec } => self.put_schedule(id, spec, context),
            Command::PauseSchedule { id } => self.pause_schedule(id),
            Command::ResumeSchedule { id } => self.resume_schedule(id, context),
            Command::RunSchedule { id } => self.run_schedule(id, context),
            Command::RemoveSchedule { id } => self.remove_schedule(id),
            Command::Step { lease, name, result } => self.store_step(lease, name, result, context),
            Command::Signal { job, name, body } => self.signal(job, name, body, context),
            Command::Restart { jobs } => self.restart(jobs, context),
            Command::ControlBulk { operation, control } => self.control_bulk(*operation, *control, context),
            Command::Choose(chosen) => self.choose(chosen, context),
            Command::RaiseTokens { seconds } => self.raise_tokens(*seconds),
        }
    }

    /// Applies a command unless its key was seen within 24 hours; then the first reply comes again.
    fn once(
        &mut self,
        key: &CompactString,
        command: &Command,
        work: usize,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        if key.is_empty() || key.len() > limits::ID_BYTES_MAX {
            return Err(Reject::Invalid { field: "idempotency_key", reason: "has 1 to 255 bytes".into() });
        }
        let mut encoded = Vec::new();
        model::codec::encode_command(command, &mut encoded);
        let content = xxhash_rust::xxh3::xxh3_128(&encoded);
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::ForgetIdempotency) {
            return self.command(command, work, context);
        }
        if let Some(reply) = self.idempotency.recall(key, content, context.now)? {
            return Ok(self.refill(reply));
        }
        if self.idempotency.len() >= limits::IDEMPOTENCY_MAX {
            return Err(Reject::TooMany {
                what: "idempotency keys within 24 hours",
                limit: limits::IDEMPOTENCY_MAX as u64,
            });
        }
        let reply = self.command(command, work, context)?;
        // A fetch that brought nothing changed nothing; made again, it may bring something.
        if matches!(&reply, Reply::Fetched(jobs) if jobs.is_empty()) {
            return Ok(reply);
        }
        self.idempotency.remember(key.clone(), content, context.now, &reply);
        self.dirty.idempotency.push(key.clone());
        Ok(reply)
    }

    /// The position of the newest command applied; 0 before the first.
    pub fn position(&self) -> u64 {
        self.counters.position
    }

    /// The latest time seen.
    pub fn time(&self) -> Timestamp {
        self.counters.time
    }

    /// When a [`Command::Tick`] is next needed; `None` if nothing is ever due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let retention = self.retention.first().map(|(due, ..)| *due);
        [self.next_move(), retention].into_iter().flatten().min()
    }

    /// When a job or a limit next changes by itself, a schedule fires, or a bulk operation goes on. [`Shard::next_due`] also counts
    /// when something is forgotten.
    pub fn next_move(&self) -> Option<Timestamp> {
        if !self.joins.work.is_empty() {
            return Some(self.counters.time);
        }
        let timer = self.timers.first().map(|(due, _)| *due);
        let gate = self.flow.timers.first().map(|(due, _)| *due);
        let slot = self.schedules.first().map(|(due, _)| *due);
        let join = self.joins.timers.first().map(|(due, _)| *due);
        [timer, join, gate, slot, self.bulk_due()].into_iter().flatten().min()
    }

    /// Whether a fetch from these queues would hand out a job now.
    pub fn has_work(&self, queues: &[QueueName]) -> bool {
        queues.iter().filter_map(|name| self.queue_index.get(name)).any(|queue| self.startable(*queue) > 0)
    }

    /// How many jobs of a queue a fetch could take now: none while it is paused. Where limits decide this is an estimate, but it is
    /// zero only if it is zero.
    pub fn ready(&self, queue: &QueueName) -> u64 {
        self.queue_index.get(queue).map_or(0, |queue| self.startable(*queue))
    }

    /// How many jobs of a queue that are still to come may start as soon as they have come, as far as is known before: none while the
    /// queue is paused, or while jobs wait in it that may not start.
    pub fn welcome(&self, queue: &QueueName) -> u64 {
        self.queue_index.get(queue).map_or(u64::MAX, |queue| self.startable_to_come(*queue))
    }

    pub(crate) fn queue_by_name(&self, name: &QueueName) -> Option<&Queue> {
        self.queue_index.get(name).map(|index| &self.queues[*index as usize])
    }

    pub(crate) fn known_queue(&self, name: &QueueName) -> Result<u32, Reject> {
        self.queue_index.get(name).copied().ok_or_else(|| Reject::UnknownQueue { queue: name.clone() })
    }

    /// The queue of that name, made if new. The caller has checked the limit.
    pub(crate) fn ensure_queue(&mut self, name: &QueueName) -> u32 {
        if let Some(index) = self.queue_index.get(name) {
            return *index;
        }
        let index = self.queues.len() as u32;
        self.queues.push(Queue::new(name.clone()));
        self.queue_index.insert(name.clone(), index);
        self.touch_queue(index);
        index
    }

    pub(crate) fn slot_of(&self, sequence: u64) -> Option<u32> {
        self.by_sequence.find(sequence, |slot| self.jobs[slot].sequence)
    }

    /// Finds a job. A given id is looked up in its queue; a generated one leads to its job by itself.
    pub(crate) fn find(&self, job: &JobRef) -> Option<u32> {
        let queue = match &job.queue {
            None => None,
            Some(name) => Some(*self.queue_index.get(name)?),
        };
        if let Some((shard, sequence)) = job.id.parts()
            && shard == self.id
            && let Some(slot) = self.slot_of(sequence)
        {
            let found = &self.jobs[slot];
            if queue.is_none_or(|queue| queue == found.queue) && found.id(self.id) == job.id {
                return Some(slot);
            }
        }
        self.slot_of(*self.by_given_id.get(&(queue?, job.id.clone()))?)
    }

    pub(crate) fn known_job(&self, job: &JobRef) -> Result<u32, Reject> {
        self.find(job).ok_or_else(|| Reject::UnknownJob { id: job.id.to_compact_string() })
    }

    /// The active job that this lease holds, or why it holds nothing.
    pub(crate) fn leased(&self, lease: &model::LeaseRef) -> Result<u32, Reject> {
        let slot = self.known_job(&lease.job)?;
        let job = &self.jobs[slot];
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::AcceptStaleToken) && job.state == State::Active {
            return Ok(slot);
        }
        let id = || lease.job.id.to_compact_string();
        match job.state {
            State::Active if job.token() == lease.token => Ok(slot),
            State::Cancelled if job.token() == lease.token => Err(Reject::Cancelled { id: id() }),
            _ => Err(Reject::StaleLease { id: id(), token: lease.token }),
        }
    }

    /// The slots of named jobs, each of which must pass `check`: all or none.
    pub(crate) fn select(
        &self,
        jobs: &[JobRef],
        check: impl Fn(&Job) -> Result<(), &'static str>,
    ) -> Result<Vec<u32>, Reject> {
        if jobs.len() > limits::SELECTION_MAX {
            return Err(Reject::TooMany {
                what: "jobs named in one call",
                limit: limits::SELECTION_MAX as u64,
            });
        }
        let (mut slots, mut seen) = (Vec::with_capacity(jobs.len()), BTreeSet::new());
        for job in jobs {
            let slot = self.known_job(job)?;
            let found = &self.jobs[slot];
            check(found).map_err(|wanted| Reject::WrongState {
                id: job.id.to_compact_string(),
                state: found.state,
                wanted,
            })?;
            if seen.insert(slot) {
                slots.push(slot);
            }
        }
        Ok(slots)
    }

    /// A hash of the whole state. Two shards that hash alike hold the same jobs, queues, keys and counters.
    ///
    /// It adds up the hashes of all records as the checkpoint would write them, so it depends on no order in memory.
    pub fn state_hash(&self) -> u128 {
        let mut total: u128 = 0;
        self.each_record(&mut |key, value| {
            let mut record = Vec::with_capacity(key.len() + value.len() + 4);
            codec::put_bytes(&mut record, key);
            record.extend_from_slice(value);
            total = total.wrapping_add(xxhash_rust::xxh3::xxh3_128(&record));
        });
        total
    }

    /// The keys, printable, of the records in which two states differ: for whoever must find out why their hashes do.
    pub fn differences(&self, other: &Shard) -> Vec<String> {
        let records = |shard: &Shard| {
            let mut records = BTreeSet::new();
            shard.each_record(&mut |key, value| {
                records.insert((key.to_vec(), value.to_vec()));
            });
            records
        };
        let (mine, theirs) = (records(self), records(other));
        let keys: BTreeSet<_> = mine.symmetric_difference(&theirs).map(|(key, _)| key).collect();
        keys.into_iter().map(|key| key.escape_ascii().to_string()).collect()
    }
}
