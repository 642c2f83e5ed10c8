//! PUSH and PUSHB: jobs from producers.

use super::{
    answer::{Answer, Refusal},
    job::{self, Push},
    session::Session,
};
use crate::{access::Right, now};
use bytes::Bytes;
use compact_str::format_compact;
use model::{Command, JobId, JobRef, NewJob, Reject, limits};
use node::CallError;
use serde_json::value::RawValue;
use std::{collections::BTreeMap, time::Duration};

/// How long a push waits for room in a full queue whose producers wait. Clients give up after five seconds or more.
const WAIT: Duration = Duration::from_secs(3);
/// Jobs that have given up the same unique key by starting and are not done yet, beyond which another one is refused.
const STARTED_MAX: usize = 16;

impl Session<'_> {
    /// PUSH: one job.
    pub(super) async fn push(&self, sent: Bytes) -> Result<Answer, Refusal> {
        self.check(Right::Produce)?;
        self.push_one(job::read(&sent, now())?).await?;
        Ok(Answer::Ok)
    }

    /// PUSHB: many jobs, each judged by itself; the answer names those that were refused.
    pub(super) async fn push_many(&self, sent: Bytes) -> Result<Answer, Refusal> {
        self.check(Right::Produce)?;
        let jobs: Vec<&RawValue> = serde_json::from_slice(&sent)
            .map_err(|error| Refusal::new(format!("invalid JSON: a list of jobs is expected: {error}")))?;
        if jobs.len() > limits::BATCH_MAX {
            return Err(Refusal::new(format!("a PUSHB has at most {} jobs", limits::BATCH_MAX)));
        }
        let mut refused = BTreeMap::new();
        let mut together = Vec::new();
        for text in jobs {
            let bytes = sent.slice_ref(text.get().as_bytes());
            let jid = job::jid_of(&bytes);
            match job::read(&bytes, now()) {
                // Alone, each of these is refused for itself.
                Ok(push) if push.job.unique.is_some() || push.batch.is_some() => {
                    if let Err(refusal) = self.push_one(push).await {
                        refused.insert(jid, refusal.line());
                    }
                }
                Ok(push) => together.push((jid, push)),
                Err(refusal) => drop(refused.insert(jid, refusal.line())),
            }
        }
        let all = together.iter().map(|(_, push)| push.job.clone()).collect();
        if !together.is_empty() && self.add(all).await.is_err() {
            for (jid, push) in together {
                if let Err(refusal) = self.push_one(push).await {
                    refused.insert(jid, refusal.line());
                }
            }
        }
        Ok(Answer::Bulk(serde_json::to_vec(&refused).unwrap_or_default()))
    }

    async fn push_one(&self, push: Push) -> Result<(), Refusal> {
        let Push { mut job, batch: _ } = push;
        let Some(unique) = job.unique.clone() else { return Ok(self.add(vec![job]).await?) };
        // A key of the pond is held until its job ends. Behind a job that gives its key up by starting, the next one takes a key of its own.
        for started in 1..=STARTED_MAX {
            let holder = match self.add(vec![job.clone()]).await {
                Err(Pushing::Call(CallError::Refused(Reject::UniqueConflict { holder, .. }))) => holder,
                other => return Ok(other?),
            };
            let holder = JobRef { queue: Some(job.queue.clone()), id: JobId::parse(&holder)? };
            let view = self.app.node.read(move |shard| shard.job(&holder)).await?;
            if view.is_some_and(|view| view.attempt == 0 || !job::gives_key_up(&view.meta)) {
                break;
            }
            if let Some(own) = &mut job.unique {
                own.key = format_compact!("{}:{started}", unique.key);
            }
        }
        Err(Refusal::not_unique())
    }

    async fn add(&self, jobs: Vec<NewJob>) -> Result<(), Pushing> {
        let envelope = self.envelope(Command::Push { jobs }).await.map_err(Pushing::Refused)?;
        let level = self.app.rules.durability;
        self.app.node.push(envelope, Some(WAIT), level).await.map(drop).map_err(Pushing::Call)
    }
}

/// Why a push came to nothing.
enum Pushing {
    Refused(Refusal),
    Call(CallError),
}

impl From<Pushing> for Refusal {
    fn from(pushing: Pushing) -> Self {
        match pushing {
            Pushing::Refused(refusal) => refusal,
            Pushing::Call(error) => error.into(),
        }
    }
}
