//! One tenant with a million jobs beside 999 with ten each: how long the small ones wait, and how long without the large one.

use crate::{
    Plan,
    report::{Report, Result},
};
use millpond::Durability;
use model::{Actor, Command, Envelope, LeaseRef, NewJob, Outcome, QueueName, Route, Settlement};
use node::Handle;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const LARGE: usize = 1_000_000;
const SMALL: [usize; 2] = [999, 10];
const BATCH: usize = 10_000;
const WORKERS: usize = 8;
const FETCH: u32 = 16;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut alone, mut beside, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let without = runtime.block_on(round(0))?;
        let with = runtime.block_on(round(LARGE))?;
        alone.push(without);
        beside.push(with);
        shares.push(with / without);
    }
    let setting = |rest: &str| format!("disk, 100 B, 999 groups of 10 jobs, 8 workers fetching 16, {rest}");
    report.add("p95 of the wait of a small group's job", &setting("alone"), "ms", alone);
    report.add("p95 of the wait of a small group's job", &setting("beside one of 1 M"), "ms", beside);
    report.add("times as long", &setting("beside one of 1 M"), "×", shares);
    Ok(())
}

/// The 95th percentile of the time from the first fetch to the start of a small group's job, milliseconds.
async fn round(large: usize) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let node = Handle::open(folder.path(), node::Options::default())?;
    push(&node, (0..large).map(|_| "large".to_owned())).await?;
    // In turns, as tenants push; all are there before the first worker is.
    push(&node, (0..SMALL[1]).flat_map(|_| (0..SMALL[0]).map(|tenant| format!("small:{tenant}")))).await?;
    let began = Instant::now();
    let mut workers = JoinSet::new();
    let wanted = SMALL.iter().product::<usize>();
    let (told, mut heard) = tokio::sync::mpsc::channel(wanted);
    for _ in 0..WORKERS {
        let (node, told) = (node.clone(), told.clone());
        workers.spawn(async move {
            loop {
                let fetched = node.fetch(
                    Actor::new("bench"),
                    vec![queue()?],
                    FETCH,
                    0,
                    Duration::ZERO,
                    Durability::Disk,
                );
                let jobs = fetched.await?;
                let waited = began.elapsed().as_secs_f64() * 1e3;
                for _ in jobs.iter().filter(|job| job.group.as_deref() != Some("large")) {
                    // Nobody listens any more when all are counted.
                    if told.send(waited).await.is_err() {
                        return Ok::<_, crate::report::Error>(());
                    }
                }
                let settlements = jobs.into_iter().map(|job| Settlement {
                    lease: LeaseRef {
                        job: model::JobRef { queue: Some(job.queue), id: job.id },
                        token: job.lease_token,
                    },
                    outcome: Outcome::Done { result: None },
                    push: Vec::new(),
                });
                call(&node, Command::Settle { settlements: settlements.collect() }).await?;
            }
        });
    }
    let mut waits = Vec::new();
    while waits.len() < wanted {
        waits.push(heard.recv().await.ok_or("the workers ended before the jobs did")?);
    }
    workers.shutdown().await;
    node.stop(Duration::from_secs(60)).await?;
    waits.sort_by(f64::total_cmp);
    Ok(waits[wanted * 95 / 100])
}

async fn push(node: &Handle, groups: impl Iterator<Item = String>) -> Result<()> {
    let groups: Vec<String> = groups.collect();
    for groups in groups.chunks(BATCH) {
        let job = |group: &String| -> Result<NewJob> {
            let route = Route { group: Some(group.into()), ..Route::default() };
            Ok(NewJob { route: Some(Box::new(route)), ..NewJob::new(queue()?, "x".repeat(100)) })
        };
        let jobs = groups.iter().map(job).collect::<Result<_>>()?;
        call(node, Command::Push { jobs }).await?;
    }
    Ok(())
}

fn queue() -> Result<QueueName> {
    Ok(QueueName::new("bench")?)
}

async fn call(node: &Handle, command: Command) -> Result<()> {
    let envelope = Envelope { actor: Actor::new("bench"), idempotency_key: None, command };
    node.call(envelope, Durability::Disk).await?;
    Ok(())
}
