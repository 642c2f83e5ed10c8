//! Keys: read, named, and what is derived from them.
//!
//! A key is 32 random bytes. Nothing is encrypted with those bytes themselves: HMAC-SHA-256 under them gives one key for values,
//! one for the names of hidden keys, and the id, which says nothing about the others.

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aes::{Aes256, cipher::BlockCipherEncrypt as _},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use std::{fmt, path::Path, path::PathBuf, sync::Arc};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY: usize = 32;
/// Keys in one ring.
const KEYS_MAX: usize = 16;
/// A larger file holds no keys.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The public name of a key, derived from it: eight bytes, shown in hexadecimal. Stands in everything the key encrypts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(crate) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why keys cannot be used, or data not be read with them. No text ever shows a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A line is no key.
    #[error(
        "line {line} of the encryption keys is no key: expected 32 bytes in base64, as `millpond key generate` prints them"
    )]
    Malformed {
        /// Counted from 1.
        line: usize,
    },
    /// No line holds a key.
    #[error("there is no key among the encryption keys; `millpond key generate` makes one")]
    Empty,
    /// Too many keys.
    #[error("more than {limit} encryption keys; retire old ones with `millpond key rotate`")]
    TooMany {
        /// The most there may be.
        limit: usize,
    },
    /// The same key twice.
    #[error("the encryption key {id} is there twice; remove one of the two lines")]
    Twice {
        /// Which.
        id: KeyId,
    },
    /// Data is encrypted with keys that were not given.
    #[error(
        "data here is encrypted with {}, and {}; give the missing key as well (encryption_key_file or MILLPOND_ENCRYPTION_KEY), below the one that new data is to have",
        named(.missing), if .given.is_empty() { "no key was given".to_owned() } else { format!("only {} was given", named(.given)) }
    )]
    Missing {
        /// The keys that are needed.
        missing: Vec<KeyId>,
        /// The keys that are there.
        given: Vec<KeyId>,
    },
    /// The file of keys cannot be read.
    #[error("cannot read the encryption keys in {path}: {reason}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The system gave no random bytes.
    #[error(
        "the system gives no random bytes ({reason}), so nothing can be encrypted; check the system, then restart"
    )]
    NoRandomness {
        /// What it said.
        reason: String,
    },
}

fn named(ids: &[KeyId]) -> String {
    let ids: Vec<String> = ids.iter().map(KeyId::to_string).collect();
    format!("key {}", ids.join(", "))
}

/// Fills `bytes` with randomness of the system.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), KeyError> {
    getrandom::fill(bytes).map_err(|error| KeyError::NoRandomness { reason: error.to_string() })
}

/// One key. Its bytes are wiped from memory with the last clone.
#[derive(Clone)]
pub struct Key(Arc<Derived>);

struct Derived {
    id: KeyId,
    /// Encrypts nothing itself: it gives each batch of values a key of its own.
    values: Aes256,
    names: Zeroizing<[u8; KEY]>,
}

impl Key {
    fn new(secret: &[u8; KEY]) -> Self {
        let values = derive(secret, b"millpond at rest 1: values");
        let names = derive(secret, b"millpond at rest 1: names");
        let mut id = [0; 8];
        id.copy_from_slice(&derive(secret, b"millpond at rest 1: id")[..8]);
        Self(Arc::new(Derived { id: KeyId(id), values: Aes256::new((&*values).into()), names }))
    }

    /// A fresh key as a line of text, to be kept where only the server can read it.
    pub fn generate() -> Result<Zeroizing<String>, KeyError> {
        let mut secret = Zeroizing::new([0; KEY]);
        random(&mut *secret)?;
        Ok(Zeroizing::new(BASE64_STANDARD.encode(*secret)))
    }

    /// Its public name.
    pub fn id(&self) -> KeyId {
        self.0.id
    }

    /// The cipher of all nonces that begin with `prefix`, as XAES-256-GCM derives it (c2sp.org/XAES-256-GCM).
    pub(crate) fn cipher(&self, prefix: &[u8; 12]) -> Aes256Gcm {
        cipher_of(&self.0.values, prefix)
    }

    /// What stands in the place of a name that is not to be seen: the same name always has the same one.
    pub(crate) fn hidden_name(&self, place: &[u8], name: &[u8]) -> [u8; 16] {
        let mac = mac(&self.0.names).chain_update(place).chain_update(name).finalize().into_bytes();
        let mut hidden = [0; 16];
        hidden.copy_from_slice(&mac[..16]);
        hidden
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.id)
    }
}

fn mac(key: &[u8; KEY]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

fn derive(secret: &[u8; KEY], purpose: &[u8]) -> Zeroizing<[u8; KEY]> {
    Zeroizing::new(mac(secret).chain_update(purpose).finalize().into_bytes().into())
}

fn cipher_of(key: &Aes256, prefix: &[u8; 12]) -> Aes256Gcm {
    // CMAC's first subkey, then NIST SP 800-108 in counter mode with CMAC, for two blocks of one cipher call each.
    let mut subkey = [0; 16];
    key.encrypt_block((&mut subkey).into());
    let doubled = u128::from_be_bytes(subkey);
    let subkey = (doubled << 1) ^ if doubled >> 127 == 1 { 0x87 } else { 0 };
    let mut derived = Zeroizing::new([0; KEY]);
    for (counter, half) in (1..).zip(derived.chunks_exact_mut(16)) {
        let mut block = [0, counter, b'X', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        block[4..].copy_from_slice(prefix);
        let mut block = (u128::from_be_bytes(block) ^ subkey).to_be_bytes();
        key.encrypt_block((&mut block).into());
        half.copy_from_slice(&block);
    }
    Aes256Gcm::new((&*derived).into())
}

/// Keys in order: the first encrypts, all decrypt. Empty for no encryption. Cheap to clone.
#[derive(Clone, Default)]
pub struct Keyring(Arc<[Key]>);

impl Keyring {
    /// Reads keys from text: one a line, 32 bytes in base64. Empty lines and lines that begin with `#` are passed over.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys: Vec<Key> = Vec::new();
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut bytes = Zeroizing::new([0; KEY + 1]);
            let secret = match BASE64_STANDARD.decode_slice(text, &mut *bytes) {
                Ok(KEY) => bytes.first_chunk().ok_or(KeyError::Malformed { line })?,
                Ok(_) | Err(_) => return Err(KeyError::Malformed { line }),
            };
            let key = Key::new(secret);
            if keys.iter().any(|known| known.id() == key.id()) {
                return Err(KeyError::Twice { id: key.id() });
            }
            keys.push(key);
            if keys.len() > KEYS_MAX {
                return Err(KeyError::TooMany { limit: KEYS_MAX });
            }
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self(keys.into())) }
    }

    /// Reads keys from a file; see [`Keyring::parse`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let unreadable = |reason: String| KeyError::Unreadable { path: path.to_path_buf(), reason };
        let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if size > FILE_BYTES_MAX {
            return Err(unreadable(format!("{size} bytes are no file of keys")));
        }
        let bytes = Zeroizing::new(std::fs::read(path).map_err(|error| unreadable(error.to_string()))?);
        let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("it is not text".to_owned()))?;
        Self::parse(text)
    }

    /// True if nothing is to be encrypted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids, in order; the first is that of new data.
    pub fn ids(&self) -> Vec<KeyId> {
        self.0.iter().map(Key::id).collect()
    }

    pub(crate) fn current(&self) -> Option<&Key> {
        self.0.first()
    }

    pub(crate) fn keys(&self) -> &[Key] {
        &self.0
    }

    pub(crate) fn find(&self, id: KeyId) -> Result<&Key, KeyError> {
        let found = self.0.iter().find(|key| key.id() == id);
        found.ok_or_else(|| KeyError::Missing { missing: vec![id], given: self.ids() })
    }

    /// Refuses unless every one of `ids` is here.
    pub(crate) fn require(&self, ids: impl IntoIterator<Item = KeyId>) -> Result<(), KeyError> {
        let missing: Vec<KeyId> = ids.into_iter().filter(|id| self.find(*id).is_err()).collect();
        if missing.is_empty() { Ok(()) } else { Err(KeyError::Missing { missing, given: self.ids() }) }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

impl PartialEq for Keyring {
    fn eq(&self, other: &Self) -> bool {
        self.ids() == other.ids()
    }
}

impl Eq for Keyring {}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_gcm::aead::AeadInOut as _;

    #[test]
    fn the_cipher_is_that_of_the_published_vectors() {
        for (key, aad, expected) in [
            (1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            (3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ] {
            let cipher = cipher_of(&Aes256::new(&[key; 32].into()), b"ABCDEFGHIJKL");
            let mut text = b"XAES-256-GCM".to_vec();
            let nonce = b"MNOPQRSTUVWX".into();
            let tag = cipher.encrypt_inout_detached(nonce, aad.as_bytes(), (&mut text[..]).into()).unwrap();
            let found: String = text.iter().chain(tag.iter()).map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn keys_are_read_in_order_and_never_shown() {
        let (first, second) = (Key::generate().unwrap(), Key::generate().unwrap());
        let ring = Keyring::parse(&format!("# new\n{}\n\n  {}  \n", *first, *second)).unwrap();
        assert_eq!(ring.keys().len(), 2);
        assert_eq!(ring.ids()[0], Keyring::parse(&first).unwrap().ids()[0]);
        let shown = format!("{ring:?} {:?}", ring.keys());
        assert!(!shown.contains(&first[..12]) && shown.contains(&ring.ids()[1].to_string()), "{shown}");
    }

    #[test]
    fn what_is_no_key_is_refused_without_repeating_it() {
        let key = Key::generate().unwrap();
        for (text, says) in [
            ("", "there is no key"),
            ("# nothing\n", "there is no key"),
            ("secret-canary", "line 1"),
            (&format!("{}\n{}A", *key, &key[..43]), "line 2"),
            (&key[..40], "line 1"),
            (&format!("{0}\n{0}", *key), "twice"),
        ] {
            let refusal = Keyring::parse(text).unwrap_err().to_string();
            assert!(refusal.contains(says) && !refusal.contains("canary"), "{refusal}");
        }
    }

    #[test]
    fn a_missing_key_is_named_beside_those_that_were_given() {
        let (given, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let (given, other) = (Keyring::parse(&given).unwrap(), Keyring::parse(&other).unwrap());
        let refusal = given.require(other.ids()).unwrap_err().to_string();
        assert!(refusal.contains(&other.ids()[0].to_string()), "{refusal}");
        assert!(refusal.contains(&format!("only key {}", given.ids()[0])), "{refusal}");
        let refusal = Keyring::default().require(other.ids()).unwrap_err().to_string();
        assert!(refusal.contains("no key was given"), "{refusal}");
    }
}
