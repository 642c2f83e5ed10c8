//! How long a job takes from the call that pushes it to its handler, at so many jobs a second, which come whether the server keeps up
//! or not: in this process, and over the stream.

use crate::{
    Plan, embedded, limits, process,
    report::{Report, Result},
};
use millpond::Pond;
use rig::Starter;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::MissedTickBehavior};

/// How long jobs come, and how much of it does not count.
const SPAN: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);
const RATES: [u32; 2] = [100, 1_000];
const HANDLERS: usize = 64;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for per_second in RATES {
        let (mut here, mut there) = (Columns::default(), Columns::default());
        let mut cpu = Vec::new();
        for _ in 0..plan.rounds {
            let folder = tempfile::tempdir()?;
            let flush = limits::flush_us(&folder.path().join("flush"))?;
            here.add(
                flush,
                &runtime.block_on(async {
                    paced(Pond::open(folder.path().join("pond")).await?, per_second).await
                })?,
            );
            let folder = tempfile::tempdir()?;
            let server = Starter::new(folder.path()).arguments(["--log", "warn"]).start()?;
            let before = process::cpu_seconds(server.pid())?;
            let late =
                runtime.block_on(async { paced(Pond::connect(&server.url()).await?, per_second).await })?;
            let jobs = f64::from(per_second) * SPAN.as_secs_f64();
            cpu.push((process::cpu_seconds(server.pid())? - before) * 1e6 / jobs);
            there.add(flush, &late);
        }
        let setting = format!("disk, 100 B, {per_second} jobs/s, {HANDLERS} handlers");
        here.report("library", &setting, report);
        there.report("stream", &setting, report);
        report.add("stream: push to handler, server CPU", &setting, "s/million", cpu);
    }
    Ok(())
}

/// One value a round of each row.
#[derive(Default)]
struct Columns {
    flushes: Vec<f64>,
    quantiles: [Vec<f64>; 3],
}

const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

impl Columns {
    fn add(&mut self, flush_us: f64, sorted: &[f64]) {
        for (column, (_, share)) in self.quantiles.iter_mut().zip(QUANTILES) {
            let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
            column.extend(sorted.get(place).map(|us| us / 1e3));
        }
        self.flushes.extend(self.quantiles[0].last().map(|ms| ms * 1e3 / flush_us));
    }

    fn report(self, through: &str, setting: &str, report: &mut Report) {
        for (column, (name, _)) in self.quantiles.into_iter().zip(QUANTILES) {
            report.add(&format!("{through}: push to handler, {name}"), setting, "ms", column);
        }
        report.add(&format!("{through}: push to handler, p50"), setting, "flushes", self.flushes);
    }
}

/// Microseconds from push to handler, sorted.
async fn paced(pond: Pond, per_second: u32) -> Result<Vec<f64>> {
    let queue = pond.queue::<(u64, String)>("bench")?;
    let began = Instant::now();
    let late = Arc::new(Mutex::new(Vec::new()));
    let seen = late.clone();
    let handler = move |(pushed, _): (u64, String), _| {
        let now = began.elapsed();
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((now, now.as_secs_f64() * 1e6 - pushed as f64));
        async {}
    };
    let worker = queue.worker(handler).concurrency(HANDLERS).start()?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / per_second);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut pushes = JoinSet::new();
    while began.elapsed() < SPAN {
        pace.tick().await;
        let (queue, padding) = (queue.clone(), embedded::body(90));
        pushes.spawn(async move {
            let pushed = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            queue.push(&(pushed, padding)).await.map(drop)
        });
        while let Some(pushed) = pushes.try_join_next() {
            pushed??;
        }
    }
    let count = u64::from(per_second) * SPAN.as_secs();
    while let Some(pushed) = pushes.join_next().await {
        pushed??;
    }
    while worker.totals().done + 10 < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    worker.stop().await;
    pond.close().await?;
    let late = late.lock().unwrap_or_else(PoisonError::into_inner);
    let mut counted: Vec<f64> = late.iter().filter(|(when, _)| *when > WARM_UP).map(|(_, us)| *us).collect();
    counted.sort_by(f64::total_cmp);
    Ok(counted)
}
