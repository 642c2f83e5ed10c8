//! What every [`Checkpoints`] must do, as functions any implementation can be put through.
//!
//! ```
//! use storage::checkpoints::{conformance, memory::MemoryCheckpoints};
//! conformance::run(&mut || {
//!     let kept = MemoryCheckpoints::new();
//!     Box::new(move || Ok(Box::new(kept.clone())))
//! });
//! ```
//!
//! The functions panic with a sentence when a rule is broken: they are tests.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a suite of tests fails by panicking")]

use super::{Change, CheckpointError, Checkpoints, KEY_MAX, Mark};
use kit::random::Random;
use std::collections::BTreeMap;

/// Opens one set of checkpoints, again and again. Dropping them before opening again is a crash of the process.
pub type Place<'a> = Box<dyn FnMut() -> Result<Box<dyn Checkpoints>, CheckpointError> + 'a>;

/// Makes an empty place each time.
pub type Maker<'a, 'b> = &'a mut dyn FnMut() -> Place<'b>;

/// Runs every check of the suite.
pub fn run(make: Maker<'_, '_>) {
    a_new_shard_has_no_mark_and_no_keys(make());
    a_write_shows_its_changes_and_its_mark(make());
    what_was_written_is_there_after_a_reopen(make());
    shards_do_not_see_each_other(make());
    scans_go_in_key_order_under_the_prefix(make());
    a_large_write_is_whole_after_a_reopen(make());
    what_is_too_large_is_refused_and_changes_nothing(make());
    a_cleared_shard_is_empty(make());
    a_reader_sees_later_writes(make());
    random_use_agrees_with_a_map(make());
}

/// All keys and values of a shard.
pub fn values(
    checkpoints: &dyn Checkpoints,
    shard: u16,
) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, CheckpointError> {
    let mut values = BTreeMap::new();
    checkpoints.scan(shard, &[], &mut |key, value| {
        values.insert(key.to_vec(), value.to_vec());
        Ok(())
    })?;
    Ok(values)
}

fn put(key: &[u8], value: &[u8]) -> Change {
    Change::Put { key: key.to_vec(), value: value.to_vec(), kin: None }
}

fn delete(key: &[u8]) -> Change {
    Change::Delete { key: key.to_vec() }
}

fn mark(index: u64) -> Mark {
    Mark { index, position: index * 10 }
}

fn write(checkpoints: &mut dyn Checkpoints, shard: u16, changes: Vec<Change>, index: u64) {
    checkpoints.write(shard, &mut changes.into_iter(), mark(index)).unwrap();
}

fn a_new_shard_has_no_mark_and_no_keys(mut place: Place<'_>) {
    let checkpoints = place().unwrap();
    assert_eq!(checkpoints.mark(0).unwrap(), None);
    assert!(values(&*checkpoints, 0).unwrap().is_empty());
    assert_eq!(checkpoints.reader().get(0, b"a").unwrap(), None);
}

fn a_write_shows_its_changes_and_its_mark(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    write(&mut *checkpoints, 3, vec![put(b"a", b"1"), put(b"b", b"2"), put(b"", b"")], 5);
    write(&mut *checkpoints, 3, vec![delete(b"a"), delete(b"none"), put(b"b", b"3")], 9);
    assert_eq!(checkpoints.mark(3).unwrap(), Some(mark(9)));
    let all = values(&*checkpoints, 3).unwrap();
    assert_eq!(all, BTreeMap::from([(b"b".to_vec(), b"3".to_vec()), (vec![], vec![])]));
    write(&mut *checkpoints, 3, vec![put(b"b", b"x"), delete(b"b"), put(b"c", b"x"), put(b"c", b"y")], 9);
    let all = values(&*checkpoints, 3).unwrap();
    assert_eq!(
        all,
        BTreeMap::from([(b"c".to_vec(), b"y".to_vec()), (vec![], vec![])]),
        "the last change to a key counts"
    );
    write(&mut *checkpoints, 3, vec![], 10);
    assert_eq!(checkpoints.mark(3).unwrap(), Some(mark(10)), "a mark may move alone");
}

fn what_was_written_is_there_after_a_reopen(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    write(&mut *checkpoints, 0, vec![put(b"a", b"1"), put(b"b", b"2")], 5);
    drop(checkpoints);
    let mut checkpoints = place().unwrap();
    assert_eq!(checkpoints.mark(0).unwrap(), Some(mark(5)));
    write(&mut *checkpoints, 0, vec![delete(b"a")], 6);
    drop(checkpoints);
    let checkpoints = place().unwrap();
    assert_eq!(checkpoints.mark(0).unwrap(), Some(mark(6)));
    assert_eq!(values(&*checkpoints, 0).unwrap(), BTreeMap::from([(b"b".to_vec(), b"2".to_vec())]));
}

fn shards_do_not_see_each_other(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    for shard in [0, 1, 255, 256, u16::MAX] {
        write(&mut *checkpoints, shard, vec![put(b"k", &shard.to_le_bytes())], u64::from(shard));
    }
    for shard in [0, 1, 255, 256, u16::MAX] {
        let all = values(&*checkpoints, shard).unwrap();
        assert_eq!(all, BTreeMap::from([(b"k".to_vec(), shard.to_le_bytes().to_vec())]));
        assert_eq!(checkpoints.mark(shard).unwrap(), Some(mark(u64::from(shard))));
    }
    assert_eq!(checkpoints.mark(2).unwrap(), None);
}

fn scans_go_in_key_order_under_the_prefix(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    let keys: [&[u8]; 6] = [b"b\xff", b"a", b"b", b"b\x00", b"c", b"ba"];
    write(&mut *checkpoints, 1, keys.iter().map(|key| put(key, key)).collect(), 1);
    let mut seen = Vec::new();
    let scan = checkpoints.scan(1, b"b", &mut |key, value| {
        assert_eq!(key, value);
        seen.push(key.to_vec());
        Ok(())
    });
    scan.unwrap();
    assert_eq!(seen, [&b"b"[..], b"b\x00", b"ba", b"b\xff"]);
    let stopped = checkpoints.scan(1, b"", &mut |_, _| Err(CheckpointError::Stopped));
    assert!(matches!(stopped, Err(CheckpointError::Stopped)));
}

fn a_large_write_is_whole_after_a_reopen(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    write(&mut *checkpoints, 0, vec![put(b"old", b"value"), put(b"gone", b"value")], 1);
    let value = vec![7; 64 << 10];
    let mut changes = (0..500u32)
        .map(|number| put(&number.to_be_bytes(), &value))
        .chain([delete(b"gone"), put(&3u32.to_be_bytes(), b"changed later")]);
    checkpoints.write(0, &mut changes, mark(2)).unwrap();
    assert_eq!(checkpoints.mark(0).unwrap(), Some(mark(2)));
    drop(checkpoints);
    let checkpoints = place().unwrap();
    assert_eq!(checkpoints.mark(0).unwrap(), Some(mark(2)));
    let all = values(&*checkpoints, 0).unwrap();
    assert_eq!(all.len(), 501);
    assert_eq!(all[&b"old"[..]], b"value");
    assert_eq!(all[&3u32.to_be_bytes()[..]], b"changed later");
    assert_eq!(all[&4u32.to_be_bytes()[..]], value);
}

fn what_is_too_large_is_refused_and_changes_nothing(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    let changes = vec![put(b"a", b"1"), put(&vec![0; KEY_MAX + 1], b"")];
    let refused = checkpoints.write(0, &mut changes.into_iter(), mark(1));
    assert!(matches!(refused, Err(CheckpointError::TooLarge { .. })), "{refused:?}");
    assert_eq!(checkpoints.mark(0).unwrap(), None);
    assert!(values(&*checkpoints, 0).unwrap().is_empty());
    write(&mut *checkpoints, 0, vec![put(&vec![0; KEY_MAX], b"fits")], 1);
}

fn a_cleared_shard_is_empty(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    write(&mut *checkpoints, 1, (0..300u32).map(|n| put(&n.to_be_bytes(), b"x")).collect(), 1);
    write(&mut *checkpoints, 2, vec![put(b"other", b"kept")], 2);
    checkpoints.clear(1).unwrap();
    checkpoints.clear(9).unwrap();
    drop(checkpoints);
    let checkpoints = place().unwrap();
    assert_eq!(checkpoints.mark(1).unwrap(), None);
    assert!(values(&*checkpoints, 1).unwrap().is_empty());
    assert_eq!(checkpoints.mark(2).unwrap(), Some(mark(2)));
    assert_eq!(values(&*checkpoints, 2).unwrap().len(), 1);
}

fn a_reader_sees_later_writes(mut place: Place<'_>) {
    let mut checkpoints = place().unwrap();
    let reader = checkpoints.reader();
    write(&mut *checkpoints, 4, vec![put(b"a", b"1"), put(b"c", b"3")], 1);
    let found = std::thread::spawn(move || reader.multi_get(4, &[b"c", b"b", b"a"]).unwrap()).join().unwrap();
    assert_eq!(found, [Some(b"3".to_vec()), None, Some(b"1".to_vec())]);
}

fn random_use_agrees_with_a_map(mut place: Place<'_>) {
    let mut random = Random::new(23);
    let mut map: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut checkpoints = place().unwrap();
    for index in 1..60 {
        let changes: Vec<Change> = (0..random.below(30))
            .map(|_| {
                let key = vec![b'k'; random.below(12) as usize];
                match random.below(3) {
                    0 => Change::Delete { key },
                    _ => Change::Put {
                        key,
                        value: vec![random.next_u64() as u8; random.below(100) as usize],
                        kin: Some(1),
                    },
                }
            })
            .collect();
        for change in &changes {
            match change.clone() {
                Change::Put { key, value, .. } => map.insert(key, value),
                Change::Delete { key } => map.remove(&key),
            };
        }
        write(&mut *checkpoints, 6, changes, index);
        if random.chance(1, 10) {
            drop(checkpoints);
            checkpoints = place().unwrap();
        }
        assert_eq!(values(&*checkpoints, 6).unwrap(), map);
        assert_eq!(checkpoints.mark(6).unwrap(), Some(mark(index)));
    }
}
