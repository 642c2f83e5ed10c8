use compact_str::CompactString;
use kit::Millis;

/// What decides whether a job may start now, beyond its time: its place among others, and the limits it counts against.
///
/// Jobs of a queue with the same route form one *line*: the same limits hold them, so they start in one order or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// The group it belongs to: groups of a queue share it fairly, in proportion to their weights.
    pub group: Option<CompactString>,
    /// At most one job of this key is under way in the queue; the next starts when the one before is final.
    pub ordering_key: Option<CompactString>,
    /// The limits it counts against, each key once.
    pub limits: Vec<LimitUse>,
    /// Within a priority, the earliest deadline starts first where the queue asks for it.
    pub deadline: Option<kit::Timestamp>,
}

/// A limit that a job counts against, and how much of it one attempt takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitUse {
    /// The key. It needs no definition: a key without one is not limited.
    pub key: CompactString,
    /// Units of the rate, and slots of the concurrency, at least 1. More than the limit has counts as all of it.
    pub cost: u32,
}

/// What may happen at once, how often, and what happens after failures. Zero stands for "no such limit".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// Slots: running attempts hold as many as they cost. 0 for no limit.
    pub concurrency: u32,
    /// How many units may start in a time.
    pub rate: Rate,
    /// When to stop asking what does not answer.
    pub breaker: Breaker,
}

/// So many units in so long, evenly, with a burst (GCRA, the leaky bucket as a meter; ITU-T I.371).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Units; 0 for no rate.
    pub units: u32,
    /// In so many milliseconds.
    pub per_ms: Millis,
    /// Units that may start at once after a pause; 0 for as many as `units`.
    pub burst: u32,
}

/// A circuit breaker: closed, it counts; open, nothing starts; half open, some probes may.
///
/// It opens when, of at least `calls` attempts within `window_ms`, the share that failed reaches `failed_percent`, or the share that
/// took longer than `slow_ms` reaches `slow_percent`. After `open_ms` as many attempts as `probes` may run: if all succeed it
/// closes, at the first that fails it opens again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Share of failed attempts, 1 to 100; 0 does not look at failures.
    pub failed_percent: u8,
    /// Share of slow attempts, 1 to 100; 0 does not look at the time they take.
    pub slow_percent: u8,
    /// An attempt that takes longer is slow.
    pub slow_ms: Millis,
    /// How far back attempts count.
    pub window_ms: Millis,
    /// Attempts within the window before their share means anything.
    pub calls: u32,
    /// How long it stays open.
    pub open_ms: Millis,
    /// Attempts that run at once while it is half open, all of which must succeed.
    pub probes: u32,
}

/// A class of work within a pool: what it can count on, and what it may take at most.
///
/// The pool is a limit key with a concurrency, shared by queues; each queue is a class of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bulkhead {
    /// The key of the limit whose slots are shared; empty for none.
    pub pool: CompactString,
    /// Slots of the pool that nobody else takes.
    pub reserved: u32,
    /// Slots of the pool that this queue takes at most; 0 for all that are not reserved by others.
    pub max: u32,
}

/// How many retries a queue may start, as a share of its successes: what is down is not asked ever more often.
///
/// Every success adds `percent` hundredths of a retry, every minute adds `per_minute`; a retry takes one. First attempts are free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryBudget {
    /// Retries for a hundred successes, 1 to 1,000; 0 for no budget: every retry may start.
    pub percent: u32,
    /// Retries a minute that may start whatever succeeds.
    pub per_minute: u32,
}

/// In which order the jobs of a group start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By priority, then in line.
    #[default]
    Priority,
    /// By priority, then the earliest deadline, then in line. Jobs without a deadline come last in their priority.
    Deadline,
    /// By priority, but waiting makes more urgent: one level of 0 to 255 for every so many milliseconds.
    Aging {
        /// Milliseconds of waiting that make up for one level of priority, at least 1.
        step_ms: Millis,
    },
}

impl Limit {
    /// Whether it limits anything.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
