//! Adding jobs.

use super::{Answered, mismatched};
use crate::http::{
    app::App,
    dto,
    extract::{Call, Payload, Queue},
    json::Writer,
    reply,
};
use axum::{extract::State, http::StatusCode};
use model::{Command, Pushed, QueueName, Reply};

/// POST /v1/queues/{queue}/jobs
pub(crate) async fn to_queue(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    push(&app, call, &payload, Some(&queue)).await
}

/// POST /v1/push
pub(crate) async fn to_many(State(app): State<App>, call: Call, payload: Payload) -> Answered {
    push(&app, call, &payload, None).await
}

async fn push(app: &App, call: Call, payload: &Payload, queue: Option<&QueueName>) -> Answered {
    let jobs = dto::read_jobs(&payload.bytes, payload.lines, queue)?;
    let answer = app.call(call, Command::Push { jobs }).await?;
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
