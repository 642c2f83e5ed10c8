use super::{Options, Running};
use crate::{
    Counters, JobSource, Reason, SourceError,
    handler::{Reporter, lease_of},
    signal::Cancelled,
};
use kit::Backoff;
use model::{DispatchedJob, LeaseRef, Outcome, Settlement, Until, limits};
use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

/// Repeats of a call to the source wait a random time below this doubling cap.
const SOURCE_BACKOFF: Backoff = Backoff::Exponential { base: 100, cap: 5_000 };

/// Revocations of jobs that are not here yet, or no longer, which are remembered; one that was forgotten shows at the next renewal.
const EARLY_MAX: usize = 256;
/// How long: a fetch that was answered arrives within this, or is of no use.
const EARLY_KEPT: Duration = Duration::from_secs(10);

/// A job that waits for a slot.
pub(super) struct Held {
    pub(super) job: DispatchedJob,
    /// When it arrived.
    pub(super) since: Instant,
    /// When its lease ends, by our own clock and on the safe side.
    pub(super) lease_end: Instant,
    /// When its attempt times out.
    pub(super) deadline: Instant,
}

/// An attempt under way, as the keeper sees it.
pub(super) struct Attempt {
    pub(super) lease: LeaseRef,
    pub(super) cancelled: Cancelled,
    pub(super) renewed: Instant,
    pub(super) lease_end: Instant,
    pub(super) deadline: Instant,
    /// Set when it was called off: the handler is dropped then.
    pub(super) abandon_at: Option<Instant>,
}

impl Attempt {
    pub(super) fn call_off(&mut self, reason: Reason, grace: Duration) {
        if self.abandon_at.is_none() {
            self.abandon_at = Some(Instant::now() + grace);
            self.cancelled.fire(reason);
        }
    }
}

/// An outcome that the source does not know yet.
pub(super) struct Posted {
    pub(super) settlement: Settlement,
    pub(super) lease_end: Instant,
    /// True once a refused outcome was replaced by the refusal itself.
    pub(super) replaced: bool,
}

#[derive(Default)]
pub(super) struct Outbox {
    pub(super) posted: VecDeque<Posted>,
    pub(super) bytes: usize,
}

/// What the tasks of one runtime share.
pub(super) struct Shared<S, H> {
    pub(super) source: Arc<S>,
    pub(super) reporter: Arc<dyn Reporter>,
    pub(super) handler: H,
    pub(super) options: Options,
    pub(super) counters: Counters,
    pub(super) buffer: Mutex<VecDeque<Held>>,
    /// One permit for each job in the buffer.
    pub(super) ready: Semaphore,
    pub(super) slots: Box<[Mutex<Option<Attempt>>]>,
    pub(super) outbox: Mutex<Outbox>,
    /// Wakes the settler.
    pub(super) posted: Notify,
    /// Wakes slots that wait for a full outbox.
    pub(super) settled: Notify,
    /// Wakes the fetcher.
    pub(super) room: Notify,
    /// Wakes the keeper when the first of several jobs starts.
    pub(super) busy: Notify,
    /// Has every lease renewed now.
    pub(super) renew_all: Notify,
    /// Leases that were taken away before their attempts began, oldest first, and how many.
    early: Mutex<VecDeque<(Instant, LeaseRef, Reason)>>,
    early_count: AtomicUsize,
    /// The fetcher is woken when no more jobs than this wait.
    pub(super) low_water: AtomicUsize,
    pub(super) buffered: AtomicUsize,
    /// Of a handler that takes several jobs in one call: those that gather, and how many more may.
    pub(super) gathering: AtomicUsize,
    pub(super) places: AtomicUsize,
    /// Jobs fetched whose outcome the source does not know yet.
    pub(super) in_hand: AtomicU64,
    handed_back: AtomicU64,
    pub(super) closed: Flag,
    pub(super) sealed: Flag,
    pub(super) ended: Flag,
    source_error: Mutex<Option<String>>,
    seed: u64,
}

impl<S: JobSource, H> Shared<S, H> {
    /// With as many slots as jobs may be under way, fetched ones that wait aside.
    pub(super) fn new(source: S, handler: H, mut options: Options, slots: usize) -> Self {
        options.prefetch = options.prefetch.min(limits::BATCH_MAX);
        let source = Arc::new(source);
        Self {
            reporter: source.clone(),
            source,
            handler,
            counters: Counters::default(),
            buffer: Mutex::default(),
            ready: Semaphore::new(0),
            slots: (0..slots).map(|_| Mutex::new(None)).collect(),
            options,
            outbox: Mutex::default(),
            posted: Notify::new(),
            settled: Notify::new(),
            room: Notify::new(),
            busy: Notify::new(),
            renew_all: Notify::new(),
            early: Mutex::default(),
            early_count: AtomicUsize::new(0),
            low_water: AtomicUsize::new(0),
            buffered: AtomicUsize::new(0),
            gathering: AtomicUsize::new(0),
            places: AtomicUsize::new(slots),
            in_hand: AtomicU64::new(0),
            handed_back: AtomicU64::new(0),
            closed: Flag::default(),
            sealed: Flag::default(),
            ended: Flag::default(),
            source_error: Mutex::default(),
            seed: RandomState::new().build_hasher().finish(),
        }
    }

    /// Queues an outcome for the settler.
    pub(super) fn post(&self, settlement: Settlement, lease_end: Instant) {
        let mut outbox = lock(&self.outbox);
        let first = outbox.posted.is_empty();
        outbox.bytes += weight(&settlement);
        outbox.posted.push_back(Posted { settlement, lease_end, replaced: false });
        drop(outbox);
        if first {
            self.posted.notify_one();
        }
    }

    /// Queues a job's return, no attempt used.
    pub(super) fn hand_back(&self, lease: LeaseRef, lease_end: Instant) {
        self.handed_back.fetch_add(1, Ordering::Relaxed);
        let outcome = Outcome::Snooze { after_ms: 0 };
        self.post(Settlement { lease, outcome, push: Vec::new() }, lease_end);
    }

    /// Hands back the jobs of the buffer that came before `before`.
    pub(super) fn hand_back_waiting(&self, before: Instant) {
        let stale: Vec<Held> = {
            let mut buffer = lock(&self.buffer);
            let count = buffer.iter().take_while(|held| held.since <= before).count();
            self.buffered.store(buffer.len() - count, Ordering::Relaxed);
            buffer.drain(..count).collect()
        };
        self.ready.forget_permits(stale.len());
        for held in stale {
            self.hand_back(lease_of(&held.job), held.lease_end);
        }
    }

    /// Drops a job that waits for a slot, because its lease was taken away; false if none such waits.
    pub(super) fn drop_held(&self, lease: &LeaseRef) -> bool {
        let mut buffer = lock(&self.buffer);
        let is_it = |held: &Held| held.job.lease_token == lease.token && lease_of(&held.job) == *lease;
        let Some(index) = buffer.iter().position(is_it) else { return false };
        buffer.remove(index);
        self.buffered.store(buffer.len(), Ordering::Relaxed);
        drop(buffer);
        self.ready.forget_permits(1);
        self.counters.dropped.add(1);
        self.let_go(1);
        true
    }

    /// Remembers a lease that was taken away, for the attempt that has not begun.
    pub(super) fn note_early(&self, lease: LeaseRef, reason: Reason) {
        let mut early = lock(&self.early);
        if early.len() >= EARLY_MAX {
            early.pop_front();
        }
        early.push_back((Instant::now(), lease, reason));
        self.early_count.store(early.len(), Ordering::Release);
    }

    /// Why an attempt must not begin, if it must not.
    pub(super) fn take_early(&self, lease: &LeaseRef) -> Option<Reason> {
        if self.early_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut early = lock(&self.early);
        let index = early.iter().position(|(_, other, _)| other.token == lease.token && other == lease);
        let reason = index.and_then(|index| early.remove(index)).map(|(_, _, reason)| reason);
        while early.front().is_some_and(|(at, ..)| at.elapsed() > EARLY_KEPT) {
            early.pop_front();
        }
        self.early_count.store(early.len(), Ordering::Release);
        reason
    }

    /// `count` jobs are no longer ours.
    pub(super) fn let_go(&self, count: usize) {
        self.in_hand.fetch_sub(count as u64, Ordering::Relaxed);
        self.room.notify_one();
    }

    pub(super) fn source_answered(&self) {
        let mut error = lock(&self.source_error);
        if error.is_some() {
            *error = None;
        }
    }

    /// Counts a failed call and says how long to wait before its `failures`-th repetition.
    pub(super) fn source_failed(&self, error: &SourceError, failures: u32) -> Duration {
        let seed = self.seed.wrapping_add(self.counters.source_errors.add(1));
        *lock(&self.source_error) = Some(error.to_string());
        let asked = match error {
            SourceError::Unavailable { retry_after_ms, .. } => retry_after_ms.unwrap_or(0),
            SourceError::Refused(reject) => reject.retry_after_ms().unwrap_or(1_000),
            SourceError::Closed => 0,
        };
        Duration::from_millis(10 + asked + SOURCE_BACKOFF.delay(failures, seed))
    }
}

impl<S: JobSource, H: Send + Sync> Running for Shared<S, H> {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn source_error(&self) -> Option<String> {
        lock(&self.source_error).clone()
    }

    fn in_hand(&self) -> u64 {
        self.in_hand.load(Ordering::Relaxed)
    }

    fn handed_back(&self) -> u64 {
        self.handed_back.load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.closed.raise();
        self.ready.close();
        self.hand_back_waiting(Instant::now());
    }

    fn call_off(&self) {
        for slot in &self.slots {
            if let Some(attempt) = lock(slot).as_mut() {
                attempt.call_off(Reason::Stopping, self.options.grace);
            }
        }
    }

    fn seal(&self) {
        self.hand_back_waiting(Instant::now());
        self.sealed.raise();
    }

    fn end(&self) {
        self.closed.raise();
        self.ended.raise();
    }
}

/// Bytes that a settlement adds to a command, roughly.
pub(super) fn weight(settlement: &Settlement) -> usize {
    let said = match &settlement.outcome {
        Outcome::Done { result } => result.as_ref().map_or(0, |result| result.len()),
        Outcome::Retry { error, .. } | Outcome::Fail { error } => error.message.len() + error.stack.len(),
        Outcome::Wait { children } => {
            children.jobs.iter().map(|named| 512 + named.job.body.len()).sum::<usize>()
                + children.joins.iter().map(|join| 128 + 32 * join.members.len()).sum::<usize>()
        }
        Outcome::Crash(crash) => crash.stderr.len(),
        Outcome::Suspend { until: Until::Child { job }, .. } => job.body.len(),
        Outcome::Snooze { .. }
        | Outcome::RateLimited { .. }
        | Outcome::Cancel { .. }
        | Outcome::Suspend { .. } => 0,
    };
    512 + said + settlement.push.iter().map(|job| 512 + job.body.len()).sum::<usize>()
}

/// Locks; a panic elsewhere while the lock was held has left nothing half done in what these locks guard.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A flag that is raised once and can be waited for.
#[derive(Default)]
pub(super) struct Flag {
    up: AtomicBool,
    changed: Notify,
}

impl Flag {
    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    pub(super) fn raise(&self) {
        self.up.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(super) async fn raised(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_up() {
                return;
            }
            changed.await;
        }
    }
}
