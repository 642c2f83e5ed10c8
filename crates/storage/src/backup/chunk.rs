use kit::codec::{Malformed, Reader, put_bytes};
use sha2::{Digest as _, Sha256};
use std::fmt;

const MAGIC: &[u8; 8] = b"MPCHUNK1";
/// A chunk has this many bytes, about.
const BYTES: u64 = 1 << 20;
/// It has at least so many, unless it is the last.
const BYTES_MIN: usize = 256 << 10;
/// It ends after the first value that takes it beyond this.
const BYTES_MAX: usize = 8 << 20;
/// What a reader takes: the largest chunk, whose last value may be as large as values are.
pub(super) const READ_MAX: u64 =
    (BYTES_MAX + crate::checkpoints::VALUE_MAX + crate::checkpoints::KEY_MAX + 64) as u64;

/// The SHA-256 of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// What [`fmt::Display`] wrote.
    pub fn parse(hex: &str) -> Option<Self> {
        let digits = hex.as_bytes();
        if digits.len() != 64 || digits.iter().any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Cuts keys and values, which come in rising order, into chunks.
#[derive(Debug)]
pub struct Cutter {
    bytes: Vec<u8>,
    values: u64,
}

/// A stretch of keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its content.
    pub bytes: Vec<u8>,
    /// How many values are in it.
    pub values: u64,
}

impl Default for Cutter {
    fn default() -> Self {
        Self { bytes: MAGIC.to_vec(), values: 0 }
    }
}

impl Cutter {
    /// Takes the next key and value. Gives back a chunk if it ends there.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Option<Chunk> {
        let before = self.bytes.len();
        put_bytes(&mut self.bytes, key);
        put_bytes(&mut self.bytes, value);
        self.values += 1;
        let size = (self.bytes.len() - before) as u64;
        // The larger a value is, the likelier a chunk ends with it: so the distance of the ends follows the bytes.
        let chance = kit::random::mix(u64::from(crc32c::crc32c(key)), 0) >> 32;
        let ends = chance.saturating_mul(BYTES) < size.saturating_mul(1 << 32);
        let cut = self.bytes.len() >= BYTES_MAX || ends && self.bytes.len() >= BYTES_MIN;
        cut.then(|| self.take())
    }

    /// The last chunk, if anything is left.
    pub fn finish(mut self) -> Option<Chunk> {
        (self.values > 0).then(|| self.take())
    }

    fn take(&mut self) -> Chunk {
        let Self { bytes, values } = std::mem::take(self);
        Chunk { bytes, values }
    }
}

/// Visits the keys and values of a chunk, in order.
pub(super) fn read<E>(
    bytes: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), E>,
) -> Result<Result<u64, E>, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len(), "chunk")? != MAGIC {
        return Err(reader.malformed("chunk (written by a newer release?)"));
    }
    let mut values = 0;
    while reader.remaining() > 0 {
        let key = reader.bytes("key")?;
        let value = reader.bytes("value")?;
        if let Err(error) = visit(key, value) {
            return Ok(Err(error));
        }
        values += 1;
    }
    Ok(Ok(values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn chunks(keys: impl Iterator<Item = u64>, size: usize) -> Vec<Chunk> {
        let mut cutter = Cutter::default();
        let mut chunks: Vec<_> =
            keys.filter_map(|key| cutter.push(&key.to_be_bytes(), &vec![key as u8; size])).collect();
        chunks.extend(cutter.finish());
        chunks
    }

    #[test]
    fn every_key_and_value_is_in_a_chunk_once_and_in_order() {
        let mut next = 0u64;
        for chunk in chunks(0..20_000, 1_000) {
            let values = read(&chunk.bytes, |key, value| {
                assert_eq!((key, value), (&next.to_be_bytes()[..], &vec![next as u8; 1_000][..]));
                next += 1;
                Ok::<_, ()>(())
            });
            assert_eq!(values, Ok(Ok(chunk.values)));
        }
        assert_eq!(next, 20_000);
    }

    #[test]
    fn chunks_are_of_a_middling_size_whatever_the_values() {
        for (count, size) in [(300_000, 100), (30_000, 1_000), (800, 50_000), (20, 3 << 20)] {
            let chunks = chunks(0..count, size);
            assert!((3..=120).contains(&chunks.len()), "{} of values of {size}", chunks.len());
            assert!(chunks.iter().all(|chunk| chunk.bytes.len() <= BYTES_MAX + size + 32));
        }
    }

    #[test]
    fn a_change_leaves_almost_all_chunks_as_they_were() {
        let before: BTreeSet<_> =
            chunks(0..60_000, 1_000).iter().map(|chunk| ChunkId::of(&chunk.bytes)).collect();
        let gone = [7, 30_000, 30_001];
        let after = chunks((0..60_100).filter(|key| !gone.contains(key)), 1_000);
        let new = after.iter().filter(|chunk| !before.contains(&ChunkId::of(&chunk.bytes))).count();
        assert!((1..=6).contains(&new), "{new} of {} are new", after.len());
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        let id = ChunkId::of(b"x");
        assert_eq!(ChunkId::parse(&id.to_string()), Some(id));
        let text = id.to_string();
        for bad in [&text[1..], &text.to_uppercase(), &format!("+{}", &text[1..])] {
            assert_eq!(ChunkId::parse(bad), None);
        }
    }
}
