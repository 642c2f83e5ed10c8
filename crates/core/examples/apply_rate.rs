//! How many jobs a second one core can push, fetch and complete in a shard, with no log and no network around it.
//! `cargo run --release -p millpond-core --example apply_rate [backlog]`

use kit::Timestamp;
use millpond_core::{Effects, Shard};
use model::{Actor, Command, Envelope, JobRef, LeaseRef, NewJob, Outcome, QueueName, Reply, Settlement};
use std::time::Instant;

const BATCH: usize = 1_000;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4_096
}

fn apply(shard: &mut Shard, now: u64, command: Command) -> Reply {
    let envelope = Envelope { actor: Actor::new("worker-1"), idempotency_key: None, command };
    let mut effects = Effects::default();
    shard
        .apply(shard.position() + 1, Timestamp(now), &envelope, &mut effects)
        .expect("nothing here is refused")
}

fn main() {
    let backlog: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    let queue = QueueName::new("bench").expect("a good name");
    let body = vec![b'x'; 100];
    let jobs: Vec<_> = (0..BATCH).map(|_| NewJob::new(queue.clone(), body.clone())).collect();
    let mut shard = Shard::new(0);
    let mut now = 1_700_000_000_000;
    let before = resident_bytes();
    let push = Envelope { actor: Actor::default(), idempotency_key: None, command: Command::Push { jobs } };
    for _ in 0..backlog.div_ceil(BATCH) {
        let _ = shard.apply(shard.position() + 1, Timestamp(now), &push, &mut Effects::default());
    }
    if backlog > 0 {
        println!(
            "{} bytes a waiting job beyond its body",
            (resident_bytes() - before) / backlog as u64 - 100
        );
    }
    for round in 0..3 {
        let (mut pushing, mut fetching, mut settling) = (0.0, 0.0, 0.0);
        let rounds = 500;
        for _ in 0..rounds {
            now += 1;
            let start = Instant::now();
            let _ = shard.apply(shard.position() + 1, Timestamp(now), &push, &mut Effects::default());
            pushing += start.elapsed().as_secs_f64();
            let start = Instant::now();
            let fetch = Command::Fetch { queues: vec![queue.clone()], max: BATCH as u32, lease_ms: 0 };
            let Reply::Fetched(jobs) = apply(&mut shard, now, fetch) else { unreachable!() };
            fetching += start.elapsed().as_secs_f64();
            let settlements = jobs
                .into_iter()
                .map(|job| Settlement {
                    lease: LeaseRef {
                        job: JobRef { queue: Some(job.queue), id: job.id },
                        token: job.lease_token,
                    },
                    outcome: Outcome::Done { result: None },
                    push: Vec::new(),
                })
                .collect();
            let start = Instant::now();
            apply(&mut shard, now, Command::Settle { settlements });
            settling += start.elapsed().as_secs_f64();
            shard.take_changes();
        }
        let jobs = (rounds * BATCH) as f64;
        let total = pushing + fetching + settling;
        println!(
            "round {round}: {:.0} jobs/s; ns a job: push {:.0}, fetch {:.0}, settle {:.0}",
            jobs / total,
            pushing / jobs * 1e9,
            fetching / jobs * 1e9,
            settling / jobs * 1e9
        );
    }
}
