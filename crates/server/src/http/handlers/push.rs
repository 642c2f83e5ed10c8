//! Adding jobs.

use super::{Answered, mismatched};
use crate::http::{
    app::App,
    dto,
    extract::{Call, Payload, QueryText, Queue},
    json::Writer,
    reply,
};
use axum::{extract::State, http::StatusCode};
use model::{Command, Pushed, QueueName, Reply};
use std::time::Duration;

/// POST /v1/queues/{queue}/jobs
pub(crate) async fn to_queue(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    QueryText(text): QueryText,
    payload: Payload,
) -> Answered {
    push(&app, call, text.as_deref(), payload, Some(&queue)).await
}

/// POST /v1/push
pub(crate) async fn to_many(
    State(app): State<App>,
    call: Call,
    QueryText(text): QueryText,
    payload: Payload,
) -> Answered {
    push(&app, call, text.as_deref(), payload, None).await
}

/// If the client goes away while its push waits for room, the future is dropped and the push with it.
async fn push(
    app: &App,
    call: Call,
    text: Option<&str>,
    payload: Payload,
    queue: Option<&QueueName>,
) -> Answered {
    let wait = Duration::from_millis(dto::push_wait(text)?.min(app.rules.wait_ms_max));
    let jobs = dto::read_jobs(&payload.bytes, payload.lines, queue)?;
    // From here on the node counts its bytes, waiting ones too.
    drop(payload);
    let level = call.level;
    let push = call.envelope(app, Command::Push { jobs }).await?;
    let answer = app.node.push(push, Some(wait), level).await?;
    let Reply::Pushed(pushed) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::CREATED, 64 + 96 * pushed.len(), &answer, |out| {
        write_pushed(out, "jobs", pushed);
    }))
}

pub(super) fn write_pushed(out: &mut Writer, key: &str, pushed: &[Pushed]) {
    out.key(key).array(pushed, |out, job| {
        out.object(|out| {
            out.field("id", &job.id);
            out.field("state", job.state);
            out.field("deduplicated", job.deduplicated);
            if job.forgotten {
                out.field("forgotten", true);
            }
        });
    });
}
