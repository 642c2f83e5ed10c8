//! The running node: threads, real files, real time.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod common;

use common::{done, push, queue};
use kit::Durability::{self, Disk, Memory};
use model::{Actor, Command, DispatchedJob, Envelope, EventKind, JobRef, NewJob, Reply};
use node::{Answer, CallError, Handle, OpenError, Options};
use std::{path::Path, sync::Arc, time::Duration};
use storage::{
    checkpoints::memory::MemoryCheckpoints,
    files::{Damage, FakeFiles, Operation},
    log::segment::SegmentLog,
};

const MINUTE: Duration = Duration::from_secs(60);

fn options() -> Options {
    Options { segment_bytes: 1 << 20, ..Options::default() }
}

fn open(dir: &Path) -> Handle {
    Handle::open(dir, options()).unwrap()
}

async fn call(pond: &Handle, command: Command, level: Durability) -> Result<Answer, CallError> {
    pond.call(Envelope { actor: Actor::new("test"), idempotency_key: None, command }, level).await
}

async fn fetch(pond: &Handle, max: u32, wait: Duration) -> Result<Vec<DispatchedJob>, CallError> {
    pond.fetch(Actor::new("worker"), vec![queue("mail")], max, 0, wait, Disk).await
}

async fn hash(pond: &Handle) -> u128 {
    pond.read(|shard| shard.state_hash()).await.unwrap()
}

#[tokio::test]
async fn jobs_go_through_and_survive_a_stop_a_drop_and_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let pond = open(dir.path());
    let answer = call(&pond, push("mail", 100), Disk).await.unwrap();
    assert_eq!((answer.position, answer.durability), (1, Disk));
    let jobs = fetch(&pond, 40, Duration::ZERO).await.unwrap();
    assert_eq!(jobs.len(), 40);
    assert_eq!(jobs[7].body.as_deref(), Some(&b"body 7"[..]));
    call(&pond, done(&jobs), Disk).await.unwrap();
    let before = hash(&pond).await;
    drop(pond);

    let pond = open(dir.path());
    assert_eq!(hash(&pond).await, before);
    assert_eq!(pond.stats().recovered_records, 3, "a drop writes no checkpoint");
    pond.stop(MINUTE).await.unwrap();
    assert!(matches!(call(&pond, push("mail", 1), Disk).await, Err(CallError::Stopping)));
    assert!(matches!(pond.stop(MINUTE).await, Err(CallError::Stopping)));

    let again = open(dir.path());
    assert_eq!(hash(&again).await, before);
    assert_eq!(again.stats().recovered_records, 0, "a stop does");
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _pond = open(dir.path());
    assert!(matches!(Handle::open(dir.path(), options()), Err(OpenError::InUse { .. })));
}

#[tokio::test]
async fn a_foreign_directory_is_refused_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "do not lose").unwrap();
    assert!(matches!(Handle::open(dir.path(), options()), Err(OpenError::Foreign { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn bodies_that_only_the_checkpoint_has_are_read_before_anybody_sees_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let small = Options { body_budget: 0, ..options() };
    let pond = Handle::open(dir.path(), small.clone()).unwrap();
    call(&pond, push("mail", 50), Disk).await.unwrap();
    pond.stop(MINUTE).await.unwrap();

    let pond = Handle::open(dir.path(), small).unwrap();
    let resident = pond.read(|shard| shard.stats().resident_body_bytes).await.unwrap();
    assert_eq!(resident, 0);
    let id = pond.read(|shard| shard.upcoming(&queue("mail"), 1)).await.unwrap().unwrap()[0].0.id.clone();
    let view = pond.job(JobRef { queue: None, id: id.clone() }).await.unwrap().unwrap();
    assert_eq!(view.body.as_deref(), Some(&b"body 0"[..]));
    let jobs = fetch(&pond, 50, Duration::ZERO).await.unwrap();
    let bodies: Vec<_> = jobs.iter().map(|job| job.body.clone().unwrap()).collect();
    assert_eq!(bodies, (0..50).map(|n| format!("body {n}")).collect::<Vec<_>>());
    assert_eq!(pond.unready(), None);
}

#[tokio::test]
async fn a_waiting_fetch_is_served_by_a_push_and_by_a_timer() {
    let pond = Handle::in_memory(options()).unwrap();
    let worker = |pond: Handle| async move {
        pond.fetch(Actor::new("w"), vec![queue("mail")], 5, 0, MINUTE, Memory).await
    };
    let waiting = tokio::spawn(worker(pond.clone()));
    call(&pond, push("mail", 2), Memory).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 2);
    let waiting = tokio::spawn(worker(pond.clone()));
    let mut job = NewJob::new(queue("mail"), "later");
    job.delay_ms = 20;
    call(&pond, Command::Push { jobs: vec![job] }, Memory).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn jobs_leased_for_a_caller_who_left_go_to_the_next_one() {
    let pond = Handle::in_memory(options()).unwrap();
    for round in 0..50_u32 {
        let mut fetch = Box::pin(pond.fetch(Actor::new("w"), vec![queue("mail")], 1, 0, MINUTE, Memory));
        // The fetch is on its way, and perhaps served, when its future is dropped.
        assert!(poll_once(&mut fetch).is_none());
        call(&pond, push("mail", 1), Memory).await.unwrap();
        if round % 2 == 0 {
            pond.read(|_| ()).await.unwrap();
        }
        drop(fetch);
        let jobs = pond.fetch(Actor::new("w2"), vec![queue("mail")], 1, 0, MINUTE, Memory).await.unwrap();
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].attempt, 1);
        call(&pond, done(&jobs), Memory).await.unwrap();
    }
    assert_eq!(pond.stats().waiting_fetches, 0);
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_at_once_share_batches_and_every_job_is_handed_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let pond = open(dir.path());
    let mut tasks = Vec::new();
    for _ in 0..64 {
        let pond = pond.clone();
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..20 {
                call(&pond, push("mail", 5), Disk).await.unwrap();
                let jobs = fetch(&pond, 5, MINUTE).await.unwrap();
                seen.extend(jobs.iter().map(|job| job.sequence));
                call(&pond, done(&jobs), Disk).await.unwrap();
            }
            seen
        }));
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.extend(task.await.unwrap());
    }
    while let Ok(jobs) = fetch(&pond, 1_000, Duration::ZERO).await
        && !jobs.is_empty()
    {
        seen.extend(jobs.iter().map(|job| job.sequence));
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!((count, seen.len()), (64 * 20 * 5, 64 * 20 * 5));
    let stats = pond.stats();
    assert!(stats.batches < stats.commands, "{stats:?}");
    let before = hash(&pond).await;
    drop(pond);
    assert_eq!(hash(&open(dir.path())).await, before);
}

#[tokio::test]
async fn listeners_hear_every_change_and_what_nobody_hears_is_not_made() {
    let pond = Handle::in_memory(options()).unwrap();
    call(&pond, push("mail", 1), Memory).await.unwrap();
    let mut events = pond.events(None);
    call(&pond, push("mail", 2), Memory).await.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!((first.id.to_string().as_str(), first.kind), ("2.0", EventKind::Added));
    assert_eq!(events.next().await.unwrap().unwrap().id.to_string(), "2.1");
    let mut again = pond.events(Some(first.id));
    assert_eq!(again.next().await.unwrap().unwrap().id.to_string(), "2.1");
    let mut all = pond.events(Some("0".parse().unwrap()));
    assert_eq!(all.next().await.unwrap().unwrap_err().since.position, 1, "nobody listened then");
    pond.stop(MINUTE).await.unwrap();
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_stop_answers_those_who_wait_and_loses_nothing_below_disk() {
    let dir = tempfile::tempdir().unwrap();
    let pond = open(dir.path());
    let waiting = tokio::spawn({
        let pond = pond.clone();
        async move { fetch(&pond, 1, MINUTE).await }
    });
    while pond.stats().waiting_fetches == 0 {
        tokio::task::yield_now().await;
    }
    let other = Command::Push { jobs: vec![NewJob::new(queue("other"), "x")] };
    call(&pond, other, Memory).await.unwrap();
    pond.stop(MINUTE).await.unwrap();
    assert!(waiting.await.unwrap().unwrap().is_empty());
    let again = open(dir.path());
    assert_eq!(again.read(|shard| shard.stats().jobs).await.unwrap(), 1);
}

#[tokio::test]
async fn after_a_failed_flush_every_call_hears_unknown_and_a_restart_serves_again() {
    let (files, checkpoints) = (FakeFiles::new(), MemoryCheckpoints::new());
    let start = || {
        let log = SegmentLog::open(Arc::new(files.clone()), Default::default()).unwrap();
        Handle::over(Box::new(log), Box::new(checkpoints.clone()), options()).unwrap()
    };
    let pond = start();
    call(&pond, push("mail", 1), Disk).await.unwrap();
    files.inject(Operation::Sync, 1, Damage::Device);
    for _ in 0..10 {
        assert!(matches!(call(&pond, push("mail", 1), Disk).await, Err(CallError::Unknown { .. })));
    }
    assert!(matches!(pond.read(|_| ()).await, Err(CallError::Unknown { .. })));
    assert!(pond.unready().is_some() && pond.stats().poisoned);
    drop(pond);
    files.kill();
    let pond = start();
    assert!(matches!(call(&pond, push("mail", 1), Disk).await.unwrap().reply, Reply::Pushed(_)));
}

#[tokio::test]
async fn a_panic_on_the_shards_thread_is_heard_as_unknown() {
    let pond = Handle::in_memory(options()).unwrap();
    let outcome = pond.read(|_| panic!("a planted bug")).await;
    assert!(matches!(outcome, Err(CallError::Unknown { .. })), "{outcome:?}");
    let outcome = call(&pond, push("mail", 1), Memory).await;
    assert!(
        matches!(&outcome, Err(CallError::Unknown { reason }) if reason.contains("a planted bug")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn checkpoints_follow_changes_trim_the_log_and_stop_when_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let pond = Handle::open(dir.path(), Options { checkpoint_ms: 1, ..options() }).unwrap();
    call(&pond, push("mail", 10), Disk).await.unwrap();
    while pond.stats().checkpoint_position == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = hash(&pond).await;
    drop(pond);
    let pond = open(dir.path());
    assert_eq!((hash(&pond).await, pond.stats().recovered_records), (before, 0));
}

/// A log whose next flush waits until it is allowed to go on.
struct StuckLog {
    log: storage::log::memory::MemoryLog,
    go_on: std::sync::mpsc::Receiver<()>,
}

impl storage::Log for StuckLog {
    fn epoch(&self) -> u64 {
        self.log.epoch()
    }
    fn first(&self) -> u64 {
        self.log.first()
    }
    fn next(&self) -> u64 {
        self.log.next()
    }
    fn strongest(&self) -> Durability {
        self.log.strongest()
    }
    fn append(&mut self, entries: &[storage::Entry<'_>]) -> Result<u64, storage::LogError> {
        // An error says that the test is over.
        let _ = self.go_on.recv();
        self.log.append(entries)
    }
    fn append_reserved(&mut self, entries: &[storage::Entry<'_>]) -> Result<u64, storage::LogError> {
        self.append(entries)
    }
    fn reserve(&self) -> bool {
        self.log.reserve()
    }
    fn flush(&mut self, level: Durability) -> Result<(), storage::LogError> {
        self.log.flush(level)
    }
    fn read(&self, from: u64, visit: &mut storage::log::Visit<'_>) -> Result<(), storage::LogError> {
        self.log.read(from, visit)
    }
    fn trim(&mut self, first_to_keep: u64) -> Result<(), storage::LogError> {
        self.log.trim(first_to_keep)
    }
    fn close(&mut self) -> Result<(), storage::LogError> {
        self.log.close()
    }
}

async fn until(pond: &Handle, wanted: impl Fn(node::Health) -> bool) {
    while !wanted(pond.health()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn health_tells_a_loop_that_hangs_from_a_disk_that_does() {
    let (go_on, wait) = std::sync::mpsc::channel();
    let log = StuckLog { log: storage::log::memory::MemoryLog::new(), go_on: wait };
    let pond = Handle::over(Box::new(log), Box::new(MemoryCheckpoints::new()), options()).unwrap();
    until(&pond, |health| health == node::Health::default()).await;

    let (release, held) = std::sync::mpsc::channel::<()>();
    let reader = pond.clone();
    let read = tokio::spawn(async move { reader.read(move |_| held.recv().is_ok()).await });
    until(&pond, |health| health.turn.is_some_and(|turn| !turn.is_zero()) && health.write.is_none()).await;
    release.send(()).unwrap();
    assert!(read.await.unwrap().unwrap());
    until(&pond, |health| health.turn.is_none()).await;

    let pusher = pond.clone();
    let pushed = tokio::spawn(async move { call(&pusher, push("mail", 1), Memory).await });
    until(&pond, |health| health.write.is_some_and(|write| !write.is_zero())).await;
    go_on.send(()).unwrap();
    pushed.await.unwrap().unwrap();
    until(&pond, |health| health == node::Health::default()).await;
}
