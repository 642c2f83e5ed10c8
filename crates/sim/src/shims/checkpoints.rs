use crate::plant::Planted;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use storage::{Change, CheckpointError, CheckpointReader, Checkpoints, Mark, checkpoints::Visit};

/// How the next write of a checkpoint goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is no space; nothing changes.
    Full,
    /// It fails, and nothing was stored.
    FailBefore,
    /// It fails, and everything was stored.
    FailAfter,
}

/// Checkpoints as the contract has them: a write is there whole when it returns, or after a failure whole or not at all.
/// Clones share them, so they outlive every crash.
#[derive(Clone, Default)]
pub(crate) struct Store {
    state: Arc<Mutex<State>>,
}

type Values = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct State {
    now: (Option<Mark>, Values),
    /// What a power cut leaves, where a bug makes it differ.
    durable: Option<(Option<Mark>, Values)>,
    fault: Option<Fault>,
    planted: Option<Planted>,
}

impl Store {
    pub(crate) fn new(planted: Option<Planted>) -> Self {
        let store = Self::default();
        store.state().planted = planted;
        store
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn inject(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    pub(crate) fn heal(&self) {
        self.state().fault = None;
    }

    pub(crate) fn cut_power(&self) {
        let mut state = self.state();
        state.fault = None;
        if let Some(durable) = state.durable.take() {
            state.now = durable;
        }
    }
}

impl Checkpoints for Store {
    fn mark(&self, _shard: u16) -> Result<Option<Mark>, CheckpointError> {
        Ok(self.state().now.0)
    }

    fn write(
        &mut self,
        _shard: u16,
        changes: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        let mut state = self.state();
        let fault = state.fault.take();
        match fault {
            Some(Fault::Full) => return Err(CheckpointError::Full { free: 0, needed: 1 }),
            Some(Fault::FailBefore) => return Err(CheckpointError::Poisoned),
            Some(Fault::FailAfter) | None => {}
        }
        if state.planted == Some(Planted::TrimBeforeCheckpointSync) {
            state.durable = Some(state.now.clone());
        }
        for change in changes {
            match change {
                Change::Put { key, value, .. } => state.now.1.insert(key, value),
                Change::Delete { key } => state.now.1.remove(&key),
            };
        }
        state.now.0 = Some(mark);
        if fault.is_some() { Err(CheckpointError::Poisoned) } else { Ok(()) }
    }

    fn scan(&self, _shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        let state = self.state();
        let mut range = state.now.1.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        range.try_for_each(|(key, value)| visit(key, value))
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        Arc::new(self.clone())
    }

    fn clear(&mut self, _shard: u16) -> Result<(), CheckpointError> {
        self.state().now = Default::default();
        Ok(())
    }
}

impl CheckpointReader for Store {
    fn get(&self, _shard: u16, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        Ok(self.state().now.1.get(key).cloned())
    }
}
