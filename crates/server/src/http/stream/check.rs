//! What a message must be before the pond sees it. The HTTP routes see to the same while they read JSON.

use crate::access::Right;
use bytes::Bytes;
use compact_str::CompactString;
use model::{Command, Graph, NewJob, Outcome, Reject, Settlement, Until, limits};
use serde::de::IgnoredAny;

/// A body without a content type is JSON.
fn body(body: &Bytes, content_type: &CompactString) -> Result<(), Reject> {
    if content_type.is_empty() { json("body", body) } else { Ok(()) }
}

pub(super) fn json(field: &'static str, value: &Bytes) -> Result<(), Reject> {
    // Most bodies are small; the check is a pass over their bytes.
    serde_json::from_slice::<IgnoredAny>(value)
        .map(drop)
        .map_err(|error| Reject::Invalid { field, reason: format!("is no JSON: {error}").into() })
}

pub(super) fn jobs(jobs: &[NewJob]) -> Result<(), Reject> {
    if jobs.len() > limits::BATCH_MAX {
        return Err(Reject::TooMany {
            what: "the number of jobs in a push",
            limit: limits::BATCH_MAX as u64,
        });
    }
    jobs.iter().try_for_each(|job| body(&job.body, &job.content_type))
}

fn graph(graph: &Graph) -> Result<(), Reject> {
    graph.jobs.iter().try_for_each(|named| body(&named.job.body, &named.job.content_type))
}

pub(super) fn settlements(settlements: &[Settlement]) -> Result<(), Reject> {
    settlements.iter().try_for_each(|settlement| {
        match &settlement.outcome {
            Outcome::Done { result: Some(result) } => json("result", result)?,
            Outcome::Wait { children } => graph(children)?,
            Outcome::Suspend { until: Until::Child { job }, .. } => body(&job.body, &job.content_type)?,
            Outcome::Done { result: None }
            | Outcome::Retry { .. }
            | Outcome::Fail { .. }
            | Outcome::Snooze { .. }
            | Outcome::RateLimited { .. }
            | Outcome::Cancel { .. }
            | Outcome::Crash(_)
            | Outcome::Suspend { .. } => {}
        }
        jobs(&settlement.push)
    })
}

/// A command that a client may send as one. What has a message of its own, and what only the node does, is refused.
pub(super) fn command(command: &Command) -> Result<(), Reject> {
    let not_here = |reason: &'static str| Err(Reject::Invalid { field: "command", reason: reason.into() });
    match command {
        Command::Push { .. }
        | Command::Fetch { .. }
        | Command::Renew { .. }
        | Command::Settle { .. }
        | Command::Progress { .. }
        | Command::Log { .. }
        | Command::Step { .. } => not_here("has a message of its own"),
        Command::Join { graph: added } => graph(added),
        Command::Extend { jobs, .. } => {
            jobs.iter().try_for_each(|named| body(&named.job.body, &named.job.content_type))
        }
        Command::PutSchedule { spec, .. } => body(&spec.job.body, &spec.job.content_type),
        Command::Signal { body, .. } => json("body", body),
        Command::PatchBody { body, .. } => json("body", body),
        Command::Cancel { .. }
        | Command::Promote { .. }
        | Command::Redrive { .. }
        | Command::Remove { .. }
        | Command::Restart { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Configure { .. }
        | Command::Bulk(_)
        | Command::ControlBulk { .. }
        | Command::CancelJoin { .. }
        | Command::SetLimit { .. }
        | Command::SetGroup { .. }
        | Command::PauseSchedule { .. }
        | Command::ResumeSchedule { .. }
        | Command::RunSchedule { .. }
        | Command::RemoveSchedule { .. } => Ok(()),
        Command::Tick | Command::Choose(_) | Command::RaiseTokens { .. } => not_here("is the node's own"),
    }
}

/// What a command needs of its caller: the same as its HTTP route.
pub(super) fn needed(command: &Command) -> Right {
    match command {
        Command::Push { .. }
        | Command::Join { .. }
        | Command::Extend { .. }
        | Command::CancelJoin { .. }
        | Command::Cancel { .. }
        | Command::Signal { .. } => Right::Produce,
        Command::Fetch { .. }
        | Command::Renew { .. }
        | Command::Settle { .. }
        | Command::Progress { .. }
        | Command::Log { .. }
        | Command::Step { .. } => Right::Work,
        Command::PatchBody { .. }
        | Command::Promote { .. }
        | Command::Redrive { .. }
        | Command::Remove { .. }
        | Command::Restart { .. }
        | Command::Pause { .. }
        | Command::Resume { .. }
        | Command::Configure { .. }
        | Command::Bulk(_)
        | Command::ControlBulk { .. }
        | Command::SetLimit { .. }
        | Command::SetGroup { .. }
        | Command::PutSchedule { .. }
        | Command::PauseSchedule { .. }
        | Command::ResumeSchedule { .. }
        | Command::RunSchedule { .. }
        | Command::RemoveSchedule { .. } => Right::Operate,
        Command::Tick | Command::Choose(_) | Command::RaiseTokens { .. } => Right::Admin,
    }
}
