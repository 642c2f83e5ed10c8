//! A driver on a fake disk, stepped by hand.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part, and tests may unwrap"
)]

use kit::{Durability, Millis, Timestamp};
use model::{
    Actor, Command, DispatchedJob, Envelope, LeaseRef, NewJob, Outcome, QueueName, Reply, Settlement,
};
use node::{
    Answered, CallError, Committed, Driver, Keeper, OpenError, Options, Packed, Recovered, Sealed, Waiter,
    Writer,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use storage::{
    Entry, Log, LogError,
    checkpoints::memory::MemoryCheckpoints,
    files::FakeFiles,
    log::{Visit, segment},
};

/// Every payload that was appended, as (index, payload); what a crash took is cut off again.
pub type Appended = Arc<Mutex<Vec<(u64, Vec<u8>)>>>;

/// A log that tells what is appended to it.
pub struct Told<L>(pub L, pub Appended);

impl<L: Log> Log for Told<L> {
    fn epoch(&self) -> u64 {
        self.0.epoch()
    }
    fn first(&self) -> u64 {
        self.0.first()
    }
    fn next(&self) -> u64 {
        self.0.next()
    }
    fn strongest(&self) -> Durability {
        self.0.strongest()
    }
    fn append(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        let index = self.0.append(entries)?;
        self.1.lock().unwrap().push((index, entries[0].payload.to_vec()));
        Ok(index)
    }
    fn append_reserved(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        let index = self.0.append_reserved(entries)?;
        self.1.lock().unwrap().push((index, entries[0].payload.to_vec()));
        Ok(index)
    }
    fn reserve(&self) -> bool {
        self.0.reserve()
    }
    fn flush(&mut self, level: Durability) -> Result<(), LogError> {
        self.0.flush(level)
    }
    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.0.read(from, visit)
    }
    fn trim(&mut self, first_to_keep: u64) -> Result<(), LogError> {
        self.0.trim(first_to_keep)
    }
    fn close(&mut self) -> Result<(), LogError> {
        self.0.close()
    }
}

pub struct Rig {
    pub files: FakeFiles,
    pub checkpoints: MemoryCheckpoints,
    pub appended: Appended,
    pub options: Options,
    pub driver: Driver<u64>,
    pub writer: Writer,
    pub keeper: Keeper,
    pub now: Timestamp,
}

pub fn open(
    files: &FakeFiles,
    checkpoints: &MemoryCheckpoints,
    appended: &Appended,
    options: &Options,
) -> Result<Recovered<u64>, OpenError> {
    let layout = segment::Options { segment_bytes: 64 << 10, zero_ahead: 4_096, ..Default::default() };
    let log = segment::SegmentLog::open(Arc::new(files.clone()), layout)?;
    node::recover(Box::new(Told(log, appended.clone())), Box::new(checkpoints.clone()), options)
}

impl Rig {
    pub fn new() -> Self {
        Self::with(Options::default())
    }

    pub fn with(options: Options) -> Self {
        let (files, checkpoints, appended) =
            (FakeFiles::new(), MemoryCheckpoints::new(), Appended::default());
        let Recovered { driver, writer, keeper } = open(&files, &checkpoints, &appended, &options).unwrap();
        Self { files, checkpoints, appended, options, driver, writer, keeper, now: Timestamp(1_000_000) }
    }

    /// Ends this life and starts the next on what the disk holds.
    pub fn reopen(&mut self) {
        self.files.kill();
        let Recovered { driver, writer, keeper } =
            open(&self.files, &self.checkpoints, &self.appended, &self.options).unwrap();
        (self.driver, self.writer, self.keeper) = (driver, writer, keeper);
    }

    pub fn offer(&mut self, ticket: u64, command: Command, level: Durability) -> Option<Answered<u64>> {
        let envelope = Envelope { actor: Actor::new("test"), idempotency_key: None, command };
        self.driver.offer(ticket, Packed::new(envelope).unwrap(), level)
    }

    pub fn fetch(
        &mut self,
        number: u64,
        queues: &[&str],
        max: u32,
        wait_ms: Millis,
    ) -> Option<Answered<u64>> {
        let waiter = self.waiter(number, queues, max, wait_ms);
        self.driver.fetch(waiter, self.now)
    }

    pub fn waiter(&self, number: u64, queues: &[&str], max: u32, wait_ms: Millis) -> Waiter<u64> {
        let queues = queues.iter().map(|name| queue(name)).collect();
        let command = Command::Fetch { queues, max, lease_ms: 0 };
        let envelope = Envelope { actor: Actor::new("worker"), idempotency_key: None, command };
        let packed = Packed::new(envelope).unwrap();
        Waiter { number, ticket: number, packed, level: Durability::Disk, until: self.now + wait_ms }
    }

    /// A push that waits for room.
    pub fn push(&mut self, number: u64, command: Command, wait_ms: Millis) -> Option<Answered<u64>> {
        self.push_as(number, None, command, wait_ms)
    }

    pub fn push_as(
        &mut self,
        number: u64,
        key: Option<&str>,
        command: Command,
        wait_ms: Millis,
    ) -> Option<Answered<u64>> {
        let idempotency_key = key.map(Into::into);
        let packed = Packed::new(Envelope { actor: Actor::new("test"), idempotency_key, command }).unwrap();
        let until = self.now + wait_ms;
        let waiter = Waiter { number, ticket: number, packed, level: Durability::Disk, until };
        self.driver.push(waiter, self.now)
    }

    pub fn seal(&mut self) -> Option<Sealed<u64>> {
        self.driver.seal(self.now)
    }

    pub fn write(&mut self, mut sealed: Sealed<u64>) -> Committed<u64> {
        self.writer.write(&mut sealed);
        self.driver.commit(sealed)
    }

    /// Seals, writes and commits until nothing is left to do now.
    pub fn settle(&mut self) -> Vec<Answered<u64>> {
        let mut answers = self.driver.expire(self.now);
        for _ in 0..100 {
            let Some(sealed) = self.seal() else { return answers };
            answers.extend(self.write(sealed).answers);
        }
        panic!("the driver never comes to rest");
    }

    pub fn checkpoint(&mut self) -> bool {
        let Some(snapshot) = self.driver.snapshot() else { return false };
        let stored = self.keeper.store(&snapshot, &self.writer).unwrap();
        if stored {
            self.driver.stored(snapshot.generation, snapshot.mark);
        } else {
            self.driver.not_stored(snapshot, self.now);
        }
        stored
    }
}

pub fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub fn push(name: &str, count: usize) -> Command {
    Command::Push { jobs: (0..count).map(|n| NewJob::new(queue(name), format!("body {n}"))).collect() }
}

pub fn done(jobs: &[DispatchedJob]) -> Command {
    let settle = |job: &DispatchedJob| Settlement {
        lease: LeaseRef {
            job: model::JobRef { queue: Some(job.queue.clone()), id: job.id.clone() },
            token: job.lease_token,
        },
        outcome: Outcome::Done { result: None },
        push: Vec::new(),
    };
    Command::Settle { settlements: jobs.iter().map(settle).collect() }
}

/// The jobs of a fetch's answer.
pub fn jobs(answered: &Answered<u64>) -> &[DispatchedJob] {
    match &answered.1 {
        Ok(answer) => match &answer.reply {
            Reply::Fetched(jobs) => jobs,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

pub fn is_unknown(answered: &Answered<u64>) -> bool {
    matches!(answered.1, Err(CallError::Unknown { .. }))
}

pub fn tickets(answers: &[Answered<u64>]) -> Vec<u64> {
    answers.iter().map(|(ticket, _)| *ticket).collect()
}

/// Every file below a folder, with what is in it.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    all
}
