//! What the encoding of values must keep apart: keys, places, and what was there before it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use storage::{
    AtRest, Change, CheckpointError, Checkpoints, Entry, Key, KeyError, Keyring, Log, LogError, Mark,
    at_rest::{EncodedCheckpoints, EncodedLog, copy},
    checkpoints::{conformance::values, memory::MemoryCheckpoints},
    log::{conformance::records, memory::MemoryStore},
};

const MARK: Mark = Mark { index: 1, position: 1 };

/// A ring of keys, of which the first encrypts.
fn ring(keys: &[&str]) -> Keyring {
    Keyring::parse(&keys.join("\n")).unwrap()
}

fn key() -> String {
    Key::generate().unwrap().to_string()
}

fn with(keys: Keyring) -> AtRest {
    AtRest { keys, clear_kinds: b"bj", ..AtRest::default() }
}

fn open(
    store: &MemoryCheckpoints,
    keys: Keyring,
) -> Result<EncodedCheckpoints<MemoryCheckpoints>, CheckpointError> {
    EncodedCheckpoints::open(store.clone(), with(keys), 7, &[0])
}

fn put(checkpoints: &mut dyn Checkpoints, pairs: &[(&[u8], &[u8])]) {
    let changes: Vec<Change> = pairs
        .iter()
        .map(|(key, value)| Change::Put { key: key.to_vec(), value: value.to_vec(), kin: None })
        .collect();
    checkpoints.write(0, &mut changes.into_iter(), MARK).unwrap();
}

fn missing(error: &CheckpointError) -> &[storage::KeyId] {
    match error {
        CheckpointError::Files(LogError::Key(KeyError::Missing { missing, .. })) => missing,
        other => panic!("{other}"),
    }
}

fn map(pairs: &[(&[u8], &[u8])]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    pairs.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

#[test]
fn neither_values_nor_keys_that_people_wrote_can_be_seen() {
    let store = MemoryCheckpoints::new();
    let mut checkpoints = open(&store, ring(&[&key()])).unwrap();
    let long = b"canary in a body ".repeat(200);
    put(&mut checkpoints, &[(b"b1", b"a canary"), (b"b2", &long), (b"i-canary-key", b"x")]);
    for (key, value) in values(&store, 0).unwrap() {
        for bytes in [key, value] {
            assert!(!bytes.windows(6).any(|bytes| bytes == b"canary"), "{}", bytes.escape_ascii());
        }
    }
    let all = values(&checkpoints, 0).unwrap();
    assert_eq!(all, map(&[(b"b1", b"a canary"), (b"b2", &long), (b"i-canary-key", b"x")]));
}

#[test]
fn without_the_right_key_nothing_opens_and_the_missing_one_is_named() {
    let (store, right) = (MemoryCheckpoints::new(), key());
    put(&mut open(&store, ring(&[&right])).unwrap(), &[(b"b1", b"x")]);
    for keys in [Keyring::default(), ring(&[&key()])] {
        let refusal = open(&store, keys).err().unwrap();
        assert_eq!(missing(&refusal), ring(&[&right]).ids());
    }
    open(&store, ring(&[&key(), &right])).unwrap();
}

#[test]
fn a_log_refuses_what_its_keys_do_not_open() {
    let (store, right) = (MemoryStore::new(), key());
    let mut log = EncodedLog::new(store.open(), with(ring(&[&right])), 7);
    log.append(&[Entry { shard: 0, payload: b"x" }]).unwrap();
    log.close().unwrap();
    let other = EncodedLog::new(store.open(), with(ring(&[&key()])), 7);
    assert!(matches!(records(&other, 1), Err(LogError::Key(KeyError::Missing { .. }))));
    let elsewhere = EncodedLog::new(store.open(), with(ring(&[&right])), 8);
    assert!(matches!(records(&elsewhere, 1), Err(LogError::Corrupt { index: 1, .. })));
}

#[test]
fn what_was_written_before_stays_readable_and_is_known_to_be_plain() {
    let (mut store, first) = (MemoryCheckpoints::new(), key());
    let old: [(&[u8], &[u8]); 4] =
        [(b"b1", b"plain"), (b"b2", &[0xF5]), (b"b3", &[0xF5, 1, 9, 9]), (b"i-key", b"call")];
    put(&mut store, &old);
    let plain = open(&store, Keyring::default()).unwrap();
    assert_eq!(values(&plain, 0).unwrap(), map(&old));
    drop(plain);
    let mut mixed = open(&store, ring(&[&first])).unwrap();
    assert_eq!(values(&mixed, 0).unwrap(), map(&old));
    assert_eq!(mixed.reader().get(0, b"i-key").unwrap().unwrap(), b"call");
    put(&mut mixed, &[(b"i-key", b"changed"), (b"b4", b"new")]);
    assert_eq!(values(&mixed, 0).unwrap()[&b"i-key"[..]], b"changed");
    assert_eq!(mixed.reader().get(0, b"i-key").unwrap().unwrap(), b"changed");
    let encryption = mixed.encryption(0).unwrap().unwrap();
    assert!(encryption.plain && encryption.keys == ring(&[&first]).ids());
    let delete = Change::Delete { key: b"i-key".to_vec() };
    mixed.write(0, &mut [delete].into_iter(), MARK).unwrap();
    assert_eq!(values(&mixed, 0).unwrap().len(), 4);
}

#[test]
fn keys_can_change_again_and_again_and_a_copy_needs_only_the_newest() {
    let (store, keys) = (MemoryCheckpoints::new(), [key(), key(), key()]);
    let mut expected = BTreeMap::new();
    for newest in 0..keys.len() {
        let given: Vec<&str> = keys[..=newest].iter().rev().map(String::as_str).collect();
        let mut checkpoints = open(&store, ring(&given)).unwrap();
        let own = format!("b{newest}");
        for name in [own.as_bytes(), b"i-shared", b"j-shared"] {
            put(&mut checkpoints, &[(name, &[newest as u8])]);
            expected.insert(name.to_vec(), vec![newest as u8]);
        }
        assert_eq!(values(&checkpoints, 0).unwrap(), expected);
    }
    let all = ring(&[&keys[2], &keys[0], &keys[1]]);
    let from = open(&store, all.clone()).unwrap();
    assert_eq!(from.encryption(0).unwrap().unwrap().keys.len(), 3);
    let fresh = MemoryCheckpoints::new();
    let mut to = open(&fresh, all).unwrap();
    assert_eq!(copy(&from, &mut to, 0).unwrap(), 5);
    drop(to);
    let copied = open(&fresh, ring(&[&keys[2]])).unwrap();
    assert_eq!(values(&copied, 0).unwrap(), expected);
    assert_eq!(copied.mark(0).unwrap(), Some(MARK));
    let encryption = copied.encryption(0).unwrap().unwrap();
    assert!(!encryption.plain && encryption.keys == ring(&[&keys[2]]).ids());
}

#[test]
fn a_value_moved_changed_or_laid_bare_is_damage_that_is_located() {
    let keys = ring(&[&key()]);
    type Harm = fn(&[u8]) -> Vec<u8>;
    let harms: [(&str, Harm); 3] = [
        ("changed", |value| value.iter().take(40).chain(&[1]).chain(&value[41..]).copied().collect()),
        ("cut", |value| value[..value.len() - 1].to_vec()),
        ("laid bare", |_| b"plain".to_vec()),
    ];
    for (what, harm) in harms {
        let mut store = MemoryCheckpoints::new();
        put(&mut open(&store, keys.clone()).unwrap(), &[(b"b1", b"one"), (b"b2", b"two")]);
        let value = values(&store, 0).unwrap()[&b"b1"[..]].clone();
        put(&mut store, &[(b"b1", &harm(&value))]);
        is_damage(&open(&store, keys.clone()).unwrap(), what);
    }
    let mut store = MemoryCheckpoints::new();
    put(&mut open(&store, keys.clone()).unwrap(), &[(b"b1", b"one"), (b"b2", b"two")]);
    let other = values(&store, 0).unwrap()[&b"b2"[..]].clone();
    put(&mut store, &[(b"b1", &other)]);
    is_damage(&open(&store, keys).unwrap(), "moved");
}

fn is_damage(checkpoints: &dyn Checkpoints, what: &str) {
    let scanned = values(checkpoints, 0).map(|_| None);
    for outcome in [checkpoints.reader().get(0, b"b1"), scanned] {
        match outcome {
            Err(CheckpointError::Corrupt { place, .. }) => {
                assert!(place.ends_with("6231"), "{what}: {place}")
            }
            other => panic!("{what}: {other:?}"),
        }
    }
    assert_eq!(checkpoints.reader().get(0, b"b2").unwrap().unwrap(), b"two", "{what}");
}
