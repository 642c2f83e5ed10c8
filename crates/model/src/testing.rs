//! Values for tests: every variant of every type, from a seed. The same seed gives the same value for ever.

use crate::{
    Actor, Alert, BodyTest, Breaker, BulkAction, BulkControl, BulkStatus, BulkView, Bulkhead, Capacity,
    CatchUp, ChildEnd, Chosen, Command, Compare, Crash, DeadLetter, DispatchedJob, Envelope, ErrorInfo,
    Filter, Graph, Ignore, JobId, JobRef, Joined, Keep, LeaseRef, Limit, LimitUse, MemberState, NamedJob,
    NewBulk, NewJob, NewJoin, OnConflict, OnFailure, OnFull, Order, Outcome, Overlap, Policy, Priority,
    Pushed, QueueName, QueuePatch, QueueSettings, Rate, Reject, Renewed, Reply, Rest, RetryBudget, Route,
    ScheduleChange, ScheduleId, ScheduleSpec, ScheduleState, Scheduled, Settled, Settlement, State, Step,
    StepValue, Unique, Until, When,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Backoff, Timestamp, random::Random};

/// How many variants [`Command`] has, so that [`command`] with `0..COMMANDS` meets each.
pub const COMMANDS: u64 = 33;
/// How many variants [`Outcome`] has.
pub const OUTCOMES: u64 = 9;
/// How many variants [`Reply`] has.
pub const REPLIES: u64 = 12;
/// How many variants [`Reject`] has.
pub const REJECTS: u64 = 26;

fn pick<T: Copy>(random: &mut Random, among: &[T]) -> T {
    among[random.below(among.len() as u64) as usize]
}

fn maybe<T>(random: &mut Random, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
    random.chance(1, 2).then(|| make(random))
}

fn several<T>(random: &mut Random, mut make: impl FnMut(&mut Random) -> T) -> Vec<T> {
    (0..random.below(4)).map(|_| make(random)).collect()
}

/// A number of any size, small ones as likely as large ones.
fn number(random: &mut Random) -> u64 {
    let bits = random.below(65) as u32;
    random.next_u64().checked_shr(64 - bits).unwrap_or(0)
}

fn small(random: &mut Random) -> u32 {
    number(random) as u32
}

/// Text of up to 40 bytes, some of it not ASCII.
pub fn text(random: &mut Random) -> CompactString {
    let length = random.below(20);
    (0..length).map(|_| pick(random, &['a', 'k', 'Z', '0', ' ', '-', '"', 'ä', '池'])).collect()
}

fn bytes(random: &mut Random) -> Bytes {
    let length = random.below(60);
    (0..length).map(|_| random.next_u64() as u8).collect()
}

fn time(random: &mut Random) -> Timestamp {
    Timestamp(number(random).min(Timestamp::MAX.0))
}

/// One of 50 queue names.
pub fn queue_name(random: &mut Random) -> QueueName {
    let name = format!("queue-{}.eu:x_y", random.below(50));
    QueueName::new(&name).unwrap_or_else(|bad| unreachable!("{bad}"))
}

/// A generated, a foreign or a given id.
pub fn job_id(random: &mut Random) -> JobId {
    match random.below(3) {
        0 => JobId::generated(time(random), random.below(4096) as u16, number(random)),
        1 => JobId::Uuid(u128::from(random.next_u64()) << 64 | u128::from(random.next_u64())),
        _ => JobId::Text(format!("order-{}", number(random)).into()),
    }
}

/// A reference with or without its queue.
pub fn job_ref(random: &mut Random) -> JobRef {
    JobRef { queue: maybe(random, queue_name), id: job_id(random) }
}

/// A lease that nobody granted.
pub fn lease_ref(random: &mut Random) -> LeaseRef {
    LeaseRef { job: job_ref(random), token: number(random) }
}

/// Any rule.
pub fn backoff(random: &mut Random) -> Backoff {
    match random.below(4) {
        0 => Backoff::Exponential { base: number(random), cap: number(random) },
        1 => Backoff::Fixed { delay: number(random) },
        2 => Backoff::Sidekiq,
        _ => Backoff::List { delays: several(random, number) },
    }
}

fn unique(random: &mut Random) -> Unique {
    Unique { key: text(random), ttl_ms: number(random), on_conflict: on_conflict(random) }
}

fn on_conflict(random: &mut Random) -> OnConflict {
    match random.below(6) {
        0 => OnConflict::Return,
        1 => OnConflict::Reject,
        2 => OnConflict::Replace,
        3 => OnConflict::Debounce { max_wait_ms: number(random) },
        4 => OnConflict::Throttle,
        _ => OnConflict::KeepLast,
    }
}

fn meta(random: &mut Random) -> (CompactString, CompactString) {
    (text(random), text(random))
}

/// A job with about half of the fields set.
pub fn new_job(random: &mut Random) -> NewJob {
    NewJob {
        queue: queue_name(random),
        id: maybe(random, job_id),
        body: bytes(random),
        content_type: maybe(random, text).unwrap_or_default(),
        priority: maybe(random, |r| Priority(r.next_u64() as u8)).unwrap_or_default(),
        delay_ms: maybe(random, number).unwrap_or(0),
        run_at: maybe(random, time),
        attempts: maybe(random, small),
        max_crashes: maybe(random, small),
        backoff: maybe(random, backoff),
        timeout_ms: maybe(random, number),
        expires_ms: maybe(random, number),
        unique: maybe(random, unique),
        tags: several(random, text),
        meta: several(random, meta),
        route: maybe(random, route),
    }
}

/// An error with three texts.
pub fn error_info(random: &mut Random) -> ErrorInfo {
    ErrorInfo { kind: text(random), message: text(random), stack: text(random) }
}

fn outcome(random: &mut Random) -> Outcome {
    let variant = random.below(OUTCOMES);
    outcome_of(random, variant)
}

fn outcome_of(random: &mut Random, variant: u64) -> Outcome {
    match variant % OUTCOMES {
        0 => Outcome::Done { result: maybe(random, bytes) },
        1 => Outcome::Retry { error: error_info(random), after_ms: maybe(random, number) },
        2 => Outcome::Fail { error: error_info(random) },
        3 => Outcome::Snooze { after_ms: number(random) },
        5 => Outcome::RateLimited { key: maybe(random, text), after_ms: number(random) },
        4 => Outcome::Cancel { reason: text(random) },
        6 => Outcome::Wait { children: graph(random) },
        7 => Outcome::Crash(crash(random)),
        _ => Outcome::Suspend { step: text(random), until: until(random) },
    }
}

fn crash(random: &mut Random) -> Crash {
    Crash { signal: maybe(random, text), exit: maybe(random, small), stderr: text(random) }
}

/// One of eight names, so that some meet.
fn node_name(random: &mut Random) -> CompactString {
    pick(random, &["a", "b", "c", "d", "e", "f", "g", ""]).into()
}

fn named_job(random: &mut Random) -> NamedJob {
    NamedJob { name: node_name(random), job: new_job(random) }
}

/// Jobs and joins that seldom fit together.
pub fn graph(random: &mut Random) -> Graph {
    Graph { jobs: several(random, named_job), joins: several(random, new_join) }
}

fn new_join(random: &mut Random) -> NewJoin {
    let policies = [Policy::All, Policy::AllSettled, Policy::Any, Policy::Race, Policy::KOfN(small(random))];
    NewJoin {
        name: node_name(random),
        members: several(random, node_name),
        policy: pick(random, &policies),
        then: maybe(random, node_name),
        on_failure: pick(random, &OnFailure::ALL),
        rest: pick(random, &Rest::ALL),
        ignore: Ignore::of(&several(random, |r| pick(r, &MemberState::ALL))),
        open: random.chance(1, 4),
    }
}

fn until(random: &mut Random) -> Until {
    match random.below(3) {
        0 => Until::Time { after_ms: number(random) },
        1 => Until::Signal { name: text(random), timeout_ms: number(random) },
        _ => Until::Child { job: Box::new(new_job(random)) },
    }
}

/// A step of any kind.
pub fn step(random: &mut Random) -> Step {
    let value = match random.below(5) {
        0 => StepValue::Result(bytes(random)),
        1 => StepValue::Slept { until: time(random) },
        2 => StepValue::Signal(bytes(random)),
        3 => StepValue::TimedOut,
        _ => StepValue::Child {
            queue: queue_name(random),
            id: job_id(random),
            end: maybe(random, |r| ChildEnd {
                state: maybe(r, |r| pick(r, &State::ALL)),
                result: maybe(r, bytes),
                error: maybe(r, error_info),
            }),
        },
    };
    Step { name: text(random), at: time(random), attempt: small(random), value }
}

/// A settlement with the outcome of this number, below [`OUTCOMES`], with random fields.
pub fn settled_with(random: &mut Random, variant: u64) -> Envelope {
    let settlements = vec![Settlement { outcome: outcome_of(random, variant), ..settlement(random) }];
    Envelope { command: Command::Settle { settlements }, ..envelope(random, 3) }
}

fn settlement(random: &mut Random) -> Settlement {
    Settlement { lease: lease_ref(random), outcome: outcome(random), push: several(random, new_job) }
}

fn capacity(random: &mut Random) -> Capacity {
    Capacity {
        jobs: number(random),
        bytes: number(random),
        on_full: pick(random, &[OnFull::Reject, OnFull::DropOldest, OnFull::Block]),
    }
}

fn keep(random: &mut Random) -> Keep {
    Keep { age_ms: number(random), count: number(random) }
}

fn queue_patch(random: &mut Random) -> QueuePatch {
    QueuePatch {
        attempts: maybe(random, small),
        max_crashes: maybe(random, small),
        timeout_ms: maybe(random, number),
        lease_ms: maybe(random, number),
        backoff: maybe(random, backoff),
        capacity: maybe(random, capacity),
        keep_completed: maybe(random, keep),
        keep_dead: maybe(random, keep),
        limit: maybe(random, limit),
        order: maybe(random, |r| {
            let step_ms = number(r);
            pick(r, &[Order::Priority, Order::Deadline, Order::Aging { step_ms }])
        }),
        bulkhead: maybe(random, |r| Bulkhead { pool: text(r), reserved: small(r), max: small(r) }),
        retry_budget: maybe(random, |r| RetryBudget { percent: small(r), per_minute: small(r) }),
        dead_letter: maybe(random, |r| {
            Box::new(DeadLetter {
                queue: maybe(r, queue_name),
                alert: Alert { count: number(r), per_minute: number(r) },
            })
        }),
    }
}

/// A limit of any size.
pub fn limit(random: &mut Random) -> Limit {
    Limit {
        concurrency: small(random),
        rate: Rate { units: small(random), per_ms: number(random), burst: small(random) },
        breaker: Breaker {
            failed_percent: random.next_u64() as u8,
            slow_percent: random.next_u64() as u8,
            slow_ms: number(random),
            window_ms: number(random),
            calls: small(random),
            open_ms: number(random),
            probes: small(random),
        },
    }
}

fn route(random: &mut Random) -> Box<Route> {
    Box::new(Route {
        group: Some(text(random)),
        ordering_key: maybe(random, text),
        limits: several(random, |r| LimitUse { key: text(r), cost: small(r) }),
        deadline: maybe(random, time),
    })
}

/// Settings that no limit was applied to.
pub fn queue_settings(random: &mut Random) -> QueueSettings {
    let mut settings = QueueSettings::DEFAULT;
    settings.apply(&queue_patch(random));
    settings
}

fn bulk_action(random: &mut Random) -> BulkAction {
    match random.below(8) {
        4 => BulkAction::Promote,
        5 => BulkAction::Retag { add: several(random, text), remove: several(random, text) },
        6 => BulkAction::Reprioritise { priority: priority(random) },
        7 => BulkAction::Move { to: queue_name(random) },
        _ => plain_action(random),
    }
}

fn plain_action(random: &mut Random) -> BulkAction {
    [BulkAction::Purge, BulkAction::Redrive, BulkAction::Remove, BulkAction::Cancel][random.below(4) as usize]
        .clone()
}

fn priority(random: &mut Random) -> Priority {
    Priority(random.next_u64() as u8)
}

/// What the first version of a bulk operation could say.
fn plain_bulk(random: &mut Random) -> NewBulk {
    let (queue, action) = (queue_name(random), plain_action(random));
    let filter = Filter {
        states: maybe(random, |r| pick(r, &State::ALL)).into_iter().collect(),
        tags_all: maybe(random, text).into_iter().collect(),
        error_kind: maybe(random, text),
        created_before: maybe(random, time),
        ..Filter::default()
    };
    NewBulk::new(queue, action, filter)
}

/// A filter with about half of its conditions.
pub fn filter(random: &mut Random) -> Filter {
    Filter {
        states: several(random, |r| pick(r, &State::ALL)),
        tags_any: several(random, text),
        tags_all: several(random, text),
        error_kind: maybe(random, text),
        error_contains: maybe(random, text),
        created_before: maybe(random, time),
        created_after: maybe(random, time),
        finished_before: maybe(random, time),
        finished_after: maybe(random, time),
        priority_min: maybe(random, priority),
        priority_max: maybe(random, priority),
        attempts_min: maybe(random, small),
        attempts_max: maybe(random, small),
        id_prefix: maybe(random, text),
        body: several(random, |r| BodyTest {
            path: text(r),
            compare: pick(r, &Compare::ALL).0,
            value: text(r),
        }),
    }
}

fn new_bulk(random: &mut Random) -> NewBulk {
    NewBulk {
        queue: queue_name(random),
        action: bulk_action(random),
        filter: filter(random),
        rate: small(random),
        reason: text(random),
    }
}

/// An operation that says more than the first version could.
fn wide_bulk(random: &mut Random) -> NewBulk {
    NewBulk { rate: 1 + random.below(1_000) as u32, ..new_bulk(random) }
}

fn chosen(random: &mut Random) -> Chosen {
    Chosen {
        operation: number(random),
        stage: small(random),
        priority: priority(random),
        order: number(random),
        jobs: several(random, number),
    }
}

/// One of 20 schedule ids.
pub fn schedule_id(random: &mut Random) -> ScheduleId {
    let id = format!("every-{}.x_Y", random.below(20));
    ScheduleId::new(&id).unwrap_or_else(|bad| unreachable!("{bad}"))
}

/// A schedule with about half of its options; half of the expressions mean something.
pub fn schedule_spec(random: &mut Random) -> ScheduleSpec {
    let when = match random.below(4) {
        0 => When::Every { interval_ms: number(random) },
        1 => When::Cron { expression: text(random), zone: text(random), rules: bytes(random) },
        _ => When::Cron {
            expression: pick(random, &["* * * * *", "*/5 * * * * *", "0 3 * * mon", "@daily"]).into(),
            zone: "UTC".into(),
            rules: Bytes::new(),
        },
    };
    let mut job = new_job(random);
    if random.chance(1, 2) {
        (job.id, job.run_at) = (None, None);
    }
    ScheduleSpec {
        when,
        start: maybe(random, time),
        end: maybe(random, time),
        limit: maybe(random, number).unwrap_or(0),
        jitter_ms: maybe(random, number).unwrap_or(0),
        overlap: pick(random, &Overlap::ALL),
        catch_up: match random.below(3) {
            0 => CatchUp::Skip,
            1 => CatchUp::One,
            _ => CatchUp::All { most: small(random) },
        },
        job,
    }
}

/// The command with number `variant` modulo [`COMMANDS`], in the order of the enum, with random fields.
pub fn command(random: &mut Random, variant: u64) -> Command {
    match variant % COMMANDS {
        0 => Command::Push { jobs: several(random, new_job) },
        1 => Command::Fetch {
            queues: several(random, queue_name),
            max: small(random),
            lease_ms: number(random),
        },
        2 => Command::Renew { leases: several(random, lease_ref), lease_ms: number(random) },
        3 => Command::Settle { settlements: several(random, settlement) },
        4 => Command::Cancel { job: job_ref(random), reason: text(random) },
        5 => Command::Progress { lease: lease_ref(random), value: bytes(random) },
        6 => Command::Log { lease: lease_ref(random), lines: several(random, text) },
        7 => Command::Promote { jobs: several(random, job_ref) },
        8 => Command::Redrive { jobs: several(random, job_ref) },
        9 => Command::Remove { jobs: several(random, job_ref) },
        10 => Command::Pause { queue: queue_name(random) },
        11 => Command::Resume { queue: queue_name(random) },
        12 => Command::Configure { queue: queue_name(random), patch: queue_patch(random) },
        25 => Command::SetLimit { pattern: text(random), limit: maybe(random, limit) },
        26 => Command::SetGroup {
            queue: queue_name(random),
            group: text(random),
            weight: maybe(random, small),
            paused: maybe(random, |r| r.chance(1, 2)),
        },
        13 => Command::Bulk(Box::new(plain_bulk(random))),
        14 => Command::Tick,
        15 => Command::PutSchedule { id: schedule_id(random), spec: Box::new(schedule_spec(random)) },
        16 => Command::PauseSchedule { id: schedule_id(random) },
        17 => Command::ResumeSchedule { id: schedule_id(random) },
        18 => Command::RunSchedule { id: schedule_id(random) },
        19 => Command::RemoveSchedule { id: schedule_id(random) },
        20 => Command::Step { lease: lease_ref(random), name: text(random), result: bytes(random) },
        21 => Command::Signal { job: job_ref(random), name: text(random), body: bytes(random) },
        22 => Command::Restart { jobs: several(random, job_ref) },
        23 => Command::Bulk(Box::new(wide_bulk(random))),
        24 => Command::ControlBulk {
            operation: number(random),
            control: pick(random, &[BulkControl::Pause, BulkControl::Resume, BulkControl::Cancel]),
        },
        27 => Command::Choose(Box::new(chosen(random))),
        28 => Command::PatchBody { job: job_ref(random), expected_crc: small(random), body: bytes(random) },
        29 => Command::Join { graph: graph(random) },
        30 => Command::Extend {
            join: job_id(random),
            jobs: several(random, named_job),
            seal: random.chance(1, 2),
        },
        31 => Command::CancelJoin { join: job_id(random), reason: text(random) },
        _ => Command::RaiseTokens { seconds: number(random) },
    }
}

/// An envelope around [`command`].
pub fn envelope(random: &mut Random, variant: u64) -> Envelope {
    Envelope {
        actor: Actor::new(&text(random)),
        idempotency_key: maybe(random, text),
        command: command(random, variant),
    }
}

fn pushed(random: &mut Random) -> Pushed {
    let (id, state) = (job_id(random), pick(random, &State::ALL));
    let deduplicated = random.chance(1, 2);
    Pushed { id, state, deduplicated, forgotten: deduplicated && random.chance(1, 2) }
}

fn dispatched_job(random: &mut Random) -> DispatchedJob {
    DispatchedJob {
        sequence: number(random),
        id: job_id(random),
        queue: queue_name(random),
        body: maybe(random, bytes),
        content_type: text(random),
        attempt: small(random),
        attempts: small(random),
        crashes: small(random),
        lease_token: number(random),
        lease_until: time(random),
        timeout_at: time(random),
        priority: Priority(random.next_u64() as u8),
        created_at: time(random),
        tags: several(random, text),
        meta: several(random, meta),
        children: None,
        steps: 0,
        group: None,
    }
}

/// The refusal with number `variant` modulo [`REJECTS`], in the order of the enum.
pub fn reject(random: &mut Random, variant: u64) -> Reject {
    let id = text(random);
    match variant % REJECTS {
        0 => Reject::Invalid { field: "priority", reason: text(random) },
        1 => Reject::TooMany { what: "jobs", limit: number(random) },
        2 => Reject::BodyTooLarge { bytes: number(random), limit: number(random) },
        3 => Reject::QueueFull {
            queue: queue_name(random),
            limit: number(random),
            unit: "bytes",
            waits: random.chance(1, 2),
        },
        4 => Reject::PondFull { limit: number(random) },
        5 => Reject::UnknownQueue { queue: queue_name(random) },
        6 => Reject::UnknownJob { id },
        7 => Reject::StaleLease { id, token: number(random) },
        8 => Reject::Cancelled { id },
        9 => Reject::WrongState { id, state: pick(random, &State::ALL), wanted: "value" },
        10 => Reject::UniqueConflict { key: text(random), holder: id },
        11 => Reject::IdempotencyConflict { key: id },
        12 => Reject::BadCron { field: id, at: small(random), help: text(random) },
        13 => Reject::BadZone { zone: id, help: text(random) },
        14 => Reject::UnknownSchedule { id: schedule_id(random) },
        15 => Reject::StepsFull { id, limit: number(random), unit: "steps" },
        16 => Reject::SignalsFull { id, limit: number(random), unit: "signals" },
        17 => Reject::ChildExists { id },
        18 => Reject::UnknownOperation { operation: number(random) },
        19 => Reject::OperationEnded { operation: number(random), status: "finished" },
        20 => Reject::StaleChoice { operation: number(random) },
        21 => Reject::BodyChanged { id },
        22 => Reject::UnknownJoin { id },
        24 => Reject::DeadLetterCycle { queue: queue_name(random), target: queue_name(random) },
        23 => Reject::BadGraph { name: id, reason: "waits for itself" },
        _ => Reject::JoinClosed { id, state: "sealed" },
    }
}

fn result<T>(random: &mut Random, make: impl FnOnce(&mut Random) -> T) -> Result<T, Reject> {
    match random.chance(1, 2) {
        true => Ok(make(random)),
        false => {
            let variant = random.next_u64();
            Err(reject(random, variant))
        }
    }
}

/// The reply with number `variant` modulo [`REPLIES`], in the order of the enum.
pub fn reply(random: &mut Random, variant: u64) -> Reply {
    match variant % REPLIES {
        0 => Reply::Pushed(several(random, pushed)),
        1 => Reply::Fetched(several(random, dispatched_job)),
        2 => Reply::Renewed(several(random, |r| result(r, |r| Renewed { lease_until: time(r) }))),
        3 => Reply::Settled(several(random, |r| {
            result(r, |r| Settled { state: pick(r, &State::ALL), pushed: several(r, pushed) })
        })),
        4 => Reply::Changed(several(random, |r| pick(r, &State::ALL))),
        5 => Reply::Configured(Box::new(queue_settings(random))),
        6 => Reply::Operation(Box::new(BulkView {
            id: number(random),
            asked: new_bulk(random),
            by: Actor::new(&text(random)),
            status: pick(random, &BulkStatus::ALL),
            total: number(random),
            examined: number(random),
            changed: number(random),
            skipped: number(random),
            started_at: time(random),
            finished_at: maybe(random, time),
        })),
        7 => Reply::Done,
        8 => Reply::Scheduled(Scheduled {
            id: schedule_id(random),
            change: pick(random, &ScheduleChange::ALL),
            state: pick(random, &ScheduleState::ALL),
            next_slot: maybe(random, time),
        }),
        9 => Reply::Step(maybe(random, step)),
        10 => Reply::Signalled { state: pick(random, &State::ALL), buffered: random.chance(1, 2) },
        _ => Reply::Joined(Joined { jobs: several(random, pushed), joins: several(random, job_id) }),
    }
}
