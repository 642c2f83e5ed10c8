//! What is salvaged of a damaged data directory is everything but what is said to be lost, and that is all that is lost.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::files;
use kit::{Durability, Timestamp};
use model::{Actor, Command, Envelope, JobId, NewJob, QueueName};
use node::{BackupFailure, Batch, Handle, Loss, OpenError, Options, Salvaged, salvage};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use storage::{Checkpoints as _, Log as _};

/// Jobs in the checkpoint, and behind it.
const STORED: usize = 60;
const ALL: usize = 100;

fn options() -> Options {
    // Small, so that a few jobs fill several segments, and bodies leave the memory.
    Options { segment_bytes: 64 << 10, body_budget: 10_000, reserve_bytes: 0, ..Options::default() }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// Bodies that no compression makes small.
fn body(at: usize) -> Vec<u8> {
    let mut random = kit::random::Random::new(at as u64);
    (0..500).flat_map(|_| random.next_u64().to_le_bytes()).collect()
}

async fn push(pond: &Handle, numbers: std::ops::Range<usize>) {
    for at in numbers {
        let queue = QueueName::new(if at % 2 == 0 { "mail" } else { "bills" }).unwrap();
        let job = NewJob { id: Some(JobId::Text(format!("j{at}").into())), ..NewJob::new(queue, body(at)) };
        let command = Command::Push { jobs: vec![job] };
        let envelope = Envelope { actor: Actor::new("test"), idempotency_key: None, command };
        pond.call(envelope, Durability::Disk).await.unwrap();
    }
}

/// A directory with a checkpoint, and more in the log behind it than one segment holds.
async fn fill(dir: &Path) {
    let pond = Handle::open(dir, options()).unwrap();
    push(&pond, 0..STORED).await;
    pond.stop(Duration::from_secs(60)).await.unwrap();
    let pond = Handle::open(dir, Options { checkpoint_ms: 1_000_000, ..options() }).unwrap();
    push(&pond, STORED..ALL).await;
    // Dropped: it ends without a checkpoint.
}

/// Which job each record of the log pushed.
fn pushed(dir: &Path) -> BTreeMap<u64, String> {
    let local =
        storage::Options { log: storage::log::segment::Options::DEFAULT, ..storage::Options::default() };
    let read = storage::open_read_only(dir, &local).unwrap();
    let mut jobs = BTreeMap::new();
    let mut note = |record: storage::Record| {
        for envelope in Batch::decode(&record.payload).unwrap().envelopes {
            if let Command::Push { jobs: new } = envelope.command {
                jobs.extend(new.into_iter().map(|job| (record.index, job.id.unwrap().to_string())));
            }
        }
        Ok(())
    };
    read.log.read(read.log.first(), &mut note).unwrap();
    jobs
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// Takes every job: tokens and bodies by id.
async fn take(dir: &Path) -> BTreeMap<String, (u64, Vec<u8>)> {
    let pond = Handle::open(dir, options()).unwrap();
    let queues =
        ["mail", "bills", "salvaged-0", "salvaged-1"].map(|name| QueueName::new(name).unwrap()).to_vec();
    let mut taken = BTreeMap::new();
    loop {
        let fetched =
            pond.fetch(Actor::new("w"), queues.clone(), 50, 0, Duration::ZERO, Durability::Disk).await;
        let jobs = fetched.unwrap();
        if jobs.is_empty() {
            return taken;
        }
        for job in jobs {
            taken.insert(job.id.to_string(), (job.lease_token, job.body.unwrap().to_vec()));
        }
    }
}

/// The jobs that are said to be lost.
fn told(salvaged: &Salvaged, records: &BTreeMap<u64, String>) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for loss in &salvaged.lost {
        match loss {
            Loss::Job { sequence, name, .. } => {
                let id = format!("j{}", sequence - 1);
                assert!(name.as_ref().is_none_or(|(_, known)| known.to_string() == id));
                assert!(told.insert(id), "{loss:?} is told twice");
            }
            Loss::Records { first, last, .. } => {
                let gone =
                    records.range(first..).take_while(|(index, _)| last.is_none_or(|last| **index <= last));
                told.extend(gone.map(|(_, id)| id.clone()));
            }
            Loss::Unapplied { record, pushed, .. } => {
                let id = pushed[0].1.as_ref().unwrap().to_string();
                assert_eq!(records[record], id);
                assert!(told.insert(id), "{loss:?} is told twice");
            }
            // Then the log has it all, or nothing is saved.
            Loss::Checkpoint { .. } | Loss::Value { .. } => {}
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_whole_directory_nothing_is_lost_and_nothing_in_it_changes() {
    let place = tempfile::tempdir().unwrap();
    let [dir, new] = ["dir", "new"].map(|name| place.path().join(name));
    fill(&dir).await;
    let before = files(&dir);
    let told = salvage(&dir, None, &options(), now()).unwrap();
    assert_eq!((&told.lost[..], &told.notes[..]), (&[][..], &[][..]));
    assert_eq!(
        salvage(&dir, Some(&new), &options(), now()).unwrap(),
        told,
        "a look says what a salvage does"
    );
    assert_eq!(files(&dir), before);
    assert_eq!(told.state.unwrap().jobs, ALL as u64);
    let taken = take(&new).await;
    let lost = take(&dir).await.values().map(|(token, _)| *token).max().unwrap();
    assert!((0..ALL).all(|at| taken[&format!("j{at}")].1 == body(at)));
    assert!(taken.values().all(|(token, _)| *token > lost), "tokens begin anew above all that were granted");
}

/// F16, F18, F19 at rest: each file is flipped, cut, emptied, zeroed, removed, or replaced by a neighbour.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_lost_is_lost_and_nothing_else_is() {
    let place = tempfile::tempdir().unwrap();
    let good = place.path().join("good");
    fill(&good).await;
    let records = pushed(&good);
    assert!(records.len() >= ALL - STORED);
    let all: BTreeMap<PathBuf, Vec<u8>> = files(&good);
    let names: Vec<PathBuf> = all.keys().cloned().collect();
    let (mut whole, mut part, mut nothing) = (0, 0, 0);
    for (number, (path, bytes)) in all.iter().enumerate() {
        let mut damages: Vec<(String, Option<Vec<u8>>)> = vec![("removed".into(), None)];
        if !bytes.is_empty() {
            damages.push(("emptied".into(), Some(Vec::new())));
            damages.push(("cut in the middle".into(), Some(bytes[..bytes.len() / 2].to_vec())));
            damages.push(("zeroed".into(), Some(vec![0; bytes.len()])));
            let other = &all[&names[(number + 1) % names.len()]];
            damages.push(("another file's bytes".into(), Some(other.clone())));
            for part in 0..8 {
                let mut bad = bytes.clone();
                let at = (bytes.len() - 1) * part / 7;
                bad[at] ^= 0x40;
                damages.push((format!("byte {at} flipped"), Some(bad)));
            }
            let mut hole = bytes.clone();
            let at = bytes.len() / 3;
            hole[at..(at + 4_096).min(bytes.len())].fill(0xA5);
            damages.push((format!("a page at {at} of something else"), Some(hole)));
        }
        for (damage, (what, bad)) in damages.into_iter().enumerate() {
            let [dir, new] =
                ["bad", "new"].map(|kind| place.path().join(format!("{kind}-{number}-{damage}")));
            copy(&good, &dir);
            let file = path.strip_prefix(&good).unwrap();
            match bad {
                None => fs::remove_file(dir.join(file)).unwrap(),
                Some(bad) => fs::write(dir.join(file), bad).unwrap(),
            }
            let context = format!("{}: {what}", file.display());
            let salvaged = salvage(&dir, Some(&new), &options(), now()).expect(&context);
            let Some(state) = &salvaged.state else {
                nothing += 1;
                assert!(!salvaged.lost.is_empty() && !new.exists(), "{context}");
                continue;
            };
            let told = told(&salvaged, &records);
            let taken = take(&new).await;
            let missing: BTreeSet<String> =
                (0..ALL).map(|at| format!("j{at}")).filter(|id| !taken.contains_key(id)).collect();
            assert_eq!(missing, told, "{context}: {:?}", salvaged.lost);
            assert_eq!(state.jobs, taken.len() as u64, "{context}");
            let mut kept = (0..ALL).filter(|at| !missing.contains(&format!("j{at}")));
            assert!(kept.all(|at| taken[&format!("j{at}")].1 == body(at)), "{context}");
            if missing.is_empty() {
                whole += 1
            } else {
                part += 1
            }
            fs::remove_dir_all(&dir).unwrap();
            fs::remove_dir_all(&new).unwrap();
        }
    }
    assert!(whole > 20 && part > 20 && nothing > 0, "{whole} whole, {part} in part, {nothing} not at all");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_look_tells_of_several_damages_has_places_times_and_names() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("dir");
    fill(&dir).await;
    let part = |name: &str| dir.join("log").join(format!("segment-{name:0>16}.log"));
    // The newest file but one loses a record in its middle.
    let mut bytes = fs::read(part("6")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(part("6"), bytes).unwrap();
    let told = salvage(&dir, None, &options(), now()).unwrap();
    let state = told.state.clone().unwrap();
    let Loss::Records { first, last, positions, after, before } = &told.lost[0] else { panic!("{told:?}") };
    assert_eq!((Some(*first), state.position + 1), (*last, *first), "one record, behind what is saved");
    assert_eq!(*positions, (*first, Some(*first)));
    assert!(*after == state.time && before.unwrap() >= *after);
    let Loss::Unapplied { record, pushed, settled, others, .. } = &told.lost[1] else { panic!("{told:?}") };
    assert_eq!((*record, &settled[..], *others), (first + 1, &[][..], 0));
    assert_eq!(pushed[0].1, Some(JobId::Text(format!("j{first}").into())));
    assert_eq!(told.lost.len() as u64, 1 + ALL as u64 - first);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_writes_only_where_nothing_is_and_looks_only_where_nobody_writes() {
    let place = tempfile::tempdir().unwrap();
    let [dir, new] = ["dir", "new"].map(|name| place.path().join(name));
    fill(&dir).await;
    let before = files(&dir);
    let refused = salvage(&dir, Some(&dir), &options(), now()).unwrap_err();
    assert!(refused.to_string().contains("not empty"), "{refused}");
    let early = Timestamp(now().0 - 3_600_000);
    assert!(matches!(salvage(&dir, Some(&new), &options(), early), Err(BackupFailure::Clock { .. })));
    assert!(!new.exists());
    assert_eq!(files(&dir), before);
    let none = salvage(place.path(), Some(&new), &options(), now()).unwrap_err();
    assert!(matches!(none, BackupFailure::Open(OpenError::Foreign { .. })), "{none}");
    let _pond = Handle::open(&dir, options()).unwrap();
    let refused = salvage(&dir, Some(&new), &options(), now()).unwrap_err();
    assert!(matches!(refused, BackupFailure::Open(OpenError::InUse { .. })), "{refused}");
}

/// The files of the store in which most values lie.
fn tables(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let large = |(path, bytes): &(PathBuf, Vec<u8>)| {
        path.parent().unwrap().ends_with("1/tables") && bytes.len() > 8_000
    };
    files(dir).into_iter().filter(large).collect()
}

/// The same checkpoint in many small blocks of the store's tables: as it is in a large directory.
fn in_tables(from: &Path, to: &Path) {
    let small = storage::checkpoints::fjall::Options {
        memtable_bytes: 32 << 10,
        ..storage::checkpoints::fjall::Options::DEFAULT
    };
    let segment = storage::log::segment::Options {
        segment_bytes: 64 << 10,
        reserve: false,
        ..storage::log::segment::Options::DEFAULT
    };
    let local = storage::Options { checkpoints: small, log: segment, ..storage::Options::default() };
    let source = storage::open_read_only(from, &local).unwrap().checkpoints;
    let (mut log, mut checkpoints, unfinished) = storage::begin_local(to, &local).unwrap();
    let position = source.mark(0).unwrap().unwrap().position;
    let mut values = Vec::new();
    let mut keep = |key: &[u8], value: &[u8]| {
        values.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    source.scan(0, &[], &mut keep).unwrap();
    // The store moves values to tables in its own time; each write pushes it on.
    for round in 0.. {
        for chunk in values.chunks(8) {
            let mut changes =
                chunk.iter().cloned().map(|(key, value)| storage::Change::Put { key, value, kin: None });
            checkpoints.write(0, &mut changes, storage::Mark { index: 0, position }).unwrap();
        }
        if tables(to).iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > 150_000 {
            break;
        }
        assert!(round < 100, "the store makes no tables");
    }
    log.close().unwrap();
    unfinished.finish().unwrap();
}

/// Damage of the checkpoint's tables: single jobs, bodies, queues, counters.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_damaged_checkpoint_all_is_saved_that_is_whole_and_fits_together() {
    let place = tempfile::tempdir().unwrap();
    let [first, good] = ["first", "good"].map(|name| place.path().join(name));
    let pond = Handle::open(&first, options()).unwrap();
    push(&pond, 0..STORED).await;
    pond.stop(Duration::from_secs(60)).await.unwrap();
    drop(pond);
    in_tables(&first, &good);
    let pond = Handle::open(&good, Options { checkpoint_ms: 1_000_000, ..options() }).unwrap();
    push(&pond, STORED..ALL).await;
    drop(pond);
    let tables = tables(&good);
    let parts = 16_usize.div_ceil(tables.len());
    let (mut jobs, mut others, mut nothing) = (0, 0, 0);
    for (number, (path, bytes)) in tables.iter().enumerate() {
        for part in 0..parts {
            let [dir, new] = ["bad", "new"].map(|kind| place.path().join(format!("{kind}-{number}-{part}")));
            copy(&good, &dir);
            let mut bad = bytes.clone();
            bad[(bytes.len() - 1) * part / parts] ^= 0x08;
            let file = path.strip_prefix(&good).unwrap();
            fs::write(dir.join(file), bad).unwrap();
            let context = format!("{}, part {part}", file.display());
            let salvaged = salvage(&dir, Some(&new), &options(), now()).expect(&context);
            if salvaged.state.is_none() {
                nothing += 1;
                continue;
            }
            assert!(!salvaged.lost.iter().any(|loss| matches!(loss, Loss::Unapplied { .. })), "{context}");
            let told = told(&salvaged, &BTreeMap::new());
            let taken = take_all(&new).await;
            let missing: BTreeSet<String> =
                (0..ALL).map(|at| format!("j{at}")).filter(|id| !taken.contains_key(id)).collect();
            assert_eq!(missing, told, "{context}: {:?}", salvaged.lost);
            assert!(
                taken.iter().all(|(id, (_, bytes))| *bytes == body(id[1..].parse().unwrap())),
                "{context}"
            );
            jobs += told.len();
            others += salvaged.lost.iter().filter(|loss| matches!(loss, Loss::Value { .. })).count();
        }
    }
    assert!(jobs > 5, "{jobs} jobs, {others} others, {nothing} not at all");
}

/// With the queues that stand in for lost ones.
async fn take_all(dir: &Path) -> BTreeMap<String, (u64, Vec<u8>)> {
    let pond = Handle::open(dir, options()).unwrap();
    for queue in ["salvaged-0", "salvaged-1"] {
        let queue = QueueName::new(queue).unwrap();
        let command = Command::Resume { queue };
        let envelope = Envelope { actor: Actor::new("test"), idempotency_key: None, command };
        // It may not be there.
        let _ = pond.call(envelope, Durability::Disk).await;
    }
    pond.stop(Duration::from_secs(60)).await.unwrap();
    drop(pond);
    take(dir).await
}
