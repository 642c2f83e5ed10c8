//! The driver of one shard, step by step: no threads, no clocks, no I/O of its own.
//!
//! ```text
//! offer, push, fetch ──► pending ──► seal ──► Sealed ──► Writer::write ──► commit ──► answers, effects
//!                           ▲                                                │
//!                           └────── woken fetches, pushes with room ◄────────┘
//! ```
//!
//! A batch is applied only after the log has it at the strongest level that one of its callers asked for, and batches are applied
//! in the order in which they were sealed. Whoever drives may seal the next batch while the last one is being written.

use crate::{
    answer::{Answer, CallError, Poison, Scarce, Stats},
    batch,
    options::Options,
    producers::{Parked, Producers},
    waiters::{Waiter, Waiters, fetch_of},
    writer::is_new_work,
};
use kit::{Durability, Millis, Timestamp};
use millpond_core::{Effects, Growth, NewBody, Shard, Unread};
use model::{
    Actor, Command, DispatchedJob, Effect, Envelope, LeaseRef, NewJob, Outcome, QueueName, Reject, Reply,
    Settlement, codec, limits,
};
use std::{collections::VecDeque, mem};
use storage::Mark;

/// Commands in one batch.
const BATCH_COMMANDS_MAX: usize = 8_192;
/// Bytes of commands in one batch, unless its only command is larger.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Jobs whose bodies are looked at in one go, for an operation.
const UNREAD_JOBS_MAX: usize = 500;
/// The same, in bytes.
const UNREAD_BYTES_MAX: u64 = 1 << 20;
/// Queues that one command brings jobs to, in which waiting fetches follow it at once; in others they hear of the jobs when they are there.
const FOLLOWED_QUEUES_MAX: usize = 8;
/// After the disk refused even a tick, or which bodies an operation chose, the next is tried this much later.
const OWN_RETRY_MS: Millis = 200;
/// A checkpoint that found the disk full is tried again this much later.
const CHECKPOINT_RETRY_MS: Millis = 1_000;
/// When an overloaded caller should come back.
const OVERLOADED_MS: Millis = 100;
/// When somebody whose work does not fit in the memory should come back.
pub(crate) const MEMORY_FULL_MS: Millis = 1_000;
/// A command that waits is there as it was read, encoded, and in its batch.
const COPIES: u64 = 3;
/// About what a job takes beside its body, with its places in the tables and what happened to it.
const JOB_BYTES: u64 = 400;
/// About what a changed record takes beyond its bytes while a checkpoint is being made of it: as key and value here, and twice in the store.
const RECORD_BYTES: u64 = 300;

/// Who asked, as whoever drives knows them: gets its answer back with the ticket.
pub trait Ticket {
    /// True if nobody waits for the answer any more.
    fn gone(&self) -> bool {
        false
    }
}

impl Ticket for u64 {}

/// An answer, and whose it is.
pub type Answered<T> = (T, Result<Answer, CallError>);

/// A command together with its bytes for the log. Made by the caller's thread, so that the shard's thread need not encode.
#[derive(Debug)]
pub struct Packed {
    pub(crate) envelope: Envelope,
    pub(crate) bytes: Vec<u8>,
}

impl Packed {
    /// Encodes a command; refuses one beyond [`limits::COMMAND_BYTES_MAX`].
    pub fn new(envelope: Envelope) -> Result<Self, Reject> {
        let packed = Self::again(envelope);
        if packed.len() > limits::COMMAND_BYTES_MAX {
            let limit = limits::COMMAND_BYTES_MAX as u64;
            return Err(Reject::TooMany { what: "the size of a command in bytes", limit });
        }
        Ok(packed)
    }

    /// The same for one that was small enough before.
    fn again(envelope: Envelope) -> Self {
        let mut bytes = Vec::new();
        codec::encode_envelope(&envelope, &mut bytes);
        Self { envelope, bytes }
    }

    /// Bytes in the log.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: a command has at least its kind.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Who hears the outcome of a command.
#[derive(Debug)]
enum Asker<T> {
    /// Somebody who called.
    Caller(T),
    /// Somebody who may go on waiting if the fetch brings nothing: number and end of the wait.
    Fetcher { ticket: T, number: u64, until: Timestamp },
    /// Somebody whose push may wait for room: number, end of the wait, and the room that it claims.
    Producer { ticket: T, number: u64, until: Timestamp, claim: Vec<Growth> },
    /// Nobody: a tick, or jobs handed back.
    Node,
}

/// One command of a batch.
#[derive(Debug)]
pub(crate) struct Call<T> {
    packed: Packed,
    asker: Asker<T>,
    level: Durability,
    /// Bytes it counts for while it is pending.
    size: usize,
    /// Where it ends in the batch's payload.
    pub(crate) end: usize,
    /// The disk was too full for it: it is not in the log.
    pub(crate) left_out: bool,
}

impl<T> Call<T> {
    pub(crate) fn command(&self) -> &Command {
        &self.packed.envelope.command
    }
}

/// A batch on its way through the log. An empty one only flushes.
#[derive(Debug)]
pub struct Sealed<T> {
    pub(crate) time: Timestamp,
    /// What the clock said, which may be less.
    pub(crate) now: Timestamp,
    pub(crate) level: Durability,
    pub(crate) calls: Vec<Call<T>>,
    pub(crate) payload: Vec<u8>,
    pub(crate) outcome: Written,
}

impl<T> Sealed<T> {
    /// Commands in it.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// True if it only flushes what earlier batches left unflushed.
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Bytes of its record.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// The level it will be flushed to.
    pub fn level(&self) -> Durability {
        self.level
    }
}

/// What became of a sealed batch.
#[derive(Debug)]
pub(crate) enum Written {
    /// Nobody has written it.
    NotYet,
    /// The log has what was not left out.
    Yes {
        /// Position of its first command.
        first: u64,
        /// Its record, if anything was appended.
        index: Option<u64>,
        /// The level everything up to it has reached.
        durability: Durability,
        /// Whether the disk has no room for new work.
        full: bool,
    },
    /// Nobody knows.
    Unknown(Poison),
}

/// What a committed batch brings.
#[derive(Debug)]
pub struct Committed<T> {
    /// Answers to callers.
    pub answers: Vec<Answered<T>>,
    /// What happened, in order.
    pub effects: Vec<Effect>,
}

/// What a checkpoint must store: the records that changed, and the log record that they reach to.
#[derive(Debug)]
pub struct Snapshot {
    /// Tells the shard which changes were stored.
    pub generation: u64,
    /// The log record and the position it reaches to.
    pub mark: Mark,
    /// Keys with their new values, or `None` for deleted ones.
    pub records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// Bodies to be written.
    pub bodies: Vec<NewBody>,
}

/// One shard, what waits for it, and what is on its way.
pub struct Driver<T> {
    shard: Shard,
    effects: Effects,
    options: Options,
    strongest: Durability,
    pending: VecDeque<Call<T>>,
    /// Commands and bytes that have no answer yet, sealed ones included.
    unanswered: usize,
    unanswered_bytes: usize,
    waiters: Waiters<T>,
    producers: Producers<T>,
    /// Time of the newest sealed batch.
    time: Timestamp,
    tick_sealed: bool,
    /// Bodies are being looked at for an operation, or what came of it is on its way.
    choosing: bool,
    /// By the clock: the full disk did not take work of its own; not before then is it tried again.
    own_work_at: Timestamp,
    /// When what was acknowledged below `disk` must be flushed.
    flush_due: Option<Timestamp>,
    dirty_since: Option<Timestamp>,
    snapshot_taken: bool,
    /// About what the snapshot takes that is being stored, or waits for room on the disk.
    snapshot_bytes: u64,
    /// A snapshot that found no room, and when it is tried again.
    unstored: Option<(Timestamp, Snapshot)>,
    /// The record of the last applied batch.
    index: u64,
    stopping: bool,
    poison: Option<Poison>,
    buffer: Vec<u8>,
    stats: Stats,
}

impl<T: Ticket> Driver<T> {
    /// A driver for a shard that holds everything up to the log record `index`.
    pub(crate) fn new(shard: Shard, index: u64, strongest: Durability, options: &Options) -> Self {
        let time = shard.time();
        Self {
            dirty_since: (shard.dirty() > 0).then_some(time),
            shard,
            effects: Effects::default(),
            options: options.clone(),
            strongest,
            pending: VecDeque::new(),
            unanswered: 0,
            unanswered_bytes: 0,
            waiters: Waiters::default(),
            producers: Producers::default(),
            time,
            tick_sealed: false,
            choosing: false,
            own_work_at: Timestamp::ZERO,
            flush_due: None,
            snapshot_taken: false,
            snapshot_bytes: 0,
            unstored: None,
            index,
            stopping: false,
            poison: None,
            buffer: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// The state.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The state, for what does not change it in the sense of the log: warming and evicting bodies.
    pub fn shard_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }

    /// The totals so far.
    pub fn stats(&self) -> Stats {
        Stats {
            pending: self.unanswered as u64,
            waiting_fetches: self.waiters.len() as u64,
            waiting_pushes: self.producers.len() as u64,
            poisoned: self.poison.is_some(),
            held_bytes: self.held_bytes(),
            shard: self.shard.stats(),
            ..self.stats.clone()
        }
    }

    /// The totals, for what others count.
    pub(crate) fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn held_bytes(&self) -> u64 {
        let shard = self.shard.stats();
        let waiting = COPIES * self.unanswered_bytes as u64 + self.producers.bytes() as u64;
        // What has changed will be in memory a second time, at the latest when the checkpoint under way is stored.
        let checkpoints = self.snapshot_bytes + self.next_snapshot_bytes();
        shard.jobs * JOB_BYTES + shard.resident_body_bytes + checkpoints + waiting
    }

    fn next_snapshot_bytes(&self) -> u64 {
        self.shard.dirty_bytes() + self.shard.dirty() as u64 * RECORD_BYTES
    }

    /// Why nothing is taken any more.
    pub fn poison(&self) -> Option<&Poison> {
        self.poison.as_ref()
    }

    /// Commands that are not sealed yet.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether somebody wants to hear of every change.
    pub fn want_changes(&mut self, want: bool) {
        self.effects.want_changes = want;
    }

    /// Takes a command. Answers at once only to refuse it.
    pub fn offer(&mut self, ticket: T, packed: Packed, level: Durability) -> Option<Answered<T>> {
        let tick = matches!(packed.envelope.command, Command::Tick);
        if let Err(error) = self.admit(&packed, level, tick) {
            return Some((ticket, Err(error)));
        }
        self.enqueue(packed, Asker::Caller(ticket), level);
        None
    }

    /// Takes a fetch, which waits if there is no work and it may. Answers at once to refuse it, or with nothing if there is no
    /// work and no wait.
    pub fn fetch(&mut self, waiter: Waiter<T>, now: Timestamp) -> Option<Answered<T>> {
        if let Err(error) = self.admit(&waiter.packed, waiter.level, false) {
            return Some((waiter.ticket, Err(error)));
        }
        let waiter = Waiter { until: waiter.until.min(now + self.options.wait_ms_max), ..waiter };
        // What the state machine would refuse is shown to it at once.
        let (queues, max) = fetch_of(&waiter.packed);
        let sound = (1..=limits::BATCH_MAX).contains(&(max as usize))
            && (1..=limits::FETCH_QUEUES_MAX).contains(&queues.len());
        let patient = waiter.until > now && !self.stopping;
        // A repeated one has its first answer, whatever waits now.
        let serve = if !sound || waiter.packed.envelope.idempotency_key.is_some() {
            true
        } else if patient {
            queues.iter().any(|queue| self.unclaimed(queue))
        } else {
            self.shard.has_work(queues)
        };
        if serve {
            self.enqueue_fetch(waiter);
        } else if !patient {
            return Some(self.nothing(waiter.ticket, waiter.level));
        } else if self.waiters.len() >= self.options.waiters_max {
            return Some((
                waiter.ticket,
                Err(CallError::Overloaded { scarce: Scarce::Room, retry_after_ms: OVERLOADED_MS }),
            ));
        } else {
            self.waiters.park(waiter);
        }
        None
    }

    /// Takes a push. If a queue is full whose producers wait, so does the push, until then; behind those that came before it, even if
    /// it is smaller. Answers at once to refuse it. What else is there is offered: see [`Driver::offer`].
    pub fn push(&mut self, waiter: Waiter<T>, now: Timestamp) -> Option<Answered<T>> {
        if let Err(error) = self.admit(&waiter.packed, waiter.level, false) {
            return Some((waiter.ticket, Err(error)));
        }
        if self.producers.len() > 0 {
            let growth = self.shard.growth(&waiter.packed.envelope);
            if let Some(by) = growth.iter().find(|by| self.producers.in_line(&by.queue) > 0) {
                let refusal = self.shard.taken(&by.queue);
                let size = waiter.packed.len();
                return self.park(waiter, growth, refusal, size, now);
            }
        }
        let Waiter { number, ticket, packed, level, until } = waiter;
        self.enqueue(packed, Asker::Producer { ticket, number, until, claim: Vec::new() }, level);
        None
    }

    /// How many pushes wait for room in a queue.
    pub fn producers(&self, queue: &QueueName) -> u64 {
        self.producers.in_line(queue)
    }

    /// The push that has waited for room longest.
    pub fn first_producer(&self) -> Option<&Envelope> {
        self.producers.first().map(|parked| &parked.envelope)
    }

    /// Forgets a waiting fetch or push.
    pub fn withdraw(&mut self, number: u64) {
        self.waiters.remove(number);
        if self.producers.remove(number).is_some() {
            self.admit_producers();
        }
    }

    /// Puts jobs back that nobody was there to receive: at once, and without using an attempt.
    pub fn hand_back(&mut self, jobs: &[DispatchedJob]) {
        let back = |job: &DispatchedJob| Settlement {
            lease: LeaseRef {
                job: model::JobRef { queue: Some(job.queue.clone()), id: job.id.clone() },
                token: job.lease_token,
            },
            outcome: Outcome::Snooze { after_ms: 0 },
            push: Vec::new(),
        };
        for jobs in jobs.chunks(limits::BATCH_MAX) {
            let command = Command::Settle { settlements: jobs.iter().map(back).collect() };
            let envelope = Envelope { actor: Actor::new("node"), idempotency_key: None, command };
            // It always fits: a fetch hands out no more than a settle may name. If not, the leases end by themselves.
            if let Ok(packed) = Packed::new(envelope)
                && self.poison.is_none()
            {
                self.enqueue(packed, Asker::Node, Durability::Memory);
            }
        }
    }

    /// Bodies that an operation must know before it can move on; whoever drives looks at them and calls [`Driver::choose`].
    /// `None` if there is nothing to look at now.
    pub fn unread(&mut self, now: Timestamp) -> Option<Unread> {
        if self.unread_due().is_none_or(|due| due > now) || self.stopping {
            return None;
        }
        let unread = self.shard.unread(now, UNREAD_JOBS_MAX, UNREAD_BYTES_MAX)?;
        self.choosing = true;
        Some(unread)
    }

    /// Tells an operation which of the jobs pass its tests.
    pub fn choose(&mut self, unread: Unread, jobs: Vec<u64>) {
        let envelope =
            Envelope { actor: Actor::new("node"), idempotency_key: None, command: unread.choose(jobs) };
        // It always fits: it is a few thousand numbers.
        if let Ok(packed) = Packed::new(envelope)
            && self.poison.is_none()
        {
            self.enqueue(packed, Asker::Node, Durability::Memory);
        }
    }

    fn unread_due(&self) -> Option<Timestamp> {
        if self.choosing || self.poison.is_some() {
            return None;
        }
        self.shard.unread_due().map(|due| due.max(self.own_work_at))
    }

    /// Answers the fetches and refuses the pushes that have waited long enough.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Answered<T>> {
        let mut answers = Vec::new();
        while let Some(waiter) = self.waiters.expired(now) {
            answers.push(self.nothing(waiter.ticket, waiter.level));
        }
        let fetches = answers.len();
        while let Some(Parked { ticket, refusal, .. }) = self.producers.expired(now) {
            answers.push((ticket, Err(CallError::Refused(refusal))));
        }
        if answers.len() > fetches {
            // Who stood behind one that did not fit may fit.
            self.admit_producers();
        }
        answers
    }

    /// From now on no fetch and no push waits; fetches that do are answered with nothing, pushes are refused.
    pub fn stop(&mut self) -> Vec<Answered<T>> {
        self.stopping = true;
        let mut answers = Vec::new();
        while let Some(waiter) = self.waiters.pop() {
            answers.push(self.nothing(waiter.ticket, waiter.level));
        }
        while let Some(parked) = self.producers.pop() {
            answers.push((parked.ticket, Err(CallError::Stopping)));
        }
        answers
    }

    /// When there is something to do next if nobody calls; `None` for never.
    pub fn next_due(&self) -> Option<Timestamp> {
        let tick = if self.tick_sealed { None } else { self.shard.next_due() };
        let tick = tick.map(|due| due.max(self.own_work_at));
        let unread = if self.stopping { None } else { self.unread_due() };
        let waits = [self.waiters.next_deadline(), self.producers.next_deadline()];
        let own = [tick, unread, self.flush_due, self.checkpoint_due()];
        own.into_iter().chain(waits).flatten().min()
    }

    /// Closes the next batch: a tick if something is due, then what is pending, up to a limit. An empty batch means that what
    /// was acknowledged below `disk` must be flushed. `None` if there is nothing to write.
    pub fn seal(&mut self, now: Timestamp) -> Option<Sealed<T>> {
        if self.poison.is_some() {
            return None;
        }
        // The log's time never runs backwards. The clock may, and must not make a wait longer than it was.
        let time = now.max(self.time);
        self.own_work_at = self.own_work_at.min(now + OWN_RETRY_MS);
        let tick = !self.tick_sealed
            && now >= self.own_work_at
            && self.shard.next_due().is_some_and(|due| due <= time);
        let flush = self.flush_due.is_some_and(|due| due <= time);
        if !tick && !flush && self.pending.is_empty() {
            return None;
        }
        self.time = time;
        let mut payload = batch::blank(mem::take(&mut self.buffer));
        let mut calls = Vec::with_capacity(self.pending.len().min(BATCH_COMMANDS_MAX) + 1);
        // Nobody answers for a tick alone or for jobs handed back: they are as safe as the log can make them.
        let asked = |call: &Call<T>| !matches!(call.asker, Asker::Node);
        let mut level = None;
        if tick {
            self.tick_sealed = true;
            self.unanswered += 1;
            calls.push(close(tick_call(), &mut payload));
        }
        while calls.len() < BATCH_COMMANDS_MAX
            && let Some(next) = self.pending.front()
            && (payload.len() + next.packed.len() <= BATCH_BYTES_MAX || calls.len() <= usize::from(tick))
            && let Some(call) = self.pending.pop_front()
        {
            if asked(&call) {
                level = level.max(Some(call.level));
            }
            calls.push(close(call, &mut payload));
        }
        let strongest = self.strongest.min(Durability::Disk);
        let level = if flush { strongest } else { level.unwrap_or(strongest) };
        if level >= strongest {
            self.flush_due = None;
        }
        Some(Sealed { time, now, level, calls, payload, outcome: Written::NotYet })
    }

    /// Applies a batch that was written, and answers its callers. If it could not be written, nobody gets an OK any more: all
    /// who wait, here and later, hear that the outcome is unknown.
    pub fn commit(&mut self, sealed: Sealed<T>) -> Committed<T> {
        let Sealed { time, now, calls, payload, outcome, .. } = sealed;
        let (first, index, durability, full) = match outcome {
            Written::Yes { first, index, durability, full } => (first, index, durability, full),
            Written::Unknown(reason) => return self.fail(calls, reason),
            Written::NotYet => return self.fail(calls, "a batch was not written".into()),
        };
        if self.poison.is_some() || index.is_some() && first != self.shard.position() + 1 {
            return self.fail(calls, "batches were committed out of order".into());
        }
        self.account(index, durability, full, payload.len(), time);
        self.buffer = payload;

        let mut answers = Vec::with_capacity(calls.len());
        // Queues where a fetch took less than it claimed, or that got new jobs.
        let mut stirred: Vec<QueueName> = Vec::new();
        let mut position = first;
        for mut call in calls {
            self.unanswered -= 1;
            self.unanswered_bytes -= call.size;
            let tick = matches!(call.command(), Command::Tick);
            self.tick_sealed &= !tick;
            self.choosing &= !matches!(call.command(), Command::Choose(_));
            let result = if call.left_out {
                if matches!(call.asker, Asker::Node) {
                    self.own_work_at = now + OWN_RETRY_MS;
                }
                Err(CallError::DiskFull)
            } else {
                let reply = self.shard.apply(position, time, &call.packed.envelope, &mut self.effects);
                position += 1;
                self.stats.commands += 1;
                reply
                    .map(|reply| Answer { reply, position: position - 1, durability })
                    .map_err(CallError::Refused)
            };
            self.release(&mut call, &result, &mut stirred);
            answers.extend(self.settle(call, result, time));
        }
        if self.dirty_since.is_none() && self.shard.dirty() > 0 {
            self.dirty_since = Some(time);
        }
        let effects = mem::take(&mut self.effects.list);
        for effect in &effects {
            if let Effect::Available { queue, .. } = effect
                && !stirred.contains(queue)
            {
                stirred.push(queue.clone());
            }
        }
        for queue in &stirred {
            self.wake(queue);
        }
        self.admit_producers();
        Committed { answers, effects }
    }

    /// When the next checkpoint should be taken; `None` while one is being written, or if nothing changed.
    pub fn checkpoint_due(&self) -> Option<Timestamp> {
        if self.snapshot_taken || self.poison.is_some() {
            return None;
        }
        if let Some((retry_at, _)) = &self.unstored {
            return Some(*retry_at);
        }
        let since = self.dirty_since?;
        // Where memory is short, a checkpoint of many small records must not become large either.
        let bytes = match self.options.held_bytes_max {
            0 => self.shard.dirty_bytes(),
            _ => self.next_snapshot_bytes(),
        };
        let large = bytes >= self.options.checkpoint_bytes;
        Some(if large { since } else { since + self.options.checkpoint_ms })
    }

    /// Takes what a checkpoint must store. `None` if nothing changed or the last one is not stored yet.
    pub fn snapshot(&mut self) -> Option<Snapshot> {
        if self.snapshot_taken || self.poison.is_some() {
            return None;
        }
        if let Some((_, snapshot)) = self.unstored.take() {
            self.snapshot_taken = true;
            return Some(snapshot);
        }
        self.dirty_since.take()?;
        self.snapshot_taken = true;
        self.snapshot_bytes = self.next_snapshot_bytes();
        let changes = self.shard.take_changes();
        Some(Snapshot {
            generation: changes.generation,
            mark: Mark { index: self.index, position: changes.position },
            records: changes.records,
            bodies: changes.bodies,
        })
    }

    /// Whether a checkpoint is being written.
    pub fn storing(&self) -> bool {
        self.snapshot_taken
    }

    /// The disk had no room for the checkpoint: the same one is due again a little later.
    pub fn not_stored(&mut self, snapshot: Snapshot, now: Timestamp) {
        self.snapshot_taken = false;
        self.unstored = Some((now + CHECKPOINT_RETRY_MS, snapshot));
    }

    /// The checkpoint is safe: its bodies may leave memory.
    pub fn stored(&mut self, generation: u64, mark: Mark) {
        (self.snapshot_taken, self.snapshot_bytes) = (false, 0);
        self.stats.checkpoints += 1;
        self.stats.checkpoint_position = mark.position;
        self.shard.changes_stored(generation);
    }

    /// Stops for good: everybody who waits hears that the outcome is unknown.
    pub fn fail_all(&mut self, reason: Poison) -> Vec<Answered<T>> {
        self.fail(Vec::new(), reason).answers
    }

    /// Refuses what this node or its log cannot take.
    fn admit(&self, packed: &Packed, level: Durability, always: bool) -> Result<(), CallError> {
        if let Some(reason) = &self.poison {
            return Err(CallError::unknown(reason));
        }
        if level > self.strongest {
            return Err(CallError::TooDurable { wanted: level, strongest: self.strongest });
        }
        let most = self.options.held_bytes_max;
        if most > 0 && is_new_work(&packed.envelope.command) && self.held_bytes() + packed.len() as u64 > most
        {
            return Err(CallError::Overloaded { scarce: Scarce::Memory, retry_after_ms: MEMORY_FULL_MS });
        }
        let room = self.unanswered < self.options.pending_max
            && self.unanswered_bytes + packed.len() <= self.options.pending_bytes_max;
        // One large command must fit somewhere.
        if room || always || self.unanswered == 0 {
            Ok(())
        } else {
            Err(CallError::Overloaded { scarce: Scarce::Room, retry_after_ms: OVERLOADED_MS })
        }
    }

    fn enqueue(&mut self, packed: Packed, asker: Asker<T>, level: Durability) {
        let (queues, max) = fetch_of(&packed);
        self.waiters.claim(queues, u64::from(max));
        let brings = if self.waiters.len() > 0 { jobs_to_come(&packed.envelope.command) } else { Vec::new() };
        let size = packed.len();
        self.unanswered += 1;
        self.unanswered_bytes += size;
        self.pending.push_back(Call { packed, asker, level, size, end: 0, left_out: false });
        for (queue, jobs) in brings {
            self.follow(&queue, jobs);
        }
    }

    /// Sends waiting fetches right behind the command that brings jobs, so that both share a flush: a job that somebody waits for is
    /// handed out as soon as it is safe. One that finds nothing after all waits on in its place.
    fn follow(&mut self, queue: &QueueName, jobs: u64) {
        // A full disk may refuse the jobs, and has no room for fetches in vain.
        let mut left = if self.stats.disk_full { 0 } else { jobs.min(self.shard.welcome(queue)) };
        while left > 0
            && let Some(number) = self.waiters.first(queue)
            && let Some(waiter) = self.waiters.remove(number)
        {
            if !waiter.ticket.gone() {
                left = left.saturating_sub(waiter.max());
                self.enqueue_fetch(waiter);
            }
        }
    }

    fn enqueue_fetch(&mut self, waiter: Waiter<T>) {
        let Waiter { number, ticket, packed, level, until } = waiter;
        self.enqueue(packed, Asker::Fetcher { ticket, number, until }, level);
    }

    /// Whether a queue has jobs that no fetch under way may take.
    fn unclaimed(&self, queue: &QueueName) -> bool {
        self.shard.ready(queue) > self.waiters.claimed(queue)
    }

    /// Turns waiting fetches into commands, first come first served, until the queue's jobs are spoken for.
    fn wake(&mut self, queue: &QueueName) {
        while let Some(number) = self.waiters.first(queue)
            && self.unclaimed(queue)
            && let Some(waiter) = self.waiters.remove(number)
        {
            if !waiter.ticket.gone() {
                self.enqueue_fetch(waiter);
            }
        }
    }

    /// Lets a push wait for room, if it may.
    fn park(
        &mut self,
        waiter: Waiter<T>,
        growth: Vec<Growth>,
        refusal: Reject,
        size: usize,
        now: Timestamp,
    ) -> Option<Answered<T>> {
        let fits = self.producers.len() < self.options.producers_max
            && self.producers.bytes() + size <= self.options.producers_bytes_max;
        if !fits || waiter.until <= now || self.stopping || waiter.ticket.gone() {
            return Some((waiter.ticket, Err(CallError::Refused(refusal))));
        }
        self.producers.park(waiter, growth, refusal, size);
        None
    }

    /// Offers waiting pushes again, first come first served in each queue, as long as there is room for them.
    fn admit_producers(&mut self) {
        if self.producers.len() == 0 || self.poison.is_some() {
            return;
        }
        while let Some((number, parked, claim)) = self.producers.next(|queue| self.shard.room(queue)) {
            if parked.ticket.gone() {
                self.producers.release(&claim);
            } else {
                self.offer_again(number, parked, claim);
            }
        }
    }

    fn offer_again(&mut self, number: u64, parked: Parked<T>, claim: Vec<Growth>) {
        let Parked { ticket, envelope, level, until, .. } = parked;
        let asker = Asker::Producer { ticket, number, until, claim };
        self.enqueue(Packed::again(envelope), asker, level);
    }

    /// Answers a push, or lets it wait for room.
    fn settle_push(
        &mut self,
        waiter: Waiter<T>,
        size: usize,
        result: Result<Answer, CallError>,
        now: Timestamp,
    ) -> Option<Answered<T>> {
        match result {
            Err(CallError::Refused(refusal @ Reject::QueueFull { waits: true, .. })) => {
                let growth = self.shard.growth(&waiter.packed.envelope);
                self.park(waiter, growth, refusal, size, now)
            }
            Ok(answer) => {
                if self.producers.len() > 0
                    && let Some(key) = &waiter.packed.envelope.idempotency_key
                {
                    for (number, parked) in self.producers.repeats(key) {
                        self.offer_again(number, parked, Vec::new());
                    }
                }
                Some((waiter.ticket, Ok(answer)))
            }
            refused => Some((waiter.ticket, refused)),
        }
    }

    /// Ends the claims of a fetch. If it brought something, there may be more for others in the queues that it named.
    fn release(
        &mut self,
        call: &mut Call<T>,
        result: &Result<Answer, CallError>,
        stirred: &mut Vec<QueueName>,
    ) {
        let (queues, max) = fetch_of(&call.packed);
        self.waiters.release(queues, u64::from(max));
        let empty = matches!(result, Ok(Answer { reply: Reply::Fetched(jobs), .. }) if jobs.is_empty());
        if !empty && self.waiters.len() > 0 {
            for queue in queues {
                if !stirred.contains(queue) {
                    stirred.push(queue.clone());
                }
            }
        }
    }

    /// Answers a call, or lets a fetch that brought nothing go on waiting.
    fn settle(
        &mut self,
        call: Call<T>,
        result: Result<Answer, CallError>,
        now: Timestamp,
    ) -> Option<Answered<T>> {
        let Call { packed, asker, level, size, .. } = call;
        match asker {
            Asker::Node => None,
            Asker::Caller(ticket) => Some((ticket, result)),
            Asker::Producer { ticket, number, until, claim } => {
                self.producers.release(&claim);
                self.settle_push(Waiter { number, ticket, packed, level, until }, size, result, now)
            }
            Asker::Fetcher { ticket, number, until } => {
                let empty =
                    matches!(&result, Ok(Answer { reply: Reply::Fetched(jobs), .. }) if jobs.is_empty());
                if !empty || until <= now || self.stopping || ticket.gone() {
                    return Some((ticket, result));
                }
                self.waiters.park(Waiter { number, ticket, packed, level, until });
                None
            }
        }
    }

    fn account(
        &mut self,
        index: Option<u64>,
        durability: Durability,
        full: bool,
        bytes: usize,
        time: Timestamp,
    ) {
        self.stats.disk_full = full;
        if let Some(index) = index {
            self.index = index;
            self.stats.batches += 1;
            self.stats.bytes_logged += bytes as u64;
        }
        if durability >= Durability::Disk {
            self.stats.flushes += 1;
        }
        if durability >= self.strongest.min(Durability::Disk) {
            self.flush_due = None;
        } else if self.flush_due.is_none() {
            self.flush_due = Some(time + self.options.flush_window_ms);
        }
    }

    fn nothing(&self, ticket: T, durability: Durability) -> Answered<T> {
        let answer =
            Answer { reply: Reply::Fetched(Vec::new()), position: self.shard.position(), durability };
        (ticket, Ok(answer))
    }

    fn fail(&mut self, calls: Vec<Call<T>>, reason: Poison) -> Committed<T> {
        let reason = self.poison.get_or_insert(reason).clone();
        let told = |ticket| (ticket, Err(CallError::unknown(&reason)));
        let calls = calls.into_iter().chain(mem::take(&mut self.pending));
        let mut answers: Vec<_> = calls
            .filter_map(|call| match call.asker {
                Asker::Node => None,
                Asker::Caller(ticket) | Asker::Fetcher { ticket, .. } | Asker::Producer { ticket, .. } => {
                    Some(told(ticket))
                }
            })
            .collect();
        while let Some(waiter) = self.waiters.pop() {
            answers.push(told(waiter.ticket));
        }
        while let Some(parked) = self.producers.pop() {
            answers.push(told(parked.ticket));
        }
        Committed { answers, effects: Vec::new() }
    }
}

/// How many jobs a command brings that may start at once, by queue.
fn jobs_to_come(command: &Command) -> Vec<(QueueName, u64)> {
    let mut counts: Vec<(QueueName, u64)> = Vec::new();
    let mut count = |jobs: &[NewJob]| {
        for job in jobs.iter().filter(|job| job.delay_ms == 0 && job.run_at.is_none()) {
            match counts.iter().position(|(queue, _)| *queue == job.queue) {
                Some(place) => counts[place].1 += 1,
                None if counts.len() < FOLLOWED_QUEUES_MAX => counts.push((job.queue.clone(), 1)),
                None => {}
            }
        }
    };
    match command {
        Command::Push { jobs } => count(jobs),
        Command::Settle { settlements } => settlements.iter().for_each(|settled| count(&settled.push)),
        _ => {}
    }
    counts
}

fn tick_call<T>() -> Call<T> {
    let envelope = Envelope { actor: Actor::default(), idempotency_key: None, command: Command::Tick };
    let packed = Packed::again(envelope);
    Call { packed, asker: Asker::Node, level: Durability::Memory, size: 0, end: 0, left_out: false }
}

/// Adds a call's bytes to the payload. Only a fetch that may have to wait again keeps its own copy.
fn close<T>(mut call: Call<T>, payload: &mut Vec<u8>) -> Call<T> {
    payload.extend_from_slice(&call.packed.bytes);
    call.end = payload.len();
    if !matches!(call.asker, Asker::Fetcher { .. }) {
        call.packed.bytes = Vec::new();
    }
    call
}
