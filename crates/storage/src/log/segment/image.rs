//! What the bytes of one segment file mean: pure functions over an image of the file.
//!
//! # Where a log ends, and when that is damage
//!
//! Reading goes from record to record while each is whole and is the one that must come next (index, chain, epoch). Where
//! that stops, record `i` is missing. Two stories lead there, and they must not be confused:
//!
//! 1. **A tail that was never acknowledged.** The power went before a flush ended. Of the bytes written since the flush
//!    before, any sectors may have arrived, so *whole records of that same unfinished flush may follow the hole*.
//!    Cutting the log at the hole loses nothing that anybody was told is on the disk.
//! 2. **Damage.** Record `i` was on the disk, was acknowledged, and no longer is what it was. Cutting here would silently
//!    lose it and everything behind. The log must not be opened.
//!
//! The index of later records cannot tell the stories apart; *when they were written* can. Every record, mark and file
//! header carries `synced`: the highest index that a finished flush had covered when it was encoded. Such a statement is
//! about the past and stays true for ever, wherever it is found. Let `S` be the highest `synced` in this file's header and
//! in every whole record header anywhere in the file, before the hole or behind it. Then
//!
//! - `i <= S`: a flush that covered `i` had returned. This is damage (story 2).
//! - `i > S`: everything behind the hole was encoded before any flush covering `i` had been seen to return, so it belongs
//!   to the same window of unflushed writes as `i`. Cut (story 1).
//!
//! *Nothing acknowledged is cut*, unless its only witnesses are gone as well: an acknowledgement of `i` at `disk` follows
//! a finished flush, and the next thing written to the file, a mark, says so. The mark itself is not flushed (that would double
//! the price of every flush) but a crash of the process cannot take it away, a clean close flushes it, and so does every
//! later flush. What is left is a power cut within the seconds before the system writes the mark back by itself, *and*
//! independent damage to the very last flush: two faults at once, which no layout tells apart from a torn write.
//!
//! *Nothing torn is refused*: while `i` was not covered by a finished flush, nobody can have encoded `synced >= i`.
//!
//! Records acknowledged at `os` follow the same rule: they survive a crash of the process, since the system keeps what was
//! written, and after a power cut they are part of the unflushed window, of which the whole part before the first hole is kept.
//!
//! A file is left behind for a new one only when all its records are flushed, and the new file's header says so. Hence
//! in every file but the last, any hole before the next file's first record is damage.
//!
//! Payloads may contain anything, even the bytes of an old copy of this very file. A record found inside one is still a true
//! statement about the past, so it cannot raise `S` wrongly; and reading in order never looks inside a payload.

use super::format::{ALIGN, Kind, RECORD_HEADER, RECORD_MAGIC, RecordHeader, SEGMENT_HEADER, SegmentHeader};

/// The place where the next record must be, and what it must say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) offset: usize,
    pub(crate) index: u64,
    pub(crate) chain: u32,
    pub(crate) epoch: u64,
}

/// Where and why the bytes of a file cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) offset: u64,
    pub(crate) index: u64,
    pub(crate) reason: &'static str,
}

/// The end of the last file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Behind the last whole record.
    pub(crate) end: Cursor,
    /// The highest index known to have been flushed.
    pub(crate) synced: u64,
    /// A seal was found: a later file exists, or existed.
    pub(crate) sealed: bool,
}

impl Cursor {
    pub(crate) fn start(header: &SegmentHeader) -> Self {
        Self { offset: SEGMENT_HEADER, index: header.first, chain: header.chain, epoch: 0 }
    }

    /// The whole record that stands here, if it is the one that must come next.
    pub(crate) fn record<'a>(&self, image: &'a [u8], salt: u32) -> Option<(RecordHeader, &'a [u8], Cursor)> {
        let bytes = image.get(self.offset..)?;
        let (header, crc) = RecordHeader::decode(bytes, salt)?;
        let expected = header.kind == Kind::Entry
            && header.index == self.index
            && header.chain == self.chain
            && header.epoch >= self.epoch;
        if !expected || header.size() > bytes.len() {
            return None;
        }
        let padded = &bytes[RECORD_HEADER..header.size()];
        if crc32c::crc32c_append(salt, padded) != header.payload_crc {
            return None;
        }
        let next = Cursor {
            offset: self.offset + header.size(),
            index: self.index + 1,
            chain: crc,
            epoch: header.epoch,
        };
        Some((header, &padded[..header.length as usize], next))
    }
}

/// Visits the whole records in order, up to but without index `until`, and returns where that stopped: at `until`, or
/// before it at the first record that is not there.
pub(crate) fn walk<E>(
    image: &[u8],
    header: &SegmentHeader,
    until: u64,
    mut visit: impl FnMut(&RecordHeader, &[u8], &Cursor) -> Result<(), E>,
) -> Result<Cursor, E> {
    let salt = header.salt();
    let mut cursor = Cursor::start(header);
    while cursor.index < until {
        let Some((record, payload, next)) = cursor.record(image, salt) else { break };
        visit(&record, payload, &cursor)?;
        cursor = next;
    }
    Ok(cursor)
}

/// Finds the end of the last file of a log, or the damage in it.
pub(crate) fn examine(image: &[u8], header: &SegmentHeader) -> Result<Tail, Broken> {
    let mut synced = header.synced;
    let walked = walk(image, header, u64::MAX, |record, _, _| {
        synced = synced.max(record.synced);
        Ok::<(), std::convert::Infallible>(())
    });
    let Ok(end) = walked;
    let mut sealed = false;
    for_each_header(image, end.offset, header.salt(), |record| {
        synced = synced.max(record.synced);
        sealed |= record.kind == Kind::Seal;
    });
    if end.index <= synced {
        return Err(Broken {
            offset: end.offset as u64,
            index: end.index,
            reason: "a record that had been flushed to the disk is not whole any more",
        });
    }
    Ok(Tail { end, synced, sealed })
}

/// Calls `seen` for every whole record header at or behind `offset`, whatever its place in the order.
fn for_each_header(image: &[u8], offset: usize, salt: u32, mut seen: impl FnMut(&RecordHeader)) {
    let start = offset.next_multiple_of(ALIGN).min(image.len());
    for (word, bytes) in image[start..].chunks_exact(ALIGN).enumerate() {
        if bytes.starts_with(&RECORD_MAGIC)
            && let Some((header, _)) = RecordHeader::decode(&image[start + word * ALIGN..], salt)
        {
            seen(&header);
        }
    }
}

#[cfg(test)]
mod tests;
