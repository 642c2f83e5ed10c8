//! Every store of checkpoints we have, put through the published suite.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use storage::{
    AtRest, Checkpoints, Key, Keyring,
    at_rest::EncodedCheckpoints,
    checkpoints::{
        conformance,
        fjall::{FjallCheckpoints, Options},
        memory::MemoryCheckpoints,
    },
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

/// Encrypted and not, all keys hidden and none: every way to lay a checkpoint out.
fn encodings() -> [AtRest; 4] {
    let keys = Keyring::parse(&Key::generate().unwrap()).unwrap();
    let all_hidden = AtRest { keys, compress_from: 1, ..AtRest::default() };
    let none_hidden = AtRest { clear_kinds: b"abckog", ..all_hidden.clone() };
    let plain = AtRest { keys: Keyring::default(), ..AtRest::default() };
    [
        all_hidden,
        none_hidden,
        AtRest { compress_from: 1, ..plain.clone() },
        AtRest { compress_from: 0, ..plain },
    ]
}

#[test]
fn the_encoded_memory_checkpoints_conform() {
    for at_rest in encodings() {
        conformance::run(&mut || {
            let (kept, at_rest) = (MemoryCheckpoints::new(), at_rest.clone());
            Box::new(move || Ok(Box::new(EncodedCheckpoints::open(kept.clone(), at_rest.clone(), 7, &[])?)))
        });
    }
}

#[test]
fn the_encoded_fjall_checkpoints_conform() {
    let [at_rest, ..] = encodings();
    conformance::run(&mut || {
        let (place, at_rest) = (tempfile::tempdir().unwrap(), at_rest.clone());
        Box::new(move || {
            let kept = FjallCheckpoints::open(place.path(), Options::DEFAULT)?;
            Ok(Box::new(EncodedCheckpoints::open(kept, at_rest.clone(), 7, &[])?) as Box<dyn Checkpoints>)
        })
    });
}
