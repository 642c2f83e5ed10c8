//! Fixed work on one thread, without clock, disk or chance, so that its instructions can be counted and compared between two commits.
//!
//! ```text
//! scenarios NAME TIMES
//! ```
//!
//! `cargo xtask test --only instructions` counts twice as many times as well and takes the difference, so that starting costs nothing.

use bytes::Bytes;
use kit::{Durability, Timestamp};
use millpond_core::{Effects, Shard};
use model::{
    Actor, Command, DispatchedJob, Envelope, JobRef, LeaseRef, Limit, LimitUse, NewJob, Outcome, QueueName,
    Reply, Route, Settlement,
};
use node::{Driver, Keeper, Options, Packed, Recovered, Writer};
use std::{process::ExitCode, sync::Arc};
use storage::{
    checkpoints::memory::MemoryCheckpoints,
    files::FakeFiles,
    log::segment::{self, SegmentLog},
};
use wire::{FromClient, FromServer, Input, put_message};

type Error = Box<dyn std::error::Error>;
/// Does the work so many times.
type Scenario = fn(u64) -> Result<(), Error>;

const SCENARIOS: [(&str, Scenario); 7] = [
    ("core", |times| core(times, |_| None)),
    ("core-limits", |times| core(times, limited)),
    ("core-ordered", |times| core(times, ordered)),
    ("stream", stream),
    ("pond", pond),
    ("checkpoint", checkpoint),
    ("recovery", recovery),
];

/// Jobs of a batch: all numbers are for so many.
const BATCH: usize = 100;
const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// The same as in the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = &words[..] else { return usage() };
    let Some((_, scenario)) = SCENARIOS.iter().find(|(known, _)| known == name) else { return usage() };
    let Ok(times) = times.parse() else { return usage() };
    match scenario(times) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenarios: {name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: scenarios NAME TIMES\nnames: {}", SCENARIOS.map(|(name, _)| name).join(", "));
    ExitCode::from(2)
}

fn queue() -> Result<QueueName, Error> {
    Ok(QueueName::new("bench")?)
}

fn envelope(command: Command) -> Envelope {
    Envelope { actor: Actor::new("bench"), idempotency_key: None, command }
}

fn new_jobs(kind: fn(usize) -> Option<Route>) -> Result<Vec<NewJob>, Error> {
    let body = Bytes::from(vec![b'7'; 100]);
    let queue = queue()?;
    let job = |place| NewJob { route: kind(place).map(Box::new), ..NewJob::new(queue.clone(), body.clone()) };
    Ok((0..BATCH).map(job).collect())
}

fn limited(place: usize) -> Option<Route> {
    let limits = ["api".to_owned(), format!("tenant:{place}")];
    let limits = limits.into_iter().map(|key| LimitUse { key: key.into(), cost: 1 }).collect();
    Some(Route { limits, ..Route::default() })
}

fn ordered(place: usize) -> Option<Route> {
    Some(Route { ordering_key: Some(format!("cart:{place}").into()), ..Route::default() })
}

fn fetch() -> Result<Command, Error> {
    Ok(Command::Fetch { queues: vec![queue()?], max: BATCH as u32, lease_ms: 0 })
}

fn done(jobs: Vec<DispatchedJob>) -> Vec<Settlement> {
    let settle = |job: DispatchedJob| Settlement {
        lease: LeaseRef { job: JobRef { queue: Some(job.queue), id: job.id }, token: job.lease_token },
        outcome: Outcome::Done { result: None },
        push: Vec::new(),
    };
    jobs.into_iter().map(settle).collect()
}

/// The state machine alone: a batch is pushed, fetched and completed.
fn core(times: u64, kind: fn(usize) -> Option<Route>) -> Result<(), Error> {
    let (mut shard, mut effects, mut position) = (Shard::new(0), Effects::default(), 0);
    let mut apply = |command| {
        position += 1;
        shard.apply(position, NOW + position, &envelope(command), &mut effects)
    };
    for pattern in ["api", "tenant:*"] {
        let limit = Limit { concurrency: 1_000_000, ..Limit::default() };
        apply(Command::SetLimit { pattern: pattern.into(), limit: Some(limit) })?;
    }
    for _ in 0..times {
        apply(Command::Push { jobs: new_jobs(kind)? })?;
        let Reply::Fetched(jobs) = apply(fetch()?)? else { return Err("a fetch brings jobs".into()) };
        expect(jobs.len())?;
        apply(Command::Settle { settlements: done(jobs) })?;
    }
    Ok(())
}

fn expect(jobs: usize) -> Result<(), Error> {
    if jobs == BATCH { Ok(()) } else { Err(format!("{jobs} jobs instead of {BATCH}").into()) }
}

/// The messages of a batch on the worker stream, written by one side and read by the other.
fn stream(times: u64) -> Result<(), Error> {
    let mut shard = Shard::new(0);
    let mut effects = Effects::default();
    shard.apply(1, NOW, &envelope(Command::Push { jobs: new_jobs(|_| None)? }), &mut effects)?;
    let Reply::Fetched(jobs) = shard.apply(2, NOW, &envelope(fetch()?), &mut effects)? else {
        return Err("a fetch brings jobs".into());
    };
    let push = wire::Push { jobs: new_jobs(|_| None)?, key: None, wait_ms: 0, durability: None };
    let outcomes = wire::Outcomes { outcomes: done(jobs.clone()), worker: None, durability: None };
    let push = FromClient::Push(push);
    let outcomes = FromClient::Outcomes(outcomes);
    let jobs = FromServer::Jobs(wire::Jobs { sub: 1, jobs });
    for _ in 0..times {
        let mut out = Vec::new();
        put_message(&mut out, 1, &push);
        put_message(&mut out, 2, &outcomes);
        let out = Bytes::from(out);
        let mut input = Input::new(&out);
        while wire::next::<FromClient>(&mut input)?.is_some() {}
        let mut out = Vec::new();
        put_message(&mut out, 3, &jobs);
        let out = Bytes::from(out);
        let mut input = Input::new(&out);
        while wire::next::<FromServer>(&mut input)?.is_some() {}
    }
    Ok(())
}

/// Small files: preparing large ones would be most of the work.
fn layout() -> segment::Options {
    segment::Options { segment_bytes: 1 << 20, ..segment::Options::default() }
}

/// A whole pond on files in memory.
struct Pond {
    files: FakeFiles,
    checkpoints: MemoryCheckpoints,
    driver: Driver<u64>,
    writer: Writer,
    keeper: Keeper,
}

impl Pond {
    fn new() -> Result<Self, Error> {
        Self::open(FakeFiles::new(), MemoryCheckpoints::new())
    }

    fn open(files: FakeFiles, checkpoints: MemoryCheckpoints) -> Result<Self, Error> {
        let log = SegmentLog::open(Arc::new(files.clone()), layout())?;
        let Recovered { driver, writer, keeper } =
            node::recover(Box::new(log), Box::new(checkpoints.clone()), &Options::default())?;
        Ok(Self { files, checkpoints, driver, writer, keeper })
    }

    fn reopen(self) -> Result<Self, Error> {
        let Self { files, checkpoints, driver, writer, keeper } = self;
        drop((driver, writer, keeper));
        files.kill();
        Self::open(files, checkpoints)
    }

    fn call(&mut self, command: Command) -> Result<Reply, Error> {
        let packed = Packed::new(envelope(command))?;
        if let Some((_, answer)) = self.driver.offer(0, packed, Durability::Disk) {
            return Ok(answer?.reply);
        }
        let mut sealed = self.driver.seal(NOW).ok_or("nothing to write")?;
        self.writer.write(&mut sealed);
        let (_, answer) = self.driver.commit(sealed).answers.pop().ok_or("no answer")?;
        Ok(answer?.reply)
    }

    fn push(&mut self) -> Result<(), Error> {
        self.call(Command::Push { jobs: new_jobs(|_| None)? })?;
        Ok(())
    }
}

/// Log and state machine: a batch is pushed, fetched and completed.
fn pond(times: u64) -> Result<(), Error> {
    let mut pond = Pond::new()?;
    for _ in 0..times {
        pond.push()?;
        let Reply::Fetched(jobs) = pond.call(fetch()?)? else { return Err("a fetch brings jobs".into()) };
        expect(jobs.len())?;
        pond.call(Command::Settle { settlements: done(jobs) })?;
    }
    Ok(())
}

/// A batch is pushed and written behind.
fn checkpoint(times: u64) -> Result<(), Error> {
    let mut pond = Pond::new()?;
    for _ in 0..times {
        pond.push()?;
        let snapshot = pond.driver.snapshot().ok_or("nothing changed")?;
        if !pond.keeper.store(&snapshot, &pond.writer).map_err(|error| error.to_string())? {
            return Err("the checkpoint was not stored".into());
        }
        pond.driver.stored(snapshot.generation, snapshot.mark);
    }
    Ok(())
}

/// A pond with a batch in its log is opened.
fn recovery(times: u64) -> Result<(), Error> {
    let mut pond = Pond::new()?;
    pond.push()?;
    for _ in 0..times {
        pond = pond.reopen()?;
    }
    Ok(())
}
