//! I11: nothing starts before its time, and nothing due was made to wait for a clock that ran backwards.

use crate::{
    history::{Check, broken},
    shadow::Job,
};
use kit::Timestamp;
use model::DispatchedJob;

/// A job is handed out at `now`.
pub(crate) fn may_start(job: &Job, given: &DispatchedJob, now: Timestamp) -> Check {
    if now < job.not_before {
        return broken(
            "I11",
            format!("job {} of {} started at {now}, not before {}", given.id, given.queue, job.not_before),
        );
    }
    Ok(())
}
