//! I5: one live lease per job, tokens and attempts rise, a stale token is refused, exactly one final state.

use crate::{
    history::{Check, broken},
    shadow::Job,
};
use kit::Timestamp;
use model::{DispatchedJob, LeaseRef, Reject};

/// A job is handed out: nobody may have it, its token must be the largest ever, its attempt the next one.
pub(crate) fn may_be_granted(job: &Job, given: &DispatchedJob, newest: u64, strict: bool) -> Check {
    let name = format!("job {} of {}", given.id, given.queue);
    if given.lease_token <= newest {
        return broken("I5", format!("{name} got token {} after {newest}", given.lease_token));
    }
    if !strict {
        return Ok(());
    }
    if let Some(lease) = job.lease {
        return broken("I5", format!("{name} was handed out while {lease:?} was live"));
    }
    if given.attempt != job.attempt + 1 || given.attempt > job.attempts {
        return broken(
            "I5",
            format!("{name} got attempt {} after {} of {}", given.attempt, job.attempt, job.attempts),
        );
    }
    Ok(())
}

/// A lease was accepted: it must be the live one.
pub(crate) fn was_live(job: &Job, lease: &LeaseRef, verb: &str) -> Check {
    match job.lease {
        Some(live) if live.token == lease.token => Ok(()),
        other => broken("I5", format!("{lease:?} was {verb}, and the live lease is {other:?}")),
    }
}

/// A lease was refused: it must not be the live one.
pub(crate) fn refused_rightly(job: &Job, lease: &LeaseRef, reject: &Reject, now: Timestamp) -> Check {
    let lost =
        matches!(reject, Reject::StaleLease { .. } | Reject::Cancelled { .. } | Reject::UnknownJob { .. });
    match job.lease {
        Some(live) if lost && live.token == lease.token && live.until > now => {
            broken("I5", format!("{lease:?} is live until {} and was refused: {reject}", live.until))
        }
        _ => Ok(()),
    }
}
