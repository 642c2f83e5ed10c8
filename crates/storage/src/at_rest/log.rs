use super::{
    AtRest,
    checkpoints::Encryption,
    compress::Compressor,
    frame::{Encoder, Undecodable, decode, key_of},
};
use crate::log::{Entry, Log, LogError, PAYLOAD_MAX, Record, Visit, measure};
use kit::Durability;
use std::borrow::Cow;

/// A [`Log`] over another one, whose payloads it encodes. A payload is bound to its directory, shard, epoch and index.
///
/// Payloads that were appended without it are read as they are, if they do not begin with the byte F5.
pub struct EncodedLog<L> {
    inner: L,
    at_rest: AtRest,
    directory: u64,
    compressor: Compressor,
}

impl<L: Log> EncodedLog<L> {
    /// Encodes what goes into `inner`. `directory` is the id of the data directory, or any number that stays the same.
    pub fn new(inner: L, at_rest: AtRest, directory: u64) -> Self {
        Self { inner, at_rest, directory, compressor: Compressor::new() }
    }

    /// The log behind it.
    pub fn inner(&self) -> &L {
        &self.inner
    }

    /// The same, to be changed.
    pub fn inner_mut(&mut self) -> &mut L {
        &mut self.inner
    }

    /// How the oldest record that is kept is encrypted; `None` if there is no record.
    pub fn encryption(&self) -> Result<Option<Encryption>, LogError> {
        let mut found = None;
        let read = self.inner.read(self.inner.first(), &mut |record: Record| {
            let key = key_of(&record.payload);
            found = Some(Encryption { plain: key.is_none(), keys: key.into_iter().collect() });
            Err(LogError::Stopped)
        });
        match read {
            Ok(()) | Err(LogError::Stopped) => Ok(found),
            Err(error) => Err(error),
        }
    }

    fn append_with(
        &mut self,
        entries: &[Entry<'_>],
        append: impl FnOnce(&mut L, &[Entry<'_>]) -> Result<u64, LogError>,
    ) -> Result<u64, LogError> {
        measure(entries)?;
        let Self { inner, at_rest, directory, compressor } = self;
        let (first, epoch) = (inner.next(), inner.epoch());
        let mut encoder = Encoder::new(compressor, at_rest.compress_log_from, at_rest.keys.current())?;
        let encoded: Vec<Cow<'_, [u8]>> = (first..)
            .zip(entries)
            .map(|(index, entry)| {
                encoder.encode(&place(*directory, entry.shard, epoch, index), entry.payload, None)
            })
            .collect();
        let entries: Vec<Entry<'_>> = entries
            .iter()
            .zip(&encoded)
            .map(|(entry, payload)| Entry { shard: entry.shard, payload })
            .collect();
        let index = append(inner, &entries)?;
        assert_eq!(index, first, "a log gives the index that it announced");
        Ok(index)
    }
}

fn place(directory: u64, shard: u16, epoch: u64, index: u64) -> [u8; 27] {
    let mut place = [b'l'; 27];
    place[1..9].copy_from_slice(&directory.to_be_bytes());
    place[9..11].copy_from_slice(&shard.to_be_bytes());
    place[11..19].copy_from_slice(&epoch.to_be_bytes());
    place[19..].copy_from_slice(&index.to_be_bytes());
    place
}

impl<L: Log> Log for EncodedLog<L> {
    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }

    fn first(&self) -> u64 {
        self.inner.first()
    }

    fn next(&self) -> u64 {
        self.inner.next()
    }

    fn strongest(&self) -> Durability {
        self.inner.strongest()
    }

    fn append(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        self.append_with(entries, |inner, entries| inner.append(entries))
    }

    fn append_reserved(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        self.append_with(entries, |inner, entries| inner.append_reserved(entries))
    }

    fn reserve(&self) -> bool {
        self.inner.reserve()
    }

    fn flush(&mut self, level: Durability) -> Result<(), LogError> {
        self.inner.flush(level)
    }

    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        self.inner.read(from, &mut |mut record: Record| {
            let place = place(self.directory, record.shard, record.epoch, record.index);
            match decode(&self.at_rest.keys, &Vec::new(), &place, &record.payload, PAYLOAD_MAX) {
                Ok(decoded) => {
                    if let Cow::Owned(payload) = decoded.value {
                        record.payload = payload;
                    }
                    visit(record)
                }
                Err(Undecodable::Key(error)) => Err(error.into()),
                Err(Undecodable::Damaged(reason)) => Err(LogError::Corrupt {
                    file: "the log".to_owned(),
                    offset: 0,
                    index: record.index,
                    reason: reason.to_owned(),
                }),
            }
        })
    }

    fn trim(&mut self, first_to_keep: u64) -> Result<(), LogError> {
        self.inner.trim(first_to_keep)
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.inner.close()
    }
}

/// So that a log that is only known by its seam can be encoded as well.
impl Log for Box<dyn Log> {
    fn epoch(&self) -> u64 {
        (**self).epoch()
    }

    fn first(&self) -> u64 {
        (**self).first()
    }

    fn next(&self) -> u64 {
        (**self).next()
    }

    fn strongest(&self) -> Durability {
        (**self).strongest()
    }

    fn append(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        (**self).append(entries)
    }

    fn append_reserved(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        (**self).append_reserved(entries)
    }

    fn reserve(&self) -> bool {
        (**self).reserve()
    }

    fn flush(&mut self, level: Durability) -> Result<(), LogError> {
        (**self).flush(level)
    }

    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        (**self).read(from, visit)
    }

    fn trim(&mut self, first_to_keep: u64) -> Result<(), LogError> {
        (**self).trim(first_to_keep)
    }

    fn close(&mut self) -> Result<(), LogError> {
        (**self).close()
    }
}
