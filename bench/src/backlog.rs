//! A million jobs that wait, ten million with `--huge`: what they cost, and whether anybody notices.

use crate::{
    Plan, embedded, process,
    report::{Report, Result},
};
use node::{Handle, Options};
use std::time::{Duration, Instant};

const MILLION: usize = 1_000_000;
const BATCH: usize = 1_000;
/// Jobs that are dispatched for one measurement.
const DISPATCHED: usize = 50_000;
const BODY_BYTES: usize = 100;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(plan, report, MILLION, "1 M"))?;
    if plan.huge {
        runtime.block_on(measure(plan, report, 10 * MILLION, "10 M"))?;
    }
    Ok(())
}

async fn measure(plan: &Plan, report: &mut Report, count: usize, name: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Handle::open(folder.path(), Options::default())?;
    let mut empty = Vec::new();
    for _ in 0..plan.rounds {
        fill(&node, DISPATCHED).await?;
        empty.push(dispatch(&node).await?);
    }
    report.add("backlog: dispatch, empty queue", "disk, 100 B, fetch 1,000 + complete", "jobs/s", empty);

    let before = process::memory_bytes(std::process::id())?;
    fill(&node, count).await?;
    let grown = process::memory_bytes(std::process::id())? - before;
    report.add(
        "backlog: memory of a job beyond its body",
        &format!("{name} waiting, 100 B"),
        "bytes",
        vec![grown / count as f64 - BODY_BYTES as f64],
    );
    let mut full = Vec::new();
    for _ in 0..plan.rounds {
        full.push(dispatch(&node).await?);
    }
    report.add(
        &format!("backlog: dispatch, {name} waiting"),
        "disk, 100 B, fetch 1,000 + complete",
        "jobs/s",
        full,
    );
    node.stop(Duration::from_secs(120)).await?;
    drop(node);

    let mut starts = Vec::new();
    for _ in 0..plan.rounds {
        let started = Instant::now();
        let node = Handle::open(folder.path(), Options::default())?;
        starts.push(started.elapsed().as_secs_f64());
        node.stop(Duration::from_secs(120)).await?;
    }
    report.add("backlog: recovery", &format!("{name} waiting, checkpoint and tail"), "s", starts);
    Ok(())
}

async fn fill(node: &Handle, count: usize) -> Result<()> {
    for _ in 0..count / BATCH {
        embedded::push(node, BATCH, BODY_BYTES).await?;
    }
    Ok(())
}

async fn dispatch(node: &Handle) -> Result<f64> {
    let started = Instant::now();
    let mut done = 0;
    while done < DISPATCHED {
        done += match embedded::work(node, BATCH, Duration::ZERO).await? {
            0 => return Err("the queue ran empty".into()),
            count => count,
        };
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}
