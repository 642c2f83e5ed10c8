use super::ChunkId;
use crate::at_rest::KeyId;
use kit::Timestamp;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

pub(super) const NAME: &str = "manifest";
/// Longer manifests are not read: this one names four million chunks.
pub(super) const LENGTH_MAX: u64 = 512 << 20;
const FORMAT: u32 = 1;

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    /// The id of the data directory that it was made of.
    pub directory: u64,
    /// The newest command that it knows.
    pub position: u64,
    /// When it was made.
    pub taken: Timestamp,
    /// Whether values may be there that are not encrypted.
    pub plain: bool,
    /// The keys that are needed to read it.
    pub keys: Vec<KeyId>,
    /// Its chunks with their bytes and values, in the order of their keys.
    pub chunks: Vec<(ChunkId, u64, u64)>,
}

impl Manifest {
    /// Values in it.
    pub fn values(&self) -> u64 {
        self.chunks.iter().map(|(.., values)| values).sum()
    }

    /// Bytes of its chunks.
    pub fn bytes(&self) -> u64 {
        self.chunks.iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// As text.
    pub fn render(&self) -> String {
        let Self { directory, position, taken, plain, keys, chunks } = self;
        let mut text = format!(
            "millpond backup\nformat = {FORMAT}\ndirectory = {directory:016x}\nposition = {position}\ntaken = {}\nplain = {plain}\n",
            taken.0
        );
        // Writing to a string cannot fail.
        for key in keys {
            let _ = writeln!(text, "key = {key}");
        }
        for (id, bytes, values) in chunks {
            let _ = writeln!(text, "chunk = {id} {bytes} {values}");
        }
        let checksum = ChunkId(Sha256::digest(text.as_bytes()).into());
        let _ = writeln!(text, "checksum = {checksum}");
        text
    }

    /// What [`Manifest::render`] wrote; otherwise what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
        let mut lines = text.lines();
        if lines.next() != Some("millpond backup") {
            return Err("it is not the manifest of a millpond backup".to_owned());
        }
        let mut manifest = Self::default();
        for line in lines {
            let (name, value) = line.split_once(" = ").ok_or("a line is not `name = value`")?;
            let number = || value.parse::<u64>().map_err(|_| format!("`{name}` is no number"));
            let hex = || u64::from_str_radix(value, 16).map_err(|_| format!("`{name}` is no number"));
            match name {
                "format" if value != FORMAT.to_string() => {
                    return Err(format!(
                        "it has format {value} and this release knows format {FORMAT}; use a newer release"
                    ));
                }
                "directory" => manifest.directory = hex()?,
                "position" => manifest.position = number()?,
                "taken" => manifest.taken = Timestamp(number()?),
                "plain" => manifest.plain = value == "true",
                "key" => manifest.keys.push(KeyId(hex()?.to_be_bytes())),
                "chunk" => manifest.chunks.push(chunk(value).ok_or("a chunk cannot be read")?),
                _ => {}
            }
        }
        if manifest.render() != text {
            return Err("its checksum is wrong".to_owned());
        }
        Ok(manifest)
    }
}

fn chunk(value: &str) -> Option<(ChunkId, u64, u64)> {
    let mut words = value.split(' ');
    Some((ChunkId::parse(words.next()?)?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_nothing_that_differs_does() {
        let manifest = Manifest {
            directory: 0xC0_FFEE,
            position: 1_234,
            taken: Timestamp(1_700_000_000_000),
            plain: true,
            keys: vec![KeyId([1; 8]), KeyId([0xF0; 8])],
            chunks: vec![(ChunkId::of(b"a"), 10, 1), (ChunkId::of(b"b"), 20, 2)],
        };
        let text = manifest.render();
        assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest));
        for at in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1;
            assert!(Manifest::parse(&bad).is_err(), "byte {at}");
            assert!(Manifest::parse(&text.as_bytes()[..at]).is_err(), "cut at {at}");
        }
    }
}
