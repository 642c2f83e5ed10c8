//! The seam to checkpoints: what the log said up to some record, as keys and values.
//!
//! The contract is the [`Checkpoints`] trait; [`conformance`] holds the suite that every implementation passes.
//! [`memory`] keeps nothing, [`fjall`] keeps an LSM tree on this machine.

pub mod conformance;
pub mod fjall;
pub mod memory;
pub(crate) mod mirror;
mod redo;

use crate::log::LogError;
use std::{io, path::PathBuf, sync::Arc};

/// How far a checkpoint has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The checkpoint holds the effects of this log record and all before. The log may be trimmed up to here.
    pub index: u64,
    /// The caller's own count, opaque here.
    pub position: u64,
}

/// One difference between a checkpoint and the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value from now on.
    Put {
        /// At most 60,000 bytes.
        key: Vec<u8>,
        /// At most 64 MiB.
        value: Vec<u8>,
        /// Values of one kin resemble each other, such as the bodies of a queue: a store may learn from some how to make others
        /// smaller. It is not stored.
        kin: Option<u32>,
    },
    /// The key has no value any more; it need not have had one.
    Delete {
        /// At most 60,000 bytes.
        key: Vec<u8>,
    },
}

impl Change {
    /// The key that changes.
    pub fn key(&self) -> &[u8] {
        match self {
            Change::Put { key, .. } | Change::Delete { key } => key,
        }
    }

    /// Bytes of key and value.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Change::Put { key, value, .. } => key.len() + value.len(),
            Change::Delete { key } => key.len(),
        }
    }
}

/// The longest key, in bytes.
pub const KEY_MAX: usize = 60_000;
/// The largest value, in bytes.
pub const VALUE_MAX: usize = 64 << 20;

/// What [`Checkpoints::scan`] calls for each key and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), CheckpointError> + 'a;

/// The checkpoints of many shards. Each shard has its own keys and its own mark.
///
/// - **Atomic.** A write takes all its changes and the mark, or after a crash none: then it never happened.
/// - **Durable.** When a write returns, a power cut cannot undo it, and it has been read back and compared; so the log
///   before the mark may go.
/// - **Checked.** A value is given back as written, or as an error that names it.
/// - **Failure.** A failed write leaves the mark where it was. [`CheckpointError::Full`] changes nothing and may be tried
///   again; after any other failure only a new open tells what is there, and it is one of the two checkpoints, whole.
pub trait Checkpoints: Send {
    /// The mark of a shard; `None` if it has no checkpoint.
    fn mark(&self, shard: u16) -> Result<Option<Mark>, CheckpointError>;

    /// Makes the next checkpoint of a shard out of the last one. Takes the changes one after the other and holds few of them
    /// at a time. Of several changes to a key the last counts.
    fn write(
        &mut self,
        shard: u16,
        changes: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError>;

    /// Visits the keys of a shard that start with `prefix`, in byte order. An error of `visit` ends it and is handed through.
    fn scan(&self, shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError>;

    /// Reads for other threads, while writes go on. While a write is in progress it may show some of its changes already.
    fn reader(&self) -> Arc<dyn CheckpointReader>;

    /// What is there now, and stays so whatever is written later. Keys and values are given as they are stored: encoded, where this is
    /// a layer that encodes. Takes no time and little memory; an engine may keep what is replaced meanwhile for as long as it lives.
    ///
    /// Not every implementation can: [`CheckpointError::Engine`].
    fn freeze(&self, shard: u16) -> Result<Box<dyn Frozen>, CheckpointError> {
        let _ = shard;
        Err(CheckpointError::Engine { operation: "freeze", reason: "it keeps no former values".to_owned() })
    }

    /// Forgets a shard. The mark goes first, so that a crash half way shows no checkpoint; clear again before a rebuild.
    fn clear(&mut self, shard: u16) -> Result<(), CheckpointError>;
}

/// A shard's checkpoint as it was at one moment.
pub trait Frozen: Send {
    /// How far it has come; `None` if there is none.
    fn mark(&self) -> Option<Mark>;

    /// Visits every key as it is stored, in byte order. An error of `visit` ends it and is handed through.
    fn visit(&self, visit: &mut Visit<'_>) -> Result<(), CheckpointError>;
}

/// Point reads of checkpoints, from any thread.
pub trait CheckpointReader: Send + Sync {
    /// The value of a key of a shard.
    fn get(&self, shard: u16, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError>;

    /// The values of several keys, in their order.
    fn multi_get(&self, shard: u16, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, CheckpointError> {
        keys.iter().map(|key| self.get(shard, key)).collect()
    }
}

/// Why checkpoints did not do what was asked. Each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// What was stored is no longer what was written.
    #[error(
        "the checkpoint is damaged at {place}: {reason}; nothing was changed; restore the directory from a backup or a replica, and check the disk"
    )]
    Corrupt {
        /// The key (hexadecimal, behind its shard) or the file.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Too little space is left; nothing was changed.
    #[error(
        "{free} bytes are free and a checkpoint needs {needed}; free disk space, and checkpoints go on by themselves"
    )]
    Full {
        /// Bytes that are free.
        free: u64,
        /// Bytes wanted.
        needed: u64,
    },
    /// A key or a value is too large; nothing was changed.
    #[error("a key or value of {bytes} bytes is more than the limit of {limit}; store less under one key")]
    TooLarge {
        /// What was asked.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// Another process has the directory open.
    #[error("{path} is in use by another process; stop that one first, or choose another directory")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier write failed.
    #[error("checkpoints stopped after a failed write; check the disk, then restart")]
    Poisoned,
    /// The storage engine refused an operation.
    #[error("the checkpoint store cannot {operation}: {reason}; check the disk, then restart")]
    Engine {
        /// The verb.
        operation: &'static str,
        /// What the engine said.
        reason: String,
    },
    /// What is to be rewritten is not all in the checkpoint.
    #[error(
        "the checkpoint reaches to record {checkpoint} and the log to {log}; start a server on the directory, stop it, and try again"
    )]
    Behind {
        /// The record that the checkpoint reaches to.
        checkpoint: u64,
        /// The newest record.
        log: u64,
    },
    /// The visitor of [`Checkpoints::scan`] has seen enough.
    #[error("the reader stopped")]
    Stopped,
    /// The directory or a file of it failed.
    #[error(transparent)]
    Files(#[from] LogError),
    /// The system refused an operation.
    #[error("cannot {operation} {path}: {source}; check the disk and the permissions, then restart")]
    Io {
        /// The verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Refuses a key or a value that is too large.
pub(crate) fn measure(change: &Change) -> Result<(), CheckpointError> {
    let too_large = |bytes, limit| Err(CheckpointError::TooLarge { bytes, limit });
    match change {
        change if change.key().len() > KEY_MAX => too_large(change.key().len(), KEY_MAX),
        Change::Put { value, .. } if value.len() > VALUE_MAX => too_large(value.len(), VALUE_MAX),
        _ => Ok(()),
    }
}
