//! The handlers, grouped by what they are about.

pub(super) mod about;
pub(super) mod backup;
pub(super) mod dead;
pub(super) mod events;
pub(super) mod jobs;
pub(super) mod joins;
pub(super) mod limits;
pub(super) mod operations;
pub(super) mod push;
pub(super) mod queues;
pub(super) mod schedules;
pub(super) mod steps;
pub(super) mod work;
pub(super) mod workers;

use super::problem::Problem;
use axum::response::Response;

/// What every handler answers.
pub(super) type Answered = Result<Response, Problem>;

/// The node answered a command with the reply to another one: a mistake of ours, told without a panic.
pub(super) fn mismatched() -> Problem {
    Problem::new(
        &super::problem::UNKNOWN_OUTCOME,
        "the engine gave an answer of another kind; please report this",
    )
}
