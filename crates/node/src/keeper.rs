use crate::{answer::Poison, driver::Snapshot, writer::Writer};
use millpond_core::NewBody;
use std::sync::Arc;
use storage::{Change, CheckpointError, CheckpointReader, Checkpoints, Frozen};

/// The checkpoint's side of the driver: stores snapshots, one after the other.
pub struct Keeper(Box<dyn Checkpoints>);

impl Keeper {
    pub(crate) fn new(checkpoints: Box<dyn Checkpoints>) -> Self {
        Self(checkpoints)
    }

    /// Stores a snapshot, then lets the log forget what it covers. Says no if the disk is full: nothing was changed, and the same
    /// snapshot should be tried again. Any other failure is final, as one of the log is: nothing is trimmed any more, and a
    /// restart must find out what the disk holds.
    pub fn store(&mut self, snapshot: &Snapshot, writer: &Writer) -> Result<bool, Poison> {
        // A checkpoint must never know more than the log: the log could lose what only the checkpoint remembers, and then
        // would give the same positions to other commands.
        writer.sync()?;
        let records = snapshot.records.iter().cloned().map(|(key, value)| match value {
            Some(value) => Change::Put { key, value, kin: None },
            None => Change::Delete { key },
        });
        let bodies = snapshot.bodies.iter().cloned();
        let bodies =
            bodies.map(|NewBody { key, bytes, queue }| Change::Put { key, value: bytes, kin: Some(queue) });
        let mut changes = records.chain(bodies);
        match self.0.write(crate::SHARD, &mut changes, snapshot.mark) {
            Ok(()) => writer.trim(snapshot.mark.index + 1).map(|()| true),
            Err(CheckpointError::Full { .. }) => Ok(false),
            Err(error) => Err(error.to_string().into()),
        }
    }

    /// The newest checkpoint, as it stays whatever is stored later.
    pub fn freeze(&self) -> Result<Box<dyn Frozen>, CheckpointError> {
        self.0.freeze(crate::SHARD)
    }

    /// For reading bodies while checkpoints are written.
    pub fn reader(&self) -> Arc<dyn CheckpointReader> {
        self.0.reader()
    }
}
