//! What must hold of lines and gates at every moment.

use super::{Class, GateKey, NO_LINE, dispatch::rank_of, line::Place};
use crate::shard::Shard;
use model::State;
use std::collections::{BTreeMap, BTreeSet};

impl Shard {
    /// Compares lines and gates with the jobs themselves: slots above all, which must follow from live leases.
    pub(crate) fn check_flow(&self) -> Result<(), String> {
        let mut live: BTreeMap<u32, u32> = BTreeMap::new();
        let mut waiting: BTreeMap<u32, u64> = BTreeMap::new();
        let mut in_use: BTreeMap<u32, u64> = BTreeMap::new();
        let mut shares: BTreeMap<(u32, u32), u64> = BTreeMap::new();
        for (slot, job) in self.jobs.iter() {
            let fail = |what: &str| Err(format!("job {} ({}): {what}", job.sequence, job.state));
            let routed = job.asked.as_ref().is_some_and(|asked| asked.route.is_some())
                || job.run.as_ref().is_some_and(|run| run.budgeted);
            if (job.line != NO_LINE) != (routed && !job.state.is_final()) {
                return fail("it is in a line exactly while it is live and has a route");
            }
            let queue = &self.queues[job.queue as usize];
            if job.line != NO_LINE {
                *live.entry(job.line).or_default() += 1;
                let line = &self.flow.lines[job.line];
                if Class::of(job) != Some(line.class()) {
                    return fail("it is in the line of another class");
                }
                if let Some(gate) = line.order.filter(|_| job.run.as_ref().is_some_and(|run| run.holds_order))
                {
                    *in_use.entry(gate).or_default() += 1;
                }
            }
            if job.state == State::Active {
                let limits: &[(u32, u32)] =
                    if job.line == NO_LINE { &[] } else { self.flow.lines[job.line].limits() };
                for (gate, cost) in limits {
                    *in_use.entry(*gate).or_default() += u64::from(*cost);
                }
                for gate in &queue.gates {
                    *in_use.entry(*gate).or_default() += 1;
                    *shares.entry((*gate, job.queue)).or_default() += 1;
                }
            }
            if job.state == State::Waiting
                && let Some(lineup) = &queue.lineup
            {
                let number = if job.line == NO_LINE { lineup.plain } else { job.line };
                if self.flow.lines[number].jobs.get(rank_of(job)) != Some(slot) {
                    return fail("it does not stand in its line");
                }
                *waiting.entry(number).or_default() += 1;
            }
        }
        let mut users: BTreeMap<u32, u32> = BTreeMap::new();
        let mut standing: BTreeMap<(u32, u32, u32), BTreeSet<u32>> = BTreeMap::new();
        for (number, line) in self.flow.lines.iter() {
            let fail = |what: &str| Err(format!("line {number} {:?}: {what}", line.class()));
            let plain = &self.queues[line.queue as usize];
            let plain = plain.lineup.as_ref().or(plain.shelf.as_ref()).map(|lineup| lineup.plain);
            if plain != Some(number) && line.live != live.get(&number).copied().unwrap_or(0) {
                return fail("its live jobs are miscounted");
            }
            if plain != Some(number)
                && (line.live == 0) != self.flow.idle.iter().any(|idle| *idle == (number, line.idle))
            {
                return fail("it is idle exactly while it has no live job");
            }
            if line.jobs.len() != waiting.get(&number).copied().unwrap_or(0) {
                return fail("its waiting jobs are miscounted");
            }
            if line.jobs.is_empty() != (line.place == Place::Nowhere) {
                return fail("it stands somewhere exactly while it has waiting jobs");
            }
            line.limits().iter().map(|(gate, _)| *gate).chain(line.order).for_each(|gate| {
                *users.entry(gate).or_default() += 1;
            });
            if !line.jobs.is_empty() {
                for (gate, cost) in line.gates.iter().copied() {
                    standing.entry((gate, line.queue, cost)).or_default().insert(number);
                }
            }
        }
        self.queues
            .iter()
            .flat_map(|queue| &queue.gates)
            .for_each(|gate| *users.entry(*gate).or_default() += 1);
        for (number, gate) in self.flow.gates.iter() {
            let fail = |what: &str| Err(format!("gate {:?}: {what}", gate.key));
            if gate.meter.in_use != in_use.get(&number).copied().unwrap_or(0) {
                return fail("its slots do not follow from the live leases");
            }
            if gate.users != users.get(&number).copied().unwrap_or(0) {
                return fail("its users are miscounted");
            }
            if gate
                .meter
                .shares
                .iter()
                .any(|(queue, share)| share.in_use != shares.get(&(number, *queue)).copied().unwrap_or(0))
            {
                return fail("the slots of a class do not follow from the live leases");
            }
            for ((queue, cost), found) in &gate.waiting {
                let lines = standing.get(&(number, *queue, *cost)).map_or(0, BTreeSet::len);
                if found.lines as usize != lines {
                    return fail("the lines before it are miscounted");
                }
            }
            if let GateKey::Order(..) = gate.key
                && gate.meter.in_use > 1
            {
                return fail("two jobs hold one ordering key");
            }
            if gate.timer != kit::Timestamp::ZERO && !self.flow.timers.contains(&(gate.timer, number)) {
                return fail("its timer is not set");
            }
        }
        self.check_dispatch()
    }

    /// What the dispatcher would find first is what the plain rule says.
    fn check_dispatch(&self) -> Result<(), String> {
        let now = self.counters.time;
        for (number, line) in self.flow.lines.iter() {
            let queue = line.queue;
            let Place::Held(gate, cost) = line.place else { continue };
            let gate_is_open = self.flow.gates[gate].meter.obstacle(cost, None, now).is_none();
            let lineup = self.queues[queue as usize].lineup.as_ref();
            let timed =
                self.flow.gates[gate].timer != kit::Timestamp::ZERO && self.flow.gates[gate].timer <= now;
            if gate_is_open && !timed && !lineup.is_some_and(|lineup| lineup.sources.contains(&(gate, cost)))
            {
                return Err(format!("line {number}: it stands at an open gate where nobody looks"));
            }
        }
        Ok(())
    }
}
