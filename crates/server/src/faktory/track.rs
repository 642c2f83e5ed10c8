//! TRACK: how far a job is, for its producer, and from its worker.

use super::{
    answer::{Answer, Refusal},
    job,
    session::Session,
};
use crate::{access::Right, now};
use bytes::Bytes;
use kit::Timestamp;
use model::{Command, JobId, JobRef, JobView, State, limits};
use serde::{Deserialize, Serialize};

/// What a worker tells of its job, and what is kept of it as the job's progress.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    desc: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Set {
    jid: String,
    #[serde(flatten)]
    progress: Progress,
    #[serde(default)]
    reserve_until: Option<String>,
}

#[derive(Debug, Serialize)]
struct Track<'t> {
    jid: &'t str,
    state: &'static str,
    updated_at: String,
    #[serde(flatten)]
    progress: Progress,
}

/// The state of a job as Faktory calls it.
fn word(state: State) -> &'static str {
    match state {
        State::Waiting | State::Delayed | State::Blocked | State::WaitingChildren => "enqueued",
        State::Active | State::Suspended => "working",
        State::Completed => "success",
        State::Retrying => "failed",
        State::Dead | State::Cancelled | State::Expired => "dead",
    }
}

impl Session<'_> {
    /// TRACK GET with an id, TRACK SET with an object.
    pub(super) async fn track(&self, said: &[u8]) -> Result<Answer, Refusal> {
        let said = String::from_utf8_lossy(said);
        match said.split_once(' ') {
            Some(("GET", jid)) => self.track_get(jid.trim()).await,
            Some(("SET", said)) => self.track_set(said).await,
            _ => Err(Refusal::new("TRACK is followed by GET and an id, or by SET and a JSON object")),
        }
    }

    /// A job that is not tracked is as unknown as one that is not there.
    async fn track_get(&self, jid: &str) -> Result<Answer, Refusal> {
        self.check(Right::Look)?;
        let mut track =
            Track { jid, state: "unknown", updated_at: String::new(), progress: Progress::default() };
        if let Some((view, changed_at)) = self.tracked(jid).await? {
            track.state = word(view.state);
            track.updated_at = changed_at.to_string();
            let progress = view.progress.as_deref().map(serde_json::from_slice);
            track.progress = progress.and_then(Result::ok).unwrap_or_default();
        }
        Ok(Answer::Bulk(serde_json::to_vec(&track).unwrap_or_default()))
    }

    async fn tracked(&self, jid: &str) -> Result<Option<(JobView, Timestamp)>, Refusal> {
        let Ok(id) = JobId::parse(jid) else { return Ok(None) };
        let caller = self.caller.clone();
        let found = self.app.node.read(move |shard| {
            let wanted = |view: &JobView| job::is_tracked(&view.meta) && caller.reaches(&view.queue);
            let view = shard.job_anywhere(&id, wanted)?;
            let history = shard.history(&JobRef { queue: Some(view.queue.clone()), id })?;
            let changed_at = history.last().map_or(view.created_at, |entry| entry.at);
            Some((view, changed_at))
        });
        Ok(found.await?)
    }

    /// What is told of a job that has ended meanwhile is not needed any more.
    async fn track_set(&self, said: &str) -> Result<Answer, Refusal> {
        self.check(Right::Work)?;
        let set: Set = serde_json::from_str(said)
            .map_err(|error| Refusal::new(format!("invalid TRACK SET: {error}")))?;
        let until = set.reserve_until.as_deref().filter(|text| !text.is_empty()).map(str::parse::<Timestamp>);
        let until = until
            .transpose()
            .map_err(|error| Refusal::new(format!("invalid timestamp for 'reserve_until': {error}")))?;
        let Some(held) = self.held(&set.jid).await? else { return Ok(Answer::Ok) };
        let lease = held.lease;
        let value: Bytes = serde_json::to_vec(&set.progress).unwrap_or_default().into();
        self.call(Command::Progress { lease: lease.clone(), value }).await?;
        if let Some(until) = until {
            self.reserve(lease, until).await?;
        }
        Ok(Answer::Ok)
    }

    /// A reservation becomes longer, never shorter.
    async fn reserve(&self, lease: model::LeaseRef, until: Timestamp) -> Result<(), Refusal> {
        let asked = lease.job.clone();
        let view = self.app.node.read(move |shard| shard.job(&asked)).await?;
        if view.and_then(|view| view.due_at).is_none_or(|due| due >= until) {
            return Ok(());
        }
        let lease_ms = until.0.saturating_sub(now().0).clamp(limits::LEASE_MS_MIN, limits::LEASE_MS_MAX);
        self.call(Command::Renew { leases: vec![lease], lease_ms }).await.map(drop)
    }
}
