//! What every [`Log`] must do, as functions any implementation can be put through.
//!
//! An implementation hands over a maker of *places*; a place opens and reopens one log:
//!
//! ```
//! use storage::log::{conformance, memory::MemoryStore};
//! conformance::run(&mut || {
//!     let store = MemoryStore::new();
//!     Box::new(move || Ok(Box::new(store.open())))
//! });
//! ```
//!
//! The functions panic with a sentence when a rule is broken: they are tests.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "a suite of tests fails by panicking")]

use super::{Entry, Log, LogError, PAYLOAD_MAX, Record};
use kit::{Durability, random::Random};

/// Opens one log, again and again. Dropping the log before opening it again is a crash of its process.
pub type Place<'a> = Box<dyn FnMut() -> Result<Box<dyn Log>, LogError> + 'a>;

/// Makes an empty place each time.
pub type Maker<'a, 'b> = &'a mut dyn FnMut() -> Place<'b>;

/// Runs every check of the suite.
pub fn run(make: Maker<'_, '_>) {
    a_new_log_is_empty_and_starts_at_one(make());
    what_was_flushed_is_read_in_order(make());
    entries_of_many_shards_share_one_append(make());
    an_append_of_nothing_changes_nothing(make());
    a_closed_log_opens_with_everything(make());
    a_dropped_log_opens_with_everything_flushed(make());
    every_open_takes_a_higher_epoch(make());
    a_second_owner_fences_the_first_or_is_locked_out(make());
    trimming_keeps_what_it_must(make());
    what_is_too_large_is_refused_and_changes_nothing(make());
    a_visitor_can_stop(make());
    a_closed_log_refuses_everything(make());
    a_level_above_the_strongest_is_refused(make());
    random_use_agrees_with_a_list(make());
}

/// All records from `from` on.
pub fn records(log: &dyn Log, from: u64) -> Result<Vec<Record>, LogError> {
    let mut records = Vec::new();
    log.read(from, &mut |record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

fn entry(payload: &[u8]) -> Entry<'_> {
    Entry { shard: 0, payload }
}

fn flush(log: &mut dyn Log) {
    log.flush(log.strongest()).unwrap();
}

fn a_new_log_is_empty_and_starts_at_one(mut place: Place<'_>) {
    let mut log = place().unwrap();
    assert_eq!((log.first(), log.next()), (1, 1));
    assert!(log.epoch() >= 1);
    assert_eq!(records(&*log, 1).unwrap(), []);
    assert!(log.reserve());
    flush(&mut *log);
}

fn what_was_flushed_is_read_in_order(mut place: Place<'_>) {
    let mut log = place().unwrap();
    assert_eq!(log.append(&[entry(b"a"), entry(b"b")]).unwrap(), 1);
    assert_eq!(log.append(&[entry(b"")]).unwrap(), 3);
    assert_eq!(log.next(), 4);
    flush(&mut *log);
    let all = records(&*log, 1).unwrap();
    assert_eq!(all.iter().map(|r| r.index).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(all.iter().map(|r| &r.payload[..]).collect::<Vec<_>>(), [&b"a"[..], b"b", b""]);
    assert!(all.iter().all(|r| r.epoch == log.epoch()));
    assert_eq!(records(&*log, 3).unwrap(), all[2..]);
    assert_eq!(records(&*log, 4).unwrap(), []);
    assert_eq!(records(&*log, 400).unwrap(), []);
}

fn entries_of_many_shards_share_one_append(mut place: Place<'_>) {
    let mut log = place().unwrap();
    let entries: Vec<_> = (0..300).map(|shard| Entry { shard: shard * 200, payload: b"x" }).collect();
    assert_eq!(log.append(&entries).unwrap(), 1);
    flush(&mut *log);
    let shards: Vec<u16> = records(&*log, 1).unwrap().iter().map(|r| r.shard).collect();
    assert_eq!(shards, entries.iter().map(|e| e.shard).collect::<Vec<_>>());
}

fn an_append_of_nothing_changes_nothing(mut place: Place<'_>) {
    let mut log = place().unwrap();
    assert_eq!(log.append(&[]).unwrap(), 1);
    assert_eq!(log.next(), 1);
    flush(&mut *log);
    flush(&mut *log);
    assert_eq!(records(&*log, 1).unwrap(), []);
}

fn a_closed_log_opens_with_everything(mut place: Place<'_>) {
    let mut log = place().unwrap();
    log.append(&[entry(b"one"), entry(b"two")]).unwrap();
    log.close().unwrap();
    drop(log);
    let mut log = place().unwrap();
    assert_eq!(log.next(), 3);
    assert_eq!(log.append(&[entry(b"three")]).unwrap(), 3);
    log.close().unwrap();
    drop(log);
    let log = place().unwrap();
    let payloads: Vec<_> = records(&*log, 1).unwrap().into_iter().map(|r| r.payload).collect();
    assert_eq!(payloads, [&b"one"[..], b"two", b"three"]);
}

fn a_dropped_log_opens_with_everything_flushed(mut place: Place<'_>) {
    let mut log = place().unwrap();
    log.append(&[entry(b"kept")]).unwrap();
    flush(&mut *log);
    log.append(&[entry(b"perhaps")]).unwrap();
    drop(log);
    let log = place().unwrap();
    let all = records(&*log, 1).unwrap();
    assert_eq!(all[0].payload, b"kept");
    assert!(all.len() == 1 || all[1].payload == b"perhaps" && all.len() == 2);
    assert_eq!(log.next(), 1 + all.len() as u64);
}

fn every_open_takes_a_higher_epoch(mut place: Place<'_>) {
    let mut last = 0;
    for round in 0..4 {
        let mut log = place().unwrap();
        assert!(log.epoch() > last, "epoch {} after {last}", log.epoch());
        last = log.epoch();
        // An owner that wrote nothing counts as well.
        if round % 2 == 0 {
            log.append(&[entry(b"x")]).unwrap();
            flush(&mut *log);
        }
    }
    let log = place().unwrap();
    let epochs: Vec<u64> = records(&*log, 1).unwrap().iter().map(|r| r.epoch).collect();
    assert!(epochs.is_sorted() && epochs[0] < epochs[1], "{epochs:?}");
}

fn a_second_owner_fences_the_first_or_is_locked_out(mut place: Place<'_>) {
    let mut first = place().unwrap();
    first.append(&[entry(b"mine")]).unwrap();
    flush(&mut *first);
    match place() {
        Err(LogError::Locked { .. }) => {
            first.append(&[entry(b"still mine")]).unwrap();
            flush(&mut *first);
        }
        Err(other) => panic!("a second open must be locked out or win, not fail with: {other}"),
        Ok(mut second) => {
            let late = first.append(&[entry(b"late")]).and_then(|_| first.flush(first.strongest()));
            assert!(matches!(late, Err(LogError::Fenced { .. })), "{late:?}");
            second.append(&[entry(b"new")]).unwrap();
            flush(&mut *second);
            let payloads: Vec<_> = records(&*second, 1).unwrap().into_iter().map(|r| r.payload).collect();
            assert_eq!(payloads, [&b"mine"[..], b"new"]);
        }
    }
}

fn trimming_keeps_what_it_must(mut place: Place<'_>) {
    let mut log = place().unwrap();
    for index in 1..=200u64 {
        log.append(&[entry(&[index as u8; 300])]).unwrap();
        flush(&mut *log);
    }
    for keep in 1..=150 {
        log.trim(keep).unwrap();
        assert!(log.first() <= keep, "record {keep} was to be kept, the log starts at {}", log.first());
    }
    let kept = records(&*log, 150).unwrap();
    assert_eq!(kept.len(), 51);
    assert!(kept.iter().all(|r| r.payload == [r.index as u8; 300]));
    assert_eq!(records(&*log, log.first()).unwrap().len() as u64, 201 - log.first());
    if log.first() > 1 {
        let early = records(&*log, log.first() - 1);
        assert!(matches!(early, Err(LogError::Trimmed { .. })), "{early:?}");
    }
    // Trimming back, and again, is nothing.
    let first = log.first();
    log.trim(1).unwrap();
    log.trim(150).unwrap();
    assert_eq!(log.first(), first);
    log.trim(1_000).unwrap();
    assert!(log.first() <= log.next());
    assert_eq!(log.append(&[entry(b"after")]).unwrap(), 201);
    log.close().unwrap();
    drop(log);
    let log = place().unwrap();
    assert_eq!(log.next(), 202);
    assert_eq!(records(&*log, 201).unwrap()[0].payload, b"after");
}

fn what_is_too_large_is_refused_and_changes_nothing(mut place: Place<'_>) {
    let mut log = place().unwrap();
    let large = vec![0; PAYLOAD_MAX + 1];
    let refused = log.append(&[entry(b"small"), entry(&large)]);
    assert!(matches!(refused, Err(LogError::TooLarge { .. })), "{refused:?}");
    assert_eq!(log.append(&[entry(b"fine")]).unwrap(), 1);
    flush(&mut *log);
    assert_eq!(records(&*log, 1).unwrap().len(), 1);
}

fn a_visitor_can_stop(mut place: Place<'_>) {
    let mut log = place().unwrap();
    log.append(&[entry(b"a"), entry(b"b"), entry(b"c")]).unwrap();
    flush(&mut *log);
    let mut seen = 0;
    let outcome = log.read(1, &mut |_| {
        seen += 1;
        if seen == 2 { Err(LogError::Stopped) } else { Ok(()) }
    });
    assert!(matches!(outcome, Err(LogError::Stopped)));
    assert_eq!(seen, 2);
    log.append(&[entry(b"d")]).unwrap();
}

fn a_closed_log_refuses_everything(mut place: Place<'_>) {
    let mut log = place().unwrap();
    log.close().unwrap();
    assert!(matches!(log.append(&[entry(b"a")]), Err(LogError::Closed)));
    assert!(matches!(log.append_reserved(&[entry(b"a")]), Err(LogError::Closed)));
    assert!(matches!(log.flush(log.strongest()), Err(LogError::Closed)));
    assert!(matches!(log.trim(1), Err(LogError::Closed)));
    assert!(matches!(log.close(), Err(LogError::Closed)));
    assert!(matches!(records(&*log, 1), Err(LogError::Closed)));
}

fn a_level_above_the_strongest_is_refused(mut place: Place<'_>) {
    let mut log = place().unwrap();
    for level in Durability::ALL {
        let outcome = log.flush(level);
        assert_eq!(outcome.is_ok(), level <= log.strongest(), "{level}: {outcome:?}");
    }
    log.append(&[entry(b"goes on")]).unwrap();
}

fn random_use_agrees_with_a_list(mut place: Place<'_>) {
    let mut random = Random::new(17);
    let mut list: Vec<(u16, Vec<u8>)> = Vec::new();
    let mut log = place().unwrap();
    for _ in 0..400 {
        match random.below(10) {
            0 => {
                log.close().unwrap();
                drop(log);
                log = place().unwrap();
            }
            1 => {
                flush(&mut *log);
                let first = log.first();
                let from = first + random.below(log.next() - first + 1);
                for (at, record) in (from..).zip(records(&*log, from).unwrap()) {
                    let (shard, payload) = &list[at as usize - 1];
                    assert_eq!((record.index, record.shard, &record.payload), (at, *shard, payload));
                }
            }
            2 => log.trim(random.below(log.next())).unwrap(),
            3 => log.flush(Durability::Memory).unwrap(),
            _ => {
                let batch: Vec<(u16, Vec<u8>)> = (0..random.below(5))
                    .map(|_| {
                        let length = random.below(400) as usize;
                        (random.below(9) as u16, (0..length).map(|_| random.next_u64() as u8).collect())
                    })
                    .collect();
                let entries: Vec<_> =
                    batch.iter().map(|(shard, payload)| Entry { shard: *shard, payload }).collect();
                assert_eq!(log.append(&entries).unwrap(), list.len() as u64 + 1);
                list.extend(batch);
            }
        }
        assert_eq!(log.next(), list.len() as u64 + 1);
    }
}
