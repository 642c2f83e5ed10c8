//! Random play: thousands of commands from a seed, most of them aimed at jobs and leases that exist.

use super::script::{bodiless, restored, save};
use crate::{Effects, Shard};
use compact_str::CompactString;
use kit::{Timestamp, random::Random};
use model::{
    Actor, Alert, BodyTest, Breaker, BulkAction, BulkControl, Bulkhead, Capacity, CatchUp, Chosen, Command,
    Compare, Crash, DeadLetter, Envelope, ErrorInfo, Filter, Graph, Ignore, JobId, JobRef, Keep, LeaseRef,
    Limit, LimitUse, MemberState, NamedJob, NewBulk, NewJob, NewJoin, OnConflict, OnFailure, OnFull, Order,
    Outcome, Overlap, Policy, Priority, QueueName, QueuePatch, Rate, Reject, Reply, Rest, RetryBudget, Route,
    ScheduleId, ScheduleSpec, Settlement, State, Unique, Until, When, testing,
};
use std::collections::BTreeMap;

/// What a player remembers of the game: enough to hit more often than chance would.
struct Player {
    random: Random,
    now: u64,
    jobs: Vec<JobRef>,
    leases: Vec<LeaseRef>,
    joins: Vec<JobId>,
}

const BODY_IS_SEVEN: BodyTest = BodyTest {
    path: compact_str::CompactString::const_new(""),
    compare: Compare::Equal,
    value: compact_str::CompactString::const_new("7"),
};

const QUEUES: [&str; 4] = ["mail", "video", "eu.bills", "q4"];

impl Player {
    fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            now: 1_700_000_000_000,
            jobs: Vec::new(),
            leases: Vec::new(),
            joins: Vec::new(),
        }
    }

    fn queue(&mut self) -> QueueName {
        let index = self.random.below(QUEUES.len() as u64) as usize;
        QueueName::new(QUEUES[index]).unwrap()
    }

    fn one_of<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.random.below(among.len() as u64) as usize]
    }

    fn some<T>(&mut self, chance: u64, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.random.chance(1, chance).then(|| make(self))
    }

    /// From nothing to a day, mostly short.
    fn span(&mut self) -> u64 {
        let widest = self.one_of(&[2, 50, 1_000, 30_000, 400_000, 86_400_000]);
        self.random.below(widest)
    }

    fn new_job(&mut self) -> NewJob {
        let queue = self.queue();
        let bytes = self.random.below(40) as usize;
        let mut job = NewJob::new(queue, vec![self.random.next_u64() as u8; bytes]);
        job.id = self.some(4, |p| JobId::Text(format!("id-{}", p.random.below(60)).into()));
        job.priority = Priority(self.one_of(&[0, 50, 100, 100, 100, 150, 255]));
        job.delay_ms = self.some(4, Self::span).unwrap_or(0);
        job.run_at = self.some(12, |p| Timestamp(p.now + p.span()));
        job.attempts = self.some(3, |p| 1 + p.random.below(4) as u32);
        job.max_crashes = self.some(5, |p| 1 + p.random.below(3) as u32);
        job.backoff = self.some(4, |p| kit::Backoff::Fixed { delay: p.span() });
        job.timeout_ms = self.some(4, |p| 100 + p.span());
        job.expires_ms = self.some(5, |p| 1 + p.span());
        job.unique = self.some(4, |p| Unique {
            key: format!("key-{}", p.random.below(12)).into(),
            ttl_ms: p.some(2, Self::span).unwrap_or(0),
            on_conflict: p.one_of(&[
                OnConflict::Return,
                OnConflict::Reject,
                OnConflict::Replace,
                OnConflict::Debounce { max_wait_ms: 0 },
                OnConflict::Debounce { max_wait_ms: 60_000 },
                OnConflict::Throttle,
                OnConflict::KeepLast,
                OnConflict::KeepLast,
            ]),
        });
        match job.unique.as_mut().map(|unique| (unique.on_conflict, unique)) {
            // Nonsense is refused, and played elsewhere.
            Some((OnConflict::Throttle, unique)) => unique.ttl_ms += 1,
            Some((OnConflict::Debounce { .. }, _)) => job.delay_ms += 1,
            _ => {}
        }
        job.tags = self.some(3, |p| p.one_of(&["red", "blue"]).into()).into_iter().collect();
        job.route = self.some(2, Self::route).map(Box::new).filter(|route| **route != Route::default());
        job
    }

    /// Few keys, so that jobs meet before their gates.
    fn route(&mut self) -> Route {
        let mut limits: Vec<LimitUse> = Vec::new();
        for key in ["api", "user:1", "user:2"] {
            limits.extend(self.some(3, |p| LimitUse { key: key.into(), cost: p.one_of(&[1, 1, 1, 2, 9]) }));
        }
        Route {
            group: self.some(2, |p| p.one_of(&["a", "b", "c", "d"]).into()),
            ordering_key: self.some(4, |p| p.one_of(&["k", "l"]).into()),
            limits,
            deadline: self.some(4, |p| Timestamp(p.now + p.span())),
        }
    }

    fn limit(&mut self) -> Limit {
        let rate = Rate {
            units: 1 + self.random.below(9) as u32,
            per_ms: 1 + self.span(),
            burst: self.random.below(9) as u32,
        };
        let breaker = Breaker {
            failed_percent: self.one_of(&[20, 50, 100]),
            slow_percent: self.one_of(&[0, 50]),
            slow_ms: 1 + self.span(),
            window_ms: 100 + self.span(),
            calls: 1 + self.random.below(4) as u32,
            open_ms: 100 + self.span(),
            probes: 1 + self.random.below(2) as u32,
        };
        Limit {
            concurrency: self.one_of(&[0, 1, 2, 5]),
            rate: self.some(3, |_| rate).unwrap_or_default(),
            breaker: self.some(3, |_| breaker).unwrap_or_default(),
        }
    }

    fn new_jobs(&mut self, most: u64) -> Vec<NewJob> {
        (0..self.random.below(most + 1)).map(|_| self.new_job()).collect()
    }

    fn named_jobs(&mut self, most: u64) -> Vec<NamedJob> {
        let jobs = self.new_jobs(most);
        (0..).zip(jobs).map(|(n, job)| NamedJob { name: format!("n{n}").into(), job }).collect()
    }

    /// Jobs, and joins over what stands before them: mostly without circles.
    fn graph(&mut self, most: u64) -> Graph {
        let jobs = self.named_jobs(most);
        let mut names: Vec<CompactString> = jobs.iter().map(|named| named.name.clone()).collect();
        let mut joins = Vec::new();
        let mut then = names.clone();
        for number in 0..1 + self.random.below(3) {
            let count = self.random.below(4).min(names.len() as u64);
            let mut members: Vec<_> =
                (0..count).map(|_| names[self.random.below(names.len() as u64) as usize].clone()).collect();
            members.sort();
            members.dedup();
            let policies = [Policy::All, Policy::AllSettled, Policy::Any, Policy::Race, Policy::KOfN(2)];
            let join = NewJoin {
                name: format!("j{number}").into(),
                members,
                policy: self.one_of(&policies),
                then: then.pop().filter(|_| self.random.chance(2, 3)),
                on_failure: self.one_of(&OnFailure::ALL),
                rest: self.one_of(&[Rest::Cancel, Rest::Cancel, Rest::Run]),
                ignore: self.some(4, |p| Ignore::of(&[p.one_of(&MemberState::ALL)])).unwrap_or_default(),
                open: self.random.chance(1, 8),
            };
            names.push(join.name.clone());
            joins.push(join);
        }
        if self.random.chance(1, 2)
            && let Some(last) = joins.last_mut()
        {
            last.then = None;
        }
        Graph { jobs, joins }
    }

    fn join(&mut self) -> JobId {
        let back = self.random.below(20).min(self.joins.len().saturating_sub(1) as u64) as usize;
        let known = self.joins.len().checked_sub(1 + back).map(|at| self.joins[at].clone());
        known.unwrap_or_else(|| testing::job_id(&mut self.random))
    }

    fn job(&mut self) -> JobRef {
        if self.jobs.is_empty() || self.random.chance(1, 50) {
            return testing::job_ref(&mut self.random);
        }
        // The newest are the likeliest to be alive.
        let back = self.random.below(80).min(self.jobs.len() as u64 - 1) as usize;
        self.jobs[self.jobs.len() - 1 - back].clone()
    }

    fn several(&mut self) -> Vec<JobRef> {
        (0..1 + self.random.below(2)).map(|_| self.job()).collect()
    }

    fn lease(&mut self) -> LeaseRef {
        if self.leases.is_empty() || self.random.chance(1, 50) {
            return testing::lease_ref(&mut self.random);
        }
        let at = self.random.below(self.leases.len() as u64) as usize;
        if self.random.chance(1, 5) { self.leases[at].clone() } else { self.leases.swap_remove(at) }
    }

    /// The lease goes on.
    fn lease_kept(&mut self) -> LeaseRef {
        match self.leases.last() {
            Some(lease) => lease.clone(),
            None => testing::lease_ref(&mut self.random),
        }
    }

    fn outcome(&mut self) -> Outcome {
        let kind = self.one_of(&["timeout", "TypeError"]);
        let error = ErrorInfo { kind: kind.into(), message: "no".into(), stack: "".into() };
        match self.random.below(14) {
            13 => Outcome::Crash(Crash { signal: self.some(2, |_| "SIGSEGV".into()), ..Crash::default() }),
            12 => Outcome::Wait { children: self.graph(3) },
            11 => Outcome::RateLimited {
                key: self.some(2, |p| p.one_of(&["api", "user:1"]).into()),
                after_ms: 1 + self.span(),
            },
            8..11 => Outcome::Suspend { step: self.step(), until: self.until() },
            0..3 => Outcome::Done { result: self.some(2, |p| vec![b'r'; p.random.below(9) as usize].into()) },
            3..5 => Outcome::Retry { error, after_ms: self.some(3, Self::span) },
            5 => Outcome::Fail { error },
            6 => Outcome::Snooze { after_ms: self.span() },
            _ => Outcome::Cancel { reason: "over".into() },
        }
    }

    fn step(&mut self) -> CompactString {
        format!("step-{}", self.random.below(4)).into()
    }

    fn until(&mut self) -> Until {
        match self.random.below(3) {
            0 => Until::Time { after_ms: self.span() },
            1 => Until::Signal { name: self.step(), timeout_ms: 1 + self.span() },
            _ => Until::Child { job: Box::new(self.new_job()) },
        }
    }

    fn settlement(&mut self) -> Settlement {
        let push = if self.random.chance(1, 3) { self.new_jobs(2) } else { Vec::new() };
        Settlement { lease: self.lease(), outcome: self.outcome(), push }
    }

    fn patch(&mut self) -> QueuePatch {
        let full = self.one_of(&[OnFull::Reject, OnFull::DropOldest]);
        let keep = |p: &mut Self| Keep { age_ms: p.span(), count: p.random.below(20) };
        QueuePatch {
            attempts: self.some(3, |p| 1 + p.random.below(5) as u32),
            max_crashes: self.some(3, |p| 1 + p.random.below(3) as u32),
            timeout_ms: self.some(3, |p| 100 + p.span()),
            lease_ms: self.some(3, |p| 100 + p.span()),
            backoff: self.some(3, |p| kit::Backoff::Fixed { delay: p.span() }),
            capacity: self.some(2, |p| Capacity {
                jobs: p.one_of(&[0, 5, 30, 60]),
                bytes: p.one_of(&[0, 0, 200, 2_000]),
                on_full: full,
            }),
            keep_completed: self.some(3, keep),
            keep_dead: self.some(3, keep),
            limit: self.some(3, |p| p.some(2, Self::limit).unwrap_or_default()),
            order: self
                .some(3, |p| p.one_of(&[Order::Priority, Order::Deadline, Order::Aging { step_ms: 50 }])),
            bulkhead: self.some(3, |p| Bulkhead {
                pool: p.one_of(&["", "api", "user:1"]).into(),
                reserved: p.random.below(2) as u32,
                max: 1 + p.random.below(3) as u32,
            }),
            dead_letter: self.some(3, |p| {
                Box::new(DeadLetter {
                    queue: p.some(3, Self::queue),
                    alert: Alert { count: p.one_of(&[0, 1, 5]), per_minute: p.one_of(&[0, 0, 2]) },
                })
            }),
            retry_budget: self.some(3, |p| RetryBudget {
                percent: p.one_of(&[0, 10, 100]),
                per_minute: p.one_of(&[0, 1, 60]),
            }),
        }
    }

    fn schedule(&mut self) -> Command {
        let id = ScheduleId::new(self.one_of(&["tick", "nightly", "hourly"])).unwrap();
        match self.random.below(10) {
            0..6 => {
                let when = match self.random.below(3) {
                    0 => When::Every { interval_ms: 1_000 + self.span() },
                    _ => {
                        let zone = self.one_of(&["UTC", "Europe/Berlin", "Asia/Kolkata"]);
                        let rules = kit::zone::find(zone).unwrap().1;
                        let expression =
                            self.one_of(&["*/10 * * * * *", "* * * * *", "30 2 * * *", "15,45 8-18 * * 1-5"]);
                        When::Cron { expression: expression.into(), zone: zone.into(), rules: rules.into() }
                    }
                };
                let mut job = self.new_job();
                (job.id, job.run_at) = (None, None);
                let spec = ScheduleSpec {
                    start: self.some(5, |p| Timestamp(p.now + p.span())),
                    end: self.some(5, |p| Timestamp(p.now + 10 * p.span())),
                    limit: self.some(4, |p| 1 + p.random.below(20)).unwrap_or(0),
                    jitter_ms: self.some(3, Self::span).unwrap_or(0),
                    overlap: self.one_of(&Overlap::ALL),
                    catch_up: self.one_of(&[
                        CatchUp::Skip,
                        CatchUp::One,
                        CatchUp::All { most: 3 },
                        CatchUp::All { most: 40 },
                    ]),
                    ..ScheduleSpec::new(when, job)
                };
                Command::PutSchedule { id, spec: Box::new(spec) }
            }
            6 => Command::PauseSchedule { id },
            7 => Command::ResumeSchedule { id },
            8 => Command::RunSchedule { id },
            _ => Command::RemoveSchedule { id },
        }
    }

    fn filter(&mut self) -> Filter {
        Filter {
            states: self.some(4, |p| p.one_of(&State::ALL)).into_iter().collect(),
            tags_all: self.some(3, |p| p.one_of(&["red", "blue"]).into()).into_iter().collect(),
            tags_any: self.some(6, |_| vec!["red".into(), "blue".into()]).unwrap_or_default(),
            error_kind: self.some(6, |_| "timeout".into()),
            created_before: self.some(4, |p| Timestamp(p.now - p.span())),
            priority_min: self.some(8, |_| Priority::NORMAL),
            attempts_max: self.some(8, |_| 1),
            id_prefix: self.some(12, |_| "id-1".into()),
            body: self.some(8, |_| vec![BODY_IS_SEVEN]).unwrap_or_default(),
            ..Filter::default()
        }
    }

    fn new_bulk(&mut self) -> NewBulk {
        let queue = self.queue();
        let action = match self.random.below(8) {
            0 => BulkAction::Purge,
            1 => BulkAction::Redrive,
            2 => BulkAction::Remove,
            3 => BulkAction::Cancel,
            4 => BulkAction::Promote,
            5 => BulkAction::Retag { add: vec!["red".into()], remove: vec!["blue".into()] },
            6 => BulkAction::Reprioritise { priority: Priority(self.one_of(&[0, 50, 100, 255])) },
            _ => BulkAction::Move { to: self.queue() },
        };
        let rate = self.some(4, |p| p.random.below(300) as u32).unwrap_or(0);
        NewBulk { rate, ..NewBulk::new(queue, action, self.filter()) }
    }

    /// Something about an operation that may exist.
    fn steer(&mut self) -> Command {
        let operation = 1 + self.random.below(60);
        if self.random.chance(1, 2) {
            let control = self.one_of(&[BulkControl::Pause, BulkControl::Resume, BulkControl::Cancel]);
            return Command::ControlBulk { operation, control };
        }
        Command::Choose(Box::new(Chosen {
            operation,
            stage: self.random.below(6) as u32,
            priority: Priority(255),
            order: self.random.below(5_000),
            jobs: (0..self.random.below(400)).map(|job| job * 3).collect(),
        }))
    }

    fn command(&mut self) -> Command {
        let lease_ms = self.some(3, |p| 100 + p.span()).unwrap_or(0);
        match self.random.below(102) {
            0..30 => Command::Push { jobs: self.new_jobs(6) },
            30..50 => Command::Fetch {
                queues: (0..1 + self.random.below(3)).map(|_| self.queue()).collect(),
                max: 1 + self.random.below(5) as u32,
                lease_ms,
            },
            50..65 => Command::Settle { settlements: (0..3).map(|_| self.settlement()).collect() },
            65..69 => Command::Renew { leases: (0..2).map(|_| self.lease()).collect(), lease_ms },
            69..72 => Command::Cancel { job: self.job(), reason: "no".into() },
            72..74 => Command::Progress { lease: self.lease(), value: "1".into() },
            74..76 => Command::Log { lease: self.lease(), lines: vec!["line".into()] },
            76..79 => Command::Promote { jobs: self.several() },
            79..82 => Command::Redrive { jobs: self.several() },
            82 => Command::Remove { jobs: self.several() },
            83 => Command::PatchBody {
                job: self.job(),
                expected_crc: crc32c::crc32c(&[]),
                body: vec![b'p'; self.random.below(40) as usize].into(),
            },
            84 => Command::Pause { queue: self.queue() },
            85..87 => Command::Resume { queue: self.queue() },
            87 => Command::Configure { queue: self.queue(), patch: self.patch() },
            91..93 if self.random.chance(1, 2) => Command::Join { graph: self.graph(5) },
            91 if self.random.chance(4, 5) => Command::Extend {
                join: self.join(),
                jobs: self.named_jobs(3),
                seal: self.random.chance(1, 3),
            },
            92 if self.random.chance(1, 3) => Command::CancelJoin { join: self.join(), reason: "no".into() },
            88..91 if self.random.chance(1, 4) => self.steer(),
            88..91 => Command::Bulk(Box::new(self.new_bulk())),
            100 => Command::SetLimit {
                pattern: self.one_of(&["api", "user:*", "user:1", "*"]).into(),
                limit: self.some(2, Self::limit),
            },
            101 => Command::SetGroup {
                queue: self.queue(),
                group: self.one_of(&["a", "b", ""]).into(),
                weight: self.some(2, |p| p.one_of(&[1, 1, 3, 7])),
                paused: self.some(2, |p| p.random.chance(1, 3)),
            },
            91 => self.schedule(),
            92 => {
                let variant = self.random.next_u64();
                testing::command(&mut self.random, variant)
            }
            93..95 => Command::Step {
                lease: self.lease_kept(),
                name: self.step(),
                result: vec![b's'; self.random.below(30) as usize].into(),
            },
            95..97 => Command::Signal { job: self.job(), name: self.step(), body: "now".into() },
            97 => Command::Restart { jobs: self.several() },
            _ => Command::Tick,
        }
    }

    fn next(&mut self) -> (Timestamp, Envelope) {
        self.now += if self.random.chance(1, 3) { self.span() / 4 } else { self.random.below(20) };
        let envelope = Envelope {
            actor: Actor::new(self.one_of(&["w1", "w2", ""])),
            idempotency_key: self.some(15, |p| format!("call-{}", p.random.below(1_000)).into()),
            command: self.command(),
        };
        // A clock may jump back; the shard must not follow.
        let back = if self.random.chance(1, 30) { self.span() } else { 0 };
        (Timestamp(self.now - back), envelope)
    }

    fn learn(&mut self, command: &Command, reply: &Result<Reply, Reject>) {
        match reply {
            Ok(Reply::Pushed(pushed)) => {
                let Command::Push { jobs } = command else { return };
                self.jobs.extend(
                    pushed.iter().zip(jobs).map(|(pushed, job)| JobRef {
                        queue: Some(job.queue.clone()),
                        id: pushed.id.clone(),
                    }),
                );
            }
            Ok(Reply::Joined(joined)) => {
                let Command::Join { graph } = command else { return };
                self.jobs.extend(joined.jobs.iter().zip(&graph.jobs).map(|(pushed, named)| JobRef {
                    queue: Some(named.job.queue.clone()),
                    id: pushed.id.clone(),
                }));
                self.joins.extend(joined.joins.iter().cloned());
            }
            Ok(Reply::Fetched(jobs)) => self.leases.extend(jobs.iter().map(|job| LeaseRef {
                job: JobRef { queue: Some(job.queue.clone()), id: job.id.clone() },
                token: job.lease_token,
            })),
            _ => {}
        }
    }
}

/// So many seeds from `first` on; `MILLPOND_SEEDS` asks for more.
fn seeds(first: u64, few: u64) -> std::ops::Range<u64> {
    let more = std::env::var("MILLPOND_SEEDS").ok().and_then(|text| text.parse().ok());
    first..first + more.unwrap_or(few)
}

/// Plays a game and returns the shard.
fn play(seed: u64, commands: usize) -> Shard {
    let (mut shard, mut player) = (Shard::new(seed as u16 % 4_096), Player::new(seed));
    for position in 1..=commands as u64 {
        let (at, envelope) = player.next();
        let reply = shard.apply(position, at, &envelope, &mut Effects::default());
        player.learn(&envelope.command, &reply);
    }
    shard
}

#[test]
fn whatever_is_asked_the_shard_stays_consistent() {
    for seed in seeds(0, 8) {
        let (mut shard, mut player) = (Shard::new(1), Player::new(seed));
        for position in 1..=1_500 {
            let (at, envelope) = player.next();
            let reply = shard.apply(position, at, &envelope, &mut Effects::default());
            player.learn(&envelope.command, &reply);
            shard
                .check()
                .unwrap_or_else(|what| panic!("seed {seed}, command {position}, {envelope:?}: {what}"));
        }
        assert!(shard.counters.sequence > 200, "seed {seed} played with nothing");
    }
}

#[test]
fn nonsense_is_refused_or_harmless() {
    for seed in seeds(50, 8) {
        let (mut shard, mut random) = (Shard::new(1), Random::new(seed));
        for position in 1..=1_500 {
            let envelope = testing::envelope(&mut random, position);
            let at = Timestamp(1_700_000_000_000 + position * 500);
            let _ = shard.apply(position, at, &envelope, &mut Effects::default());
            shard
                .check()
                .unwrap_or_else(|what| panic!("seed {seed}, command {position}, {envelope:?}: {what}"));
        }
        let mut store = BTreeMap::new();
        save(&mut shard, &mut store);
        assert_eq!(restored(&store, 1).state_hash(), shard.state_hash(), "seed {seed}");
    }
}

#[test]
fn what_is_said_to_be_next_is_handed_out_next() {
    let mut predicted = 0;
    for seed in seeds(200, 12) {
        let (mut shard, mut player) = (Shard::new(1), Player::new(seed));
        let mut position = 0;
        let mut apply = |shard: &mut Shard, at, envelope: &Envelope| {
            position += 1;
            shard.apply(position, at, envelope, &mut Effects::default())
        };
        for _ in 0..1_500 {
            let (at, envelope) = player.next();
            // What is due is moved first, and operations that overtake a start are left to their own tests.
            let tick = Envelope { command: Command::Tick, idempotency_key: None, ..envelope.clone() };
            apply(&mut shard, at, &tick).unwrap();
            if let Command::Fetch { queues, max, .. } = &envelope.command
                && let [queue] = &queues[..]
                && envelope.idempotency_key.is_none()
                && shard.bulks.values().all(|bulk| bulk.status.is_over())
                && let Some(upcoming) = shard.upcoming(queue, *max as usize)
            {
                let starting = upcoming.into_iter().filter(|(_, held)| held.is_none());
                let expected: Vec<_> = starting.map(|(job, _)| job.id).collect();
                let first = expected.first().map(|id| JobRef { queue: Some(queue.clone()), id: id.clone() });
                if let Some(first) = first {
                    let why = shard.explain(&first).unwrap();
                    // Where a dead letter came from is told as well, and holds nothing up.
                    let mut reasons = why.reasons;
                    reasons.retain(|reason| !matches!(reason, crate::Reason::SentOn { .. }));
                    assert_eq!(reasons, [crate::Reason::NextInLine], "seed {seed}");
                }
                let Ok(Reply::Fetched(jobs)) = apply(&mut shard, at, &envelope) else {
                    panic!("a sound fetch")
                };
                let given: Vec<_> = jobs.iter().map(|job| job.id.clone()).collect();
                assert_eq!(given, expected, "seed {seed}, {envelope:?}");
                predicted += given.len();
                player.learn(&envelope.command, &Ok(Reply::Fetched(jobs)));
                continue;
            }
            let reply = apply(&mut shard, at, &envelope);
            player.learn(&envelope.command, &reply);
        }
    }
    assert!(predicted > 300, "{predicted} starts were predicted");
}

/// Names the records that differ, since a hash tells nothing.
fn same(shard: &Shard, twin: &Shard, when: &str) {
    let records = |shard: &Shard| {
        let mut records = BTreeMap::new();
        shard.each_record(&mut |key, value| {
            records.insert(key.escape_ascii().to_string(), value.escape_ascii().to_string());
        });
        records
    };
    if shard.state_hash() != twin.state_hash() {
        let (mine, theirs) = (records(shard), records(twin));
        let keys: std::collections::BTreeSet<_> = mine.keys().chain(theirs.keys()).collect();
        let differ: Vec<_> = keys
            .into_iter()
            .filter(|key| mine.get(*key) != theirs.get(*key))
            .map(|key| format!("{key}: {:?} / {:?}", mine.get(key), theirs.get(key)))
            .collect();
        panic!("{when}: {}", differ.join("\n"));
    }
}

#[test]
fn a_shard_restored_at_any_moment_goes_on_as_if_nothing_had_happened() {
    for seed in seeds(100, 8) {
        let mut player = Player::new(seed);
        let mut chance = Random::new(seed);
        let (mut shard, mut twin) = (Shard::new(1), Shard::new(1));
        let mut store = BTreeMap::new();
        for position in 1..=1_500 {
            let (at, envelope) = player.next();
            let (mut effects, mut twin_effects) = (Effects::default(), Effects::default());
            let reply = shard.apply(position, at, &envelope, &mut effects);
            let twin_reply = twin.apply(position, at, &envelope, &mut twin_effects);
            player.learn(&envelope.command, &reply);
            assert_eq!(effects.list, twin_effects.list, "seed {seed}, command {position}, {envelope:?}");
            assert_eq!(
                bodiless(reply),
                bodiless(twin_reply),
                "seed {seed}, command {position}, {envelope:?}"
            );
            if std::env::var_os("EACH").is_some() || position % 5 == 0 {
                same(&shard, &twin, &format!("seed {seed}, command {position}, {envelope:?}"));
                twin.check().unwrap_or_else(|what| panic!("seed {seed}, command {position}: {what}"));
            }
            match chance.below(40) {
                0 => save(&mut twin, &mut store),
                1 => {
                    save(&mut twin, &mut store);
                    twin = restored(&store, 1);
                    same(&shard, &twin, &format!("seed {seed}, restored at {position}"));
                }
                2 => {
                    twin.evict_bodies(chance.below(500));
                }
                _ => {}
            }
        }
    }
}

/// One line for each seed: what a log of an earlier day gave. A line that changes says that logs mean something else now.
#[test]
fn old_logs_keep_their_meaning() {
    let hashes: String =
        (0..16).map(|seed| format!("{seed} {:032x}\n", play(seed, 2_000).state_hash())).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/hashes.txt");
    if std::env::var_os("MILLPOND_BLESS").is_some() {
        std::fs::write(path, &hashes).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), hashes, "MILLPOND_BLESS=1 writes the file anew");
}

#[test]
fn a_fetch_hands_out_what_explain_and_upcoming_said() {
    for seed in seeds(200, 12) {
        let (mut shard, mut player) = (Shard::new(1), Player::new(seed));
        for position in 1..=1_000u64 {
            let (at, envelope) = player.next();
            let reply = shard.apply(position, at, &envelope, &mut Effects::default());
            player.learn(&envelope.command, &reply);
        }
        // Nothing of it is due now, and no operation is under way, so only the fetches below change anything.
        let mut position = shard.position();
        let mut apply = |shard: &mut Shard, at, command| {
            position += 1;
            let envelope = Envelope { actor: Actor::new("w"), idempotency_key: None, command };
            shard.apply(position, at, &envelope, &mut Effects::default()).unwrap()
        };
        for bulk in shard.bulks().iter().filter(|bulk| !bulk.status.is_over()) {
            let (operation, now) = (bulk.id, shard.time());
            apply(&mut shard, now, Command::ControlBulk { operation, control: BulkControl::Cancel });
        }
        while shard.next_due().is_some_and(|due| due <= shard.time()) {
            let now = shard.time();
            apply(&mut shard, now, Command::Tick);
        }
        for queue in QUEUES.map(|name| QueueName::new(name).unwrap()) {
            let Some(foretold) = shard.upcoming(&queue, 1_000) else { continue };
            let (foretold, held): (Vec<_>, Vec<_>) =
                foretold.into_iter().partition(|(_, held)| held.is_none());
            for (job, why) in held {
                let said = why.is_some_and(|why| !why.reasons.is_empty());
                assert!(said, "seed {seed}, {}: held, and nobody knows by what", job.id);
            }
            for (rank, (job, _)) in foretold.iter().enumerate() {
                let job = JobRef { queue: Some(queue.clone()), id: job.id.clone() };
                let ahead = shard.explain(&job).unwrap().reasons.iter().find_map(|reason| match reason {
                    crate::Reason::Behind { ahead, .. } => Some(*ahead),
                    _ => None,
                });
                assert_eq!(ahead.unwrap_or(0), rank as u64, "seed {seed}, {job:?}");
            }
            let now = shard.time();
            let fetch = Command::Fetch { queues: vec![queue], max: 10_000, lease_ms: 0 };
            let Reply::Fetched(started) = apply(&mut shard, now, fetch) else { unreachable!() };
            let expected: Vec<_> = foretold.iter().map(|(job, _)| job.id.clone()).collect();
            assert_eq!(started.into_iter().map(|job| job.id).collect::<Vec<_>>(), expected, "seed {seed}");
        }
    }
}

/// Whatever was played, once every job has come to its end and a day has passed, no join is open.
#[test]
fn every_join_ends() {
    let mut met = 0;
    for seed in seeds(300, 12) {
        let (mut shard, mut player) = (Shard::new(1), Player::new(seed));
        let mut store = BTreeMap::new();
        let mut position = 0;
        let mut apply = |shard: &mut Shard, at, envelope: &Envelope| {
            position += 1;
            shard.apply(position, at, envelope, &mut Effects::default())
        };
        for turn in 0..1_200 {
            let (at, mut envelope) = player.next();
            if turn % 5 == 0 {
                envelope = Envelope { command: Command::Join { graph: player.graph(6) }, ..envelope };
            }
            let reply = apply(&mut shard, at, &envelope);
            player.learn(&envelope.command, &reply);
            if let Ok(Reply::Fetched(jobs)) = &reply {
                met += jobs.iter().filter(|job| job.children.is_some()).count();
            }
        }
        save(&mut shard, &mut store);
        let mut shard = restored(&store, 1);
        let mut now = shard.time();
        let by = |command| Envelope { actor: Actor::new("w"), idempotency_key: None, command };
        for queue in QUEUES.map(|name| QueueName::new(name).unwrap()) {
            let _ = apply(&mut shard, now, &by(Command::Resume { queue: queue.clone() }));
            for group in ["a", "b", ""] {
                let (queue, group, paused) = (queue.clone(), group.into(), Some(false));
                let _ = apply(&mut shard, now, &by(Command::SetGroup { queue, group, weight: None, paused }));
            }
        }
        for pattern in ["api", "user:*", "user:1", "*"] {
            let clear = Command::SetLimit { pattern: pattern.into(), limit: None };
            let _ = apply(&mut shard, now, &by(clear));
        }
        let schedules: Vec<_> = shard.schedules.iter().map(|(id, _)| id.clone()).collect();
        for id in schedules {
            let _ = apply(&mut shard, now, &by(Command::RemoveSchedule { id }));
        }
        for _ in 0..4_000 {
            let queues = QUEUES.map(|name| QueueName::new(name).unwrap()).to_vec();
            let fetch = Command::Fetch { queues, max: 50, lease_ms: 60_000 };
            let Ok(Reply::Fetched(jobs)) = apply(&mut shard, now, &by(fetch)) else { panic!() };
            let settlements = jobs.iter().map(|job| {
                let job_ref = JobRef { queue: Some(job.queue.clone()), id: job.id.clone() };
                met += usize::from(job.children.is_some());
                let outcome = match player.random.below(3) {
                    0 => Outcome::Fail { error: ErrorInfo::default() },
                    _ => Outcome::Done { result: None },
                };
                Settlement { lease: LeaseRef { job: job_ref, token: job.lease_token }, outcome, push: vec![] }
            });
            let settle = Command::Settle { settlements: settlements.collect() };
            let _ = apply(&mut shard, now, &by(settle));
            let _ = apply(&mut shard, now, &by(Command::Tick));
            let live = QUEUES.iter().filter_map(|name| shard.queue(&QueueName::new(name).unwrap()));
            if live.map(|queue| queue.counts.live()).sum::<u64>() == 0 {
                break;
            }
            now = now.max(shard.next_due().unwrap_or(now));
        }
        for _ in 0..3 {
            now = now + 86_400_000;
            let _ = apply(&mut shard, now, &by(Command::Tick));
        }
        shard.check().unwrap();
        for join in shard.joins.all.values() {
            assert!(join.state != model::JoinState::Open, "seed {seed}: {join:?}");
        }
    }
    assert!(met > 50, "few continuations were met: {met}");
}
