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
mod salvage;

pub use at_rest::EncodedLog;
pub use at_rest::{AtRest, Key, KeyError, KeyId, Keyring};
pub use checkpoints::{Change, CheckpointError, CheckpointReader, Checkpoints, Frozen, Mark};
pub use directory::{
    LocalCheckpoints, LocalLog, Options, Rewritten, Unfinished, begin_local, open_local, restore_local,
    rewrite_local,
};
pub use inspect::{Damage, Inspection, Part, ReadOnly, inspect_local, open_read_only};
pub use log::segment::Stretch;
pub use log::{Entry, Log, LogError, Record};
pub use salvage::{Saved, Values, Wreck, salvage_local};
