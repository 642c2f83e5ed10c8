//! The rule of the dispatcher as plainly as it can be said, for people who ask what is next, and for tests that compare it with what
//! the dispatcher does.

use super::{GateKey, Line, Lineup, Meter, NO_LINE, Obstacle, Rank};
use crate::shard::Shard;
use compact_str::CompactString;
use std::collections::{BTreeMap, BTreeSet};

/// What is next in a queue.
#[derive(Debug, Default)]
pub(crate) struct Forecast {
    /// Jobs that fetches would hand out now, in their order.
    pub(crate) starting: Vec<u32>,
    /// Jobs that something holds, as they would follow if nothing did, with the gate that is closed when those before have started.
    pub(crate) held: Vec<(u32, Option<GateKey>)>,
}

/// A line as the forecast walks it.
struct Walk {
    group: u32,
    gates: Vec<(u32, u32)>,
    /// Waiting jobs from here on, in reverse.
    rest: Vec<(Rank, u32)>,
}

/// Lines by group, groups by virtual time.
struct Turns {
    lines: BTreeMap<u32, BTreeSet<(Rank, usize)>>,
    order: BTreeSet<(u64, u64, u32)>,
    clock: u64,
}

impl Turns {
    fn new(lineup: &Lineup, times: &BTreeMap<u32, (u64, u64)>, clock: u64, walks: &[Walk]) -> Self {
        let mut turns = Self { lines: BTreeMap::new(), order: BTreeSet::new(), clock };
        for (at, walk) in walks.iter().enumerate() {
            if let Some((rank, _)) = walk.rest.last() {
                turns.lines.entry(walk.group).or_default().insert((*rank, at));
            }
        }
        for group in turns.lines.keys() {
            let (tag, seat) = times.get(group).copied().unwrap_or(lineup.groups[*group].at());
            turns.order.insert((tag, seat, *group));
        }
        turns
    }

    /// Takes the next job of the first line that is open. Gates only close while jobs start, so a line that is not goes for good.
    fn next(
        &mut self,
        lineup: &Lineup,
        walks: &mut [Walk],
        open: impl Fn(&Walk) -> bool,
    ) -> Option<(usize, u32)> {
        loop {
            let &(tag, seat, group) = self.order.first()?;
            let lines = self.lines.get_mut(&group)?;
            let Some((_, at)) = lines.pop_first() else {
                self.order.remove(&(tag, seat, group));
                continue;
            };
            if !open(&walks[at]) {
                continue;
            }
            let (_, slot) = walks[at].rest.pop()?;
            if let Some((rank, _)) = walks[at].rest.last() {
                lines.insert((*rank, at));
            }
            self.clock = self.clock.max(tag);
            self.order.remove(&(tag, seat, group));
            self.order.insert((tag.max(self.clock) + lineup.groups[group].step(), seat, group));
            return Some((at, slot));
        }
    }
}

impl Shard {
    /// Of all jobs whose gates are open, the one of the group that is furthest behind, in it the most urgent: again and again, until
    /// `limit` jobs or nothing is left that may start. Then those that are held.
    pub(crate) fn forecast(&self, queue: u32, limit: usize) -> Forecast {
        let home = &self.queues[queue as usize];
        let now = self.counters.time;
        let Some(lineup) = &home.lineup else {
            let slots = || home.waiting_lanes().flat_map(|(_, lane)| lane.iter_from(0)).map(|(_, slot)| slot);
            let most = self.startable(queue).min(limit as u64) as usize;
            let starting: Vec<_> = slots().take(most).collect();
            let filled = home
                .gates
                .iter()
                .min_by_key(|gate| self.flow.gates[**gate].meter.allowance(1, Some(queue), now));
            let filled = filled.map(|gate| self.flow.gates[*gate].key.clone());
            let held = slots().skip(most).take(limit - most).map(|slot| (slot, filled.clone())).collect();
            return Forecast { held, starting };
        };
        let mut walks = self.walks(queue, limit);
        let times: BTreeMap<u32, (u64, u64)> =
            lineup.groups.iter().map(|(number, group)| (number, group.at())).collect();
        let mut turns = Turns::new(lineup, &times, lineup.clock, &walks);
        let mut meters: BTreeMap<u32, Meter> = BTreeMap::new();
        let mut forecast = Forecast::default();
        while !home.paused && forecast.starting.len() < limit {
            let open = |gate: u32, cost: u32, class: Option<u32>| {
                let meter = meters.get(&gate).unwrap_or(&self.flow.gates[gate].meter);
                meter.obstacle(cost, class, now).is_none()
            };
            if !home.gates.iter().all(|gate| open(*gate, 1, Some(queue))) {
                break;
            }
            let passes = |walk: &Walk| {
                !lineup.groups[walk.group].paused
                    && walk.gates.iter().all(|(gate, cost)| open(*gate, *cost, None))
            };
            let Some((at, slot)) = turns.next(lineup, &mut walks, passes) else { break };
            forecast.starting.push(slot);
            let whole = home.gates.iter().map(|gate| (*gate, 1, Some(queue)));
            let gates = walks[at].gates.iter().map(|(gate, cost)| (*gate, *cost, None));
            for (gate, cost, class) in gates.chain(whole) {
                let meter = meters.entry(gate).or_insert_with(|| self.flow.gates[gate].meter.clone());
                meter.take(cost, now);
                meter.occupy(class, cost, true);
            }
        }
        let mut turns = Turns::new(lineup, &times, lineup.clock, &walks);
        while forecast.starting.len() + forecast.held.len() < limit
            && let Some((at, slot)) = turns.next(lineup, &mut walks, |_| true)
        {
            let whole = home.gates.iter().map(|gate| (*gate, 1, Some(queue)));
            let gates = walks[at].gates.iter().map(|(gate, cost)| (*gate, *cost, None));
            let closed = whole.chain(gates).find(|(gate, cost, class)| {
                let meter = meters.get(gate).unwrap_or(&self.flow.gates[*gate].meter);
                meter.obstacle(*cost, *class, now).is_some()
            });
            forecast.held.push((slot, closed.map(|(gate, ..)| self.flow.gates[gate].key.clone())));
        }
        forecast
    }

    fn walks(&self, queue: u32, limit: usize) -> Vec<Walk> {
        let walk = |line: &Line| {
            let mut rest = line.jobs.take(limit);
            rest.reverse();
            Walk { group: line.group, gates: line.gates.to_vec(), rest }
        };
        self.lines_of(queue).map(walk).collect()
    }

    /// The lines of a queue that have waiting jobs.
    fn lines_of(&self, queue: u32) -> impl Iterator<Item = &Line> {
        let lines = self.flow.lines.iter().map(|(_, line)| line);
        lines.filter(move |line| line.queue == queue && !line.jobs.is_empty())
    }

    /// How many waiting jobs of a queue nothing but their places hold.
    pub(crate) fn free_count(&self, queue: u32) -> u64 {
        let home = &self.queues[queue as usize];
        if home.paused || self.startable(queue) == 0 {
            return 0;
        }
        if home.lineup.is_none() {
            return home.waiting_count();
        }
        let open = |line: &&Line| line.first().is_some_and(|(_, slot)| self.may_start(slot));
        self.lines_of(queue).filter(open).map(|line| line.jobs.len()).sum()
    }

    /// What holds a waiting job, beside its place and its paused queue: the gate's key and why it is closed.
    pub(crate) fn obstacles(&self, slot: u32) -> Vec<(GateKey, Obstacle)> {
        let now = self.counters.time;
        let job = &self.jobs[slot];
        let whole = self.queues[job.queue as usize].gates.iter().map(|gate| (*gate, 1, Some(job.queue)));
        let line = (job.line != NO_LINE).then(|| &self.flow.lines[job.line]);
        let line = line.into_iter().flat_map(|line| &line.gates).map(|(gate, cost)| (*gate, *cost, None));
        let gates = whole.chain(line);
        gates
            .filter_map(|(gate, cost, class)| {
                let gate = &self.flow.gates[gate];
                Some((gate.key.clone(), gate.meter.obstacle(cost, class, now)?))
            })
            .collect()
    }

    /// The paused group of a waiting job.
    pub(crate) fn paused_group(&self, slot: u32) -> Option<CompactString> {
        let job = &self.jobs[slot];
        let lineup = self.queues[job.queue as usize].lineup.as_ref()?;
        let name =
            job.asked.as_ref().and_then(|asked| asked.route.as_ref()?.group.clone()).unwrap_or_default();
        let group = &lineup.groups[*lineup.group_index.get(&name)?];
        group.paused.then(|| group.name.clone())
    }
}
