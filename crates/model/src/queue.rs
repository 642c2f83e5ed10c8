use crate::{Breaker, Bulkhead, Limit, Order, QueueName, Rate, RetryBudget};
use compact_str::CompactString;
use kit::{Millis, Timestamp};

/// How many final jobs are kept, and how long. What exceeds one of the two goes, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Milliseconds after the end.
    pub age_ms: Millis,
    /// Jobs.
    pub count: u64,
}

/// What a push meets when the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum OnFull {
    /// Refused with `queue_full`.
    #[default]
    Reject = 0,
    /// The oldest waiting job of the least urgent priority is cancelled to make room.
    DropOldest = 1,
    /// It waits for room, behind those that came before it, for as long as its caller wants to; then it is refused with
    /// `queue_full`. What is pushed otherwise than by a push (a graph of joins, a schedule) is refused at once.
    Block = 2,
}

/// How much a queue may hold. Jobs count while they are not final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Jobs; 0 for no limit but the shard's.
    pub jobs: u64,
    /// Bytes of bodies; 0 for no limit.
    pub bytes: u64,
    /// What happens to a push beyond it.
    pub on_full: OnFull,
}

/// What becomes of jobs that die in a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetter {
    /// They go on to this queue, where they wait as if pushed anew; `None`: they stay where they died.
    pub queue: Option<QueueName>,
    /// When somebody should be told.
    pub alert: Alert,
}

/// From when on a queue's dead letters are an alert. It is raised once, and again after all numbers were below half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alert {
    /// This many dead jobs in the queue; 0 for never.
    pub count: u64,
    /// This many deaths in a minute, wherever the dead go; 0 for never.
    pub per_minute: u64,
}

/// The settings of one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Attempts of a job that does not say.
    pub attempts: u32,
    /// Crashes of a job that does not say.
    pub max_crashes: u32,
    /// Timeout of an attempt that does not say, milliseconds.
    pub timeout_ms: Millis,
    /// Lease of a fetch that does not say, milliseconds.
    pub lease_ms: Millis,
    /// Backoff of a job that does not say.
    pub backoff: kit::Backoff,
    /// How much it may hold.
    pub capacity: Capacity,
    /// Retention of completed, cancelled and expired jobs.
    pub keep_completed: Keep,
    /// Retention of dead jobs.
    pub keep_dead: Keep,
    /// What limits the queue as a whole.
    pub limit: Limit,
    /// In which order jobs start.
    pub order: Order,
    /// Its share of a pool of slots.
    pub bulkhead: Bulkhead,
    /// How many of its retries may start.
    pub retry_budget: RetryBudget,
    /// What becomes of jobs that die.
    pub dead_letter: DeadLetter,
}

impl QueueSettings {
    /// What a queue starts with.
    pub const DEFAULT: QueueSettings = QueueSettings {
        attempts: 5,
        max_crashes: 3,
        timeout_ms: 300_000,
        lease_ms: 30_000,
        backoff: kit::Backoff::DEFAULT,
        capacity: Capacity { jobs: 0, bytes: 0, on_full: OnFull::Reject },
        keep_completed: Keep { age_ms: 24 * 3_600_000, count: 100_000 },
        keep_dead: Keep { age_ms: 14 * 24 * 3_600_000, count: 1_000_000 },
        limit: Limit {
            concurrency: 0,
            rate: Rate { units: 0, per_ms: 0, burst: 0 },
            breaker: Breaker {
                failed_percent: 0,
                slow_percent: 0,
                slow_ms: 0,
                window_ms: 0,
                calls: 0,
                open_ms: 0,
                probes: 0,
            },
        },
        order: Order::Priority,
        bulkhead: Bulkhead { pool: CompactString::const_new(""), reserved: 0, max: 0 },
        retry_budget: RetryBudget { percent: 0, per_minute: 0 },
        dead_letter: DeadLetter { queue: None, alert: Alert { count: 0, per_minute: 0 } },
    };

    /// Changes what the patch names.
    pub fn apply(&mut self, patch: &QueuePatch) {
        let QueuePatch {
            attempts,
            max_crashes,
            timeout_ms,
            lease_ms,
            backoff,
            capacity,
            keep_completed,
            keep_dead,
            limit,
            order,
            bulkhead,
            retry_budget,
            dead_letter,
        } = patch;
        set(&mut self.attempts, attempts);
        set(&mut self.max_crashes, max_crashes);
        set(&mut self.timeout_ms, timeout_ms);
        set(&mut self.lease_ms, lease_ms);
        set(&mut self.backoff, backoff);
        set(&mut self.capacity, capacity);
        set(&mut self.keep_completed, keep_completed);
        set(&mut self.keep_dead, keep_dead);
        set(&mut self.limit, limit);
        set(&mut self.order, order);
        set(&mut self.bulkhead, bulkhead);
        set(&mut self.retry_budget, retry_budget);
        set(&mut self.dead_letter, &dead_letter.as_deref().cloned());
    }

    /// The patch that leads here from [`QueueSettings::DEFAULT`].
    pub fn as_patch(&self) -> QueuePatch {
        let default = &Self::DEFAULT;
        QueuePatch {
            attempts: differs(&self.attempts, &default.attempts),
            max_crashes: differs(&self.max_crashes, &default.max_crashes),
            timeout_ms: differs(&self.timeout_ms, &default.timeout_ms),
            lease_ms: differs(&self.lease_ms, &default.lease_ms),
            backoff: differs(&self.backoff, &default.backoff),
            capacity: differs(&self.capacity, &default.capacity),
            keep_completed: differs(&self.keep_completed, &default.keep_completed),
            keep_dead: differs(&self.keep_dead, &default.keep_dead),
            limit: differs(&self.limit, &default.limit),
            order: differs(&self.order, &default.order),
            bulkhead: differs(&self.bulkhead, &default.bulkhead),
            retry_budget: differs(&self.retry_budget, &default.retry_budget),
            dead_letter: differs(&self.dead_letter, &default.dead_letter).map(Box::new),
        }
    }
}

fn set<T: Clone>(setting: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        setting.clone_from(value);
    }
}

fn differs<T: Clone + PartialEq>(value: &T, default: &T) -> Option<T> {
    (value != default).then(|| value.clone())
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A change of some settings; `None` leaves one as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueuePatch {
    /// See [`QueueSettings::attempts`].
    pub attempts: Option<u32>,
    /// See [`QueueSettings::max_crashes`].
    pub max_crashes: Option<u32>,
    /// See [`QueueSettings::timeout_ms`].
    pub timeout_ms: Option<Millis>,
    /// See [`QueueSettings::lease_ms`].
    pub lease_ms: Option<Millis>,
    /// See [`QueueSettings::backoff`].
    pub backoff: Option<kit::Backoff>,
    /// See [`QueueSettings::capacity`].
    pub capacity: Option<Capacity>,
    /// See [`QueueSettings::keep_completed`].
    pub keep_completed: Option<Keep>,
    /// See [`QueueSettings::keep_dead`].
    pub keep_dead: Option<Keep>,
    /// See [`QueueSettings::limit`].
    pub limit: Option<Limit>,
    /// See [`QueueSettings::order`].
    pub order: Option<Order>,
    /// See [`QueueSettings::bulkhead`].
    pub bulkhead: Option<Bulkhead>,
    /// See [`QueueSettings::retry_budget`].
    pub retry_budget: Option<RetryBudget>,
    /// See [`QueueSettings::dead_letter`].
    pub dead_letter: Option<Box<DeadLetter>>,
}

/// How many jobs of a queue are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounts {
    /// Indexed by [`crate::State`] as a number.
    pub by_state: [u64; crate::State::COUNT],
}

impl QueueCounts {
    /// The count of one state.
    pub const fn of(&self, state: crate::State) -> u64 {
        self.by_state[state as usize]
    }

    /// Jobs that are not final.
    pub fn live(&self) -> u64 {
        crate::State::ALL.iter().filter(|state| !state.is_final()).map(|state| self.of(*state)).sum()
    }
}

/// A queue as people and tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// Its name.
    pub name: QueueName,
    /// Whether it is paused.
    pub paused: bool,
    /// Its settings.
    pub settings: QueueSettings,
    /// Jobs by state.
    pub counts: QueueCounts,
    /// Bytes of the bodies of jobs that are not final.
    pub live_bytes: u64,
    /// When the job that would start next began to wait.
    pub oldest_waiting_at: Option<Timestamp>,
    /// Jobs ever pushed.
    pub pushed_total: u64,
    /// Attempts ever started.
    pub started_total: u64,
    /// Jobs ever completed.
    pub completed_total: u64,
    /// Attempts ever failed, crashes and timeouts included.
    pub failed_total: u64,
    /// Jobs ever dead.
    pub dead_total: u64,
}
