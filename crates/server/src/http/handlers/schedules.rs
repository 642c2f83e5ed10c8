//! Schedules: put, looked at, paused, run, removed.

use super::{Answered, mismatched};
use crate::http::{
    app::App,
    cursor,
    dto::{NothingDto, PageParams, PreviewDto, ScheduleDto, slots_wanted, write_schedule},
    extract::{Call, Known, Payload, QueryText, Schedule},
    json,
    problem::Problem,
    reply,
};
use axum::{extract::State, http::StatusCode};
use kit::Timestamp;
use millpond_core::Slots;
use model::{Command, QueueName, Reject, Reply, ScheduleId};

fn unknown(id: &ScheduleId) -> Problem {
    Problem::from(Reject::UnknownSchedule { id: id.clone() })
}

/// GET /v1/schedules
pub(crate) async fn list(
    State(app): State<App>,
    Known(caller): Known,
    QueryText(text): QueryText,
) -> Answered {
    let page = PageParams::read(text.as_deref())?;
    let after = page.cursor.as_deref().map(read_cursor).transpose()?;
    let limit = page.limit;
    let among = move |queue: &QueueName| caller.reaches(queue);
    let mut schedules =
        app.node.read(move |shard| shard.schedules_among(after.as_ref(), limit + 1, among)).await?;
    let more = schedules.len() > limit;
    schedules.truncate(limit);
    let last = schedules.last().filter(|_| more);
    let next = last.map(|last| cursor::encode("schedules", last.id.as_str().as_bytes()));
    Ok(reply::object(StatusCode::OK, 64 + 1_024 * schedules.len(), |out| {
        out.key("schedules").array(&schedules, |out, view| out.object(|out| write_schedule(out, view)));
        out.field("cursor", next.as_deref());
    }))
}

fn read_cursor(text: &str) -> Result<ScheduleId, Problem> {
    let place = cursor::decode("schedules", text)?;
    let id = std::str::from_utf8(&place).unwrap_or_default();
    ScheduleId::new(id).map_err(|error| Problem::invalid("cursor", error))
}

/// GET /v1/schedules/{id}
pub(crate) async fn show(State(app): State<App>, Known(caller): Known, Schedule(id): Schedule) -> Answered {
    let asked = id.clone();
    let view = app.node.read(move |shard| shard.schedule(&asked)).await?;
    let view = view.filter(|view| caller.reaches(&view.spec.job.queue)).ok_or_else(|| unknown(&id))?;
    Ok(reply::object(StatusCode::OK, 2_048, |out| write_schedule(out, &view)))
}

/// PUT /v1/schedules/{id}
pub(crate) async fn put(
    State(app): State<App>,
    Schedule(id): Schedule,
    call: Call,
    payload: Payload,
) -> Answered {
    let spec = Box::new(ScheduleDto::read(&payload.bytes)?);
    change(&app, call, Command::PutSchedule { id, spec }).await
}

/// POST /v1/schedules/{id}/pause
pub(crate) async fn pause(
    State(app): State<App>,
    Schedule(id): Schedule,
    call: Call,
    payload: Payload,
) -> Answered {
    payload.optional::<NothingDto>()?;
    change(&app, call, Command::PauseSchedule { id }).await
}

/// POST /v1/schedules/{id}/resume
pub(crate) async fn resume(
    State(app): State<App>,
    Schedule(id): Schedule,
    call: Call,
    payload: Payload,
) -> Answered {
    payload.optional::<NothingDto>()?;
    change(&app, call, Command::ResumeSchedule { id }).await
}

async fn change(app: &App, call: Call, command: Command) -> Answered {
    let answer = app.call(call, command).await?;
    let Reply::Scheduled(scheduled) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 256, &answer, |out| {
        out.field("id", scheduled.id.as_str());
        out.field("change", scheduled.change.name());
        out.field("state", scheduled.state.name());
        out.field("next_slot", scheduled.next_slot);
    }))
}

/// POST /v1/schedules/{id}/run
pub(crate) async fn run(
    State(app): State<App>,
    Schedule(id): Schedule,
    call: Call,
    payload: Payload,
) -> Answered {
    payload.optional::<NothingDto>()?;
    let answer = app.call(call, Command::RunSchedule { id }).await?;
    let Reply::Pushed(pushed) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::CREATED, 256, &answer, |out| {
        out.key("jobs").array(pushed, |out, job| {
            out.object(|out| {
                out.field("id", &job.id);
                out.field("state", job.state);
                out.field("deduplicated", job.deduplicated);
            });
        });
    }))
}

/// DELETE /v1/schedules/{id}
pub(crate) async fn remove(State(app): State<App>, Schedule(id): Schedule, call: Call) -> Answered {
    let answer = app.call(call, Command::RemoveSchedule { id: id.clone() }).await?;
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("id", id.as_str());
        out.field("removed", true);
    }))
}

/// GET /v1/schedules/{id}/next
pub(crate) async fn next(
    State(app): State<App>,
    Known(caller): Known,
    Schedule(id): Schedule,
    QueryText(text): QueryText,
) -> Answered {
    let n = slots_wanted(text.as_deref())?;
    let asked = id.clone();
    let slots = app.node.read(move |shard| {
        shard.schedule_queue(&asked).filter(|queue| caller.reaches(queue))?;
        shard.schedule_slots(&asked, n)
    });
    let slots = slots.await?;
    let slots = slots.ok_or_else(|| unknown(&id))?;
    Ok(reply::object(StatusCode::OK, 64 + 32 * slots.len(), |out| {
        out.field("id", id.as_str());
        out.key("slots").array(&slots, |out, slot| out.value(slot));
    }))
}

/// POST /v1/schedules/preview
pub(crate) async fn preview(State(_): State<App>, payload: Payload) -> Answered {
    let (spec, after, n) = json::parse::<PreviewDto<'_>>(&payload.bytes)?.read()?;
    let slots = Slots::of(&spec)?;
    let slots: Vec<Timestamp> = slots.after(after.unwrap_or_else(crate::now)).take(n).collect();
    Ok(reply::object(StatusCode::OK, 64 + 32 * slots.len(), |out| {
        out.key("slots").array(&slots, |out, slot| out.value(slot));
    }))
}
