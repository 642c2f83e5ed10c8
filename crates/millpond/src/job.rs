use crate::{Children, Error};
use bytes::Bytes;
use kit::Timestamp;
use model::JobId;
use serde::Serialize;
use workers::{Cancelled, Context, Reason};

/// The attempt that a handler is running. Cheap to clone.
#[derive(Clone)]
pub struct Job(pub(crate) Context);

impl Job {
    /// The job's id, the same in every attempt.
    pub fn id(&self) -> &JobId {
        &self.0.job().id
    }

    /// Its queue.
    pub fn queue(&self) -> &str {
        self.0.job().queue.as_str()
    }

    /// Which attempt this is, 1 for the first.
    pub fn attempt(&self) -> u32 {
        self.0.job().attempt
    }

    /// How many attempts there are.
    pub fn attempts(&self) -> u32 {
        self.0.job().attempts
    }

    /// The fencing token, larger than all before it: pass it to whatever must refuse an old attempt's writes.
    pub fn token(&self) -> u64 {
        self.0.job().lease_token
    }

    /// When the attempt is called off, by the pond's clock.
    pub fn deadline(&self) -> Timestamp {
        self.0.job().timeout_at
    }

    /// When the job was pushed.
    pub fn created_at(&self) -> Timestamp {
        self.0.job().created_at
    }

    /// A header of the push.
    pub fn meta(&self, key: &str) -> Option<&str> {
        self.0.job().meta.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The tags of the push.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.0.job().tags.iter().map(|tag| tag.as_str())
    }

    /// The fairness group of the push.
    pub fn group(&self) -> Option<&str> {
        self.0.job().group.as_deref()
    }

    /// The members of the join that it waited for, and what came of them; `None` if it waited for none yet.
    pub fn children(&self) -> Option<Children<'_>> {
        self.0.job().children.as_deref().map(Children)
    }

    /// The body as it was pushed.
    pub fn body(&self) -> Bytes {
        self.0.body()
    }

    /// Waits until the attempt is called off: timeout, cancelled, lease lost, worker stopping.
    pub async fn cancelled(&self) -> Reason {
        self.0.cancelled().wait().await
    }

    /// The signal behind [`Job::cancelled`], for handing on, for example to a blocking thread.
    pub fn signal(&self) -> Cancelled {
        self.0.cancelled().clone()
    }

    /// Stores progress: any JSON value of at most 16 KiB.
    pub async fn progress(&self, value: impl Serialize) -> Result<(), Error> {
        let value = serde_json::to_vec(&value)?;
        Ok(self.0.progress(value).await?)
    }

    /// Appends a line to the job's log.
    pub async fn log(&self, line: impl AsRef<str>) -> Result<(), Error> {
        Ok(self.0.log([line]).await?)
    }
}
