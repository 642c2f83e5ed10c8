//! How answers are put together.

use super::json::Writer;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use kit::Durability;
use node::Answer;

const DURABILITY: HeaderName = HeaderName::from_static("millpond-durability");

/// An answer with a JSON object in it.
pub(crate) fn object(status: StatusCode, capacity: usize, fields: impl FnOnce(&mut Writer)) -> Response {
    let mut out = Writer::with_capacity(capacity);
    out.object(fields);
    bytes(status, "application/json", out.finish())
}

/// An answer to a change: the object says where in the log it stands and how safe it is, and a header repeats the latter.
pub(crate) fn changed(
    status: StatusCode,
    capacity: usize,
    answer: &Answer,
    fields: impl FnOnce(&mut Writer),
) -> Response {
    let response = object(status, capacity, |out| {
        fields(out);
        out.field("position", answer.position);
        out.field("durability", answer.durability.name());
    });
    durable(response, answer.durability)
}

/// Names the level reached.
pub(crate) fn durable(mut response: Response, level: Durability) -> Response {
    response.headers_mut().insert(DURABILITY, HeaderValue::from_static(level.name()));
    response
}

/// Any other content.
pub(crate) fn bytes(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
