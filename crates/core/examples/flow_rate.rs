//! What routes cost: jobs a second through a shard on one core, without a route and with limits, ordering keys and groups, in turns.
//! `cargo run --release -p millpond-core --example flow_rate [rounds]`
//!
//! A full job here is push, fetch and complete, with no log and no network around it: the whole pond does a fraction of that, so what is
//! lost here is lost there only in part. Then: one group with a million jobs beside 999 with ten each, and how long theirs wait.

use kit::Timestamp;
use millpond_core::{Effects, Shard};
use model::{
    Actor, Command, Envelope, JobRef, LeaseRef, Limit, LimitUse, NewJob, Outcome, QueueName, Rate, Reply,
    Route, Settlement,
};
use std::{collections::BTreeMap, time::Instant};

/// The same as in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 1_000;
const BATCHES: usize = 200;

fn apply(shard: &mut Shard, now: u64, command: Command) -> Reply {
    let envelope = Envelope { actor: Actor::new("worker-1"), idempotency_key: None, command };
    shard
        .apply(shard.position() + 1, Timestamp(now), &envelope, &mut Effects::default())
        .expect("nothing here is refused")
}

fn limits(keys: &[&str]) -> Vec<LimitUse> {
    keys.iter().map(|key| LimitUse { key: (*key).into(), cost: 1 }).collect()
}

/// A route for job number `job`, if its kind has one.
type Kind = fn(usize) -> Option<Route>;

const KINDS: [(&str, Kind); 5] = [
    ("no route", |_| None),
    ("two limits: slots and a rate", |_| {
        Some(Route { limits: limits(&["api", "tenant:7"]), ..Route::default() })
    }),
    ("two limits, 1,000 keys", |job| {
        let tenant = format!("tenant:{}", job % 1_000);
        Some(Route { limits: limits(&["api", &tenant]), ..Route::default() })
    }),
    ("an ordering key of 10,000", |job| {
        Some(Route { ordering_key: Some(format!("cart:{}", job % 10_000).into()), ..Route::default() })
    }),
    ("1,000 groups", |job| {
        Some(Route { group: Some(format!("tenant:{}", job % 1_000).into()), ..Route::default() })
    }),
];

/// Jobs a second.
fn run(kind: Kind) -> f64 {
    let queue = QueueName::new("bench").expect("a good name");
    let mut shard = Shard::new(0);
    let mut now = 1_700_000_000_000;
    let slots = Limit { concurrency: 1_000_000, ..Limit::default() };
    let rate = Limit { rate: Rate { units: 1_000_000_000, per_ms: 1_000, burst: 0 }, ..slots };
    for (pattern, limit) in [("api", rate), ("tenant:*", slots)] {
        apply(&mut shard, now, Command::SetLimit { pattern: pattern.into(), limit: Some(limit) });
    }
    let mut spent = 0.0;
    for batch in 0..BATCHES {
        now += 1;
        let jobs = (0..BATCH).map(|job| NewJob {
            route: kind(batch * BATCH + job).map(Box::new),
            ..NewJob::new(queue.clone(), vec![b'x'; 100])
        });
        let push = Command::Push { jobs: jobs.collect() };
        let start = Instant::now();
        apply(&mut shard, now, push);
        let fetch = Command::Fetch { queues: vec![queue.clone()], max: BATCH as u32, lease_ms: 0 };
        let Reply::Fetched(jobs) = apply(&mut shard, now, fetch) else { unreachable!() };
        assert_eq!(jobs.len(), BATCH);
        let settlements = jobs.into_iter().map(|job| Settlement {
            lease: LeaseRef { job: JobRef { queue: Some(job.queue), id: job.id }, token: job.lease_token },
            outcome: Outcome::Done { result: None },
            push: Vec::new(),
        });
        let settle = Command::Settle { settlements: settlements.collect() };
        apply(&mut shard, now, settle);
        spent += start.elapsed().as_secs_f64();
        shard.take_changes();
    }
    (BATCH * BATCHES) as f64 / spent
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Starts that jobs of the small groups wait for, beside one with `backlog` jobs: their 95th percentile.
fn wait_of_the_small(backlog: usize) -> usize {
    let queue = QueueName::new("bench").expect("a good name");
    let mut shard = Shard::new(0);
    let now = 1_700_000_000_000;
    let job = |group: String| NewJob {
        route: Some(Box::new(Route { group: Some(group.into()), ..Route::default() })),
        ..NewJob::new(queue.clone(), &b"x"[..])
    };
    for _ in 0..backlog / BATCH {
        let jobs = (0..BATCH).map(|_| job("big".into())).collect();
        apply(&mut shard, now, Command::Push { jobs });
    }
    for group in 1..1_000 {
        let jobs = (0..10).map(|_| job(format!("small-{group}"))).collect();
        apply(&mut shard, now, Command::Push { jobs });
    }
    let mut waits = Vec::new();
    let mut started = 0;
    let small: BTreeMap<u64, ()> = (backlog as u64 + 1..=backlog as u64 + 9_990).map(|at| (at, ())).collect();
    while waits.len() < small.len() {
        let fetch = Command::Fetch { queues: vec![queue.clone()], max: BATCH as u32, lease_ms: 0 };
        let Reply::Fetched(jobs) = apply(&mut shard, now, fetch) else { unreachable!() };
        for job in jobs {
            started += 1;
            waits.extend(small.contains_key(&job.sequence).then_some(started));
        }
    }
    waits[waits.len() * 95 / 100]
}

fn main() {
    let rounds: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(5);
    let mut rates = vec![Vec::new(); KINDS.len()];
    for _ in 0..rounds {
        for (rates, (_, kind)) in rates.iter_mut().zip(KINDS) {
            rates.push(run(kind));
        }
    }
    let plain = median(rates[0].clone());
    for (rates, (name, _)) in rates.into_iter().zip(KINDS) {
        let rate = median(rates);
        println!(
            "{name:<32} {rate:>10.0} jobs/s {:>6.2} µs a job {:>6.2} of no route",
            1e6 / rate,
            rate / plain
        );
    }
    let (alone, beside) = (wait_of_the_small(0), wait_of_the_small(1_000_000));
    let ratio = beside as f64 / alone as f64;
    println!(
        "999 groups of 10 jobs: p95 waits for {alone} starts alone, {beside} beside a group of 1,000,000: {ratio:.3}"
    );
}
