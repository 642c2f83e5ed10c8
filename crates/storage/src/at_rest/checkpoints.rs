//! Checkpoints over others.
//!
//! ```text
//! stored key           what
//! FF 00 6D             the manifest
//! FF 00 64 | number    a dictionary
//! FF 01 | rest         a key that begins with FF itself
//! kind | 16 bytes      a hidden key of that kind; which one it is stands in the value, encrypted
//! any other            the key itself
//! ```

use super::{
    AtRest,
    compress::Compressor,
    dictionary::{Dictionaries, Dictionary, Learner},
    frame::{Decoded, Encoder, MAGIC, Undecodable, decode},
    key::{KeyError, KeyId},
    manifest::Manifest,
};
use crate::checkpoints::{
    Change, CheckpointError, CheckpointReader, Checkpoints, Frozen, Mark, VALUE_MAX, Visit,
    fjall::{FjallCheckpoints, VisitEach},
    measure,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Our own keys, and escaped ones, begin with it.
pub(crate) const OWN: u8 = 0xFF;
const MANIFEST: &[u8] = &[OWN, 0, b'm'];
const ESCAPE: &[u8] = &[OWN, 1];

/// [`Checkpoints`] over others, whose values it encodes. A value is bound to its directory, shard and key.
///
/// What was written without it stays as it is until it is written again or copied with [`copy`].
pub struct EncodedCheckpoints<C> {
    inner: C,
    shared: Arc<Shared>,
    compressor: Compressor,
    /// What is being learned from each shard's values.
    learners: BTreeMap<u16, Learner>,
    /// What a shard without a checkpoint begins with.
    expected: Manifest,
}

struct Shared {
    at_rest: AtRest,
    directory: u64,
    shards: RwLock<BTreeMap<u16, Arc<Known>>>,
}

/// What is to be known of a shard before a value of it can be read.
#[derive(Clone, Default)]
struct Known {
    manifest: Manifest,
    /// As many as the manifest says.
    dictionaries: Dictionaries,
}

impl Known {
    /// Whether every value is encrypted.
    fn is_encrypted(&self) -> bool {
        !self.manifest.plain && !self.manifest.keys.is_empty()
    }

    fn add(&mut self, dictionary: Arc<Dictionary>) {
        self.manifest.dictionaries = dictionary.number;
        self.dictionaries.push(dictionary);
    }
}

fn own(key: Vec<u8>, value: Vec<u8>) -> Change {
    Change::Put { key, value, kin: None }
}

/// What data is encrypted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Values may be there that are not encrypted at all.
    pub plain: bool,
    /// Every key that is needed to read it.
    pub keys: Vec<KeyId>,
}

/// What a stored key and value say of the checkpoint's encryption, if that is what they are for.
pub(crate) fn encryption_in(key: &[u8], value: &[u8]) -> Option<Encryption> {
    let manifest = (key == MANIFEST).then(|| Manifest::decode(value).ok()).flatten()?;
    Some(Encryption { plain: manifest.plain, keys: manifest.keys.into_iter().collect() })
}

impl<C: Checkpoints> EncodedCheckpoints<C> {
    /// Encodes what goes into `inner`. `directory` is the id of the data directory, or any number that stays the same. `shards` are
    /// those that may have been written without this layer; their keys must not begin with the byte FF.
    ///
    /// Fails with [`KeyError::Missing`] if a value may be encrypted with a key that is not there, and with [`CheckpointError::Corrupt`] if
    /// a value may need a dictionary that is missing or damaged.
    pub fn open(inner: C, at_rest: AtRest, directory: u64, shards: &[u16]) -> Result<Self, CheckpointError> {
        let mut this = Self {
            inner,
            shared: Arc::new(Shared { at_rest, directory, shards: RwLock::default() }),
            compressor: Compressor::new(),
            learners: BTreeMap::new(),
            expected: Manifest::default(),
        };
        for shard in shards {
            if this.known(*shard)?.is_none() {
                this.adopt(*shard)?;
            }
        }
        Ok(this)
    }

    /// The id that values are bound to.
    pub fn directory(&self) -> u64 {
        self.shared.directory
    }

    /// The checkpoints behind it.
    pub(crate) fn inner(&self) -> &C {
        &self.inner
    }

    /// What a shard's checkpoint is encrypted with; `None` if it has none.
    pub fn encryption(&self, shard: u16) -> Result<Option<Encryption>, CheckpointError> {
        let known = self.known(shard)?;
        Ok(known.map(|known| Encryption {
            plain: known.manifest.plain,
            keys: known.manifest.keys.iter().copied().collect(),
        }))
    }

    /// How many dictionaries a shard's values may need.
    pub fn dictionaries(&self, shard: u16) -> Result<usize, CheckpointError> {
        Ok(self.known(shard)?.map_or(0, |known| known.dictionaries.len()))
    }

    /// Where there is no checkpoint yet, says how the log before the first one is encrypted, so that it counts for the directory.
    pub fn follow(&mut self, log: Encryption) {
        self.expected = Manifest { plain: log.plain, keys: log.keys.into_iter().collect(), dictionaries: 0 };
    }

    fn known(&self, shard: u16) -> Result<Option<Arc<Known>>, CheckpointError> {
        self.shared.load(shard, &*self.inner.reader())
    }

    /// Takes over a checkpoint that was written without this layer: the few values that could be taken for encoded ones are escaped,
    /// in one step with the manifest that says so.
    fn adopt(&mut self, shard: u16) -> Result<(), CheckpointError> {
        let Some(mark) = self.inner.mark(shard)? else { return Ok(()) };
        let mut changes = Vec::new();
        let manifest = Manifest { plain: true, ..Manifest::default() };
        changes.push(own(MANIFEST.to_vec(), manifest.encode()));
        let mut encoder = Encoder::new(&mut self.compressor, 0, None)?;
        self.inner.scan(shard, &[], &mut |key, value| {
            if value.first() == Some(&MAGIC) {
                changes.push(own(key.to_vec(), encoder.encode(&[], value, None).into_owned()));
            }
            Ok(())
        })?;
        self.inner.write(shard, &mut changes.into_iter(), mark)?;
        self.shared.learn(shard, Known { manifest, dictionaries: Vec::new() });
        Ok(())
    }

    /// Visits what [`Checkpoints::scan`] visits, and says which kin's dictionary each value was compressed with.
    fn scan_kin(&self, shard: u16, prefix: &[u8], visit: &mut VisitKin<'_>) -> Result<(), CheckpointError> {
        let shared = &*self.shared;
        let known = self.known(shard)?.unwrap_or_default();
        // Hidden keys come in no order: those of one kind are collected and sorted.
        let mut hidden = Hidden::default();
        let stored_prefix = if shared.hides(prefix) { &prefix[..1] } else { prefix };
        self.inner.scan(shard, &escape(stored_prefix), &mut |stored, value| {
            let escaped = match stored {
                [OWN, 1, ..] => true,
                [OWN, ..] => return Ok(()),
                _ => false,
            };
            let decoded = shared.decode(shard, stored, value, &known)?;
            let key = match &decoded.name {
                Some(name) => Cow::Borrowed(&name[..]),
                None if escaped => Cow::Owned([&[OWN], &stored[2..]].concat()),
                None => Cow::Borrowed(stored),
            };
            if !key.starts_with(prefix) {
                return Ok(());
            }
            hidden.flush(Some(&key), visit)?;
            if !shared.hides(&key) {
                return visit(&key, &decoded.value, decoded.kin);
            }
            hidden.0.push((key.into_owned(), decoded.value.into_owned(), decoded.kin));
            Ok(())
        })?;
        hidden.flush(None, visit)
    }
}

impl EncodedCheckpoints<FjallCheckpoints> {
    /// Visits every key with its value, or with what is wrong with it; see [`FjallCheckpoints::visit_each`]. Hidden keys come in no order,
    /// and one whose value is damaged cannot be told by name.
    pub(crate) fn visit_each(&self, shard: u16, visit: &mut VisitEach<'_>) -> Result<(), CheckpointError> {
        let known = self.known(shard)?.unwrap_or_default();
        self.inner.visit_each(shard, &mut |stored, value| {
            if matches!(stored, [OWN, second, ..] if *second != 1) {
                return;
            }
            let decoded = match value.and_then(|value| self.shared.decode(shard, stored, value, &known)) {
                Ok(decoded) => decoded,
                Err(error) => return visit(stored, Err(error)),
            };
            let escaped = stored.first() == Some(&OWN);
            let key = match &decoded.name {
                Some(name) => Cow::Borrowed(&name[..]),
                None if escaped => Cow::Owned([&[OWN], &stored[2..]].concat()),
                None => Cow::Borrowed(stored),
            };
            visit(&key, Ok(&decoded.value));
        });
        Ok(())
    }
}

/// What [`EncodedCheckpoints::scan_kin`] calls for each key and value.
type VisitKin<'a> = dyn FnMut(&[u8], &[u8], Option<u32>) -> Result<(), CheckpointError> + 'a;

impl<C: Checkpoints> Checkpoints for EncodedCheckpoints<C> {
    fn mark(&self, shard: u16) -> Result<Option<Mark>, CheckpointError> {
        self.inner.mark(shard)
    }

    fn write(
        &mut self,
        shard: u16,
        changes: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        let before = self.known(shard)?;
        let mut known = match &before {
            Some(before) => Known::clone(before),
            None => Known { manifest: self.expected.clone(), ..Known::default() },
        };
        let shared = &*self.shared;
        match shared.at_rest.keys.current() {
            Some(key) => drop(known.manifest.keys.insert(key.id())),
            None => known.manifest.plain = true,
        }
        let same = before.as_ref().is_some_and(|before| before.manifest == known.manifest);
        let news = (!same).then(|| own(MANIFEST.to_vec(), known.manifest.encode()));
        let current = shared.at_rest.keys.current();
        let mut encoder = Encoder::new(&mut self.compressor, shared.at_rest.compress_from, current)?;
        let learner = self.learners.entry(shard).or_insert_with(|| Learner::new(&known.dictionaries));
        learner.begin();
        let encoded = changes.flat_map(|change| {
            // Too large before is too large after: the store refuses it as it came.
            if measure(&change).is_err() {
                return Vec::new().into_iter().chain([change]);
            }
            let aliases = shared.aliases(shard, change.key(), &known.manifest);
            let mut before: Vec<Change> = aliases.into_iter().map(|key| Change::Delete { key }).collect();
            let dictionary = match &change {
                Change::Put { value, kin: Some(kin), .. } if shared.at_rest.learns() => {
                    let (compressor, from) = encoder.compressor();
                    let taken = known.dictionaries.len();
                    let (dictionary, new) = learner.dictionary(*kin, value, taken, compressor, from);
                    if let Some(dictionary) = dictionary.as_ref().filter(|_| new) {
                        known.add(dictionary.clone());
                        // While the write goes on, readers may see some of its values already.
                        shared.learn(shard, known.clone());
                        let record = shared.dictionary_record(shard, dictionary, &mut encoder);
                        before.extend([record, own(MANIFEST.to_vec(), known.manifest.encode())]);
                    }
                    dictionary
                }
                Change::Put { .. } | Change::Delete { .. } => None,
            };
            before.into_iter().chain([shared.encode(shard, change, &mut encoder, dictionary.as_deref())])
        });
        let written = self.inner.write(shard, &mut news.into_iter().chain(encoded), mark);
        if written.is_ok() {
            shared.learn(shard, known);
        } else {
            // Nothing that was learned is stored, so nothing of it may be used.
            shared.put_back(shard, before);
            self.learners.remove(&shard);
        }
        written
    }

    fn scan(&self, shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        self.scan_kin(shard, prefix, &mut |key, value, _| visit(key, value))
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        Arc::new(EncodedReader { inner: self.inner.reader(), shared: self.shared.clone() })
    }

    fn freeze(&self, shard: u16) -> Result<Box<dyn Frozen>, CheckpointError> {
        self.inner.freeze(shard)
    }

    fn clear(&mut self, shard: u16) -> Result<(), CheckpointError> {
        self.shared.put_back(shard, None);
        self.learners.remove(&shard);
        self.inner.clear(shard)
    }
}

/// Keys, values and kins of one kind, until the next kind begins.
#[derive(Default)]
struct Hidden(Vec<(Vec<u8>, Vec<u8>, Option<u32>)>);

impl Hidden {
    /// Visits what was collected, in order, unless `next` is of the same kind.
    fn flush(&mut self, next: Option<&[u8]>, visit: &mut VisitKin<'_>) -> Result<(), CheckpointError> {
        let kind = self.0.first().and_then(|(key, ..)| key.first());
        // A key that is only its kind is not hidden, but it is of that kind, and comes before all others.
        let same = next.is_some_and(|next| next.first() == kind && next.len() > 1);
        if same {
            return Ok(());
        }
        self.0.sort_unstable();
        self.0.drain(..).try_for_each(|(key, value, kin)| visit(&key, &value, kin))
    }
}

struct EncodedReader {
    inner: Arc<dyn CheckpointReader>,
    shared: Arc<Shared>,
}

impl CheckpointReader for EncodedReader {
    fn get(&self, shard: u16, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let known = self.shared.load(shard, &*self.inner)?.unwrap_or_default();
        for stored in self.shared.names(shard, key) {
            if let Some(value) = self.inner.get(shard, &stored)? {
                let decoded = self.shared.decode(shard, &stored, &value, &known)?;
                return Ok(Some(decoded.value.into_owned()));
            }
        }
        Ok(None)
    }
}

impl Shared {
    /// What is known of a shard, read when it is first asked for; `None` while it has no checkpoint.
    fn load(&self, shard: u16, reader: &dyn CheckpointReader) -> Result<Option<Arc<Known>>, CheckpointError> {
        let known = self.shards.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let Some(bytes) = reader.get(shard, MANIFEST)? else { return Ok(None) };
        let manifest =
            Manifest::decode(&bytes).map_err(|error| corrupt(shard, MANIFEST, &error.to_string()))?;
        self.at_rest.keys.require(manifest.keys.iter().copied())?;
        let mut known = Known { manifest, dictionaries: Vec::new() };
        for number in 1..=known.manifest.dictionaries {
            let dictionary = self.load_dictionary(shard, number, reader, &known)?;
            known.dictionaries.push(Arc::new(dictionary));
        }
        let known = Arc::new(known);
        self.put_back(shard, Some(known.clone()));
        Ok(Some(known))
    }

    fn load_dictionary(
        &self,
        shard: u16,
        number: u32,
        reader: &dyn CheckpointReader,
        known: &Known,
    ) -> Result<Dictionary, CheckpointError> {
        let key = Dictionary::key(number);
        let stored = reader.get(shard, &key)?;
        let stored = stored.ok_or_else(|| {
            corrupt(shard, &key, "the dictionary that values are compressed with is missing")
        })?;
        let record = self.decode(shard, &key, &stored, known)?;
        Dictionary::decode(number, &record.value).map_err(|error| corrupt(shard, &key, &error.to_string()))
    }

    fn dictionary_record(&self, shard: u16, dictionary: &Dictionary, encoder: &mut Encoder<'_>) -> Change {
        let key = Dictionary::key(dictionary.number);
        let value = encoder.encode(&self.place(shard, &key), &dictionary.encode(), None).into_owned();
        own(key, value)
    }

    fn learn(&self, shard: u16, known: Known) {
        self.put_back(shard, Some(Arc::new(known)));
    }

    fn put_back(&self, shard: u16, known: Option<Arc<Known>>) {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        match known {
            Some(known) => shards.insert(shard, known),
            None => shards.remove(&shard),
        };
    }

    /// Whether this key may be seen on the disk only by its first byte.
    fn hides(&self, key: &[u8]) -> bool {
        !self.at_rest.keys.is_empty()
            && key.len() > 1
            && key[0] != OWN
            && !self.at_rest.clear_kinds.contains(&key[0])
    }

    /// The name that a key is stored under from now on.
    fn name(&self, shard: u16, key: &[u8]) -> Vec<u8> {
        match self.at_rest.keys.current() {
            Some(secret) if self.hides(key) => self.hidden_name(shard, key, secret),
            _ => escape(key).into_owned(),
        }
    }

    /// Every name that a key may be stored under, the likeliest first.
    fn names(&self, shard: u16, key: &[u8]) -> Vec<Vec<u8>> {
        let mut names = Vec::with_capacity(1);
        if self.hides(key) {
            let keys = self.at_rest.keys.keys();
            names.extend(keys.iter().map(|secret| self.hidden_name(shard, key, secret)));
        }
        names.push(escape(key).into_owned());
        names
    }

    /// The names that a key may have been stored under before, and must not be from now on.
    fn aliases(&self, shard: u16, key: &[u8], manifest: &Manifest) -> Vec<Vec<u8>> {
        if !self.hides(key) {
            return Vec::new();
        }
        let former =
            self.at_rest.keys.keys().iter().skip(1).filter(|secret| manifest.keys.contains(&secret.id()));
        let mut names: Vec<_> = former.map(|secret| self.hidden_name(shard, key, secret)).collect();
        if manifest.plain {
            names.push(key.to_vec());
        }
        names
    }

    fn hidden_name(&self, shard: u16, key: &[u8], secret: &super::key::Key) -> Vec<u8> {
        let mut place = [0; 10];
        place[..8].copy_from_slice(&self.directory.to_be_bytes());
        place[8..].copy_from_slice(&shard.to_be_bytes());
        let mut name = vec![key[0]];
        name.extend_from_slice(&secret.hidden_name(&place, key));
        name
    }

    /// The place of a value, for its encryption.
    fn place(&self, shard: u16, stored: &[u8]) -> Vec<u8> {
        let mut place = Vec::with_capacity(11 + stored.len());
        place.push(b'c');
        place.extend_from_slice(&self.directory.to_be_bytes());
        place.extend_from_slice(&shard.to_be_bytes());
        place.extend_from_slice(stored);
        place
    }

    fn encode(
        &self,
        shard: u16,
        change: Change,
        encoder: &mut Encoder<'_>,
        dictionary: Option<&Dictionary>,
    ) -> Change {
        let stored = self.name(shard, change.key());
        match change {
            Change::Delete { .. } => Change::Delete { key: stored },
            Change::Put { key, value, kin } => {
                let place = self.place(shard, &stored);
                let encoded = if self.hides(&key) {
                    encoder.encode_named(&place, &key, &value, dictionary)
                } else {
                    encoder.encode(&place, &value, dictionary)
                };
                let value = match encoded {
                    Cow::Owned(encoded) => encoded,
                    Cow::Borrowed(_) => value,
                };
                Change::Put { key: stored, value, kin }
            }
        }
    }

    fn decode<'v>(
        &self,
        shard: u16,
        stored: &[u8],
        value: &'v [u8],
        known: &Known,
    ) -> Result<Decoded<'v>, CheckpointError> {
        let place = if self.at_rest.keys.is_empty() { Vec::new() } else { self.place(shard, stored) };
        match decode(&self.at_rest.keys, &known.dictionaries, &place, value, VALUE_MAX) {
            Ok(decoded) if known.is_encrypted() && !decoded.encrypted => {
                Err(corrupt(shard, stored, "it is not encrypted, in a checkpoint that is"))
            }
            Ok(decoded) => Ok(decoded),
            Err(Undecodable::Key(error)) => Err(error.into()),
            Err(Undecodable::Damaged(reason)) => Err(corrupt(shard, stored, reason)),
        }
    }
}

fn escape(key: &[u8]) -> Cow<'_, [u8]> {
    match key {
        [OWN, rest @ ..] => Cow::Owned([ESCAPE, rest].concat()),
        _ => Cow::Borrowed(key),
    }
}

fn corrupt(shard: u16, stored: &[u8], reason: &str) -> CheckpointError {
    let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
    CheckpointError::Corrupt { place: format!("key {shard:04x}{hex}"), reason: reason.to_owned() }
}

/// Bytes of values that [`copy`] writes at once.
const COPY_BYTES: usize = 8 << 20;

/// Copies a shard's checkpoint from one store to an empty one: each value is decoded by the one and encoded by the other, which learns
/// dictionaries of its own. Until it returns, the copy is not whole. Returns how many values there are.
pub fn copy<A: Checkpoints, B: Checkpoints>(
    from: &EncodedCheckpoints<A>,
    to: &mut EncodedCheckpoints<B>,
    shard: u16,
) -> Result<u64, CheckpointError> {
    let Some(mark) = from.mark(shard)? else { return Ok(0) };
    let (mut changes, mut bytes, mut count) = (Vec::new(), 0, 0);
    from.scan_kin(shard, &[], &mut |key, value, kin| {
        changes.push(Change::Put { key: key.to_vec(), value: value.to_vec(), kin });
        bytes += key.len() + value.len();
        count += 1;
        if bytes < COPY_BYTES {
            return Ok(());
        }
        bytes = 0;
        to.write(shard, &mut changes.drain(..), mark)
    })?;
    to.write(shard, &mut changes.into_iter(), mark)?;
    Ok(count)
}

impl From<KeyError> for CheckpointError {
    fn from(error: KeyError) -> Self {
        CheckpointError::Files(error.into())
    }
}

/// So that checkpoints that are only known by their seam can be encoded as well.
impl Checkpoints for Box<dyn Checkpoints> {
    fn mark(&self, shard: u16) -> Result<Option<Mark>, CheckpointError> {
        (**self).mark(shard)
    }

    fn write(
        &mut self,
        shard: u16,
        changes: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        (**self).write(shard, changes, mark)
    }

    fn scan(&self, shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        (**self).scan(shard, prefix, visit)
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        (**self).reader()
    }

    fn freeze(&self, shard: u16) -> Result<Box<dyn Frozen>, CheckpointError> {
        (**self).freeze(shard)
    }

    fn clear(&mut self, shard: u16) -> Result<(), CheckpointError> {
        (**self).clear(shard)
    }
}
