//! Backups: what a shard's checkpoint was at one moment, in a folder that any later release reads.
//!
//! ```text
//! FOLDER/manifest       what the backup is and which chunks make it; written last
//! FOLDER/chunk-<id>     a stretch of keys and values; its id is the SHA-256 of its bytes
//! FOLDER/lock           held while the folder is written
//! ```
//!
//! A chunk is `MPCHUNK1`, then keys and values in rising order, each with its length in front. Both are as they lie on the disk: what is
//! encrypted there is encrypted here, under the same key. The manifest is text:
//!
//! ```text
//! millpond backup
//! format = 1
//! directory = 00c0ffee00c0ffee     the data directory that it was made of: values are bound to it
//! position = 1234                  the newest command that it knows
//! taken = 1700000000000            when, in Unix milliseconds
//! plain = true                     whether values may be there that are not encrypted
//! key = 0123456789abcdef           a key that is needed to read it; none or several
//! chunk = <id> <bytes> <values>    in the order of their keys
//! checksum = <SHA-256 of the lines before>
//! ```
//!
//! # Why a half-made backup is never taken for one
//!
//! Chunks are written under a passing name, flushed, read back from the disk and compared before they get their name. The manifest comes
//! when all of them are durable, in one step; chunks that it does not name go after that. So at any moment the folder has the manifest
//! before with all its chunks, or the new one with all of its own, or none.
//!
//! # Why the next one is small
//!
//! Where a chunk ends depends on the keys and the sizes near its end and on nothing else. So a change moves the ends near it only, all other
//! chunks come out the same, byte for byte, and are there already. They are read and checked, and written again if they went bad.
//!
//! **Changing the layout.** Raise the number behind `format`, and read the older ones for ever: `fixtures/backup-1` is one.

mod chunk;
mod folder;
mod manifest;
mod reader;

use crate::{CheckpointError, at_rest, checkpoints::Frozen};
use kit::Timestamp;

pub use chunk::{Chunk, ChunkId, Cutter};
pub use folder::{BackupFolder, Saved};
pub use manifest::Manifest;
pub use reader::Backup;

/// Why a backup was not made or cannot be used. Each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder holds something else.
    #[error("{folder} is not for this backup: {reason}; choose another folder")]
    Foreign {
        /// Which.
        folder: String,
        /// What is there.
        reason: String,
    },
    /// The backup never came to its end.
    #[error("there is no finished backup in {folder}: its manifest is missing; make the backup again")]
    Unfinished {
        /// Where.
        folder: String,
    },
    /// Something is not what was written.
    #[error(
        "{file} is damaged: {reason}; make the backup again, which writes what is damaged anew, or use another one"
    )]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder's files failed, or its source did.
    #[error(transparent)]
    Source(#[from] crate::CheckpointError),
}

/// Cuts what was frozen into chunks, hands each to `put`, and returns the manifest that names them. `directory` is the id of the data
/// directory that it is from.
pub fn cut<E: From<crate::CheckpointError>>(
    frozen: &dyn Frozen,
    directory: u64,
    taken: Timestamp,
    put: &mut dyn FnMut(ChunkId, Chunk) -> Result<(), E>,
) -> Result<Manifest, E> {
    let mut manifest = Manifest {
        directory,
        position: frozen.mark().map_or(0, |mark| mark.position),
        taken,
        plain: true,
        ..Manifest::default()
    };
    let mut cutter = Cutter::default();
    let mut chunks = Vec::new();
    let mut hand_over = |chunk: Chunk| {
        let id = ChunkId::of(&chunk.bytes);
        chunks.push((id, chunk.bytes.len() as u64, chunk.values));
        put(id, chunk)
    };
    let mut failed = None;
    let visited = frozen.visit(&mut |key, value| {
        if let Some(encryption) = at_rest::encryption_in(key, value) {
            (manifest.plain, manifest.keys) = (encryption.plain, encryption.keys);
        }
        let Some(chunk) = cutter.push(key, value) else { return Ok(()) };
        hand_over(chunk).map_err(|error| {
            failed = Some(error);
            CheckpointError::Stopped
        })
    });
    if let Some(error) = failed {
        return Err(error);
    }
    visited?;
    cutter.finish().map_or(Ok(()), hand_over)?;
    Ok(Manifest { chunks, ..manifest })
}

impl From<crate::LogError> for BackupError {
    fn from(error: crate::LogError) -> Self {
        Self::Source(error.into())
    }
}
