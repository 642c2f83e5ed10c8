//! Dictionaries: what the values of one kin have in common, learned from some of them, so that small ones can be compressed too.
//!
//! ```text
//! stored under   FF 00 64 | number (4 bytes, big endian)
//! record         version (1) | crc (4, little-endian) | kin (LEB128) | the dictionary, as Zstandard trains it
//! ```
//!
//! A dictionary is one record of the checkpoint among the others. It gets there in the same write as the first value that needs
//! it, so there is no moment at which one is there without the other: no order of files and flushes has to be kept, and whatever
//! copies, encrypts, clears or loses the values does the same to their dictionaries. They are numbered from 1, the manifest says how
//! many there are, and every compressed value says which one it needs. They stay as long as the checkpoint does, since
//! nobody counts the values behind them; a rewriting learns anew.
//!
//! The checksum (CRC-32C) covers the stored key and everything behind it.

use kit::codec::{Malformed, Reader, put_u64};
use std::sync::Arc;
#[cfg(feature = "compression")]
use std::sync::OnceLock;

/// Dictionaries of one shard. Each takes some 100 KiB of memory when it is used; up to here their numbers take one byte in a value.
pub const DICTIONARIES_MAX: usize = 255;
/// Dictionaries of one kin, one after the other.
#[cfg(feature = "compression")]
const KIN_DICTIONARIES_MAX: usize = 4;
/// Bytes of a dictionary. On JSON of 200 bytes to 4 KiB, neither 8 nor 16 KiB made values smaller by more than a hundredth.
#[cfg(feature = "compression")]
const DICTIONARY_BYTES: usize = 4 << 10;
/// Values that a dictionary is good for: beyond, they are like themselves more than like others.
#[cfg(feature = "compression")]
const LENGTHS: std::ops::RangeInclusive<usize> = 32..=8 << 10;
/// Bytes of values that are sampled for one trial, which takes some 50 ms.
#[cfg(feature = "compression")]
const SAMPLE_BYTES: usize = 128 << 10;
/// Kins that are sampled at once, so that samples take about 2 MiB at most.
#[cfg(feature = "compression")]
const SAMPLED_MAX: usize = 16;
/// Every fourth sample is kept from the training, to be judged by.
#[cfg(feature = "compression")]
const JUDGED_BY: usize = 4;
/// Bytes of values that pass before a kin's next trial.
#[cfg(feature = "compression")]
const TRIAL_EVERY: usize = 64 << 20;

const VERSION: u8 = 1;
const PREFIX: &[u8] = &[super::checkpoints::OWN, 0, b'd'];

/// One of them.
pub(crate) struct Dictionary {
    /// From 1.
    pub(crate) number: u32,
    /// Whose values it was learned from.
    pub(crate) kin: u32,
    bytes: Vec<u8>,
    #[cfg(feature = "compression")]
    forth: OnceLock<Option<zstd::zstd_safe::CDict<'static>>>,
    #[cfg(feature = "compression")]
    back: OnceLock<Option<zstd::zstd_safe::DDict<'static>>>,
}

/// Those of a shard, in the order of their numbers.
pub(crate) type Dictionaries = Vec<Arc<Dictionary>>;

impl Dictionary {
    fn new(number: u32, kin: u32, bytes: Vec<u8>) -> Self {
        #[cfg(feature = "compression")]
        return Self { number, kin, bytes, forth: OnceLock::new(), back: OnceLock::new() };
        #[cfg(not(feature = "compression"))]
        return Self { number, kin, bytes };
    }

    /// The key that one is stored under.
    pub(crate) fn key(number: u32) -> Vec<u8> {
        [PREFIX, &number.to_be_bytes()].concat()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 0, 0, 0, 0];
        put_u64(&mut out, self.kin.into());
        out.extend_from_slice(&self.bytes);
        let crc = checksum(self.number, &out[5..]);
        out[1..5].copy_from_slice(&crc);
        out
    }

    pub(crate) fn decode(number: u32, record: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(record);
        if reader.u8("version")? != VERSION {
            return Err(reader.malformed("version of a dictionary (written by a newer release?)"));
        }
        let crc = reader.take(4, "checksum")?;
        if crc != checksum(number, &record[5..]) {
            return Err(reader.malformed("checksum of a dictionary"));
        }
        let kin = reader.u32("kin")?;
        let bytes = reader.take(reader.remaining(), "dictionary")?;
        Ok(Self::new(number, kin, bytes.to_vec()))
    }
}

fn checksum(number: u32, rest: &[u8]) -> [u8; 4] {
    crc32c::crc32c_append(crc32c::crc32c(&Dictionary::key(number)), rest).to_le_bytes()
}

#[cfg(not(feature = "compression"))]
pub(crate) use idle::Learner;
#[cfg(feature = "compression")]
pub(crate) use learning::Learner;

#[cfg(not(feature = "compression"))]
mod idle {
    use super::{Arc, Dictionaries, Dictionary};
    use crate::at_rest::compress::Compressor;

    /// Learns nothing.
    pub(crate) struct Learner;

    impl Learner {
        pub(crate) fn new(_dictionaries: &Dictionaries) -> Self {
            Self
        }

        pub(crate) fn begin(&mut self) {}

        pub(crate) fn dictionary(
            &mut self,
            _kin: u32,
            _value: &[u8],
            _taken: usize,
            _compressor: &mut Compressor,
            _compress_from: usize,
        ) -> (Option<Arc<Dictionary>>, bool) {
            (None, false)
        }
    }
}

#[cfg(feature = "compression")]
mod learning {
    use super::*;
    use crate::at_rest::{
        compress::{Compressor, LEVEL},
        frame::packed_len,
    };
    use std::collections::BTreeMap;
    use zstd::zstd_safe::{CDict, DDict, train_from_buffer};

    impl Dictionary {
        /// For compressing. Made when it is first asked for: most dictionaries are there for old values only.
        pub(crate) fn forth(&self) -> Option<&CDict<'static>> {
            self.forth.get_or_init(|| CDict::try_create(&self.bytes, LEVEL)).as_ref()
        }

        /// For decompressing.
        pub(crate) fn back(&self) -> Option<&DDict<'static>> {
            self.back.get_or_init(|| DDict::try_create(&self.bytes)).as_ref()
        }

        /// What Zstandard makes of samples; `None` if they have nothing in common.
        fn train(number: u32, kin: u32, samples: &[&[u8]]) -> Option<Self> {
            let mut bytes = vec![0; DICTIONARY_BYTES];
            let sizes: Vec<usize> = samples.iter().map(|sample| sample.len()).collect();
            let length = train_from_buffer(&mut bytes[..], &samples.concat(), &sizes).ok()?;
            bytes.truncate(length);
            // Behind the magic number comes the name that Zstandard puts into what it compresses: a random one until here.
            bytes.get_mut(4..8)?.copy_from_slice(&number.to_le_bytes());
            Some(Self::new(number, kin, bytes))
        }
    }

    /// Samples the values of a shard as they are written, and learns dictionaries from them where that pays.
    pub(crate) struct Learner {
        kins: BTreeMap<u32, Kin>,
        samples: BTreeMap<u32, Samples>,
        /// Writes so far.
        writes: u64,
    }

    #[derive(Default)]
    struct Kin {
        /// The newest of its dictionaries.
        dictionary: Option<Arc<Dictionary>>,
        /// How many it has.
        count: usize,
        /// Bytes that pass before its next trial.
        wait: usize,
    }

    #[derive(Default)]
    struct Samples {
        bytes: Vec<u8>,
        /// Where each ends.
        ends: Vec<usize>,
        /// The write that had the last of them.
        fed: u64,
    }

    impl Samples {
        fn iter(&self) -> impl Iterator<Item = &[u8]> {
            let starts = std::iter::once(0).chain(self.ends.iter().copied());
            starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
        }
    }

    impl Learner {
        /// Goes on with the dictionaries that there are.
        pub(crate) fn new(dictionaries: &Dictionaries) -> Self {
            let mut kins = BTreeMap::<u32, Kin>::new();
            for dictionary in dictionaries {
                let kin = kins.entry(dictionary.kin).or_default();
                kin.dictionary = Some(dictionary.clone());
                kin.count += 1;
            }
            Self { kins, samples: BTreeMap::new(), writes: 0 }
        }

        /// Another write begins.
        pub(crate) fn begin(&mut self) {
            self.writes += 1;
        }

        /// The dictionary for a value, and whether it was learned just now: as the next one of `taken` that there are. `compress_from` is
        /// the length from which values are compressed without one.
        pub(crate) fn dictionary(
            &mut self,
            kin: u32,
            value: &[u8],
            taken: usize,
            compressor: &mut Compressor,
            compress_from: usize,
        ) -> (Option<Arc<Dictionary>>, bool) {
            if !LENGTHS.contains(&value.len()) {
                return (None, false);
            }
            let home = self.kins.entry(kin).or_default();
            home.wait = home.wait.saturating_sub(value.len());
            let more = home.wait == 0 && home.count < KIN_DICTIONARIES_MAX && taken < DICTIONARIES_MAX;
            if !more || !sample(&mut self.samples, kin, value, self.writes) {
                return (home.dictionary.clone(), false);
            }
            home.wait = TRIAL_EVERY;
            let samples = self.samples.remove(&kin).unwrap_or_default();
            let number = u32::try_from(taken + 1).unwrap_or(u32::MAX);
            let found = try_out(&samples, number, kin, home.dictionary.as_deref(), compressor, compress_from);
            let new = found.is_some();
            if let Some(found) = found {
                home.dictionary = Some(Arc::new(found));
                home.count += 1;
            }
            (home.dictionary.clone(), new)
        }
    }

    /// Takes a sample, and says whether there are enough of that kin by now.
    fn sample(all: &mut BTreeMap<u32, Samples>, kin: u32, value: &[u8], write: u64) -> bool {
        if all.len() >= SAMPLED_MAX && !all.contains_key(&kin) {
            // A kin of which nothing came lately must not keep its place for ever.
            match all.iter().min_by_key(|(_, samples)| samples.fed) {
                Some((idle, samples)) if samples.fed < write => drop(all.remove(&{ *idle })),
                _ => return false,
            }
        }
        let samples = all.entry(kin).or_default();
        samples.bytes.extend_from_slice(value);
        samples.ends.push(samples.bytes.len());
        samples.fed = write;
        samples.bytes.len() >= SAMPLE_BYTES
    }

    /// A dictionary, if the samples it has not seen become at least an eighth smaller with it than they are now.
    fn try_out(
        samples: &Samples,
        number: u32,
        kin: u32,
        present: Option<&Dictionary>,
        compressor: &mut Compressor,
        compress_from: usize,
    ) -> Option<Dictionary> {
        let (mut unseen, mut seen) = (Vec::new(), Vec::new());
        for (place, sample) in samples.iter().enumerate() {
            if place % JUDGED_BY == 0 { unseen.push(sample) } else { seen.push(sample) }
        }
        let found = Dictionary::train(number, kin, &seen)?;
        let mut total = |dictionary: Option<&Dictionary>| -> usize {
            unseen.iter().map(|value| packed_len(compressor, compress_from, dictionary, value)).sum()
        };
        let (now, then) = (total(present), total(Some(&found)));
        (then <= now - now / 8).then_some(found)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use kit::random::Random;

        /// A body of some 190 bytes, of queue `kin`.
        fn body(kin: u32, random: &mut Random) -> Vec<u8> {
            format!(
                "{{\"queue\":{kin},\"order\":{},\"email\":\"user{}@example.com\",\"template\":\"confirmed\",\
                 \"locale\":\"en-GB\",\"currency\":\"EUR\",\"total\":{},\"trace\":\"{:016x}\",\"retries\":0,\"kind\":\"mail-{kin}\"}}",
                random.below(10_000_000),
                random.below(1_000),
                random.below(90_000),
                random.next_u64(),
            )
            .into_bytes()
        }

        fn noise(random: &mut Random) -> Vec<u8> {
            (0..200).map(|_| random.next_u64() as u8).collect()
        }

        /// Feeds values until something is learned, at most so many bytes of them.
        fn feed(
            learner: &mut Learner,
            kin: u32,
            taken: usize,
            bytes: usize,
            value: &mut dyn FnMut() -> Vec<u8>,
        ) -> Option<Arc<Dictionary>> {
            let mut compressor = Compressor::new();
            let mut fed = 0;
            while fed < bytes {
                let value = value();
                fed += value.len();
                if let (dictionary, true) = learner.dictionary(kin, &value, taken, &mut compressor, 512) {
                    return dictionary;
                }
            }
            None
        }

        #[test]
        fn what_has_much_in_common_is_learned_and_noise_is_not() {
            let mut random = Random::new(3);
            let mut learner = Learner::new(&Vec::new());
            let found = feed(&mut learner, 7, 0, 2 * SAMPLE_BYTES, &mut || body(7, &mut random)).unwrap();
            assert_eq!((found.number, found.kin), (1, 7));
            assert!(feed(&mut learner, 8, 1, 2 * SAMPLE_BYTES, &mut || noise(&mut random)).is_none());
            assert!(learner.samples.is_empty(), "a trial that failed is not repeated at once");
        }

        #[test]
        fn another_dictionary_is_learned_only_when_values_have_changed() {
            let mut random = Random::new(3);
            let mut learner = Learner::new(&Vec::new());
            let enough = 2 * SAMPLE_BYTES;
            feed(&mut learner, 7, 0, enough, &mut || body(7, &mut random)).unwrap();
            let again = |learner: &mut Learner| learner.kins.get_mut(&7).unwrap().wait = 0;
            again(&mut learner);
            assert!(feed(&mut learner, 7, 1, enough, &mut || body(7, &mut random)).is_none());
            let mut other = || body(7, &mut random).iter().map(u8::to_ascii_uppercase).collect();
            again(&mut learner);
            assert_eq!(feed(&mut learner, 7, 1, enough, &mut other).unwrap().number, 2);
        }

        #[test]
        fn there_are_never_more_dictionaries_or_samples_than_the_limits_allow() {
            let mut random = Random::new(3);
            let mut learner = Learner::new(&Vec::new());
            let enough = 2 * SAMPLE_BYTES;
            assert!(feed(&mut learner, 7, DICTIONARIES_MAX, enough, &mut || body(7, &mut random)).is_none());
            learner.kins.entry(7).or_default().count = KIN_DICTIONARIES_MAX;
            assert!(feed(&mut learner, 7, 0, enough, &mut || body(7, &mut random)).is_none());
            assert!(learner.samples.is_empty());
            let mut value = || body(7, &mut random);
            let mut compressor = Compressor::new();
            for kin in 100..200 {
                learner.dictionary(kin, &value(), 0, &mut compressor, 512);
            }
            assert_eq!(learner.samples.len(), SAMPLED_MAX);
            assert!(!learner.samples.contains_key(&199), "all of them were fed in this write");
            learner.begin();
            learner.dictionary(199, &value(), 0, &mut compressor, 512);
            assert_eq!(learner.samples.len(), SAMPLED_MAX);
            assert!(learner.samples.contains_key(&199), "the idle one has made room");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_reads_back_whole_under_its_number_and_no_other_way() {
        let record = Dictionary::new(3, 70_000, b"what they have in common".to_vec()).encode();
        let found = Dictionary::decode(3, &record).unwrap();
        assert_eq!(
            (found.number, found.kin, &found.bytes[..]),
            (3, 70_000, &b"what they have in common"[..])
        );
        assert!(Dictionary::decode(2, &record).is_err());
        for length in 0..record.len() {
            assert!(Dictionary::decode(3, &record[..length]).is_err(), "cut at {length}");
        }
        for at in 0..record.len() {
            let mut bad = record.clone();
            bad[at] ^= 1;
            assert!(Dictionary::decode(3, &bad).is_err(), "byte {at}");
        }
    }
}
