//! The files of the checkpoints' engine: each is read whole when a directory is inspected, and none is changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kit::Durability;
use std::{fs, path::Path};
use storage::{
    Change, Checkpoints as _, Entry, Log as _, Mark, Options, checkpoints::fjall, inspect_local, open_local,
};

fn options() -> Options {
    let checkpoints = fjall::Options { memtable_bytes: 1 << 20, ..fjall::Options::DEFAULT };
    Options { checkpoints, ..Options::default() }
}

/// Values that make the engine write files of its own, and a log.
fn fill(dir: &Path) {
    let (mut log, mut checkpoints) = open_local(dir, &options()).unwrap();
    for index in 1..=40u64 {
        log.append(&[Entry { shard: 0, payload: b"a batch" }]).unwrap();
        log.flush(Durability::Disk).unwrap();
        let values = (0..100u64).map(|at| Change::Put {
            key: [&b"b"[..], &(index * 100 + at).to_be_bytes()].concat(),
            value: (0..2_000u64).map(|byte| kit::random::mix(byte, index * at) as u8).collect(),
            kin: None,
        });
        checkpoints.write(0, &mut values.into_iter(), Mark { index, position: index }).unwrap();
    }
    log.close().unwrap();
}

#[test]
fn every_value_is_visited_and_a_byte_of_a_table_that_changed_is_found_with_its_file() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    let mut visited = 0;
    let found = inspect_local(place.path(), &options(), &mut |_, _, _| visited += 1).unwrap();
    assert_eq!((found.damage, found.records, visited), (vec![], 40, 4_000));
    let tables: Vec<_> = found.files.iter().filter(|part| part.holds == "values of the checkpoint").collect();
    assert!(tables.iter().map(|part| part.bytes).sum::<u64>() > 2 << 20, "{tables:?}");
    for part in [tables[0], tables[tables.len() - 1]] {
        let path = place.path().join(&part.file);
        let good = fs::read(&path).unwrap();
        for at in [0, 1, 2, 3].map(|quarter| quarter * (good.len() - 1) / 3) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            let found = inspect_local(place.path(), &options(), &mut |_, _, _| {}).unwrap();
            assert!(!found.damage.is_empty(), "byte {at} of {}", part.file);
            let opens = found
                .damage
                .iter()
                .all(|damage| damage.file != "checkpoints" || damage.reason.contains("key"));
            if opens {
                assert!(found.damage.iter().any(|damage| damage.file == part.file), "{:?}", found.damage);
            }
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        fs::write(&path, &good).unwrap();
    }
    assert_eq!(inspect_local(place.path(), &options(), &mut |_, _, _| {}).unwrap().damage, []);
}
