//! How it grows: the pace and the slow calls of a pond, against how much there is of one thing. Drawn as SVG.
//!
//! Every point is the same work (jobs are pushed, fetched and completed, 100 at a time where nothing else is said) in a pond that has
//! so many waiting jobs, queues, handlers, bytes or ended jobs besides.

use crate::{
    Plan,
    embedded::{complete, envelope},
    report::{Error, Report, Result},
};
use millpond::Durability;
use model::{
    Actor, Command, DispatchedJob, Keep, NewJob, QueueName, QueuePatch,
    limits::{BATCH_MAX, QUEUES_MAX},
};
use node::{Handle, Options};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Circle, DrawingArea, IntoDrawingArea as _, IntoLogRange as _, LineSeries,
        RGBColor, SVGBackend, WHITE,
    },
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Where the curves are kept.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/growth");
/// Jobs that are done to measure a point.
const JOBS: usize = 40_000;
/// Bytes of bodies that are enough where they are large.
const BODY_BYTES: usize = 512 << 20;
const BATCH: usize = 100;
const CALLERS: usize = 8;
/// A call carries no more than this, whatever a body has.
const CALL_BYTES: usize = 4 << 20;
const BYTES: usize = 100;
/// How far the next call's queue is from the last one's: a prime, so that all have their turn.
const STRIDE: usize = 7_919;
/// For handlers, which may be too few to do all.
const SPAN: Duration = Duration::from_secs(2);
const STOP: Duration = Duration::from_secs(120);
/// Size of a picture; one beside the other share it.
const PIXELS: (u32, u32) = (960, 300);
const COLOURS: [RGBColor; 2] = [RGBColor(0x1f, 0x6f, 0xb4), RGBColor(0xd9, 0x5f, 0x02)];

/// Points of one colour.
struct Line<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// What can be asked for by itself.
pub(crate) const CURVES: [&str; 6] = ["backlog", "queues", "handlers", "payload", "history", "recovery"];

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    fs::create_dir_all(FOLDER)?;
    let most = if plan.huge { 7 } else { 6 };
    let curves = [
        ("backlog", "jobs that wait", powers(3..=most)),
        ("queues", "queues, each with a job", powers(0..=QUEUES_MAX.ilog10())),
        ("handlers", "handlers that take one job at a time", powers(0..=4)),
        ("payload", "bytes of a body", [10, 100, 1_024, 10 << 10, 100 << 10, 1 << 20].to_vec()),
        ("history", "completed jobs that are kept", powers(3..=most.min(6))),
    ];
    let wanted = |name: &str| plan.curve.as_ref().is_none_or(|curve| curve == name);
    for (name, what, sizes) in curves.into_iter().filter(|(name, ..)| wanted(name)) {
        let (mut paces, mut slow_calls) = (Vec::new(), Vec::new());
        for size in sizes {
            let mut rounds = Vec::new();
            for _ in 0..plan.rounds {
                rounds.push(runtime.block_on(point(name, size))?);
            }
            let (pace, slow): (Vec<f64>, Vec<f64>) = rounds.into_iter().unzip();
            let setting = format!("disk, {size} {what}");
            paces.push((size as f64, report.add("growth: pace", &setting, "jobs/s", pace)));
            slow_calls.push((size as f64, report.add("growth: p99 of a call", &setting, "ms", slow)));
        }
        picture(name, |[left, right]| {
            draw(left, what, "jobs a second", &[Line { name: "", points: paces }])?;
            draw(right, what, "ms, 99 of 100 calls", &[Line { name: "", points: slow_calls }])
        })?;
    }
    if wanted("recovery") { runtime.block_on(recovery(plan, report, most)) } else { Ok(()) }
}

fn powers(exponents: std::ops::RangeInclusive<u32>) -> Vec<usize> {
    exponents.map(|exponent| 10usize.pow(exponent)).collect()
}

/// Jobs a second, and the 99th percentile of a call in milliseconds.
async fn point(name: &str, size: usize) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let node = Handle::open(folder.path(), Options::default())?;
    let bench = QueueName::new("bench")?;
    let mut load = Load { queues: vec![bench.clone()], bytes: BYTES, jobs: JOBS };
    let measured = match name {
        "backlog" => {
            fill(&node, size, |_| bench.clone()).await?;
            load.drive(&node).await?
        }
        "queues" => {
            let names = (0..size).map(|queue| QueueName::new(&format!("q{queue}")));
            load.queues = names.collect::<std::result::Result<_, _>>()?;
            fill(&node, size, |job| load.queues[job].clone()).await?;
            load.drive(&node).await?
        }
        "handlers" => {
            fill(&node, JOBS, |_| bench.clone()).await?;
            handlers(&node, &bench, size).await?
        }
        "payload" => {
            load.bytes = size;
            load.jobs = JOBS.min(BODY_BYTES / size);
            load.drive(&node).await?
        }
        _ => {
            let keep_completed = Some(Keep { age_ms: 3_600_000, count: u64::try_from(size)? });
            let patch = QueuePatch { keep_completed, ..QueuePatch::default() };
            node.call(envelope(Command::Configure { queue: bench, patch }), Durability::Disk).await?;
            Load { jobs: size, ..load.clone() }.drive(&node).await?;
            load.drive(&node).await?
        }
    };
    node.stop(STOP).await?;
    Ok(measured)
}

/// Jobs that wait, in the queues that they are given by their number.
async fn fill(node: &Handle, count: usize, queue: impl Fn(usize) -> QueueName) -> Result<()> {
    let jobs: Vec<usize> = (0..count).collect();
    for jobs in jobs.chunks(BATCH_MAX) {
        let jobs = jobs.iter().map(|job| NewJob::new(queue(*job), vec![b'7'; BYTES])).collect();
        node.call(envelope(Command::Push { jobs }), Durability::Disk).await?;
    }
    Ok(())
}

/// What callers do.
#[derive(Clone)]
struct Load {
    queues: Vec<QueueName>,
    bytes: usize,
    jobs: usize,
}

impl Load {
    /// Every caller pushes a batch, fetches one and completes it, in one queue after the other.
    async fn drive(&self, node: &Handle) -> Result<(f64, f64)> {
        let batch = BATCH.min(CALL_BYTES / self.bytes).max(1);
        let (done, mut callers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let started = Instant::now();
        for caller in 0..CALLERS {
            let (load, node, done) = (self.clone(), node.clone(), done.clone());
            callers.spawn(async move {
                let mut calls = Calls::default();
                for round in caller.. {
                    if done.load(Relaxed) >= load.jobs {
                        break;
                    }
                    let queue = &load.queues[round * STRIDE % load.queues.len()];
                    let job = || NewJob::new(queue.clone(), vec![b'7'; load.bytes]);
                    let jobs = (0..batch).map(|_| job()).collect();
                    calls.time(node.call(envelope(Command::Push { jobs }), Durability::Disk)).await?;
                    let jobs = fetch(&node, queue, batch, Duration::ZERO);
                    let jobs = calls.time(jobs).await?;
                    done.fetch_add(jobs.len(), Relaxed);
                    calls.time(node.call(envelope(complete(jobs)), Durability::Disk)).await?;
                }
                Ok::<_, Error>(calls)
            });
        }
        pace(started, &done, callers).await
    }
}

/// So many handlers take one job each, again and again, until time or jobs have run out.
async fn handlers(node: &Handle, queue: &QueueName, count: usize) -> Result<(f64, f64)> {
    let (done, mut handlers) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    let started = Instant::now();
    for _ in 0..count {
        let (node, queue, done) = (node.clone(), queue.clone(), done.clone());
        handlers.spawn(async move {
            let mut calls = Calls::default();
            while started.elapsed() < SPAN {
                let jobs = fetch(&node, &queue, 1, Duration::ZERO).await?;
                if jobs.is_empty() {
                    break;
                }
                calls.time(node.call(envelope(complete(jobs)), Durability::Disk)).await?;
                done.fetch_add(1, Relaxed);
            }
            Ok::<_, Error>(calls)
        });
    }
    pace(started, &done, handlers).await
}

/// How long calls took, in milliseconds.
#[derive(Default)]
struct Calls(Vec<f64>);

impl Calls {
    async fn time<T, E>(
        &mut self,
        call: impl Future<Output = std::result::Result<T, E>>,
    ) -> std::result::Result<T, E> {
        let started = Instant::now();
        let answer = call.await;
        self.0.push(started.elapsed().as_secs_f64() * 1e3);
        answer
    }
}

async fn pace(
    started: Instant,
    done: &AtomicUsize,
    mut callers: JoinSet<Result<Calls>>,
) -> Result<(f64, f64)> {
    let mut times = Vec::new();
    while let Some(calls) = callers.join_next().await {
        times.extend(calls??.0);
    }
    let seconds = started.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Ok((done.load(Relaxed) as f64 / seconds, p99))
}

async fn fetch(node: &Handle, queue: &QueueName, max: usize, wait: Duration) -> Result<Vec<DispatchedJob>> {
    let max = u32::try_from(max)?;
    Ok(node.fetch(Actor::new("bench"), vec![queue.clone()], max, 0, wait, Durability::Disk).await?)
}

/// Seconds until a pond serves again: after a stop, and after a kill with everything in its log alone.
async fn recovery(plan: &Plan, report: &mut Report, most: u32) -> Result<()> {
    let mut curves: [(&str, Vec<(f64, f64)>); 2] =
        [("stopped", Vec::new()), ("killed, no checkpoint", Vec::new())];
    for size in powers(3..=most) {
        for (killed, (name, points)) in [false, true].into_iter().zip(&mut curves) {
            let folder = tempfile::tempdir()?;
            let rare = Options { checkpoint_bytes: u64::MAX, checkpoint_ms: u64::MAX, ..Options::default() };
            let options = || if killed { rare.clone() } else { Options::default() };
            let bench = QueueName::new("bench")?;
            let node = Handle::open(folder.path(), options())?;
            fill(&node, size, |_| bench.clone()).await?;
            if !killed {
                node.stop(STOP).await?;
            }
            drop(node);
            let mut seconds = Vec::new();
            for _ in 0..plan.rounds {
                let started = Instant::now();
                let node = Handle::open(folder.path(), options())?;
                seconds.push(started.elapsed().as_secs_f64());
                drop(node);
            }
            let setting = format!("disk, {size} jobs that wait, {name}");
            points.push((size as f64, report.add("growth: recovery", &setting, "s", seconds)));
        }
    }
    let lines = curves.map(|(name, points)| Line { name, points });
    picture("recovery", |[left, _]| draw(left, "jobs that wait", "seconds until it serves", &lines))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn picture(name: &str, draw: impl FnOnce([&Area<'_>; 2]) -> Result<()>) -> Result<()> {
    let path = format!("{FOLDER}/{name}.svg");
    let whole = SVGBackend::new(&path, PIXELS).into_drawing_area();
    whole.fill(&WHITE)?;
    let halves = whole.split_evenly((1, 2));
    let [left, right] = &halves[..] else { return Err("two halves".into()) };
    draw([left, right])?;
    whole.present()?;
    Ok(())
}

fn draw(area: &Area<'_>, what: &str, unit: &str, lines: &[Line<'_>]) -> Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (first, last) =
        points().fold((f64::MAX, 1.0_f64), |(low, high), (at, _)| (low.min(*at), high.max(*at)));
    let top = points().fold(0.0_f64, |top, (_, value)| top.max(*value)) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(72)
        .build_cartesian_2d((first..last * 1.1).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc(what)
        .y_desc(unit)
        .x_labels(8)
        .y_labels(6)
        .light_line_style(WHITE)
        .draw()?;
    for (line, colour) in lines.iter().zip(&COLOURS) {
        let drawn = chart.draw_series(LineSeries::new(line.points.iter().copied(), colour))?;
        if !line.name.is_empty() {
            drawn.label(line.name).legend(move |(x, y)| Circle::new((x, y), 4, colour));
        }
        chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 3, colour)))?;
    }
    if lines.len() > 1 {
        chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    }
    Ok(())
}
