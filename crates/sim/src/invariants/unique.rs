//! I12: a unique key has one live job that runs, and at most one that stands by for it; what a rule promises of time holds.

use crate::{
    history::{Check, broken},
    shadow::{Job, Key},
};
use compact_str::CompactString;
use kit::Timestamp;
use millpond_core::Shard;
use model::{JobRef, OnConflict, State};

/// A new job was made although its key is held.
pub(crate) fn may_be_second(
    holder: &Job,
    another_stands_by: bool,
    rule: OnConflict,
    key: &CompactString,
) -> Check {
    let keeps = matches!(rule, OnConflict::Debounce { .. } | OnConflict::KeepLast);
    if keeps && holder.started && !another_stands_by {
        return Ok(());
    }
    broken("I12", format!("unique key {key} was given away while it was held ({rule:?}) by {holder:?}"))
}

/// A push was answered with a job that then took over its content.
pub(crate) fn may_be_renewed(job: &Job, key: &Key, strict: bool) -> Check {
    if strict && job.started {
        return broken("I12", format!("job {key:?} had begun and took the body of a newer push"));
    }
    Ok(())
}

/// A job that stood by is handed out.
pub(crate) fn was_called(holder: Option<&Job>, key: &Key, now: Timestamp) -> Check {
    match holder {
        Some(holder) if !holder.ended && !holder.expired(now) => {
            broken("I12", format!("job {key:?} stood by and was started before {holder:?} ended"))
        }
        _ => Ok(()),
    }
}

/// However often it was pushed again, a debounced job waits no longer than its longest wait.
pub(crate) fn waits_no_longer(shard: &Shard, key: &Key, latest: Timestamp) -> Check {
    let job = shard.job(&JobRef { queue: Some(key.0.clone()), id: key.1.clone() });
    match job.and_then(|job| job.due_at.filter(|_| job.state == State::Delayed)) {
        // One that stood by and is called later than that is due at once.
        Some(due) if due > latest.max(shard.time()) => broken(
            "I12",
            format!("debounced job {key:?} waits until {due}, beyond its longest wait {latest}"),
        ),
        _ => Ok(()),
    }
}
