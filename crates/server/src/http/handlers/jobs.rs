//! One job: what it is, how it came there, and what can be done with it.

use super::{
    Answered, mismatched,
    steps::write_step,
    work::{write_body, write_words},
};
use crate::http::{
    app::App,
    dto::{CancelDto, LogDto, NothingDto, ProgressDto, Source},
    extract::{Call, Job, Payload},
    json::{self, Writer},
    problem::Problem,
    reply,
};
use axum::{extract::State, http::StatusCode};
use compact_str::CompactString;
use millpond_core::{Explanation, Limited, Reason};
use model::{Actor, Awaited, Command, ErrorInfo, JobRef, JobView, Reject, Reply};

pub(super) fn unknown(job: &JobRef) -> Problem {
    Problem::from(Reject::UnknownJob { id: CompactString::from(job.id.to_string()) })
}

/// GET /v1/queues/{queue}/jobs/{id}
pub(crate) async fn show(State(app): State<App>, Job(job): Job) -> Answered {
    let view = app.node.job(job.clone()).await?.ok_or_else(|| unknown(&job))?;
    let asked = job.clone();
    let steps = match view.steps {
        0 => Vec::new(),
        _ => app.node.read(move |shard| shard.job_steps(&asked)).await?.unwrap_or_default(),
    };
    let bytes =
        view.body.as_ref().map_or(0, bytes::Bytes::len) + view.result.as_ref().map_or(0, bytes::Bytes::len);
    Ok(reply::object(StatusCode::OK, 1_024 + bytes, |out| {
        write_view(out, &view);
        write_body(out, view.body.as_ref(), &view.content_type);
        out.field("result", &view.result);
        if !steps.is_empty() {
            out.key("steps").array(&steps, |out, step| write_step(out, step, false));
        }
    }))
}

/// The fields of a job in a listing: no body and no result, which can be a mebibyte each.
pub(super) fn write_view(out: &mut Writer, job: &JobView) {
    out.field("id", &job.id);
    out.field("queue", &job.queue);
    out.field("state", job.state);
    out.field("priority", job.priority.0);
    out.field("attempt", job.attempt);
    out.field("attempts", job.attempts);
    out.field("crashes", job.crashes);
    out.field("max_crashes", job.max_crashes);
    out.field("created_at", job.created_at);
    out.field("due_at", job.due_at);
    out.field("started_at", job.started_at);
    out.field("finished_at", job.finished_at);
    out.field("expires_at", job.expires_at);
    out.field("timeout_ms", job.timeout_ms);
    out.field("worker", job.worker.as_ref().map(Actor::as_str));
    out.field("lease_token", job.lease_token);
    out.field("body_bytes", job.body_bytes);
    out.field("progress", &job.progress);
    write_error(out, job.error.as_ref());
    out.field("unique_key", &job.unique_key);
    out.optional("waits_for", job.waits_for.as_ref());
    if !job.joins.is_empty() {
        out.key("joins").array(&job.joins, |out, join| out.value(join));
    }
    if job.signals > 0 {
        out.field("signals", job.signals);
    }
    match &job.awaits {
        Some(Awaited::Signal { name, until }) => out.key("awaits").object(|out| {
            out.field("signal", name);
            out.field("until", until);
        }),
        Some(Awaited::Child { queue, id }) => out.key("awaits").object(|out| {
            out.field("child_queue", queue);
            out.field("child_id", id);
        }),
        None => {}
    }
    write_words(out, &job.tags, &job.meta);
}

pub(super) fn write_error(out: &mut Writer, error: Option<&ErrorInfo>) {
    let Some(error) = error else { return out.field("error", None::<bool>) };
    out.key("error").object(|out| {
        out.field("kind", &error.kind);
        out.field("message", &error.message);
        out.field("stack", &error.stack);
    });
}

/// GET …/history
pub(crate) async fn history(State(app): State<App>, Job(job): Job) -> Answered {
    let asked = job.clone();
    let entries = app.node.read(move |shard| shard.history(&asked)).await?.ok_or_else(|| unknown(&job))?;
    Ok(reply::object(StatusCode::OK, 64 + 192 * entries.len(), |out| {
        out.field("id", &job.id);
        out.key("history").array(&entries, |out, entry| {
            out.object(|out| {
                out.field("from", entry.from);
                out.field("to", entry.to);
                out.field("at", entry.at);
                out.field("cause", entry.cause.name());
                out.field("attempt", entry.attempt);
                out.field("actor", entry.actor.as_str());
                out.field("position", entry.position);
                write_error(out, entry.error.as_ref());
            });
        });
    }))
}

/// GET …/log
pub(crate) async fn log(State(app): State<App>, Job(job): Job) -> Answered {
    let asked = job.clone();
    let lines = app.node.read(move |shard| shard.log_lines(&asked)).await?.ok_or_else(|| unknown(&job))?;
    Ok(reply::object(StatusCode::OK, 64 + 128 * lines.len(), |out| {
        out.field("id", &job.id);
        out.key("lines").array(&lines, |out, line| {
            out.object(|out| {
                out.field("at", line.at);
                out.field("attempt", line.attempt);
                out.field("text", &line.text);
            });
        });
    }))
}

/// GET …/explain
pub(crate) async fn explain(State(app): State<App>, Job(job): Job) -> Answered {
    let asked = job.clone();
    let why = app.node.read(move |shard| shard.explain(&asked)).await?.ok_or_else(|| unknown(&job))?;
    Ok(reply::object(StatusCode::OK, 512, |out| {
        out.field("id", &job.id);
        write_explanation(out, &why);
    }))
}

pub(super) fn write_explanation(out: &mut Writer, why: &Explanation) {
    out.field("state", why.state);
    out.field("summary", why.summary.as_str());
    out.key("reasons").array(&why.reasons, |out, reason| out.object(|out| write_reason(out, reason)));
    out.field("expected_at", why.expected_at);
}

fn write_reason(out: &mut Writer, reason: &Reason) {
    match reason {
        Reason::QueuePaused => out.field("kind", "queue_paused"),
        Reason::DelayedUntil(at) => {
            out.field("kind", "delayed_until");
            out.field("at", at);
        }
        Reason::RetryAt(at) => {
            out.field("kind", "retry_at");
            out.field("at", at);
        }
        Reason::GroupPaused { group } => {
            out.field("kind", "group_paused");
            out.field("group", group.as_str());
        }
        Reason::NoSlot { by, in_use, limit } => {
            out.field("kind", "no_slot");
            write_limited(out, by);
            out.field("in_use", in_use);
            out.field("slots", limit);
        }
        Reason::NoShare { pool, in_use, most } => {
            out.field("kind", "no_share");
            out.field("limit", pool.as_str());
            out.field("in_use", in_use);
            out.field("slots", most);
        }
        Reason::RateSpent { by, at } => {
            out.field("kind", "rate_spent");
            write_limited(out, by);
            out.field("at", at);
        }
        Reason::ToldToWait { by, at } => {
            out.field("kind", "told_to_wait");
            write_limited(out, by);
            out.field("at", at);
        }
        Reason::BreakerOpen { by, at } => {
            out.field("kind", "breaker_open");
            write_limited(out, by);
            out.field("at", at);
        }
        Reason::BreakerProbing { by, probes } => {
            out.field("kind", "breaker_probing");
            write_limited(out, by);
            out.field("probes", u64::from(*probes));
        }
        Reason::OrderTaken { key, holder } => {
            out.field("kind", "order_taken");
            out.field("ordering_key", key.as_str());
            out.field("holder", holder.as_ref());
        }
        Reason::RetryBudgetSpent { at } => {
            out.field("kind", "retry_budget_spent");
            out.field("at", at);
        }
        Reason::Behind { ahead, priority } => {
            out.field("kind", "behind");
            out.field("ahead", ahead);
            out.field("priority", priority.0);
        }
        Reason::NextInLine => out.field("kind", "next_in_line"),
        Reason::FilledBefore { by } => {
            out.field("kind", "filled_before");
            out.field("by", by.as_str());
        }
        Reason::Running { worker, lease_until, timeout_at } => {
            out.field("kind", "running");
            out.field("worker", worker.as_str());
            out.field("lease_until", lease_until);
            out.field("timeout_at", timeout_at);
        }
        Reason::WaitsForChildren { join, ended, total, missing, open } => {
            out.field("kind", "waits_for_children");
            out.field("join", join);
            out.field("ended", ended);
            out.field("total", total);
            out.key("missing").array(missing, |out, name| out.value(name));
            out.field("open", *open);
        }
        Reason::StandsBy { holder } => {
            out.field("kind", "stands_by");
            out.field("holder", holder);
        }
        Reason::WaitsForSignal { name, until } => {
            out.field("kind", "waits_for_signal");
            out.field("signal", name);
            out.field("at", until);
        }
        Reason::WaitsForChild { queue, id, state } => {
            out.field("kind", "waits_for_child");
            out.field("queue", queue);
            out.field("id", id);
            out.field("state", *state);
        }
        Reason::Sleeps(step) => {
            out.field("kind", "sleeps");
            out.field("step", step);
        }
        Reason::Quarantined { crashes } => {
            out.field("kind", "quarantined");
            out.field("crashes", *crashes);
        }
        Reason::Final => out.field("kind", "final"),
        Reason::DeadGoTo { target } => {
            out.field("kind", "dead_go_to");
            out.field("queue", target);
        }
        Reason::StaysDead { target, id_taken } => {
            out.field("kind", "stays_dead");
            out.field("queue", target);
            out.field("id_taken", *id_taken);
        }
        Reason::SentOn { from, error, attempts } => {
            out.field("kind", "sent_on");
            out.field("from", from.as_str());
            out.field("error", error.as_str());
            out.field("attempts", *attempts);
        }
        Reason::DeadAlert { since, dead } => {
            out.field("kind", "dead_alert");
            out.field("since", since);
            out.field("dead", *dead);
        }
    }
}

/// The key of a limit; none for the queue as a whole.
fn write_limited(out: &mut Writer, by: &Limited) {
    match by {
        Limited::Queue => out.field("limit", None::<bool>),
        Limited::Key(key) => out.field("limit", key.as_str()),
    }
}

/// DELETE /v1/queues/{queue}/jobs/{id}
pub(crate) async fn remove(State(app): State<App>, Job(job): Job, call: Call) -> Answered {
    let answer = app.call(call, Command::Remove { jobs: vec![job.clone()] }).await?;
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("id", &job.id);
        out.field("removed", true);
    }))
}

/// POST …/cancel
pub(crate) async fn cancel(State(app): State<App>, Job(job): Job, call: Call, payload: Payload) -> Answered {
    let dto: CancelDto<'_> = payload.optional()?;
    let reason = CompactString::from(&*dto.reason);
    change(&app, call, &job, Command::Cancel { job: job.clone(), reason }).await
}

/// POST …/promote
pub(crate) async fn promote(State(app): State<App>, Job(job): Job, call: Call, payload: Payload) -> Answered {
    payload.optional::<NothingDto>()?;
    change(&app, call, &job, Command::Promote { jobs: vec![job.clone()] }).await
}

/// POST …/redrive
pub(crate) async fn redrive(State(app): State<App>, Job(job): Job, call: Call, payload: Payload) -> Answered {
    payload.optional::<NothingDto>()?;
    change(&app, call, &job, Command::Redrive { jobs: vec![job.clone()] }).await
}

pub(super) async fn change(app: &App, call: Call, job: &JobRef, command: Command) -> Answered {
    let answer = app.call(call, command).await?;
    let Reply::Changed(states) = &answer.reply else { return Err(mismatched()) };
    let state = states.first().copied();
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("id", &job.id);
        out.field("state", state);
    }))
}

/// POST …/progress
pub(crate) async fn progress(
    State(app): State<App>,
    Job(job): Job,
    call: Call,
    payload: Payload,
) -> Answered {
    let dto: ProgressDto<'_> = json::parse(&payload.bytes)?;
    let call = by_worker(call, dto.worker.as_deref());
    let value = dto.value(Source(&payload.bytes))?;
    noted(&app, call, &job, Command::Progress { lease: dto.lease(job.clone()), value }).await
}

/// POST …/log
pub(crate) async fn append_log(
    State(app): State<App>,
    Job(job): Job,
    call: Call,
    payload: Payload,
) -> Answered {
    let dto: LogDto<'_> = json::parse(&payload.bytes)?;
    let call = by_worker(call, dto.worker.as_deref());
    let lines = dto.lines()?;
    noted(&app, call, &job, Command::Log { lease: dto.lease(job.clone()), lines }).await
}

pub(super) fn by_worker(call: Call, worker: Option<&str>) -> Call {
    match worker {
        Some(name) => call.by(&Actor::new(name)),
        None => call,
    }
}

async fn noted(app: &App, call: Call, job: &JobRef, command: Command) -> Answered {
    let answer = app.call(call, command).await?;
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("id", &job.id);
        out.field("ok", true);
    }))
}
