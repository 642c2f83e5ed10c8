//! How jobs come to stand in lines, lines at gates, and how the next job is found.
//!
//! Where a line stands is not state: it follows which gates it was seen to be held by, and a restored shard places its lines anew. What
//! starts next, and which queues are told that something may start, depends on jobs, rules and meters alone.

use super::{Class, Gate, GateKey, Line, Lineup, Memory, Meter, NO_LINE, Rank, line::Place};
use crate::{job::Job, shard::Shard};
use kit::Timestamp;
use model::{Order, Route, State};
use std::sync::Arc;

/// A stand of so few lines is moved at once when its gate opens; a larger one stays and becomes a source.
const MOVED_AT_ONCE: usize = 8;
/// Lines that an estimate of what may start looks at, for each place where lines stand.
const LOOKED_AT: usize = 64;
/// Lines without live jobs that are kept, with their gates and groups. Each takes about a kilobyte.
const IDLE_LINES_MAX: usize = 16_384;
/// The bit of a rank that says: the lane does not count, waiting does.
const AGED: u64 = 1 << 63;

/// Where a waiting job stands in its line.
pub(super) fn rank_of(job: &Job) -> Rank {
    let rank = job.asked.as_ref().map_or(0, |asked| asked.rank);
    (if rank & AGED == 0 { job.priority.0 } else { 0 }, rank, job.order)
}

impl Shard {
    // Lines

    /// The line of a class, if there is one.
    fn find_line(&self, class: Class<'_>) -> Option<u32> {
        let flow = &self.flow;
        let is_it = |number: &u32| flow.lines[*number].class() == class;
        // Jobs mostly come in runs of one route.
        flow.recent.filter(is_it).or_else(|| flow.line_index.find(class.hash(), is_it).copied())
    }

    /// A job's own copy of a route, or that of its line if it says the same.
    pub(crate) fn share_route(&self, queue: u32, route: &Route) -> Arc<Route> {
        let line = self.find_line(Class::new(queue, route)).map(|number| &self.flow.lines[number].route);
        line.filter(|shared| ***shared == *route).map_or_else(|| Arc::new(route.clone()), Arc::clone)
    }

    /// Gives a live job its line.
    pub(crate) fn join_line(&mut self, slot: u32) {
        let Some(class) = Class::of(&self.jobs[slot]) else { return };
        let number = match self.find_line(class) {
            Some(number) => number,
            None => {
                let line = Line::new(class, 0);
                self.open_line(line)
            }
        };
        self.flow.recent = Some(number);
        if self.flow.lines[number].live == 0 {
            self.wake_line(number);
        }
        self.flow.lines[number].live += 1;
        self.jobs[slot].line = number;
        self.occupy_order(slot, true);
    }

    /// Takes a job out of its line, for good or before it joins another.
    pub(crate) fn quit_line(&mut self, slot: u32) {
        let number = self.jobs[slot].line;
        if number == NO_LINE {
            return;
        }
        self.occupy_order(slot, false);
        self.jobs[slot].line = NO_LINE;
        let line = &mut self.flow.lines[number];
        line.live -= 1;
        if line.live == 0 {
            self.rest_line(number);
        }
    }

    /// Moves a job that stands nowhere to the line that fits it now.
    pub(crate) fn change_line(&mut self, slot: u32) {
        // The new one first, so that gates they share are not dropped in between.
        let former = std::mem::replace(&mut self.jobs[slot].line, NO_LINE);
        self.join_line(slot);
        let joined = std::mem::replace(&mut self.jobs[slot].line, former);
        self.quit_line(slot);
        self.jobs[slot].line = joined;
    }

    /// A job that holds the place of its ordering key enters or leaves its line, or begins to hold it.
    pub(crate) fn occupy_order(&mut self, slot: u32, enters: bool) {
        let job = &self.jobs[slot];
        if job.line == NO_LINE || !job.run.as_ref().is_some_and(|run| run.holds_order) {
            return;
        }
        if let Some(gate) = self.flow.lines[job.line].order {
            self.flow.gates[gate].meter.occupy(None, 1, enters);
            self.gate_moved(gate, !enters);
        }
    }

    fn open_line(&mut self, mut line: Line) -> u32 {
        let (queue, hash) = (line.queue, line.class().hash());
        self.ensure_lineup(queue);
        let limits = line.route.limits.iter().map(|used| (GateKey::Limit(used.key.clone()), used.cost));
        let keys: Vec<_> = limits.chain(line.retry.then_some((GateKey::Retries(queue), 1))).collect();
        let mut gates: Vec<_> = keys.iter().map(|(key, cost)| (self.use_gate(key), *cost)).collect();
        line.order = line.route.ordering_key.clone().map(|key| self.use_gate(&GateKey::Order(queue, key)));
        gates.extend(line.order.filter(|_| !line.holder).map(|gate| (gate, 1)));
        line.gates = gates.into();
        self.lineup_mut(queue).kept += 1;
        let number = self.add_line(line);
        let lines = &self.flow.lines;
        self.flow.line_index.insert_unique(hash, number, |other| lines[*other].class().hash());
        number
    }

    fn add_line(&mut self, mut line: Line) -> u32 {
        let lineup = self.lineup_mut(line.queue);
        line.group = lineup.group(line.route.group.as_deref().unwrap_or_default());
        lineup.groups[line.group].kept += 1;
        self.flow.lines.insert(line)
    }

    /// A line has live jobs again, or its first.
    fn wake_line(&mut self, number: u32) {
        let line = &mut self.flow.lines[number];
        line.idle = 0;
        let (queue, group) = (line.queue, line.group);
        self.ensure_lineup(queue);
        let lineup = self.lineup_mut(queue);
        lineup.lines += 1;
        let found = &mut lineup.groups[group];
        found.lines += 1;
        lineup.idle.remove(&(found.tag, group));
    }

    /// A line has no live job any more. It is kept for a while, because the next of its class is mostly not far.
    fn rest_line(&mut self, number: u32) {
        let flow = &mut self.flow;
        flow.rests += 1;
        flow.idle.push_back((number, flow.rests));
        let line = &mut flow.lines[number];
        line.idle = flow.rests;
        let (queue, group) = (line.queue, line.group);
        let lineup = self.queues[queue as usize].lineup.as_mut().expect("the queue has a lineup");
        lineup.lines -= 1;
        lineup.groups[group].lines -= 1;
        lineup.retire(queue, group, &mut self.dirty);
        self.drop_lineup(queue);
        if self.flow.idle.len() > IDLE_LINES_MAX
            && let Some((oldest, since)) = self.flow.idle.pop_front()
            && self.flow.lines.get(oldest).is_some_and(|line| line.idle == since)
        {
            self.close_line(oldest);
        }
    }

    fn close_line(&mut self, number: u32) {
        let Some(line) = self.flow.lines.remove(number) else { return };
        self.flow.recent = None;
        if let Ok(found) = self.flow.line_index.find_entry(line.class().hash(), |other| *other == number) {
            found.remove();
        }
        let limits = line.limits().iter().map(|(gate, _)| *gate);
        for gate in limits.chain(line.order) {
            self.drop_gate(gate);
        }
        let home = &mut self.queues[line.queue as usize];
        let lineup = home.lineup.as_mut().or(home.shelf.as_mut()).expect("a line is in a lineup");
        lineup.kept -= 1;
        lineup.groups[line.group].kept -= 1;
        lineup.retire(line.queue, line.group, &mut self.dirty);
        if home.shelf.as_ref().is_some_and(|lineup| lineup.kept == 0) {
            let plain = home.shelf.take().map(|lineup| lineup.plain);
            plain.and_then(|plain| self.flow.lines.remove(plain));
        }
    }

    // Lineups

    pub(crate) fn lineup_mut(&mut self, queue: u32) -> &mut Lineup {
        self.queues[queue as usize].lineup.as_mut().expect("the queue has a lineup")
    }

    /// Lets a queue have lines: from now on they decide, and no longer its lanes. Jobs without a route form one.
    pub(crate) fn ensure_lineup(&mut self, queue: u32) {
        let home = &mut self.queues[queue as usize];
        if home.lineup.is_some() {
            return;
        }
        home.lineup = home.shelf.take();
        if home.lineup.is_none() {
            home.lineup = Some(Box::default());
            let plain = self.add_line(Line::new(Class::new(queue, &Route::default()), 0));
            let lineup = self.lineup_mut(queue);
            lineup.plain = plain;
            lineup.groups[0].lines += 1;
        }
        let waiting: Vec<u32> = self.queues[queue as usize]
            .waiting_lanes()
            .flat_map(|(_, lane)| lane.iter_from(0))
            .map(|(_, slot)| slot)
            .collect();
        waiting.into_iter().for_each(|slot| self.line_up(slot));
        self.touch_queue(queue);
    }

    /// A queue without live lines, waiting jobs and set groups has no lineup. Virtual time begins anew with the next; idle lines wait
    /// for it on the shelf.
    pub(crate) fn drop_lineup(&mut self, queue: u32) {
        let home = &mut self.queues[queue as usize];
        let Some(lineup) = &mut home.lineup else { return };
        let plain = lineup.plain;
        if lineup.lines > 0 || !self.flow.lines[plain].jobs.is_empty() || lineup.groups_set > 0 {
            return;
        }
        lineup.begin_anew(queue, &mut self.dirty);
        home.shelf = home.lineup.take().filter(|lineup| lineup.kept > 0);
        if home.shelf.is_none() {
            self.flow.lines.remove(plain);
        }
        self.touch_queue(queue);
    }

    // Waiting jobs

    /// Puts a waiting job into its line, of a queue that has lines.
    pub(crate) fn line_up(&mut self, slot: u32) {
        let job = &self.jobs[slot];
        let (queue, rank, order, number) = (job.queue, rank_of(job), job.order, self.line_number(slot));
        let line = &mut self.flow.lines[number];
        let (first, group) = (line.first(), line.group);
        line.jobs.insert(rank, slot);
        let lineup = self.queues[queue as usize].lineup.as_mut().expect("the queue has a lineup");
        let clock = lineup.clock;
        let group = &mut lineup.groups[group];
        if group.waiting == 0 {
            self.dirty.touch_group(queue, group);
        }
        group.arrive(clock, order);
        match first {
            None => {
                self.come(number);
                self.place(number);
            }
            Some((before, _)) if rank < before => self.rerank(number, before, rank),
            Some(_) => {}
        }
    }

    /// Takes a waiting job out of its line.
    pub(crate) fn line_out(&mut self, slot: u32) {
        let job = &self.jobs[slot];
        let (queue, rank, number) = (job.queue, rank_of(job), self.line_number(slot));
        let line = &mut self.flow.lines[number];
        let was_first = line.first().is_some_and(|(first, _)| first == rank);
        line.jobs.remove(rank);
        let (group, now_first) = (line.group, line.first());
        self.lineup_mut(queue).groups[group].waiting -= 1;
        match now_first {
            _ if !was_first => {}
            Some((first, _)) => self.rerank(number, rank, first),
            None => {
                self.unplace(number, rank);
                self.go(number);
                self.drop_lineup(queue);
            }
        }
    }

    /// The line of a job in a queue that has lines.
    fn line_number(&self, slot: u32) -> u32 {
        let job = &self.jobs[slot];
        match job.line {
            NO_LINE => self.queues[job.queue as usize].lineup.as_ref().map_or(NO_LINE, |lineup| lineup.plain),
            line => line,
        }
    }

    pub(crate) fn line_of(&self, slot: u32) -> &Line {
        &self.flow.lines[self.line_number(slot)]
    }

    /// A line has waiting jobs: its gates know it.
    fn come(&mut self, number: u32) {
        let queue = self.flow.lines[number].queue;
        for at in 0..self.flow.lines[number].gates.len() {
            let (gate, cost) = self.flow.lines[number].gates[at];
            self.flow.gates[gate].waiting.entry((queue, cost)).or_default().lines += 1;
            self.arm(gate);
        }
    }

    /// A line has none any more.
    fn go(&mut self, number: u32) {
        let queue = self.flow.lines[number].queue;
        for at in 0..self.flow.lines[number].gates.len() {
            let (gate, cost) = self.flow.lines[number].gates[at];
            if let Some(waiting) = self.flow.gates[gate].waiting.get_mut(&(queue, cost)) {
                waiting.lines -= 1;
                if waiting.lines == 0 {
                    self.flow.gates[gate].waiting.remove(&(queue, cost));
                    self.lineup_mut(queue).sources.remove(&(gate, cost));
                }
            }
            self.arm(gate);
        }
    }

    // Places

    /// Puts a line where it belongs: with its paused group, at a gate that holds it, or among those that are ready.
    fn place(&mut self, number: u32) {
        let now = self.counters.time;
        let line = &self.flow.lines[number];
        let Some((rank, _)) = line.first() else { return };
        let (queue, group) = (line.queue, line.group);
        let held = line
            .gates
            .iter()
            .copied()
            .find(|(gate, cost)| self.flow.gates[*gate].meter.obstacle(*cost, None, now).is_some());
        let lineup = self.queues[queue as usize].lineup.as_mut().expect("a line is in a lineup");
        let place = if lineup.groups[group].paused {
            lineup.groups[group].parked.insert(number);
            Place::Parked
        } else if let Some((gate, cost)) = held {
            let waiting = self.flow.gates[gate].waiting.entry((queue, cost)).or_default();
            waiting.held.insert(&lineup.groups, group, rank, number);
            self.flow.gates[gate].held += 1;
            lineup.sources.remove(&(gate, cost));
            Place::Held(gate, cost)
        } else {
            lineup.ready.insert(&lineup.groups, group, rank, number);
            Place::Ready
        };
        self.flow.lines[number].place = place;
    }

    /// Takes a line from where it stands, under the rank its first job had.
    fn unplace(&mut self, number: u32, rank: Rank) {
        let line = &mut self.flow.lines[number];
        let (queue, group) = (line.queue, line.group);
        let place = std::mem::replace(&mut line.place, Place::Nowhere);
        let lineup = self.queues[queue as usize].lineup.as_mut().expect("a line is in a lineup");
        match place {
            Place::Nowhere => {}
            Place::Ready => lineup.ready.remove(group, rank, number),
            Place::Held(gate, cost) => {
                if let Some(waiting) = self.flow.gates[gate].waiting.get_mut(&(queue, cost)) {
                    waiting.held.remove(group, rank, number);
                }
                self.flow.gates[gate].held -= 1;
            }
            Place::Parked => {
                lineup.groups[group].parked.remove(&number);
            }
        }
    }

    /// Another job of a line is first.
    fn rerank(&mut self, number: u32, former: Rank, rank: Rank) {
        let line = &self.flow.lines[number];
        let (queue, group, place) = (line.queue, line.group, line.place);
        let lineup = self.queues[queue as usize].lineup.as_mut().expect("a line is in a lineup");
        let stand = match place {
            Place::Nowhere | Place::Parked => return,
            Place::Ready => Some(&mut lineup.ready),
            Place::Held(gate, cost) => {
                self.flow.gates[gate].waiting.get_mut(&(queue, cost)).map(|waiting| &mut waiting.held)
            }
        };
        if let Some(stand) = stand {
            stand.rerank(group, former, rank, number);
        }
    }

    /// Places lines that stood with a paused group.
    pub(crate) fn unpark(&mut self, queue: u32, group: u32) {
        for number in std::mem::take(&mut self.lineup_mut(queue).groups[group].parked) {
            self.flow.lines[number].place = Place::Nowhere;
            self.place(number);
        }
        self.flow.stirred.insert(queue);
    }

    // Gates

    /// The gate of that key, made if new, with one more user.
    pub(crate) fn use_gate(&mut self, key: &GateKey) -> u32 {
        let number = match self.flow.gate_index.get(key) {
            Some(number) => *number,
            None => {
                let limit = match key {
                    GateKey::Limit(name) => self.flow.rules.of(name),
                    GateKey::Order(..) => model::Limit { concurrency: 1, ..Default::default() },
                    GateKey::Queue(queue) => self.queues[*queue as usize].settings.limit,
                    GateKey::Retries(queue) => {
                        super::queue::budget_limit(&self.queues[*queue as usize].settings.retry_budget)
                    }
                };
                let number = self.flow.gates.insert(Gate::new(key.clone(), Meter::new(limit)));
                self.flow.gate_index.insert(key.clone(), number);
                number
            }
        };
        self.flow.gates[number].users += 1;
        number
    }

    /// A gate as a checkpoint remembers it. The user it has is the restore itself, until all jobs have their places.
    pub(crate) fn restore_gate(&mut self, key: GateKey, stored: Memory) -> u32 {
        let number = self.use_gate(&key);
        let meter = &mut self.flow.gates[number].meter;
        let Memory { full_at, closed_until, circuit } = stored;
        (meter.full_at, meter.closed_until, meter.circuit) = (full_at, closed_until, circuit);
        number
    }

    /// One user less. A gate that nobody passes is kept while it remembers something.
    pub(crate) fn drop_gate(&mut self, number: u32) {
        self.flow.gates[number].users -= 1;
        self.arm(number);
        self.forget_gate(number);
    }

    fn forget_gate(&mut self, number: u32) {
        let gate = &self.flow.gates[number];
        if gate.users > 0 || gate.meter.remembers(self.counters.time) {
            return;
        }
        let (key, timer) = (gate.key.clone(), gate.timer);
        self.flow.timers.remove(&(timer, number));
        self.flow.gate_index.remove(&key);
        self.flow.gates.remove(number);
        self.dirty.gates.insert(key);
    }

    /// Sets a gate's timer to when it next opens by itself, or forgets.
    pub(crate) fn arm(&mut self, number: u32) {
        let now = self.counters.time;
        let gate = &mut self.flow.gates[number];
        if gate.timer == Timestamp::ZERO && !gate.meter.is_timed() {
            return;
        }
        let at = if gate.users == 0 { gate.meter.forgets_at() } else { gate.opens_at(now) };
        if at == gate.timer {
            return;
        }
        self.flow.timers.remove(&(gate.timer, number));
        gate.timer = at;
        if at != Timestamp::ZERO {
            self.flow.timers.insert((at, number));
        }
    }

    /// What a gate measures has changed. `opened`: somebody may start who could not before, so queues are told.
    pub(crate) fn gate_moved(&mut self, number: u32, opened: bool) {
        let now = self.counters.time;
        if opened {
            self.stir(number);
        }
        let gate = &self.flow.gates[number];
        if gate.held == 0 {
            // Nobody to move, and sources are stands.
            return self.arm(number);
        }
        let stands: Vec<_> = gate
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.held.len() > 0)
            .map(|(key, waiting)| (*key, waiting.held.len()))
            .collect();
        for ((queue, cost), lines) in stands {
            let gate = &self.flow.gates[number];
            if gate.meter.obstacle(cost, None, now).is_some() {
                self.lineup_mut(queue).sources.remove(&(number, cost));
            } else if lines > MOVED_AT_ONCE {
                self.lineup_mut(queue).sources.insert((number, cost));
            } else {
                let held: Vec<u32> = gate.waiting[&(queue, cost)].held.lines().collect();
                self.lineup_mut(queue).sources.remove(&(number, cost));
                held.into_iter().for_each(|line| self.replace(line));
            }
        }
        self.arm(number);
    }

    fn replace(&mut self, number: u32) {
        if let Some((rank, _)) = self.flow.lines[number].first() {
            self.unplace(number, rank);
            self.place(number);
        }
    }

    /// Lets gates open whose time has come.
    pub(crate) fn open_gates(&mut self) {
        while let Some(&(at, number)) = self.flow.timers.first()
            && at <= self.counters.time
        {
            self.flow.timers.remove(&(at, number));
            self.flow.gates[number].timer = Timestamp::ZERO;
            if self.flow.gates[number].users == 0 {
                self.arm(number);
                self.forget_gate(number);
                continue;
            }
            self.gate_moved(number, true);
            self.release_queue_gate(number);
        }
    }

    /// A job became active, or is no longer: its limits hold more or fewer slots.
    pub(crate) fn charge(&mut self, slot: u32, starts: bool) {
        #[cfg(feature = "plant")]
        if !starts
            && crate::plant::is(crate::plant::Bug::LeakSlot)
            && self.jobs[slot].due <= self.counters.time
        {
            return;
        }
        let job = &self.jobs[slot];
        let (queue, line) = (job.queue, job.line);
        let limits = if line == NO_LINE { 0 } else { self.flow.lines[line].limits().len() };
        for at in 0..limits {
            let (gate, cost) = self.flow.lines[line].gates[at];
            self.flow.gates[gate].meter.occupy(None, cost, starts);
            self.occupied(gate, starts);
        }
        for at in 0..self.queues[queue as usize].gates.len() {
            let gate = self.queues[queue as usize].gates[at];
            self.flow.gates[gate].meter.occupy(Some(queue), 1, starts);
            self.occupied(gate, starts);
        }
    }

    /// Slots of a gate were taken or given back. Those given back matter to those who stand there, and no timer waits for them.
    fn occupied(&mut self, number: u32, starts: bool) {
        if starts || self.flow.gates[number].held > 0 {
            self.gate_moved(number, !starts);
        } else {
            self.stir(number);
        }
    }

    /// Tells the queues that pass a gate that something may start.
    fn stir(&mut self, number: u32) {
        let gate = &self.flow.gates[number];
        self.flow.stirred.extend(gate.waiting.keys().map(|(queue, _)| *queue));
        self.flow.stirred.extend(&gate.queues);
    }

    /// An attempt starts: what is metered is taken, and the group has had its turn. The job still stands in its line.
    pub(crate) fn take_turn(&mut self, slot: u32) {
        let now = self.counters.time;
        let queue = self.jobs[slot].queue;
        let home = &mut self.queues[queue as usize];
        for gate in &home.gates {
            let gate = &mut self.flow.gates[*gate];
            gate.meter.take(1, now);
            self.dirty.touch_gate(gate);
        }
        let Some(lineup) = &mut home.lineup else { return };
        let line = if self.jobs[slot].line == NO_LINE { lineup.plain } else { self.jobs[slot].line };
        let line = &self.flow.lines[line];
        for (gate, cost) in line.limits() {
            let gate = &mut self.flow.gates[*gate];
            gate.meter.take(*cost, now);
            self.dirty.touch_gate(gate);
        }
        let group = line.group;
        lineup.advance(queue, lineup.groups[group].tag, &mut self.dirty);
        let clock = lineup.clock;
        #[cfg(feature = "plant")]
        let stopped = crate::plant::is(crate::plant::Bug::StopGroupTime);
        #[cfg(not(feature = "plant"))]
        let stopped = false;
        if !stopped {
            lineup.groups[group].start(clock);
        }
        self.dirty.touch_group(queue, &mut lineup.groups[group]);
        self.dirty.touch_queue(&mut self.queues, queue);
    }

    /// An attempt ended by itself: breakers hear of it.
    pub(crate) fn record_end(&mut self, slot: u32, failed: bool) {
        let now = self.counters.time;
        let job = &self.jobs[slot];
        if job.line == NO_LINE && self.queues[job.queue as usize].gates.is_empty() {
            return;
        }
        let took_ms = job.run.as_ref().map_or(0, |run| now - run.started_at);
        let guarded = |(gate, _): &(u32, u32)| self.flow.gates[*gate].meter.has_breaker();
        let guarded: Vec<u32> = self.gates_of(slot).filter(guarded).map(|(gate, _)| gate).collect();
        for number in guarded {
            let gate = &mut self.flow.gates[number];
            let moved = gate.meter.record(failed, took_ms, now);
            self.dirty.touch_gate(gate);
            if moved {
                self.gate_moved(number, true);
            }
        }
    }

    /// Every gate that an attempt of this job takes from, with its cost: those of its queue first.
    fn gates_of(&self, slot: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let job = &self.jobs[slot];
        let limits: &[(u32, u32)] =
            if job.line == NO_LINE { &[] } else { self.flow.lines[job.line].limits() };
        let whole = self.queues[job.queue as usize].gates.iter().map(|gate| (*gate, 1));
        whole.chain(limits.iter().copied())
    }

    // The next

    /// The job that starts next in a queue, if any may start now.
    pub(crate) fn next_in_line(&mut self, queue: u32) -> Option<u32> {
        if self.queue_is_held(queue) {
            return None;
        }
        let now = self.counters.time;
        loop {
            let home = &mut self.queues[queue as usize];
            let Some(lineup) = &mut home.lineup else { return home.head() };
            let mut best = lineup.ready.best(&lineup.groups);
            for (gate, cost) in &lineup.sources {
                let waiting = self.flow.gates[*gate].waiting.get_mut(&(queue, *cost));
                let other = waiting.and_then(|waiting| waiting.held.best(&lineup.groups));
                best = [best, other].into_iter().flatten().min();
            }
            let (_, _, _, number) = best?;
            let line = &self.flow.lines[number];
            let held = lineup.groups[line.group].paused
                || line
                    .gates
                    .iter()
                    .any(|(gate, cost)| self.flow.gates[*gate].meter.obstacle(*cost, None, now).is_some());
            if !held {
                return line.first().map(|(_, slot)| slot);
            }
            self.replace(number);
        }
    }

    /// Whether a gate of the queue as a whole is closed.
    fn queue_is_held(&self, queue: u32) -> bool {
        let now = self.counters.time;
        let home = &self.queues[queue as usize];
        home.gates.iter().any(|gate| self.flow.gates[*gate].meter.obstacle(1, Some(queue), now).is_some())
    }

    /// Whether nothing but its place holds a waiting job.
    pub(crate) fn may_start(&self, slot: u32) -> bool {
        let now = self.counters.time;
        let queue = self.jobs[slot].queue;
        let home = &self.queues[queue as usize];
        if self.queue_is_held(queue) {
            return false;
        }
        let Some(lineup) = &home.lineup else { return true };
        let line = &self.flow.lines[self.line_number(slot)];
        !lineup.groups[line.group].paused
            && line
                .gates
                .iter()
                .all(|(gate, cost)| self.flow.gates[*gate].meter.obstacle(*cost, None, now).is_none())
    }

    /// How many jobs of a queue may start now by what holds for all of them: none while it is paused.
    fn startable_by_queue(&self, queue: u32) -> u64 {
        let home = &self.queues[queue as usize];
        if home.paused || self.queue_is_held(queue) {
            return 0;
        }
        let now = self.counters.time;
        let gates = home.gates.iter().map(|gate| self.flow.gates[*gate].meter.allowance(1, Some(queue), now));
        gates.min().unwrap_or(u64::MAX)
    }

    /// The same of jobs that have not come yet, with the guess that they are like those that wait.
    pub(crate) fn startable_to_come(&self, queue: u32) -> u64 {
        let stuck = self.queues[queue as usize].waiting_count() > 0 && self.startable(queue) == 0;
        if stuck { 0 } else { self.startable_by_queue(queue) }
    }

    /// About how many jobs of a queue may start now: none only if none may.
    pub(crate) fn startable(&self, queue: u32) -> u64 {
        let now = self.counters.time;
        let home = &self.queues[queue as usize];
        let most = self.startable_by_queue(queue).min(home.waiting_count());
        let Some(lineup) = &home.lineup else { return most };
        let sources = lineup.sources.iter().filter_map(|(gate, cost)| {
            self.flow.gates[*gate].waiting.get(&(queue, *cost)).map(|waiting| &waiting.held)
        });
        let mut sum: u64 = 0;
        let mut unseen = false;
        for stand in std::iter::once(&lineup.ready).chain(sources) {
            unseen |= stand.len() > LOOKED_AT;
            for number in stand.lines().take(LOOKED_AT) {
                let line = &self.flow.lines[number];
                if !lineup.groups[line.group].paused {
                    let gates = line
                        .gates
                        .iter()
                        .map(|(gate, cost)| self.flow.gates[*gate].meter.allowance(*cost, None, now));
                    sum = sum.saturating_add(gates.min().unwrap_or(u64::MAX).min(line.jobs.len()));
                }
            }
            if sum >= most {
                return most;
            }
        }
        sum.max(u64::from(unseen)).min(most)
    }

    /// The rank that a job which begins to wait gets by its queue's order; zero where arrival decides.
    pub(crate) fn rank_for(&self, slot: u32) -> u64 {
        let job = &self.jobs[slot];
        match self.queues[job.queue as usize].settings.order {
            Order::Priority => 0,
            Order::Deadline => {
                let route = job.asked.as_ref().and_then(|asked| asked.route.as_deref());
                route.and_then(|route| route.deadline).map_or(AGED - 1, |deadline| deadline.0.min(AGED - 2))
            }
            Order::Aging { step_ms } => {
                let credit = step_ms.saturating_mul(u64::from(job.priority.0));
                AGED | self.counters.time.0.saturating_add(credit).min(AGED - 1)
            }
        }
    }

    /// Gives a job that begins to wait its rank. A job that never had one needs no box for it.
    pub(crate) fn assign_rank(&mut self, slot: u32) {
        let job = &self.jobs[slot];
        let queue = job.queue;
        if self.queues[queue as usize].settings.order == Order::Priority
            && job.asked.as_ref().is_none_or(|asked| asked.rank == 0)
        {
            return;
        }
        let rank = if job.state == State::Waiting { self.rank_for(slot) } else { 0 };
        self.jobs[slot].asked.get_or_insert_default().rank = rank;
        if rank != 0 {
            self.ensure_lineup(queue);
        }
    }
}
