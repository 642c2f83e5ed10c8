//! The segment log on a disk that fails: what was acknowledged is there afterwards, what is damaged is never served.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kit::{Durability, random::Random};
use std::sync::Arc;
use storage::{
    files::{Damage, FakeFiles, Files, Operation},
    log::{
        Entry, Log, LogError, Record,
        conformance::records,
        segment::{Options, SegmentLog},
    },
};

const SMALL: Options = Options { directory: 7, segment_bytes: 4 << 10, reserve: true, zero_ahead: 0 };

fn open(files: &FakeFiles) -> Result<SegmentLog, LogError> {
    SegmentLog::open(Arc::new(files.clone()), SMALL)
}

/// The payload that record `index` always has, so that wrong bytes are seen without a second list.
fn payload(index: u64) -> Vec<u8> {
    let mut random = Random::new(index);
    let length = random.below(if index.is_multiple_of(16) { 2_000 } else { 200 }) as usize;
    (0..length).map(|_| random.next_u64() as u8).collect()
}

fn append(log: &mut dyn Log, count: u64) -> Result<(), LogError> {
    let payloads: Vec<Vec<u8>> = (log.next()..log.next() + count).map(payload).collect();
    let entries: Vec<Entry<'_>> = payloads.iter().map(|payload| Entry { shard: 0, payload }).collect();
    log.append(&entries).map(drop)
}

fn check_content(records: &[Record], first: u64) {
    for (index, record) in (first..).zip(records) {
        assert_eq!(record.index, index);
        assert_eq!(record.payload, payload(index), "record {index} has other bytes");
    }
}

/// Opens and checks: every record is what was written, and none of the first `acknowledged` is missing.
fn recover(files: &FakeFiles, acknowledged: u64) -> SegmentLog {
    let log = open(files).unwrap_or_else(|error| panic!("does not open: {error}"));
    let all = records(&log, log.first()).unwrap_or_else(|error| panic!("does not read: {error}"));
    check_content(&all, log.first());
    assert_eq!(log.first() + all.len() as u64, log.next());
    assert!(log.next() > acknowledged, "{acknowledged} were acknowledged, {} are there", log.next() - 1);
    log
}

/// Uses the log until something fails, and returns the highest index acknowledged at `disk`.
fn use_log(
    files: &FakeFiles,
    random: &mut Random,
    steps: u64,
    acknowledged: &mut u64,
) -> Result<(), LogError> {
    let mut log = open(files)?;
    for _ in 0..steps {
        match random.below(12) {
            0 => log.flush(Durability::Os)?,
            1 => {
                let keep = log.first().max(random.below(*acknowledged + 1));
                log.trim(keep)?;
                assert!(log.first() <= keep, "record {keep} was to be kept");
            }
            2..6 => {
                log.flush(Durability::Disk)?;
                *acknowledged = log.next() - 1;
            }
            _ => append(&mut log, random.below(6))?,
        }
    }
    if random.chance(1, 3) {
        log.close()?;
        *acknowledged = log.next() - 1;
    }
    Ok(())
}

/// F5, F7, F8: unsynced writes and names survive in any subset, also those of recoveries cut short, three deep.
#[test]
fn nothing_acknowledged_is_lost_in_thousands_of_power_cuts() {
    for seed in 0..3_000 {
        let mut random = Random::new(seed);
        let files = FakeFiles::new();
        let mut acknowledged = 0;
        for _life in 0..4 {
            if random.chance(1, 2) {
                files.cut_power_after(1 + random.below(60));
            }
            let steps = random.below(40);
            // A cut makes this fail; so does nothing else.
            let _ = use_log(&files, &mut random, steps, &mut acknowledged);
            files.crash(&mut random);
            for _depth in 0..random.below(4) {
                files.cut_power_after(1 + random.below(25));
                if let Ok(log) = open(&files) {
                    drop(log);
                }
                // A dead process leaves its unsynced work in the cache, for the next one to see and build upon.
                if random.chance(1, 2) { files.kill() } else { files.crash(&mut random) }
            }
            if random.chance(1, 2) {
                files.crash(&mut random);
            } else {
                files.kill();
            }
            drop(recover(&files, acknowledged));
        }
    }
}

/// F7: an opening killed at every step, the next one cut at every step by the power, in several outcomes each.
#[test]
fn a_recovery_killed_at_any_step_and_then_cut_at_any_step_loses_nothing() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    append(&mut log, 9).unwrap();
    log.flush(Durability::Disk).unwrap();
    append(&mut log, 2).unwrap();
    log.flush(Durability::Os).unwrap();
    drop(log);
    files.kill();
    let before = files.total();
    let steps = {
        let image = files.fork();
        drop(open(&image).unwrap());
        image.total() - before
    };
    assert!((8..40).contains(&steps), "{steps}");
    for killed_at in 1..=steps + 1 {
        for cut_at in 1..=steps + 3 {
            for outcome in 0..6 {
                let image = files.fork();
                image.cut_power_after(killed_at);
                drop(open(&image));
                image.kill();
                image.cut_power_after(cut_at);
                drop(open(&image));
                image.crash(&mut Random::new(outcome * 1_000 + killed_at * 50 + cut_at));
                drop(recover(&image, 9));
            }
        }
    }
}

/// F5: every subset of the sectors that one unfinished flush dirtied.
#[test]
fn every_outcome_of_a_small_crash_keeps_what_was_acknowledged() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    append(&mut log, 4).unwrap();
    log.flush(Durability::Disk).unwrap();
    append(&mut log, 20).unwrap();
    log.flush(Durability::Os).unwrap();
    drop(log);
    let mut choices: Vec<(usize, usize)> = Vec::new();
    let mut images = 0;
    loop {
        let image = files.fork();
        let mut at = 0;
        image.crash_with(512, false, &mut |versions| {
            if at == choices.len() {
                choices.push((0, versions));
            }
            at += 1;
            choices[at - 1].0
        });
        drop(recover(&image, 4));
        images += 1;
        // The next combination, as an odometer counts.
        while choices.last().is_some_and(|(choice, versions)| choice + 1 == *versions) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((choice, _)) => *choice += 1,
            None => break,
        }
    }
    assert!(images >= 64, "{images}");
}

/// F6: the file ends at any byte of its last records.
#[test]
fn a_log_cut_at_every_byte_of_an_unfinished_flush_keeps_the_rest() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    append(&mut log, 5).unwrap();
    log.flush(Durability::Disk).unwrap();
    append(&mut log, 3).unwrap();
    log.flush(Durability::Os).unwrap();
    drop(log);
    let name = last_segment(&files);
    let used = files.bytes(&name).unwrap().iter().rposition(|byte| *byte != 0).unwrap() + 9;
    let mut kept = std::collections::BTreeSet::new();
    for cut in (0..used).rev() {
        let image = files.fork();
        image.kill();
        assert!(image.alter(&name, |bytes| {
            bytes[cut..].fill(0);
            true
        }));
        match open(&image) {
            Ok(log) => {
                kept.insert(log.next() - 1);
                check_content(&records(&log, 1).unwrap(), 1);
            }
            Err(LogError::Corrupt { .. } | LogError::Foreign { .. }) => {}
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
    // Without the mark, a cut inside of the flush before cannot be told from a torn one; with it, it can. Here records 6
    // to 8 took the mark's place, and they prove that 5 were flushed until they are all gone.
    assert!(kept.is_superset(&[5, 6, 7, 8].into()), "{kept:?}");
}

fn last_segment(files: &FakeFiles) -> String {
    files.list().unwrap().into_iter().rfind(|name| name.starts_with("segment-")).unwrap()
}

/// F16: after a clean close, any damage within the records is refused with its place; any other does no harm.
#[test]
fn every_flipped_byte_of_a_closed_log_is_refused_or_harmless() {
    let files = FakeFiles::new();
    let options = Options { segment_bytes: 64 << 10, ..SMALL };
    let open = |files: &FakeFiles| SegmentLog::open(Arc::new(files.clone()), options.clone());
    let mut log = open(&files).unwrap();
    while log.next() < 250 {
        append(&mut log, 7).unwrap();
        log.flush(Durability::Disk).unwrap();
    }
    log.close().unwrap();
    let count = log.next() - 1;
    drop(log);
    let name = last_segment(&files);
    let image = files.bytes(&name).unwrap();
    assert_eq!(image.len(), 64 << 10);
    let used = image.iter().rposition(|byte| *byte != 0).unwrap();
    assert!(used > 32 << 10, "the log fills most of its file: {used}");
    let mut random = Random::new(1);
    let mut refused = 0;
    for byte in (0..image.len() as u64).step_by(if cfg!(debug_assertions) { 61 } else { 5 }) {
        let image = files.fork();
        assert!(image.flip(&name, byte * 8 + random.below(8)));
        match open(&image) {
            Err(LogError::Corrupt { offset, index, .. }) => {
                refused += 1;
                assert!(offset <= byte, "damage at {byte} reported at {offset}");
                assert!(index <= count);
            }
            Err(LogError::Foreign { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
            Ok(log) => {
                let all = records(&log, 1).unwrap();
                check_content(&all, 1);
                assert_eq!(all.len() as u64, count, "flip at byte {byte} lost records");
                assert!(byte + 64 > used as u64, "flip at byte {byte} of {used} was not seen");
            }
        }
    }
    assert!(refused > 100);
}

/// F16: damage in the files before the last one is found when it is read.
#[test]
fn damage_in_sealed_files_is_refused_when_read() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    for _ in 0..12 {
        append(&mut log, 8).unwrap();
        log.flush(Durability::Disk).unwrap();
    }
    log.close().unwrap();
    let name = files.list().unwrap().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    let first_of_next = {
        let log = recover(&files.fork(), 0);
        log.next()
    };
    let mut found = 0;
    for byte in 0..4_096u64 {
        let image = files.fork();
        assert!(image.flip(&name, byte * 8 + byte % 8));
        let outcome = open(&image).and_then(|log| records(&log, 1));
        match outcome {
            Err(LogError::Corrupt { .. } | LogError::Foreign { .. }) => found += 1,
            Err(other) => panic!("{other}"),
            Ok(all) => {
                check_content(&all, 1);
                assert_eq!(all.len() as u64, first_of_next - 1);
            }
        }
    }
    assert!(found > 2_000, "{found}");
}

/// F9, I7: after a failed flush or write nothing is acknowledged any more, and nothing acknowledged before is lost, though
/// the cache shows bytes that the disk never got.
#[test]
fn a_failed_write_or_flush_poisons_the_log_for_good() {
    for operation in [Operation::Write, Operation::Sync, Operation::SyncDir, Operation::Rename] {
        for nth in 1..60 {
            let files = FakeFiles::new();
            let mut acknowledged = 0;
            let mut log = open(&files).unwrap();
            files.inject(operation, nth, Damage::Device);
            let mut failed = false;
            for step in 0..40 {
                let outcome = append(&mut log, 3)
                    .and_then(|()| log.flush(Durability::Disk))
                    .and_then(|()| log.trim(step));
                match outcome {
                    Ok(()) => {
                        assert!(!failed, "an answer after a failure");
                        acknowledged = log.next() - 1;
                    }
                    Err(LogError::Poisoned { .. }) => assert!(failed),
                    Err(LogError::Io { .. }) => {
                        assert!(!failed, "the second failure must be `poisoned`");
                        failed = true;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            drop(log);
            files.kill();
            files.heal();
            drop(recover(&files, acknowledged));
        }
    }
}

/// F10: pages that a flush failed to write are in the cache and not on the disk; opening must not believe them.
#[test]
fn opening_reads_the_disk_and_not_the_cache() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    append(&mut log, 3).unwrap();
    log.flush(Durability::Disk).unwrap();
    files.inject(Operation::Sync, 1, Damage::Device);
    append(&mut log, 3).unwrap();
    assert!(matches!(log.flush(Durability::Disk), Err(LogError::Io { .. })));
    drop(log);
    files.kill();
    assert_eq!(open(&files).unwrap().next(), 4);
}

/// F14: short and interrupted calls are finished.
#[test]
fn short_and_interrupted_calls_lose_nothing() {
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let files = FakeFiles::new();
        files.inject_every(Operation::Write, 2 + seed % 3, Damage::Short);
        files.inject_every(Operation::Write, 5, Damage::Interrupted);
        files.inject_every(Operation::Read, 2 + seed % 4, Damage::Short);
        files.inject_every(Operation::Sync, 3, Damage::Interrupted);
        let mut acknowledged = 0;
        for _ in 0..3 {
            use_log(&files, &mut random, 30, &mut acknowledged).unwrap();
            files.crash(&mut random);
            drop(recover(&files, acknowledged));
        }
    }
}

/// F15, F18: a write that never happened or landed elsewhere is found once a later one says that it was flushed.
#[test]
fn phantom_and_misdirected_writes_are_found_and_never_served() {
    let mut refused = 0;
    for seed in 0..400u64 {
        let mut random = Random::new(seed);
        let files = FakeFiles::new();
        let mut log = open(&files).unwrap();
        let damage = match random.below(2) {
            0 => Damage::Phantom,
            _ => Damage::Misdirected(if random.chance(1, 2) { 512 } else { -512 }),
        };
        files.inject(Operation::Write, 1 + random.below(30), damage);
        let mut outcome = Ok(());
        for _ in 0..20 {
            outcome = append(&mut log, 1 + random.below(4)).and_then(|()| log.flush(Durability::Disk));
            if outcome.is_err() {
                break;
            }
        }
        let outcome = outcome.and_then(|()| log.close());
        let acknowledged = log.next() - 1;
        drop(log);
        files.kill();
        match outcome.and_then(|()| open(&files)).and_then(|log| records(&log, log.first())) {
            Err(LogError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("seed {seed}: {other}"),
            // The lost write was a mark or was written over in time.
            Ok(all) => {
                check_content(&all, 1);
                assert_eq!(all.len() as u64, acknowledged, "seed {seed}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// F18: an older copy of a sector, or a sector of another life of the file, is never served.
#[test]
fn stale_sectors_are_found() {
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let files = FakeFiles::new();
        let mut acknowledged = 0;
        let mut log = open(&files).unwrap();
        let mut copies: Vec<(String, Vec<u8>)> = Vec::new();
        for step in 0..40 {
            append(&mut log, 1 + random.below(4)).unwrap();
            log.flush(Durability::Disk).unwrap();
            acknowledged = log.next() - 1;
            log.trim(acknowledged.saturating_sub(30)).unwrap();
            if step % 4 == 0 {
                copies
                    .extend(files.list().unwrap().into_iter().map(|n| (n.clone(), files.bytes(&n).unwrap())));
            }
        }
        let first = log.first();
        log.close().unwrap();
        drop(log);
        let name = last_segment(&files);
        let (_, old) = &copies[random.below(copies.len() as u64) as usize];
        if old.len() < 4_096 {
            continue;
        }
        let from = 512 * random.below(8) as usize;
        let to = if random.chance(1, 2) { from } else { 512 * random.below(8) as usize };
        assert!(files.alter(&name, |bytes| {
            bytes[to..to + 512].copy_from_slice(&old[from..from + 512]);
            true
        }));
        match open(&files).and_then(|log| records(&log, log.first())) {
            Err(LogError::Corrupt { .. } | LogError::Foreign { .. }) => {}
            Err(other) => panic!("seed {seed}: {other}"),
            Ok(all) => {
                check_content(&all, first);
                assert_eq!(all.len() as u64, acknowledged + 1 - first, "seed {seed}");
            }
        }
    }
}

/// F12: a full disk refuses new work, lets work in hand end, and heals without a restart.
#[test]
fn a_full_disk_refuses_ordinary_appends_first_and_heals() {
    let files = FakeFiles::new();
    files.set_capacity(Some(30 << 10));
    let mut log = open(&files).unwrap();
    let refused = loop {
        match append(&mut log, 3).and_then(|()| log.flush(Durability::Disk)) {
            Ok(()) => assert!(log.next() < 1_000),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, LogError::Full { .. }), "{refused}");
    assert!(log.reserve());
    let before = log.next();
    let outcome = payload(before);
    let mut reserved = 0;
    while log.append_reserved(&[Entry { shard: 0, payload: &payload(log.next()) }]).is_ok() {
        log.flush(Durability::Disk).unwrap();
        reserved += 1;
        assert!(reserved < 1_000);
    }
    assert!(reserved > 5, "the reserve takes outcomes: {reserved}, {} bytes each", outcome.len());
    assert!(!log.reserve());
    assert!(matches!(append(&mut log, 1), Err(LogError::Full { .. })));
    let acknowledged = log.next() - 1;
    check_content(&records(&log, 1).unwrap(), 1);
    files.set_capacity(None);
    append(&mut log, 3).unwrap();
    assert!(log.reserve());
    log.flush(Durability::Disk).unwrap();
    log.close().unwrap();
    drop(log);
    drop(recover(&files, acknowledged + 3));
}

/// F19: what is not a log, or only part of one, is refused by name.
#[test]
fn damaged_missing_and_foreign_files_are_refused_by_name() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    for _ in 0..12 {
        append(&mut log, 8).unwrap();
        log.flush(Durability::Disk).unwrap();
    }
    log.close().unwrap();
    let count = log.next() - 1;
    drop(log);
    let names: Vec<String> = files.list().unwrap();
    assert!(names.iter().filter(|name| name.starts_with("segment-")).count() > 3);
    for name in names.iter().filter(|name| name.starts_with("segment-") || *name == "identity") {
        let length = files.bytes(name).unwrap().len();
        for variant in 0..8 {
            let image = files.fork();
            match variant {
                0 => image.remove(name).unwrap(),
                1..7 => {
                    assert!(image.alter(name, |bytes| {
                        match variant {
                            1 => bytes.clear(),
                            2 => bytes.truncate(length / 2),
                            3 => bytes.truncate(10),
                            4 => bytes.fill(0),
                            5 => bytes.fill(b'x'),
                            _ => bytes.reverse(),
                        }
                        true
                    }));
                }
                _ => {
                    let other = names.iter().find(|other| *other != name && other.starts_with("segment-"));
                    let bytes = files.bytes(other.unwrap()).unwrap();
                    assert!(image.alter(name, |old| {
                        *old = bytes;
                        true
                    }));
                }
            }
            let outcome = open(&image).and_then(|log| Ok((log.first(), records(&log, log.first())?)));
            match outcome {
                Err(LogError::Corrupt { file, .. } | LogError::Foreign { file, .. }) => {
                    assert!(file.contains(".log") || file.contains("identity"), "{file}");
                }
                Err(other) => panic!("{name}, variant {variant}: {other}"),
                Ok((first, all)) => {
                    // The oldest file may be missing by trimming: then the log says that it starts later. Damage behind
                    // the last record of a file is none.
                    check_content(&all, first);
                    assert_eq!(first + all.len() as u64, count + 1, "{name}, variant {variant}");
                    assert!(variant == 0 && first > 1, "{name}, variant {variant}");
                }
            }
        }
    }
    let other = Options { directory: 8, ..SMALL };
    let refused = SegmentLog::open(Arc::new(files.fork()), other).err();
    assert!(matches!(refused, Some(LogError::Foreign { .. })), "{refused:?}");
}

#[test]
fn an_idle_log_writes_nothing() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    append(&mut log, 3).unwrap();
    log.flush(Durability::Disk).unwrap();
    let total = files.total();
    for level in [Durability::Memory, Durability::Os, Durability::Disk] {
        log.flush(level).unwrap();
    }
    log.trim(2).unwrap();
    assert_eq!(files.total(), total);
}

#[test]
fn opening_again_and_again_does_not_grow_the_directory() {
    let files = FakeFiles::new();
    for acknowledged in 0..50 {
        let mut log = recover(&files, acknowledged);
        append(&mut log, 1).unwrap();
        log.flush(Durability::Disk).unwrap();
    }
    let bytes: usize = files.list().unwrap().iter().map(|name| files.bytes(name).unwrap().len()).sum();
    assert!(bytes < 40 << 10, "{bytes}");
}

#[test]
fn a_file_that_holds_no_record_yet_is_replaced_when_an_append_does_not_fit() {
    let files = FakeFiles::new();
    let mut log = open(&files).unwrap();
    append(&mut log, 40).unwrap();
    log.flush(Durability::Disk).unwrap();
    let large = vec![7; 10_000];
    // Each opening starts a file, and each time its first append is too large for it.
    for _ in 0..3 {
        log.close().unwrap();
        log = open(&files).unwrap();
        append(&mut log, 1).unwrap();
        log.append(&[Entry { shard: 0, payload: &large }]).unwrap();
        log.flush(Durability::Disk).unwrap();
        log.close().unwrap();
        log = open(&files).unwrap();
        log.append(&[Entry { shard: 0, payload: &large }]).unwrap();
        log.flush(Durability::Disk).unwrap();
    }
    drop(log);
    let mut log = open(&files).unwrap();
    let next = log.next();
    assert_eq!(records(&log, 1).unwrap().len() as u64 + 1, next);
    log.close().unwrap();
    assert_eq!(open(&files).unwrap().next(), next);
}
