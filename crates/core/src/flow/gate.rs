use super::{
    circuit::{Circuit, CircuitState},
    stand::Stand,
};
use compact_str::CompactString;
use kit::Timestamp;
use model::{Breaker, Limit};
use std::collections::{BTreeMap, BTreeSet};

/// What a gate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum GateKey {
    /// A limit key, shared by all queues of the shard.
    Limit(CompactString),
    /// An ordering key of one queue: it has one place, which a job keeps from its first attempt until it is final.
    Order(u32, CompactString),
    /// A queue as a whole.
    Queue(u32),
    /// The retries of a queue.
    Retries(u32),
}

/// What a limit measures, in numbers: whether so much may start now, and what is left after it did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meter {
    pub(crate) limit: Limit,
    /// Slots taken: the costs of what is under way. Follows from the jobs.
    pub(crate) in_use: u64,
    /// Nanoseconds since the epoch: when the bucket is full again (the theoretical arrival time of GCRA).
    pub(crate) full_at: u64,
    /// Somebody said that nothing is to start before.
    pub(crate) closed_until: Timestamp,
    pub(crate) circuit: Option<Box<Circuit>>,
    /// Slots that classes of work have in this pool.
    pub(crate) shares: BTreeMap<u32, Share>,
}

/// What a meter remembers, as a checkpoint keeps it.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) full_at: u64,
    pub(crate) closed_until: Timestamp,
    pub(crate) circuit: Option<Box<Circuit>>,
}

/// One class of a pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) reserved: u64,
    /// 0 for no maximum of its own.
    pub(crate) max: u64,
    /// Follows from the jobs.
    pub(crate) in_use: u64,
}

/// Why a gate lets nothing pass now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// All slots are taken.
    Slots { in_use: u64, limit: u64 },
    /// The class has its most, or the rest of the pool is taken or reserved for others.
    Share { in_use: u64, most: u64 },
    /// The next unit comes then.
    Rate(Timestamp),
    /// A handler said so.
    Told(Timestamp),
    /// The breaker is open until then.
    Open(Timestamp),
    /// The breaker is half open and its probes are out.
    Probing(u32),
}

impl Obstacle {
    /// When it is gone by itself.
    pub(crate) fn until(self) -> Option<Timestamp> {
        match self {
            Self::Rate(at) | Self::Told(at) | Self::Open(at) => Some(at),
            Self::Slots { .. } | Self::Share { .. } | Self::Probing(_) => None,
        }
    }
}

const NANOS: u64 = 1_000_000;

impl Meter {
    pub(crate) fn new(limit: Limit) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Another limit. What was measured stays as far as it means something under it; a breaker with another rule begins closed.
    pub(crate) fn set_limit(&mut self, limit: Limit) {
        if limit.breaker != self.limit.breaker {
            self.circuit = None;
        }
        self.limit = limit;
        if limit.rate.units == 0 {
            self.full_at = 0;
        }
    }

    /// Nanoseconds that one unit takes to come back, and how many units fit. `None` without a rate.
    fn rate(&self) -> Option<(u64, u64)> {
        let rate = self.limit.rate;
        let burst = u64::from(if rate.burst == 0 { rate.units } else { rate.burst });
        (rate.units > 0).then(|| ((rate.per_ms.saturating_mul(NANOS) / u64::from(rate.units)).max(1), burst))
    }

    /// A cost beyond what there is at all counts as all of it, or the job would never start.
    fn slots(&self, cost: u32) -> u64 {
        u64::from(cost).min(u64::from(self.limit.concurrency))
    }

    /// When time alone lets so much pass: later than `now` if it does not yet.
    fn opens_at(&self, cost: u32, now: Timestamp) -> Option<Obstacle> {
        let circuit = self
            .circuit
            .as_deref()
            .filter(|_| self.has_breaker())
            .map(|circuit| circuit.at(&self.limit.breaker, now));
        if let Some(CircuitState::Open(until)) = circuit {
            return Some(Obstacle::Open(until));
        }
        if self.closed_until > now {
            return Some(Obstacle::Told(self.closed_until));
        }
        let (unit, burst) = self.rate()?;
        let taken =
            self.full_at.max(now.0 * NANOS).saturating_add(unit.saturating_mul(u64::from(cost).min(burst)));
        let at = Timestamp(taken.saturating_sub(unit.saturating_mul(burst)).div_ceil(NANOS));
        (at > now).then_some(Obstacle::Rate(at))
    }

    /// When a half-open breaker closes because nobody probes.
    fn stops_probing_at(&self, now: Timestamp) -> Option<Timestamp> {
        let rule = &self.limit.breaker;
        let circuit = self.circuit.as_deref().filter(|_| self.has_breaker())?;
        matches!(circuit.at(rule, now), CircuitState::HalfOpen(_)).then(|| circuit.forgets_at(rule))
    }

    pub(crate) fn has_breaker(&self) -> bool {
        self.limit.breaker != Breaker::default()
    }

    /// Why so much may not start now; `None` if it may. `class` is the queue that takes it as a whole, if one does.
    pub(crate) fn obstacle(&self, cost: u32, class: Option<u32>, now: Timestamp) -> Option<Obstacle> {
        let limit = u64::from(self.limit.concurrency);
        if limit > 0 && self.in_use + self.slots(cost) > limit {
            return Some(Obstacle::Slots { in_use: self.in_use, limit });
        }
        if let Some(most) = self.share_limit(class)
            && let in_use = class.and_then(|class| self.shares.get(&class)).map_or(0, |share| share.in_use)
            && in_use + self.slots(cost).max(1) > most
        {
            return Some(Obstacle::Share { in_use, most });
        }
        if self.has_breaker()
            && let Some(circuit) = &self.circuit
            && matches!(circuit.at(&self.limit.breaker, now), CircuitState::HalfOpen(_))
            && self.in_use >= u64::from(self.limit.breaker.probes.max(1))
        {
            return Some(Obstacle::Probing(self.limit.breaker.probes.max(1)));
        }
        self.opens_at(cost, now)
    }

    /// How many slots a class may have in all, given what the others have and what is kept for them. `None` if nothing is shared out.
    fn share_limit(&self, class: Option<u32>) -> Option<u64> {
        if self.shares.is_empty() || self.limit.concurrency == 0 {
            return None;
        }
        let shared_out: u64 = self.shares.values().map(|share| share.in_use).sum();
        let others: u64 = self
            .shares
            .iter()
            .filter(|(other, _)| Some(**other) != class)
            .map(|(_, share)| share.in_use.max(share.reserved))
            .sum();
        let rest = self.in_use.saturating_sub(shared_out);
        let free = u64::from(self.limit.concurrency).saturating_sub(others + rest);
        let share = class.and_then(|class| self.shares.get(&class)).copied().unwrap_or_default();
        let most = if share.max == 0 { u64::MAX } else { share.max };
        Some(free.min(most))
    }

    /// How many of that cost may start now.
    pub(crate) fn allowance(&self, cost: u32, class: Option<u32>, now: Timestamp) -> u64 {
        if self.obstacle(cost, class, now).is_some() {
            return 0;
        }
        let cost = u64::from(cost.max(1));
        let mut most = u64::MAX;
        if self.limit.concurrency > 0 {
            let limit = u64::from(self.limit.concurrency);
            most = (limit - self.in_use.min(limit)) / cost.min(limit);
        }
        if let Some((unit, burst)) = self.rate() {
            let ahead = self.full_at.saturating_sub(now.0 * NANOS).div_ceil(unit);
            most = most.min(burst.saturating_sub(ahead) / cost.min(burst).max(1));
        }
        most.max(1)
    }

    /// An attempt of that cost starts.
    pub(crate) fn take(&mut self, cost: u32, now: Timestamp) {
        if let Some((unit, burst)) = self.rate() {
            let from = self.full_at.max(now.0 * NANOS);
            self.full_at = from.saturating_add(unit.saturating_mul(u64::from(cost).min(burst)));
        }
        if let Some(circuit) = &mut self.circuit {
            circuit.probe(&self.limit.breaker, now);
        }
    }

    /// Slots of that cost are held, or free again. `class` is the queue that takes them as a whole, if one does.
    pub(crate) fn occupy(&mut self, class: Option<u32>, cost: u32, starts: bool) {
        let share = class.and_then(|class| self.shares.get_mut(&class)).map(|share| &mut share.in_use);
        for in_use in std::iter::once(&mut self.in_use).chain(share) {
            *in_use = if starts { *in_use + u64::from(cost) } else { *in_use - u64::from(cost) };
        }
    }

    /// Gives back some hundredths of a unit.
    pub(crate) fn give_back(&mut self, percent: u32) {
        if let Some((unit, _)) = self.rate() {
            self.full_at = self.full_at.saturating_sub(unit / 100 * u64::from(percent));
        }
    }

    /// An attempt ended; true if the breaker changed its state.
    pub(crate) fn record(&mut self, failed: bool, took_ms: u64, now: Timestamp) -> bool {
        if !self.has_breaker() {
            return false;
        }
        let rule = self.limit.breaker;
        self.circuit.get_or_insert_default().record(&rule, failed, took_ms, now)
    }

    /// When it has nothing left to remember. Zero if it has not.
    pub(crate) fn forgets_at(&self) -> Timestamp {
        let full = Timestamp(self.full_at.div_ceil(NANOS));
        let circuit = self.circuit.as_deref().map(|circuit| circuit.forgets_at(&self.limit.breaker));
        full.max(self.closed_until).max(circuit.unwrap_or(Timestamp::ZERO))
    }

    /// What still counts of its memory, without what follows from the jobs and the rules; `None` if nothing does.
    pub(crate) fn memory(&self, now: Timestamp) -> Option<Memory> {
        let circuit = self.circuit.clone();
        self.remembers(now).then(|| Memory {
            full_at: if self.full_at > now.0 * NANOS { self.full_at } else { 0 },
            closed_until: if self.closed_until > now { self.closed_until } else { Timestamp::ZERO },
            circuit: circuit.filter(|circuit| circuit.forgets_at(&self.limit.breaker) > now),
        })
    }

    /// Whether time alone can close or open it, or it has something to remember.
    pub(crate) fn is_timed(&self) -> bool {
        self.limit.rate.units > 0
            || self.closed_until != Timestamp::ZERO
            || self.circuit.is_some()
            || self.full_at > 0
    }

    /// Whether it knows something that does not follow from the jobs and the rules.
    pub(crate) fn remembers(&self, now: Timestamp) -> bool {
        self.full_at > now.0 * NANOS
            || self.closed_until > now
            || self.circuit.as_deref().is_some_and(|circuit| circuit.forgets_at(&self.limit.breaker) > now)
    }
}

/// A gate: a meter, and who stands before it.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) key: GateKey,
    pub(crate) meter: Meter,
    /// Lines and queues that pass it.
    pub(crate) users: u32,
    /// Queues that pass it as a whole.
    pub(crate) queues: BTreeSet<u32>,
    /// Lines with waiting jobs that pass it, by queue and cost.
    pub(crate) waiting: BTreeMap<(u32, u32), Waiting>,
    /// Lines that stand here.
    pub(crate) held: u32,
    /// Its entry among the timers; zero for none.
    pub(crate) timer: Timestamp,
    /// In the list of records to write. Not part of the state.
    pub(crate) dirty: bool,
}

/// Lines of one queue with one cost.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// How many have waiting jobs.
    pub(crate) lines: u32,
    /// Those of them that were found held by this gate.
    pub(crate) held: Stand,
}

impl Gate {
    pub(crate) fn new(key: GateKey, meter: Meter) -> Self {
        Self {
            key,
            meter,
            users: 0,
            queues: BTreeSet::new(),
            waiting: BTreeMap::new(),
            held: 0,
            timer: Timestamp::ZERO,
            dirty: false,
        }
    }

    /// When time opens it for somebody for whom time holds it, or a breaker that probes forgets; zero for never. Costs differ, so the
    /// soonest counts.
    pub(crate) fn opens_at(&self, now: Timestamp) -> Timestamp {
        let costs = self.waiting.keys().map(|(_, cost)| *cost);
        let costs = costs.chain((!self.queues.is_empty()).then_some(1));
        let times = costs.filter_map(|cost| self.meter.opens_at(cost, now)?.until());
        let forgets =
            self.meter.stops_probing_at(now).filter(|_| !self.waiting.is_empty() || !self.queues.is_empty());
        times.chain(forgets).min().unwrap_or(Timestamp::ZERO)
    }
}
