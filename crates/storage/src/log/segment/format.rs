//! The bytes of a segment file. Version 1; all numbers little-endian.
//!
//! ```text
//! file     | header, 512 | record | record | ... | mark | free: zeros, or bytes of an earlier life |
//!
//! header    0  8  "MPSEGMT\n"
//!           8  4  version                     a reader refuses versions it does not know
//!          12  4  crc of bytes 16..512
//!          16  8  directory                   which data directory this file belongs to
//!          24  8  sequence                    number of this file, never used twice in a directory
//!          32  8  previous                    sequence of the file whose records come before; 0 for none
//!          40  8  first                       index of the first record in this file
//!          48  8  epoch                       of the owner that made the file: this is the epoch record
//!          56  8  synced                      every record up to this index was on the disk when the file got its name
//!          64  8  size                        of the file in bytes; a shorter file was cut
//!          72  4  chain                       header crc of record first-1; 0 for none
//!          76     zeros
//!
//! record    0  4  "MPR1"
//!           4  4  crc of bytes 8..48          covers the payload too, through its crc
//!           8  4  length of the payload
//!          12  4  crc of payload and padding
//!          16  8  index
//!          24  8  epoch                       of the owner that appended it
//!          32  8  synced                      every record up to this index was on the disk when this one was encoded
//!          40  4  chain                       header crc of the record before
//!          44  2  shard
//!          46  1  kind                        1 entry, 2 mark, 3 seal
//!          47  1  zero
//!          48     payload, then zeros up to a multiple of 8
//! ```
//!
//! Every CRC-32C starts from a *salt*: the CRC of directory and sequence. A CRC is a bijection of its start value, and two
//! sequences that differ in at most 32 adjacent bits have different salts, so a record of another file, or of an earlier
//! life of this file, never passes for one of this file.
//!
//! A *mark* is written behind the last record when a flush has reached the disk, without a flush of its own; the next
//! record takes its place. It says "all up to `synced` was on the disk" when no later record does. A *seal* is a mark
//! that says as well that a file with a higher sequence continues the log.
//!
//! **Changing the layout.** Raise [`VERSION`]; keep reading every older version (a fixture of each is in `fixtures/`).
//! Opening copies the unfinished end of the log into a fresh file anyway, so the new version starts there and older files
//! leave with trimming. A release that cannot read a version refuses it by number.

pub(crate) const VERSION: u32 = 1;
pub(crate) const SEGMENT_HEADER: usize = 512;
pub(crate) const RECORD_HEADER: usize = 48;
const SEGMENT_MAGIC: [u8; 8] = *b"MPSEGMT\n";
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"MPR1";
/// Records start at multiples of this.
pub(crate) const ALIGN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) directory: u64,
    pub(crate) sequence: u64,
    pub(crate) previous: u64,
    pub(crate) first: u64,
    pub(crate) epoch: u64,
    pub(crate) synced: u64,
    pub(crate) size: u64,
    pub(crate) chain: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// Not a byte of ours: never written, or something else.
    NotASegment,
    Version(u32),
    Checksum,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[0..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let words =
            [self.directory, self.sequence, self.previous, self.first, self.epoch, self.synced, self.size];
        for (at, word) in words.into_iter().enumerate() {
            bytes[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        bytes[72..76].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        if bytes.len() < SEGMENT_HEADER || bytes[0..8] != SEGMENT_MAGIC {
            return Err(BadHeader::NotASegment);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(BadHeader::Version(u32_at(bytes, 8)));
        }
        if u32_at(bytes, 12) != crc32c::crc32c(&bytes[16..SEGMENT_HEADER]) {
            return Err(BadHeader::Checksum);
        }
        Ok(Self {
            directory: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            previous: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            epoch: u64_at(bytes, 48),
            synced: u64_at(bytes, 56),
            size: u64_at(bytes, 64),
            chain: u32_at(bytes, 72),
        })
    }

    /// Where the CRCs of this file's records start from.
    pub(crate) fn salt(&self) -> u32 {
        salt(self.directory, self.sequence)
    }
}

/// Where the CRCs of the records in the file with that sequence start from.
pub(crate) fn salt(directory: u64, sequence: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&directory.to_le_bytes()), &sequence.to_le_bytes())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Entry,
    Mark,
    Seal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) length: u32,
    pub(crate) payload_crc: u32,
    pub(crate) index: u64,
    pub(crate) epoch: u64,
    pub(crate) synced: u64,
    pub(crate) chain: u32,
    pub(crate) shard: u16,
    pub(crate) kind: Kind,
}

impl RecordHeader {
    /// A mark or a seal: `index` is the record that would stand here, all up to `synced` is on the disk.
    pub(crate) fn mark(kind: Kind, index: u64, epoch: u64, synced: u64, chain: u32) -> Self {
        Self { length: 0, payload_crc: 0, index, epoch, synced, chain, shard: 0, kind }
    }

    /// The bytes, and their crc, which the next record's chain repeats.
    pub(crate) fn encode(&self, salt: u32) -> ([u8; RECORD_HEADER], u32) {
        let mut bytes = [0; RECORD_HEADER];
        bytes[0..4].copy_from_slice(&RECORD_MAGIC);
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.index.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.synced.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.chain.to_le_bytes());
        bytes[44..46].copy_from_slice(&self.shard.to_le_bytes());
        bytes[46] = match self.kind {
            Kind::Entry => 1,
            Kind::Mark => 2,
            Kind::Seal => 3,
        };
        let crc = crc32c::crc32c_append(salt, &bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        (bytes, crc)
    }

    /// The header that `bytes` start with and its crc, if it is a whole header of the file with this salt.
    pub(crate) fn decode(bytes: &[u8], salt: u32) -> Option<(Self, u32)> {
        if bytes.len() < RECORD_HEADER || bytes[0..4] != RECORD_MAGIC {
            return None;
        }
        let crc = u32_at(bytes, 4);
        if crc != crc32c::crc32c_append(salt, &bytes[8..RECORD_HEADER]) || bytes[47] != 0 {
            return None;
        }
        let kind = match bytes[46] {
            1 => Kind::Entry,
            2 => Kind::Mark,
            3 => Kind::Seal,
            _ => return None,
        };
        let header = Self {
            length: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 12),
            index: u64_at(bytes, 16),
            epoch: u64_at(bytes, 24),
            synced: u64_at(bytes, 32),
            chain: u32_at(bytes, 40),
            shard: u16::from_le_bytes([bytes[44], bytes[45]]),
            kind,
        };
        Some((header, crc))
    }

    /// Bytes of the whole record in the file.
    pub(crate) fn size(&self) -> usize {
        record_size(self.length as usize)
    }
}

/// Bytes in the file of a record with this much payload.
pub(crate) const fn record_size(payload: usize) -> usize {
    RECORD_HEADER + payload.next_multiple_of(ALIGN)
}

/// Appends an entry to `out` and returns its header crc.
pub(crate) fn put_entry(out: &mut Vec<u8>, salt: u32, mut header: RecordHeader, payload: &[u8]) -> u32 {
    let start = out.len();
    out.resize(start + RECORD_HEADER, 0);
    out.extend_from_slice(payload);
    out.resize(start + record_size(payload.len()), 0);
    header.payload_crc = crc32c::crc32c_append(salt, &out[start + RECORD_HEADER..]);
    let (bytes, crc) = header.encode(salt);
    out[start..start + RECORD_HEADER].copy_from_slice(&bytes);
    crc
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
