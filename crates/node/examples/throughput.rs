//! What one node does on this machine, beside what its disk can do. `cargo run --release -p node --example throughput [DIR]`

use kit::Durability::Disk;
use model::{Actor, Command, Envelope, JobRef, LeaseRef, NewJob, Outcome, QueueName, Settlement};
use node::{Handle, Options};
use std::{
    fs::OpenOptions,
    io::{Seek, SeekFrom, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

type Problem = Box<dyn std::error::Error + Send + Sync>;

const BATCH: usize = 1_000;

fn main() -> Result<(), Problem> {
    let dir = std::env::args()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("millpond-throughput"), PathBuf::from);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    println!("flush of 4 KiB over written blocks: {:?}", flush(&dir)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&dir))?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// The median of a bare write and flush.
fn flush(dir: &std::path::Path) -> Result<Duration, Problem> {
    let path = dir.join("probe");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    file.write_all(&vec![1; 1 << 20])?;
    file.sync_all()?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[2; 4096])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn envelope(command: Command) -> Envelope {
    Envelope { actor: Actor::new("bench"), idempotency_key: None, command }
}

fn push(queue: &QueueName, count: usize, bytes: usize) -> Command {
    let body = bytes::Bytes::from(vec![b'x'; bytes]);
    Command::Push { jobs: (0..count).map(|_| NewJob::new(queue.clone(), body.clone())).collect() }
}

async fn run(dir: &std::path::Path) -> Result<(), Problem> {
    let pond = Handle::open(&dir.join("pond"), Options::default())?;
    let queue = QueueName::new("bench")?;

    let mut times = Vec::new();
    for _ in 0..500 {
        let started = Instant::now();
        pond.call(envelope(push(&queue, 1, 100)), Disk).await?;
        times.push(started.elapsed());
    }
    println!("one push alone: {:?}", median(times));

    for bytes in [100, 1_024] {
        let mut rates = Vec::new();
        for _ in 0..3 {
            rates.push(pushes(&pond, &queue, bytes).await?);
        }
        println!("pushes in batches of {BATCH}, {bytes} bytes: {:.0}/s ({rates:.0?})", middle(&rates));
        drain(&pond, &queue).await?;
        let mut rates = Vec::new();
        for _ in 0..3 {
            rates.push(cycles(&pond, &queue, bytes).await?);
        }
        println!(
            "push+fetch+complete, 64 handlers, {bytes} bytes: {:.0} jobs/s ({rates:.0?})",
            middle(&rates)
        );
    }
    let before = pond.stats();
    let started = Instant::now();
    let count = 20_000;
    let mut tasks = Vec::new();
    for _ in 0..256 {
        let (pond, queue) = (pond.clone(), queue.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..count / 256 {
                pond.call(envelope(push(&queue, 1, 100)), Disk).await?;
            }
            Ok::<_, Problem>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let after = pond.stats();
    println!(
        "single pushes, 256 callers: {:.0}/s, {:.1} commands a flush",
        f64::from(count) / started.elapsed().as_secs_f64(),
        (after.commands - before.commands) as f64 / (after.flushes - before.flushes) as f64
    );
    println!("{:?}", pond.stats());
    threads();
    pond.stop(Duration::from_secs(60)).await?;
    let started = Instant::now();
    let pond = Handle::open(&dir.join("pond"), Options::default())?;
    println!("start with {} jobs: {:?}", pond.stats().shard.jobs, started.elapsed());
    Ok(())
}

/// Where the processor time went, on systems that tell (in ticks, mostly of 10 ms).
fn threads() {
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let name = head.split_once('(').map_or("", |(_, name)| name);
        println!(
            "thread {name}: user {}, system {}",
            fields.get(11).unwrap_or(&""),
            fields.get(12).unwrap_or(&"")
        );
    }
}

fn middle(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn pushes(pond: &Handle, queue: &QueueName, bytes: usize) -> Result<f64, Problem> {
    let (tasks, each) = (8, 25);
    let started = Instant::now();
    let mut running = Vec::new();
    for _ in 0..tasks {
        let (pond, queue) = (pond.clone(), queue.clone());
        running.push(tokio::spawn(async move {
            for _ in 0..each {
                pond.call(envelope(push(&queue, BATCH, bytes)), Disk).await?;
            }
            Ok::<_, Problem>(())
        }));
    }
    for task in running {
        task.await??;
    }
    Ok((tasks * each * BATCH) as f64 / started.elapsed().as_secs_f64())
}

async fn cycles(pond: &Handle, queue: &QueueName, bytes: usize) -> Result<f64, Problem> {
    let (handlers, each) = (64, 4);
    let started = Instant::now();
    let mut running = Vec::new();
    for _ in 0..handlers {
        let (pond, queue) = (pond.clone(), queue.clone());
        running.push(tokio::spawn(async move {
            for _ in 0..each {
                pond.call(envelope(push(&queue, BATCH, bytes)), Disk).await?;
                work(&pond, &queue, Duration::from_secs(10)).await?;
            }
            Ok::<_, Problem>(())
        }));
    }
    for task in running {
        task.await??;
    }
    let took = started.elapsed();
    drain(pond, queue).await?;
    Ok((handlers * each * BATCH) as f64 / took.as_secs_f64())
}

async fn work(pond: &Handle, queue: &QueueName, wait: Duration) -> Result<usize, Problem> {
    let jobs = pond.fetch(Actor::new("w"), vec![queue.clone()], BATCH as u32, 0, wait, Disk).await?;
    if jobs.is_empty() {
        return Ok(0);
    }
    let count = jobs.len();
    let settlements = jobs
        .into_iter()
        .map(|job| Settlement {
            lease: LeaseRef { job: JobRef { queue: Some(job.queue), id: job.id }, token: job.lease_token },
            outcome: Outcome::Done { result: None },
            push: Vec::new(),
        })
        .collect();
    pond.call(envelope(Command::Settle { settlements }), Disk).await?;
    Ok(count)
}

async fn drain(pond: &Handle, queue: &QueueName) -> Result<(), Problem> {
    while work(pond, queue, Duration::ZERO).await? > 0 {}
    Ok(())
}
