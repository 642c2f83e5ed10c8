//! A log that is looked at and never changed: what an opening would find, without making the log its own.

use super::{
    Entry, Log, LogError, SegmentHeader, Visit, read_sealed, read_segment,
    recover::{Headers, check_identity, find_end, load, lock},
    space::{self, read_range, segment_name},
    witness,
};
use crate::files::{Lock, SharedFiles};
use kit::Durability;
use std::collections::VecDeque;

/// A segment log behind the same seam, which gives its records and takes none. Its lock is held, so nobody writes meanwhile.
pub struct ReadOnlyLog {
    files: SharedFiles,
    _lock: Box<dyn Lock>,
    sealed: VecDeque<SegmentHeader>,
    last: SegmentHeader,
    epoch: u64,
    next: u64,
}

impl ReadOnlyLog {
    /// Opens the log of the data directory with the id `directory`. Damage that would stop a server stops this too.
    pub fn open(files: SharedFiles, directory: u64) -> Result<Self, LogError> {
        let lock = lock(&files)?;
        check_identity(&files, directory)?;
        let Headers { live: mut sealed, .. } = load(&files, directory)?;
        let Some(last) = sealed.pop_back() else {
            return Err(super::corrupt(&files, 1, 0, 0, "every segment file is missing"));
        };
        let name = segment_name(last.sequence);
        let image = read_range(&files, &*space::open(&files, &name)?, &name, u64::MAX)?;
        let tail = find_end(&image, &last).map_err(|broken| {
            super::corrupt(&files, last.sequence, broken.offset, broken.index, broken.reason)
        })?;
        witness::compare(&files, witness::read(&files)?, tail.end.index)?;
        let epoch = last.epoch.max(tail.end.epoch);
        Ok(Self { files, _lock: lock, sealed, last, epoch, next: tail.end.index })
    }
}

impl Log for ReadOnlyLog {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn first(&self) -> u64 {
        self.sealed.front().unwrap_or(&self.last).first
    }

    fn next(&self) -> u64 {
        self.next
    }

    fn strongest(&self) -> Durability {
        Durability::Disk
    }

    /// Never: see [`LogError::Closed`].
    fn append(&mut self, _: &[Entry<'_>]) -> Result<u64, LogError> {
        Err(LogError::Closed)
    }

    fn flush(&mut self, _: Durability) -> Result<(), LogError> {
        Ok(())
    }

    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        if from < self.first() {
            return Err(LogError::Trimmed { asked: from, first: self.first() });
        }
        read_sealed(&self.files, &self.sealed, &self.last, from, visit)?;
        let name = segment_name(self.last.sequence);
        let image = read_range(&self.files, &*space::open(&self.files, &name)?, &name, u64::MAX)?;
        read_segment(&self.files, &self.last, &image, from, self.next, visit)?;
        Ok(())
    }

    /// Keeps everything, as it may.
    fn trim(&mut self, _: u64) -> Result<(), LogError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), LogError> {
        Ok(())
    }
}
