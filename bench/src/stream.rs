//! The worker stream over loopback: the library here, the real binary beside it on the same cores.

use crate::{
    Plan, embedded, process,
    report::{Report, Result},
};
use millpond::Pond;
use rig::Starter;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const JOBS: usize = 200_000;
const BATCH: usize = 1_000;
const PUSHERS: usize = 8;
const HANDLERS: usize = 64;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut pushes, mut whole, mut cpu) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let folder = tempfile::tempdir()?;
        let server = Starter::new(folder.path()).arguments(["--log", "warn"]).start()?;
        let before = process::cpu_seconds(server.pid())?;
        let (push, jobs) = runtime.block_on(measure(&server.url()))?;
        pushes.push(push);
        whole.push(jobs);
        cpu.push((process::cpu_seconds(server.pid())? - before) * 1e6 / JOBS as f64);
    }
    report.add("stream: pushes", "disk, 100 B, 8 callers, batches of 1,000", "jobs/s", pushes);
    report.add("stream: push + fetch + complete", "disk, 100 B, 64 handlers", "jobs/s", whole);
    report.add("stream: server CPU", "disk, 100 B, 64 handlers", "s/million", cpu);
    Ok(())
}

/// Jobs pushed a second, and jobs a second from the first push to the last outcome.
async fn measure(url: &str) -> Result<(f64, f64)> {
    let pond = Pond::connect(url).await?;
    let queue = pond.queue::<String>("bench")?;
    let started = Instant::now();
    let mut pushers = JoinSet::new();
    for _ in 0..PUSHERS {
        let (queue, bodies) = (queue.clone(), vec![embedded::body(100); BATCH]);
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
