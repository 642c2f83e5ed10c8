//! The server itself: the front page, the probes, metrics and the description of the API.

use super::Answered;
use crate::http::{app::App, extract::Known, metrics, openapi, reply, routes};
use axum::{extract::State, http::StatusCode};

/// GET /
pub(crate) async fn index() -> Answered {
    Ok(reply::object(StatusCode::OK, 4_096, |out| {
        out.field("name", "millpond");
        out.key("links").object(|out| {
            for path in [
                "/v1/queues",
                "/v1/operations",
                "/v1/events",
                "/livez",
                "/readyz",
                "/metrics",
                "/openapi.json",
            ] {
                out.field(path.rsplit('/').next().unwrap_or_default(), path);
            }
        });
        out.key("routes").array(routes::routes(), |out, route| {
            let line = format!("{} {}: {}", route.method, route.path, route.summary);
            out.value(line.as_str());
        });
    }))
}

/// GET /livez: the loop that applies commands turns, which is more than that a socket answers.
pub(crate) async fn livez(State(app): State<App>) -> Answered {
    let stuck = app.node.health().stuck();
    let status = if stuck.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(reply::object(status, 128, |out| {
        out.field("live", stuck.is_none());
        out.optional("reason", stuck.as_deref());
    }))
}

/// GET /readyz: the pond takes work.
pub(crate) async fn readyz(State(app): State<App>) -> Answered {
    let unready = app.node.unready();
    let status = if unready.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(reply::object(status, 128, |out| {
        out.field("ready", unready.is_none());
        out.optional("reason", unready.as_deref());
    }))
}

/// GET /metrics
pub(crate) async fn metrics(State(app): State<App>, Known(caller): Known) -> Answered {
    let page = metrics::render(&app, caller).await?;
    Ok(reply::bytes(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page))
}

/// GET /openapi.json
pub(crate) async fn openapi() -> Answered {
    Ok(reply::bytes(StatusCode::OK, "application/json", openapi::document()))
}
