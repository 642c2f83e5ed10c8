//! What a job does once in its life, what it waits for, and what it is told.

use super::{
    Answered,
    jobs::{by_worker, change, unknown, write_error},
    mismatched,
};
use crate::http::{
    app::App,
    dto::{NothingDto, SignalDto, Source, StepDto},
    extract::{Call, Job, Payload},
    json::{self, Raw, Writer},
    reply,
};
use axum::{extract::State, http::StatusCode};
use model::{Command, Reply, Step, StepValue};

/// GET …/steps: with their values.
pub(crate) async fn list(State(app): State<App>, Job(job): Job) -> Answered {
    let asked = job.clone();
    let steps = app.node.read(move |shard| shard.job_steps(&asked)).await?.ok_or_else(|| unknown(&job))?;
    let bytes: usize = steps.iter().map(Step::bytes).sum();
    Ok(reply::object(StatusCode::OK, 64 + bytes + 128 * steps.len(), |out| {
        out.field("id", &job.id);
        out.key("steps").array(&steps, |out, step| write_step(out, step, true));
    }))
}

/// POST …/steps: stores a result, or says what the job has under that name already.
pub(crate) async fn store(State(app): State<App>, Job(job): Job, call: Call, payload: Payload) -> Answered {
    let dto: StepDto<'_> = json::parse(&payload.bytes)?;
    let call = by_worker(call, dto.worker());
    let command = Command::Step {
        lease: dto.lease(job.clone()),
        name: dto.name(),
        result: dto.result(Source(&payload.bytes))?,
    };
    let answer = app.call(call, command).await?;
    let Reply::Step(had) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 128 + had.as_ref().map_or(0, Step::bytes), &answer, |out| {
        out.field("id", &job.id);
        out.field("stored", had.is_none());
        if let Some(step) = had {
            write_step(out.key("step"), step, true);
        }
    }))
}

/// POST …/signal
pub(crate) async fn signal(State(app): State<App>, Job(job): Job, call: Call, payload: Payload) -> Answered {
    let dto: SignalDto<'_> = json::parse(&payload.bytes)?;
    let (name, body) = (dto.name(), dto.body(Source(&payload.bytes))?);
    let answer = app.call(call, Command::Signal { job: job.clone(), name, body }).await?;
    let Reply::Signalled { state, buffered } = answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("id", &job.id);
        out.field("state", state);
        out.field("buffered", buffered);
    }))
}

/// POST …/restart
pub(crate) async fn restart(State(app): State<App>, Job(job): Job, call: Call, payload: Payload) -> Answered {
    payload.optional::<NothingDto>()?;
    change(&app, call, &job, Command::Restart { jobs: vec![job.clone()] }).await
}

/// One step, with what came of it where that is asked for.
pub(super) fn write_step(out: &mut Writer, step: &Step, values: bool) {
    out.object(|out| {
        out.field("name", &step.name);
        out.field("kind", step.value.kind());
        out.field("at", step.at);
        out.field("attempt", step.attempt);
        out.field("bytes", step.bytes());
        match &step.value {
            StepValue::Result(value) | StepValue::Signal(value) if values => out.field("value", Raw(value)),
            StepValue::Result(_) | StepValue::Signal(_) | StepValue::TimedOut => {}
            StepValue::Slept { until } => out.field("until", until),
            StepValue::Child { queue, id, end } => {
                out.field("child_queue", queue);
                out.field("child_id", id);
                let Some(end) = end else { return };
                out.field("ended", end.state.map_or("removed", model::State::name));
                if values {
                    out.optional("value", end.result.as_ref().map(|result| Raw(result)));
                    if end.error.is_some() {
                        write_error(out, end.error.as_ref());
                    }
                }
            }
        }
    });
}
