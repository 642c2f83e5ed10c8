//! Limits by key: what holds jobs of any queue that name it.

use super::Answered;
use crate::http::{
    app::App,
    dto::{LimitDto, write_limit},
    extract::{Call, Key, Payload},
    json::{self, Writer},
    problem::{self, Problem},
    reply,
};
use axum::{extract::State, http::StatusCode};
use model::{Command, Limit};

/// GET /v1/limits
pub(crate) async fn list(State(app): State<App>) -> Answered {
    let limits = app.node.read(|shard| shard.limits()).await?;
    Ok(reply::object(StatusCode::OK, 64 + 256 * limits.len(), |out| {
        out.key("limits").array(&limits, |out, (key, limit)| out.object(|out| write_keyed(out, key, limit)));
    }))
}

/// GET /v1/limits/{key}
pub(crate) async fn show(State(app): State<App>, Key(key): Key) -> Answered {
    let limits = app.node.read(|shard| shard.limits()).await?;
    let found = limits.iter().find(|(known, _)| *known == key);
    let (_, limit) =
        found.ok_or_else(|| Problem::new(&problem::UNKNOWN_LIMIT, format!("no limit is set for `{key}`")))?;
    Ok(reply::object(StatusCode::OK, 384, |out| write_keyed(out, &key, limit)))
}

/// PUT /v1/limits/{key}
pub(crate) async fn set(State(app): State<App>, Key(key): Key, call: Call, payload: Payload) -> Answered {
    let limit = Limit::from(json::parse::<LimitDto>(&payload.bytes)?);
    let command = Command::SetLimit { pattern: key.clone(), limit: Some(limit) };
    let answer = app.call(call, command).await?;
    Ok(reply::changed(StatusCode::OK, 448, &answer, |out| write_keyed(out, &key, &limit)))
}

/// DELETE /v1/limits/{key}
pub(crate) async fn remove(State(app): State<App>, Key(key): Key, call: Call) -> Answered {
    let answer = app.call(call, Command::SetLimit { pattern: key.clone(), limit: None }).await?;
    Ok(reply::changed(StatusCode::OK, 128, &answer, |out| {
        out.field("key", &key);
        out.field("removed", true);
    }))
}

fn write_keyed(out: &mut Writer, key: &str, limit: &Limit) {
    out.field("key", key);
    write_limit(out, limit);
}
