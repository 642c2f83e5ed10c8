//! Every log we have, put through the published suite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use storage::{
    AtRest, Key, Keyring,
    at_rest::EncodedLog,
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

fn encoded() -> AtRest {
    let keys = Keyring::parse(&Key::generate().unwrap()).unwrap();
    AtRest { keys, compress_log_from: 1, ..AtRest::default() }
}

#[test]
fn the_encoded_memory_log_conforms() {
    conformance::run(&mut || {
        let (store, at_rest) = (MemoryStore::new(), encoded());
        Box::new(move || Ok(Box::new(EncodedLog::new(store.open(), at_rest.clone(), 7))))
    });
}

#[test]
fn the_encoded_segment_log_conforms_on_a_fake_disk() {
    conformance::run(&mut || {
        let (files, at_rest) = (FakeFiles::new(), encoded());
        Box::new(move || {
            let log = SegmentLog::open(Arc::new(files.clone()), small())?;
            Ok(Box::new(EncodedLog::new(log, at_rest.clone(), 7)))
        })
    });
}

#[test]
fn the_compressed_segment_log_conforms_on_a_fake_disk() {
    conformance::run(&mut || {
        let (files, at_rest) = (FakeFiles::new(), AtRest { keys: Keyring::default(), ..encoded() });
        Box::new(move || {
            let log = SegmentLog::open(Arc::new(files.clone()), small())?;
            Ok(Box::new(EncodedLog::new(log, at_rest.clone(), 7)))
        })
    });
}
