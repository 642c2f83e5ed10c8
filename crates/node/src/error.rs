use std::{io, path::PathBuf};
use storage::{CheckpointError, KeyError, LogError};

/// Why a pond could not be opened. Nothing was changed; each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{path} is in use by another process; stop that one first, or choose another directory")]
    InUse {
        /// The lock.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{file} does not belong to this pond: {reason}")]
    Foreign {
        /// The file that says so.
        file: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A key is missing or cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The log is damaged or cannot be read; the text names the place.
    #[error("the log cannot be opened: {0}")]
    Log(#[source] LogError),
    /// A record is whole, but what it says is not possible.
    #[error(
        "record {index} of the log cannot be replayed: {reason}; use the release that wrote it, or restore the directory from a backup"
    )]
    BadRecord {
        /// Which.
        index: u64,
        /// Why.
        reason: String,
    },
    /// The log ends before its end.
    #[error(
        "the log gave back records up to {read}, but the last one is {last}; check the disk, then restart"
    )]
    Unreadable {
        /// The last record that was read.
        read: u64,
        /// The last that there is.
        last: u64,
    },
    /// The log starts after the checkpoint.
    #[error(
        "the checkpoint reaches to record {checkpoint}, the log starts only at {log}: what lies between is missing; restore the whole directory from a backup"
    )]
    Gap {
        /// The record that the checkpoint reaches to; 0 if there is no checkpoint.
        checkpoint: u64,
        /// The oldest record of the log.
        log: u64,
    },
    /// The log ends before the checkpoint.
    #[error(
        "the checkpoint reaches to record {checkpoint}, the log ends at {log}: the two do not belong together; restore the whole directory from a backup"
    )]
    LogBehind {
        /// The record that the checkpoint reaches to.
        checkpoint: u64,
        /// The newest record of the log.
        log: u64,
    },
    /// The checkpoint is damaged or cannot be read.
    #[error("the checkpoint cannot be opened: {0}")]
    Checkpoint(#[source] CheckpointError),
    /// The checkpoint is whole, but what it says is not possible.
    #[error("the checkpoint is not usable: {reason}; restore the whole directory from a backup")]
    BadCheckpoint {
        /// Why.
        reason: String,
    },
    /// The system refused an operation.
    #[error("cannot {operation} {path}: {source}; check the disk and the permissions")]
    Io {
        /// The verb.
        operation: &'static str,
        /// Of what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<LogError> for OpenError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Locked { path } => Self::InUse { path },
            LogError::Foreign { file, reason } => Self::Foreign { file, reason },
            LogError::Key(error) => Self::Key(error),
            LogError::Io { operation, path, source } => Self::Io { operation, path, source },
            other => Self::Log(other),
        }
    }
}

impl From<CheckpointError> for OpenError {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Files(error) => error.into(),
            CheckpointError::Locked { path } => Self::InUse { path },
            CheckpointError::Io { operation, path, source } => Self::Io { operation, path, source },
            other => Self::Checkpoint(other),
        }
    }
}
