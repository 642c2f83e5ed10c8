//! The HTTP API: one table of routes, one gate before it, JSON types that nobody else sees.

mod accept;
mod app;
mod crowd;
mod cursor;
mod dto;
mod extract;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod handlers;
pub(crate) mod json;
mod metrics;
mod openapi;
mod opening;
mod patience;
mod problem;
mod rates;
pub(crate) mod reach;
mod reply;
mod request_id;
mod routes;
mod stream;

/// How long a push waits for room in a full queue whose producers wait, if it does not say.
pub const PUSH_WAIT_MS: kit::Millis = 30_000;

pub use accept::{Door, serve_connections};
pub use app::{App, Rules};
pub(crate) use crowd::Crowd;
pub use openapi::document as openapi_document;
pub(crate) use opening::answer_while;
pub(crate) use patience::Patient;
pub(crate) use problem::Problem;
pub use problem::{KINDS, Kind};
pub use routes::{Route, routes};
