//! What a shard's checkpoint is made of, as one record among the others: so it is true at every moment.
//!
//! ```text
//! version (1) | may hold plain values (1) | number of keys (LEB128) | key ids (8 each) | number of dictionaries (LEB128)
//! ```
//!
//! Version 1 ends with the keys. It is still written where there is no dictionary, so that the release before reads it.

use super::{dictionary::DICTIONARIES_MAX, key::KeyId};
use kit::codec::{Malformed, Reader, put_bool, put_u64};
use std::collections::BTreeSet;

const WITHOUT_DICTIONARIES: u8 = 1;
const VERSION: u8 = 2;

/// Which keys and dictionaries a checkpoint needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Values may be there that are not encrypted.
    pub(crate) plain: bool,
    /// Every key that a value may be encrypted with.
    pub(crate) keys: BTreeSet<KeyId>,
    /// They have the numbers from 1 to this.
    pub(crate) dictionaries: u32,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.dictionaries == 0 { WITHOUT_DICTIONARIES } else { VERSION }];
        put_bool(&mut out, self.plain);
        put_u64(&mut out, self.keys.len() as u64);
        self.keys.iter().for_each(|id| out.extend_from_slice(&id.0));
        if self.dictionaries > 0 {
            put_u64(&mut out, self.dictionaries.into());
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8("version")?;
        if version != VERSION && version != WITHOUT_DICTIONARIES {
            return Err(reader.malformed("version (written by a newer release?)"));
        }
        let plain = reader.bool("plain")?;
        let mut keys = BTreeSet::new();
        for _ in 0..reader.u64("number of keys")? {
            let mut id = [0; 8];
            id.copy_from_slice(reader.take(8, "key id")?);
            keys.insert(KeyId(id));
        }
        let dictionaries = if version == VERSION { reader.u32("number of dictionaries")? } else { 0 };
        if dictionaries as usize > DICTIONARIES_MAX {
            return Err(reader.malformed("number of dictionaries"));
        }
        reader.finish("manifest")?;
        Ok(Self { plain, keys, dictionaries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_and_nothing_else_does() {
        for dictionaries in [0, 1, 200] {
            let manifest =
                Manifest { plain: true, keys: [KeyId([1; 8]), KeyId([2; 8])].into(), dictionaries };
            let bytes = manifest.encode();
            assert_eq!(bytes[0], if dictionaries == 0 { 1 } else { 2 });
            assert_eq!(Manifest::decode(&bytes), Ok(manifest));
            for length in 0..bytes.len() {
                assert!(Manifest::decode(&bytes[..length]).is_err());
            }
            assert!(Manifest::decode(&[&[3], &bytes[1..]].concat()).is_err());
        }
        let many = Manifest { dictionaries: 256, ..Manifest::default() };
        assert!(Manifest::decode(&many.encode()).is_err());
    }
}
