//! One value as it lies on the disk.
//!
//! ```text
//! as it is     any bytes that do not begin with F5
//! escaped      F5 00 | the value                      one that begins with F5 itself
//! compressed   F5 01 | length (LEB128) | Zstandard
//! encrypted    F5 02 | key id (8) | nonce (24) | ciphertext | tag (16)
//! hidden       F5 03 | key id (8) | nonce (24) | ciphertext | tag (16)
//! small        F5 04 | Zstandard with a dictionary, without the four bytes that it always begins with
//! ```
//!
//! The plaintext of an encrypted value is one of the others: it is compressed first. That of a hidden one has its name in front
//! (length-prefixed), because the name that it is stored under says nothing. The cipher is XAES-256-GCM: AES-256-GCM under a key
//! that is derived from the first half of the nonce, so that random nonces never run out. The associated data are the *place*, so
//! that an encrypted value is good only where it was put.
//!
//! F5 begins no text in UTF-8. A new layout takes the next second byte; all of them are read for ever.

use super::{
    compress::Compressor,
    dictionary::{Dictionaries, Dictionary},
    key::{Key, KeyError, KeyId, Keyring, random},
};
use aes_gcm::{Aes256Gcm, aead::AeadInOut as _};
use kit::codec::{Reader, put_bytes, put_u64};
use std::borrow::Cow;

pub(crate) const MAGIC: u8 = 0xF5;
const ESCAPED: u8 = 0;
const COMPRESSED: u8 = 1;
const ENCRYPTED: u8 = 2;
const HIDDEN: u8 = 3;
const SMALL: u8 = 4;
const HEADER: usize = 2 + 8 + 24;
const TAG: usize = 16;

/// Encodes the values of one append or one checkpoint.
pub(crate) struct Encoder<'a> {
    compressor: &'a mut Compressor,
    /// Shorter values are not compressed; 0 for none at all.
    compress_from: usize,
    lock: Option<Lock>,
}

/// A key with the nonces of one batch: a random part of 16 bytes, and a count.
struct Lock {
    id: KeyId,
    cipher: Aes256Gcm,
    nonce: [u8; 24],
    count: u64,
}

impl Lock {
    fn new(key: &Key) -> Result<Self, KeyError> {
        let mut nonce = [0; 24];
        random(&mut nonce[..16])?;
        let [prefix @ .., _, _, _, _, _, _, _, _, _, _, _, _] = nonce;
        Ok(Self { id: key.id(), cipher: key.cipher(&prefix), nonce, count: 0 })
    }

    fn encrypt(&mut self, kind: u8, place: &[u8], name: Option<&[u8]>, value: &[u8]) -> Vec<u8> {
        self.nonce[16..].copy_from_slice(&self.count.to_be_bytes());
        self.count += 1;
        let mut out = Vec::with_capacity(HEADER + name.map_or(0, |name| name.len() + 10) + value.len() + TAG);
        out.extend_from_slice(&[MAGIC, kind]);
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&self.nonce);
        if let Some(name) = name {
            put_bytes(&mut out, name);
        }
        out.extend_from_slice(value);
        let nonce = <&[u8; 12]>::try_from(&self.nonce[12..]).map(Into::into);
        let tag = match nonce {
            Ok(nonce) => self.cipher.encrypt_inout_detached(nonce, place, (&mut out[HEADER..]).into()),
            Err(_) => unreachable!("the second half of 24 bytes is 12"),
        };
        match tag {
            Ok(tag) => out.extend_from_slice(&tag),
            Err(_) => unreachable!("GCM takes values up to 64 GiB"),
        }
        out
    }
}

impl<'a> Encoder<'a> {
    /// For one batch of values, encrypted if there is a key.
    pub(crate) fn new(
        compressor: &'a mut Compressor,
        compress_from: usize,
        key: Option<&Key>,
    ) -> Result<Self, KeyError> {
        Ok(Self { compressor, compress_from, lock: key.map(Lock::new).transpose()? })
    }

    /// The value as it is to be stored at `place`.
    pub(crate) fn encode<'v>(
        &mut self,
        place: &[u8],
        value: &'v [u8],
        dictionary: Option<&Dictionary>,
    ) -> Cow<'v, [u8]> {
        let packed = pack(self.compressor, self.compress_from, dictionary, value);
        match &mut self.lock {
            Some(lock) => Cow::Owned(lock.encrypt(ENCRYPTED, place, None, &packed)),
            None => packed,
        }
    }

    /// The same together with its name, for a place that does not tell it. Without a key, names are not hidden.
    pub(crate) fn encode_named<'v>(
        &mut self,
        place: &[u8],
        name: &[u8],
        value: &'v [u8],
        dictionary: Option<&Dictionary>,
    ) -> Cow<'v, [u8]> {
        let packed = pack(self.compressor, self.compress_from, dictionary, value);
        match &mut self.lock {
            Some(lock) => Cow::Owned(lock.encrypt(HIDDEN, place, Some(name), &packed)),
            None => packed,
        }
    }

    /// What a dictionary is learned with.
    pub(crate) fn compressor(&mut self) -> (&mut Compressor, usize) {
        (self.compressor, self.compress_from)
    }
}

/// Without encryption: compressed, escaped, or as it is.
fn pack<'v>(
    compressor: &mut Compressor,
    compress_from: usize,
    dictionary: Option<&Dictionary>,
    value: &'v [u8],
) -> Cow<'v, [u8]> {
    if let Some(dictionary) = dictionary {
        let mut out = vec![MAGIC, SMALL];
        if compressor.append_with(dictionary, value, &mut out) {
            return Cow::Owned(out);
        }
    }
    if compress_from > 0 && value.len() >= compress_from {
        let mut out = vec![MAGIC, COMPRESSED];
        put_u64(&mut out, value.len() as u64);
        if compressor.append(value, &mut out) {
            return Cow::Owned(out);
        }
    }
    if value.first() == Some(&MAGIC) {
        let mut out = Vec::with_capacity(2 + value.len());
        out.extend_from_slice(&[MAGIC, ESCAPED]);
        out.extend_from_slice(value);
        return Cow::Owned(out);
    }
    Cow::Borrowed(value)
}

/// How many bytes a value takes before it is encrypted.
#[cfg(feature = "compression")]
pub(crate) fn packed_len(
    compressor: &mut Compressor,
    compress_from: usize,
    dictionary: Option<&Dictionary>,
    value: &[u8],
) -> usize {
    pack(compressor, compress_from, dictionary, value).len()
}

/// A value that was decoded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decoded<'v> {
    /// Its name, if that was hidden.
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) value: Cow<'v, [u8]>,
    /// Whose dictionary it was compressed with.
    pub(crate) kin: Option<u32>,
    /// Whether it lay there encrypted.
    pub(crate) encrypted: bool,
}

/// A value that cannot be decoded.
#[derive(Debug)]
pub(crate) enum Undecodable {
    /// It is encrypted with a key that is not there.
    Key(KeyError),
    /// It is not what was written, or not where it was written.
    Damaged(&'static str),
}

/// Reads a value that was stored at `place`. `length_max` is the length of the longest that can have been written.
pub(crate) fn decode<'v>(
    keys: &Keyring,
    dictionaries: &Dictionaries,
    place: &[u8],
    stored: &'v [u8],
    length_max: usize,
) -> Result<Decoded<'v>, Undecodable> {
    let kind = match stored {
        [MAGIC, kind, ..] => *kind,
        [MAGIC] => return Err(Undecodable::Damaged("its encoding is cut short")),
        _ => return Ok(Decoded { name: None, value: Cow::Borrowed(stored), kin: None, encrypted: false }),
    };
    if kind != ENCRYPTED && kind != HIDDEN {
        let (value, kin) = unpack(dictionaries, stored, length_max)?;
        return Ok(Decoded { name: None, value, kin, encrypted: false });
    }
    let mut plain = decrypt(keys, place, stored)?;
    let name = if kind == HIDDEN {
        let mut reader = Reader::new(&plain);
        let name = reader.bytes("name").map_err(|_| Undecodable::Damaged("its hidden name is missing"))?;
        let (name, rest) = (name.to_vec(), plain.len() - reader.remaining());
        plain.drain(..rest);
        Some(name)
    } else {
        None
    };
    let (value, kin) = match unpack(dictionaries, &plain, length_max)? {
        (Cow::Owned(value), kin) => (value, kin),
        (Cow::Borrowed(_), kin) => (plain, kin),
    };
    Ok(Decoded { name, value: Cow::Owned(value), kin, encrypted: true })
}

/// The key that a value is encrypted with.
pub(crate) fn key_of(stored: &[u8]) -> Option<KeyId> {
    match stored {
        [MAGIC, ENCRYPTED | HIDDEN, rest @ ..] => rest.first_chunk::<8>().map(|id| KeyId(*id)),
        _ => None,
    }
}

fn decrypt(keys: &Keyring, place: &[u8], stored: &[u8]) -> Result<Vec<u8>, Undecodable> {
    let short = || Undecodable::Damaged("its encoding is cut short");
    let rest = &stored[2..];
    let (id, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (prefix, rest) = rest.split_first_chunk::<12>().ok_or_else(short)?;
    let (nonce, rest) = rest.split_first_chunk::<12>().ok_or_else(short)?;
    let (text, tag) = rest.split_last_chunk::<TAG>().ok_or_else(short)?;
    let key = keys.find(KeyId(*id)).map_err(Undecodable::Key)?;
    let mut plain = text.to_vec();
    key.cipher(prefix)
        .decrypt_inout_detached(nonce.into(), place, (&mut plain[..]).into(), tag.into())
        .map_err(|_| Undecodable::Damaged("what is encrypted there was changed, or belongs elsewhere"))?;
    Ok(plain)
}

/// The value, and whose dictionary it was compressed with.
type Unpacked<'v> = (Cow<'v, [u8]>, Option<u32>);

fn unpack<'v>(
    dictionaries: &Dictionaries,
    stored: &'v [u8],
    length_max: usize,
) -> Result<Unpacked<'v>, Undecodable> {
    match stored {
        [MAGIC, ESCAPED, rest @ ..] => Ok((Cow::Owned(rest.to_vec()), None)),
        [MAGIC, COMPRESSED, rest @ ..] => Ok((Cow::Owned(decompress(rest, length_max)?), None)),
        [MAGIC, SMALL, rest @ ..] => decompress_with(dictionaries, rest, length_max),
        [MAGIC, ..] => Err(Undecodable::Damaged("it has an encoding that this release does not know")),
        _ => Ok((Cow::Borrowed(stored), None)),
    }
}

#[cfg(feature = "compression")]
fn decompress(bytes: &[u8], length_max: usize) -> Result<Vec<u8>, Undecodable> {
    let damaged = Undecodable::Damaged("it does not decompress");
    let mut reader = Reader::new(bytes);
    match reader.u64("length").ok().and_then(|length| usize::try_from(length).ok()) {
        Some(length) if length <= length_max => {
            let start = bytes.len() - reader.remaining();
            super::compress::decompress(&bytes[start..], length).ok_or(damaged)
        }
        _ => Err(damaged),
    }
}

#[cfg(feature = "compression")]
fn decompress_with<'v>(
    dictionaries: &Dictionaries,
    bytes: &[u8],
    length_max: usize,
) -> Result<Unpacked<'v>, Undecodable> {
    super::compress::decompress_with(dictionaries, bytes, length_max)
        .map(|(value, dictionary)| (Cow::Owned(value), Some(dictionary.kin)))
        .ok_or(Undecodable::Damaged(
            "it does not decompress with the dictionary that it names, if it names one",
        ))
}

#[cfg(not(feature = "compression"))]
fn decompress(_bytes: &[u8], _length_max: usize) -> Result<Vec<u8>, Undecodable> {
    Err(Undecodable::Damaged("it is compressed, and this build reads no compressed values"))
}

#[cfg(not(feature = "compression"))]
fn decompress_with<'v>(
    _dictionaries: &Dictionaries,
    bytes: &[u8],
    length_max: usize,
) -> Result<Unpacked<'v>, Undecodable> {
    decompress(bytes, length_max).map(|value| (Cow::Owned(value), None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::random::Random;

    const MAX: usize = 1 << 20;
    const NO: Dictionaries = Vec::new();

    fn ring() -> Keyring {
        Keyring::parse(&Key::generate().unwrap()).unwrap()
    }

    fn encode(keys: &Keyring, compress_from: usize, place: &[u8], value: &[u8]) -> Vec<u8> {
        let mut compressor = Compressor::new();
        let mut encoder = Encoder::new(&mut compressor, compress_from, keys.current()).unwrap();
        encoder.encode(place, value, None).into_owned()
    }

    fn values() -> Vec<Vec<u8>> {
        let mut random = Random::new(5);
        let noise: Vec<u8> = (0..5_000).map(|_| random.next_u64() as u8).collect();
        let mut values = vec![
            vec![],
            vec![0],
            vec![MAGIC],
            vec![MAGIC, 2],
            vec![MAGIC; 3_000],
            b"{\"to\":\"ann\"}".repeat(300),
        ];
        values.push(noise);
        values
    }

    #[test]
    fn whatever_is_encoded_decodes() {
        for keys in [Keyring::default(), ring()] {
            for compress_from in [0, 1, 1_000] {
                for value in values() {
                    let stored = encode(&keys, compress_from, b"here", &value);
                    let decoded = decode(&keys, &NO, b"here", &stored, MAX).unwrap();
                    assert_eq!((&*decoded.value, decoded.name), (&value[..], None));
                    assert_eq!(decoded.encrypted, !keys.is_empty());
                }
            }
        }
    }

    #[test]
    fn plain_values_cost_nothing_and_noise_is_not_compressed() {
        let none = Keyring::default();
        for value in values() {
            let stored = encode(&none, 0, b"", &value);
            assert_eq!(stored.len(), value.len() + if value.first() == Some(&MAGIC) { 2 } else { 0 });
        }
        let noise = values().pop().unwrap();
        assert_eq!(encode(&none, 1, b"", &noise), noise);
        #[cfg(feature = "compression")]
        assert!(encode(&none, 1, b"", &b"{\"to\":\"ann\"}".repeat(300)).len() < 100);
    }

    #[test]
    fn an_encrypted_value_is_good_only_whole_and_in_its_place() {
        let keys = ring();
        let stored = encode(&keys, 0, b"here", b"the canary sings");
        assert!(!stored.windows(6).any(|bytes| bytes == b"canary"));
        assert!(matches!(decode(&keys, &NO, b"there", &stored, MAX), Err(Undecodable::Damaged(_))));
        for length in 2..stored.len() {
            assert!(decode(&keys, &NO, b"here", &stored[..length], MAX).is_err(), "cut at {length}");
        }
        for at in 0..stored.len() {
            for bit in 0..8 {
                let mut bad = stored.clone();
                bad[at] ^= 1 << bit;
                match decode(&keys, &NO, b"here", &bad, MAX) {
                    Err(_) => {}
                    // Taken for a plain value; a checkpoint that is encrypted throughout refuses those.
                    Ok(decoded) => assert!(at < 2 && !decoded.encrypted, "byte {at}, bit {bit}"),
                }
            }
        }
    }

    #[test]
    fn two_encryptions_of_one_value_differ() {
        let keys = ring();
        let mut compressor = Compressor::new();
        let mut encoder = Encoder::new(&mut compressor, 0, keys.current()).unwrap();
        let first = encoder.encode(b"here", b"x", None).into_owned();
        let second = encoder.encode(b"here", b"x", None).into_owned();
        assert_ne!(first[10..34], second[10..34]);
        assert_ne!(first[10..26], encode(&keys, 0, b"here", b"x")[10..26]);
    }

    #[test]
    fn another_key_is_missed_by_its_id() {
        let (keys, other) = (ring(), ring());
        let stored = encode(&keys, 0, b"here", b"x");
        match decode(&other, &NO, b"here", &stored, MAX) {
            Err(Undecodable::Key(KeyError::Missing { missing, given })) => {
                assert_eq!((missing, given), (keys.ids(), other.ids()));
            }
            decoded => panic!("{decoded:?}"),
        }
    }

    #[cfg(feature = "compression")]
    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let none = Keyring::default();
        let stored = encode(&none, 1, b"", &[7; 5_000]);
        assert!(decode(&none, &NO, b"", &stored, 4_999).is_err());
        let mut longer = stored.clone();
        longer[2] ^= 1;
        assert!(decode(&none, &NO, b"", &longer, MAX).is_err());
        let lie = [&[MAGIC, COMPRESSED][..], &[0xff; 9], &[1]].concat();
        assert!(decode(&none, &NO, b"", &lie, MAX).is_err());
    }
}
