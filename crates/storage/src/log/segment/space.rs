//! The files that a log may grow into: spares left by trimming, new ones, and the reserve.

use super::format::{BadHeader, SEGMENT_HEADER, SegmentHeader};
use crate::{
    files::{File, SharedFiles, read_full_at, uninterrupted},
    log::LogError,
};
use std::io;

/// A file under construction; gets a segment's name when it is whole.
pub(crate) const TEMPORARY: &str = "next.tmp";
/// Space held back for [`crate::log::Log::append_reserved`]: a segment file in waiting.
pub(crate) const RESERVE: &str = "reserve.log";
/// More trimmed files than this are removed instead of kept.
const SPARES_MAX: usize = 2;

pub(crate) fn segment_name(sequence: u64) -> String {
    format!("segment-{sequence:016x}.log")
}

fn spare_name(sequence: u64) -> String {
    format!("spare-{sequence:016x}.log")
}

fn sequence_of(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(".log")?;
    // Only the spelling that we write, so that a number has one file.
    (digits.len() == 16 && !digits.contains(|c: char| c.is_ascii_uppercase()))
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

pub(crate) fn segment_sequence(name: &str) -> Option<u64> {
    sequence_of(name, "segment-")
}

/// A file claimed for the log, not yet part of it.
pub(crate) struct Claim {
    pub(crate) file: Box<dyn File>,
    /// Its name for now.
    pub(crate) name: String,
    pub(crate) size: u64,
    /// All below this was written before, so that flushing there changes no metadata.
    pub(crate) written: u64,
}

pub(crate) struct Space {
    files: SharedFiles,
    segment_bytes: u64,
    hold_reserve: bool,
    reserve: bool,
    spares: Vec<String>,
    /// The highest sequence in the header of a file that waits here: its old records have that salt.
    pub(crate) sequence_max: u64,
}

impl Space {
    /// Takes stock of what waits in the directory; throws away what cannot be used.
    pub(crate) fn open(files: SharedFiles, segment_bytes: u64, hold_reserve: bool) -> Result<Self, LogError> {
        let mut space =
            Self { files, segment_bytes, hold_reserve, reserve: false, spares: Vec::new(), sequence_max: 0 };
        for name in list(&space.files)? {
            if name == TEMPORARY {
                space.remove(&name)?;
            } else if name == RESERVE || sequence_of(&name, "spare-").is_some() {
                space.adopt(name)?;
            }
        }
        Ok(space)
    }

    fn adopt(&mut self, name: String) -> Result<(), LogError> {
        let file = open(&self.files, &name)?;
        let length = file.len().map_err(|source| failure(&self.files, "measure", &name, source))?;
        let header = read_header(&self.files, &*file, &name)?;
        let usable = match SegmentHeader::decode(&header) {
            Ok(header) => {
                self.sequence_max = self.sequence_max.max(header.sequence);
                true
            }
            // Never written. Anything else has unknown old records in it, and is not worth the risk.
            Err(BadHeader::NotASegment) => header.iter().all(|byte| *byte == 0),
            Err(_) => false,
        };
        let wanted = if name == RESERVE { self.hold_reserve } else { self.spares.len() < SPARES_MAX };
        if !usable || !wanted || length != self.segment_bytes {
            return self.remove(&name);
        }
        if name == RESERVE {
            self.reserve = true;
        } else {
            self.spares.push(name);
        }
        Ok(())
    }

    /// A file with room for `bytes` of records: a spare, a new one, or, if `reserved`, the reserve.
    /// [`LogError::Full`] leaves everything as it was.
    pub(crate) fn claim(&mut self, bytes: u64, reserved: bool) -> Result<Claim, LogError> {
        let size = self.segment_bytes.max(SEGMENT_HEADER as u64 + bytes);
        if size == self.segment_bytes
            && let Some(name) = self.spares.pop()
        {
            return self.claim_waiting(name, size);
        }
        match self.create(size) {
            Err(LogError::Full { .. }) if reserved && self.reserve && size == self.segment_bytes => {
                self.reserve = false;
                let mut claim = self.claim_waiting(RESERVE.to_string(), size)?;
                claim.written = 0;
                Ok(claim)
            }
            claim => claim,
        }
    }

    fn claim_waiting(&self, name: String, size: u64) -> Result<Claim, LogError> {
        Ok(Claim { file: open(&self.files, &name)?, name, size, written: size })
    }

    fn create(&self, size: u64) -> Result<Claim, LogError> {
        let made = self.files.create(TEMPORARY).and_then(|file| file.allocate(size).map(|()| file));
        match made {
            Ok(file) => Ok(Claim { file, name: TEMPORARY.to_string(), size, written: 0 }),
            Err(error) if is_full(&error) => {
                // Nothing was written to the log; what there is of the file is no use. It may not even exist.
                let _ = self.files.remove(TEMPORARY);
                Err(LogError::Full { needed: size })
            }
            Err(source) => Err(failure(&self.files, "create", TEMPORARY, source)),
        }
    }

    /// True while the reserve is whole, or none is to be held.
    pub(crate) fn reserve(&self) -> bool {
        self.reserve || !self.hold_reserve
    }

    /// Makes the reserve whole if it is not; [`LogError::Full`] if there is still no space.
    pub(crate) fn restore_reserve(&mut self) -> Result<(), LogError> {
        if self.reserve() {
            return Ok(());
        }
        let name = match self.spares.pop() {
            Some(spare) => spare,
            None => {
                let claim = self.create(self.segment_bytes)?;
                uninterrupted(|| claim.file.sync_all())
                    .map_err(|source| failure(&self.files, "flush", &claim.name, source))?;
                claim.name
            }
        };
        rename(&self.files, &name, RESERVE)?;
        sync_dir(&self.files)?;
        self.reserve = true;
        Ok(())
    }

    /// Takes in a segment file that the log has no more use for. The change of names is durable on return, so that
    /// writing into the file can never be seen under its old name.
    pub(crate) fn retire(&mut self, sequence: u64) -> Result<(), LogError> {
        let name = segment_name(sequence);
        let file = open(&self.files, &name)?;
        let length = file.len().map_err(|source| failure(&self.files, "measure", &name, source))?;
        if length == self.segment_bytes && self.spares.len() < SPARES_MAX {
            let spare = spare_name(sequence);
            rename(&self.files, &name, &spare)?;
            self.sequence_max = self.sequence_max.max(sequence);
            self.spares.push(spare);
        } else {
            self.remove(&name)?;
        }
        sync_dir(&self.files)
    }

    /// Removes everything that waits here: it may hold records of the past.
    pub(crate) fn clear(&mut self) -> Result<(), LogError> {
        for name in std::mem::take(&mut self.spares) {
            self.remove(&name)?;
        }
        if std::mem::take(&mut self.reserve) {
            self.remove(RESERVE)?;
        }
        sync_dir(&self.files)
    }

    /// Removes a segment file for good; its space is mostly unwritten or of an odd size.
    pub(crate) fn discard(&self, sequence: u64) -> Result<(), LogError> {
        self.remove(&segment_name(sequence))?;
        sync_dir(&self.files)
    }

    fn remove(&self, name: &str) -> Result<(), LogError> {
        self.files.remove(name).map_err(|source| failure(&self.files, "remove", name, source))
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(crate) fn failure(
    files: &SharedFiles,
    operation: &'static str,
    name: &str,
    source: io::Error,
) -> LogError {
    LogError::Io { operation, path: files.path(name), source }
}

pub(crate) fn open(files: &SharedFiles, name: &str) -> Result<Box<dyn File>, LogError> {
    files.open(name).map_err(|source| failure(files, "open", name, source))
}

pub(crate) fn rename(files: &SharedFiles, from: &str, to: &str) -> Result<(), LogError> {
    files.rename(from, to).map_err(|source| failure(files, "rename", from, source))
}

pub(crate) fn sync_dir(files: &SharedFiles) -> Result<(), LogError> {
    uninterrupted(|| files.sync_dir()).map_err(|source| failure(files, "flush the directory of", "", source))
}

pub(crate) fn list(files: &SharedFiles) -> Result<Vec<String>, LogError> {
    files.list().map_err(|source| failure(files, "list the directory of", "", source))
}

/// The first bytes of a file, or fewer if it is shorter.
pub(crate) fn read_header(files: &SharedFiles, file: &dyn File, name: &str) -> Result<Vec<u8>, LogError> {
    read_range(files, file, name, SEGMENT_HEADER as u64)
}

/// The first `length` bytes of a file, or fewer if it is shorter.
pub(crate) fn read_range(
    files: &SharedFiles,
    file: &dyn File,
    name: &str,
    length: u64,
) -> Result<Vec<u8>, LogError> {
    let size = file.len().map_err(|source| failure(files, "measure", name, source))?;
    let mut bytes = vec![0; usize::try_from(size.min(length)).unwrap_or(usize::MAX)];
    let count = read_full_at(file, &mut bytes, 0).map_err(|source| failure(files, "read", name, source))?;
    bytes.truncate(count);
    Ok(bytes)
}
