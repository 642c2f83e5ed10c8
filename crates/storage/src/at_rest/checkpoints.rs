//! Checkpoints over others.
//!
//! ```text
//! stored key           what
//! FF 00 6D             the manifest
//! FF 01 | rest         a key that begins with FF itself
//! kind | 16 bytes      a hidden key of that kind; which one it is stands in the value, encrypted
//! any other            the key itself
//! ```

use super::{
    AtRest,
    compress::Compressor,
    frame::{Decoded, Encoder, MAGIC, Undecodable, decode},
    key::{KeyError, KeyId},
    manifest::Manifest,
};
use crate::checkpoints::{
    Change, CheckpointError, CheckpointReader, Checkpoints, Frozen, Mark, VALUE_MAX, Visit, measure,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Our own keys, and escaped ones, begin with it.
const OWN: u8 = 0xFF;
const MANIFEST: &[u8] = &[OWN, 0, b'm'];
const ESCAPE: &[u8] = &[OWN, 1];

/// [`Checkpoints`] over others, whose values it encodes. A value is bound to its directory, shard and key.
///
/// What was written without it stays as it is until it is written again or copied with [`copy`].
pub struct EncodedCheckpoints<C> {
    inner: C,
    shared: Arc<Shared>,
    compressor: Compressor,
    /// What a shard without a checkpoint begins with.
    expected: Manifest,
}

struct Shared {
    at_rest: AtRest,
    directory: u64,
    manifests: RwLock<BTreeMap<u16, Manifest>>,
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
    /// Fails with [`KeyError::Missing`] if a value may be encrypted with a key that is not there.
    pub fn open(inner: C, at_rest: AtRest, directory: u64, shards: &[u16]) -> Result<Self, CheckpointError> {
        let mut this = Self {
            inner,
            shared: Arc::new(Shared { at_rest, directory, manifests: RwLock::default() }),
            compressor: Compressor::new(),
            expected: Manifest::default(),
        };
        for shard in shards {
            match this.manifest(*shard)? {
                Some(manifest) => this.shared.at_rest.keys.require(manifest.keys)?,
                None => this.adopt(*shard)?,
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
        let manifest = self.manifest(shard)?;
        Ok(manifest
            .map(|manifest| Encryption { plain: manifest.plain, keys: manifest.keys.into_iter().collect() }))
    }

    /// Where there is no checkpoint yet, says how the log before the first one is encrypted, so that it counts for the directory.
    pub fn follow(&mut self, log: Encryption) {
        self.expected = Manifest { plain: log.plain, keys: log.keys.into_iter().collect() };
    }

    fn manifest(&self, shard: u16) -> Result<Option<Manifest>, CheckpointError> {
        if let Some(manifest) = self.shared.manifest(shard) {
            return Ok(Some(manifest));
        }
        let Some(bytes) = self.inner.reader().get(shard, MANIFEST)? else { return Ok(None) };
        let manifest =
            Manifest::decode(&bytes).map_err(|error| corrupt(shard, MANIFEST, &error.to_string()))?;
        self.shared.learn(shard, manifest.clone());
        Ok(Some(manifest))
    }

    /// Takes over a checkpoint that was written without this layer: the few values that could be taken for encoded ones are escaped,
    /// in one step with the manifest that says so.
    fn adopt(&mut self, shard: u16) -> Result<(), CheckpointError> {
        let Some(mark) = self.inner.mark(shard)? else { return Ok(()) };
        let mut changes = Vec::new();
        let manifest = Manifest { plain: true, ..Manifest::default() };
        changes.push(Change::Put { key: MANIFEST.to_vec(), value: manifest.encode() });
        let mut encoder = Encoder::new(&mut self.compressor, 0, None)?;
        self.inner.scan(shard, &[], &mut |key, value| {
            if value.first() == Some(&MAGIC) {
                let value = encoder.encode(&[], value).into_owned();
                changes.push(Change::Put { key: key.to_vec(), value });
            }
            Ok(())
        })?;
        self.inner.write(shard, &mut changes.into_iter(), mark)?;
        self.shared.learn(shard, manifest);
        Ok(())
    }
}

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
        let before = self.manifest(shard)?;
        let mut after = before.clone().unwrap_or_else(|| self.expected.clone());
        let shared = &*self.shared;
        match shared.at_rest.keys.current() {
            Some(key) => drop(after.keys.insert(key.id())),
            None => after.plain = true,
        }
        let news = (before.as_ref() != Some(&after))
            .then(|| Change::Put { key: MANIFEST.to_vec(), value: after.encode() });
        let current = shared.at_rest.keys.current();
        let mut encoder = Encoder::new(&mut self.compressor, shared.at_rest.compress_from, current)?;
        let encoded = changes.flat_map(|change| {
            // Too large before is too large after: the store refuses it as it came.
            let fits = measure(&change).is_ok();
            let aliases = if fits { shared.aliases(shard, change.key(), &after) } else { Vec::new() };
            let change = if fits { shared.encode(shard, change, &mut encoder) } else { change };
            aliases.into_iter().map(|key| Change::Delete { key }).chain([change])
        });
        self.inner.write(shard, &mut news.into_iter().chain(encoded), mark)?;
        shared.learn(shard, after);
        Ok(())
    }

    fn scan(&self, shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        let shared = &*self.shared;
        let manifest = self.manifest(shard)?;
        let encrypted = manifest.is_some_and(|manifest| !manifest.plain);
        // Hidden keys come in no order: those of one kind are collected and sorted.
        let mut hidden = Hidden::default();
        let stored_prefix = if shared.hides(prefix) { &prefix[..1] } else { prefix };
        self.inner.scan(shard, &escape(stored_prefix), &mut |stored, value| {
            let escaped = match stored {
                [OWN, 1, ..] => true,
                [OWN, ..] => return Ok(()),
                _ => false,
            };
            let decoded = shared.decode(shard, stored, value, encrypted)?;
            let key = match &decoded.name {
                Some(name) => Cow::Borrowed(&name[..]),
                None if escaped => Cow::Owned([&[OWN], &stored[2..]].concat()),
                None => Cow::Borrowed(stored),
            };
            if !key.starts_with(prefix) {
                return Ok(());
            }
            if !shared.hides(&key) {
                hidden.flush(Some(&key), visit)?;
                return visit(&key, &decoded.value);
            }
            hidden.flush(Some(&key), visit)?;
            hidden.0.push((key.into_owned(), decoded.value.into_owned()));
            Ok(())
        })?;
        hidden.flush(None, visit)
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        Arc::new(EncodedReader { inner: self.inner.reader(), shared: self.shared.clone() })
    }

    fn freeze(&self, shard: u16) -> Result<Box<dyn Frozen>, CheckpointError> {
        self.inner.freeze(shard)
    }

    fn clear(&mut self, shard: u16) -> Result<(), CheckpointError> {
        self.shared.forget(shard);
        self.inner.clear(shard)
    }
}

/// Keys and values of one kind, until the next kind begins.
#[derive(Default)]
struct Hidden(Vec<(Vec<u8>, Vec<u8>)>);

impl Hidden {
    /// Visits what was collected, in order, unless `next` is of the same kind.
    fn flush(&mut self, next: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        let kind = self.0.first().and_then(|(key, _)| key.first());
        // A key that is only its kind is not hidden, but it is of that kind, and comes before all others.
        let same = next.is_some_and(|next| next.first() == kind && next.len() > 1);
        if same {
            return Ok(());
        }
        self.0.sort_unstable();
        self.0.drain(..).try_for_each(|(key, value)| visit(&key, &value))
    }
}

struct EncodedReader {
    inner: Arc<dyn CheckpointReader>,
    shared: Arc<Shared>,
}

impl CheckpointReader for EncodedReader {
    fn get(&self, shard: u16, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let encrypted = self.shared.manifest(shard).is_some_and(|manifest| !manifest.plain);
        for stored in self.shared.names(shard, key) {
            if let Some(value) = self.inner.get(shard, &stored)? {
                let decoded = self.shared.decode(shard, &stored, &value, encrypted)?;
                return Ok(Some(decoded.value.into_owned()));
            }
        }
        Ok(None)
    }
}

impl Shared {
    fn manifest(&self, shard: u16) -> Option<Manifest> {
        self.manifests.read().unwrap_or_else(PoisonError::into_inner).get(&shard).cloned()
    }

    fn learn(&self, shard: u16, manifest: Manifest) {
        self.manifests.write().unwrap_or_else(PoisonError::into_inner).insert(shard, manifest);
    }

    fn forget(&self, shard: u16) {
        self.manifests.write().unwrap_or_else(PoisonError::into_inner).remove(&shard);
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

    fn encode(&self, shard: u16, change: Change, encoder: &mut Encoder<'_>) -> Change {
        let stored = self.name(shard, change.key());
        match change {
            Change::Delete { .. } => Change::Delete { key: stored },
            Change::Put { key, value } => {
                let place = self.place(shard, &stored);
                let encoded = if self.hides(&key) {
                    encoder.encode_named(&place, &key, &value)
                } else {
                    encoder.encode(&place, &value)
                };
                let value = match encoded {
                    Cow::Owned(encoded) => encoded,
                    Cow::Borrowed(_) => value,
                };
                Change::Put { key: stored, value }
            }
        }
    }

    fn decode<'v>(
        &self,
        shard: u16,
        stored: &[u8],
        value: &'v [u8],
        encrypted: bool,
    ) -> Result<Decoded<'v>, CheckpointError> {
        let place = if self.at_rest.keys.is_empty() { Vec::new() } else { self.place(shard, stored) };
        match decode(&self.at_rest.keys, &place, value, VALUE_MAX) {
            Ok(decoded) if encrypted && !decoded.encrypted => {
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

/// Copies a shard's checkpoint from one store to an empty one: each value is decoded by the one and encoded by the other. Until it
/// returns, the copy is not whole. Returns how many values there are.
pub fn copy(from: &dyn Checkpoints, to: &mut dyn Checkpoints, shard: u16) -> Result<u64, CheckpointError> {
    let Some(mark) = from.mark(shard)? else { return Ok(0) };
    let (mut changes, mut bytes, mut count) = (Vec::new(), 0, 0);
    from.scan(shard, &[], &mut |key, value| {
        changes.push(Change::Put { key: key.to_vec(), value: value.to_vec() });
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
