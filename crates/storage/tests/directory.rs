//! Data directories: what belongs together opens, anything else is refused by name.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kit::{Durability, random::Random};
use std::path::Path;
use storage::{
    Change, CheckpointError, Checkpoints, Entry, Log, LogError, Mark, Options,
    checkpoints::{conformance::values, fjall},
    log::{conformance::records, segment},
    open_local,
};

fn options() -> Options {
    let log = segment::Options { segment_bytes: 1 << 20, ..segment::Options::DEFAULT };
    Options { log, ..Options::default() }
}

fn put(key: &[u8], value: &[u8]) -> Change {
    Change::Put { key: key.to_vec(), value: value.to_vec(), kin: None }
}

fn fill(dir: &Path) {
    let (mut log, mut checkpoints) = open_local(dir, &options()).unwrap();
    log.append(&[Entry { shard: 3, payload: b"one" }, Entry { shard: 4, payload: b"two" }]).unwrap();
    log.flush(Durability::Disk).unwrap();
    checkpoints.write(3, &mut [put(b"k", b"v")].into_iter(), Mark { index: 1, position: 5 }).unwrap();
    log.close().unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

#[test]
fn a_data_directory_opens_again_with_everything() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("new").join("er");
    fill(&dir);
    let (log, checkpoints) = open_local(&dir, &options()).unwrap();
    assert_eq!(records(&log, 1).unwrap().len(), 2);
    assert_eq!(log.epoch(), 2);
    assert_eq!(checkpoints.mark(3).unwrap(), Some(Mark { index: 1, position: 5 }));
}

#[test]
fn a_second_process_is_told_who_is_in_the_way() {
    let place = tempfile::tempdir().unwrap();
    let _open = open_local(place.path(), &options()).unwrap();
    let second = open_local(place.path(), &options()).err();
    assert!(matches!(second, Some(CheckpointError::Files(LogError::Locked { .. }))), "{second:?}");
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_alone() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("letters.txt"), "dear").unwrap();
    let refused = open_local(place.path(), &options()).err().unwrap();
    assert!(refused.to_string().contains("letters.txt"), "{refused}");
    assert_eq!(files(place.path()).len(), 1);
}

#[test]
fn parts_of_two_data_directories_do_not_mix() {
    for part in ["log", "checkpoints"] {
        let place = tempfile::tempdir().unwrap();
        let (a, b) = (place.path().join("a"), place.path().join("b"));
        fill(&a);
        fill(&b);
        std::fs::remove_dir_all(a.join(part)).unwrap();
        std::fs::rename(b.join(part), a.join(part)).unwrap();
        let refused = open_local(&a, &options()).err().unwrap();
        assert!(refused.to_string().contains("data directory"), "{refused}");
    }
}

/// F19: any file of the directory truncated, zeroed, replaced or missing: opened whole or refused with a sentence.
#[test]
fn damaged_files_are_refused_and_never_panic() {
    let place = tempfile::tempdir().unwrap();
    let good = place.path().join("good");
    fill(&good);
    let mut refused = 0;
    for (number, path) in files(&good).into_iter().enumerate() {
        let relative = path.strip_prefix(&good).unwrap();
        for variant in 0..5 {
            let dir = place.path().join(format!("{number}-{variant}"));
            copy(&good, &dir);
            let target = dir.join(relative);
            let bytes = std::fs::read(&target).unwrap();
            match variant {
                0 => std::fs::remove_file(&target).unwrap(),
                1 => std::fs::write(&target, b"").unwrap(),
                2 => std::fs::write(&target, &bytes[..bytes.len() / 2]).unwrap(),
                3 => std::fs::write(&target, vec![0; bytes.len()]).unwrap(),
                _ => std::fs::write(&target, vec![b'x'; bytes.len()]).unwrap(),
            }
            let outcome = open_local(&dir, &options()).and_then(|(log, checkpoints)| {
                let mark = checkpoints.mark(3)?;
                Ok((records(&log, 1)?.len(), mark, values(&checkpoints, 3)?.len()))
            });
            match outcome {
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().len() > 20);
                }
                Ok((count, mark, values)) => {
                    assert_eq!(count, 2, "{relative:?} variant {variant}");
                    // An older checkpoint, or none, is no damage: the log still has what comes after it.
                    assert!(mark.is_none() || values == 1, "{relative:?} variant {variant}");
                }
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    assert!(refused > 15, "{refused}");
}

#[test]
fn a_changed_value_is_never_served() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("a");
    let body: Vec<u8> = {
        let mut random = Random::new(4);
        (0..2_000).map(|_| random.next_u64() as u8).collect()
    };
    {
        let mut checkpoints = fjall::FjallCheckpoints::open(&dir, fjall::Options::DEFAULT).unwrap();
        checkpoints.write(0, &mut [put(b"k", &body)].into_iter(), Mark { index: 1, position: 1 }).unwrap();
    }
    let mut found = 0;
    for path in files(&dir) {
        let mut bytes = std::fs::read(&path).unwrap();
        let Some(at) = bytes.windows(body.len()).position(|window| window == body) else { continue };
        bytes[at + 1_000] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        found += 1;
    }
    assert!(found > 0, "the body is somewhere in the files");
    if let Ok(checkpoints) = fjall::FjallCheckpoints::open(&dir, fjall::Options::DEFAULT) {
        match checkpoints.reader().get(0, b"k") {
            Ok(value) => assert_eq!(
                (value, checkpoints.mark(0).unwrap()),
                (None, None),
                "gone with its mark, not wrong"
            ),
            Err(error) => {
                assert!(matches!(error, CheckpointError::Corrupt { .. } | CheckpointError::Engine { .. }))
            }
        }
    }
}

/// A crash after the redo file has its name: the next open completes the write, from any point.
#[test]
fn a_large_write_cut_short_is_completed_by_the_next_open() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("a");
    let value = vec![1; 1 << 20];
    let changes =
        || (0..20u32).map(|n| put(&n.to_be_bytes(), &value)).chain([Change::Delete { key: b"old".to_vec() }]);
    let open = || fjall::FjallCheckpoints::open(&dir, fjall::Options::DEFAULT);
    let mut checkpoints = open().unwrap();
    checkpoints.write(0, &mut [put(b"old", b"x")].into_iter(), Mark { index: 1, position: 1 }).unwrap();
    // A write that ends while its redo file is still being made never happened.
    let mut cut = changes().chain(std::iter::once_with(|| put(&[0; 70_000], b"refused")));
    assert!(checkpoints.write(0, &mut cut, Mark { index: 2, position: 2 }).is_err());
    assert_eq!(checkpoints.mark(0).unwrap().unwrap().index, 1);
    assert_eq!(values(&checkpoints, 0).unwrap().len(), 1);
    // Keep the redo file that a whole write makes.
    let redo = dir.join("redo");
    let kept = std::thread::scope(|scope| {
        let seen = scope.spawn(|| {
            loop {
                let keep = place.path().join("kept");
                if std::fs::hard_link(&redo, &keep).is_ok() {
                    return keep;
                }
                std::thread::yield_now();
            }
        });
        checkpoints.write(0, &mut changes(), Mark { index: 2, position: 2 }).unwrap();
        seen.join().unwrap()
    });
    checkpoints.clear(0).unwrap();
    checkpoints.write(0, &mut [put(b"old", b"x")].into_iter(), Mark { index: 1, position: 1 }).unwrap();
    drop(checkpoints);
    // As if the crash had come right after the name.
    std::fs::copy(&kept, &redo).unwrap();
    let checkpoints = open().unwrap();
    assert_eq!(checkpoints.mark(0).unwrap(), Some(Mark { index: 2, position: 2 }));
    assert_eq!(values(&checkpoints, 0).unwrap().len(), 20);
    assert!(!redo.exists());
    drop(checkpoints);
    // A damaged one is refused, with its place.
    let mut bytes = std::fs::read(&kept).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&redo, bytes).unwrap();
    let refused = open().err().unwrap();
    assert!(
        matches!(refused, CheckpointError::Corrupt { .. }) && refused.to_string().contains("redo"),
        "{refused}"
    );
}
