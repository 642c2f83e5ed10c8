//! What lies on the disk, encoded: compressed, encrypted, or as it is.
//!
//! [`EncodedLog`] and [`EncodedCheckpoints`] stand in front of any implementation of the two seams and are implementations
//! themselves, so that every engine has the same encryption, and the same suites prove it. The layout of a value is drawn in
//! `frame.rs`, that of a checkpoint in `checkpoints.rs`, what is derived from a key in `key.rs`.
//!
//! ```
//! use storage::{Key, Keyring, Log, Entry, at_rest::{AtRest, EncodedLog}, log::memory::MemoryStore};
//! let keys = Keyring::parse(&Key::generate()?)?;
//! let (store, at_rest) = (MemoryStore::new(), AtRest { keys, ..AtRest::default() });
//! let mut log = EncodedLog::new(store.open(), at_rest.clone(), 7);
//! log.append(&[Entry { shard: 0, payload: b"a secret" }])?;
//! log.close()?;
//! let mut payload = Vec::new();
//! EncodedLog::new(store.open(), at_rest, 7).read(1, &mut |record| Ok(payload = record.payload))?;
//! assert_eq!(payload, b"a secret");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What stays in the clear: sizes, counts, times of files, log indexes, keys of [`AtRest::clear_kinds`], the ids of keys.

mod checkpoints;
mod compress;
mod dictionary;
mod frame;
mod key;
mod log;
mod manifest;

pub(crate) use checkpoints::encryption_in;
pub use checkpoints::{EncodedCheckpoints, Encryption, copy};
pub use dictionary::DICTIONARIES_MAX;
pub use key::{Key, KeyError, KeyId, Keyring};
pub use log::EncodedLog;

/// How values are kept. None of it needs to stay the same from one open to the next, except that keys in use must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtRest {
    /// The first encrypts, all decrypt. Default: none, nothing is encrypted.
    pub keys: Keyring,
    /// Values of checkpoints are compressed from this many bytes on, if that makes them smaller; 0 for never. Default 512.
    pub compress_from: usize,
    /// Learn dictionaries from the values of each [kin](crate::Change::Put::kin), one of 4 KiB where it makes them at least an eighth
    /// smaller, and compress smaller values with them, too. Not if `compress_from` is 0. Default true. Dictionaries that are there are used for
    /// reading in any case.
    pub dictionaries: bool,
    /// Payloads of the log are compressed from this many bytes on; 0 for never. Default 0.
    pub compress_log_from: usize,
    /// The first bytes of keys that hold nothing but numbers: they stay as they are and in their order. All other keys are hidden
    /// where values are encrypted. A kind that was left out once must be left out for ever. Default: none.
    pub clear_kinds: &'static [u8],
}

impl AtRest {
    /// No encryption; values of checkpoints are compressed where it pays.
    pub const COMPRESS_FROM: usize = 512;

    fn learns(&self) -> bool {
        self.dictionaries && self.compress_from > 0
    }
}

impl Default for AtRest {
    fn default() -> Self {
        Self {
            keys: Keyring::default(),
            compress_from: Self::COMPRESS_FROM,
            dictionaries: true,
            compress_log_from: 0,
            clear_kinds: &[],
        }
    }
}
