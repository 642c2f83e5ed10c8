//! Opening a directory.
//!
//! Each step may be cut by a crash, and the whole begun again, any number of times:
//!
//! 1. Lock; flush the directory, so that every name seen from here on is durable.
//! 2. Take stock of spare files; throw away what is half made.
//! 3. Read the headers. A file whose first record is not behind that of an older file replaces it: a crash came between
//!    steps 5 and 6 of an earlier opening. It is removed.
//! 4. Flush the last file, forget its cached pages and read it from the disk. Find its end, or refuse; compare it with what
//!    the last clean close said.
//! 5. Copy the end of the log into a fresh file with a higher sequence and the new epoch: the whole last file if it is
//!    small, else only what no flush is known to have covered. When the copy has its name, it replaces the original.
//! 6. Remove the original, or seal it where the copy begins.
//!
//! Why copy: after a crash the pages of the last file may say one thing and the disk another, and a hole may have whole
//! records of the same unfinished flush behind it. In the copy there are neither.

use super::{
    Active, LogError, Options, SegmentLog, corrupt,
    format::{BadHeader, Kind, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, put_entry},
    image::{Broken, Cursor, Tail, examine, walk},
    space::{self, Space, failure, read_header, read_range, segment_name, segment_sequence, sync_dir},
    witness,
};
use crate::{
    files::{File, Lock, SharedFiles, uninterrupted, write_all_at},
    identity,
};
use std::collections::VecDeque;

pub(super) const LOCK: &str = "lock";
pub(crate) const KIND: &str = "log";
/// Below this a segment could not hold its header and a mark.
const SEGMENT_BYTES_MIN: u64 = 4_096;

pub(super) fn open(files: SharedFiles, mut options: Options) -> Result<SegmentLog, LogError> {
    options.segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
    let lock = lock(&files)?;
    sync_dir(&files)?;
    let begun = check_identity(&files, options.directory)?;
    let mut space = Space::open(files.clone(), options.segment_bytes, options.reserve)?;
    let Headers { live: mut headers, replaced } = load(&files, options.directory)?;
    for sequence in replaced {
        space.discard(sequence)?;
    }
    if !begun {
        forget_unborn(&files, &space, &mut headers)?;
    } else if headers.is_empty() {
        return Err(LogError::Corrupt {
            file: files.path(&segment_name(1)).display().to_string(),
            offset: 0,
            index: 0,
            reason: "every segment file is missing".to_string(),
        });
    }
    let last = headers.pop_back().map(|header| Last::read(&files, header)).transpose()?;
    let witnessed = witness::read(&files)?;
    if let Some(last) = &last {
        witness::compare(&files, witnessed, last.tail.end.index)?;
    }
    let mut copy = Copy::plan(last.as_ref(), &headers, &options, &space);
    let claim = space.claim((copy.records.len() + RECORD_HEADER) as u64, true)?;
    copy.header.size = claim.size;
    let active = Active::build(&files, claim, copy.header, &copy.records)?;
    if let Some(last) = last {
        match copy.seal {
            None => space.discard(last.header.sequence)?,
            Some(seal) => {
                last.seal(&files, &seal, &copy.header)?;
                headers.push_back(last.header);
            }
        }
    }
    if !begun {
        identity::write(&files, KIND, options.directory)?;
    }
    match space.restore_reserve() {
        // Ordinary appends will be refused until there is space; what is here can be worked off.
        Ok(()) | Err(LogError::Full { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(SegmentLog {
        files,
        options,
        lock: Some(lock),
        space,
        epoch: copy.header.epoch,
        sealed: headers,
        active,
        buffer: Vec::new(),
        next: copy.end.index,
        chain: copy.end.chain,
        written: copy.end.index,
        synced: copy.end.index - 1,
        mark_unsynced: false,
        witnessed,
        poison: None,
    })
}

pub(crate) fn lock(files: &SharedFiles) -> Result<Box<dyn Lock>, LogError> {
    files.lock(LOCK).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => LogError::Locked { path: files.path(LOCK) },
        _ => failure(files, "lock", LOCK, source),
    })
}

/// True if this log has been opened before.
pub(super) fn check_identity(files: &SharedFiles, directory: u64) -> Result<bool, LogError> {
    match identity::read(files, KIND)? {
        Some(id) if id != directory => Err(LogError::Foreign {
            file: files.path(identity::IDENTITY).display().to_string(),
            reason: format!(
                "it is the log of data directory {id:016x}, not {directory:016x}; put the right files back"
            ),
        }),
        identity => Ok(identity.is_some()),
    }
}

/// What the headers of a directory's segment files say.
pub(super) struct Headers {
    /// Of the files that make up the log, in order.
    pub(super) live: VecDeque<SegmentHeader>,
    /// Sequences of files that were replaced by others, and not yet removed.
    pub(super) replaced: Vec<u64>,
}

impl Headers {
    /// Takes the header with the next higher sequence. Says no if the file before it is missing.
    pub(super) fn push(&mut self, header: SegmentHeader) -> bool {
        while let Some(older) = self.live.back().filter(|older| older.first >= header.first) {
            self.replaced.push(older.sequence);
            self.live.pop_back();
        }
        let follows = self.live.back().is_none_or(|older| older.sequence == header.previous);
        self.live.push_back(header);
        follows
    }
}

pub(super) fn load(files: &SharedFiles, directory: u64) -> Result<Headers, LogError> {
    let mut headers = Headers { live: VecDeque::new(), replaced: Vec::new() };
    for sequence in sequences(files)? {
        let header = load_header(files, sequence, directory)?;
        if !headers.push(header) {
            let reason = "the file before this one is missing";
            return Err(corrupt(files, header.previous, 0, header.first - 1, reason));
        }
    }
    Ok(headers)
}

/// Of the segment files that are there, rising.
pub(super) fn sequences(files: &SharedFiles) -> Result<Vec<u64>, LogError> {
    let mut sequences: Vec<u64> =
        space::list(files)?.iter().filter_map(|name| segment_sequence(name)).collect();
    sequences.sort_unstable();
    Ok(sequences)
}

pub(super) fn load_header(
    files: &SharedFiles,
    sequence: u64,
    directory: u64,
) -> Result<SegmentHeader, LogError> {
    let name = segment_name(sequence);
    let file = space::open(files, &name)?;
    let foreign =
        |reason: String| LogError::Foreign { file: files.path(&name).display().to_string(), reason };
    let header = match SegmentHeader::decode(&read_header(files, &*file, &name)?) {
        Ok(header) => header,
        Err(BadHeader::Version(version)) => {
            return Err(foreign(format!(
                "it has format version {version}, which this release does not know; use a newer release"
            )));
        }
        Err(BadHeader::NotASegment) => {
            return Err(corrupt(files, sequence, 0, 0, "this is no segment file any more"));
        }
        Err(BadHeader::Checksum) => {
            return Err(corrupt(files, sequence, 0, 0, "the file header has a wrong checksum"));
        }
    };
    if header.directory != directory {
        return Err(foreign(format!(
            "it is part of data directory {:016x}, not {directory:016x}; put the right files back",
            header.directory
        )));
    }
    if header.sequence != sequence || header.first == 0 {
        return Err(corrupt(files, sequence, 0, header.first, "this is another file under a wrong name"));
    }
    let length = file.len().map_err(|source| failure(files, "measure", &name, source))?;
    if length < header.size {
        return Err(corrupt(files, sequence, length, header.first, "the file was cut short"));
    }
    Ok(header)
}

/// Without an identity no open has ever finished, so nothing was ever appended: an empty first file may be there. Anything
/// more means that the identity was lost, and with it the proof of what this directory is.
fn forget_unborn(
    files: &SharedFiles,
    space: &Space,
    headers: &mut VecDeque<SegmentHeader>,
) -> Result<(), LogError> {
    while let Some(header) = headers.pop_back() {
        if header.first != 1 || Last::read(files, header)?.tail.end.index != 1 {
            return Err(LogError::Corrupt {
                file: files.path(identity::IDENTITY).display().to_string(),
                offset: 0,
                index: 0,
                reason: "the identity is missing although there are records".to_string(),
            });
        }
        space.discard(header.sequence)?;
    }
    Ok(())
}

/// The file that the last owner was writing.
struct Last {
    header: SegmentHeader,
    file: Box<dyn File>,
    image: Vec<u8>,
    tail: Tail,
}

impl Last {
    fn read(files: &SharedFiles, header: SegmentHeader) -> Result<Self, LogError> {
        let name = segment_name(header.sequence);
        let file = space::open(files, &name)?;
        // What a dead process handed to the system is flushed first; what an earlier flush failed to write is only in the
        // cache, which is then dropped. What is read is what the disk has.
        uninterrupted(|| file.sync_data()).map_err(|source| failure(files, "flush", &name, source))?;
        file.drop_cache().map_err(|source| failure(files, "drop the cache of", &name, source))?;
        let image = read_range(files, &*file, &name, u64::MAX)?;
        let tail = find_end(&image, &header)
            .map_err(|broken| corrupt(files, header.sequence, broken.offset, broken.index, broken.reason))?;
        Ok(Self { header, file, image, tail })
    }

    /// Says in the file itself that another one continues it from `at`. Not flushed: the other file's header is proof enough,
    /// the seal only tells if that whole file is lost one day.
    fn seal(&self, files: &SharedFiles, at: &Cursor, next: &SegmentHeader) -> Result<(), LogError> {
        let seal = RecordHeader::mark(Kind::Seal, at.index, next.epoch, at.index - 1, at.chain);
        write_all_at(&*self.file, &seal.encode(self.header.salt()).0, at.offset as u64)
            .map_err(|source| failure(files, "write", &segment_name(self.header.sequence), source))
    }
}

/// Where the log ends, if this is its last file.
pub(super) fn find_end(image: &[u8], header: &SegmentHeader) -> Result<Tail, Broken> {
    let tail = examine(image, header)?;
    if tail.sealed {
        let Cursor { offset, index, .. } = tail.end;
        let reason = "the file that continues the log is missing";
        return Err(Broken { offset: offset as u64, index, reason });
    }
    Ok(tail)
}

/// The fresh file to be.
struct Copy {
    header: SegmentHeader,
    records: Vec<u8>,
    /// Behind the last record.
    end: Cursor,
    /// Where the original ends from now on; `None` if nothing of it is needed any more.
    seal: Option<Cursor>,
}

impl Copy {
    fn plan(last: Option<&Last>, before: &VecDeque<SegmentHeader>, options: &Options, space: &Space) -> Self {
        let previous = before.back().map_or(0, |header| header.sequence);
        let mut header = SegmentHeader {
            directory: options.directory,
            sequence: 1 + space.sequence_max,
            previous,
            first: 1,
            epoch: 1,
            synced: 0,
            size: 0,
            chain: 0,
        };
        let Some(last) = last else {
            let end = Cursor::start(&header);
            return Self { header, records: Vec::new(), end, seal: None };
        };
        let Tail { end, synced, .. } = last.tail;
        header.sequence = 1 + last.header.sequence.max(space.sequence_max);
        header.epoch = 1 + last.header.epoch.max(end.epoch);
        // All of the copy is flushed before the file gets its name.
        header.synced = end.index - 1;
        let small = end.offset as u64 <= options.segment_bytes / 2;
        let from = if small { last.header.first } else { last.header.first.max(synced + 1) };
        let start = last.cursor_at(from);
        let seal = (from > last.header.first).then_some(start);
        if seal.is_some() {
            header.previous = last.header.sequence;
        }
        header.first = from;
        header.chain = start.chain;
        let (records, end) = last.copy(&header);
        Self { header, records, end, seal }
    }
}

impl Last {
    fn cursor_at(&self, index: u64) -> Cursor {
        let Ok(cursor) =
            walk(&self.image, &self.header, index, |_, _, _| Ok::<_, std::convert::Infallible>(()));
        cursor
    }

    /// The records from `fresh.first` on, as they are to stand in the file with that header.
    fn copy(&self, fresh: &SegmentHeader) -> (Vec<u8>, Cursor) {
        let mut records = Vec::new();
        let mut end = Cursor::start(fresh);
        let Ok(_) = walk(&self.image, &self.header, u64::MAX, |record, payload, _| {
            if record.index >= fresh.first {
                let header = RecordHeader { synced: fresh.synced, chain: end.chain, ..*record };
                end.chain = put_entry(&mut records, fresh.salt(), header, payload);
                end.index = record.index + 1;
                end.epoch = record.epoch;
            }
            Ok::<_, std::convert::Infallible>(())
        });
        end.offset = SEGMENT_HEADER + records.len();
        (records, end)
    }
}
