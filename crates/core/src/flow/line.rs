use super::gate::GateKey;
use compact_str::CompactString;
use model::Route;
use std::collections::BTreeMap;

/// The number of no line: the job has no route.
pub(crate) const NO_LINE: u32 = u32::MAX;

/// The place of a waiting job in its line: lane (its priority, or zero where waiting makes more urgent), rank within the lane (zero
/// where the order of arrival decides), order of arrival.
pub(crate) type Rank = (u8, u64, u64);

/// What makes jobs alike: all that decides whether they may start is the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    pub(crate) queue: u32,
    pub(crate) group: CompactString,
    /// The limits, in the order of their keys, with their costs.
    pub(crate) limits: Vec<(GateKey, u32)>,
    pub(crate) order: Option<CompactString>,
    /// Its jobs have begun: they hold the place of their ordering key.
    pub(crate) holder: bool,
    /// Its jobs have failed before, in a queue that budgets its retries.
    pub(crate) retry: bool,
}

impl Class {
    /// Whether jobs with this route that have not begun are of this class.
    pub(crate) fn is_of(&self, route: &Route) -> bool {
        let Route { group, ordering_key, limits, deadline: _ } = route;
        let same = |(key, cost): &(GateKey, u32)| {
            limits
                .iter()
                .any(|used| matches!(key, GateKey::Limit(name) if *name == used.key) && used.cost == *cost)
        };
        !self.holder
            && !self.retry
            && self.group == group.as_deref().unwrap_or_default()
            && self.order == *ordering_key
            && self.limits.len() == limits.len()
            && self.limits.iter().all(same)
    }
}

/// The jobs of one class.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) class: Class,
    /// In the queue's lineup.
    pub(crate) group: u32,
    /// What an attempt takes, and how much: limits, and the budget of retries.
    pub(crate) limits: Box<[(u32, u32)]>,
    /// The gate of the ordering key.
    pub(crate) order: Option<u32>,
    /// Waiting jobs, with their slots.
    pub(crate) jobs: BTreeMap<Rank, u32>,
    pub(crate) place: Place,
    /// Jobs that are not final.
    pub(crate) live: u32,
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
    pub(crate) fn first(&self) -> Option<(Rank, u32)> {
        self.jobs.first_key_value().map(|(rank, slot)| (*rank, *slot))
    }

    /// The gates it passes, with what it takes there.
    pub(crate) fn gates(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let order = self.order.filter(|_| !self.class.holder);
        self.limits.iter().copied().chain(order.map(|gate| (gate, 1)))
    }
}
