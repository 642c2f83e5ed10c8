//! Checkpoints that live as long as the process. For tests, and for ponds that promise nothing.

use super::{Change, CheckpointError, CheckpointReader, Checkpoints, Mark, Visit, measure};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

/// Checkpoints in memory. Clones share them, so a clone kept aside survives the "crash" of another.
#[derive(Debug, Clone, Default)]
pub struct MemoryCheckpoints {
    shards: Arc<RwLock<BTreeMap<u16, Shard>>>,
}

#[derive(Debug, Default)]
struct Shard {
    mark: Option<Mark>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryCheckpoints {
    /// No checkpoints.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Checkpoints for MemoryCheckpoints {
    fn mark(&self, shard: u16) -> Result<Option<Mark>, CheckpointError> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        Ok(shards.get(&shard).and_then(|shard| shard.mark))
    }

    fn write(
        &mut self,
        shard: u16,
        changes: &mut dyn Iterator<Item = Change>,
        mark: Mark,
    ) -> Result<(), CheckpointError> {
        let changes: Vec<Change> =
            changes.map(|change| measure(&change).map(|()| change)).collect::<Result<_, _>>()?;
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        let shard = shards.entry(shard).or_default();
        for change in changes {
            match change {
                Change::Put { key, value, .. } => shard.values.insert(key, value),
                Change::Delete { key } => shard.values.remove(&key),
            };
        }
        shard.mark = Some(mark);
        Ok(())
    }

    fn scan(&self, shard: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        let Some(shard) = shards.get(&shard) else { return Ok(()) };
        shard
            .values
            .range(prefix.to_vec()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .try_for_each(|(key, value)| visit(key, value))
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        Arc::new(self.clone())
    }

    fn clear(&mut self, shard: u16) -> Result<(), CheckpointError> {
        self.shards.write().unwrap_or_else(PoisonError::into_inner).remove(&shard);
        Ok(())
    }
}

impl CheckpointReader for MemoryCheckpoints {
    fn get(&self, shard: u16, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        Ok(shards.get(&shard).and_then(|shard| shard.values.get(key)).cloned())
    }
}
