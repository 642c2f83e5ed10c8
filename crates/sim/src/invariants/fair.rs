//! I19: groups that wait share a queue by their weights.
//!
//! Between any two moments at which two groups both have a job that nothing holds, what they started, each divided by its weight,
//! differs by at most one start of each: the bound of start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). A changed weight
//! begins anew; a turn taken under the old one counts as a whole start.

use crate::{
    history::{Check, broken},
    workload,
};
use compact_str::CompactString;
use model::{Effect, JobId, Route, State};
use std::collections::{BTreeMap, BTreeSet};

/// The live jobs of the routed queue, and how far its groups are apart.
#[derive(Default)]
pub(crate) struct Fair {
    weights: BTreeMap<CompactString, i64>,
    paused: BTreeSet<CompactString>,
    jobs: BTreeMap<JobId, Seen>,
    pairs: BTreeMap<(CompactString, CompactString), Lead>,
}

struct Seen {
    state: State,
    group: CompactString,
    routed: bool,
    /// Nothing but a pause of its group can hold it while it waits.
    free: bool,
}

/// Starts of the first of two groups times the weight of the second, less those of the second times the weight of the first, since
/// both had something to start; with its extremes.
#[derive(Default)]
struct Lead {
    now: i64,
    low: i64,
    high: i64,
}

impl Fair {
    pub(crate) fn set_group(&mut self, group: &CompactString, weight: Option<u32>, paused: Option<bool>) {
        if let Some(weight) = weight {
            self.weights.insert(group.clone(), weight.into());
            self.pairs.clear();
        }
        match paused {
            Some(true) => drop(self.paused.insert(group.clone())),
            Some(false) => drop(self.paused.remove(group)),
            None => {}
        }
    }

    /// Follows what happened to the jobs of the routed queue.
    pub(crate) fn look<'a>(
        &mut self,
        effects: &[Effect],
        route_of: impl Fn(&JobId) -> Option<&'a Route>,
    ) -> Check {
        for effect in effects {
            match effect {
                Effect::Changed { queue, id, to, .. } if *queue == workload::routed() => {
                    self.changed(id, *to, route_of(id))?;
                }
                Effect::Removed { queue, id, .. } if *queue == workload::routed() => {
                    self.jobs.remove(id);
                }
                _ => continue,
            }
            // Virtual time may begin anew once there is nothing that could be behind or ahead.
            if !self.jobs.values().any(|seen| seen.routed || seen.state == State::Waiting) {
                self.pairs.clear();
            }
        }
        Ok(())
    }

    fn changed(&mut self, id: &JobId, to: State, route: Option<&Route>) -> Check {
        if to.is_final() {
            self.jobs.remove(id);
            return Ok(());
        }
        let group = route.and_then(|route| route.group.clone()).unwrap_or_default();
        if to == State::Active {
            self.turn(&group)?;
        }
        // A retry may wait for its budget.
        let began = to == State::Active || self.jobs.get(id).is_some_and(|seen| !seen.free);
        let plain = route.is_none_or(|route| route.limits.is_empty() && route.ordering_key.is_none());
        let seen = Seen { state: to, group, routed: route.is_some(), free: plain && !began };
        self.jobs.insert(id.clone(), seen);
        Ok(())
    }

    /// A job of that group starts; it still waits here.
    fn turn(&mut self, started: &CompactString) -> Check {
        let waiting = self.jobs.values().filter(|seen| seen.free && seen.state == State::Waiting);
        let open: BTreeSet<_> =
            waiting.map(|seen| &seen.group).filter(|group| !self.paused.contains(*group)).collect();
        self.pairs.retain(|(one, other), _| open.contains(one) && open.contains(other));
        let weight = |group: &CompactString| self.weights.get(group).copied().unwrap_or(1);
        for (one, other) in open
            .iter()
            .flat_map(|one| open.range::<&CompactString, _>(one..).skip(1).map(move |other| (*one, *other)))
        {
            let (one_weight, other_weight) = (weight(one), weight(other));
            let lead = self.pairs.entry((one.clone(), other.clone())).or_default();
            lead.now += i64::from(one == started) * other_weight - i64::from(other == started) * one_weight;
            (lead.low, lead.high) = (lead.low.min(lead.now), lead.high.max(lead.now));
            if lead.high - lead.low > 2 * one_weight * other_weight {
                let pair = format!("{one:?} of weight {one_weight} and {other:?} of weight {other_weight}");
                return broken("I19", format!("groups {pair} did not take turns"));
            }
        }
        Ok(())
    }
}
