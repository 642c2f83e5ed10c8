//! Dictionaries are there whenever a value needs them: through crashes, other keys, copies; and damage to them is found at the start.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "compression")]

use kit::random::Random;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};
use storage::{
    AtRest, Change, CheckpointError, CheckpointReader, Checkpoints, Key, KeyError, Keyring, LogError, Mark,
    Options,
    at_rest::{EncodedCheckpoints, copy},
    checkpoints::{Visit, conformance::values, fjall, memory::MemoryCheckpoints},
    inspect_local, open_local, rewrite_local,
};

/// Values of one write: a fourth of what a trial takes.
const BODIES: u64 = 200;
const WRITES: u64 = 8;

fn at_rest(keys: &[&str]) -> AtRest {
    let keys = if keys.is_empty() { Keyring::default() } else { Keyring::parse(&keys.join("\n")).unwrap() };
    AtRest { keys, clear_kinds: b"b", ..AtRest::default() }
}

fn key() -> String {
    Key::generate().unwrap().to_string()
}

fn open<C: Checkpoints>(store: C, at_rest: AtRest) -> Result<EncodedCheckpoints<C>, CheckpointError> {
    EncodedCheckpoints::open(store, at_rest, 7, &[0])
}

/// Some 200 bytes of JSON, as jobs have them.
fn body(number: u64) -> Vec<u8> {
    let mut random = Random::new(number);
    let (order, user, trace) = (random.below(10_000_000), random.below(1_000), random.next_u64());
    format!(
        "{{\"order\":{order},\"email\":\"user{user}@example.com\",\"template\":\"order-confirmed\",\"locale\":\"en-GB\",\
         \"currency\":\"EUR\",\"customer\":\"canary\",\"trace\":\"{trace:016x}\",\"attachments\":[],\"priority\":\"normal\"}}"
    )
    .into_bytes()
}

fn name(number: u64) -> Vec<u8> {
    [&b"b"[..], &number.to_be_bytes()].concat()
}

/// The bodies of one write.
fn changes(write: u64) -> Vec<Change> {
    let numbers = write * BODIES..(write + 1) * BODIES;
    numbers.map(|number| Change::Put { key: name(number), value: body(number), kin: Some(3) }).collect()
}

fn write(checkpoints: &mut dyn Checkpoints, write: u64) -> Result<(), CheckpointError> {
    checkpoints.write(0, &mut changes(write).into_iter(), Mark { index: write + 1, position: 0 })
}

fn fill(checkpoints: &mut dyn Checkpoints) {
    (0..WRITES).for_each(|number| write(checkpoints, number).unwrap());
}

/// Every value of so many writes, as it should read.
fn expected(writes: u64) -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..writes * BODIES).map(|number| (name(number), body(number))).collect()
}

/// Bytes of the values that a store has.
fn size(store: &dyn Checkpoints) -> usize {
    values(store, 0).unwrap().values().map(Vec::len).sum()
}

fn shows_canary(store: &dyn Checkpoints) -> bool {
    values(store, 0).unwrap().values().any(|value| value.windows(6).any(|bytes| bytes == b"canary"))
}

#[test]
fn small_values_of_a_kin_become_less_than_half_and_read_back() {
    for keys in [vec![], vec![key()]] {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (store, without) = (MemoryCheckpoints::new(), MemoryCheckpoints::new());
        fill(&mut open(store.clone(), at_rest(&keys)).unwrap());
        fill(&mut open(without.clone(), AtRest { dictionaries: false, ..at_rest(&keys) }).unwrap());
        let (with, without) = (size(&store), size(&without));
        assert!(with < without * 2 / 3, "{with} of {without} bytes, with {} keys", keys.len());
        assert_eq!(keys.is_empty(), shows_canary(&store), "the dictionary is encrypted, too");
        // Written without one, read with it; and what learns no more still reads.
        for dictionaries in [true, false] {
            let again = open(store.clone(), AtRest { dictionaries, ..at_rest(&keys) }).unwrap();
            assert_eq!(again.dictionaries(0).unwrap(), 1);
            assert_eq!(values(&again, 0).unwrap(), expected(WRITES));
            let last = name(WRITES * BODIES - 1);
            assert_eq!(again.reader().get(0, &last).unwrap().unwrap(), body(WRITES * BODIES - 1));
        }
    }
}

#[test]
fn values_of_no_kin_and_a_length_of_zero_learn_nothing() {
    let store = MemoryCheckpoints::new();
    let mut checkpoints = open(store.clone(), at_rest(&[])).unwrap();
    for number in 0..WRITES {
        let mut plain = changes(number).into_iter().map(|change| match change {
            Change::Put { key, value, .. } => Change::Put { key, value, kin: None },
            delete => delete,
        });
        checkpoints.write(0, &mut plain, Mark { index: number + 1, position: 0 }).unwrap();
    }
    assert_eq!(checkpoints.dictionaries(0).unwrap(), 0);
    let mut never = open(MemoryCheckpoints::new(), AtRest { compress_from: 0, ..at_rest(&[]) }).unwrap();
    fill(&mut never);
    assert_eq!(never.dictionaries(0).unwrap(), 0);
}

/// How one write of a [`Cut`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The disk was full, and nothing changed.
    Full,
    /// The power went before the write happened, or after it.
    Before,
    After,
}

/// A store whose write number `at` ends badly. It looks at each value as soon as a reader could.
struct Cut {
    store: MemoryCheckpoints,
    at: u64,
    end: End,
    reader: Arc<Mutex<Option<Arc<dyn CheckpointReader>>>>,
}

impl Checkpoints for Cut {
    fn mark(&self, shard: u16) -> Result<Option<Mark>, CheckpointError> {
        self.store.mark(shard)
    }

    fn write(
        &mut self,
        shard: u16,
        changes: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        let before = self.store.mark(shard)?;
        let bad = mark.index == self.at;
        if bad && self.end != End::After {
            // It took the changes, and with them whatever was learned.
            changes.for_each(drop);
            self.at = 0;
            return Err(match self.end {
                End::Full => CheckpointError::Full { free: 0, needed: 1 },
                _ => CheckpointError::Poisoned,
            });
        }
        let reader = self.reader.lock().unwrap().clone();
        for change in changes {
            let key = change.key().to_vec();
            self.store.write(shard, &mut [change].into_iter(), before.unwrap_or(mark))?;
            if key[0] == b'b'
                && let Some(reader) = &reader
            {
                let number = u64::from_be_bytes(key[1..].try_into().unwrap());
                assert_eq!(reader.get(shard, &key)?.unwrap(), body(number), "read while it is written");
            }
        }
        self.store.write(shard, &mut std::iter::empty(), mark)?;
        if bad { Err(CheckpointError::Poisoned) } else { Ok(()) }
    }

    fn scan(&self, shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        self.store.scan(shard, prefix, visit)
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        self.store.reader()
    }

    fn clear(&mut self, shard: u16) -> Result<(), CheckpointError> {
        self.store.clear(shard)
    }
}

#[test]
fn whichever_write_is_cut_every_value_that_is_stored_finds_its_dictionary() {
    let secret = key();
    let mut learned = [0; 2];
    for keys in [&[][..], &[secret.as_str()]] {
        for end in [End::Full, End::Before, End::After] {
            for at in 1..=WRITES {
                let store = MemoryCheckpoints::new();
                let slot = Arc::new(Mutex::new(None));
                let cut = Cut { store: store.clone(), at, end, reader: slot.clone() };
                let mut checkpoints = open(cut, at_rest(keys)).unwrap();
                *slot.lock().unwrap() = Some(checkpoints.reader());
                let mut stored = 0;
                for number in 0..WRITES {
                    match write(&mut checkpoints, number) {
                        Ok(()) => stored += 1,
                        // The same checkpoint is tried again, as a node does.
                        Err(CheckpointError::Full { .. }) => {
                            write(&mut checkpoints, number).unwrap();
                            stored += 1;
                        }
                        Err(_) => {
                            stored += u64::from(end == End::After);
                            break;
                        }
                    }
                }
                drop(checkpoints);
                let mut again = open(store.clone(), at_rest(keys)).unwrap();
                assert_eq!(values(&again, 0).unwrap(), expected(stored), "write {at}, {end:?}");
                learned[usize::from(again.dictionaries(0).unwrap() > 0)] += 1;
                // The next life goes on where that one ended, with the same dictionary or one of its own.
                (stored..WRITES).for_each(|number| write(&mut again, number).unwrap());
                let whole = open(store, at_rest(keys)).unwrap();
                assert_eq!(values(&whole, 0).unwrap(), expected(WRITES));
                assert!(whole.dictionaries(0).unwrap() <= 1);
            }
        }
    }
    assert!(learned.iter().all(|count| *count > 4), "cut before and after the training: {learned:?}");
}

/// Where a shard's first dictionary is stored.
const FIRST: [u8; 7] = [0xFF, 0, b'd', 0, 0, 0, 1];

fn put(store: &mut MemoryCheckpoints, change: Change) {
    let mark = store.mark(0).unwrap().unwrap();
    store.write(0, &mut [change].into_iter(), mark).unwrap();
}

#[test]
fn a_missing_or_damaged_dictionary_stops_the_start_and_is_named() {
    let secret = key();
    type Harm = fn(Vec<u8>) -> Option<Vec<u8>>;
    let harms: [(&str, Harm); 5] = [
        ("missing", |_| None),
        ("cut", |mut value| {
            value.pop();
            Some(value)
        }),
        ("changed", |mut value| {
            let middle = value.len() / 2;
            value[middle] ^= 1;
            Some(value)
        }),
        ("empty", |_| Some(Vec::new())),
        ("other", |_| Some(b"something else".to_vec())),
    ];
    for keys in [&[][..], &[secret.as_str()]] {
        for (what, harm) in harms {
            let mut store = MemoryCheckpoints::new();
            fill(&mut open(store.clone(), at_rest(keys)).unwrap());
            let record = values(&store, 0).unwrap()[&FIRST[..]].clone();
            let change = match harm(record) {
                Some(value) => Change::Put { key: FIRST.to_vec(), value, kin: None },
                None => Change::Delete { key: FIRST.to_vec() },
            };
            put(&mut store, change);
            match open(store, at_rest(keys)).err() {
                Some(CheckpointError::Corrupt { place, .. }) => {
                    assert_eq!(place, "key 0000ff006400000001", "{what}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_value_that_names_a_dictionary_nobody_has_is_damage() {
    let mut store = MemoryCheckpoints::new();
    fill(&mut open(store.clone(), at_rest(&[])).unwrap());
    let last = name(WRITES * BODIES - 1);
    let mut value = values(&store, 0).unwrap()[&last].clone();
    // Behind the kind and the frame's descriptor stands the number.
    assert_eq!((value[1], value[3]), (4, 1));
    value[3] = 2;
    put(&mut store, Change::Put { key: last.clone(), value, kin: None });
    let found = open(store, at_rest(&[])).unwrap().reader().get(0, &last);
    assert!(matches!(found, Err(CheckpointError::Corrupt { .. })), "{found:?}");
}

#[test]
fn without_its_key_a_dictionary_is_not_read_and_the_key_is_named() {
    let (store, right) = (MemoryCheckpoints::new(), key());
    fill(&mut open(store.clone(), at_rest(&[&right])).unwrap());
    for keys in [vec![], vec![key()]] {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        match open(store.clone(), at_rest(&keys)).err() {
            Some(CheckpointError::Files(LogError::Key(KeyError::Missing { missing, .. }))) => {
                assert_eq!(missing, Keyring::parse(&right).unwrap().ids());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_copy_has_a_dictionary_of_its_own_under_its_own_key() {
    let (first, second) = (key(), key());
    let (store, fresh) = (MemoryCheckpoints::new(), MemoryCheckpoints::new());
    let mut from = open(store, at_rest(&[&first])).unwrap();
    (0..3 * WRITES).for_each(|number| write(&mut from, number).unwrap());
    let mut to = open(fresh.clone(), at_rest(&[&second])).unwrap();
    assert_eq!(copy(&from, &mut to, 0).unwrap(), 3 * WRITES * BODIES);
    drop(to);
    let copied = open(fresh.clone(), at_rest(&[&second])).unwrap();
    assert_eq!(values(&copied, 0).unwrap(), expected(3 * WRITES));
    assert_eq!(copied.dictionaries(0).unwrap(), 1);
    let plain: usize = expected(3 * WRITES).values().map(Vec::len).sum();
    assert!(size(&fresh) < plain * 4 / 5, "{} of {plain}", size(&fresh));
}

#[test]
fn a_data_directory_keeps_its_dictionaries_through_a_restart_and_a_change_of_key() {
    let place = tempfile::tempdir().unwrap();
    let (first, second) = (key(), key());
    let with = |keys: &[&str]| Options { at_rest: at_rest(keys), ..Options::default() };
    let (mut log, mut checkpoints) = open_local(place.path(), &with(&[&first])).unwrap();
    fill(&mut checkpoints);
    for _ in 0..WRITES {
        storage::Log::append(&mut log, &[storage::Entry { shard: 0, payload: b"x" }]).unwrap();
    }
    storage::Log::close(&mut log).unwrap();
    drop((log, checkpoints));
    let both = with(&[&second, &first]);
    let (log, checkpoints) = open_local(place.path(), &both).unwrap();
    assert_eq!(values(&checkpoints, 0).unwrap(), expected(WRITES));
    assert_eq!(checkpoints.dictionaries(0).unwrap(), 1);
    drop((log, checkpoints));
    let rewritten = rewrite_local(place.path(), &both, &both.at_rest).unwrap();
    assert_eq!(rewritten.retired, Keyring::parse(&first).unwrap().ids());
    let (_log, checkpoints) = open_local(place.path(), &with(&[&second])).unwrap();
    assert_eq!(values(&checkpoints, 0).unwrap(), expected(WRITES));
    assert_eq!(checkpoints.dictionaries(0).unwrap(), 1);
}

#[test]
fn a_data_directory_without_its_dictionary_is_found_out_by_who_looks_and_who_opens() {
    let place = tempfile::tempdir().unwrap();
    let options = Options { at_rest: at_rest(&[]), ..Options::default() };
    let (mut log, mut checkpoints) = open_local(place.path(), &options).unwrap();
    fill(&mut checkpoints);
    storage::Log::close(&mut log).unwrap();
    drop((log, checkpoints));
    let identity = std::fs::read_to_string(place.path().join("identity")).unwrap();
    let id = identity.lines().find_map(|line| line.strip_prefix("id = ")).unwrap();
    let engine =
        fjall::Options { directory: u64::from_str_radix(id, 16).unwrap(), ..fjall::Options::DEFAULT };
    let mut store = fjall::FjallCheckpoints::open(&place.path().join("checkpoints"), engine).unwrap();
    let mark = store.mark(0).unwrap().unwrap();
    store.write(0, &mut [Change::Delete { key: FIRST.to_vec() }].into_iter(), mark).unwrap();
    drop(store);
    let found = inspect_local(place.path(), &options, &mut |_, _, _| {}).unwrap();
    assert!(found.damage.iter().any(|damage| damage.reason.contains("ff006400000001")), "{:?}", found.damage);
    assert!(matches!(open_local(place.path(), &options), Err(CheckpointError::Corrupt { .. })));
}
