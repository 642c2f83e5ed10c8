//! Every store of checkpoints we have, put through the published suite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage::checkpoints::{
    conformance,
    fjall::{FjallCheckpoints, Options},
    memory::MemoryCheckpoints,
};

#[test]
fn the_memory_checkpoints_conform() {
    conformance::run(&mut || {
        let kept = MemoryCheckpoints::new();
        Box::new(move || Ok(Box::new(kept.clone())))
    });
}

#[test]
fn the_fjall_checkpoints_conform() {
    conformance::run(&mut || {
        let place = tempfile::tempdir().unwrap();
        Box::new(move || Ok(Box::new(FjallCheckpoints::open(place.path(), Options::DEFAULT)?)))
    });
}
