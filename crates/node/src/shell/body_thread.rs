use super::{Caller, Message, threads::serve};
use crate::{
    SHARD,
    answer::{Answer, CallError},
    body_test::passes,
};
use bytes::Bytes;
use millpond_core::Unread;
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
    /// An operation asks about them, and about those that were in memory.
    Choose(Unread),
    /// These of them passed.
    Chosen(Unread, Vec<u64>),
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
            let bodies = bodies.into_iter().map(|body| body.map(Bytes::from));
            sequences.into_iter().zip(bodies).collect::<Vec<_>>()
        });
        let purpose = match (purpose, &bodies) {
            (Purpose::Choose(unread), Ok(bodies)) => {
                let chosen = passing(&unread, bodies);
                Purpose::Chosen(unread, chosen)
            }
            (purpose, _) => purpose,
        };
        Some(Message::Loaded(Loaded { bodies, purpose }))
    });
}

/// The jobs whose bodies pass: those that were in memory, and those that were read, which come in the same order.
fn passing(unread: &Unread, read: &[(u64, Option<Bytes>)]) -> Vec<u64> {
    let mut read = read.iter().peekable();
    let mut chosen = Vec::new();
    for (sequence, body) in &unread.jobs {
        let cold = read.next_if(|(other, _)| other == sequence).and_then(|(_, body)| body.as_ref());
        if body.as_ref().or(cold).is_some_and(|body| passes(body, &unread.tests)) {
            chosen.push(*sequence);
        }
    }
    chosen
}
