//! The log in files of this machine: preallocated, recycled, checked.
//!
//! One directory holds
//!
//! | name | what |
//! |---|---|
//! | `lock` | held while the log is open |
//! | `identity` | which data directory this belongs to; written when the first segment is durable |
//! | `segment-<sequence>.log` | records; the highest sequence is the one that grows |
//! | `spare-<sequence>.log` | trimmed, to be written over: flushing over written blocks costs half of flushing into new ones |
//! | `reserve.log` | space held back for outcomes and deletions on a full disk |
//! | `closed` | how far the log went at the last clean close |
//! | `next.tmp` | a segment in the making |
//!
//! The modules: `format` draws the bytes, `image` decides where a log ends and what is damage (with the argument why),
//! `recover` opens a directory, `space` finds room, this one appends, flushes, reads and trims; `read_only` and `inspect` look at a
//! log and change nothing.
//!
//! # New files
//!
//! A file becomes part of the log by its name, and gets it only when it is whole: header written, file flushed, renamed,
//! directory flushed; only then a record in it can be acknowledged. A file's sequence is above that of every header in the
//! directory, and no record is written into a file before a flush of the header that carries its sequence, so bytes of
//! an earlier life (recycling, a crash half way) always have another salt and are never taken for records.
//!
//! A log moves on to a new file only when every record before it is flushed. The new header says so, and so vouches for
//! all files before.
//!
//! # Failure
//!
//! Any failed write, flush or change of names poisons the log for good. Running out of space is refused before
//! anything is written ([`LogError::Full`]), since segments are allocated whole.
//!
//! # Cost
//!
//! Appending copies the payload once into a buffer. A flush is one `pwrite`, one `fdatasync` and one more `pwrite` of 48
//! bytes, the mark. Nothing is written while nothing is appended.

mod format;
mod image;
mod inspect;
mod read_only;
mod recover;
mod salvage;
pub(crate) mod space;
mod witness;

pub(crate) use inspect::{Found, inspect};
pub use read_only::ReadOnlyLog;
pub(crate) use recover::KIND;
pub(crate) use recover::lock;
pub(crate) use salvage::any_directory;
pub use salvage::{Remains, Stretch};

use super::{Entry, Log, LogError, PAYLOAD_MAX, Record, Visit, measure};
use crate::files::{File, Lock, SharedFiles, uninterrupted, write_all_at};
use format::{Kind, RECORD_HEADER, RecordHeader, SegmentHeader, put_entry, record_size};
use image::{Cursor, walk};
use kit::Durability;
use space::{Claim, Space, failure, read_range, rename, segment_name, segment_sequence, sync_dir};
use std::collections::VecDeque;

/// How a segment log is laid out. None of it needs to stay the same from one open to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The id of the data directory, in every file's header: files of another directory are refused. Default 0.
    pub directory: u64,
    /// Size of a segment file in bytes; a single larger append gets a larger file. At least 4 KiB. Default 64 MiB.
    pub segment_bytes: u64,
    /// Hold a segment's worth of space back for [`Log::append_reserved`]. Default true.
    pub reserve: bool,
    /// A new file's blocks are filled with zeros this many bytes ahead, so that most flushes change no metadata; 0 for
    /// never. Default 1 MiB.
    pub zero_ahead: u64,
}

impl Options {
    /// What an [`SegmentLog`] gets that asks for nothing.
    pub const DEFAULT: Options =
        Options { directory: 0, segment_bytes: 64 << 20, reserve: true, zero_ahead: 1 << 20 };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Appended bytes beyond this are handed to the system without waiting for a flush, so that the buffer stays small.
const BUFFER_MAX: usize = 8 << 20;

/// A [`Log`] in segment files.
pub struct SegmentLog {
    files: SharedFiles,
    options: Options,
    lock: Option<Box<dyn Lock>>,
    space: Space,
    epoch: u64,
    /// The files before the active one, oldest first.
    sealed: VecDeque<SegmentHeader>,
    active: Active,
    /// Encoded and not yet handed to the system.
    buffer: Vec<u8>,
    /// The index of the next entry, and the header crc of the one before.
    next: u64,
    chain: u32,
    /// The index of the first record not yet handed to the system.
    written: u64,
    /// The highest index on the disk.
    synced: u64,
    /// A mark was written since the last flush.
    mark_unsynced: bool,
    /// What the file `closed` says.
    witnessed: u64,
    poison: Option<String>,
}

/// The file that grows.
struct Active {
    header: SegmentHeader,
    salt: u32,
    file: Box<dyn File>,
    size: u64,
    /// Behind the last record handed to the system.
    offset: u64,
    /// All below this was written in this life or an earlier one of the file.
    filled: u64,
}

impl SegmentLog {
    /// Opens the log in `files`, or starts one, and takes the ownership.
    ///
    /// An unfinished end of the log is read from the disk itself and written again into a fresh file before anything is
    /// served. A crash at any moment of this leaves a directory that opens to the same records.
    ///
    /// Fails with [`LogError::Locked`] if the log is open elsewhere, [`LogError::Corrupt`] or [`LogError::Foreign`] if the
    /// directory cannot be trusted, [`LogError::Full`] without space for one file.
    pub fn open(files: SharedFiles, options: Options) -> Result<Self, LogError> {
        recover::open(files, options)
    }

    /// Reads every record and checks it; returns how many there are. For `check` commands and tests.
    pub fn verify(&self) -> Result<u64, LogError> {
        let mut count = 0;
        self.read(self.first(), &mut |_| {
            count += 1;
            Ok(())
        })?;
        Ok(count)
    }

    /// Forgets every record, as [`Log::trim`] may, but for certain, together with every file that ever held one: the log goes on
    /// in a file that is new. For changes of what the bytes of the log may show; a crash half way leaves a log that opens.
    pub fn renew(&mut self) -> Result<(), LogError> {
        self.alive()?;
        self.step(|log| {
            log.space.clear()?;
            log.roll(RECORD_HEADER as u64, false)
        })?;
        self.trim(self.next)?;
        self.step(|log| {
            log.space.clear()?;
            match log.space.restore_reserve() {
                Ok(()) | Err(LogError::Full { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn alive(&self) -> Result<(), LogError> {
        if let Some(cause) = &self.poison {
            return Err(LogError::Poisoned { cause: cause.clone() });
        }
        if self.lock.is_none() {
            return Err(LogError::Closed);
        }
        Ok(())
    }

    /// Runs a step that changes files. Its failure is the end of this log, whatever the step was: what is on the disk is
    /// no longer known.
    fn step<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, LogError>) -> Result<T, LogError> {
        work(self).inspect_err(|error| {
            if !matches!(error, LogError::Full { .. }) {
                self.poison = Some(error.to_string());
            }
        })
    }

    fn append_from(&mut self, entries: &[Entry<'_>], reserved: bool) -> Result<u64, LogError> {
        self.alive()?;
        measure(entries)?;
        if !reserved {
            self.step(|log| log.space.restore_reserve())?;
        }
        let bytes: usize = entries.iter().map(|entry| record_size(entry.payload.len())).sum();
        self.step(|log| log.make_room(bytes as u64, reserved))?;
        let first = self.next;
        for entry in entries {
            self.encode(entry);
        }
        if self.buffer.len() > BUFFER_MAX {
            self.step(Self::write_out)?;
        }
        Ok(first)
    }

    fn encode(&mut self, entry: &Entry<'_>) {
        debug_assert!(entry.payload.len() <= PAYLOAD_MAX);
        let header = RecordHeader {
            length: entry.payload.len() as u32,
            payload_crc: 0,
            index: self.next,
            epoch: self.epoch,
            synced: self.synced,
            chain: self.chain,
            shard: entry.shard,
            kind: Kind::Entry,
        };
        self.chain = put_entry(&mut self.buffer, self.active.salt, header, entry.payload);
        self.next += 1;
    }

    /// Moves on to a new file if `bytes` of records and a mark do not fit into this one.
    fn make_room(&mut self, bytes: u64, reserved: bool) -> Result<(), LogError> {
        let bytes = bytes + RECORD_HEADER as u64;
        if self.active.offset + self.buffer.len() as u64 + bytes <= self.active.size {
            return Ok(());
        }
        self.roll(bytes, reserved)
    }

    /// Moves on to a new file with room for `bytes`.
    fn roll(&mut self, bytes: u64, reserved: bool) -> Result<(), LogError> {
        self.sync()?;
        self.check_fence()?;
        let claim = self.space.claim(bytes, reserved)?;
        // A file without records is replaced, not continued: two files that begin with the same record are read as a copy and
        // its original, and the original is removed.
        let empty = self.next == self.active.header.first;
        let header = SegmentHeader {
            directory: self.options.directory,
            sequence: 1 + self.active.header.sequence.max(self.space.sequence_max),
            previous: if empty { self.active.header.previous } else { self.active.header.sequence },
            first: self.next,
            epoch: self.epoch,
            synced: self.synced,
            size: claim.size,
            chain: self.chain,
        };
        let fresh = Active::build(&self.files, claim, header, &[])?;
        if !empty {
            self.put_mark(Kind::Seal)?;
        }
        self.mark_unsynced = false;
        let former = std::mem::replace(&mut self.active, fresh).header;
        if empty {
            return self.space.discard(former.sequence);
        }
        self.sealed.push_back(former);
        Ok(())
    }

    /// A file with a higher sequence than ours means that the lock failed us and somebody else took over.
    fn check_fence(&self) -> Result<(), LogError> {
        for name in space::list(&self.files)? {
            if segment_sequence(&name).is_some_and(|sequence| sequence > self.active.header.sequence) {
                let file = space::open(&self.files, &name)?;
                let bytes = space::read_header(&self.files, &*file, &name)?;
                let current = SegmentHeader::decode(&bytes).map_or(self.epoch + 1, |header| header.epoch);
                return Err(LogError::Fenced { mine: self.epoch, current });
            }
        }
        Ok(())
    }

    /// Hands the buffer to the system.
    fn write_out(&mut self) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let active = &mut self.active;
        let end = active.offset + self.buffer.len() as u64;
        if end > active.filled && self.options.zero_ahead > 0 {
            active.filled = end.next_multiple_of(self.options.zero_ahead).min(active.size);
            self.buffer.resize((active.filled - active.offset) as usize, 0);
        }
        write_all_at(&*active.file, &self.buffer, active.offset)
            .map_err(|source| failure(&self.files, "write", &segment_name(active.header.sequence), source))?;
        active.offset = end;
        self.written = self.next;
        self.buffer.clear();
        self.buffer.shrink_to(2 * BUFFER_MAX);
        Ok(())
    }

    /// Brings everything appended to the disk, and leaves a mark that says so.
    fn sync(&mut self) -> Result<(), LogError> {
        self.write_out()?;
        if self.synced + 1 == self.next {
            return Ok(());
        }
        self.sync_active()?;
        self.synced = self.next - 1;
        self.put_mark(Kind::Mark)?;
        self.mark_unsynced = true;
        Ok(())
    }

    fn sync_active(&self) -> Result<(), LogError> {
        let active = &self.active;
        uninterrupted(|| active.file.sync_data())
            .map_err(|source| failure(&self.files, "flush", &segment_name(active.header.sequence), source))
    }

    fn put_mark(&self, kind: Kind) -> Result<(), LogError> {
        let active = &self.active;
        let mark = RecordHeader::mark(kind, self.next, self.epoch, self.synced, self.chain);
        write_all_at(&*active.file, &mark.encode(active.salt).0, active.offset)
            .map_err(|source| failure(&self.files, "write", &segment_name(active.header.sequence), source))
    }
}

/// Visits the records `from..` of one file, which must be whole up to `until`; returns where that ends.
fn read_segment(
    files: &SharedFiles,
    header: &SegmentHeader,
    image: &[u8],
    from: u64,
    until: u64,
    visit: &mut Visit<'_>,
) -> Result<Cursor, LogError> {
    let end = walk(image, header, until, |record, payload, _| {
        if record.index < from {
            return Ok(());
        }
        visit(Record {
            index: record.index,
            epoch: record.epoch,
            shard: record.shard,
            payload: payload.to_vec(),
        })
    })?;
    if end.index < until {
        let reason = "a record is not whole any more";
        return Err(corrupt(files, header.sequence, end.offset as u64, end.index, reason));
    }
    Ok(end)
}

/// Visits the records `from..` of the files that others continue, which end before `active`.
fn read_sealed(
    files: &SharedFiles,
    sealed: &VecDeque<SegmentHeader>,
    active: &SegmentHeader,
    from: u64,
    visit: &mut Visit<'_>,
) -> Result<(), LogError> {
    for (at, header) in sealed.iter().enumerate() {
        let successor = sealed.get(at + 1).unwrap_or(active);
        if successor.first <= from {
            continue;
        }
        let name = segment_name(header.sequence);
        let image = read_range(files, &*space::open(files, &name)?, &name, u64::MAX)?;
        let end = read_segment(files, header, &image, from, successor.first, visit)?;
        if end.chain != successor.chain {
            let reason = "the next file does not continue this one";
            return Err(corrupt(files, header.sequence, end.offset as u64, end.index, reason));
        }
    }
    Ok(())
}

impl Active {
    /// Makes a claimed file part of the log: durable with its header and `records`, read back, and named.
    fn build(
        files: &SharedFiles,
        claim: Claim,
        header: SegmentHeader,
        records: &[u8],
    ) -> Result<Self, LogError> {
        let io = |operation| {
            let name = claim.name.clone();
            move |source| failure(files, operation, &name, source)
        };
        let file = &*claim.file;
        write_all_at(file, &header.encode(), 0).map_err(io("write"))?;
        uninterrupted(|| file.sync_all()).map_err(io("flush"))?;
        let offset = (format::SEGMENT_HEADER + records.len()) as u64;
        if !records.is_empty() {
            write_all_at(file, records, format::SEGMENT_HEADER as u64).map_err(io("write"))?;
            uninterrupted(|| file.sync_all()).map_err(io("flush"))?;
        }
        file.drop_cache().map_err(io("drop the cache of"))?;
        let kept = read_range(files, file, &claim.name, offset)?;
        if kept.get(..format::SEGMENT_HEADER) != Some(&header.encode()[..])
            || kept.get(format::SEGMENT_HEADER..) != Some(records)
        {
            return Err(LogError::Corrupt {
                file: files.path(&claim.name).display().to_string(),
                offset: 0,
                index: header.first,
                reason: "the disk does not give back what was just flushed to it".to_string(),
            });
        }
        rename(files, &claim.name, &segment_name(header.sequence))?;
        sync_dir(files)?;
        Ok(Self {
            header,
            salt: header.salt(),
            file: claim.file,
            size: claim.size,
            offset,
            filled: claim.written,
        })
    }
}

fn corrupt(files: &SharedFiles, sequence: u64, offset: u64, index: u64, reason: &str) -> LogError {
    LogError::Corrupt {
        file: files.path(&segment_name(sequence)).display().to_string(),
        offset,
        index,
        reason: reason.to_string(),
    }
}

impl Log for SegmentLog {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn first(&self) -> u64 {
        self.sealed.front().unwrap_or(&self.active.header).first
    }

    fn next(&self) -> u64 {
        self.next
    }

    fn strongest(&self) -> Durability {
        Durability::Disk
    }

    fn append(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        self.append_from(entries, false)
    }

    fn append_reserved(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        self.append_from(entries, true)
    }

    fn reserve(&self) -> bool {
        self.space.reserve()
    }

    fn flush(&mut self, level: Durability) -> Result<(), LogError> {
        self.alive()?;
        match level {
            Durability::Memory => Ok(()),
            Durability::Os => self.step(Self::write_out),
            Durability::Disk => self.step(Self::sync),
            Durability::Quorum => Err(LogError::Unsupported { asked: level, strongest: self.strongest() }),
        }
    }

    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.alive()?;
        if from < self.first() {
            return Err(LogError::Trimmed { asked: from, first: self.first() });
        }
        read_sealed(&self.files, &self.sealed, &self.active.header, from, visit)?;
        let active = &self.active;
        let name = segment_name(active.header.sequence);
        let image = read_range(&self.files, &*active.file, &name, active.offset)?;
        read_segment(&self.files, &active.header, &image, from, self.written, visit)?;
        Ok(())
    }

    fn trim(&mut self, first_to_keep: u64) -> Result<(), LogError> {
        self.alive()?;
        // Oldest first and each durably, so that a crash can never leave a gap between the files that remain.
        while let Some(oldest) = self.sealed.front().copied() {
            let successor = self.sealed.get(1).unwrap_or(&self.active.header);
            if successor.first > first_to_keep {
                break;
            }
            self.sealed.pop_front();
            self.step(|log| log.space.retire(oldest.sequence))?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.alive()?;
        let outcome = self.step(|log| {
            log.sync()?;
            // The mark proves to the next owner that the end of the log is no torn tail.
            if log.mark_unsynced {
                log.sync_active()?;
                log.mark_unsynced = false;
            }
            if log.witnessed != log.next {
                witness::write(&log.files, log.next)?;
            }
            Ok(())
        });
        self.lock = None;
        outcome
    }
}
