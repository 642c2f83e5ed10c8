//! A backup in a folder: whole or not there, wherever the power goes; small if little changed; damage is found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kit::{Timestamp, random::Random};
use std::sync::Arc;
use storage::{
    CheckpointError, Checkpoints as _, Frozen, Mark,
    backup::{Backup, BackupError, BackupFolder, Chunk, Manifest, Saved, cut},
    checkpoints::Visit,
    files::{FakeFiles, Files as _, ReadOnlyFiles, RealFiles, SharedFiles},
};

/// A checkpoint of `count` values, of which some depend on `version`.
struct Kept {
    position: u64,
    values: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Kept {
    fn new(count: u64, version: u64) -> Self {
        let value = |at: u64| {
            let seed = if at % 200 == 3 { version } else { 0 };
            let mut random = Random::new(at * 31 + seed);
            (0..500 * (1 + at % 3)).map(|_| random.next_u64() as u8).collect()
        };
        let values = (0..count).map(|at| (at.to_be_bytes().to_vec(), value(at))).collect();
        Self { position: version, values }
    }
}

impl Frozen for Kept {
    fn mark(&self) -> Option<Mark> {
        Some(Mark { index: 9, position: self.position })
    }

    fn visit(&self, visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        self.values.iter().try_for_each(|(key, value)| visit(key, value))
    }
}

fn shared(files: &FakeFiles) -> SharedFiles {
    Arc::new(files.clone())
}

fn save(files: &FakeFiles, kept: &Kept) -> Result<(Manifest, Saved), BackupError> {
    let mut folder = BackupFolder::open(shared(files))?;
    let manifest = cut::<BackupError>(kept, 7, Timestamp(kept.position), &mut |_, chunk| {
        folder.put(&chunk.bytes, chunk.values)
    })?;
    let saved = folder.finish(&manifest)?;
    Ok((manifest, saved))
}

fn values(backup: &Backup) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut values = Vec::new();
    backup
        .scan(0, &[], &mut |key, value| {
            values.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    values
}

#[test]
fn a_backup_reads_back_whole_by_prefix_and_by_key() {
    let files = FakeFiles::new();
    let kept = Kept::new(3_000, 5);
    let (manifest, saved) = save(&files, &kept).unwrap();
    assert!(manifest.chunks.len() > 1 && saved.values == 3_000, "{saved:?}");
    let backup = Backup::open(shared(&files)).unwrap();
    assert_eq!((backup.manifest(), backup.mark(0).unwrap().unwrap().position), (&manifest, 5));
    assert_eq!(values(&backup), kept.values);
    for prefix in [&[0, 0, 0, 0, 0, 0, 4][..], &[0, 0, 0, 0, 0, 0, 11], &[1], &[0, 0, 0, 0, 0, 0, 0, 0]] {
        let mut found = Vec::new();
        backup
            .scan(0, prefix, &mut |key, _| {
                found.push(key.to_vec());
                Ok(())
            })
            .unwrap();
        let wanted: Vec<_> =
            kept.values.iter().map(|(key, _)| key.clone()).filter(|key| key.starts_with(prefix)).collect();
        assert_eq!(found, wanted);
    }
    let reader = backup.reader();
    for (key, value) in kept.values.iter().step_by(97) {
        assert_eq!(reader.get(0, key).unwrap().as_ref(), Some(value));
    }
    assert_eq!(reader.get(0, b"none").unwrap(), None);
}

#[test]
fn the_next_backup_writes_only_what_changed_and_leaves_nothing_behind() {
    let files = FakeFiles::new();
    save(&files, &Kept::new(20_000, 1)).unwrap();
    let same = save(&files, &Kept::new(20_000, 1)).unwrap().1;
    assert_eq!((same.chunks_written, same.bytes_written), (0, 0));
    let mut kept = Kept::new(20_000, 1);
    kept.values[10_000].1 = b"another".to_vec();
    let (manifest, saved) = save(&files, &kept).unwrap();
    assert!((1..=2).contains(&saved.chunks_written) && saved.chunks_kept > 2, "{saved:?}");
    assert_eq!(values(&Backup::open(shared(&files)).unwrap()), kept.values);
    let chunks = files.list().unwrap().into_iter().filter(|name| name.starts_with("chunk-"));
    assert_eq!(chunks.count(), manifest.chunks.len());
}

/// F4 for backups: cut at each step, then torn at random, the folder has the backup before or the new one, each whole.
#[test]
fn a_power_cut_at_any_step_leaves_the_backup_before_or_the_new_one() {
    let (old, new) = (Kept::new(2_500, 1), Kept::new(2_500, 2));
    let before = FakeFiles::new();
    save(&before, &old).unwrap();
    let whole = before.fork();
    let start = whole.total();
    save(&whole, &new).unwrap();
    let steps = whole.total() - start;
    let (mut olds, mut news) = (0, 0);
    for step in 1..=steps {
        for seed in 0..3 {
            let files = before.fork();
            files.cut_power_after(step);
            let cut = save(&files, &new);
            files.crash(&mut Random::new(step * 10 + seed));
            let backup = Backup::open(shared(&files)).unwrap();
            match backup.manifest().position {
                1 => olds += 1,
                _ => news += 1,
            }
            let kept = if backup.manifest().position == 1 { &old } else { &new };
            assert!(values(&backup) == kept.values, "step {step}");
            assert!(cut.is_err() || backup.manifest().position == 2, "step {step}: it was said to be there");
            // And the next one comes to its end.
            save(&files, &new).unwrap();
            assert!(values(&Backup::open(shared(&files)).unwrap()) == new.values);
        }
    }
    assert!(olds > 10 && news > 3, "{olds} {news}");
}

#[test]
fn a_first_backup_that_was_cut_is_seen_as_none() {
    let kept = Kept::new(2_500, 1);
    let whole = FakeFiles::new();
    save(&whole, &kept).unwrap();
    for step in 1..whole.total() {
        let files = FakeFiles::new();
        files.cut_power_after(step);
        let cut = save(&files, &kept);
        files.crash(&mut Random::new(step));
        match Backup::open(shared(&files)) {
            Ok(backup) => assert!(values(&backup) == kept.values),
            Err(error) => {
                assert!(
                    cut.is_err() && matches!(error, BackupError::Unfinished { .. }),
                    "step {step}: {error}"
                );
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_found_and_the_next_backup_mends_it() {
    let files = FakeFiles::new();
    let kept = Kept::new(1_500, 1);
    save(&files, &kept).unwrap();
    let mut random = Random::new(3);
    for name in files.list().unwrap().into_iter().filter(|name| name != "lock") {
        let bits = files.bytes(&name).unwrap().len() as u64 * 8;
        for bit in (0..25).map(|_| random.below(bits)).chain([0, bits - 1]) {
            let bad = files.fork();
            assert!(bad.flip(&name, bit));
            let found = Backup::open(shared(&bad)).err();
            assert!(matches!(found, Some(BackupError::Damaged { .. })), "bit {bit} of {name}: {found:?}");
            save(&bad, &kept).unwrap();
            assert!(values(&Backup::open(shared(&bad)).unwrap()) == kept.values);
        }
        let missing = files.fork();
        missing.remove(&name).unwrap();
        assert!(Backup::open(shared(&missing)).is_err(), "{name}");
    }
}

#[test]
fn a_folder_of_something_else_is_left_alone() {
    let files = FakeFiles::new();
    files.create("letters.txt").unwrap();
    files.sync_dir().unwrap();
    let refused = save(&files, &Kept::new(10, 1)).unwrap_err();
    assert!(refused.to_string().contains("letters.txt"), "{refused}");

    let files = FakeFiles::new();
    save(&files, &Kept::new(10, 1)).unwrap();
    let refused = BackupFolder::open(shared(&files)).unwrap().belongs_to(8).unwrap_err();
    assert!(matches!(refused, BackupError::Foreign { .. }), "{refused}");
}

#[test]
fn a_disk_that_fails_or_is_full_leaves_the_backup_before() {
    use storage::files::{Damage, Operation};
    let (old, new) = (Kept::new(2_500, 1), Kept::new(2_500, 2));
    let before = FakeFiles::new();
    save(&before, &old).unwrap();
    for operation in [Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        for damage in [Damage::Device, Damage::Full] {
            let files = before.fork();
            files.inject(operation, 1, damage);
            assert!(save(&files, &new).is_err(), "{operation:?} {damage:?}");
            files.heal();
            assert!(values(&Backup::open(shared(&files)).unwrap()) == old.values);
        }
    }
    // A disk that says yes and does nothing is found out before the backup counts.
    let files = before.fork();
    files.inject(Operation::Write, 1, Damage::Phantom);
    assert!(matches!(save(&files, &new), Err(BackupError::Damaged { .. })));
}

/// Frozen: what the first release wrote is read for ever.
#[test]
fn the_backup_of_format_1_reads_back() {
    let kept = Kept { position: 42, values: (0..5).map(|at| (vec![b'j', at], vec![at; 9])).collect() };
    let place = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/backup-1");
    if std::env::var_os("WRITE_FIXTURES").is_some() && !place.exists() {
        let mut folder = BackupFolder::open(Arc::new(RealFiles::open(&place).unwrap())).unwrap();
        let put = &mut |_, chunk: Chunk| folder.put(&chunk.bytes, chunk.values);
        let manifest = cut::<BackupError>(&kept, 7, Timestamp(1_700_000_000_000), put).unwrap();
        folder.finish(&manifest).unwrap();
        std::fs::remove_file(place.join("lock")).unwrap();
    }
    let backup = Backup::open(Arc::new(ReadOnlyFiles::open(&place).unwrap())).unwrap();
    let Manifest { directory, position, taken, .. } = *backup.manifest();
    assert_eq!((directory, position, taken), (7, 42, Timestamp(1_700_000_000_000)));
    assert_eq!(values(&backup), kept.values);
}
