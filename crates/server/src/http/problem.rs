//! Refusals on the wire: `application/problem+json` (RFC 9457) with a stable `code` and what to do next.

use super::json::Writer;
use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use kit::Millis;
use model::Reject;
use node::{CallError, Scarce};

/// One kind of refusal. Code, status and help are stable; the detail of each case is not.
#[derive(Debug)]
pub struct Kind {
    /// What programs look at.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// The same for every case of the kind.
    pub title: &'static str,
    /// What to do next.
    pub help: &'static str,
}

macro_rules! kinds {
    ($($name:ident $code:literal $status:literal $title:literal $help:literal)*) => {
        $(pub(crate) const $name: Kind = Kind { code: $code, status: $status, title: $title, help: $help };)*
        /// Every kind, in the order of `docs/errors.md`.
        pub const KINDS: &[Kind] = &[$($name),*];
    };
}

kinds! {
    INVALID_JSON "invalid_json" 400 "The body is not valid JSON"
        "Look at the byte named in `offset`. Values nest at most 128 deep, and no field of ours may be there twice."
    UNKNOWN_FIELD "unknown_field" 400 "A field or parameter is not known"
        "Take the name in `did_you_mean`, or leave the field out: what the server does not know it does not ignore."
    BAD_CURSOR "bad_cursor" 400 "The cursor is not one of this listing"
        "Send the `cursor` of the page before as it is, with the same queue and filters, or start again without one."
    BAD_REQUEST "bad_request" 400 "The request cannot be read"
        "Check the headers, the path's percent-encoding and that the body arrives whole."
    INVALID "invalid" 422 "A value is not allowed"
        "The detail names the field and what is allowed."
    BAD_CRON "bad_cron" 422 "The cron expression cannot be read"
        "The detail names the field and the character. POST /v1/schedules/preview shows what an expression means."
    BAD_ZONE "bad_zone" 422 "The time zone is not known"
        "Take a name of the IANA database, such as Europe/Berlin, or UTC."
    TOO_MANY "too_many" 422 "More items than one call may carry"
        "Split the call."
    BAD_GRAPH "bad_graph" 422 "The jobs and joins do not fit together"
        "The detail names the job or the join and what is wrong with it. Nothing was added."
    TOO_DURABLE "too_durable" 422 "The durability asked for is not kept here"
        "Ask for a weaker level, or run the pond on a log that keeps this one."
    UNAUTHORIZED "unauthorized" 401 "A token is needed"
        "Send `Authorization: Bearer TOKEN` with a token that the server knows; `millpond token add` makes one."
    FORBIDDEN "forbidden" 403 "The token is not for this"
        "The detail names what is needed. Take a token of a role that has it, or have the role added to this one."
    QUEUE_FORBIDDEN "queue_forbidden" 403 "The token is not for this queue"
        "Take a token whose patterns match the queue. Whether the queue exists makes no difference."
    CROSS_SITE "cross_site" 403 "The request comes from another web site"
        "Pages of other origins may not call this server. Call it from a server of yours, or from its own origin."
    UNKNOWN_ROUTE "unknown_route" 404 "There is nothing at this path"
        "GET /openapi.json lists every route."
    UNKNOWN_QUEUE "unknown_queue" 404 "There is no such queue"
        "A queue is made by its first push, or by PATCH /v1/queues/{queue}."
    UNKNOWN_JOB "unknown_job" 404 "There is no such job"
        "It may have been removed when its retention ended. An id that you gave yourself needs its queue in the path."
    UNKNOWN_SCHEDULE "unknown_schedule" 404 "There is no such schedule"
        "GET /v1/schedules lists them; PUT /v1/schedules/{id} makes one."
    UNKNOWN_LIMIT "unknown_limit" 404 "There is no such limit"
        "GET /v1/limits lists them; PUT /v1/limits/{key} sets one. A key without a limit is not limited."
    UNKNOWN_OPERATION "unknown_operation" 404 "There is no such operation"
        "GET /v1/operations lists those that are remembered."
    UNKNOWN_WORKER "unknown_worker" 404 "There is no such worker"
        "GET /v1/workers lists those that are there. One that fetches over HTTP is forgotten a minute after its last call."
    UNKNOWN_JOIN "unknown_join" 404 "There is no such join"
        "A join is kept as long as its continuation, or for a day after its end."
    METHOD_NOT_ALLOWED "method_not_allowed" 405 "The path does not take this method"
        "The `Allow` header lists what it takes."
    TIMEOUT "timeout" 408 "The request did not arrive in time"
        "Send the body without pauses, or in smaller parts. Nothing was changed."
    STALE_LEASE "stale_lease" 409 "The lease is no longer valid"
        "Drop this result: the job may be with another worker. Renew before two thirds of the lease have passed."
    CANCELLED "cancelled" 409 "The job was cancelled"
        "Stop working on it and drop the result."
    WRONG_STATE "wrong_state" 409 "The job's state does not allow this"
        "The detail says which state would. GET …/history shows how it came to be where it is."
    UNIQUE_CONFLICT "unique_conflict" 409 "The unique key is held by another job"
        "Wait for that job to end, or push with another `on_conflict`: `return`, `replace`, `keep_last_if_active`."
    BODY_CHANGED "body_changed" 409 "The body was changed meanwhile"
        "Read the job again and repeat the change."
    DEAD_LETTER_CYCLE "dead_letter_cycle" 409 "Dead letters would come back"
        "Name a queue whose own dead letters do not lead back here, or take the target of that one away first."
    IDEMPOTENCY_CONFLICT "idempotency_conflict" 409 "The idempotency key was used for another call"
        "Use a new key for new content; a key is remembered for 24 hours."
    JOIN_CLOSED "join_closed" 409 "The join takes no more members"
        "Push the job by itself, or make a new join that is open."
    CHILD_EXISTS "child_exists" 409 "The child of a step exists already"
        "A child is a new job, so that exactly one parent waits for it. Leave out its id and its unique key."
    OPERATION_ENDED "operation_ended" 409 "The operation has ended"
        "Start another one; what it changed stays changed."
    STALE_CHOICE "stale_choice" 409 "The operation has moved on"
        "Nothing: the node that sent this looks again."
    BACKUP_RUNNING "backup_running" 409 "A backup is being made"
        "Wait until it has come to its end; there is one at a time."
    NOTHING_KEPT "nothing_kept" 409 "There is nothing to save"
        "Start the server on a data directory, without `memory`."
    BODY_TOO_LARGE "body_too_large" 413 "The body is too large"
        "Split the batch, or keep the payload elsewhere and push a reference to it."
    UNSUPPORTED_ENCODING "unsupported_encoding" 415 "The body is encoded"
        "Send it without Content-Encoding."
    MISDIRECTED "misdirected" 421 "The server is not known by this host name"
        "Use localhost or the address that it listens on, or add the name to `hosts` in its configuration."
    QUEUE_FULL "queue_full" 429 "The queue is full"
        "Repeat the call after `Retry-After`, add workers, or raise the queue's capacity. Where producers wait, a push may wait for room (`wait_ms`); other calls do not."
    POND_FULL "pond_full" 429 "The pond is full"
        "Let workers drain it, purge what is not needed, or shorten retention."
    STEPS_FULL "steps_full" 429 "The job holds as many steps as it may"
        "Store less in each step, or keep results elsewhere and store references, or split the work into child jobs."
    SIGNALS_FULL "signals_full" 429 "The job keeps as many signals as it may"
        "Signal it again when it has taken some."
    TOO_MANY_WRONG_TOKENS "too_many_wrong_tokens" 429 "Too many wrong tokens came from this address"
        "Check the token, then call again after `Retry-After`. A token that was used from this address before is let in meanwhile."
    OVERLOADED "overloaded" 503 "Too many calls are waiting"
        "Call again after `Retry-After`. Nothing was changed."
    MEMORY_FULL "memory_full" 503 "The memory is full"
        "Call again after `Retry-After`. Work that is running can be finished meanwhile; new work is taken again by itself."
    STARTING "starting" 503 "The server is starting"
        "Call again after `Retry-After`. Nothing was changed. GET /readyz says when it is ready."
    STOPPING "stopping" 503 "The server is stopping"
        "Call again in a moment. Nothing was changed."
    UNKNOWN_OUTCOME "unknown_outcome" 503 "The outcome is unknown"
        "The change may or may not have happened. Repeat the call with the same Idempotency-Key once the server is back."
    DISK_FULL "disk_full" 507 "The disk is full"
        "Free some space. Work that is running can be finished meanwhile; new work is taken again by itself."
}

/// A refusal on its way to the client.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: &'static Kind,
    detail: String,
    extras: Vec<(&'static str, Extra)>,
    retry_after_ms: Option<Millis>,
}

#[derive(Debug, Clone)]
pub(crate) enum Extra {
    Number(u64),
    Text(String),
}

impl From<u64> for Extra {
    fn from(value: u64) -> Self {
        Extra::Number(value)
    }
}

impl From<&str> for Extra {
    fn from(value: &str) -> Self {
        Extra::Text(value.to_owned())
    }
}

impl From<String> for Extra {
    fn from(value: String) -> Self {
        Extra::Text(value)
    }
}

impl Problem {
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), extras: Vec::new(), retry_after_ms: None }
    }

    /// A value of a field that is not allowed.
    pub(crate) fn invalid(field: &str, reason: impl std::fmt::Display) -> Self {
        Self::new(&INVALID, format!("{field}: {reason}")).with("field", field)
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl Into<Extra>) -> Self {
        let value = value.into();
        match self.extras.iter_mut().find(|(known, _)| *known == key) {
            Some((_, slot)) => *slot = value,
            None => self.extras.push((key, value)),
        }
        self
    }

    pub(crate) fn retry_after(mut self, wait_ms: Millis) -> Self {
        self.retry_after_ms = Some(wait_ms);
        self
    }

    /// Says which item of a batch is meant.
    pub(crate) fn inside(mut self, place: &str) -> Self {
        self.detail = format!("{place}.{}", self.detail);
        if let Some((_, Extra::Text(field))) = self.extras.iter_mut().find(|(key, _)| *key == "field") {
            *field = format!("{place}.{field}");
        }
        self
    }

    pub(crate) fn code(&self) -> &'static str {
        self.kind.code
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn retry_after_ms(&self) -> Option<Millis> {
        self.retry_after_ms
    }

    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.extras.iter().find_map(|(known, value)| match value {
            Extra::Number(number) if *known == key => Some(*number),
            _ => None,
        })
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(384);
        out.object(|out| {
            out.field("type", format!("urn:millpond:problem:{}", self.kind.code).as_str());
            out.field("title", self.kind.title);
            out.field("status", self.kind.status);
            out.field("code", self.kind.code);
            out.field("detail", self.detail.as_str());
            out.field("help", self.kind.help);
            out.optional("retry_after_ms", self.retry_after_ms);
            for (key, value) in &self.extras {
                match value {
                    Extra::Number(number) => out.field(key, *number),
                    Extra::Text(text) => out.field(key, text.as_str()),
                }
            }
        });
        out.finish()
    }
}

impl From<&Reject> for Problem {
    fn from(reject: &Reject) -> Self {
        let kind = match reject {
            Reject::Invalid { .. } => &INVALID,
            Reject::TooMany { .. } => &TOO_MANY,
            Reject::BodyTooLarge { .. } => &BODY_TOO_LARGE,
            Reject::QueueFull { .. } => &QUEUE_FULL,
            Reject::PondFull { .. } => &POND_FULL,
            Reject::UnknownQueue { .. } => &UNKNOWN_QUEUE,
            Reject::UnknownJob { .. } => &UNKNOWN_JOB,
            Reject::StaleLease { .. } => &STALE_LEASE,
            Reject::Cancelled { .. } => &CANCELLED,
            Reject::WrongState { .. } => &WRONG_STATE,
            Reject::UniqueConflict { .. } => &UNIQUE_CONFLICT,
            Reject::IdempotencyConflict { .. } => &IDEMPOTENCY_CONFLICT,
            Reject::UnknownJoin { .. } => &UNKNOWN_JOIN,
            Reject::BadGraph { .. } => &BAD_GRAPH,
            Reject::JoinClosed { .. } => &JOIN_CLOSED,
            Reject::BadCron { .. } => &BAD_CRON,
            Reject::BadZone { .. } => &BAD_ZONE,
            Reject::UnknownSchedule { .. } => &UNKNOWN_SCHEDULE,
            Reject::StepsFull { .. } => &STEPS_FULL,
            Reject::SignalsFull { .. } => &SIGNALS_FULL,
            Reject::ChildExists { .. } => &CHILD_EXISTS,
            Reject::UnknownOperation { .. } => &UNKNOWN_OPERATION,
            Reject::OperationEnded { .. } => &OPERATION_ENDED,
            Reject::StaleChoice { .. } => &STALE_CHOICE,
            Reject::BodyChanged { .. } => &BODY_CHANGED,
            Reject::DeadLetterCycle { .. } => &DEAD_LETTER_CYCLE,
        };
        let mut problem = Problem::new(kind, reject.to_string());
        problem.retry_after_ms = reject.retry_after_ms();
        match reject {
            Reject::Invalid { field, .. } => problem.with("field", *field),
            Reject::WrongState { state, .. } => problem.with("state", state.name()),
            Reject::UniqueConflict { holder, .. } => problem.with("holder", holder.as_str()),
            Reject::TooMany { limit, .. }
            | Reject::BodyTooLarge { limit, .. }
            | Reject::QueueFull { limit, .. }
            | Reject::PondFull { limit }
            | Reject::StepsFull { limit, .. }
            | Reject::SignalsFull { limit, .. } => problem.with("limit", *limit),
            Reject::BadGraph { name, .. } => problem.with("name", name.as_str()),
            Reject::JoinClosed { state, .. } => problem.with("state", *state),
            Reject::BadCron { field, at, .. } => {
                problem.with("field", field.as_str()).with("at", u64::from(*at))
            }
            Reject::BadZone { .. }
            | Reject::UnknownSchedule { .. }
            | Reject::UnknownJoin { .. }
            | Reject::UnknownQueue { .. }
            | Reject::UnknownJob { .. }
            | Reject::StaleLease { .. }
            | Reject::Cancelled { .. }
            | Reject::IdempotencyConflict { .. }
            | Reject::BodyChanged { .. }
            | Reject::DeadLetterCycle { .. }
            | Reject::ChildExists { .. } => problem,
            Reject::UnknownOperation { .. } | Reject::OperationEnded { .. } | Reject::StaleChoice { .. } => {
                problem
            }
        }
    }
}

impl From<Reject> for Problem {
    fn from(reject: Reject) -> Self {
        Self::from(&reject)
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let kind = match &error {
            CallError::Refused(reject) => return Self::from(reject),
            CallError::Overloaded { scarce, retry_after_ms } => {
                let kind = match scarce {
                    Scarce::Room => &OVERLOADED,
                    Scarce::Memory => &MEMORY_FULL,
                };
                return Self::new(kind, error.to_string()).retry_after(*retry_after_ms);
            }
            CallError::DiskFull => &DISK_FULL,
            CallError::TooDurable { .. } => &TOO_DURABLE,
            CallError::Unknown { .. } => &UNKNOWN_OUTCOME,
            CallError::Stopping => return Self::new(&STOPPING, error.to_string()).retry_after(1_000),
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait_ms) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait_ms.div_ceil(1_000).max(1)));
        }
        if self.kind.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
