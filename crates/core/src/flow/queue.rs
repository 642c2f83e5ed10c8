//! The gates that a queue passes as a whole: its own limit, its share of a pool, the budget of its retries.

use super::{GateKey, gate::Share};
use crate::shard::Shard;
use kit::Timestamp;
use model::{Limit, Rate, RetryBudget, State};

/// Retries that may start at once after a pause.
const RETRY_BURST_MIN: u32 = 10;

/// A budget as a rate: successes give units back, see [`super::Meter::give_back`].
pub(super) fn budget_limit(budget: &RetryBudget) -> Limit {
    if budget.percent == 0 && budget.per_minute == 0 {
        return Limit::default();
    }
    let units = budget.per_minute.max(1);
    Limit { rate: Rate { units, per_ms: 60_000, burst: units.max(RETRY_BURST_MIN) }, ..Limit::default() }
}

impl Shard {
    /// Makes the gates of a queue those that its settings ask for. What its own gate remembers stays.
    pub(crate) fn set_queue_gates(&mut self, queue: u32) {
        let home = &self.queues[queue as usize];
        let active = home.counts.of(State::Active);
        let (limit, bulkhead) = (home.settings.limit, home.settings.bulkhead.clone());
        let budget = budget_limit(&home.settings.retry_budget);
        let former = std::mem::take(&mut self.queues[queue as usize].gates);
        let own = GateKey::Queue(queue);
        // A limit that is gone goes from the gate, too: what it counted would be remembered by nobody's rule.
        let remembers = self.flow.gate_index.get(&own).is_some_and(|gate| {
            let meter = &mut self.flow.gates[*gate].meter;
            meter.set_limit(limit);
            self.dirty.gates.insert(own.clone());
            meter.closed_until > self.counters.time
        });
        let mut gates = Vec::new();
        if !limit.is_none() || remembers {
            gates.push(self.use_gate(&own));
        }
        if !bulkhead.pool.is_empty() {
            gates.push(self.use_gate(&GateKey::Limit(bulkhead.pool.clone())));
        }
        for gate in former {
            let meter = &mut self.flow.gates[gate].meter;
            meter.in_use -= active;
            meter.shares.remove(&queue);
            self.flow.gates[gate].queues.remove(&queue);
            self.gate_moved(gate, true);
            self.drop_gate(gate);
        }
        for gate in &gates {
            let gate = &mut self.flow.gates[*gate];
            gate.queues.insert(queue);
            gate.meter.in_use += active;
            if gate.key != own {
                let (reserved, max) = (bulkhead.reserved.into(), bulkhead.max.into());
                gate.meter.shares.insert(queue, Share { reserved, max, in_use: active });
            }
        }
        gates.iter().for_each(|gate| self.gate_moved(*gate, true));
        self.queues[queue as usize].gates = gates;
        if let Some(gate) = self.flow.gate_index.get(&GateKey::Retries(queue)).copied() {
            self.flow.gates[gate].meter.set_limit(budget);
            self.dirty.gates.insert(GateKey::Retries(queue));
            self.gate_moved(gate, true);
        }
        self.flow.stirred.insert(queue);
    }

    /// Nothing of the queue starts before that time, because what it needs said so.
    pub(crate) fn close_queue(&mut self, queue: u32, until: Timestamp) {
        let gate = self.use_gate(&GateKey::Queue(queue));
        self.close_gate(gate, until);
        if !self.queues[queue as usize].gates.contains(&gate) {
            self.set_queue_gates(queue);
        }
        self.drop_gate(gate);
    }

    /// Nothing passes a gate before that time.
    pub(crate) fn close_gate(&mut self, number: u32, until: Timestamp) {
        let gate = &mut self.flow.gates[number];
        gate.meter.closed_until = gate.meter.closed_until.max(until);
        self.dirty.gates.insert(gate.key.clone());
        self.gate_moved(number, false);
    }

    /// A queue that was closed for a while and has no limit of its own needs no gate any more.
    pub(crate) fn release_queue_gate(&mut self, number: u32) {
        let GateKey::Queue(queue) = self.flow.gates[number].key else { return };
        if self.queues[queue as usize].settings.limit.is_none() {
            self.set_queue_gates(queue);
        }
    }

    /// A job of a queue with a budget succeeded: more of its retries may start.
    pub(crate) fn earn_retries(&mut self, queue: u32) {
        let percent = self.queues[queue as usize].settings.retry_budget.percent;
        if percent == 0 {
            return;
        }
        if let Some(number) = self.flow.gate_index.get(&GateKey::Retries(queue)).copied() {
            let gate = &mut self.flow.gates[number];
            gate.meter.give_back(percent);
            self.dirty.gates.insert(gate.key.clone());
            self.gate_moved(number, true);
        }
    }
}
