//! What is left of a damaged log: its stretches of whole records, wherever they are. An opening would stop at the first hole.
//!
//! A record says by itself to which file it belongs (its checksum starts from the file's salt) and where in the order it stands, so the
//! records of a file whose header is gone are found, and those behind a hole as well. What a later file has replaced, and what
//! no flush is known to have covered behind the torn end of the last file, was never part of the log and is left out.

use super::{
    Entry, Log, LogError, Record, Visit,
    format::{ALIGN, Kind, RECORD_HEADER, RECORD_MAGIC, RecordHeader, SEGMENT_HEADER, SegmentHeader, salt},
    image::Cursor,
    recover::{lock, sequences},
    space::{self, read_range, segment_name},
    witness,
};
use crate::files::{Lock, SharedFiles};
use kit::Durability;
use std::{collections::BTreeMap, sync::Arc};

/// The whole records of a damaged log. Its server stays stopped as long as this lives.
pub struct Remains {
    files: SharedFiles,
    directory: u64,
    lock: Arc<dyn Lock>,
    stretches: Vec<Vec<Part>>,
    /// Behind the last record that is known to have been there.
    end: u64,
    /// A file that came behind it is missing, so there was more.
    open: bool,
}

/// Records of one file without a hole.
#[derive(Debug, Clone, Copy)]
struct Part {
    sequence: u64,
    start: Cursor,
    end: Cursor,
}

/// The id of the data directory that most segment files say they are part of.
pub(crate) fn any_directory(files: &SharedFiles) -> Result<Option<u64>, LogError> {
    let mut said = BTreeMap::<u64, u64>::new();
    for sequence in sequences(files)? {
        let name = segment_name(sequence);
        let header = space::read_header(files, &*space::open(files, &name)?, &name)?;
        if let Ok(header) = SegmentHeader::decode(&header) {
            *said.entry(header.directory).or_default() += 1;
        }
    }
    Ok(said.into_iter().max_by_key(|(_, files)| *files).map(|(directory, _)| directory))
}

/// What one file has.
#[derive(Default)]
struct Scan {
    parts: Vec<Part>,
    synced: u64,
    sealed: bool,
}

impl Remains {
    /// Reads every segment file of the log of the data directory with the id `directory`. Fails only if the system does not let it, or
    /// if a server has the log open.
    pub fn find(files: SharedFiles, directory: u64) -> Result<Self, LogError> {
        let lock: Arc<dyn Lock> = Arc::from(lock(&files)?);
        let (mut parts, mut until, mut end, mut open) = (Vec::new(), u64::MAX, 1, false);
        for (age, sequence) in sequences(&files)?.into_iter().rev().enumerate() {
            let name = segment_name(sequence);
            let image = read_range(&files, &*space::open(&files, &name)?, &name, u64::MAX)?;
            let header = SegmentHeader::decode(&image).ok().filter(|header| header.sequence == sequence);
            if header.is_some_and(|header| header.directory != directory) {
                continue;
            }
            if header.is_some_and(|header| header.first >= until) {
                // A later file has all of it.
                continue;
            }
            let mut found = scan(&image, directory, sequence, until);
            found.synced = found.synced.max(header.map_or(0, |header| header.synced));
            if age == 0 {
                open = found.sealed;
                found.cut_torn_end(header.map(|header| header.first));
            }
            let last = found.parts.last().map_or(0, |part| part.end.index - 1);
            end = end.max(1 + last.max(found.synced));
            let first = found.parts.first().map(|part| part.start.index);
            until = header.map(|header| header.first).or(first).unwrap_or(until).min(until);
            parts.extend(found.parts.into_iter().rev());
        }
        end = end.max(witness::read(&files)?);
        parts.reverse();
        let mut stretches: Vec<Vec<Part>> = Vec::new();
        for part in parts {
            let follows =
                |before: &Part| (before.end.index, before.end.chain) == (part.start.index, part.start.chain);
            match stretches.last_mut() {
                Some(stretch) if stretch.last().is_some_and(follows) => stretch.push(part),
                _ => stretches.push(vec![part]),
            }
        }
        Ok(Self { files, directory, lock, stretches, end, open })
    }

    /// Each stretch of records without a hole, in order, as a log that takes no appends.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> {
        self.stretches.iter().map(|parts| Stretch {
            files: self.files.clone(),
            directory: self.directory,
            _lock: self.lock.clone(),
            parts: parts.clone(),
        })
    }

    /// Behind the last record that is known to have been there, whole or not.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether there was more behind that, and nothing tells how much: a whole file is missing.
    pub fn open(&self) -> bool {
        self.open
    }
}

impl Scan {
    /// Behind a hole that no flush is known to have covered come records of the same unfinished flush, which nobody was told of.
    fn cut_torn_end(&mut self, first: Option<u64>) {
        let mut expected = first.or(self.parts.first().map(|part| part.start.index)).unwrap_or(1);
        let mut whole = 0;
        for part in &self.parts {
            if part.start.index != expected && expected > self.synced {
                break;
            }
            whole += 1;
            expected = part.end.index;
        }
        self.parts.truncate(whole);
    }
}

/// Every whole record of a file's image below `until`, up to a seal.
fn scan(image: &[u8], directory: u64, sequence: u64, until: u64) -> Scan {
    let salt = salt(directory, sequence);
    let mut found = Scan::default();
    let mut offset = SEGMENT_HEADER;
    // The first index that may come next: what is older is of no use.
    let mut least = 1;
    while let Some(bytes) = image.get(offset..).filter(|bytes| bytes.len() >= RECORD_HEADER) {
        let header = bytes.starts_with(&RECORD_MAGIC).then(|| RecordHeader::decode(bytes, salt)).flatten();
        let Some((header, _)) = header else {
            offset += ALIGN;
            continue;
        };
        found.synced = found.synced.max(header.synced);
        if header.kind == Kind::Seal {
            found.sealed = true;
            break;
        }
        let start = Cursor { offset, index: header.index, chain: header.chain, epoch: header.epoch };
        let mut end = start;
        while let Some((record, _, next)) = end.record(image, salt).filter(|_| end.index < until) {
            found.synced = found.synced.max(record.synced);
            end = next;
        }
        if end.index == start.index || start.index < least {
            offset += ALIGN;
            continue;
        }
        found.parts.push(Part { sequence, start, end });
        (offset, least) = (end.offset, end.index);
    }
    found
}

/// Records without a hole, behind the seam of a log; appends are refused.
pub struct Stretch {
    files: SharedFiles,
    directory: u64,
    _lock: Arc<dyn Lock>,
    parts: Vec<Part>,
}

impl Stretch {
    /// Leaves out the record `index` and all behind it.
    pub fn cut(&mut self, index: u64) {
        self.parts.retain(|part| part.start.index < index);
        if let Some(last) = self.parts.last_mut() {
            last.end.index = last.end.index.min(index);
        }
    }
}

impl Log for Stretch {
    fn epoch(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.end.epoch)
    }

    fn first(&self) -> u64 {
        self.parts.first().map_or(1, |part| part.start.index)
    }

    fn next(&self) -> u64 {
        self.parts.last().map_or(1, |part| part.end.index)
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
        for part in self.parts.iter().filter(|part| part.end.index > from) {
            let name = segment_name(part.sequence);
            let image = read_range(&self.files, &*space::open(&self.files, &name)?, &name, u64::MAX)?;
            let salt = salt(self.directory, part.sequence);
            let mut cursor = part.start;
            while cursor.index < part.end.index {
                let Some((header, payload, next)) = cursor.record(&image, salt) else {
                    let reason = "a record is not whole any more";
                    return Err(super::corrupt(
                        &self.files,
                        part.sequence,
                        cursor.offset as u64,
                        cursor.index,
                        reason,
                    ));
                };
                if header.index >= from {
                    visit(Record {
                        index: header.index,
                        epoch: header.epoch,
                        shard: header.shard,
                        payload: payload.to_vec(),
                    })?;
                }
                cursor = next;
            }
        }
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
