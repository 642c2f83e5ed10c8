//! Where a pond keeps what it must not lose.
#![doc = include_str!("../README.md")]

pub mod at_rest;
pub mod backup;
pub mod checkpoints;
mod directory;
pub mod files;
mod identity;
mod inspect;
pub mod log;

pub use at_rest::{AtRest, Key, KeyError, KeyId, Keyring};
pub use checkpoints::{Change, CheckpointError, CheckpointReader, Checkpoints, Frozen, Mark};
pub use directory::{
    LocalCheckpoints, LocalLog, Options, Rewritten, Unfinished, open_local, restore_local, rewrite_local,
};
pub use inspect::{Damage, Inspection, Part, ReadOnly, inspect_local, open_read_only};
pub use log::{Entry, Log, LogError, Record};
