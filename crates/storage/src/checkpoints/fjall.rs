//! Checkpoints in an LSM tree (the `fjall` library) on this machine.
//!
//! ```text
//! mark     key: 0, shard (2 bytes, big-endian)         value: crc (4 bytes), index (8 bytes), position (8 bytes), little-endian
//! record   key: 1, shard (2 bytes, big-endian), key    value: crc (4 bytes, little-endian), value
//! ```
//!
//! Both are in one keyspace of the engine, so that whatever loses the records loses their mark. The crc (CRC-32C) covers the key as stored and the value, so a value under another key is found out as well.
//!
//! # How a write is atomic
//!
//! A small checkpoint is one atomic batch of the engine: changes and mark, then a flush of its journal. The engine holds a
//! batch in memory twice, so a large one (over 16 MiB, up to gigabytes) goes another way: it is written to a redo file
//! (`redo.rs`) first. Half of its records without its mark would be *newer* than the mark, and replaying the log over them
//! would apply commands twice; so once the redo file has its name, the checkpoint is always completed: now, or at the next
//! open. Applying goes in batches of 4 MiB, the mark comes with the last flush, then the redo file goes.
//!
//! Every change is read back and compared before the caller may trim its log. That read finds what the
//! engine or memory did wrong; blocks that go bad on the disk later have checksums of the engine and the crc above.
//!
//! # Space
//!
//! An engine that runs out of space in the middle of a write has to be reopened. So free space is looked at first, and
//! a write that might not fit is refused with nothing changed.

use super::{
    Change, CheckpointError, CheckpointReader, Checkpoints, Frozen, Mark, Visit, measure,
    redo::{self, Writer},
};
use crate::{
    files::{RealFiles, SharedFiles},
    identity,
    log::LogError,
};
use ::fjall::{
    AbstractTree as _, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable as _, Snapshot,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How the engine is set up. None of it needs to stay the same from one open to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The id of the data directory: checkpoints of another directory are refused. Default 0.
    pub directory: u64,
    /// Memory for blocks read, in bytes. Default 32 MiB.
    pub cache_bytes: u64,
    /// Memory for values not yet sorted into files, in bytes; up to five times as much for moments. Default 16 MiB.
    pub memtable_bytes: u64,
    /// A write is refused while less than this and three times its size is free, in bytes. Default 32 MiB.
    pub free_bytes_min: u64,
}

impl Options {
    /// What [`FjallCheckpoints`] get that ask for nothing.
    pub const DEFAULT: Options =
        Options { directory: 0, cache_bytes: 32 << 20, memtable_bytes: 16 << 20, free_bytes_min: 32 << 20 };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A checkpoint with more bytes of changes than this goes through the redo file.
const DIRECT_MAX: usize = 16 << 20;
/// Deletions in one batch of [`Checkpoints::clear`].
const CLEAR_BATCH: usize = 10_000;
pub(crate) const KIND: &str = "checkpoints";
const ENGINE: &str = "fjall";
/// Threads of the engine that sort what was written.
const WORKERS: usize = 2;
const CRC: usize = 4;
/// Bytes in front of a key: which kind it is, and the shard.
const PREFIX: usize = 3;

/// [`Checkpoints`] in a `fjall` database.
pub struct FjallCheckpoints {
    path: PathBuf,
    files: SharedFiles,
    options: Options,
    db: Database,
    table: Table,
    /// A redo file waits to be applied.
    pending: bool,
}

/// What hears of each key, or of damage.
pub(crate) type Read<'a> = dyn FnMut(Result<&[u8], CheckpointError>) + 'a;

/// What hears of each key with its value, or with what is wrong with it.
pub(crate) type VisitEach<'a> = dyn FnMut(&[u8], Result<&[u8], CheckpointError>) + 'a;

/// Ranges that [`FjallCheckpoints::visit_each`] takes apart at most.
const STEPS_MAX: u32 = 100;
/// Bytes of a key up to which it takes them apart.
const DEPTH_MAX: usize = 12;
/// The length of a key that is a kind and a number.
const NUMBERED: usize = 9;
const UNREADABLE: &str = "the store cannot read what is here";

/// Whether keys of this kind are a number and nothing else.
fn is_numbered(key: &[u8]) -> bool {
    key.get(PREFIX).is_some_and(|kind| b"bj".contains(kind))
}

#[derive(Clone)]
struct Table(Keyspace);

impl FjallCheckpoints {
    /// Opens the checkpoints in the directory `path`, or starts some, and completes a write that a crash cut short.
    pub fn open(path: &Path, options: Options) -> Result<Self, CheckpointError> {
        let io =
            |operation| move |source| CheckpointError::Io { operation, path: path.to_path_buf(), source };
        let files: SharedFiles = Arc::new(RealFiles::open(path).map_err(io("open"))?);
        let begun = check_identity(&files, options.directory)?;
        let engine = path.join(ENGINE);
        // The engine would start afresh in a directory that lost this file.
        if begun && !engine.join("version").is_file() {
            return Err(CheckpointError::Corrupt {
                place: engine.display().to_string(),
                reason: "files of the store are missing".to_string(),
            });
        }
        if !begun && engine.exists() && !engine.join("version").is_file() {
            // The very first open did not come to an end, so there is nothing to lose.
            std::fs::remove_dir_all(&engine).map_err(io("clear"))?;
        }
        let (db, table) = open_engine(&engine, &options, WORKERS)?;
        if !begun {
            identity::write(&files, KIND, options.directory)?;
        }
        redo::tidy(&files)?;
        let mut checkpoints = Self { path: path.to_path_buf(), files, options, db, table, pending: true };
        checkpoints.complete()?;
        Ok(checkpoints)
    }

    /// Opens a mirror of checkpoints. Unless it is to `work`, or a write has to be completed first, nothing is moved about in it.
    pub(crate) fn open_mirror(path: &Path, options: Options, work: bool) -> Result<Self, CheckpointError> {
        let io =
            |operation| move |source| CheckpointError::Io { operation, path: path.to_path_buf(), source };
        let files: SharedFiles = Arc::new(RealFiles::open(path).map_err(io("open"))?);
        let engine = path.join(ENGINE);
        if !check_identity(&files, options.directory)? || !engine.join("version").is_file() {
            return Err(CheckpointError::Corrupt {
                place: path.display().to_string(),
                reason: "files of the store are missing".to_string(),
            });
        }
        let workers = if work || path.join(redo::NAME).exists() { WORKERS } else { 0 };
        let (db, table) = open_engine(&engine, &options, workers)?;
        let mut checkpoints = Self { path: path.to_path_buf(), files, options, db, table, pending: true };
        checkpoints.complete()?;
        Ok(checkpoints)
    }

    /// The files that hold the values, relative to the directory, with the checksum (XXH3, 128 bits) of each whole file.
    pub(crate) fn tables(&self) -> Vec<(PathBuf, u128)> {
        let version = self.table.0.tree.current_version();
        let named = |path: &Path| path.strip_prefix(&self.path).map(Path::to_path_buf).ok();
        version
            .iter_tables()
            .filter_map(|table| Some((named(&table.path)?, table.checksum().into_u128())))
            .collect()
    }

    /// Visits every key of a shard, also those whose values are damaged; goes on as long as the engine does.
    pub(crate) fn visit_all(&self, shard: u16, visit: &mut Read<'_>) {
        for guard in self.table.0.prefix(record_key(shard, &[])) {
            match guard.into_inner() {
                Ok((key, stored)) => visit(checked_value(&key, &stored).map(|_| &key[PREFIX..])),
                Err(error) => return visit(Err(engine("read")(error))),
            }
        }
    }

    /// Visits every key of a shard with its value, or with what is wrong with it. Steps over what the engine cannot read: then the key is
    /// what lost keys begin with, as far as that can be told.
    pub(crate) fn visit_each(&self, shard: u16, visit: &mut VisitEach<'_>) {
        self.visit_below(record_key(shard, &[]), &mut STEPS_MAX.clone(), visit);
    }

    /// Where a range cannot be read whole, its parts are tried, byte by byte of the key.
    fn visit_below(&self, prefix: Vec<u8>, steps: &mut u32, visit: &mut VisitEach<'_>) {
        let Err(failure) = self.read_all(&prefix, &mut |_, _| ()) else {
            // It has just been read; should it fail now, that is said as well.
            let read = self.read_all(&prefix, &mut |key, stored| {
                visit(&key[PREFIX..], checked_value(key, stored));
            });
            return read.unwrap_or_else(|failure| visit(&prefix[PREFIX..], Err(failure)));
        };
        if *steps == 0 || prefix.len() >= PREFIX + DEPTH_MAX {
            return visit(&prefix[PREFIX..], Err(failure));
        }
        *steps -= 1;
        if prefix.len() > PREFIX {
            self.visit_one(&prefix, visit);
        }
        for byte in 0..=u8::MAX {
            let below = [&prefix[..], &[byte]].concat();
            if below.len() == PREFIX + NUMBERED && is_numbered(&below) {
                self.visit_one(&below, visit);
            } else {
                self.visit_below(below, steps, visit);
            }
        }
    }

    /// A lookup of one key asks the engine's filters first, so a key that never was is seldom taken for a lost one.
    fn visit_one(&self, key: &[u8], visit: &mut VisitEach<'_>) {
        match catch_unwind(AssertUnwindSafe(|| self.table.0.get(key))) {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(stored))) => visit(&key[PREFIX..], checked_value(key, &stored)),
            Ok(Err(error)) => visit(&key[PREFIX..], Err(engine("read")(error))),
            Err(_) => visit(&key[PREFIX..], Err(corrupt(key, UNREADABLE))),
        }
    }

    fn read_all(&self, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), CheckpointError> {
        let mut guards = self.table.0.prefix(prefix);
        // The engine takes some damage for a mistake of its own.
        while let Some(read) =
            catch_unwind(AssertUnwindSafe(|| guards.next().map(|guard| guard.into_inner())))
                .map_err(|_| corrupt(prefix, UNREADABLE))?
        {
            let (key, stored) = read.map_err(engine("read"))?;
            visit(&key, &stored);
        }
        Ok(())
    }

    /// Applies a redo file, if one waits.
    fn complete(&mut self) -> Result<(), CheckpointError> {
        if !self.pending {
            return Ok(());
        }
        // Each batch is read back at once: a later one may change the same keys again.
        let apply = &mut |shard, changes: Vec<Change>| {
            self.commit(shard, &changes, None)?;
            self.verify(shard, changes.iter())
        };
        if let Some((shard, mark)) = redo::replay(&self.files, apply)? {
            self.commit(shard, &[], Some(mark))?;
            self.persist()?;
            self.verify_mark(shard, mark)?;
            redo::finish(&self.files)?;
        }
        self.pending = false;
        Ok(())
    }

    fn write_large(
        &mut self,
        shard: u16,
        taken: Vec<Change>,
        rest: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        let mut writer = Writer::create(&self.files, shard, mark)?;
        let mut bytes = 0;
        for change in taken.into_iter().chain(rest) {
            measure(&change)?;
            writer.put(&change)?;
            if bytes / DIRECT_MAX != (bytes + change.bytes()) / DIRECT_MAX {
                self.check_space(bytes as u64)?;
            }
            bytes += change.bytes();
        }
        self.check_space(bytes as u64)?;
        self.pending = true;
        writer.commit()?;
        self.complete()
    }

    fn commit(&self, shard: u16, changes: &[Change], mark: Option<Mark>) -> Result<(), CheckpointError> {
        let mut batch = self.db.batch();
        for change in changes {
            let key = record_key(shard, change.key());
            match change {
                Change::Put { value, .. } => {
                    let value = stored_value(&key, value);
                    batch.insert(&self.table.0, key, value);
                }
                Change::Delete { .. } => batch.remove(&self.table.0, key),
            }
        }
        if let Some(mark) = mark {
            let key = mark_key(shard);
            let value = stored_value(&key, &encode_mark(mark));
            batch.insert(&self.table.0, key, value);
        }
        batch.commit().map_err(engine("write"))
    }

    fn persist(&self) -> Result<(), CheckpointError> {
        self.db.persist(PersistMode::SyncData).map_err(engine("flush"))
    }

    /// Reads changes back. Of several changes to one key within `changes` only the last can be true.
    fn verify<'a>(
        &self,
        shard: u16,
        changes: impl Iterator<Item = &'a Change>,
    ) -> Result<(), CheckpointError> {
        let mut last = std::collections::HashMap::new();
        for change in changes {
            let crc = match change {
                Change::Put { value, .. } => Some(crc32c::crc32c(value)),
                Change::Delete { .. } => None,
            };
            last.insert(change.key(), crc);
        }
        for (key, crc) in last {
            let found = self.table.get(shard, key)?;
            if found.as_deref().map(crc32c::crc32c) != crc {
                return Err(corrupt(&record_key(shard, key), "it does not read back as it was just written"));
            }
        }
        Ok(())
    }

    fn verify_mark(&self, shard: u16, mark: Mark) -> Result<(), CheckpointError> {
        if self.mark(shard)? == Some(mark) {
            return Ok(());
        }
        Err(corrupt(&mark_key(shard), "the mark does not read back as it was just written"))
    }

    fn check_space(&self, bytes: u64) -> Result<(), CheckpointError> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|errno| CheckpointError::Io {
            operation: "measure the free space of",
            path: self.path.clone(),
            source: errno.into(),
        })?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let needed = self.options.free_bytes_min.saturating_add(bytes.saturating_mul(3));
        if free < needed { Err(CheckpointError::Full { free, needed }) } else { Ok(()) }
    }
}

impl Checkpoints for FjallCheckpoints {
    fn mark(&self, shard: u16) -> Result<Option<Mark>, CheckpointError> {
        let key = mark_key(shard);
        let Some(stored) = self.table.0.get(key).map_err(engine("read"))? else { return Ok(None) };
        let value = checked_value(&key, &stored)?;
        decode_mark(value).map(Some).ok_or_else(|| corrupt(&key, "the mark has a wrong length"))
    }

    fn write(
        &mut self,
        shard: u16,
        changes: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        self.complete()?;
        self.check_space(0)?;
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(change) = changes.next() {
            measure(&change)?;
            bytes += change.bytes();
            taken.push(change);
            if bytes > DIRECT_MAX {
                return self.write_large(shard, taken, changes, mark);
            }
        }
        self.check_space(bytes as u64)?;
        self.commit(shard, &taken, Some(mark))?;
        self.persist()?;
        self.verify(shard, taken.iter())?;
        self.verify_mark(shard, mark)
    }

    fn scan(&self, shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        for guard in self.table.0.prefix(record_key(shard, prefix)) {
            let (key, stored) = guard.into_inner().map_err(engine("read"))?;
            visit(&key[PREFIX..], checked_value(&key, &stored)?)?;
        }
        Ok(())
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        Arc::new(self.table.clone())
    }

    fn freeze(&self, shard: u16) -> Result<Box<dyn Frozen>, CheckpointError> {
        // Nobody writes meanwhile, so both are of the same moment.
        let snapshot = self.db.snapshot();
        Ok(Box::new(Still { snapshot, table: self.table.clone(), shard, mark: self.mark(shard)? }))
    }

    fn clear(&mut self, shard: u16) -> Result<(), CheckpointError> {
        self.complete()?;
        let prefix = record_key(shard, &[]);
        self.table.0.remove(mark_key(shard)).map_err(engine("write"))?;
        self.persist()?;
        loop {
            let mut batch = self.db.batch();
            for guard in self.table.0.prefix(&prefix).take(CLEAR_BATCH) {
                batch.remove(&self.table.0, guard.key().map_err(engine("read"))?);
            }
            if batch.is_empty() {
                break;
            }
            batch.commit().map_err(engine("write"))?;
        }
        self.persist()
    }
}

/// What the engine keeps for us although it was replaced since.
struct Still {
    snapshot: Snapshot,
    table: Table,
    shard: u16,
    mark: Option<Mark>,
}

impl Frozen for Still {
    fn mark(&self) -> Option<Mark> {
        self.mark
    }

    fn visit(&self, visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        for guard in self.snapshot.prefix(&self.table.0, record_key(self.shard, &[])) {
            let (key, stored) = guard.into_inner().map_err(engine("read"))?;
            visit(&key[PREFIX..], checked_value(&key, &stored)?)?;
        }
        Ok(())
    }
}

impl CheckpointReader for Table {
    fn get(&self, shard: u16, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let key = record_key(shard, key);
        let Some(stored) = self.0.get(&key).map_err(engine("read"))? else { return Ok(None) };
        checked_value(&key, &stored).map(|value| Some(value.to_vec()))
    }
}

fn check_identity(files: &SharedFiles, directory: u64) -> Result<bool, LogError> {
    match identity::read(files, KIND)? {
        Some(id) if id != directory => Err(LogError::Foreign {
            file: files.path(identity::IDENTITY).display().to_string(),
            reason: format!(
                "it holds checkpoints of data directory {id:016x}, not {directory:016x}; put the right files back"
            ),
        }),
        identity => Ok(identity.is_some()),
    }
}

fn open_engine(path: &Path, options: &Options, workers: usize) -> Result<(Database, Table), CheckpointError> {
    let opened = catch_unwind(AssertUnwindSafe(|| -> ::fjall::Result<_> {
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(128 << 20)
            .worker_threads_unchecked(workers)
            .open()?;
        let memtable = options.memtable_bytes;
        let table =
            db.keyspace("checkpoints", || KeyspaceCreateOptions::default().max_memtable_size(memtable))?;
        Ok((db, Table(table)))
    }));
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(::fjall::Error::Locked)) => Err(CheckpointError::Locked { path: path.to_path_buf() }),
        Ok(Err(error)) => Err(CheckpointError::Corrupt {
            place: path.display().to_string(),
            reason: format!("the store does not open: {error}"),
        }),
        // The engine takes some damage for a mistake of its own.
        Err(_) => Err(CheckpointError::Corrupt {
            place: path.display().to_string(),
            reason: "the store does not open".to_string(),
        }),
    }
}

fn engine(operation: &'static str) -> impl Fn(::fjall::Error) -> CheckpointError {
    move |error| match error {
        ::fjall::Error::Poisoned => CheckpointError::Poisoned,
        error => CheckpointError::Engine { operation, reason: error.to_string() },
    }
}

fn mark_key(shard: u16) -> [u8; PREFIX] {
    let [high, low] = shard.to_be_bytes();
    [0, high, low]
}

fn record_key(shard: u16, key: &[u8]) -> Vec<u8> {
    let [high, low] = shard.to_be_bytes();
    let mut stored = Vec::with_capacity(PREFIX + key.len());
    stored.extend_from_slice(&[1, high, low]);
    stored.extend_from_slice(key);
    stored
}

fn stored_value(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(CRC + value.len());
    stored.extend_from_slice(&checksum(key, value));
    stored.extend_from_slice(value);
    stored
}

fn checked_value<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], CheckpointError> {
    match stored.split_first_chunk::<CRC>() {
        Some((crc, value)) if *crc == checksum(key, value) => Ok(value),
        _ => Err(corrupt(key, "the value has a wrong checksum")),
    }
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CRC] {
    crc32c::crc32c_append(crc32c::crc32c(key), value).to_le_bytes()
}

fn encode_mark(mark: Mark) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mark.index.to_le_bytes());
    bytes[8..].copy_from_slice(&mark.position.to_le_bytes());
    bytes
}

fn decode_mark(bytes: &[u8]) -> Option<Mark> {
    let (index, rest) = bytes.split_first_chunk::<8>()?;
    let position = rest.try_into().ok()?;
    Some(Mark { index: u64::from_le_bytes(*index), position: u64::from_le_bytes(position) })
}

fn corrupt(key: &[u8], reason: &str) -> CheckpointError {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    CheckpointError::Corrupt { place: format!("key {hex}"), reason: reason.to_string() }
}
