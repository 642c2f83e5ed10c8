//! The library in this process: no socket, no JSON.

use crate::{
    Plan, limits,
    report::{Report, Result},
};
use millpond::{Durability, Pond};
use model::{
    Actor, Command, DispatchedJob, Envelope, LeaseRef, NewJob, Outcome, QueueName, Route, Settlement,
};
use node::Handle;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

pub(crate) const JOBS: usize = 200_000;
const BATCH: usize = 1_000;
const PUSHERS: usize = 8;
const HANDLERS: usize = 64;
const LONE_PUSHES: u32 = 200;
/// How long a caller waits while others hold the keys of what is left.
const PATIENCE: Duration = Duration::from_millis(5);
pub(crate) const PAYLOADS: [(usize, &str); 2] = [(100, "100 B"), (1_024, "1 KiB")];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (bytes, name) in PAYLOADS {
        let (mut pushes, mut whole, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            let (push, jobs) = runtime.block_on(library(bytes))?;
            pushes.push(push);
            whole.push(jobs);
            raw.push(runtime.block_on(handle(bytes, node::Options::default()))?);
        }
        let setting = |rest: &str| format!("disk, {name}, {rest}");
        report.add("library: pushes", &setting("8 callers, batches of 1,000"), "jobs/s", pushes);
        report.add("library: push + fetch + complete", &setting("64 handlers"), "jobs/s", whole);
        report.add("node: push + fetch + complete", &setting("8 callers, batches of 1,000"), "jobs/s", raw);
    }
    let (mut lone, mut flushes) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        // Measured at the same time, because the disk of a shared machine is not the same a minute later.
        let folder = tempfile::tempdir()?;
        let flush = limits::flush_us(&folder.path().join("flush"))?;
        let push = runtime.block_on(lone_push())?;
        flushes.push(push / flush);
        lone.push(push);
    }
    report.add("library: a lone push, in flushes", "disk, 100 B, 1 caller", "flushes", flushes);
    report.add("library: a lone push", "disk, 100 B, 1 caller", "µs", lone);
    Ok(())
}

/// A body whose JSON text has this many bytes.
pub(crate) fn body(bytes: usize) -> String {
    "x".repeat(bytes.saturating_sub(2))
}

async fn library(bytes: usize) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    through(Pond::open(folder.path()).await?, bytes).await
}

/// Jobs pushed a second, and jobs a second from the first push to the last outcome, through any pond.
pub(crate) async fn through(pond: Pond, bytes: usize) -> Result<(f64, f64)> {
    let queue = pond.queue::<String>("bench")?;
    // First all pushes, then all the rest: the whole is the time of both.
    let started = Instant::now();
    let mut pushers = JoinSet::new();
    for _ in 0..PUSHERS {
        let (queue, bodies) = (queue.clone(), vec![body(bytes); BATCH]);
        pushers.spawn(async move {
            for _ in 0..JOBS / PUSHERS / BATCH {
                queue.push_many(&bodies).await?;
            }
            Ok::<_, millpond::Error>(())
        });
    }
    while let Some(pushed) = pushers.join_next().await {
        pushed??;
    }
    let pushed = started.elapsed();
    let worker = queue.worker(|_: String, _| async {}).concurrency(HANDLERS).start()?;
    while worker.totals().done < JOBS as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let whole = started.elapsed();
    worker.stop().await;
    pond.close().await?;
    Ok((JOBS as f64 / pushed.as_secs_f64(), JOBS as f64 / whole.as_secs_f64()))
}

pub(crate) async fn handle(bytes: usize, options: node::Options) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let node = Handle::open(folder.path(), options)?;
    let rate = drive(&node, bytes, |_| None).await?;
    node.stop(Duration::from_secs(30)).await?;
    Ok(rate)
}

/// The route of a job, by its place in a batch.
pub(crate) type Kind = fn(usize) -> Option<Route>;

/// Pushes, fetches and completes; jobs a second.
///
/// A fetch may bring fewer than were pushed, because others hold their keys: all work until every job is done.
pub(crate) async fn drive(node: &Handle, bytes: usize, kind: Kind) -> Result<f64> {
    let started = Instant::now();
    let done = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..PUSHERS {
        let (node, done) = (node.clone(), done.clone());
        callers.spawn(async move {
            for _ in 0..JOBS / PUSHERS / BATCH {
                push_routed(&node, BATCH, bytes, kind).await?;
                done.fetch_add(work(&node, BATCH, PATIENCE).await?, Relaxed);
            }
            while done.load(Relaxed) < JOBS {
                done.fetch_add(work(&node, BATCH, PATIENCE).await?, Relaxed);
            }
            Ok::<_, crate::report::Error>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }
    Ok(JOBS as f64 / started.elapsed().as_secs_f64())
}

pub(crate) fn envelope(command: Command) -> Envelope {
    Envelope { actor: Actor::new("bench"), idempotency_key: None, command }
}

/// One push of so many jobs.
pub(crate) async fn push(node: &Handle, count: usize, bytes: usize) -> Result<()> {
    push_routed(node, count, bytes, |_| None).await
}

async fn push_routed(node: &Handle, count: usize, bytes: usize, kind: Kind) -> Result<()> {
    let queue = QueueName::new("bench")?;
    let body = format!("\"{}\"", body(bytes));
    let job = |place| NewJob { route: kind(place).map(Box::new), ..NewJob::new(queue.clone(), body.clone()) };
    let jobs = (0..count).map(job).collect();
    node.call(envelope(Command::Push { jobs }), Durability::Disk).await?;
    Ok(())
}

/// One fetch, waiting so long for the first job, and the completion of what it brought; returns how many.
pub(crate) async fn work(node: &Handle, max: usize, wait: Duration) -> Result<usize> {
    let queues = vec![QueueName::new("bench")?];
    let max = u32::try_from(max)?;
    let jobs = node.fetch(Actor::new("bench"), queues, max, 0, wait, Durability::Disk).await?;
    let count = jobs.len();
    node.call(envelope(complete(jobs)), Durability::Disk).await?;
    Ok(count)
}

pub(crate) fn complete(jobs: Vec<DispatchedJob>) -> Command {
    let settle = |job: DispatchedJob| Settlement {
        lease: LeaseRef { job: model::JobRef { queue: Some(job.queue), id: job.id }, token: job.lease_token },
        outcome: Outcome::Done { result: None },
        push: Vec::new(),
    };
    Command::Settle { settlements: jobs.into_iter().map(settle).collect() }
}

async fn lone_push() -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let pond = Pond::open(folder.path()).await?;
    let queue = pond.queue::<String>("bench")?;
    let body = body(100);
    let mut times = Vec::new();
    for _ in 0..LONE_PUSHES {
        let started = Instant::now();
        queue.push(&body).await?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    pond.close().await?;
    Ok(times[times.len() / 2])
}
