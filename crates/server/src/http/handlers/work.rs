//! What workers call: fetch, outcomes, renew.

use super::{
    Answered,
    joins::{self, write_join},
    mismatched,
    push::write_pushed,
};
use crate::http::{
    app::App,
    dto::{FetchDto, OutcomesDto, RenewDto, RevokedQuery, Source},
    extract::{Call, Known, Payload, QueryText, Worker},
    gate,
    json::{self, Raw, Writer},
    problem::Problem,
    reply,
};
use crate::registry::{Door, Live, Stage};
use axum::{extract::State, http::StatusCode};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use compact_str::CompactString;
use model::{Command, DispatchedJob, Reject, Reply};
use std::time::Duration;
use tokio::time::Instant;

/// Jobs that one fetch hands out at most: a larger `max` is taken as this.
const FETCH_MAX: u32 = 1_000;

/// POST /v1/fetch: a long poll. If the client goes away, the future is dropped and its jobs go back.
pub(crate) async fn fetch(State(app): State<App>, call: Call, payload: Payload) -> Answered {
    let dto: FetchDto<'_> = json::parse(&payload.bytes)?;
    let (worker, queues) = (dto.worker()?, dto.queues()?);
    let wait = Duration::from_millis(dto.wait_ms.min(app.rules.wait_ms_max));
    let (max, lease_ms) = (dto.max.clamp(1, FETCH_MAX), dto.lease_ms);
    let (level, caller) = (call.level, call.caller().clone());
    let here = app.registry.fetches(&caller.worker(&worker), Door::Http, &queues);
    let fetch = call.by(&worker).envelope(&app, Command::Fetch { queues, max, lease_ms }).await?;
    // While it waits, the request need not hold its bytes.
    drop(payload);
    let until = Instant::now() + wait;
    let jobs = tokio::select! {
        biased;
        () = app.registry.held_back(&here) => {
            hold_back(&app, &here, until).await;
            Vec::new()
        }
        jobs = app.node.fetch_as(fetch, wait, level) => jobs?,
        () = app.stopping() => Vec::new(),
        () = app.keeper.ended(&caller) => return Err(gate::ended()),
    };
    let bodies: usize = jobs
        .iter()
        .map(|job| job.body.as_ref().map_or(0, Bytes::len) + job.children.as_deref().map_or(0, joins::weight))
        .sum();
    let response = reply::object(StatusCode::OK, 32 + bodies + 384 * jobs.len(), |out| {
        out.key("jobs").array(&jobs, write_dispatched);
        if !here.stage().takes_jobs() {
            out.field("state", here.stage().name());
        }
    });
    Ok(reply::durable(response, level))
}

/// Nothing for a worker that is quiet: it waits as if there were no job, and is let go when it may work again or is to stop.
async fn hold_back(app: &App, worker: &Live, until: Instant) {
    let mut told = app.registry.told();
    while worker.stage() == Stage::Quiet {
        tokio::select! {
            changed = told.changed() => drop(changed),
            () = tokio::time::sleep_until(until) => return,
            () = app.stopping() => return,
        }
    }
}

fn write_dispatched(out: &mut Writer, job: &DispatchedJob) {
    out.object(|out| {
        out.field("id", &job.id);
        out.field("queue", &job.queue);
        write_body(out, job.body.as_ref(), &job.content_type);
        out.field("attempt", job.attempt);
        out.field("attempts", job.attempts);
        out.field("crashes", job.crashes);
        out.field("lease_token", job.lease_token);
        out.field("lease_until", job.lease_until);
        out.field("timeout_at", job.timeout_at);
        out.field("priority", job.priority.0);
        out.field("created_at", job.created_at);
        write_words(out, &job.tags, &job.meta);
        if let Some(join) = &job.children {
            out.key("children").object(|out| write_join(out, join));
        }
        if job.steps > 0 {
            out.field("steps", job.steps);
        }
        if let Some(group) = &job.group {
            out.field("group", group);
        }
    });
}

/// A JSON body stands in the answer as it was pushed; an empty content type says that it was checked then.
pub(super) fn write_body(out: &mut Writer, body: Option<&Bytes>, content_type: &CompactString) {
    let Some(body) = body else { return };
    if content_type.is_empty() {
        out.field("body", Raw(body));
    } else {
        out.field("body_base64", BASE64_STANDARD.encode(body).as_str());
        out.field("content_type", content_type);
    }
}

pub(super) fn write_words(out: &mut Writer, tags: &[CompactString], meta: &[(CompactString, CompactString)]) {
    out.key("tags").array(tags, |out, tag| out.value(tag));
    out.key("meta").object(|out| {
        for (key, value) in meta {
            out.field(key, value);
        }
    });
}

/// POST /v1/outcomes: each is judged by itself.
pub(crate) async fn outcomes(State(app): State<App>, call: Call, payload: Payload) -> Answered {
    let dto: OutcomesDto<'_> = json::parse(&payload.bytes)?;
    let worker = dto.worker()?;
    app.registry.touch(&call.caller().worker(&worker));
    let call = call.by(&worker);
    let settlements = dto.into_settlements(Source(&payload.bytes))?;
    drop(payload);
    let ids: Vec<_> = settlements.iter().map(|settlement| settlement.lease.job.id.clone()).collect();
    let answer = app.call(call, Command::Settle { settlements }).await?;
    let Reply::Settled(results) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 64 + 96 * results.len(), &answer, |out| {
        out.key("results").array(ids.iter().zip(results), |out, (id, result)| {
            out.object(|out| {
                out.field("id", id);
                out.field("ok", result.is_ok());
                match result {
                    Ok(settled) => {
                        out.field("state", settled.state);
                        if !settled.pushed.is_empty() {
                            write_pushed(out, "pushed", &settled.pushed);
                        }
                    }
                    Err(reject) => write_reject(out, reject),
                }
            });
        });
    }))
}

/// POST /v1/renew: each is judged by itself.
pub(crate) async fn renew(State(app): State<App>, call: Call, payload: Payload) -> Answered {
    let dto: RenewDto<'_> = json::parse(&payload.bytes)?;
    let worker = dto.worker()?;
    app.registry.touch(&call.caller().worker(&worker));
    let call = call.by(&worker);
    let leases = dto.leases()?;
    let ids: Vec<_> = leases.iter().map(|lease| lease.job.id.clone()).collect();
    let answer = app.call(call, Command::Renew { leases, lease_ms: dto.lease_ms }).await?;
    let Reply::Renewed(results) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::OK, 64 + 128 * results.len(), &answer, |out| {
        out.key("results").array(ids.iter().zip(results), |out, (id, result)| {
            out.object(|out| {
                out.field("id", id);
                out.field("ok", result.is_ok());
                match result {
                    Ok(renewed) => out.field("lease_until", renewed.lease_until),
                    Err(reject) => {
                        if matches!(reject, Reject::Cancelled { .. }) {
                            out.field("cancelled", true);
                        }
                        write_reject(out, reject);
                    }
                }
            });
        });
    }))
}

/// GET /v1/workers/{worker}/revoked: a long poll. Reading takes nothing away; a lost answer is asked for again.
pub(crate) async fn revoked(
    State(app): State<App>,
    Known(caller): Known,
    Worker(worker): Worker,
    QueryText(text): QueryText,
) -> Answered {
    let RevokedQuery { after, wait_ms } = RevokedQuery::read(text.as_deref())?;
    let worker = caller.worker(&worker);
    let wait = Duration::from_millis(wait_ms.min(app.rules.wait_ms_max));
    let mut revoked = tokio::select! {
        biased;
        revoked = app.node.revoked(&worker, after, wait) => revoked,
        () = app.stopping() => app.node.revoked(&worker, after, Duration::ZERO).await,
        () = app.keeper.ended(&caller) => return Err(gate::ended()),
    };
    // Whoever has an admin's token may have fetched under the same name, in other queues.
    revoked.leases.retain(|(lease, _)| match &lease.job.queue {
        Some(queue) => caller.reaches(queue),
        None => !caller.is_confined(),
    });
    Ok(reply::object(StatusCode::OK, 64 + 160 * revoked.leases.len(), |out| {
        out.key("revoked").array(&revoked.leases, |out, (lease, why)| {
            out.object(|out| {
                out.optional("queue", lease.job.queue.as_ref());
                out.field("id", &lease.job.id);
                out.field("lease_token", lease.token);
                out.field("reason", why.name());
            });
        });
        out.field("position", revoked.position);
        out.field("missed", revoked.missed);
    }))
}

fn write_reject(out: &mut Writer, reject: &Reject) {
    out.field("code", Problem::from(reject).code());
    out.field("detail", reject.to_string().as_str());
    out.optional("retry_after_ms", reject.retry_after_ms());
}
