//! Bulk operations: started here, worked off in the background, watched by their number.

use super::{Answered, mismatched};
use crate::http::{
    app::App,
    dto::{BulkDto, NothingDto},
    extract::{Call, Known, Number, Payload, Queue},
    json::Writer,
    problem::{self, Problem},
    reach, reply,
};
use axum::{extract::State, http::StatusCode};
use model::{
    BulkAction, BulkControl, BulkView, Command, Filter, JobRef, NewBulk, QueueName, Reply, State as JobState,
};

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

/// POST /v1/queues/{queue}/operations
pub(crate) async fn begin(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    let dto: BulkDto<'_> = payload.optional()?;
    if dto.named(&queue)?.is_some() {
        return Err(Problem::invalid("ids", "are taken by redrive and remove only; this takes a filter"));
    }
    let asked = dto.asked(queue, None)?;
    run(&app, call, asked, dto.dry_run).await
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
    let asked = dto.asked(queue, Some(action))?;
    run(app, call, asked, dto.dry_run).await
}

async fn run(app: &App, call: Call, asked: NewBulk, dry_run: bool) -> Answered {
    if dry_run {
        return preview(app, asked).await;
    }
    let answer = app.call(call, Command::Bulk(Box::new(asked))).await?;
    let Reply::Operation(view) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::ACCEPTED, 512, &answer, |out| {
        out.key("operation").object(|out| write_operation(out, view));
    }))
}

/// Jobs that a dry run looks at in one go; between two the shard does its work.
const DRY_RUN_STEP: usize = 2_000;
/// Jobs that a dry run looks at in all, and bodies that it looks into.
const DRY_RUN_JOBS_MAX: u64 = 2_000_000;
const DRY_RUN_BODIES_MAX: u64 = 20_000;
/// Jobs that a dry run names.
const DRY_RUN_SAMPLE: usize = 10;

/// Says what an operation would change, and changes nothing.
async fn preview(app: &App, asked: NewBulk) -> Answered {
    let (queue, tests) = (asked.queue.clone(), asked.filter.body.clone());
    let mut preview = app.node.read(move |shard| shard.preview(&asked)).await??;
    let (mut matched, mut bodies, mut sample) = (0u64, 0u64, Vec::new());
    while !preview.done && preview.examined < DRY_RUN_JOBS_MAX && bodies < DRY_RUN_BODIES_MAX {
        let (then, found) = app
            .node
            .read(move |shard| {
                let found = shard.preview_on(&mut preview, DRY_RUN_STEP);
                (preview, found)
            })
            .await?;
        preview = then;
        for job in found {
            if !tests.is_empty() {
                bodies += 1;
                let body = match job.body {
                    Some(body) => Some(body),
                    None => {
                        let named = JobRef { queue: Some(queue.clone()), id: job.id.clone() };
                        app.node.job(named).await?.and_then(|view| view.body)
                    }
                };
                if !body.is_some_and(|body| node::passes(&body, &tests)) {
                    continue;
                }
            }
            matched += 1;
            if sample.len() < DRY_RUN_SAMPLE {
                sample.push((job.id, job.state));
            }
        }
    }
    Ok(reply::object(StatusCode::OK, 1_024, |out| {
        out.key("dry_run").object(|out| {
            out.field("matched", matched);
            out.field("examined", preview.examined);
            out.field("total", preview.total);
            out.field("complete", preview.done);
            out.key("sample").array(&sample, |out, (id, state)| {
                out.object(|out| {
                    out.field("id", id);
                    out.field("state", *state);
                });
            });
        });
    }))
}

/// POST /v1/operations/{id}/pause
pub(crate) async fn pause(state: State<App>, id: Number, call: Call, payload: Payload) -> Answered {
    control(&state, &id, call, &payload, BulkControl::Pause).await
}

/// POST /v1/operations/{id}/resume
pub(crate) async fn resume(state: State<App>, id: Number, call: Call, payload: Payload) -> Answered {
    control(&state, &id, call, &payload, BulkControl::Resume).await
}

/// POST /v1/operations/{id}/cancel
pub(crate) async fn stop(state: State<App>, id: Number, call: Call, payload: Payload) -> Answered {
    control(&state, &id, call, &payload, BulkControl::Cancel).await
}

async fn control(
    State(app): &State<App>,
    Number(operation): &Number,
    call: Call,
    payload: &Payload,
    control: BulkControl,
) -> Answered {
    let _: NothingDto = payload.optional()?;
    let answer = app.call(call, Command::ControlBulk { operation: *operation, control }).await?;
    let Reply::Operation(view) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 512, &answer, |out| {
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
pub(crate) async fn list(State(app): State<App>, Known(caller): Known) -> Answered {
    let mut views = app.node.read(|shard| shard.bulks()).await?;
    views.retain(|view| reach::reaches_operation(&caller, view));
    Ok(reply::object(StatusCode::OK, 64 + 320 * views.len(), |out| {
        out.key("operations").array(&views, |out, view| out.object(|out| write_operation(out, view)));
    }))
}

/// GET /v1/operations/{id}
pub(crate) async fn show(State(app): State<App>, Known(caller): Known, Number(id): Number) -> Answered {
    let views = app.node.read(|shard| shard.bulks()).await?;
    let view = views.iter().find(|view| view.id == id && reach::reaches_operation(&caller, view));
    let view =
        view.ok_or_else(|| Problem::new(&problem::UNKNOWN_OPERATION, format!("there is no operation {id}")))?;
    Ok(reply::object(StatusCode::OK, 384, |out| {
        out.key("operation").object(|out| write_operation(out, view));
    }))
}

fn write_operation(out: &mut Writer, view: &BulkView) {
    let asked = &view.asked;
    out.field("id", view.id);
    out.field("queue", &asked.queue);
    out.field("action", asked.action.name());
    match &asked.action {
        BulkAction::Retag { add, remove } => {
            out.key("add").array(add, |out, tag| out.value(tag));
            out.key("remove").array(remove, |out, tag| out.value(tag));
        }
        BulkAction::Reprioritise { priority } => out.field("priority", u64::from(priority.0)),
        BulkAction::Move { to } => out.field("to", to),
        BulkAction::Purge
        | BulkAction::Redrive
        | BulkAction::Remove
        | BulkAction::Cancel
        | BulkAction::Promote => {}
    }
    out.key("filter").object(|out| write_filter(out, &asked.filter));
    out.field("rate", u64::from(asked.rate));
    out.field("status", view.status.name());
    out.field("by", view.by.as_str());
    out.field("total", view.total);
    out.field("examined", view.examined);
    out.field("changed", view.changed);
    out.field("skipped", view.skipped);
    out.field("started_at", view.started_at);
    out.optional("finished_at", view.finished_at);
    out.field("finished", view.status.is_over());
}

fn write_filter(out: &mut Writer, filter: &Filter) {
    let Filter {
        states,
        tags_any,
        tags_all,
        error_kind,
        error_contains,
        created_before,
        created_after,
        finished_before,
        finished_after,
        priority_min,
        priority_max,
        attempts_min,
        attempts_max,
        id_prefix,
        body,
    } = filter;
    // One of a kind has the shorter name, as it can be asked for.
    match &states[..] {
        [] => {}
        [state] => out.field("state", *state),
        states => {
            out.key("states").array(states, |out, state| out.value(*state));
        }
    }
    match &tags_all[..] {
        [] => {}
        [tag] => out.field("tag", tag),
        tags => {
            out.key("tags_all").array(tags, |out, tag| out.value(tag));
        }
    }
    if !tags_any.is_empty() {
        out.key("tags_any").array(tags_any, |out, tag| out.value(tag));
    }
    out.optional("error_kind", error_kind.as_ref());
    out.optional("error_contains", error_contains.as_ref());
    out.optional("created_before", *created_before);
    out.optional("created_after", *created_after);
    out.optional("finished_before", *finished_before);
    out.optional("finished_after", *finished_after);
    out.optional("priority_min", priority_min.map(|priority| u64::from(priority.0)));
    out.optional("priority_max", priority_max.map(|priority| u64::from(priority.0)));
    out.optional("attempts_min", attempts_min.map(u64::from));
    out.optional("attempts_max", attempts_max.map(u64::from));
    out.optional("id_prefix", id_prefix.as_ref());
    if !body.is_empty() {
        out.key("body").array(body, |out, test| {
            out.object(|out| {
                out.field("path", &test.path);
                out.field("compare", test.compare.sign());
                out.field("value", &test.value);
            });
        });
    }
}
