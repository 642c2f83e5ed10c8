//! One run: time passes, callers call, the process works, things break.

use crate::{
    Failure, Plan, Planted, Trace,
    history::{Call, Check, Entry, Told, Violation, actor_of, broken, call_of},
    invariants::{
        acked::{self, Crash},
        alert::Alerts,
        bulk::{self, Moment},
        dead, drain, fail_stop, flow, joins, phantom, producers, replay, unique,
    },
    pond::{Machine, Pond},
    script::{Act, Asked, Course, Line, Recording},
    shadow::Shadow,
    shims::Fault,
    workload::{self, Workload},
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{
    Durability, Timestamp,
    random::{Random, mix},
};
use millpond_core::{Effects, Shard, body_key};
use model::{
    BulkControl, BulkStatus, Command, DispatchedJob, Effect, Envelope, JobRef, LeaseRef, Outcome, Reply,
    Settlement, Until, codec,
};
use node::{Answer, Answered, Batch, CallError, Packed, Sealed, Waiter};
use std::collections::VecDeque;
use storage::files::{Damage, Operation};

/// How deep recoveries are interrupted.
const NESTED_MAX: u32 = 3;
/// A drain that takes more rounds than this never ends.
const DRAIN_ROUNDS_MAX: u32 = 30_000;
/// Wall clocks jump ahead by at most this in one run, so that what is kept for a day is there at the end.
const JUMPS_MS_MAX: u64 = 10 * 3_600_000;

/// A batch on its way.
struct Flight {
    sealed: Sealed<u64>,
    written: bool,
    /// Whether the disk had failed when it was written.
    failed: bool,
}

/// The replay of the log from genesis, and the shadow that follows it.
struct Genesis {
    shard: Shard,
    effects: Effects,
    record: u64,
    shadow: Shadow,
    alerts: Alerts,
    /// What the last command left, if it was one that operations work in.
    swept: Option<Moment>,
}

pub(crate) struct World {
    seed: u64,
    plan: Plan,
    recording: Recording,
    /// Of eight faults, how many come about: some seeds crash rarely and grow old, some hardly live.
    frailty: u64,
    clock: Random,
    chooser: Random,
    faults: Random,
    workload: Workload,
    machine: Machine,
    pond: Option<Pond>,
    flights: VecDeque<Flight>,
    calls: Vec<Call>,
    /// Acknowledged and not yet beyond every doubt: position, call, level.
    acked: Vec<(u64, usize, Durability)>,
    genesis: Genesis,
    now: Timestamp,
    jumped: u64,
    step: u64,
    full_until: Option<u64>,
    trace: Trace,
}

impl World {
    pub(crate) fn new(seed: u64, plan: Plan, recording: Recording) -> Self {
        let mut root = Random::new(mix(seed, 0x706f_6e64));
        let mut machine = root.split();
        Self {
            seed,
            plan,
            recording,
            frailty: [3, 3, 4, 8][root.below(4) as usize],
            clock: root.split(),
            chooser: root.split(),
            faults: root.split(),
            workload: Workload::new(root.split()),
            machine: Machine::new(plan, &mut machine),
            pond: None,
            flights: VecDeque::new(),
            calls: Vec::new(),
            acked: Vec::new(),
            genesis: Genesis {
                shard: Shard::new(0),
                effects: Effects { want_changes: true, ..Effects::default() },
                record: 0,
                shadow: Shadow::default(),
                alerts: Alerts::default(),
                swept: None,
            },
            now: Timestamp(1_767_000_000_000),
            jumped: 0,
            step: 0,
            full_until: None,
            trace: Trace::default(),
        }
    }

    pub(crate) fn run(mut self, course: Course) -> Result<Trace, Failure> {
        let began = self.now;
        let outcome = self.live(course).and_then(|()| self.drain());
        self.trace.millis = self.now - began;
        self.trace.calls = self.calls.len() as u64;
        match outcome {
            Ok(()) => Ok(self.trace),
            Err(violation) => Err(Failure { seed: self.seed, step: self.step, violation }),
        }
    }

    fn live(&mut self, course: Course) -> Check {
        self.recover(Crash::Process)?;
        match course {
            Course::Free => {
                while (self.calls.len() as u64) < self.plan.commands {
                    self.begin(self.step + 1);
                    let act = self.choose_act();
                    self.act(act)?;
                }
            }
            Course::Only(steps) => {
                for step in steps {
                    // Time passes in those that are left out as well: what follows happens when it did.
                    while self.step + 1 < step {
                        self.begin(self.step + 1);
                    }
                    self.begin(step);
                    let act = self.choose_act();
                    self.act(act)?;
                }
            }
            Course::Script(lines) => {
                for Line { step, at, act } in lines {
                    self.begin(step);
                    self.now = at;
                    self.act(act)?;
                }
            }
        }
        Ok(())
    }

    /// A step begins: with luck of its own, whatever came before, so that steps can be left out.
    fn begin(&mut self, step: u64) {
        self.step = step;
        let mut root = Random::new(mix(mix(self.seed, 0x7374_6570), step));
        (self.clock, self.chooser, self.faults) = (root.split(), root.split(), root.split());
        self.workload.begin(root.split());
        let pause = if self.clock.chance(1, 12) { self.clock.below(2_000) } else { self.clock.below(8) };
        self.now = self.now + pause;
        if self.full_until.is_some_and(|until| until <= step) {
            self.machine.disk.set_capacity(None);
            self.full_until = None;
        }
    }

    /// By luck that nothing else draws from, so that a script does the same without it.
    fn choose_act(&mut self) -> Act {
        let mut choice = Random::new(mix(mix(self.seed, 0x6163_7473), self.step));
        match choice.below(100) {
            0..58 => {
                let (command, key) = self.workload.next(self.now);
                Act::Call(Box::new(Asked { command, key, level: self.workload.level() }))
            }
            58..88 => Act::Work,
            88..97 => Act::Tend,
            _ if self.plan.faults && choice.chance(self.frailty, 8) => Act::Break(choice.below(20)),
            _ => Act::Rest,
        }
    }

    fn act(&mut self, act: Act) -> Check {
        self.recording.note(|| Line { step: self.step, at: self.now, act: act.clone() });
        match act {
            Act::Call(asked) => self.call_asked(*asked)?,
            Act::Work => self.work()?,
            Act::Tend => self.tend()?,
            Act::Break(what) => self.break_something(what)?,
            Act::Rest => {}
        }
        if self.pond.as_ref().is_some_and(|pond| pond.driver.poison().is_some()) {
            self.crash(Crash::Power)?;
        }
        Ok(())
    }

    /// Notes what happened, for the hash and for people.
    fn note(&mut self, what: impl FnOnce() -> String, value: u64) {
        self.trace.hash = mix(self.trace.hash ^ value, self.step);
        if self.plan.verbose {
            println!("{:>6} {} {}", self.step, self.now, what());
        }
    }

    // Calls

    fn call_asked(&mut self, Asked { command, key, level }: Asked) -> Check {
        if self.plan.planted == Some(Planted::CompletionAndPushInTwoRecords)
            && let Command::Settle { settlements } = &command
            && settlements.iter().any(|settlement| !settlement.push.is_empty())
        {
            return self.call_in_two(settlements, key, level);
        }
        self.call(command, key, level)
    }

    fn call(&mut self, command: Command, key: Option<CompactString>, level: Durability) -> Check {
        let number = self.calls.len();
        let envelope = Envelope { actor: actor_of(number), idempotency_key: key, command };
        self.note(|| format!("call {number} at {level}: {envelope:?}"), number as u64);
        self.calls.push(Call { envelope: envelope.clone(), level, told: Told::Nothing });
        self.offer(number, envelope, level)
    }

    /// The planted bug: the settlement first, its jobs by a call of their own.
    fn call_in_two(
        &mut self,
        settlements: &[Settlement],
        key: Option<CompactString>,
        level: Durability,
    ) -> Check {
        let number = self.calls.len();
        let whole = Command::Settle { settlements: settlements.to_vec() };
        let half = settlements.iter().map(|settlement| Settlement { push: Vec::new(), ..settlement.clone() });
        let jobs = settlements.iter().flat_map(|settlement| settlement.push.clone()).collect();
        let envelope = |command| Envelope { actor: actor_of(number), idempotency_key: key.clone(), command };
        self.calls.push(Call { envelope: envelope(whole), level, told: Told::Nothing });
        self.offer(number, envelope(Command::Settle { settlements: half.collect() }), level)?;
        self.call(Command::Push { jobs }, None, level)
    }

    fn offer(&mut self, number: usize, envelope: Envelope, level: Durability) -> Check {
        let Some(pond) = &mut self.pond else { return Ok(()) };
        let (fetch, push) = match envelope.command {
            Command::Fetch { .. } => (true, false),
            Command::Push { .. } => (false, true),
            _ => (false, false),
        };
        let packed = match Packed::new(envelope) {
            Ok(packed) => packed,
            Err(reject) => return broken("I2", format!("an ordinary call was refused: {reject}")),
        };
        let ticket = number as u64;
        let answered = if fetch {
            let wait = if self.chooser.chance(1, 2) { 0 } else { self.chooser.below(5_000) };
            let until = self.now + wait;
            pond.driver.fetch(Waiter { number: ticket, ticket, packed, level, until }, self.now)
        } else if push {
            // Every other one waits for room, if it meets a queue that lets it. The log's time may be ahead of a clock that was set back.
            let now = self.now.max(pond.driver.shard().time());
            let wait = if self.chooser.chance(1, 2) { 0 } else { self.chooser.below(60_000) };
            let until = now + wait;
            pond.driver.push(Waiter { number: ticket, ticket, packed, level, until }, self.now)
        } else {
            pond.driver.offer(ticket, packed, level)
        };
        self.deliver(answered.into_iter().collect(), false)
    }

    fn deliver(&mut self, answers: Vec<Answered<u64>>, failed: bool) -> Check {
        answers.into_iter().try_for_each(|(ticket, result)| self.tell(ticket as usize, result, failed))
    }

    fn tell(&mut self, number: usize, result: Result<Answer, CallError>, failed: bool) -> Check {
        if self.calls[number].told != Told::Nothing {
            return broken("I2", format!("call {number} was answered twice: {result:?}"));
        }
        let told = match result {
            Ok(answer) => self.acknowledge(number, answer, failed)?,
            Err(CallError::Refused(reject)) => Told::Refused(reject),
            Err(CallError::Overloaded { .. } | CallError::DiskFull | CallError::Stopping) => Told::NotDone,
            Err(CallError::TooDurable { .. }) => return broken("I1", "the log keeps less than `disk`"),
            Err(CallError::Unknown { .. }) => Told::Unknown,
        };
        self.trace.put_off += u64::from(told == Told::NotDone);
        let value = match &told {
            Told::Done { reply, position } => hash_of(reply) ^ *position,
            Told::Refused(reject) => reject.code().len() as u64,
            Told::Nothing => 1,
            Told::NotDone => 2,
            Told::Unknown => 3,
        };
        self.note(|| format!("     {number} -> {told:?}"), value);
        self.calls[number].told = told;
        Ok(())
    }

    fn acknowledge(&mut self, number: usize, answer: Answer, failed: bool) -> Result<Told, Violation> {
        let Answer { mut reply, position, durability } = answer;
        fail_stop::no_ok(failed, position)?;
        acked::level_kept(self.calls[number].level, durability)?;
        self.trace.acked += 1;
        let empty = matches!(&reply, Reply::Fetched(jobs) if jobs.is_empty());
        if empty {
            // It may never have been a command at all: nothing to promise.
            return Ok(Told::Unknown);
        }
        if let Reply::Fetched(jobs) = &mut reply {
            self.fill_bodies(jobs)?;
        }
        // One reply in thirty is lost on the way: the caller does not know, and repeats its call if it can.
        if self.chooser.chance(1, 30) {
            let call = self.calls[number].clone();
            self.acked.push((position, number, durability));
            self.calls[number].told = Told::Done { reply: reply.clone(), position };
            if let Reply::Fetched(jobs) = &reply
                && self.chooser.chance(1, 2)
                && let Some(pond) = &mut self.pond
            {
                pond.driver.hand_back(jobs);
            }
            if call.envelope.idempotency_key.is_some() {
                self.call(call.envelope.command, call.envelope.idempotency_key, call.level)?;
            }
            return Ok(Told::Done { reply, position });
        }
        self.acked.push((position, number, durability));
        self.learn(number, &reply);
        Ok(Told::Done { reply, position })
    }

    /// A body that is not in memory comes from the checkpoint, as the node's shell does it.
    fn fill_bodies(&mut self, jobs: &mut [DispatchedJob]) -> Check {
        let Some(pond) = &self.pond else { return Ok(()) };
        for job in jobs.iter_mut().filter(|job| job.body.is_none()) {
            match pond.keeper.reader().get(0, &body_key(job.sequence)) {
                Ok(Some(body)) => job.body = Some(Bytes::from(body)),
                other => return broken("I1", format!("the body of job {} is gone: {other:?}", job.id)),
            }
        }
        Ok(())
    }

    fn learn(&mut self, number: usize, reply: &Reply) {
        match (&self.calls[number].envelope.command, reply) {
            (Command::Push { jobs }, Reply::Pushed(pushed)) => {
                for (new, pushed) in jobs.iter().zip(pushed) {
                    self.workload.learn_job(&new.queue, &pushed.id);
                }
            }
            (Command::PatchBody { job, body, .. }, Reply::Changed(_)) => self.workload.learn_body(job, body),
            (Command::Join { graph }, Reply::Joined(joined)) => {
                for (named, pushed) in graph.jobs.iter().zip(&joined.jobs) {
                    self.workload.learn_job(&named.job.queue, &pushed.id);
                }
                joined.joins.iter().for_each(|id| self.workload.learn_join(id));
            }
            (Command::Settle { settlements }, Reply::Settled(_)) => {
                for settlement in settlements {
                    if let Outcome::Suspend { until: Until::Child { job }, .. } = &settlement.outcome
                        && let Some(id) = &job.id
                    {
                        self.workload.learn_job(&job.queue, id);
                    }
                }
            }
            (_, Reply::Fetched(jobs)) => jobs.iter().for_each(|job| self.workload.learn_lease(job)),
            _ => {}
        }
    }

    // The process

    /// A few steps of the process, or all it can do.
    fn work(&mut self) -> Check {
        let thorough = self.chooser.chance(1, 2);
        self.advance(thorough)
    }

    fn advance(&mut self, thorough: bool) -> Check {
        loop {
            let mut moved = false;
            self.choose(thorough)?;
            let Some(pond) = &mut self.pond else { return Ok(()) };
            if self.flights.len() < 2
                && let Some(sealed) = pond.driver.seal(self.now)
            {
                self.flights.push_back(Flight { sealed, written: false, failed: false });
                moved = true;
            }
            if thorough || self.chooser.chance(2, 3) {
                moved |= self.write();
            }
            if thorough || self.chooser.chance(2, 3) {
                moved |= self.commit()?;
            }
            if thorough && !moved && self.flights.is_empty() {
                self.pond.as_ref().map_or(Ok(()), |pond| producers::wait_for_room_only(&pond.driver))?;
            }
            if !thorough || !moved {
                return Ok(());
            }
        }
    }

    /// Looks at bodies for an operation, as the node's shell does it.
    fn choose(&mut self, thorough: bool) -> Check {
        let Some(pond) = &mut self.pond else { return Ok(()) };
        if !(thorough || self.chooser.chance(1, 2)) {
            return Ok(());
        }
        let Some(unread) = pond.driver.unread(self.now) else { return Ok(()) };
        let mut chosen = Vec::new();
        for (sequence, body) in &unread.jobs {
            let body = match body {
                Some(body) => body.clone(),
                None => match pond.keeper.reader().get(0, &body_key(*sequence)) {
                    Ok(Some(body)) => Bytes::from(body),
                    other => return broken("I1", format!("the body of job {sequence} is gone: {other:?}")),
                },
            };
            if node::passes(&body, &unread.tests) {
                chosen.push(*sequence);
            }
        }
        pond.driver.choose(unread, chosen);
        Ok(())
    }

    fn write(&mut self) -> bool {
        let Some(pond) = &self.pond else { return false };
        let Some(flight) = self.flights.iter_mut().find(|flight| !flight.written) else { return false };
        pond.writer.write(&mut flight.sealed);
        (flight.written, flight.failed) = (true, self.machine.failed());
        true
    }

    fn commit(&mut self) -> Result<bool, Violation> {
        if !self.flights.front().is_some_and(|flight| flight.written) {
            return Ok(false);
        }
        let (Some(pond), Some(flight)) = (&mut self.pond, self.flights.pop_front()) else { return Ok(false) };
        let committed = pond.driver.commit(flight.sealed);
        for effect in &committed.effects {
            if let Effect::Revoked { lease_token, .. } = effect {
                self.trace.hash = mix(self.trace.hash, *lease_token);
            }
        }
        self.deliver(committed.answers, flight.failed)?;
        Ok(true)
    }

    /// What the shell's threads do beside the batches.
    fn tend(&mut self) -> Check {
        let now = self.now;
        let Some(pond) = &mut self.pond else { return Ok(()) };
        let answers = pond.driver.expire(now);
        self.deliver(answers, false)?;
        self.checkpoint();
        let budget = self.machine.body_budget();
        let Some(pond) = &mut self.pond else { return Ok(()) };
        while pond.driver.shard_mut().evict_bodies(budget) {}
        if self.chooser.chance(1, 4) {
            for sequence in pond.driver.shard_mut().cold_ahead(4) {
                if let Ok(Some(body)) = pond.keeper.reader().get(0, &body_key(sequence))
                    && !pond.driver.shard_mut().warm(sequence, &body.into())
                {
                    return broken(
                        "I10",
                        format!("the body of job {sequence} is not the one that was stored"),
                    );
                }
            }
        }
        Ok(())
    }

    fn checkpoint(&mut self) {
        let Some(pond) = &mut self.pond else { return };
        if pond.driver.checkpoint_due().is_none_or(|due| due > self.now) {
            return;
        }
        let Some(snapshot) = pond.driver.snapshot() else { return };
        match pond.keeper.store(&snapshot, &pond.writer) {
            Ok(true) => {
                pond.driver.stored(snapshot.generation, snapshot.mark);
                self.trace.checkpoints += 1;
            }
            Ok(false) => pond.driver.not_stored(snapshot, self.now),
            Err(reason) => {
                let answers = pond.driver.fail_all(reason);
                // Only refusals of unknown outcome come from here.
                let _ = self.deliver(answers, true);
            }
        }
    }

    // Faults

    fn break_something(&mut self, what: u64) -> Check {
        self.trace.faults += 1;
        let nth = 1 + self.faults.below(4);
        self.note(|| format!("fault {what}"), what);
        match what {
            0..3 => self.crash(Crash::Process)?,
            3..6 => self.crash(Crash::Power)?,
            6..8 => self.machine.disk.cut_power_after(1 + self.faults.below(30)),
            8 => self.machine.disk.inject(Operation::Sync, nth, Damage::Device),
            9 => self.machine.disk.inject(Operation::Write, nth, Damage::Device),
            10 => self.machine.disk.inject(Operation::SyncDir, 1, Damage::Device),
            11 => self.machine.disk.inject(Operation::Write, nth, Damage::Short),
            12 => self.machine.disk.inject(Operation::Write, nth, Damage::Interrupted),
            13 => {
                self.machine.disk.set_capacity(Some(0));
                self.full_until = Some(self.step + 1 + self.faults.below(400));
            }
            14 => {
                let kinds = [Fault::Full, Fault::FailBefore, Fault::FailAfter];
                self.machine.store.inject(kinds[self.faults.below(3) as usize]);
            }
            15 | 16 => {
                let span = [1_000, 30_000, 600_000, 7_200_000][self.clock.below(4) as usize];
                let span = self.clock.below(span).min(JUMPS_MS_MAX - self.jumped);
                self.jumped += span;
                self.now = self.now + span;
            }
            17 | 18 => self.now = Timestamp(self.now.0 - self.clock.below(1_000_000)),
            // Nobody works for a while: leases end, timers bunch.
            _ => self.now = self.now + 40_000,
        }
        Ok(())
    }

    /// The process ends; whoever waits never hears of it. Then it starts again.
    fn crash(&mut self, crash: Crash) -> Check {
        self.trace.crashes += 1;
        self.note(|| format!("crash: {crash:?}"), crash as u64);
        // A disk that failed kept who knows what: nothing but `disk` covers that.
        let crash = if self.machine.failed() { Crash::Power } else { crash };
        match crash {
            Crash::Process => self.machine.disk.kill(),
            Crash::Power => {
                self.machine.disk.crash(&mut self.faults);
                self.machine.store.cut_power();
            }
        }
        self.flights.clear();
        self.pond = None;
        for call in self.calls.iter_mut().rev().take(4_000) {
            if call.told == Told::Nothing {
                call.told = Told::Unknown;
            }
        }
        self.machine.disk.heal();
        self.machine.disk.set_capacity(None);
        self.machine.store.heal();
        if self.faults.chance(1, 3) {
            self.machine.flip_bits(&mut self.faults, crash)?;
        }
        self.recover(crash)
    }

    /// Starts the process; the start itself is cut short up to three times.
    fn recover(&mut self, mut crash: Crash) -> Check {
        for depth in 0.. {
            let disturbed = self.plan.faults && depth < NESTED_MAX && self.faults.chance(1, 4);
            if disturbed {
                self.machine.disk.cut_power_after(1 + self.faults.below(25));
            }
            match self.machine.start(crash)? {
                Ok(pond) => {
                    self.machine.disk.heal();
                    self.pond = Some(pond);
                    break;
                }
                Err(_) if disturbed => {
                    self.trace.faults += 1;
                    crash = Crash::Power;
                    self.machine.disk.crash(&mut self.faults);
                }
                Err(error) => return Machine::refused(&error),
            }
        }
        self.replay()?;
        self.account_for_acked(crash)?;
        let Some(pond) = &self.pond else { return Ok(()) };
        replay::same_state(pond.driver.shard(), &self.genesis.shard)?;
        let position = self.genesis.shard.position();
        self.note(|| format!("recovered at position {position}"), position);
        Ok(())
    }

    /// Lets the replay from genesis follow the log to its end.
    fn replay(&mut self) -> Check {
        let kept = self.machine.tee.kept();
        for payload in &kept.payloads[self.genesis.record as usize..] {
            let batch = match Batch::decode(payload) {
                Ok(batch) => batch,
                Err(error) => return broken("I3", format!("a record does not decode: {error}")),
            };
            if batch.first != self.genesis.shard.position() + 1 {
                return broken("I3", format!("a record begins at position {}", batch.first));
            }
            for (position, envelope) in (batch.first..).zip(batch.envelopes) {
                self.genesis.follow(
                    Entry { position, time: batch.time, envelope, reply: Ok(Reply::Done) },
                    &self.calls,
                )?;
            }
        }
        dead::counted(&self.genesis.shard)?;
        self.genesis.record = kept.payloads.len() as u64;
        Ok(())
    }

    /// What was acknowledged is in the log, or its level did not cover the crash.
    fn account_for_acked(&mut self, crash: Crash) -> Check {
        let end = self.genesis.shard.position();
        for (position, call, level) in std::mem::take(&mut self.acked) {
            if position > end {
                acked::may_be_lost(position, end, level, crash)?;
                self.calls[call].told = Told::Unknown;
            }
        }
        Ok(())
    }

    // The end

    /// Nothing breaks any more; workers take everything to its end.
    fn drain(&mut self) -> Check {
        self.begin(self.step + 1);
        self.machine.disk.heal();
        self.machine.disk.set_capacity(None);
        self.machine.store.heal();
        if self.machine.failed() {
            self.plan.faults = false;
            self.crash(Crash::Power)?;
        }
        self.plan.faults = false;
        // A writer that met a full disk asks for space only now and then.
        self.now = self.now + 5_000;
        for id in workload::schedules() {
            self.advance(true)?;
            self.call(Command::RemoveSchedule { id }, None, Durability::Disk)?;
        }
        for queue in workload::queues() {
            self.advance(true)?;
            self.call(Command::Resume { queue }, None, Durability::Disk)?;
        }
        for command in workload::lift() {
            self.advance(true)?;
            self.call(command, None, Durability::Disk)?;
        }
        self.advance(true)?;
        let paused: Vec<u64> = self.pond.as_ref().map_or(Vec::new(), |pond| {
            let bulks = pond.driver.shard().bulks();
            bulks.into_iter().filter(|bulk| bulk.status == BulkStatus::Paused).map(|bulk| bulk.id).collect()
        });
        for operation in paused {
            let control = if operation % 2 == 0 { BulkControl::Resume } else { BulkControl::Cancel };
            self.call(Command::ControlBulk { operation, control }, None, Durability::Disk)?;
        }
        for _ in 0..DRAIN_ROUNDS_MAX {
            self.step += 1;
            let handed_out = self.drain_round()?;
            let Some(pond) = &self.pond else { return broken("I9", "the pond is down") };
            let shard = pond.driver.shard();
            if drain::live(shard) == 0 && bulk::ended(shard).is_ok() {
                break;
            }
            if handed_out == 0 {
                let due = pond.driver.next_due().unwrap_or(self.now);
                self.now = (self.now + 1).max(due);
            }
        }
        let Some(pond) = &self.pond else { return broken("I9", "the pond is down") };
        drain::drained(pond.driver.shard())?;
        joins::all_ended(pond.driver.shard(), &self.genesis.shadow.joins)?;
        bulk::ended(pond.driver.shard())?;
        // A last crash, and the state is still the same.
        self.crash(Crash::Power)?;
        self.genesis.shadow.finish(self.genesis.shard.time())?;
        self.trace.positions = self.genesis.shard.position();
        self.trace.state = self.genesis.shard.state_hash();
        Ok(())
    }

    /// One worker takes what it can get from every queue, and finishes it.
    fn drain_round(&mut self) -> Result<usize, Violation> {
        let fetch = Command::Fetch { queues: workload::queues(), max: 1_000, lease_ms: 60_000 };
        let number = self.calls.len();
        self.call(fetch, None, Durability::Disk)?;
        self.now = self.now + 5_001;
        self.advance(true)?;
        self.tend()?;
        let Told::Done { reply: Reply::Fetched(jobs), .. } = &self.calls[number].told else { return Ok(0) };
        let done = |job: &DispatchedJob| Settlement {
            lease: LeaseRef {
                job: JobRef { queue: Some(job.queue.clone()), id: job.id.clone() },
                token: job.lease_token,
            },
            outcome: Outcome::Done { result: None },
            push: Vec::new(),
        };
        let settlements: Vec<_> = jobs.iter().map(done).collect();
        let count = settlements.len();
        self.call(Command::Settle { settlements }, None, Durability::Disk)?;
        self.advance(true)?;
        Ok(count)
    }
}

impl Genesis {
    fn follow(&mut self, mut entry: Entry, calls: &[Call]) -> Check {
        phantom_free(&entry, calls)?;
        let sweeps =
            matches!(entry.envelope.command, Command::Tick | Command::Fetch { .. } | Command::Choose(_));
        let last = self.swept.take();
        let before = if sweeps { last.or_else(|| Moment::of(&self.shard)) } else { None };
        let target = dead::target(&self.shard);
        self.alerts.before(&self.shard);
        let foretold = flow::foretold(&self.shard, &entry.envelope, entry.time);
        entry.reply = self.shard.apply(entry.position, entry.time, &entry.envelope, &mut self.effects);
        let effects = std::mem::take(&mut self.effects.list);
        if let Some(target) = target.filter(|_| !matches!(entry.envelope.command, Command::Configure { .. }))
        {
            dead::none_is_lost(&self.shard, &target, &effects)?;
        }
        self.alerts.after(&self.shard, &effects)?;
        phantom::was_asked_for(&entry, calls)?;
        replay::same_answer(&entry, calls)?;
        if let Ok(reply) = &entry.reply {
            flow::came_true(foretold, reply)?;
        }
        if let Some(before) = before {
            let after = Moment::after(&self.shard);
            self.shadow.sweep(&before, &after, self.shard.time())?;
            self.swept = after.under_way();
        }
        self.shadow.follow(&entry, &effects)?;
        self.shadow.fair(&effects)?;
        self.shadow
            .debounced
            .iter()
            .try_for_each(|(job, latest)| unique::waits_no_longer(&self.shard, job, *latest))
    }
}

/// A call that the log knows must be one that was made.
fn phantom_free(entry: &Entry, calls: &[Call]) -> Check {
    match call_of(&entry.envelope.actor) {
        Some(call) if call >= calls.len() => broken("I2", format!("call {call} was never made")),
        _ => Ok(()),
    }
}

fn hash_of(reply: &Reply) -> u64 {
    let mut bytes = Vec::new();
    codec::encode_reply(reply, &mut bytes);
    bytes.chunks(8).fold(bytes.len() as u64, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word), 1)
    })
}
