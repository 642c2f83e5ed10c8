//! Every log we have, put through the published suite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use storage::{
    files::{FakeFiles, RealFiles},
    log::{
        conformance,
        memory::MemoryStore,
        segment::{Options, SegmentLog},
    },
};

fn small() -> Options {
    Options { directory: 7, segment_bytes: 16 << 10, zero_ahead: 4 << 10, ..Options::DEFAULT }
}

#[test]
fn the_memory_log_conforms() {
    conformance::run(&mut || {
        let store = MemoryStore::new();
        Box::new(move || Ok(Box::new(store.open())))
    });
}

#[test]
fn the_segment_log_conforms_on_a_fake_disk() {
    conformance::run(&mut || {
        let files = FakeFiles::new();
        Box::new(move || Ok(Box::new(SegmentLog::open(Arc::new(files.clone()), small())?)))
    });
}

#[test]
fn the_segment_log_conforms_on_the_real_disk() {
    conformance::run(&mut || {
        let place = tempfile::tempdir().unwrap();
        Box::new(move || {
            let files = RealFiles::open(place.path()).unwrap();
            Ok(Box::new(SegmentLog::open(Arc::new(files), small())?))
        })
    });
}
