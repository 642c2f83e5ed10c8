//! Frozen logs of every format version: they must open, with the same records, for ever.
//!
//! `fixtures/log-1` was written by the first release of format 1: two files, six records of 100 times their index, by owners
//! with epochs 1 and 2. Never write it again; a new format gets a new folder.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, sync::Arc};
use storage::{
    files::RealFiles,
    log::{
        Log,
        conformance::records,
        segment::{Options, SegmentLog},
    },
};

const OPTIONS: Options =
    Options { directory: 0x00c0_ffee, segment_bytes: 4_096, reserve: false, zero_ahead: 0 };

#[test]
fn the_log_of_format_1_opens() {
    let place = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/log-1")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), place.path().join(entry.file_name())).unwrap();
    }
    let files = Arc::new(RealFiles::open(place.path()).unwrap());
    let log = SegmentLog::open(files, OPTIONS).unwrap();
    assert_eq!((log.first(), log.next(), log.epoch()), (1, 9, 3));
    for record in records(&log, 1).unwrap() {
        assert_eq!(record.payload, vec![record.index as u8; 100 * record.index as usize]);
        assert_eq!(record.shard, record.index as u16 + 1_000);
        assert_eq!(record.epoch, if record.index <= 7 { 1 } else { 2 });
    }
}
