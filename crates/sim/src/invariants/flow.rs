//! I16: limits hold, an ordering key has one job under way, a paused group starts nothing, and what is said to be next is.

use crate::{
    history::{Check, broken},
    shadow::{Job, Key},
    workload,
};
use compact_str::CompactString;
use kit::Timestamp;
use millpond_core::Shard;
use model::{Command, Envelope, JobId, Limit, Rate, Reply};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Starts that a rate remembers here; a window of more is not looked at.
const STARTS_KEPT: usize = 200;

/// What the rules of the routed queue are, and what started under each rate.
#[derive(Default)]
pub(crate) struct Flow {
    limits: BTreeMap<CompactString, Limit>,
    paused: BTreeSet<CompactString>,
    starts: BTreeMap<CompactString, VecDeque<(Timestamp, u64)>>,
}

impl Flow {
    /// A limit changed: what started under another rate says nothing of this one.
    pub(crate) fn set_limit(&mut self, pattern: &CompactString, limit: Option<Limit>) {
        match limit {
            Some(limit) => self.limits.insert(pattern.clone(), limit),
            None => self.limits.remove(pattern),
        };
        self.starts.clear();
    }

    pub(crate) fn set_group(&mut self, group: &CompactString, paused: Option<bool>) {
        match paused {
            Some(true) => self.paused.insert(group.clone()),
            Some(false) => self.paused.remove(group),
            None => false,
        };
    }

    /// The key itself, then the longest pattern.
    fn limit_of(&self, key: &str) -> Limit {
        let pattern = |pattern: &CompactString| {
            pattern.strip_suffix('*').filter(|prefix| key.starts_with(prefix)).map(str::len)
        };
        let found = self.limits.get(key).or_else(|| {
            let fitting = self.limits.iter().filter_map(|(text, limit)| Some((pattern(text)?, limit)));
            fitting.max_by_key(|(length, _)| *length).map(|(_, limit)| limit)
        });
        found.copied().unwrap_or_default()
    }

    /// A job of the routed queue starts while the others are as given.
    pub(crate) fn may_start(&mut self, key: &Key, jobs: &BTreeMap<Key, Job>, now: Timestamp) -> Check {
        let Some(route) = jobs.get(key).and_then(|job| job.new.route.as_deref()) else { return Ok(()) };
        if route.group.as_ref().is_some_and(|group| self.paused.contains(group)) {
            return broken("I16", format!("job {key:?} of a paused group was handed out"));
        }
        let first = (key.0.clone(), JobId::Uuid(0));
        let others = || {
            let queue = jobs.range(first.clone()..).take_while(|(other, _)| other.0 == key.0);
            queue.filter(|(other, _)| *other != key)
        };
        if let Some(ordering) = &route.ordering_key
            && let Some((other, _)) =
                others().find(|(_, job)| job.holds() && job.ordering_key() == Some(ordering))
        {
            return broken("I16", format!("job {key:?} was handed out while {other:?} is under way"));
        }
        for used in &route.limits {
            let limit = self.limit_of(&used.key);
            let taken: u64 =
                others().filter(|(_, job)| job.lease.is_some()).map(|(_, job)| job.cost_of(&used.key)).sum();
            let slots = u64::from(limit.concurrency);
            if slots > 0 && taken + u64::from(used.cost).min(slots) > slots {
                return broken(
                    "I16",
                    format!("{taken} of {slots} slots of {} were taken when {key:?} started", used.key),
                );
            }
            self.keeps_rate(&used.key, limit.rate, u64::from(used.cost), now)?;
        }
        Ok(())
    }

    /// In no span do more units start than the burst and what the rate gives in that span.
    fn keeps_rate(&mut self, key: &CompactString, rate: Rate, cost: u64, now: Timestamp) -> Check {
        if rate.units == 0 {
            return Ok(());
        }
        let burst = u64::from(if rate.burst == 0 { rate.units } else { rate.burst });
        let starts = self.starts.entry(key.clone()).or_default();
        starts.push_back((now, cost.min(burst)));
        if starts.len() > STARTS_KEPT {
            starts.pop_front();
        }
        let mut sum = 0;
        for (at, cost) in starts.iter().rev() {
            sum += cost;
            let given = burst + (now - *at) * u64::from(rate.units) / rate.per_ms + 1;
            if sum > given {
                return broken(
                    "I16",
                    format!("{sum} units of {key} started in {} ms; {given} were due", now - *at),
                );
            }
        }
        Ok(())
    }
}

/// What the shard says would start, if the next command is a fetch that nothing else can disturb.
pub(crate) fn foretold(shard: &Shard, envelope: &Envelope, time: Timestamp) -> Option<Vec<JobId>> {
    let Command::Fetch { queues, max, .. } = &envelope.command else { return None };
    let quiet = time <= shard.time() && shard.next_due().is_none_or(|due| due > shard.time());
    if !quiet || envelope.idempotency_key.is_some() || queues[..] != [workload::routed()] {
        return None;
    }
    let upcoming = shard.upcoming(&queues[0], *max as usize)?;
    Some(upcoming.into_iter().filter(|(_, held)| held.is_none()).map(|(job, _)| job.id).collect())
}

/// It did start, and nothing else.
pub(crate) fn came_true(foretold: Option<Vec<JobId>>, reply: &Reply) -> Check {
    let (Some(foretold), Reply::Fetched(jobs)) = (foretold, reply) else { return Ok(()) };
    let started: Vec<_> = jobs.iter().map(|job| job.id.clone()).collect();
    if started == foretold {
        Ok(())
    } else {
        broken("I16", format!("{foretold:?} were next, {started:?} started"))
    }
}
