use super::{Caller, Message, threads::serve};
use crate::{
    SHARD,
    answer::{Answer, CallError},
};
use bytes::Bytes;
use model::{JobRef, JobView};
use std::sync::{Arc, mpsc};
use storage::CheckpointReader;
use tokio::sync::oneshot;

/// What is to be done with bodies that had to be read from the checkpoint.
pub(crate) enum Purpose {
    /// They belong to the jobs of a fetch.
    Answer(Caller, Answer),
    /// One belongs to a job that somebody looks at.
    View(JobRef, Box<JobView>, oneshot::Sender<Result<Option<JobView>, CallError>>),
    /// They will be needed soon.
    Ahead,
}

/// Bodies to be read.
pub(crate) struct Task {
    pub(crate) sequences: Vec<u64>,
    pub(crate) purpose: Purpose,
}

/// What came back.
pub(crate) struct Loaded {
    /// In the order of the task's sequences; `None` for a body that the checkpoint does not hold.
    pub(crate) bodies: Result<Vec<(u64, Option<Bytes>)>, String>,
    pub(crate) purpose: Purpose,
}

/// Reads bodies, so that the shard never waits for the disk.
pub(crate) fn read_bodies(
    tasks: &mpsc::Receiver<Task>,
    inbox: &mpsc::Sender<Message>,
    reader: &Arc<dyn CheckpointReader>,
) {
    serve(tasks, inbox, |Task { sequences, purpose }| {
        let keys: Vec<_> = sequences.iter().map(|sequence| millpond_core::body_key(*sequence)).collect();
        let keys: Vec<_> = keys.iter().map(Vec::as_slice).collect();
        let bodies = reader.multi_get(SHARD, &keys).map_err(|error| error.to_string()).map(|bodies| {
            sequences.into_iter().zip(bodies.into_iter().map(|body| body.map(Bytes::from))).collect()
        });
        Message::Loaded(Loaded { bodies, purpose })
    });
}
