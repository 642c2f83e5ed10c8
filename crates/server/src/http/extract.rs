//! What handlers ask of a request.

use super::{
    app::App,
    problem::{self, Problem},
    reach,
};
use crate::access::Caller;
use axum::{
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kit::Durability;
use model::{Actor, Command, Envelope, EventId, JobId, JobRef, QueueName, Reject, ScheduleId, limits};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// The address a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// How long a body waits for its share of memory.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// What the headers of a changing call say. Only [`Call::envelope`] makes a command of it, so that none goes unchecked.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    caller: Caller,
    actor: Actor,
    idempotency_key: Option<CompactString>,
    pub(crate) level: Durability,
}

impl Call {
    /// The same call in the name of a worker.
    pub(crate) fn by(self, worker: &Actor) -> Self {
        Self { actor: self.caller.worker(worker), ..self }
    }

    /// Who calls.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The command with what is known of its caller, if that one may give it.
    pub(crate) async fn envelope(self, app: &App, command: Command) -> Result<Envelope, Problem> {
        let command = reach::confine(&self.caller, &app.node, command).await?;
        Ok(Envelope { actor: self.actor, idempotency_key: self.idempotency_key, command })
    }
}

/// Who sent the request.
pub(crate) struct Known(pub(crate) Caller);

impl FromRequestParts<App> for Known {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        // The gate leaves it out on routes that are open to all, which have nothing to show.
        let known = parts.extensions.get::<Caller>().cloned();
        known.map(Self).ok_or_else(|| Problem::new(&problem::UNAUTHORIZED, "no token was sent"))
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
        let Known(caller) = Known::from_request_parts(parts, app).await?;
        let idempotency_key = text(&parts.headers, "idempotency-key")?;
        if idempotency_key.is_some_and(|key| key.is_empty() || key.len() > limits::ID_BYTES_MAX) {
            return Err(Problem::invalid("Idempotency-Key", "has 1 to 255 bytes"));
        }
        let level = match text(&parts.headers, "millpond-durability")? {
            None => app.rules.durability,
            Some(name) => name.parse().map_err(|error| Problem::invalid("Millpond-Durability", error))?,
        };
        let actor = match caller.actor(text(&parts.headers, "millpond-actor")?) {
            Some(actor) => actor,
            // That somebody on this machine asked says nothing, and a name costs each job two hundred bytes of memory.
            None => {
                let remote = parts.extensions.get::<Peer>().filter(|peer| !peer.0.is_loopback());
                remote.map(|peer| Actor::new(&peer.0.to_string())).unwrap_or_default()
            }
        };
        let idempotency_key = idempotency_key.map(|key| caller.scoped(key.into()));
        Ok(Self { caller, actor, idempotency_key, level })
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

/// The same, where there is one with a good name.
pub(crate) async fn queue_in_path(parts: &mut Parts, app: &App) -> Result<Option<QueueName>, Problem> {
    let params = params(parts, app).await?;
    Ok(find(&params, "queue").and_then(|name| QueueName::new(name).ok()))
}

/// The job that the path names: with its queue, or by its generated id alone; always with it for a caller who does not see all queues.
pub(crate) struct Job(pub(crate) JobRef);

impl FromRequestParts<App> for Job {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        let queue = find(&params, "queue").map(QueueName::new).transpose();
        let queue = queue.map_err(|error| Problem::invalid("queue", error))?;
        let id = model::JobId::parse(find(&params, "id").unwrap_or_default())
            .map_err(|error| Problem::invalid("id", error))?;
        let job = JobRef { queue, id };
        let Known(caller) = Known::from_request_parts(parts, app).await?;
        if job.queue.is_some() || !caller.is_confined() {
            return Ok(Self(job));
        }
        let unknown = Reject::UnknownJob { id: job.id.to_compact_string() };
        let tied = app.node.read(move |shard| reach::tied(&caller, shard, job)).await?;
        tied.map(Self).ok_or_else(|| unknown.into())
    }
}

/// The join that the path names.
pub(crate) struct Join(pub(crate) JobId);

impl FromRequestParts<App> for Join {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let params = params(parts, app).await?;
        let id = JobId::parse(find(&params, "id").unwrap_or_default());
        let id = id.map_err(|error| Problem::invalid("id", error))?;
        let Known(caller) = Known::from_request_parts(parts, app).await?;
        if caller.is_confined() {
            let asked = id.clone();
            app.node.read(move |shard| reach::check_join(&caller, shard, &asked)).await??;
        }
        Ok(Self(id))
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
