use crate::plant::Planted;
use kit::Durability;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storage::{Entry, Log, LogError, Record, log::Visit};

/// What the log was given and what it promised, kept where no crash reaches. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Tee(Arc<Mutex<Kept>>);

/// Record `n` is at `n - 1`.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) payloads: Vec<Vec<u8>>,
    /// The newest record that a flush to `os` covered.
    pub(crate) os: u64,
    /// The newest record that a flush to `disk` covered.
    pub(crate) disk: u64,
    /// The newest record that the flush to `disk` before that one covered. What says that the last flush happened is
    /// itself durable only with the next one.
    pub(crate) disk_before: u64,
}

impl Tee {
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The production log, watched.
pub(crate) struct WatchedLog {
    log: Box<dyn Log>,
    tee: Tee,
    planted: Option<Planted>,
}

impl WatchedLog {
    pub(crate) fn new(log: Box<dyn Log>, tee: Tee, planted: Option<Planted>) -> Self {
        Self { log, tee, planted }
    }

    fn keep(&self, first: u64, entries: &[Entry<'_>]) {
        let mut kept = self.tee.kept();
        kept.payloads.truncate(first as usize - 1);
        kept.payloads.extend(entries.iter().map(|entry| entry.payload.to_vec()));
    }
}

impl Log for WatchedLog {
    fn epoch(&self) -> u64 {
        self.log.epoch()
    }

    fn first(&self) -> u64 {
        self.log.first()
    }

    fn next(&self) -> u64 {
        self.log.next()
    }

    fn strongest(&self) -> Durability {
        self.log.strongest()
    }

    fn append(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        if self.planted == Some(Planted::ApplyBeforeCommit) {
            // What the last append left is flushed only now, long after its callers were answered.
            self.log.flush(Durability::Disk)?;
        }
        let first = self.log.append(entries)?;
        self.keep(first, entries);
        Ok(first)
    }

    fn append_reserved(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        let first = self.log.append_reserved(entries)?;
        self.keep(first, entries);
        Ok(first)
    }

    fn reserve(&self) -> bool {
        self.log.reserve()
    }

    fn flush(&mut self, level: Durability) -> Result<(), LogError> {
        match self.planted {
            Some(Planted::AckBeforeFsync) => self.log.flush(level.min(Durability::Os))?,
            Some(Planted::ApplyBeforeCommit) => {}
            _ => self.log.flush(level)?,
        }
        let newest = self.log.next() - 1;
        let mut kept = self.tee.kept();
        if level >= Durability::Os {
            kept.os = newest;
        }
        if level >= Durability::Disk && newest > kept.disk {
            kept.disk_before = kept.disk;
            kept.disk = newest;
        }
        Ok(())
    }

    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        let planted = self.planted == Some(Planted::IgnoreCrc);
        self.log.read(from, &mut |mut record: Record| {
            if planted
                && record.index % 64 == 63
                && let Some(byte) = record.payload.last_mut()
            {
                *byte ^= 1;
            }
            visit(record)
        })
    }

    fn trim(&mut self, first_to_keep: u64) -> Result<(), LogError> {
        self.log.trim(first_to_keep)
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.log.close()
    }
}
