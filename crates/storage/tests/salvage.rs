//! Of checkpoints whose files are damaged every value that is whole is read, and every other is told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kit::{Durability, random::Random};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};
use storage::{
    AtRest, Change, Checkpoints as _, Entry, Key, Keyring, Log as _, Mark, Options, checkpoints::fjall,
    open_local, salvage_local,
};

fn options() -> Options {
    // Small, so that values lie in many blocks of several files.
    let checkpoints = fjall::Options { memtable_bytes: 64 << 10, ..fjall::Options::DEFAULT };
    Options { checkpoints, ..Options::default() }
}

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

fn all() -> Values {
    let mut random = Random::new(7);
    let mut value = || (0..40).flat_map(|_| random.next_u64().to_le_bytes()).collect::<Vec<u8>>();
    let mut all = BTreeMap::new();
    for number in 0..400_u64 {
        for kind in *b"bj" {
            all.insert([&[kind][..], &(number * 6).to_be_bytes()].concat(), value());
        }
        all.insert(format!("icall-{number}").into_bytes(), value());
    }
    all
}

fn fill(dir: &Path, options: &Options) {
    let (mut log, mut checkpoints) = open_local(dir, options).unwrap();
    log.append(&[Entry { shard: 0, payload: b"one" }]).unwrap();
    log.flush(Durability::Disk).unwrap();
    let all: Vec<_> = all().into_iter().collect();
    // The store moves values to tables in its own time; each write pushes it on.
    let enough = |dir: &Path| {
        tables(dir).iter().map(|table| fs::metadata(table).unwrap().len()).sum::<u64>() > 200_000
    };
    for round in 0.. {
        for chunk in all.chunks(100) {
            let mut changes = chunk.iter().cloned().map(|(key, value)| Change::Put { key, value, kin: None });
            checkpoints.write(0, &mut changes, Mark { index: 1, position: 1 }).unwrap();
        }
        if enough(dir) {
            break;
        }
        assert!(round < 100, "the store makes no tables");
    }
    log.close().unwrap();
}

fn tables(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.join("checkpoints")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if folder.ends_with("tables") => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// What is read, and what the keys that are told begin with.
fn read(dir: &Path, options: &Options) -> Option<(Values, BTreeSet<Vec<u8>>)> {
    let values = salvage_local(dir, options).unwrap().checkpoints.ok()?;
    let (mut read, mut told) = (BTreeMap::new(), BTreeSet::new());
    values
        .visit(0, &mut |key, value| match value {
            Ok(value) => assert!(read.insert(key.to_vec(), value.to_vec()).is_none(), "{key:?} comes twice"),
            Err(_) => drop(told.insert(key.to_vec())),
        })
        .unwrap();
    Some((read, told))
}

fn damages(options: &Options, spots: usize) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("dir");
    fill(&dir, options);
    let (all, hidden) = (all(), !options.at_rest.keys.is_empty());
    let (read_all, told) = read(&dir, options).unwrap();
    assert!(read_all == all && told.is_empty());
    let (mut part, mut few, mut nothing) = (0, 0, 0);
    let tables: Vec<_> =
        tables(&dir).into_iter().filter(|path| fs::metadata(path).unwrap().len() > 20_000).collect();
    assert!(!tables.is_empty());
    let spots = spots.div_ceil(tables.len().min(2));
    for table in tables.into_iter().take(2) {
        let whole = fs::read(&table).unwrap();
        for spot in 0..spots {
            let mut bad = whole.clone();
            // One place, or three of them.
            for at in [spot, spot * 7 % spots, spot * 13 % spots].into_iter().take(1 + spot % 3) {
                bad[(whole.len() - 1) * at / spots] ^= 0x10;
            }
            fs::write(&table, bad).unwrap();
            let Some((read, told)) = read(&dir, options) else {
                nothing += 1;
                continue;
            };
            assert!(read.iter().all(|(key, value)| all[key] == *value));
            // The rest of a hidden key is not to be seen.
            let begins = |key: &[u8], told: &[u8]| match told {
                [b'i', _, ..] if hidden => key[0] == b'i',
                told => key.starts_with(told),
            };
            let mut lost = all.keys().filter(|key| !read.contains_key(*key));
            let silent = lost.find(|key| !told.iter().any(|told| begins(key, told)));
            assert_eq!(silent, None, "spot {spot} of {}", table.display());
            part += usize::from(read.len() < all.len());
            // A block or two of a spot, unless it is the file's index.
            few += usize::from(all.len() - read.len() < 60);
        }
        fs::write(&table, whole).unwrap();
    }
    assert!(part > 1 && few * 10 > part * 6, "{part} in part, {few} of them little, {nothing} not at all");
}

#[test]
fn a_damaged_block_costs_its_own_values_and_each_is_told() {
    damages(&options(), 16);
}

#[test]
fn it_is_the_same_under_encryption() {
    let keys = Keyring::parse(&Key::generate().unwrap()).unwrap();
    let at_rest = AtRest { keys, clear_kinds: b"bj", ..AtRest::default() };
    damages(&Options { at_rest, ..options() }, 3);
}

/// Flips a bit of the record with that payload.
fn damage_record(dir: &Path, payload: &[u8]) {
    let log = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let path = log.into_iter().find(|path| path.display().to_string().contains("segment-")).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(payload.len()).position(|window| window == payload).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_no_flush_is_known_to_have_covered_is_no_loss_and_what_one_has_is() {
    for (flushed, ends, stretches) in [(Durability::Os, 5, 1), (Durability::Disk, 7, 2)] {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open_local(place.path(), &options()).unwrap();
        for number in 1..=6 {
            let payload = format!("record number {number} of this log");
            log.append(&[Entry { shard: 0, payload: payload.as_bytes() }]).unwrap();
            log.flush(if number < 3 { Durability::Disk } else { flushed }).unwrap();
        }
        drop(log);
        damage_record(place.path(), b"record number 5 of this log");
        let wreck = salvage_local(place.path(), &options()).unwrap();
        assert_eq!((wreck.log_end, wreck.log_open, wreck.stretches.len()), (ends, false, stretches));
        assert_eq!((wreck.stretches[0].first(), wreck.stretches[0].next()), (1, 5));
    }
}
