//! The seam to the log: records of opaque bytes in one order, with an owner.
//!
//! The contract is the [`Log`] trait; [`conformance`] holds the suite that every implementation passes.
//! [`memory`] keeps nothing, [`segment`] keeps files.

pub mod conformance;
pub mod memory;
pub mod segment;

use kit::Durability;
use std::{io, path::PathBuf};

/// The largest payload of one record, in bytes.
pub const PAYLOAD_MAX: usize = 64 << 20;

/// The largest sum of payloads in one call of [`Log::append`], in bytes.
pub const APPEND_MAX: usize = 256 << 20;

/// What one shard has to say in an append: a batch of its commands, opaque here.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Whose batch it is.
    pub shard: u16,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: &'a [u8],
}

/// An entry as the log gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the one order of the log; the first is 1 and none is missing.
    pub index: u64,
    /// The epoch of the owner that appended it. Never falls from one record to the next.
    pub epoch: u64,
    /// Whose batch it is.
    pub shard: u16,
    /// The bytes as appended.
    pub payload: Vec<u8>,
}

/// What [`Log::read`] calls for each record. An error ends the reading and is handed through; to end it without one,
/// return [`LogError::Stopped`].
pub type Visit<'a> = dyn FnMut(Record) -> Result<(), LogError> + 'a;

/// An ordered log of records with one owner at a time.
///
/// - **Owner.** Every open takes an epoch above all earlier ones and makes that durable before the first append. From
///   then on an earlier owner cannot append ([`LogError::Fenced`]), or the new one could not open ([`LogError::Locked`]).
/// - **Order.** Indexes start at 1, have no gaps, and an index never changes its content once a flush covered it.
/// - **Durability.** [`Log::append`] promises nothing; [`Log::flush`] promises its level for everything appended so far.
///   What was appended and not flushed may be found after a crash or not, but never a record without those before it.
/// - **Failure.** After a failed write or flush the log is poisoned: nobody knows what is on the disk, so nothing more is
///   acknowledged, nothing is tried again, and only a new open can find out. The outcome of what was appended is unknown.
/// - **Damage.** A record is given back as appended or not at all. Damage to anything that was acknowledged at
///   [`Durability::Disk`] or above is an error that names the place.
pub trait Log: Send {
    /// The epoch of this owner.
    fn epoch(&self) -> u64;

    /// The index of the oldest record kept; equal to [`Log::next`] while there is none.
    fn first(&self) -> u64;

    /// The index that the next appended entry gets.
    fn next(&self) -> u64;

    /// The strongest level that [`Log::flush`] keeps.
    fn strongest(&self) -> Durability;

    /// Takes entries, in order, all or none of them, and returns the index of the first. They may stay in a buffer of this
    /// process until the next flush.
    ///
    /// [`LogError::Full`] and [`LogError::TooLarge`] refuse without any change; the log goes on.
    fn append(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError>;

    /// [`Log::append`] for what frees space or ends work in hand (outcomes, deletions): may use space held back for it
    /// when ordinary appends are refused as [`LogError::Full`].
    fn append_reserved(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        self.append(entries)
    }

    /// True while the space held back is whole, so that ordinary appends are taken. An ordinary append tries to make it
    /// whole again first, so the log heals as soon as there is space.
    fn reserve(&self) -> bool {
        true
    }

    /// Returns when everything appended so far has reached `level`. One flush carries every shard's entries.
    /// Does nothing if it had reached it before.
    fn flush(&mut self, level: Durability) -> Result<(), LogError>;

    /// Calls `visit` with each record from index `from` (at least [`Log::first`], else [`LogError::Trimmed`]) to the last
    /// that was flushed to [`Durability::Os`] or better, in order.
    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError>;

    /// Allows the log to forget the records before `first_to_keep`. It may keep more and never forgets that one or a later one.
    fn trim(&mut self, first_to_keep: u64) -> Result<(), LogError>;

    /// Flushes to the strongest level, lets go of the ownership; every later call fails as [`LogError::Closed`].
    fn close(&mut self) -> Result<(), LogError>;
}

/// Why the log did not do what was asked. Each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A write or a flush failed earlier.
    #[error(
        "the log stopped after a failed write ({cause}); what was not acknowledged has an unknown outcome; check the disk, then restart"
    )]
    Poisoned {
        /// The first failure.
        cause: String,
    },
    /// Another owner has taken over.
    #[error(
        "this owner's epoch {mine} has ended: epoch {current} owns the log; stop this process, or restart it to take the log back"
    )]
    Fenced {
        /// The epoch of this owner.
        mine: u64,
        /// The epoch that the log is in.
        current: u64,
    },
    /// Bytes that were once acknowledged are no longer what was written.
    #[error(
        "{file} is damaged at byte {offset} (record {index}): {reason}; nothing was changed; restore the directory from a backup or a replica, and check the disk"
    )]
    Corrupt {
        /// The damaged file.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// The record that should be there; 0 if none can be told.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// No space is left; nothing was appended.
    #[error("no space for {needed} more bytes of log; free disk space, and appending goes on by itself")]
    Full {
        /// Bytes that were asked of the disk.
        needed: u64,
    },
    /// Another process has the directory open.
    #[error("{path} is in use by another process; stop that one first, or choose another directory")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// An entry or the sum of one append is too large; nothing was appended.
    #[error("{bytes} bytes in one append are more than the limit of {limit}; split them")]
    TooLarge {
        /// What was asked.
        bytes: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The directory holds something else, or another version of it.
    #[error("{file} does not belong here: {reason}")]
    Foreign {
        /// The file that says so.
        file: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Records were asked for that are no longer kept.
    #[error(
        "record {asked} is no longer kept, the log starts at {first}; start from a checkpoint at or after that"
    )]
    Trimmed {
        /// The index asked for.
        asked: u64,
        /// The oldest that is kept.
        first: u64,
    },
    /// A durability that this log does not keep was asked for.
    #[error(
        "this log keeps at most `{strongest}` and cannot promise `{asked}`; ask for less, or configure another log"
    )]
    Unsupported {
        /// The level asked for.
        asked: Durability,
        /// The best there is.
        strongest: Durability,
    },
    /// What is there cannot be decrypted, or nothing be encrypted.
    #[error(transparent)]
    Key(#[from] crate::at_rest::KeyError),
    /// The log was closed.
    #[error("the log is closed; open it again")]
    Closed,
    /// The visitor of [`Log::read`] has seen enough.
    #[error("the reader stopped")]
    Stopped,
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

/// Refuses entries that are too large, and returns the sum of their payloads.
pub(crate) fn measure(entries: &[Entry<'_>]) -> Result<usize, LogError> {
    let mut sum = 0usize;
    for entry in entries {
        if entry.payload.len() > PAYLOAD_MAX {
            return Err(LogError::TooLarge { bytes: entry.payload.len() as u64, limit: PAYLOAD_MAX as u64 });
        }
        sum = sum.saturating_add(entry.payload.len());
    }
    if sum > APPEND_MAX {
        return Err(LogError::TooLarge { bytes: sum as u64, limit: APPEND_MAX as u64 });
    }
    Ok(sum)
}
