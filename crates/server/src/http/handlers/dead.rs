//! Dead letters: what kills jobs, and how a body is mended.

use super::{Answered, mismatched};
use crate::http::{
    app::App,
    dto::write_alert,
    extract::{Call, Job, Payload, Queue},
    json,
    problem::Problem,
    reply,
};
use axum::{extract::State, http::StatusCode};
use bytes::Bytes;
use compact_str::CompactString;
use model::{Command, Reject, Reply};

/// GET /v1/queues/{queue}/dead/classes
pub(crate) async fn classes(State(app): State<App>, Queue(queue): Queue) -> Answered {
    let asked = queue.clone();
    let letters = app.node.read(move |shard| shard.dead_letters(&asked)).await?;
    let letters = letters.ok_or_else(|| Problem::from(Reject::UnknownQueue { queue: queue.clone() }))?;
    Ok(reply::object(StatusCode::OK, 128 + 256 * letters.classes.len(), |out| {
        out.field("queue", &queue);
        out.field("dead", letters.dead);
        out.field("oldest_at", letters.oldest_at);
        out.key("classes").array(&letters.classes, |out, class| {
            out.object(|out| {
                out.field("fingerprint", format!("{:016x}", class.fingerprint).as_str());
                out.field("kind", &class.kind);
                out.field("message", &class.message);
                out.field("count", class.count);
                out.field("first_at", class.first_at);
                out.field("last_at", class.last_at);
                out.field("sample", &class.sample);
                out.field("per_minute", class.per_minute);
                out.field("per_hour", class.per_hour);
            });
        });
        out.field("others", letters.others);
        out.field("target", letters.target.as_ref());
        write_alert(out, letters.alert);
        out.field("alert_since", letters.alert_since);
    }))
}

/// PATCH /v1/queues/{queue}/jobs/{id}: a JSON merge patch of the body. A body that somebody else changes meanwhile stays theirs.
pub(crate) async fn patch(State(app): State<App>, Job(job): Job, call: Call, payload: Payload) -> Answered {
    let id = || CompactString::from(job.id.to_string());
    json::parse::<&serde_json::value::RawValue>(&payload.bytes)?;
    let view = app.node.job(job.clone()).await?;
    let view = view.ok_or_else(|| Problem::from(Reject::UnknownJob { id: id() }))?;
    if !view.content_type.is_empty() {
        return Err(Problem::invalid("body", "is no JSON: a merge patch cannot change it"));
    }
    let old = view.body.as_deref().unwrap_or_default();
    let (old, patch) = (String::from_utf8_lossy(old), String::from_utf8_lossy(&payload.bytes));
    let body = millpond::merge_patch(&old, &patch).map_err(|error| Problem::invalid("body", error))?;
    let command = Command::PatchBody {
        job: job.clone(),
        expected_crc: view.body_crc,
        body: Bytes::from(body.into_bytes()),
    };
    let answer = app.call(call, command).await?;
    let Reply::Changed(states) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("id", &job.id);
        out.field("state", states.first().copied());
    }))
}
