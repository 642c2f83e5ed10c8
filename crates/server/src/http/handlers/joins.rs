//! Joins: jobs that wait for jobs.

use super::{Answered, jobs::write_error, mismatched};
use crate::http::{
    app::App,
    dto::{CancelDto, ExtendDto, GraphDto, JoinParams, Source},
    extract::{Call, Join, Payload, QueryText},
    json::{self, Writer},
    problem::Problem,
    reply,
};
use axum::{extract::State, http::StatusCode};
use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use model::{Command, JobId, JoinView, MemberOf, MemberState, MemberView, Policy, Pushed, Reject, Reply};

/// POST /v1/joins
pub(crate) async fn push(State(app): State<App>, call: Call, payload: Payload) -> Answered {
    let dto: GraphDto<'_> = json::parse(&payload.bytes)?;
    let graph = dto.into_graph(Source(&payload.bytes), false)?;
    drop(payload);
    let jobs: Vec<_> = graph.jobs.iter().map(|named| named.name.clone()).collect();
    let joins: Vec<_> = graph.joins.iter().map(|join| join.name.clone()).collect();
    let answer = app.call(call, Command::Join { graph }).await?;
    let Reply::Joined(joined) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::CREATED, 128 + 128 * (jobs.len() + joins.len()), &answer, |out| {
        out.optional("id", joined.joins.last());
        out.key("joins").array(joins.iter().zip(&joined.joins), |out, (name, id)| {
            out.object(|out| {
                out.field("name", name);
                out.field("id", id);
            });
        });
        write_named(out, &jobs, &joined.jobs);
    }))
}

fn write_named(out: &mut Writer, names: &[CompactString], pushed: &[Pushed]) {
    out.key("jobs").array(names.iter().zip(pushed), |out, (name, job)| {
        out.object(|out| {
            out.field("name", name);
            out.field("id", &job.id);
            out.field("state", job.state);
            out.field("deduplicated", job.deduplicated);
        });
    });
}

fn unknown(id: &JobId) -> Problem {
    Problem::from(Reject::UnknownJoin { id: id.to_compact_string() })
}

/// GET /v1/joins/{id}
pub(crate) async fn show(State(app): State<App>, Join(id): Join, QueryText(query): QueryText) -> Answered {
    let query = JoinParams::read(query.as_deref())?.0;
    let asked = id.clone();
    let view = app.node.read(move |shard| shard.join_view(&asked, query)).await?;
    let view = view.ok_or_else(|| unknown(&id))?;
    Ok(reply::object(StatusCode::OK, 512 + 256 * view.members.len(), |out| write_join(out, &view)))
}

/// POST /v1/joins/{id}/members
pub(crate) async fn extend(State(app): State<App>, Join(id): Join, call: Call, payload: Payload) -> Answered {
    let dto: ExtendDto<'_> = json::parse(&payload.bytes)?;
    let seal = dto.seal;
    let jobs = dto.into_jobs(Source(&payload.bytes))?;
    drop(payload);
    let names: Vec<_> = jobs.iter().map(|named| named.name.clone()).collect();
    let answer = app.call(call, Command::Extend { join: id.clone(), jobs, seal }).await?;
    let Reply::Pushed(pushed) = &answer.reply else { return Err(mismatched()) };
    Ok(reply::changed(StatusCode::CREATED, 64 + 128 * pushed.len(), &answer, |out| {
        out.field("id", &id);
        write_named(out, &names, pushed);
    }))
}

/// POST /v1/joins/{id}/cancel
pub(crate) async fn cancel(State(app): State<App>, Join(id): Join, call: Call, payload: Payload) -> Answered {
    let dto: CancelDto<'_> = payload.optional()?;
    let reason = CompactString::from(&*dto.reason);
    let answer = app.call(call, Command::CancelJoin { join: id.clone(), reason }).await?;
    let Reply::Done = &answer.reply else { return Err(mismatched()) };
    let asked = id.clone();
    let view = app.node.read(move |shard| shard.join_view(&asked, Default::default())).await?;
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("id", &id);
        out.optional("state", view.map(|view| view.state.name()));
    }))
}

/// A join with its members, as it is shown and as a continuation gets it.
pub(super) fn write_join(out: &mut Writer, join: &JoinView) {
    out.field("id", &join.id);
    out.field("name", &join.name);
    out.field("state", join.state.name());
    out.field("policy", join.policy.name());
    match join.policy {
        Policy::KOfN(needed) => out.field("k", needed),
        Policy::All | Policy::AllSettled | Policy::Any | Policy::Race => {}
    }
    out.field("on_failure", join.on_failure.name());
    out.field("rest", join.rest.name());
    out.key("ignore").array(join.ignore.states(), |out, state| out.value(state.name()));
    out.field("sealed", join.sealed);
    out.field("created_at", join.created_at);
    out.field("ended_at", join.ended_at);
    match &join.then {
        None => out.field("then", None::<bool>),
        Some((queue, id)) => out.key("then").object(|out| {
            out.field("queue", queue);
            out.field("id", id);
        }),
    }
    out.field("total", join.total());
    out.key("counts").object(|out| {
        for state in MemberState::ALL {
            out.field(state.name(), join.count(state));
        }
    });
    out.key("members").array(&join.members, |out, member| out.object(|out| write_member(out, member)));
    out.optional("cursor", join.next);
}

fn write_member(out: &mut Writer, member: &MemberView) {
    out.field("name", &member.name);
    out.field("state", member.state.name());
    match &member.what {
        MemberOf::Job(queue, id) => {
            out.field("queue", queue);
            out.field("id", id);
        }
        MemberOf::Join(join) => out.key("join").object(|out| write_join(out, join)),
        MemberOf::Gone => {}
    }
    out.optional("result", member.result.as_ref());
    if member.result_bytes > 0 {
        out.field("result_bytes", member.result_bytes);
    }
    if member.error.is_some() {
        write_error(out, member.error.as_ref());
    }
}

/// About how many bytes a join takes as JSON.
pub(super) fn weight(join: &JoinView) -> usize {
    let members = join.members.iter().map(|member| {
        let nested = match &member.what {
            MemberOf::Join(join) => weight(join),
            MemberOf::Job(..) | MemberOf::Gone => 0,
        };
        192 + nested + member.result.as_ref().map_or(0, Bytes::len)
    });
    384 + members.sum::<usize>()
}
