//! What handlers ask of a request.

use super::{
    app::App,
    problem::{self, Problem},
};
use axum::{
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::Bytes;
use compact_str::CompactString;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kit::Durability;
use model::{Actor, EventId, JobRef, QueueName, ScheduleId, limits};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// The address a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// How long a body waits for its share of memory.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// What the headers of a changing call say.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) actor: Actor,
    pub(crate) idempotency_key: Option<CompactString>,
    pub(crate) level: Durability,
}

impl Call {
    /// The same call in the name of a worker.
    pub(crate) fn by(self, worker: Actor) -> Self {
        Self { actor: worker, ..self }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Problem::invalid(name, "has characters that a header should not have")),
    }
}

impl FromRequestParts<App> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let idempotency_key = text(&parts.headers, "idempotency-key")?;
        if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > limits::ID_BYTES_MAX) {
            return Err(Problem::invalid("Idempotency-Key", "has 1 to 255 bytes"));
        }
        let level = match text(&parts.headers, "millpond-durability")? {
            None => app.rules.durability,
            Some(name) => name.parse().map_err(|error| Problem::invalid("Millpond-Durability", error))?,
        };
        let actor = match text(&parts.headers, "millpond-actor")? {
            Some(name) => Actor::new(name),
            // That somebody on this machine asked says nothing, and a name costs each job two hundred bytes of memory.
            None => {
                let remote = parts.extensions.get::<Peer>().filter(|peer| !peer.0.is_loopback());
                remote.map(|peer| Actor::new(&peer.0.to_string())).unwrap_or_default()
            }
        };
        Ok(Self { actor, idempotency_key: idempotency_key.map(CompactString::from), level })
    }
}

/// A request's body, whole, within its limits of size and time.
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    /// One job per line instead of one document.
    pub(crate) lines: bool,
    /// The body's share of memory, given back when the request is answered.
    _room: OwnedSemaphorePermit,
}

impl Payload {
    /// The body as JSON, where none at all means the default.
    pub(crate) fn optional<'a, T: serde::Deserialize<'a> + Default>(&'a self) -> Result<T, Problem> {
        if self.bytes.trim_ascii().is_empty() { Ok(T::default()) } else { super::json::parse(&self.bytes) }
    }
}

impl FromRequest<App> for Payload {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let headers = request.headers();
        let encoding = text(headers, "content-encoding")?.unwrap_or("identity").trim();
        if !encoding.eq_ignore_ascii_case("identity") {
            let detail = "a body with Content-Encoding is not read";
            return Err(Problem::new(&problem::UNSUPPORTED_ENCODING, detail));
        }
        let lines = is_lines(headers);
        let limit = app.rules.body_bytes_max;
        let too_large = || {
            Problem::new(&problem::BODY_TOO_LARGE, format!("a request's body has at most {limit} bytes"))
                .with("limit", limit as u64)
        };
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|bytes: usize| bytes > limit) {
            return Err(too_large());
        }
        let room = make_room(app, announced.unwrap_or(limit)).await?;
        let body = Limited::new(request.into_body(), limit);
        let bytes = match tokio::time::timeout(app.rules.body_timeout, body.collect()).await {
            Err(_) => return Err(Problem::new(&problem::TIMEOUT, "the body did not arrive in time")),
            Ok(Err(error)) if is_length_limit(&*error) => return Err(too_large()),
            Ok(Err(error)) => {
                return Err(Problem::new(&problem::BAD_REQUEST, format!("the body broke off: {error}")));
            }
            Ok(Ok(body)) => body.to_bytes(),
        };
        Ok(Self { bytes, lines, _room: room })
    }
}

async fn make_room(app: &App, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let kib = u32::try_from(bytes.div_ceil(1_024).max(1)).unwrap_or(u32::MAX);
    let room = Arc::clone(&app.bodies).acquire_many_owned(kib);
    match tokio::time::timeout(ROOM_TIMEOUT, room).await {
        Ok(Ok(room)) => Ok(room),
        Ok(Err(_)) | Err(_) => {
            let detail = "too many bodies are under way; nothing was changed";
            Err(Problem::new(&problem::OVERLOADED, detail).retry_after(1_000))
        }
    }
}

fn is_lines(headers: &HeaderMap) -> bool {
    let name = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = name.split(';').next().unwrap_or_default().trim();
    name.eq_ignore_ascii_case("application/x-ndjson") || name.eq_ignore_ascii_case("application/jsonl")
}

fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return true;
        }
        next = error.source();
    }
    false
}

async fn params(parts: &mut Parts, app: &App) -> Result<RawPathParams, Problem> {
    RawPathParams::from_request_parts(parts, app)
        .await
        .map_err(|error| Problem::new(&problem::BAD_REQUEST, error.to_string()))
}

fn find<'p>(params: &'p RawPathParams, name: &str) -> Option<&'p str> {
    params.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// The queue that the path names.
pub(crate) struct Queue(pub(crate) QueueName);

impl FromRequestParts<App> for Queue {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        let name = find(&params, "queue").unwrap_or_default();
        QueueName::new(name).map(Self).map_err(|error| Problem::invalid("queue", error))
    }
}

/// The job that the path names: with its queue, or by its generated id alone.
pub(crate) struct Job(pub(crate) JobRef);

impl FromRequestParts<App> for Job {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        let queue = find(&params, "queue").map(QueueName::new).transpose();
        let queue = queue.map_err(|error| Problem::invalid("queue", error))?;
        let id = model::JobId::parse(find(&params, "id").unwrap_or_default())
            .map_err(|error| Problem::invalid("id", error))?;
        Ok(Self(JobRef { queue, id }))
    }
}

/// The worker that the path names.
pub(crate) struct Worker(pub(crate) Actor);

impl FromRequestParts<App> for Worker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        super::dto::worker(find(&params, "worker").unwrap_or_default()).map(Self)
    }
}

/// The schedule that the path names.
pub(crate) struct Schedule(pub(crate) ScheduleId);

impl FromRequestParts<App> for Schedule {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        let id = find(&params, "id").unwrap_or_default();
        ScheduleId::new(id).map(Self).map_err(|error| Problem::invalid("id", error))
    }
}

/// The number that the path names.
pub(crate) struct Number(pub(crate) u64);

impl FromRequestParts<App> for Number {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        let number = find(&params, "id").unwrap_or_default().parse();
        number.map(Self).map_err(|_| Problem::invalid("id", "is a number"))
    }
}

/// The limit that the path names: a key, or the beginning of keys followed by `*`.
pub(crate) struct Key(pub(crate) CompactString);

impl FromRequestParts<App> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        Ok(Self(find(&params, "key").unwrap_or_default().into()))
    }
}

/// The group that the path names.
pub(crate) struct Group(pub(crate) CompactString);

impl FromRequestParts<App> for Group {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        Ok(Self(find(&params, "group").unwrap_or_default().into()))
    }
}

/// The last event that a client of a stream has seen.
pub(crate) struct LastEvent(pub(crate) Option<EventId>);

impl FromRequestParts<App> for LastEvent {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let id = text(&parts.headers, "last-event-id")?.filter(|id| !id.is_empty()).map(str::parse);
        id.transpose().map(Self).map_err(|error| Problem::invalid("Last-Event-ID", error))
    }
}

/// The query as it was sent.
pub(crate) struct QueryText(pub(crate) Option<String>);

impl FromRequestParts<App> for QueryText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        Ok(Self(parts.uri.query().map(str::to_owned)))
    }
}
