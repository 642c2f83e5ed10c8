//! A data directory that is written again: with another key, with the first one, without any.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kit::Durability;
use std::{fs, path::Path};
use storage::{
    AtRest, Change, CheckpointError, Checkpoints, Entry, Key, KeyError, Keyring, Log, LogError, Mark,
    Options,
    checkpoints::conformance::values,
    log::{conformance::records, segment},
    open_local, rewrite_local,
};

const CANARY: &[u8] = b"canary-in-a-body";

fn ring(keys: &[&str]) -> Keyring {
    Keyring::parse(&keys.join("\n")).unwrap()
}

fn key() -> String {
    Key::generate().unwrap().to_string()
}

fn options(keys: Keyring) -> Options {
    let log = segment::Options { segment_bytes: 16 << 10, zero_ahead: 4 << 10, ..segment::Options::DEFAULT };
    Options { log, at_rest: AtRest { keys, clear_kinds: b"b", ..AtRest::default() }, ..Options::default() }
}

fn plain() -> Options {
    options(Keyring::default())
}

/// Appends enough for several segments, and a checkpoint of all of it.
fn fill(dir: &Path, options: &Options) {
    let (mut log, mut checkpoints) = open_local(dir, options).unwrap();
    for _ in 0..40 {
        log.append(&[Entry { shard: 0, payload: &CANARY.repeat(60) }]).unwrap();
        log.flush(Durability::Disk).unwrap();
        log.trim(log.next() / 2).unwrap();
    }
    let put = |key: &[u8]| Change::Put { key: key.to_vec(), value: CANARY.to_vec(), kin: None };
    let mark = Mark { index: log.next() - 1, position: 9 };
    checkpoints.write(0, &mut [put(b"b1"), put(b"i-canary-in-a-body")].into_iter(), mark).unwrap();
    log.close().unwrap();
}

fn holds_canary(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holds_canary(&path));
        } else if fs::read(&path).unwrap().windows(CANARY.len()).any(|bytes| bytes == CANARY) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn is_whole(dir: &Path, options: &Options) {
    let (mut log, checkpoints) = open_local(dir, options).unwrap();
    let mark = checkpoints.mark(0).unwrap().unwrap();
    assert_eq!(mark, Mark { index: log.next() - 1, position: 9 });
    let all = values(&checkpoints, 0).unwrap();
    assert_eq!(all.len(), 2);
    assert!(all.values().all(|value| value == CANARY));
    assert!(records(&log, log.first()).unwrap().len() <= 40);
    log.close().unwrap();
}

fn missing(outcome: Result<impl Sized, CheckpointError>) -> bool {
    matches!(outcome, Err(CheckpointError::Files(LogError::Key(KeyError::Missing { .. }))))
}

#[test]
fn a_directory_that_was_encrypted_from_the_start_never_shows_a_body() {
    let place = tempfile::tempdir().unwrap();
    let options = options(ring(&[&key()]));
    fill(place.path(), &options);
    assert_eq!(holds_canary(place.path()), Vec::<String>::new());
    is_whole(place.path(), &options);
    // The same search finds what is not encrypted.
    let place = tempfile::tempdir().unwrap();
    fill(place.path(), &plain());
    assert!(holds_canary(place.path()).len() >= 2);
}

#[test]
fn the_first_key_the_next_one_and_none_leave_nothing_of_the_one_before() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let (first, second) = (key(), key());
    fill(dir, &plain());

    let (one, both, two) =
        (options(ring(&[&first])), options(ring(&[&second, &first])), options(ring(&[&second])));
    let rewritten = rewrite_local(dir, &one, &one.at_rest).unwrap();
    assert_eq!((rewritten.values, rewritten.retired), (2, vec![]));
    assert_eq!(holds_canary(dir), Vec::<String>::new());
    is_whole(dir, &one);
    assert!(missing(open_local(dir, &plain())));

    let rewritten = rewrite_local(dir, &both, &both.at_rest).unwrap();
    assert_eq!(rewritten.retired, ring(&[&first]).ids());
    is_whole(dir, &two);
    assert!(missing(open_local(dir, &one)));

    let rewritten = rewrite_local(dir, &two, &plain().at_rest).unwrap();
    assert_eq!(rewritten.retired, ring(&[&second]).ids());
    is_whole(dir, &plain());
}

#[test]
fn what_the_checkpoint_lacks_is_not_thrown_away() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path(), &plain());
    let (mut log, _checkpoints) = open_local(place.path(), &plain()).unwrap();
    let index = log.append(&[Entry { shard: 0, payload: b"newer" }]).unwrap();
    log.close().unwrap();
    drop((log, _checkpoints));
    let refused = rewrite_local(place.path(), &plain(), &plain().at_rest).unwrap_err();
    assert!(matches!(refused, CheckpointError::Behind { .. }), "{refused}");
    let (log, _checkpoints) = open_local(place.path(), &plain()).unwrap();
    assert_eq!(records(&log, index).unwrap()[0].payload, b"newer");
}

#[test]
fn wherever_a_rewriting_is_cut_the_directory_opens_with_everything() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    let options = options(ring(&[&key()]));
    fill(dir, &options);
    let at = |name: &str| dir.join(name);
    // The copy was not whole.
    fs::create_dir(at("checkpoints.new")).unwrap();
    fs::write(at("checkpoints.new").join("half"), "half").unwrap();
    is_whole(dir, &options);
    assert!(!at("checkpoints.new").exists());
    // It was, and the former ones had just left.
    fs::rename(at("checkpoints"), at("checkpoints.new")).unwrap();
    fs::create_dir(at("checkpoints.old")).unwrap();
    is_whole(dir, &options);
    // The new ones had come, and the former ones were still there.
    fs::create_dir(at("checkpoints.old")).unwrap();
    is_whole(dir, &options);
    assert!(!at("checkpoints.old").exists());
    // Somebody put the former ones away by hand.
    fs::rename(at("checkpoints"), at("checkpoints.old")).unwrap();
    is_whole(dir, &options);
    rewrite_local(dir, &options, &options.at_rest).unwrap();
    is_whole(dir, &options);
}
