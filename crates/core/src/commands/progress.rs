use crate::shard::Shard;
use bytes::Bytes;
use model::{LeaseRef, Reject, Reply, limits};

impl Shard {
    /// Stores the newest progress of a running job.
    pub(crate) fn progress(&mut self, lease: &LeaseRef, value: &Bytes) -> Result<Reply, Reject> {
        if value.len() > limits::PROGRESS_BYTES_MAX {
            return Err(Reject::Invalid { field: "progress", reason: "has at most 16 KiB".into() });
        }
        let slot = self.leased(lease)?;
        self.jobs[slot].run_mut().progress = Some(Bytes::copy_from_slice(value));
        self.touch(slot);
        Ok(Reply::Done)
    }
}
