//! Where a pond keeps what it must not lose.
#![doc = include_str!("../README.md")]

pub mod checkpoints;
mod directory;
pub mod files;
mod identity;
pub mod log;

pub use checkpoints::{Change, CheckpointError, CheckpointReader, Checkpoints, Mark};
pub use directory::{Options, open_local};
pub use log::{Entry, Log, LogError, Record};
