use super::ranks::Ranks;
use crate::job::Job;
use model::{LimitUse, Route, State};
use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

/// The number of no line: the job has no route.
pub(crate) const NO_LINE: u32 = u32::MAX;

/// The place of a waiting job in its line: lane (its priority, or zero where waiting makes more urgent), rank within the lane (zero
/// where the order of arrival decides), order of arrival.
pub(crate) type Rank = (u8, u64, u64);

static NO_ROUTE: Route = Route { group: None, ordering_key: None, limits: Vec::new(), deadline: None };

/// What makes jobs alike: all that decides whether they may start is the same. Deadlines and the order of limits do not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class<'a> {
    pub(crate) queue: u32,
    pub(crate) route: &'a Route,
    /// Its jobs have begun and wait again: they hold the place of their ordering key.
    pub(crate) holder: bool,
    /// Its jobs have failed before, in a queue that budgets its retries.
    pub(crate) retry: bool,
}

impl<'a> Class<'a> {
    /// Of jobs that have not begun.
    pub(crate) fn new(queue: u32, route: &'a Route) -> Self {
        Self { queue, route, holder: false, retry: false }
    }

    /// The class of a job; `None` of a plain one.
    pub(crate) fn of(job: &'a Job) -> Option<Self> {
        let run = job.run.as_deref();
        let retry = run.is_some_and(|run| run.budgeted);
        if job.route().is_none() && !retry {
            return None;
        }
        let holder = run.is_some_and(|run| run.holds_order) && job.state != State::Active;
        Some(Self { queue: job.queue, route: job.route().unwrap_or(&NO_ROUTE), holder, retry })
    }

    pub(crate) fn hash(&self) -> u64 {
        let seed = foldhash::fast::FixedState::with_seed(0x6c69_6e65);
        let limits = self.route.limits.iter().map(|LimitUse { key, cost }| seed.hash_one((key, cost)));
        let mut hasher = seed.build_hasher();
        limits.fold(0, u64::wrapping_add).hash(&mut hasher);
        (self.queue, self.holder, self.retry).hash(&mut hasher);
        (&self.route.group, &self.route.ordering_key).hash(&mut hasher);
        hasher.finish()
    }
}

impl PartialEq for Class<'_> {
    fn eq(&self, other: &Self) -> bool {
        let Route { group, ordering_key, limits, deadline: _ } = self.route;
        (self.queue, self.holder, self.retry) == (other.queue, other.holder, other.retry)
            && (std::ptr::eq(self.route, other.route)
                || *group == other.route.group
                    && *ordering_key == other.route.ordering_key
                    && limits.len() == other.route.limits.len()
                    && limits.iter().all(|used| other.route.limits.contains(used)))
    }
}

/// The jobs of one class.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) queue: u32,
    /// Shared with the jobs that ask for exactly this.
    pub(crate) route: Arc<Route>,
    pub(crate) holder: bool,
    pub(crate) retry: bool,
    /// In the queue's lineup.
    pub(crate) group: u32,
    /// The gates it passes, with what it takes there: limits, the budget of retries, the ordering key.
    pub(crate) gates: Box<[(u32, u32)]>,
    /// The gate of the ordering key, also where the line has passed it.
    pub(crate) order: Option<u32>,
    /// Waiting jobs, with their slots.
    pub(crate) jobs: Ranks,
    pub(crate) place: Place,
    /// Jobs that are not final.
    pub(crate) live: u32,
    /// When it ran empty, as a number that rises; zero while it has live jobs.
    pub(crate) idle: u64,
}

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// It has no waiting jobs.
    Nowhere,
    /// Among those of its queue that nothing was found to hold.
    Ready,
    /// At the gate that was found to hold it.
    Held(u32, u32),
    /// With its paused group.
    Parked,
}

impl Line {
    pub(crate) fn new(class: Class<'_>, group: u32) -> Self {
        let Class { queue, route, holder, retry } = class;
        let mut route = Route { deadline: None, ..route.clone() };
        route.limits.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Self {
            queue,
            route: Arc::new(route),
            holder,
            retry,
            group,
            gates: Box::default(),
            order: None,
            jobs: Ranks::default(),
            place: Place::Nowhere,
            live: 0,
            idle: 0,
        }
    }

    pub(crate) fn class(&self) -> Class<'_> {
        Class { queue: self.queue, route: &self.route, holder: self.holder, retry: self.retry }
    }

    pub(crate) fn first(&self) -> Option<(Rank, u32)> {
        self.jobs.first()
    }

    /// What an attempt takes: limits, and the budget of retries.
    pub(crate) fn limits(&self) -> &[(u32, u32)] {
        &self.gates[..self.route.limits.len() + usize::from(self.retry)]
    }
}
