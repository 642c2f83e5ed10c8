//! Bulk operations: started here, worked off in the background, watched by their number.

use super::{Answered, mismatched};
use crate::http::{
    app::App,
    dto::BulkDto,
    extract::{Call, Number, Payload, Queue},
    json::Writer,
    problem::{self, Problem},
    reply,
};
use axum::{extract::State, http::StatusCode};
use model::{BulkAction, BulkView, Command, NewBulk, QueueName, Reply, State as JobState};

/// POST /v1/queues/{queue}/purge
pub(crate) async fn purge(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    start(&app, call, queue, BulkAction::Purge, &payload).await
}

/// POST /v1/queues/{queue}/redrive
pub(crate) async fn redrive(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    start(&app, call, queue, BulkAction::Redrive, &payload).await
}

/// POST /v1/queues/{queue}/remove
pub(crate) async fn remove(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    start(&app, call, queue, BulkAction::Remove, &payload).await
}

/// POST /v1/queues/{queue}/cancel
pub(crate) async fn cancel(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    start(&app, call, queue, BulkAction::Cancel, &payload).await
}

async fn start(app: &App, call: Call, queue: QueueName, action: BulkAction, payload: &Payload) -> Answered {
    let dto: BulkDto<'_> = payload.optional()?;
    if let Some(jobs) = dto.named(&queue)? {
        let ids: Vec<_> = jobs.iter().map(|job| job.id.clone()).collect();
        let command = match action {
            BulkAction::Redrive => Command::Redrive { jobs },
            BulkAction::Remove => Command::Remove { jobs },
            _ => {
                return Err(Problem::invalid(
                    "ids",
                    "are taken by redrive and remove only; this takes a filter",
                ));
            }
        };
        return change_named(app, call, command, &ids).await;
    }
    let asked = NewBulk::new(queue, action, dto.filter()?);
    let answer = app.call(call, Command::Bulk(Box::new(asked))).await?;
    let Reply::Operation(view) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::ACCEPTED, 384, &answer, |out| {
        out.key("operation").object(|out| write_operation(out, view));
    }))
}

/// All or none of the named jobs, at once; removed ones have no state any more.
async fn change_named(app: &App, call: Call, command: Command, ids: &[model::JobId]) -> Answered {
    let answer = app.call(call, command).await?;
    let states: &[JobState] = match &answer.reply {
        Reply::Changed(states) => states,
        _ => &[],
    };
    Ok(reply::changed(StatusCode::OK, 64 + 80 * ids.len(), &answer, |out| {
        out.key("jobs").array(ids.iter().enumerate(), |out, (nth, id)| {
            out.object(|out| {
                out.field("id", id);
                out.optional("state", states.get(nth));
            });
        });
    }))
}

/// GET /v1/operations
pub(crate) async fn list(State(app): State<App>) -> Answered {
    let views = app.node.read(|shard| shard.bulks()).await?;
    Ok(reply::object(StatusCode::OK, 64 + 320 * views.len(), |out| {
        out.key("operations").array(&views, |out, view| out.object(|out| write_operation(out, view)));
    }))
}

/// GET /v1/operations/{id}
pub(crate) async fn show(State(app): State<App>, Number(id): Number) -> Answered {
    let views = app.node.read(|shard| shard.bulks()).await?;
    let view = views.iter().find(|view| view.id == id);
    let view =
        view.ok_or_else(|| Problem::new(&problem::UNKNOWN_OPERATION, format!("there is no operation {id}")))?;
    Ok(reply::object(StatusCode::OK, 384, |out| {
        out.key("operation").object(|out| write_operation(out, view));
    }))
}

fn write_operation(out: &mut Writer, view: &BulkView) {
    out.field("id", view.id);
    let asked = &view.asked;
    out.field("queue", &asked.queue);
    out.field("action", asked.action.name());
    out.key("filter").object(|out| {
        out.optional("state", asked.filter.states.first());
        out.optional("tag", asked.filter.tags_all.first());
        out.optional("error_kind", asked.filter.error_kind.as_ref());
        out.optional("created_before", asked.filter.created_before);
    });
    out.field("examined", view.examined);
    out.field("changed", view.changed);
    out.field("finished", view.status.is_over());
}
