//! The workers that are there, and what an operator asks of them.

use super::Answered;
use crate::{
    http::{
        app::App,
        cursor,
        dto::{NothingDto, PageParams},
        extract::{Payload, QueryText, Worker},
        json::Writer,
        problem::{self, Problem},
        reply,
    },
    now,
    registry::{InHand, Stage, View, in_hand},
};
use axum::{extract::State, http::StatusCode};
use model::Actor;
use std::collections::BTreeMap;

/// Jobs in hand that one worker is shown with.
const JOBS_MAX: usize = 1_000;

fn unknown(worker: &Actor) -> Problem {
    Problem::new(&problem::UNKNOWN_WORKER, format!("no worker `{worker}` is there"))
}

/// GET /v1/workers
pub(crate) async fn list(State(app): State<App>, QueryText(text): QueryText) -> Answered {
    let page = PageParams::read(text.as_deref())?;
    let after = page.cursor.as_deref().map(read_cursor).transpose()?;
    let mut workers = app.registry.list(after.as_ref(), page.limit + 1, now());
    let more = workers.len() > page.limit;
    workers.truncate(page.limit);
    let next = workers.last().filter(|_| more);
    let next = next.map(|last| cursor::encode("workers", last.name.as_str().as_bytes()));
    let mut counts: BTreeMap<Actor, usize> = workers.iter().map(|worker| (worker.name.clone(), 0)).collect();
    let listed = std::sync::Arc::new(counts.clone());
    for job in in_hand(&app, move |worker| listed.contains_key(worker)).await? {
        *counts.entry(job.worker).or_default() += 1;
    }
    Ok(reply::object(StatusCode::OK, 64 + 512 * workers.len(), |out| {
        out.key("workers").array(&workers, |out, worker| {
            out.object(|out| write_worker(out, worker, counts.get(&worker.name).copied().unwrap_or(0)));
        });
        out.field("cursor", next.as_deref());
    }))
}

fn read_cursor(text: &str) -> Result<Actor, Problem> {
    let place = cursor::decode("workers", text)?;
    let name = std::str::from_utf8(&place).map_err(|error| Problem::invalid("cursor", error))?;
    Ok(Actor::new(name))
}

/// GET /v1/workers/{worker}
pub(crate) async fn show(State(app): State<App>, Worker(worker): Worker) -> Answered {
    let view = app.registry.show(&worker, now()).ok_or_else(|| unknown(&worker))?;
    let jobs = in_hand(&app, move |name| *name == worker).await?;
    Ok(reply::object(StatusCode::OK, 512 + 128 * jobs.len(), |out| {
        write_worker(out, &view, jobs.len());
        out.key("jobs").array(jobs.iter().take(JOBS_MAX), |out, job| out.object(|out| write_job(out, job)));
    }))
}

fn write_worker(out: &mut Writer, worker: &View, in_hand: usize) {
    let about = &worker.about;
    out.field("worker", worker.name.as_str());
    out.field("state", worker.stage.name());
    out.field("connected", worker.is_connected);
    out.field("door", worker.door.name());
    out.optional("host", Some(about.host.as_str()).filter(|host| !host.is_empty()));
    out.optional("pid", Some(about.pid).filter(|pid| *pid > 0));
    out.optional("client", Some(about.client.as_str()).filter(|client| !client.is_empty()));
    out.key("labels").array(&about.labels, |out, label| out.value(label));
    out.key("queues").array(&worker.queues, |out, queue| out.value(queue));
    out.field("in_hand", in_hand as u64);
    out.optional("concurrency", Some(worker.concurrency).filter(|concurrency| *concurrency > 0));
    out.optional("rss_bytes", Some(worker.rss_bytes).filter(|bytes| *bytes > 0));
    out.field("connected_at", worker.connected_at);
    out.field("heard_at", worker.heard_at);
}

fn write_job(out: &mut Writer, job: &InHand) {
    out.optional("queue", job.lease.job.queue.as_ref());
    out.field("id", &job.lease.job.id);
    out.field("started_at", job.since);
    out.field("lease_until", job.lease_until);
}

/// POST /v1/workers/{worker}/quiet
pub(crate) async fn quiet(state: State<App>, worker: Worker, payload: Payload) -> Answered {
    tell(&state, &worker, &payload, Stage::Quiet)
}

/// POST /v1/workers/{worker}/resume
pub(crate) async fn resume(state: State<App>, worker: Worker, payload: Payload) -> Answered {
    tell(&state, &worker, &payload, Stage::Running)
}

/// POST /v1/workers/{worker}/stop
pub(crate) async fn stop(state: State<App>, worker: Worker, payload: Payload) -> Answered {
    tell(&state, &worker, &payload, Stage::Stopping)
}

fn tell(app: &App, Worker(worker): &Worker, payload: &Payload, stage: Stage) -> Answered {
    payload.optional::<NothingDto>()?;
    let told = app.registry.tell(worker, stage).then(|| app.registry.show(worker, now())).flatten();
    let view = told.ok_or_else(|| unknown(worker))?;
    tracing::info!(%worker, state = stage.name(), "a worker was told what to do");
    Ok(reply::object(StatusCode::OK, 128, |out| {
        out.field("worker", worker.as_str());
        out.field("state", view.stage.name());
    }))
}
