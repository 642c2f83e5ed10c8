//! A log that lives as long as the process. For tests, and for ponds that promise nothing.

use super::{Entry, Log, LogError, Record, Visit, measure};
use kit::Durability;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What outlives an owner: open it again for the next epoch. Clones share the records.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    epoch: u64,
    first: u64,
    records: VecDeque<Record>,
}

impl Default for State {
    fn default() -> Self {
        Self { epoch: 0, first: 1, records: VecDeque::new() }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the ownership: an earlier owner is fenced from now on.
    pub fn open(&self) -> MemoryLog {
        let mut state = self.state();
        state.epoch += 1;
        let next = state.first + state.records.len() as u64;
        MemoryLog { store: self.clone(), epoch: state.epoch, next, buffer: Vec::new(), closed: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One owner of a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryLog {
    store: MemoryStore,
    epoch: u64,
    next: u64,
    buffer: Vec<Record>,
    closed: bool,
}

impl MemoryLog {
    /// A log of its own that nobody can open again.
    pub fn new() -> Self {
        MemoryStore::new().open()
    }

    fn owned(&self) -> Result<MutexGuard<'_, State>, LogError> {
        if self.closed {
            return Err(LogError::Closed);
        }
        let state = self.store.state();
        if state.epoch != self.epoch {
            return Err(LogError::Fenced { mine: self.epoch, current: state.epoch });
        }
        Ok(state)
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Log for MemoryLog {
    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn first(&self) -> u64 {
        self.store.state().first
    }

    fn next(&self) -> u64 {
        self.next
    }

    fn strongest(&self) -> Durability {
        Durability::Memory
    }

    fn append(&mut self, entries: &[Entry<'_>]) -> Result<u64, LogError> {
        drop(self.owned()?);
        measure(entries)?;
        let first = self.next;
        for entry in entries {
            self.buffer.push(Record {
                index: self.next,
                epoch: self.epoch,
                shard: entry.shard,
                payload: entry.payload.to_vec(),
            });
            self.next += 1;
        }
        Ok(first)
    }

    fn flush(&mut self, level: Durability) -> Result<(), LogError> {
        if level > self.strongest() {
            return Err(LogError::Unsupported { asked: level, strongest: self.strongest() });
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.owned()?.records.extend(buffer);
        Ok(())
    }

    fn read(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), LogError> {
        let records: Vec<Record> = {
            let state = self.owned()?;
            if from < state.first {
                return Err(LogError::Trimmed { asked: from, first: state.first });
            }
            state.records.iter().skip((from - state.first) as usize).cloned().collect()
        };
        records.into_iter().try_for_each(visit)
    }

    fn trim(&mut self, first_to_keep: u64) -> Result<(), LogError> {
        let mut state = self.owned()?;
        while state.first < first_to_keep && state.records.pop_front().is_some() {
            state.first += 1;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), LogError> {
        self.flush(self.strongest())?;
        self.closed = true;
        Ok(())
    }
}
