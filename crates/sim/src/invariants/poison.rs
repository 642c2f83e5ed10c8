//! I21: crashes are counted apart from attempts, through restarts, and a job that crashed as often as it may is in quarantine.

use crate::{
    history::{Check, broken},
    shadow::Job,
};
use model::{DispatchedJob, State};

/// A job is handed out: its crashes, reported ones and lost leases, are those that happened, and fewer than it may have.
pub(crate) fn crashes_are_counted(job: &Job, given: &DispatchedJob) -> Check {
    if given.crashes == job.crashes && job.crashes < job.max_crashes {
        return Ok(());
    }
    broken(
        "I21",
        format!(
            "job {} of {} was handed out with {} crashes after {} of {}",
            given.id, given.queue, given.crashes, job.crashes, job.max_crashes
        ),
    )
}

/// Where a job may be after a crash was reported and counted. In a loose queue another life may have begun behind the shadow's back.
pub(crate) fn after_a_crash(job: &Job, strict: bool) -> &'static [State] {
    if !strict {
        return &[State::Dead, State::Retrying, State::Waiting];
    }
    if job.crashes >= job.max_crashes { &[State::Dead] } else { &[State::Retrying, State::Waiting] }
}
