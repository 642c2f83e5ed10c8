//! The driver on threads: one owns the shard, one writes the log under load, one writes checkpoints, one reads bodies.
//!
//! ```text
//! callers ──► inbox ──► shard thread ──sealed──► log thread
//!               ▲         │  │  └──snapshot──► checkpoint thread
//!               │         │  └──tasks──► body thread
//!               └─────────┴── written, stored, loaded
//! ```

mod body_thread;
mod clock;
mod gate;
mod manual;
mod pulse;
mod revocations;
mod shard_thread;
mod threads;

use crate::{
    answer::{Answer, CallError, Poison, Scarce, Stats},
    backup::Moment,
    driver::{MEMORY_FULL_MS, Packed, Sealed, Snapshot, Ticket},
    error::OpenError,
    feed::{Events, Feed},
    options::Options,
    recover::{Recovered, recover},
    writer::is_new_work,
};
use body_thread::Loaded;
use gate::Gate;
use kit::{Durability, Millis, Timestamp};
use manual::Machine;
use millpond_core::{ListQuery, Shard};
use model::{Actor, Command, DispatchedJob, Envelope, EventId, JobRef, JobView, QueueName, Reply, State};
pub use pulse::Health;
use pulse::Pulse;
use revocations::Revocations;
pub use revocations::Revoked;
use shard_thread::{ShardThread, jobs_of};
use std::{
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use storage::{Checkpoints, Frozen, Log, at_rest::Encryption};
use tokio::sync::oneshot;

/// How long the drop of the last handle waits for the last flush.
const DROP_WAIT: Duration = Duration::from_secs(5);

type Outcome = Result<Answer, CallError>;

/// Who waits for an answer.
pub(crate) struct Caller(oneshot::Sender<Outcome>);

impl Ticket for Caller {
    fn gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// What reaches the shard thread.
pub(crate) enum Message {
    Call {
        packed: Packed,
        level: Durability,
        caller: Caller,
    },
    Fetch {
        packed: Packed,
        level: Durability,
        caller: Caller,
        number: u64,
        wait_ms: Millis,
    },
    Push {
        packed: Packed,
        level: Durability,
        caller: Caller,
        number: u64,
        wait_ms: Millis,
    },
    Withdraw(u64),
    /// Nobody is to wait for jobs or room any more.
    EndWaits,
    Producers {
        queue: QueueName,
        caller: oneshot::Sender<u64>,
    },
    HandBack(Vec<DispatchedJob>),
    /// Somebody wants to hear events.
    Listen,
    Read(Box<dyn FnOnce(&Shard) + Send>),
    View {
        job: JobRef,
        caller: oneshot::Sender<Result<Option<JobView>, CallError>>,
    },
    Written(Sealed<Caller>),
    Stored(Snapshot, bool),
    /// The newest checkpoint, once it holds everything up to now.
    Freeze(oneshot::Sender<Result<Box<dyn Frozen>, CallError>>),
    Loaded(Loaded),
    Failed(Poison),
    Stop {
        until: Instant,
        checkpoint: bool,
        done: oneshot::Sender<Result<(), CallError>>,
    },
}

/// What callers and threads both see.
pub(crate) struct Shared {
    gate: Gate,
    stopping: AtomicBool,
    /// Somebody who watches the process's memory says that there is too little.
    short_of_memory: AtomicBool,
    poison: OnceLock<Poison>,
    /// A body that cannot be read.
    damage: OnceLock<String>,
    stats: Mutex<Stats>,
    feed: Arc<Feed>,
    revocations: Revocations,
    pulse: Pulse,
    /// Given to fetches and pushes, in the order of their arrival.
    numbers: AtomicU64,
}

impl Shared {
    fn new(recovered: &Recovered<Caller>, options: &Options) -> Self {
        Self {
            gate: Gate::new(options.pending_max, options.pending_bytes_max),
            stopping: AtomicBool::new(false),
            short_of_memory: AtomicBool::new(false),
            poison: OnceLock::new(),
            damage: OnceLock::new(),
            stats: Mutex::new(recovered.driver.stats()),
            feed: Arc::new(Feed::new()),
            revocations: Revocations::new(recovered.driver.shard().position()),
            pulse: Pulse::new(),
            numbers: AtomicU64::new(0),
        }
    }

    /// Why there was no answer.
    fn silence(&self) -> CallError {
        match self.poison.get() {
            Some(reason) => CallError::unknown(reason),
            None if self.stopping.load(Ordering::Acquire) => {
                CallError::unknown("the pond stopped before it answered")
            }
            None => CallError::unknown("the shard's thread ended; restart"),
        }
    }
}

/// A running pond. Cheap to clone. [`Handle::stop`] ends it in order; so does dropping the last clone, without a checkpoint.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// Who takes messages.
enum Inbox {
    /// The shard's thread.
    Thread(mpsc::Sender<Message>),
    /// Whoever sends them.
    Here(Box<Mutex<Machine>>),
}

impl Inbox {
    /// Fails when the thread has ended.
    fn send(&self, message: Message) -> Result<(), ()> {
        match self {
            Self::Thread(sender) => sender.send(message).map_err(drop),
            Self::Here(machine) => {
                machine.lock().unwrap_or_else(PoisonError::into_inner).take(message);
                Ok(())
            }
        }
    }
}

/// The clock of a [`Handle::manual`] node.
#[derive(Clone)]
pub struct ManualClock {
    inner: Arc<Inner>,
}

impl ManualClock {
    /// What it shows.
    pub fn now(&self) -> Timestamp {
        self.with(|machine| machine.now())
    }

    /// Moves it forward to `now`. What falls due by then is done, in one go.
    pub fn set(&self, now: Timestamp) {
        self.with(|machine| machine.set(now));
    }

    /// When a job next changes by itself, or a schedule fires.
    pub fn next_move(&self) -> Option<Timestamp> {
        self.with(|machine| machine.next_move())
    }

    fn with<T>(&self, run: impl FnOnce(&mut Machine) -> T) -> T {
        match &self.inner.inbox {
            Inbox::Here(machine) => run(&mut machine.lock().unwrap_or_else(PoisonError::into_inner)),
            Inbox::Thread(_) => unreachable!("this clock was made with its machine"),
        }
    }
}

struct Inner {
    shared: Arc<Shared>,
    inbox: Inbox,
    /// Closed when every thread has ended and the directory is free.
    ended: Mutex<mpsc::Receiver<()>>,
    shard_thread: std::thread::ThreadId,
    /// How the directory is encrypted, and its id; `None` for a pond without one.
    kept: Option<Kept>,
}

/// What is known of a data directory.
struct Kept {
    encryption: Option<Encryption>,
    directory: u64,
}

impl Handle {
    /// Opens the pond in `dir`, or starts one there if the directory is empty or missing.
    pub fn open(dir: &Path, options: Options) -> Result<Handle, OpenError> {
        let started = Instant::now();
        let (log, checkpoints) = storage::open_local(dir, &options.local())?;
        let encryption = checkpoints.encryption(crate::SHARD)?;
        let kept = Kept { encryption, directory: checkpoints.directory() };
        Self::start(Box::new(log), Box::new(checkpoints), &options, started, Some(kept))
    }

    /// A pond that forgets everything when it ends, and keeps no durability above `memory`.
    pub fn in_memory(options: Options) -> Result<Handle, OpenError> {
        let log = storage::log::memory::MemoryLog::new();
        let checkpoints = storage::checkpoints::memory::MemoryCheckpoints::new();
        Self::start(Box::new(log), Box::new(checkpoints), &options, Instant::now(), None)
    }

    /// A pond over any log and checkpoints that belong together.
    pub fn over(
        log: Box<dyn Log>,
        checkpoints: Box<dyn Checkpoints>,
        options: Options,
    ) -> Result<Handle, OpenError> {
        Self::start(log, checkpoints, &options, Instant::now(), None)
    }

    fn start(
        log: Box<dyn Log>,
        checkpoints: Box<dyn Checkpoints>,
        options: &Options,
        started: Instant,
        kept: Option<Kept>,
    ) -> Result<Handle, OpenError> {
        let mut recovered: Recovered<Caller> = recover(log, checkpoints, options)?;
        recovered.driver.stats_mut().recovery_ms =
            u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let shared = Arc::new(Shared::new(&recovered, options));
        let (inbox, messages) = mpsc::channel();
        let (ended_sender, ended) = mpsc::channel::<()>();
        let parts = (recovered, shared.clone(), inbox.clone(), messages);
        let options = options.clone();
        let thread = threads::spawn("shard", move || {
            let (recovered, shared, inbox, messages) = parts;
            ShardThread::run(recovered, &options, shared, inbox, messages);
            drop(ended_sender);
        })?;
        let inner = Inner {
            shared,
            inbox: Inbox::Thread(inbox),
            ended: Mutex::new(ended),
            shard_thread: thread.thread().id(),
            kept,
        };
        Ok(Handle { inner: Arc::new(inner) })
    }

    /// How the checkpoint in the directory was encrypted when the pond was opened; `None` if there was none.
    pub fn encryption(&self) -> Option<&Encryption> {
        self.inner.kept.as_ref()?.encryption.as_ref()
    }

    /// A pond in memory without threads: calls are answered where they are made, and time passes when its clock is moved. Every
    /// level of durability is taken for `memory`.
    pub fn manual(options: &Options, now: Timestamp) -> Result<(Handle, ManualClock), OpenError> {
        let log = storage::log::memory::MemoryLog::new();
        let checkpoints = storage::checkpoints::memory::MemoryCheckpoints::new();
        let recovered: Recovered<Caller> = recover(Box::new(log), Box::new(checkpoints), options)?;
        let shared = Arc::new(Shared::new(&recovered, options));
        let machine = Machine::new(recovered, shared.clone(), now);
        let (_, ended) = mpsc::channel();
        let inner = Arc::new(Inner {
            shared,
            inbox: Inbox::Here(Box::new(Mutex::new(machine))),
            ended: Mutex::new(ended),
            shard_thread: std::thread::current().id(),
            kept: None,
        });
        Ok((Handle { inner: inner.clone() }, ManualClock { inner }))
    }

    /// Has a command logged at `level` or better, applied, and answered.
    pub async fn call(&self, envelope: Envelope, level: Durability) -> Result<Answer, CallError> {
        self.inner.check()?;
        self.inner.check_memory(&envelope.command)?;
        let packed = Packed::new(envelope)?;
        self.ask(None, |caller| Message::Call { packed, level, caller }).await
    }

    /// The same for a push that may wait for room where a full queue lets its producers wait: up to `wait`, or, without one, for as long
    /// as the future lives. Dropping the future withdraws the wait.
    pub async fn push(
        &self,
        push: Envelope,
        wait: Option<Duration>,
        level: Durability,
    ) -> Result<Answer, CallError> {
        self.inner.check()?;
        self.inner.check_memory(&push.command)?;
        let packed = Packed::new(push)?;
        let number = self.inner.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let wait_ms = wait.map_or(Millis::MAX, millis);
        let message = |caller| Message::Push { packed, level, caller, number, wait_ms };
        self.ask(Some(number), message).await
    }

    /// How many pushes wait for room in a queue.
    pub async fn producers(&self, queue: QueueName) -> Result<u64, CallError> {
        self.inner.check()?;
        let (caller, receiver) = oneshot::channel();
        self.inner.send(0, Message::Producers { queue, caller })?;
        receiver.await.map_err(|_| self.inner.shared.silence())
    }

    /// From now on no fetch and no push waits, and those that do are answered: fetches with nothing, pushes with
    /// [`CallError::Stopping`].
    pub fn end_waits(&self) {
        // If the thread has ended, so have the waits.
        let _ = self.inner.inbox.send(Message::EndWaits);
    }

    /// Leases up to `max` jobs; waits up to `wait` (at most [`Options::wait_ms_max`]) for the first. Bodies are always present in
    /// what it returns. Dropping the future withdraws the wait, and hands back what was leased for it.
    pub async fn fetch(
        &self,
        actor: Actor,
        queues: Vec<QueueName>,
        max: u32,
        lease_ms: Millis,
        wait: Duration,
        level: Durability,
    ) -> Result<Vec<DispatchedJob>, CallError> {
        let command = Command::Fetch { queues, max, lease_ms };
        self.fetch_as(Envelope { actor, idempotency_key: None, command }, wait, level).await
    }

    /// The same for a fetch that is put together already, and may have an idempotency key: then a repeated call gets the jobs of the
    /// first whose leases are still held.
    pub async fn fetch_as(
        &self,
        fetch: Envelope,
        wait: Duration,
        level: Durability,
    ) -> Result<Vec<DispatchedJob>, CallError> {
        self.inner.check()?;
        let packed = Packed::new(fetch)?;
        let number = self.inner.shared.numbers.fetch_add(1, Ordering::Relaxed);
        let wait_ms = millis(wait);
        let message = |caller| Message::Fetch { packed, level, caller, number, wait_ms };
        match self.ask(Some(number), message).await?.reply {
            Reply::Fetched(jobs) => Ok(jobs),
            _ => Err(CallError::unknown("a fetch got another command's answer")),
        }
    }

    /// Runs a read on the shard's own thread, after everything answered before. Keep it short: nothing else happens meanwhile.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        self.inner.check()?;
        let (sender, receiver) = oneshot::channel();
        let run = Box::new(move |shard: &Shard| {
            // Whoever asked may have left.
            let _ = sender.send(read(shard));
        });
        self.inner.send(0, Message::Read(run))?;
        receiver.await.map_err(|_| self.inner.shared.silence())
    }

    /// The jobs of a queue in a state, at most 1,000; without bodies that are on disk.
    pub async fn jobs(&self, queue: QueueName, state: State) -> Result<Vec<JobView>, CallError> {
        let query = ListQuery { state: Some(state), limit: 1_000, ..ListQuery::default() };
        self.read(move |shard| shard.list(&queue, &query).map(|page| page.jobs).unwrap_or_default()).await
    }

    /// A job with its body, also if that is on disk.
    pub async fn job(&self, job: JobRef) -> Result<Option<JobView>, CallError> {
        self.inner.check()?;
        let (caller, receiver) = oneshot::channel();
        self.inner.send(0, Message::View { job, caller })?;
        receiver.await.map_err(|_| self.inner.shared.silence())?
    }

    /// The pond as it is now, to be saved while it goes on: see [`Moment`]. Everything that was answered before is in it. A checkpoint is
    /// written first if there was a change since the last one. `None` for a pond that keeps nothing in a directory.
    ///
    /// As long as the moment lives, the directory keeps what was replaced since, and cannot be opened again after a stop.
    pub async fn moment(&self) -> Result<Option<Moment>, CallError> {
        self.inner.check()?;
        let Some(Kept { directory, .. }) = self.inner.kept else { return Ok(None) };
        let (caller, receiver) = oneshot::channel();
        self.inner.send(0, Message::Freeze(caller))?;
        let frozen = receiver.await.map_err(|_| self.inner.shared.silence())??;
        Ok(Some(Moment { frozen, directory }))
    }

    /// Everything that happens from now on, or behind the event `after`. A reader that falls behind what is remembered
    /// ([`crate::EVENTS_MAX`] events, [`crate::EVENTS_BYTES_MAX`] bytes) is told so with [`crate::Gone`].
    pub fn events(&self, after: Option<EventId>) -> Events {
        let (events, begin) = Events::new(self.inner.shared.feed.clone(), after);
        if begin && self.inner.inbox.send(Message::Listen).is_err() {
            self.inner.shared.feed.close();
        }
        events
    }

    /// What `worker` lost behind the log position `after`, which is that of the answer before; waits up to `wait` for the first.
    /// Without a position it answers at once with one to begin at, and with [`Revoked::missed`].
    pub async fn revoked(&self, worker: &Actor, after: Option<u64>, wait: Duration) -> Revoked {
        let revocations = &self.inner.shared.revocations;
        match after {
            Some(after) => revocations.next(worker, after, wait).await,
            None => Revoked { leases: Vec::new(), position: revocations.position(), missed: true },
        }
    }

    /// What the node did so far.
    pub fn stats(&self) -> Stats {
        let mut stats = self.inner.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stats.poisoned = self.inner.shared.poison.get().is_some();
        stats
    }

    /// `None` while healthy; otherwise why not, in words.
    pub fn unready(&self) -> Option<String> {
        let shared = &self.inner.shared;
        if let Some(reason) = shared.poison.get() {
            return Some(format!("the log failed: {reason}"));
        }
        if let Some(damage) = shared.damage.get() {
            return Some(damage.clone());
        }
        if shared.stopping.load(Ordering::Acquire) {
            return Some("stopping".into());
        }
        let full = || self.stats().disk_full.then(|| "the disk is full: new work is refused".into());
        self.health().slow().or_else(full)
    }

    /// From now on, new work is refused because the process is `short` of memory, or taken again. The node does so by its own account
    /// ([`Options::held_bytes_max`]); this is for whoever sees what else the process uses.
    pub fn short_of_memory(&self, short: bool) {
        self.inner.shared.short_of_memory.store(short, Ordering::Relaxed);
    }

    /// What the threads are at, and for how long.
    pub fn health(&self) -> Health {
        self.inner.shared.pulse.health()
    }

    /// Refuses new calls, answers those under way (waiting fetches with nothing), checkpoints, flushes, closes. What is not done at
    /// the deadline is left to the next start, which replays the log. When this returns, the directory is free.
    pub async fn stop(&self, deadline: Duration) -> Result<(), CallError> {
        self.inner.check()?;
        if self.inner.shared.stopping.swap(true, Ordering::AcqRel) {
            return Err(CallError::Stopping);
        }
        let until = Instant::now() + deadline;
        let (done, receiver) = oneshot::channel();
        let stop = Message::Stop { until, checkpoint: true, done };
        self.inner.inbox.send(stop).map_err(|_| self.inner.shared.silence())?;
        receiver.await.map_err(|_| self.inner.shared.silence())?
    }

    async fn ask(
        &self,
        number: Option<u64>,
        message: impl FnOnce(Caller) -> Message,
    ) -> Result<Answer, CallError> {
        let (sender, receiver) = oneshot::channel();
        let message = message(Caller(sender));
        let size = match &message {
            Message::Call { packed, .. } | Message::Push { packed, .. } => packed.len(),
            _ => 0,
        };
        self.inner.send(size, message)?;
        let mut waiting = Waiting { inner: &self.inner, receiver, number, answered: false };
        let outcome = (&mut waiting.receiver).await;
        waiting.answered = true;
        outcome.unwrap_or_else(|_| Err(self.inner.shared.silence()))
    }
}

fn millis(wait: Duration) -> Millis {
    Millis::try_from(wait.as_millis()).unwrap_or(Millis::MAX)
}

impl Inner {
    fn check(&self) -> Result<(), CallError> {
        if let Some(reason) = self.shared.poison.get() {
            return Err(CallError::unknown(reason));
        }
        if self.shared.stopping.load(Ordering::Acquire) { Err(CallError::Stopping) } else { Ok(()) }
    }

    fn check_memory(&self, command: &Command) -> Result<(), CallError> {
        if self.shared.short_of_memory.load(Ordering::Relaxed) && is_new_work(command) {
            return Err(CallError::Overloaded { scarce: Scarce::Memory, retry_after_ms: MEMORY_FULL_MS });
        }
        Ok(())
    }

    /// Sends a call to the shard thread, if the inbox has room for it.
    fn send(&self, size: usize, message: Message) -> Result<(), CallError> {
        self.shared.gate.enter(size)?;
        // Nobody has seen the call, so nothing can have happened.
        self.inbox.send(message).map_err(|_| match self.shared.poison.get() {
            Some(reason) => CallError::unknown(reason),
            None => CallError::Stopping,
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        let (done, _) = oneshot::channel();
        let stop = Message::Stop { until: Instant::now() + DROP_WAIT, checkpoint: false, done };
        if self.inbox.send(stop).is_ok() && std::thread::current().id() != self.shard_thread {
            let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            // Closing is the signal: so that whoever opens the directory next finds it free.
            let _ = ended.recv_timeout(DROP_WAIT);
        }
    }
}

/// A caller that waits. Dropped early, it sees to it that no leased job is lost with it, and that nothing waits in its name.
struct Waiting<'a> {
    inner: &'a Inner,
    receiver: oneshot::Receiver<Outcome>,
    number: Option<u64>,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        self.receiver.close();
        let message = match self.receiver.try_recv() {
            Ok(Ok(Answer { reply: Reply::Fetched(jobs), .. })) if !jobs.is_empty() => Message::HandBack(jobs),
            Ok(_) => return,
            Err(_) => match self.number {
                Some(number) => Message::Withdraw(number),
                None => return,
            },
        };
        // If the thread has ended, the leases end by themselves.
        let _ = self.inner.inbox.send(message);
    }
}
