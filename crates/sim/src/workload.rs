//! What clients and workers do, drawn from a seed.

use bytes::Bytes;
use compact_str::{CompactString, format_compact};
use kit::{Backoff, Durability, Timestamp, random::Random};
use model::{
    Alert, BodyTest, Breaker, BulkAction, BulkControl, Bulkhead, Capacity, CatchUp, Command, Compare, Crash,
    DeadLetter, DispatchedJob, ErrorInfo, Filter, Graph, Ignore, JobId, JobRef, Keep, LeaseRef, Limit,
    LimitUse, NamedJob, NewBulk, NewJob, NewJoin, OnConflict, OnFailure, OnFull, Order, Outcome, Overlap,
    Policy, Priority, QueueName, QueuePatch, Rate, Rest, RetryBudget, Route, ScheduleId, ScheduleSpec,
    Settlement, State, Unique, Until, When,
};
use std::collections::VecDeque;

const QUEUES: u64 = 7;
/// Queues below this number are strict: see [`strict`].
const STRICT: u64 = 3;
/// What handlers report.
pub(crate) const ERROR_KIND: &str = "TypeError";
/// How many jobs and calls clients remember.
const REMEMBERED: usize = 400;

/// Queue number `number`.
pub(crate) fn queue(number: u64) -> QueueName {
    QueueName::new(&format!("q{number}")).unwrap_or_else(|bad| unreachable!("{bad}"))
}

/// Every queue.
pub(crate) fn queues() -> Vec<QueueName> {
    (0..=QUEUES).map(queue).collect()
}

const SCHEDULES: u64 = 3;

/// Every schedule.
pub(crate) fn schedules() -> Vec<ScheduleId> {
    let id = |number| ScheduleId::new(&format!("s{number}")).unwrap_or_else(|bad| unreachable!("{bad}"));
    (0..SCHEDULES).map(id).collect()
}

/// Whether jobs of this queue change only by calls that name them: no bulk operations, no replacements, no drops.
pub(crate) fn strict(queue: &QueueName) -> bool {
    queue.as_str() < "q3"
}

/// The queue that most operations sweep. No replacements, no drops and no other retention here, so that they can be counted.
pub(crate) fn swept() -> QueueName {
    queue(5)
}

/// The loose queue that jobs of the swept one are moved to.
pub(crate) fn beside() -> QueueName {
    queue(4)
}

/// The queue whose jobs have routes: groups, ordering keys, limits. No operations sweep it.
pub(crate) fn routed() -> QueueName {
    queue(6)
}

/// The queue whose jobs go on to [`letters`] when they die. It is loose.
pub(crate) fn mortal() -> QueueName {
    queue(3)
}

/// Where dead letters go. Nothing is pushed here.
pub(crate) fn letters() -> QueueName {
    queue(QUEUES)
}

/// Limit keys and patterns that the routed queue uses.
pub(crate) const LIMITS: [&str; 4] = ["api", "user:1", "user:2", "user:*"];
/// Groups of the routed queue.
pub(crate) const GROUPS: [&str; 3] = ["a", "b", "c"];

/// The number of a job, as its body says.
pub(crate) fn number_of(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.strip_prefix("{\"n\":")?.split(',').next()?.parse().ok()
}

fn tame(queue: &QueueName) -> bool {
    strict(queue) || *queue == swept() || *queue == routed()
}

/// A job in a worker's hands, as far as the worker knows.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) lease: LeaseRef,
}

/// The callers' side: what they remember, and what they do next.
pub(crate) struct Workload {
    random: Random,
    jobs: VecDeque<JobRef>,
    joins: VecDeque<JobId>,
    /// Keyed calls, to be repeated.
    keyed: VecDeque<(CompactString, Command)>,
    /// Leases that workers hold or held; stale ones stay for late answers.
    held: VecDeque<Held>,
    /// Jobs that were suspended until a signal comes.
    waiting: VecDeque<JobRef>,
    /// Bodies that somebody saw; the job may have another one by now.
    seen: VecDeque<(JobRef, Bytes)>,
    made: u64,
    /// Operations started, about.
    bulks: u64,
}

impl Workload {
    pub(crate) fn new(random: Random) -> Self {
        Self {
            random,
            jobs: VecDeque::new(),
            joins: VecDeque::new(),
            keyed: VecDeque::new(),
            held: VecDeque::new(),
            waiting: VecDeque::new(),
            seen: VecDeque::new(),
            made: 0,
            bulks: 0,
        }
    }

    /// The next step begins, with luck of its own.
    pub(crate) fn begin(&mut self, random: Random) {
        self.random = random;
    }

    /// The level of the next call.
    pub(crate) fn level(&mut self) -> Durability {
        match self.random.below(10) {
            0 => Durability::Memory,
            1 | 2 => Durability::Os,
            _ => Durability::Disk,
        }
    }

    /// A client heard of a job.
    pub(crate) fn learn_job(&mut self, queue: &QueueName, id: &JobId) {
        let named = matches!(id, JobId::Text(_)) || self.random.chance(1, 2);
        let job = JobRef { queue: named.then(|| queue.clone()), id: id.clone() };
        remember(&mut self.random, &mut self.jobs, job);
    }

    /// A worker got a job. Workers that vanish never answer for it.
    pub(crate) fn learn_lease(&mut self, job: &DispatchedJob) {
        let job_ref = JobRef { queue: Some(job.queue.clone()), id: job.id.clone() };
        if let Some(body) = &job.body {
            self.learn_body(&job_ref, body);
        }
        if self.random.chance(1, 12) {
            return;
        }
        let held = Held { lease: LeaseRef { job: job_ref, token: job.lease_token } };
        remember(&mut self.random, &mut self.held, held);
    }

    /// A client saw a body.
    pub(crate) fn learn_body(&mut self, job: &JobRef, body: &Bytes) {
        remember(&mut self.random, &mut self.seen, (job.clone(), body.clone()));
    }

    /// The next call: its command and its key.
    pub(crate) fn next(&mut self, now: Timestamp) -> (Command, Option<CompactString>) {
        if self.random.chance(1, 25)
            && let Some((key, command)) = recall(&mut self.random, &self.keyed, REMEMBERED)
        {
            // Now and then somebody uses a key for something else.
            let command = if self.random.chance(1, 10) { self.command(now) } else { command };
            return (command, Some(key));
        }
        let command = self.command(now);
        if !self.random.chance(1, 5) {
            return (command, None);
        }
        self.made += 1;
        let key = format_compact!("key-{}", self.made);
        remember(&mut self.random, &mut self.keyed, (key.clone(), command.clone()));
        (command, Some(key))
    }

    fn command(&mut self, now: Timestamp) -> Command {
        match self.random.below(110) {
            100..104 => self.step(),
            104..109 => self.signal(),
            109.. => Command::Restart { jobs: vec![self.job()] },
            0..34 => {
                let count = if self.random.chance(1, 6) { 1 + self.random.below(8) } else { 1 };
                Command::Push { jobs: (0..count).map(|_| self.new_job(now)).collect() }
            }
            34..54 => self.fetch(),
            54..76 => self.settle(now),
            76..80 => {
                let leases = (0..1 + self.random.below(3)).map(|_| self.lease()).collect();
                Command::Renew { leases, lease_ms: self.lease_ms() }
            }
            80..82 => Command::Progress { lease: self.lease(), value: Bytes::from_static(b"{\"done\":1}") },
            83 => self.patch_body(),
            82 => Command::Log { lease: self.lease(), lines: vec!["a line".into(), "another".into()] },
            84..87 => Command::Cancel { job: self.job(), reason: "no longer needed".into() },
            87..89 => Command::Promote { jobs: vec![self.job()] },
            89..92 => Command::Redrive { jobs: vec![self.job()] },
            92 => Command::Remove { jobs: vec![self.job()] },
            93 if self.random.chance(1, 3) => self.set_flow(),
            93 if self.random.chance(1, 2) => self.join(now),
            93 if self.random.chance(1, 20) => Command::RaiseTokens { seconds: self.random.below(1_000) },
            93 => Command::Pause { queue: self.queue() },
            94..97 => Command::Resume { queue: self.queue() },
            97 if self.random.chance(2, 3) => self.schedule(now),
            97 if self.random.chance(1, 3) => self.dead_letter(),
            97 => self.configure(),
            98 if self.random.chance(1, 3) => {
                let control = [BulkControl::Pause, BulkControl::Resume, BulkControl::Cancel];
                let operation = 1 + self.random.below(self.bulks.max(1));
                Command::ControlBulk { operation, control: control[self.random.below(3) as usize] }
            }
            _ => self.bulk(now),
        }
    }

    fn queue(&mut self) -> QueueName {
        queue(self.random.below(QUEUES))
    }

    fn loose_queue(&mut self) -> QueueName {
        queue(STRICT + self.random.below(QUEUES - STRICT - 1))
    }

    fn job(&mut self) -> JobRef {
        match recall(&mut self.random, &self.jobs, REMEMBERED) {
            Some(job) if !self.random.chance(1, 40) => job,
            _ => JobRef { queue: Some(self.queue()), id: JobId::Text("nobody".into()) },
        }
    }

    fn lease(&mut self) -> LeaseRef {
        // Mostly one of the newest, which may still be live.
        let newest = if self.random.chance(5, 6) { 20 } else { REMEMBERED };
        let held = recall(&mut self.random, &self.held, newest);
        let mut lease = held.map_or_else(|| LeaseRef { job: self.job(), token: 1 }, |held| held.lease);
        if self.random.chance(1, 40) {
            lease.token = lease.token.saturating_sub(1 + self.random.below(3));
        }
        lease
    }

    fn lease_ms(&mut self) -> u64 {
        match self.random.below(4) {
            0 => 0,
            1 => 100 + self.random.below(2_000),
            _ => 5_000 + self.random.below(60_000),
        }
    }

    fn fetch(&mut self) -> Command {
        if self.random.chance(1, 12) {
            let max = 1 + self.random.below(6) as u32;
            return Command::Fetch { queues: vec![letters()], max, lease_ms: self.lease_ms() };
        }
        if self.random.chance(1, 6) {
            let max = 1 + self.random.below(6) as u32;
            return Command::Fetch { queues: vec![routed()], max, lease_ms: self.lease_ms() };
        }
        let mut queues: Vec<QueueName> = (0..1 + self.random.below(4)).map(|_| self.queue()).collect();
        queues.dedup();
        Command::Fetch { queues, max: 1 + self.random.below(6) as u32, lease_ms: self.lease_ms() }
    }

    fn settle(&mut self, now: Timestamp) -> Command {
        let count = if self.random.chance(1, 4) { 1 + self.random.below(4) } else { 1 };
        Command::Settle { settlements: (0..count).map(|_| self.settlement(now)).collect() }
    }

    fn settlement(&mut self, now: Timestamp) -> Settlement {
        let message = format_compact!("'{}' is not a number at {}", self.made, self.made * 7);
        let stack = format_compact!("at parse (main.js:{}:3)", self.made);
        let error = ErrorInfo { kind: ERROR_KIND.into(), message, stack };
        let wait = [0, 50, 1_000, 20_000][self.random.below(4) as usize];
        let outcome = match self.random.below(24) {
            0..11 => Outcome::Done { result: self.random.chance(1, 3).then(|| Bytes::from_static(b"42")) },
            11..14 => Outcome::Retry { error, after_ms: self.random.chance(1, 2).then_some(wait) },
            14 => Outcome::Crash(crash(error.stack)),
            15 => Outcome::Fail { error },
            16..19 => Outcome::Snooze { after_ms: wait },
            19..23 => self.suspend(now),
            _ => Outcome::Cancel { reason: "changed its mind".into() },
        };
        let lease = self.lease();
        let limited = lease.job.queue == Some(routed());
        let outcome = if limited && self.random.chance(1, 8) {
            let key = self.random.chance(1, 2).then(|| "api".into());
            Outcome::RateLimited { key, after_ms: 1 + self.random.below(5_000) }
        } else {
            outcome
        };
        // Who waited for a signal once does so again, so that one that was taken is asked for once more.
        let outcome = if self.waiting.contains(&lease.job) && self.random.chance(1, 2) {
            Outcome::Suspend { step: self.step_name(), until: self.until_signal() }
        } else {
            outcome
        };
        if matches!(outcome, Outcome::Suspend { until: Until::Signal { .. }, .. }) {
            remember(&mut self.random, &mut self.waiting, lease.job.clone());
        }
        let pushes = if self.random.chance(1, 5) { 1 + self.random.below(3) } else { 0 };
        let push = (0..pushes).map(|_| self.new_job(now)).collect();
        // A job of a strict queue, or of one that is watched, does not wait: its join may end it behind the shadow's back.
        let loose = lease.job.queue.as_ref().is_some_and(|queue| !strict(queue) && *queue != swept());
        if loose && self.random.chance(1, 12) {
            let mut children = self.graph(now);
            if let Some(last) = children.joins.last_mut() {
                last.then = None;
            }
            return Settlement { lease, outcome: Outcome::Wait { children }, push };
        }
        Settlement { lease, outcome, push }
    }

    fn step_name(&mut self) -> CompactString {
        format_compact!("s{}", self.random.below(8))
    }

    fn step(&mut self) -> Command {
        self.made += 1;
        let result = Bytes::from(format!("\"result {}\"", self.made));
        Command::Step { lease: self.lease(), name: self.step_name(), result }
    }

    fn signal(&mut self) -> Command {
        self.made += 1;
        let job = match recall(&mut self.random, &self.waiting, REMEMBERED) {
            Some(job) if self.random.chance(1, 2) => job,
            // One that runs keeps its signal until it asks.
            _ if self.random.chance(4, 5) => {
                let job = self.lease().job;
                remember(&mut self.random, &mut self.waiting, job.clone());
                job
            }
            _ => self.job(),
        };
        let name = self.signal_name();
        Command::Signal { job, name, body: Bytes::from(format!("\"signal {}\"", self.made)) }
    }

    /// A body that was seen, with another member; its number stays.
    fn patch_body(&mut self) -> Command {
        self.made += 1;
        // Mostly one of the newest: its job may live still.
        let newest = if self.random.chance(5, 6) { 40 } else { REMEMBERED };
        let seen = recall(&mut self.random, &self.seen, newest);
        let (job, seen) = seen.unwrap_or_else(|| (self.job(), Bytes::new()));
        // Somebody else may have looked at it long ago.
        let first = self.seen.iter().find(|(other, _)| *other == job).map(|(_, body)| body.clone());
        let seen = first.filter(|_| self.random.chance(1, 3)).unwrap_or(seen);
        let number = number_of(&seen).unwrap_or(self.made);
        let filler = if self.random.chance(1, 8) { self.random.below(3_000) } else { self.random.below(40) };
        let body = format!(
            "{{\"n\":{number},\"patch\":{},\"fill\":\"{}\"}}",
            self.made,
            "y".repeat(filler as usize)
        );
        Command::PatchBody { job, expected_crc: crc32c::crc32c(&seen), body: Bytes::from(body) }
    }

    fn signal_name(&mut self) -> CompactString {
        format_compact!("g{}", u8::from(self.random.chance(1, 5)))
    }

    fn until_signal(&mut self) -> Until {
        Until::Signal { name: self.signal_name(), timeout_ms: 1 + self.random.below(90_000) }
    }

    fn suspend(&mut self, now: Timestamp) -> Outcome {
        let until = match self.random.below(3) {
            0 => Until::Time { after_ms: self.random.below(2) * self.random.below(20_000) },
            1 => self.until_signal(),
            _ => {
                // Its own id, and a queue in which nothing happens behind the shadow's back.
                let mut job = self.new_job(now);
                job.queue = queue(self.random.below(STRICT));
                job.route = None;
                job.id = Some(JobId::Text(format_compact!("child-{}", self.made)));
                job.unique = None;
                Until::Child { job: Box::new(job) }
            }
        };
        Outcome::Suspend { step: self.step_name(), until }
    }

    fn new_job(&mut self, now: Timestamp) -> NewJob {
        self.made += 1;
        let queue = self.queue();
        let random = &mut self.random;
        let filler = if random.chance(1, 30) { random.below(3_000) } else { random.below(40) };
        let body = format!("{{\"n\":{},\"fill\":\"{}\"}}", self.made, "x".repeat(filler as usize));
        let mut job = NewJob::new(queue, body);
        if random.chance(1, 5) {
            job.id = Some(JobId::Text(format_compact!("given-{}", random.below(300))));
        }
        if random.chance(1, 4) {
            job.priority = Priority([0, 50, 150, 200, 7][random.below(5) as usize]);
        }
        match random.below(12) {
            0 | 1 => job.delay_ms = random.below(10_000),
            2 => job.run_at = Some(now + random.below(100_000)),
            3 => job.delay_ms = random.below(3_600_000),
            _ => {}
        }
        if random.chance(1, 4) {
            job.attempts = Some(1 + random.below(4) as u32);
            job.max_crashes = Some(1 + random.below(3) as u32);
        }
        if random.chance(1, 8) {
            job.timeout_ms = Some(100 + random.below(10_000));
        }
        if random.chance(1, 15) {
            job.expires_ms = Some(1 + random.below(60_000));
        }
        if random.chance(1, 8) {
            job.backoff = Some(match random.below(3) {
                0 => Backoff::Fixed { delay: random.below(2_000) },
                1 => Backoff::List { delays: vec![10, 100, 1_000] },
                _ => Backoff::Exponential { base: 10, cap: 500 },
            });
        }
        if job.queue == routed() {
            job.route = route(random);
        } else if random.chance(1, 6) {
            unique(random, &mut job);
        }
        if random.chance(1, 6) {
            job.tags = vec!["red".into(), "blue".into()];
            job.meta = vec![("traceparent".into(), "00-1".into())];
        }
        job
    }

    fn schedule(&mut self, now: Timestamp) -> Command {
        let id = schedules()[self.random.below(SCHEDULES) as usize].clone();
        match self.random.below(14) {
            0..9 => {
                let mut spec = self.schedule_spec(now);
                // Slots that wait for jobs to end hide from the invariant: only one schedule has them.
                if spec.overlap == Overlap::Queue && id.as_str() != "s0" {
                    spec.overlap = Overlap::Allow;
                }
                Command::PutSchedule { id, spec: Box::new(spec) }
            }
            9 => Command::PauseSchedule { id },
            10 | 11 => Command::ResumeSchedule { id },
            12 => Command::RunSchedule { id },
            _ => Command::RemoveSchedule { id },
        }
    }

    fn schedule_spec(&mut self, now: Timestamp) -> ScheduleSpec {
        self.made += 1;
        let random = &mut self.random;
        let cron = |expression: &str, zone: &str| {
            let rules = kit::zone::find(zone).map_or(&[][..], |(_, rules)| rules);
            When::Cron { expression: expression.into(), zone: zone.into(), rules: Bytes::from_static(rules) }
        };
        let when = match random.below(6) {
            0 => cron("*/15 * * * * *", "Europe/Berlin"),
            1 => cron("* * * * *", "UTC"),
            2 => cron("*/5 * * * *", "America/New_York"),
            3 => cron("0 * * * *", "Asia/Kolkata"),
            _ => When::Every { interval_ms: 1_000 * (1 + random.below(90)) },
        };
        let queue = queue(random.below(STRICT));
        let mut job = NewJob::new(queue, format!("slot of {}", self.made));
        if random.chance(1, 4) {
            job.attempts = Some(1 + random.below(3) as u32);
        }
        let mut spec = ScheduleSpec::new(when, job);
        spec.start = random.chance(1, 4).then(|| now + random.below(600_000));
        spec.end = random.chance(1, 4).then(|| now + 600_000 + random.below(3_600_000));
        spec.limit = if random.chance(1, 4) { 1 + random.below(20) } else { 0 };
        spec.jitter_ms = if random.chance(1, 4) { random.below(20_000) } else { 0 };
        spec.overlap = Overlap::ALL[random.below(4) as usize];
        spec.catch_up = match random.below(3) {
            0 => CatchUp::Skip,
            1 => CatchUp::One,
            _ => CatchUp::All { most: 1 + random.below(12) as u32 },
        };
        spec
    }
    /// A graph in the queues that are not strict: joins end jobs behind the back of who looks at one job alone.
    fn graph(&mut self, now: Timestamp) -> Graph {
        let jobs: Vec<NamedJob> = (0..2 + self.random.below(4))
            .map(|number| {
                let mut job = self.new_job(now);
                // Where operations are watched, nothing else ends jobs that run.
                job.queue = self.loose_queue();
                job.route = None;
                if job.queue == swept() {
                    job.queue = beside();
                }
                // Its route was drawn for another queue; groups would come before priorities here.
                (job.id, job.unique, job.route) = (None, None, None);
                NamedJob { name: format_compact!("n{number}"), job }
            })
            .collect();
        let mut free: Vec<CompactString> = jobs.iter().map(|named| named.name.clone()).collect();
        let mut joins = Vec::new();
        while free.len() > 1 && joins.len() < 3 {
            let then = free.pop().filter(|_| self.random.chance(2, 3));
            let count = 1 + self.random.below(free.len() as u64) as usize;
            let mut members = free.split_off(free.len() - count);
            if self.random.chance(1, 8) {
                members.extend(free.first().cloned());
            }
            let policies = [Policy::All, Policy::AllSettled, Policy::Any, Policy::Race, Policy::KOfN(1)];
            let join = NewJoin {
                name: format_compact!("j{}", joins.len()),
                members,
                policy: policies[self.random.below(5) as usize],
                then: then.clone(),
                on_failure: OnFailure::ALL[self.random.below(3) as usize],
                rest: if self.random.chance(1, 5) { Rest::Run } else { Rest::Cancel },
                ignore: Ignore::NONE,
                open: false,
            };
            // What comes after waits for the continuation, or for the join itself.
            free.insert(0, then.unwrap_or_else(|| join.name.clone()));
            joins.push(join);
        }
        Graph { jobs, joins }
    }

    fn join(&mut self, now: Timestamp) -> Command {
        if self.random.chance(1, 10)
            && let Some(join) = recall(&mut self.random, &self.joins, REMEMBERED)
        {
            return Command::CancelJoin { join, reason: "no longer needed".into() };
        }
        Command::Join { graph: self.graph(now) }
    }

    /// A client heard of a join.
    pub(crate) fn learn_join(&mut self, id: &JobId) {
        remember(&mut self.random, &mut self.joins, id.clone());
    }

    /// Where the dead of one queue go, and an alert; now and then a target from which they would come back. An alert alone for the others.
    fn dead_letter(&mut self) -> Command {
        let random = &mut self.random;
        let alert = Alert { count: random.below(5), per_minute: random.below(8) };
        let (queue, target) = match random.below(8) {
            0 => (letters(), Some(mortal())),
            1 => (mortal(), None),
            2..6 => match queue(random.below(QUEUES)) {
                other if other == mortal() => (other, Some(letters())),
                other => (other, None),
            },
            _ => (mortal(), Some(letters())),
        };
        let dead_letter = Some(Box::new(DeadLetter { queue: target, alert }));
        Command::Configure { queue, patch: QueuePatch { dead_letter, ..QueuePatch::default() } }
    }

    fn configure(&mut self) -> Command {
        let queue = self.queue();
        let random = &mut self.random;
        let mut patch = QueuePatch {
            attempts: random.chance(1, 2).then(|| 1 + random.below(6) as u32),
            max_crashes: random.chance(1, 2).then(|| 1 + random.below(4) as u32),
            lease_ms: random.chance(1, 2).then(|| 1_000 + random.below(30_000)),
            timeout_ms: random.chance(1, 2).then(|| 5_000 + random.below(300_000)),
            ..QueuePatch::default()
        };
        if !tame(&queue) {
            let rules =
                [(OnFull::Reject, 60), (OnFull::DropOldest, 60), (OnFull::Block, 20), (OnFull::Block, 5)];
            let (on_full, unit) = rules[random.below(4) as usize];
            patch.capacity = Some(Capacity { jobs: random.below(4) * unit, bytes: 0, on_full });
            patch.keep_completed = Some(Keep { age_ms: 1 + random.below(60_000), count: random.below(20) });
        }
        Command::Configure { queue, patch }
    }

    /// A limit comes, changes or goes; a group of the routed queue is weighed or paused; its queue gets other rules.
    fn set_flow(&mut self) -> Command {
        let random = &mut self.random;
        match random.below(6) {
            0..3 => Command::SetLimit {
                pattern: LIMITS[random.below(4) as usize].into(),
                limit: random.chance(4, 5).then(|| limit(random)),
            },
            3 => Command::SetGroup {
                queue: routed(),
                group: GROUPS[random.below(3) as usize].into(),
                weight: random.chance(1, 2).then(|| 1 + random.below(4) as u32),
                paused: random.chance(1, 2).then(|| random.chance(1, 4)),
            },
            _ => {
                let orders = [Order::Priority, Order::Deadline, Order::Aging { step_ms: 100 }];
                let patch = QueuePatch {
                    limit: random.chance(1, 2).then(|| limit(random)),
                    order: random.chance(1, 2).then(|| orders[random.below(3) as usize]),
                    bulkhead: random.chance(1, 3).then(|| Bulkhead {
                        pool: if random.chance(1, 2) { "api".into() } else { "".into() },
                        reserved: random.below(2) as u32,
                        max: 1 + random.below(3) as u32,
                    }),
                    retry_budget: random
                        .chance(1, 3)
                        .then(|| RetryBudget { percent: 10 * random.below(3) as u32, per_minute: 0 }),
                    ..QueuePatch::default()
                };
                Command::Configure { queue: routed(), patch }
            }
        }
    }

    fn bulk(&mut self, now: Timestamp) -> Command {
        self.bulks += 1;
        let queue = if self.random.chance(2, 3) { swept() } else { self.loose_queue() };
        let made = self.made;
        let random = &mut self.random;
        let action = match random.below(8) {
            0 => BulkAction::Purge,
            1 => BulkAction::Redrive,
            2 => BulkAction::Remove,
            3 => BulkAction::Cancel,
            4 => BulkAction::Promote,
            5 => BulkAction::Retag { add: vec!["green".into()], remove: vec!["red".into()] },
            6 => BulkAction::Reprioritise { priority: Priority(random.below(3) as u8 * 60) },
            _ if queue == swept() => BulkAction::Move { to: beside() },
            _ => BulkAction::Purge,
        };
        let filter = Filter {
            states: random.chance(1, 8).then_some(State::Waiting).into_iter().collect(),
            tags_all: random.chance(1, 4).then(|| "red".into()).into_iter().collect(),
            tags_any: if random.chance(1, 8) { vec!["green".into(), "blue".into()] } else { Vec::new() },
            created_before: random.chance(1, 6).then(|| Timestamp(now.0 - random.below(20_000))),
            priority_min: random.chance(1, 8).then_some(Priority(100)),
            attempts_max: random.chance(1, 8).then_some(0),
            id_prefix: random.chance(1, 12).then(|| "given-1".into()),
            body: if random.chance(1, 5) {
                let value = format_compact!("{}", random.below(made + 1));
                vec![BodyTest { path: "/n".into(), compare: Compare::Less, value }]
            } else {
                Vec::new()
            },
            ..Filter::default()
        };
        let rate = if random.chance(1, 5) { 1 + random.below(200) as u32 } else { 0 };
        Command::Bulk(Box::new(NewBulk { rate, ..NewBulk::new(queue, action, filter) }))
    }
}

/// What lifts every limit, so that all jobs can end.
pub(crate) fn lift() -> Vec<Command> {
    let limits = LIMITS.map(|key| Command::SetLimit { pattern: key.into(), limit: None });
    let groups = GROUPS.map(|group| Command::SetGroup {
        queue: routed(),
        group: group.into(),
        weight: None,
        paused: Some(false),
    });
    let patch = QueuePatch {
        limit: Some(Limit::default()),
        bulkhead: Some(Bulkhead::default()),
        retry_budget: Some(RetryBudget::default()),
        ..QueuePatch::default()
    };
    let queue = Command::Configure { queue: routed(), patch };
    limits.into_iter().chain(groups).chain([queue]).collect()
}

/// Few keys, so that jobs meet.
fn route(random: &mut Random) -> Option<Box<Route>> {
    let mut route = Route::default();
    if random.chance(1, 2) {
        route.group = Some(GROUPS[random.below(3) as usize].into());
    }
    if random.chance(1, 4) {
        route.ordering_key = Some(["cart-1", "cart-2"][random.below(2) as usize].into());
    }
    for key in ["api", "user:1", "user:2"] {
        if random.chance(1, 3) {
            let cost = if random.chance(1, 5) { 1 + random.below(4) as u32 } else { 1 };
            route.limits.push(LimitUse { key: key.into(), cost });
        }
    }
    (route != Route::default()).then(|| Box::new(route))
}

fn limit(random: &mut Random) -> Limit {
    let rate = Rate {
        units: 1 + random.below(5) as u32,
        per_ms: 200 + random.below(2_000),
        burst: random.below(4) as u32,
    };
    let breaker = Breaker {
        failed_percent: 50,
        window_ms: 5_000,
        calls: 4,
        open_ms: 2_000,
        probes: 1 + random.below(2) as u32,
        ..Breaker::default()
    };
    Limit {
        concurrency: random.below(4) as u32,
        rate: if random.chance(1, 3) { rate } else { Rate::default() },
        breaker: if random.chance(1, 4) { breaker } else { Breaker::default() },
    }
}

/// Gives a job a unique key. Those that are debounced or kept have few keys, so that they meet.
fn unique(random: &mut Random, job: &mut NewJob) {
    let few = format_compact!("f{}", random.below(3));
    let many = format_compact!("u{}", random.below(20));
    let ttl_ms = if random.chance(1, 2) { 0 } else { 1 + random.below(30_000) };
    let (key, on_conflict) = match random.below(12) {
        0 | 1 => (many, OnConflict::Reject),
        2 if !strict(&job.queue) => (many, OnConflict::Replace),
        3..6 => {
            job.delay_ms = 1 + random.below(10_000);
            let max_wait_ms = if random.chance(1, 3) { 0 } else { random.below(12_000) };
            (few, OnConflict::Debounce { max_wait_ms })
        }
        6..9 => (few, OnConflict::KeepLast),
        9 if ttl_ms > 0 => (few, OnConflict::Throttle),
        _ => (many, OnConflict::Return),
    };
    job.unique = Some(Unique { key, ttl_ms, on_conflict });
}

/// Keeps the newest, and some of the old ones.
fn remember<T>(random: &mut Random, list: &mut VecDeque<T>, item: T) {
    if list.len() >= REMEMBERED {
        list.remove(random.below(list.len() as u64 / 2) as usize);
    }
    list.push_back(item);
}

/// One of so many newest, counted from the newest back: it stays the same when older ones are left out.
fn recall<T: Clone>(random: &mut Random, list: &VecDeque<T>, newest: usize) -> Option<T> {
    let back = random.below(newest as u64) as usize;
    list.iter().rev().nth(back % list.len().max(1)).cloned()
}

/// A handler that kills its process, and what it said before.
fn crash(stderr: CompactString) -> Crash {
    Crash { signal: Some("SIGSEGV".into()), exit: None, stderr }
}
