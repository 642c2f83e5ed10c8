//! A data directory is read whole, nothing in it changes, and whatever is not what was written is found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::files;
use kit::Durability;
use model::{Actor, Command, Envelope, NewJob, QueueName};
use node::{Handle, OpenError, Options};
use std::{fs, path::Path, time::Duration};

fn options() -> Options {
    // Small, so that a few jobs fill several segments, and bodies leave the memory.
    Options { segment_bytes: 64 << 10, body_budget: 10_000, reserve_bytes: 0, ..Options::default() }
}

async fn push(pond: &Handle, count: usize) {
    for at in 0..count {
        let body = vec![b'a' + (at % 26) as u8; 4_000];
        let jobs = vec![NewJob::new(QueueName::new("mail").unwrap(), body)];
        let envelope =
            Envelope { actor: Actor::new("test"), idempotency_key: None, command: Command::Push { jobs } };
        pond.call(envelope, Durability::Disk).await.unwrap();
    }
}

/// A directory with a checkpoint, and more in the log behind it than one segment holds.
async fn fill(dir: &Path) {
    let pond = Handle::open(dir, options()).unwrap();
    push(&pond, 60).await;
    pond.stop(Duration::from_secs(60)).await.unwrap();
    let late = Options { checkpoint_ms: 1_000_000, ..options() };
    let pond = Handle::open(dir, late).unwrap();
    push(&pond, 40).await;
    // Dropped: it ends without a checkpoint.
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_directory_is_told_file_by_file_and_nothing_in_it_changes() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path()).await;
    let before = files(place.path());
    let verified = node::verify(place.path(), &options()).unwrap();
    assert_eq!(verified.inspection.damage, []);
    let state = verified.state.unwrap();
    assert_eq!((state.jobs, state.queues), (100, 1));
    assert!(state.checkpoint > 0 && state.checkpoint < state.position, "{state:?}");
    assert!(verified.inspection.values >= 120, "60 jobs and their bodies");
    let named: Vec<_> = verified.inspection.files.iter().map(|part| place.path().join(&part.file)).collect();
    for path in before.keys() {
        assert!(named.contains(path), "{} was not told", path.display());
    }
    assert_eq!(files(place.path()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_may_not_be_written_is_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = tempfile::tempdir().unwrap();
    fill(place.path()).await;
    for path in files(place.path()).into_keys() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    }
    assert_eq!(node::verify(place.path(), &options()).unwrap().inspection.damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_is_left_alone() {
    let place = tempfile::tempdir().unwrap();
    let _pond = Handle::open(place.path(), options()).unwrap();
    let refused = node::verify(place.path(), &options()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
}

#[test]
fn what_is_no_data_directory_is_refused_and_none_is_made() {
    let place = tempfile::tempdir().unwrap();
    assert!(matches!(node::verify(place.path(), &options()), Err(OpenError::Foreign { .. })));
    let missing = place.path().join("missing");
    assert!(matches!(node::verify(&missing, &options()), Err(OpenError::Foreign { .. })));
    assert!(!missing.exists());
}

/// Whether a server starts and hands out every job, whatever is damaged.
async fn serves_all(dir: &Path) -> bool {
    let Ok(pond) = Handle::open(dir, options()) else { return false };
    let queue = QueueName::new("mail").unwrap();
    let mut taken = 0;
    while let Ok(jobs) =
        pond.fetch(Actor::new("w"), vec![queue.clone()], 50, 0, Duration::ZERO, Durability::Disk).await
        && !jobs.is_empty()
    {
        taken += jobs.len();
    }
    taken == 100
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// In every file, a byte at several places is flipped: it is found, or it was of no consequence. What is found has a file and a meaning.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_anywhere_is_found_or_costs_nothing() {
    let place = tempfile::tempdir().unwrap();
    let good = place.path().join("good");
    fill(&good).await;
    let (mut found, mut harmless) = (0, 0);
    for (number, (path, bytes)) in files(&good).into_iter().enumerate() {
        for part in 0..6 {
            if bytes.is_empty() {
                continue;
            }
            let dir = place.path().join(format!("{number}-{part}"));
            copy(&good, &dir);
            let mut bad = bytes.clone();
            let at = (bytes.len() - 1) * part / 5;
            bad[at] ^= 0x40;
            let file = path.strip_prefix(&good).unwrap();
            fs::write(dir.join(file), bad).unwrap();
            let verified = node::verify(&dir, &options());
            match verified {
                Ok(verified) if verified.inspection.damage.is_empty() => {
                    harmless += 1;
                    assert!(serves_all(&dir).await, "byte {at} of {} was not found", file.display());
                }
                Ok(verified) => {
                    found += 1;
                    assert!(verified.inspection.damage.iter().all(|damage| !damage.means.is_empty()));
                }
                Err(error) => {
                    found += 1;
                    assert!(error.to_string().len() > 20, "{error}");
                }
            }
            fs::remove_dir_all(&dir).unwrap();
        }
    }
    assert!(found >= 20 && harmless > 0, "{found} found, {harmless} harmless");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_the_log_is_told_with_file_offset_and_records() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path()).await;
    let verified = node::verify(place.path(), &options()).unwrap();
    // The newest file but one: behind the checkpoint, and continued by another.
    let logs: Vec<_> =
        verified.inspection.files.iter().filter(|part| part.holds.starts_with("records")).collect();
    let part = logs[logs.len() - 2];
    let path = place.path().join(&part.file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[512 + 48] ^= 1;
    fs::write(&path, bytes).unwrap();
    let damage = node::verify(place.path(), &options()).unwrap().inspection.damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!((&damage[0].file, damage[0].offset), (&part.file, Some(512)));
    let first = part.holds.split(' ').nth(1).unwrap();
    assert!(damage[0].means.contains(&format!("records {first} to ")), "{}", damage[0].means);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_segment_is_named() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path()).await;
    let verified = node::verify(place.path(), &options()).unwrap();
    let logs: Vec<_> =
        verified.inspection.files.iter().filter(|part| part.holds.starts_with("records")).collect();
    let part = logs[logs.len() - 2];
    fs::remove_file(place.path().join(&part.file)).unwrap();
    let damage = node::verify(place.path(), &options()).unwrap().inspection.damage;
    assert!(damage.iter().any(|damage| damage.file == part.file), "{damage:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_different_times_do_not_fit_together() {
    let place = tempfile::tempdir().unwrap();
    let (dir, old) = (place.path().join("dir"), place.path().join("old"));
    let pond = Handle::open(&dir, options()).unwrap();
    push(&pond, 5).await;
    pond.stop(Duration::from_secs(60)).await.unwrap();
    drop(pond);
    copy(&dir, &old);
    let pond = Handle::open(&dir, options()).unwrap();
    push(&pond, 60).await;
    pond.stop(Duration::from_secs(60)).await.unwrap();
    drop(pond);
    fs::remove_dir_all(dir.join("checkpoints")).unwrap();
    copy(&old.join("checkpoints"), &dir.join("checkpoints"));
    let damage = node::verify(&dir, &options()).unwrap().inspection.damage;
    assert!(damage.iter().any(|damage| damage.reason.contains("is missing")), "{damage:?}");
}
