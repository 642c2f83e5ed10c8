//! What a shard's checkpoint is made of, as one record among the others: so it is true at every moment.
//!
//! ```text
//! version (1) | may hold plain values (1) | number of keys (LEB128) | key ids (8 each)
//! ```

use super::key::KeyId;
use kit::codec::{Malformed, Reader, put_bool, put_u64};
use std::collections::BTreeSet;

const VERSION: u8 = 1;

/// Which keys a checkpoint needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Values may be there that are not encrypted.
    pub(crate) plain: bool,
    /// Every key that a value may be encrypted with.
    pub(crate) keys: BTreeSet<KeyId>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_bool(&mut out, self.plain);
        put_u64(&mut out, self.keys.len() as u64);
        self.keys.iter().for_each(|id| out.extend_from_slice(&id.0));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8("version")? != VERSION {
            return Err(reader.malformed("version (written by a newer release?)"));
        }
        let plain = reader.bool("plain")?;
        let mut keys = BTreeSet::new();
        for _ in 0..reader.u64("number of keys")? {
            let mut id = [0; 8];
            id.copy_from_slice(reader.take(8, "key id")?);
            keys.insert(KeyId(id));
        }
        reader.finish("manifest")?;
        Ok(Self { plain, keys })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_nothing_else_does() {
        let manifest = Manifest { plain: true, keys: [KeyId([1; 8]), KeyId([2; 8])].into() };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        for length in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..length]).is_err());
        }
        assert!(Manifest::decode(&[&[2], &bytes[1..]].concat()).is_err());
    }
}
