//! Dispatch beside a purge of a million jobs: in another queue, and in the very queue that is worked on.

use crate::{
    Plan, embedded,
    report::{Report, Result},
};
use millpond::Durability;
use model::{
    Actor, BulkAction, BulkStatus, Command, Envelope, Filter, NewBulk, NewJob, Priority, QueueName, Reply,
};
use node::Handle;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

const OLD: usize = 1_000_000;
const BATCH: usize = 10_000;
const CALLERS: usize = 8;
const JOBS: usize = 100;
/// How long dispatch is measured without a purge.
const ALONE: Duration = Duration::from_secs(5);

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (queue, name) in
        [("old", "purge of 1 M in another queue"), ("bench", "purge of 1 M in the same queue")]
    {
        let (mut alone, mut beside, mut shares, mut took) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            let (without, with, seconds) = runtime.block_on(round(queue))?;
            alone.push(without);
            beside.push(with);
            shares.push(100.0 * with / without);
            took.push(seconds);
        }
        let setting = format!("disk, 100 B, 8 callers, batches of 100, {name}");
        report.add("push + fetch + complete, before it", &setting, "jobs/s", alone);
        report.add("push + fetch + complete, beside it", &setting, "jobs/s", beside);
        report.add("pace kept", &setting, "%", shares);
        report.add("the purge took", &setting, "s", took);
    }
    Ok(())
}

/// Jobs per second without and with a purge, and how long that took.
async fn round(queue: &str) -> Result<(f64, f64, f64)> {
    let folder = tempfile::tempdir()?;
    let node = Handle::open(folder.path(), node::Options::default())?;
    let queue = QueueName::new(queue)?;
    for _ in 0..OLD / BATCH {
        let mut job = NewJob::new(queue.clone(), "x".repeat(100));
        // Behind the jobs that are worked on.
        (job.priority, job.tags) = (Priority::BACKGROUND, vec!["old".into()]);
        call(&node, Command::Push { jobs: vec![job; BATCH] }).await?;
    }
    let done = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (node, done, stop) = (node.clone(), done.clone(), stop.clone());
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                embedded::push(&node, JOBS, 100).await?;
                let worked = embedded::work(&node, JOBS, Duration::ZERO).await?;
                done.fetch_add(worked as u64, Ordering::Relaxed);
            }
            Ok::<_, crate::report::Error>(())
        });
    }
    // The checkpoint of the million is not measured.
    tokio::time::sleep(ALONE).await;
    let alone = rate(&done, async {
        tokio::time::sleep(ALONE).await;
        Ok(())
    });
    let (alone, _) = alone.await?;
    let filter = Filter { tags_all: vec!["old".into()], ..Filter::default() };
    let asked = NewBulk::new(queue, BulkAction::Purge, filter);
    let Reply::Operation(started) = call(&node, Command::Bulk(Box::new(asked))).await? else {
        return Err("the purge did not start".into());
    };
    let (beside, took) = rate(&done, async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let id = started.id;
            let found = node.read(move |shard| shard.bulks().into_iter().find(|bulk| bulk.id == id)).await?;
            if found.is_none_or(|bulk| bulk.status == BulkStatus::Finished) {
                return Ok(());
            }
        }
    })
    .await?;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended??;
    }
    node.stop(Duration::from_secs(60)).await?;
    Ok((alone, beside, took))
}

/// Jobs per second while something goes on, and how many seconds that took.
async fn rate(done: &AtomicU64, meanwhile: impl Future<Output = Result<()>>) -> Result<(f64, f64)> {
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    meanwhile.await?;
    let seconds = began.elapsed().as_secs_f64();
    Ok(((done.load(Ordering::Relaxed) - before) as f64 / seconds, seconds))
}

async fn call(node: &Handle, command: Command) -> Result<Reply> {
    let envelope = Envelope { actor: Actor::new("bench"), idempotency_key: None, command };
    Ok(node.call(envelope, Durability::Disk).await?.reply)
}
