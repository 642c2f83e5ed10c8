//! Queues: what is in them, and how they are set.

use super::{
    Answered,
    jobs::{write_explanation, write_view},
    mismatched,
};
use crate::http::{
    app::App,
    cursor,
    dto::{GroupDto, ListParams, NothingDto, PageParams, SettingsDto, query, write_settings},
    extract::{Call, Group, Known, Payload, QueryText, Queue},
    json::{self, Writer},
    problem::Problem,
    rates, reply,
};
use axum::{extract::State, http::StatusCode};
use millpond_core::{ListQuery, Shard};
use model::{Command, JobView, QueueName, QueueView, Reject, Reply, State as JobState};

/// Jobs that are looked ahead to, at most: each that is held is explained.
const UPCOMING_MAX: usize = 100;

fn unknown(queue: &QueueName) -> Problem {
    Problem::from(Reject::UnknownQueue { queue: queue.clone() })
}

/// GET /v1/queues
pub(crate) async fn list(
    State(app): State<App>,
    Known(caller): Known,
    QueryText(text): QueryText,
) -> Answered {
    let page = PageParams::read(text.as_deref())?;
    let after = page.cursor.as_deref().map(read_queue_cursor).transpose()?;
    let limit = page.limit;
    let among = move |queue: &QueueName| caller.reaches(queue);
    let mut queues = app.node.read(move |shard| shard.queues_among(after.as_ref(), limit + 1, among)).await?;
    let more = queues.len() > limit;
    queues.truncate(limit);
    let next =
        queues.last().filter(|_| more).map(|last| cursor::encode("queues", last.name.as_str().as_bytes()));
    Ok(reply::object(StatusCode::OK, 64 + 1_024 * queues.len(), |out| {
        out.key("queues").array(&queues, |out, queue| out.object(|out| write_queue(out, queue, &app)));
        out.field("cursor", next.as_deref());
    }))
}

fn read_queue_cursor(text: &str) -> Result<QueueName, Problem> {
    let place = cursor::decode("queues", text)?;
    let name = std::str::from_utf8(&place).unwrap_or_default();
    QueueName::new(name).map_err(|error| Problem::invalid("cursor", error))
}

/// GET /v1/queues/{queue}
pub(crate) async fn show(State(app): State<App>, Queue(queue): Queue) -> Answered {
    let asked = queue.clone();
    let view = app.node.read(move |shard| shard.queue(&asked)).await?.ok_or_else(|| unknown(&queue))?;
    let producers = app.node.producers(queue).await?;
    Ok(reply::object(StatusCode::OK, 1_024, |out| {
        write_queue(out, &view, &app);
        out.field("producers_waiting", producers);
    }))
}

fn write_queue(out: &mut Writer, queue: &QueueView, app: &App) {
    out.field("name", &queue.name);
    out.field("paused", queue.paused);
    out.key("counts").object(|out| {
        for state in JobState::ALL {
            out.field(state.name(), queue.counts.of(state));
        }
    });
    out.field("live", queue.counts.live());
    out.field("live_bytes", queue.live_bytes);
    out.field("oldest_waiting_at", queue.oldest_waiting_at);
    out.field("pushed_total", queue.pushed_total);
    out.field("started_total", queue.started_total);
    out.field("completed_total", queue.completed_total);
    out.field("failed_total", queue.failed_total);
    out.field("dead_total", queue.dead_total);
    match app.rates.of(queue) {
        None => out.field("rates", None::<bool>),
        Some((window_ms, values)) => out.key("rates").object(|out| {
            out.field("window_ms", window_ms);
            for (name, value) in rates::NAMES.iter().zip(values) {
                out.field(name, value);
            }
        }),
    }
    out.key("settings").object(|out| write_settings(out, &queue.settings));
}

/// PATCH /v1/queues/{queue}
pub(crate) async fn configure(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    let patch = json::parse::<SettingsDto>(&payload.bytes)?.into();
    let answer = app.call(call, Command::Configure { queue: queue.clone(), patch }).await?;
    let Reply::Configured(settings) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 1_024, &answer, |out| {
        out.field("name", &queue);
        out.key("settings").object(|out| write_settings(out, settings));
    }))
}

/// POST /v1/queues/{queue}/pause
pub(crate) async fn pause(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    payload.optional::<NothingDto>()?;
    hold(&app, call, &queue, true).await
}

/// POST /v1/queues/{queue}/resume
pub(crate) async fn resume(
    State(app): State<App>,
    Queue(queue): Queue,
    call: Call,
    payload: Payload,
) -> Answered {
    payload.optional::<NothingDto>()?;
    hold(&app, call, &queue, false).await
}

async fn hold(app: &App, call: Call, queue: &QueueName, paused: bool) -> Answered {
    let queue = queue.clone();
    let name = queue.clone();
    let command = if paused { Command::Pause { queue } } else { Command::Resume { queue } };
    let answer = app.call(call, command).await?;
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("name", &name);
        out.field("paused", paused);
    }))
}

/// GET /v1/queues/{queue}/jobs
pub(crate) async fn jobs(
    State(app): State<App>,
    Queue(queue): Queue,
    QueryText(text): QueryText,
) -> Answered {
    let ListParams { state, tag, error_kind, page } = ListParams::read(text.as_deref())?;
    let state_name = state.map_or("", JobState::name);
    let scope = format!(
        "jobs/{queue}/{state_name}/{}/{}",
        tag.as_deref().unwrap_or_default(),
        error_kind.as_deref().unwrap_or_default()
    );
    let at = page.cursor.as_deref().map(|text| read_job_cursor(&scope, text)).transpose()?;
    let asked = ListQuery { state, tag, error_kind, limit: page.limit, cursor: at };
    let listed = app.node.read(move |shard| shard.list(&queue, &asked)).await??;
    let next = listed.next.map(|place| cursor::encode(&scope, &place.to_be_bytes()));
    Ok(reply::object(StatusCode::OK, 64 + 640 * listed.jobs.len(), |out| {
        write_jobs(out, &listed.jobs);
        out.field("cursor", next.as_deref());
    }))
}

fn read_job_cursor(scope: &str, text: &str) -> Result<u64, Problem> {
    let place = cursor::decode(scope, text)?;
    let place = place.try_into().map(u64::from_be_bytes);
    place.map_err(|_| Problem::invalid("cursor", "is not one of this listing"))
}

fn write_jobs(out: &mut Writer, jobs: &[JobView]) {
    out.key("jobs").array(jobs, |out, job| out.object(|out| write_view(out, job)));
}

/// GET /v1/queues/{queue}/upcoming
pub(crate) async fn upcoming(
    State(app): State<App>,
    Queue(queue): Queue,
    QueryText(text): QueryText,
) -> Answered {
    query(text.as_deref(), &["limit"])?;
    let limit = PageParams::read(text.as_deref())?.limit.min(UPCOMING_MAX);
    let asked = queue.clone();
    let read = move |shard: &Shard| Some((shard.upcoming(&asked, limit)?, shard.dead_letters(&asked)?));
    let (jobs, letters) = app.node.read(read).await?.ok_or_else(|| unknown(&queue))?;
    let producers = app.node.producers(queue).await?;
    Ok(reply::object(StatusCode::OK, 64 + 768 * jobs.len(), |out| {
        out.field("producers_waiting", producers);
        out.key("dead_letters").object(|out| {
            out.field("dead", letters.dead);
            out.field("oldest_at", letters.oldest_at);
            out.field("target", letters.target.as_ref());
            out.field("alert_since", letters.alert_since);
        });
        out.key("jobs").array(&jobs, |out, (job, held)| {
            out.object(|out| {
                write_view(out, job);
                if let Some(why) = held {
                    out.key("explain").object(|out| write_explanation(out, why));
                }
            });
        });
    }))
}

/// PATCH /v1/queues/{queue}/groups/{group}
pub(crate) async fn set_group(
    State(app): State<App>,
    Queue(queue): Queue,
    Group(group): Group,
    call: Call,
    payload: Payload,
) -> Answered {
    let GroupDto { weight, paused } = json::parse(&payload.bytes)?;
    let command = Command::SetGroup { queue: queue.clone(), group: group.clone(), weight, paused };
    let answer = app.call(call, command).await?;
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("queue", &queue);
        out.field("group", &group);
        out.optional("weight", weight);
        out.optional("paused", paused);
    }))
}
