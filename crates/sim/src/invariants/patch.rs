//! I23: a body is changed only while no worker has the job, and only if it is still the one that the new one was made from.

use crate::{
    history::{Check, broken},
    shadow::{Job, Key},
};
use bytes::Bytes;
use kit::Timestamp;
use model::Reject;

/// A body was changed.
pub(crate) fn may_be_changed(job: &Job, key: &Key, expected_crc: u32, strict: bool, now: Timestamp) -> Check {
    if strict && job.is_leased(now) {
        return broken("I23", format!("the body of {key:?} was changed while a worker had it"));
    }
    if crc(&job.new.body) != expected_crc {
        return broken("I23", format!("the body of {key:?} was changed, and had been changed before"));
    }
    Ok(())
}

/// It was not changed.
pub(crate) fn refused_rightly(
    job: &Job,
    key: &Key,
    expected_crc: u32,
    reject: &Reject,
    now: Timestamp,
) -> Check {
    let wrong = match reject {
        Reject::WrongState { .. } => !job.is_leased(now),
        Reject::BodyChanged { .. } => crc(&job.new.body) == expected_crc,
        _ => false,
    };
    if wrong {
        broken("I23", format!("the body of {key:?} was not changed ({reject}): {job:?}"))
    } else {
        Ok(())
    }
}

fn crc(body: &Bytes) -> u32 {
    crc32c::crc32c(body)
}
