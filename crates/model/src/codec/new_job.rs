//! Jobs to be added: the bulk of every log, so only what differs from the default is written.

use super::{
    checked, put_backoff, put_job_id, put_list, put_on_conflict, put_priority, put_queue_name, put_timestamp,
    read_backoff, read_compact, read_job_id, read_on_conflict, read_priority, read_queue_name,
    read_timestamp,
};
use crate::{LimitUse, NewJob, Route, Unique};
use bytes::Bytes;
use kit::codec::{Malformed, Reader, put_bytes, put_str, put_u64};

const ID: u64 = 1 << 0;
const PRIORITY: u64 = 1 << 1;
const DELAY: u64 = 1 << 2;
const ATTEMPTS: u64 = 1 << 3;
const UNIQUE: u64 = 1 << 4;
const TAGS: u64 = 1 << 5;
const META: u64 = 1 << 6;
const CONTENT_TYPE: u64 = 1 << 7;
const RUN_AT: u64 = 1 << 8;
const MAX_CRASHES: u64 = 1 << 9;
const BACKOFF: u64 = 1 << 10;
const TIMEOUT: u64 = 1 << 11;
const EXPIRES: u64 = 1 << 12;
const GROUP: u64 = 1 << 13;
const ORDERING_KEY: u64 = 1 << 14;
const LIMITS: u64 = 1 << 15;
const DEADLINE: u64 = 1 << 16;
/// The first bit without a meaning.
const UNKNOWN: u64 = 1 << 17;

/// One bit per field that differs from a plain job. Reading compares with it too, so every job has one encoding.
fn presence(job: &NewJob) -> u64 {
    let plain = crate::Priority::NORMAL;
    let route = job.route.as_deref();
    [
        (ID, job.id.is_some()),
        (PRIORITY, job.priority != plain),
        (DELAY, job.delay_ms != 0),
        (ATTEMPTS, job.attempts.is_some()),
        (UNIQUE, job.unique.is_some()),
        (TAGS, !job.tags.is_empty()),
        (META, !job.meta.is_empty()),
        (CONTENT_TYPE, !job.content_type.is_empty()),
        (RUN_AT, job.run_at.is_some()),
        (MAX_CRASHES, job.max_crashes.is_some()),
        (BACKOFF, job.backoff.is_some()),
        (TIMEOUT, job.timeout_ms.is_some()),
        (EXPIRES, job.expires_ms.is_some()),
        (GROUP, route.is_some_and(|route| route.group.is_some())),
        (ORDERING_KEY, route.is_some_and(|route| route.ordering_key.is_some())),
        (LIMITS, route.is_some_and(|route| !route.limits.is_empty())),
        (DEADLINE, route.is_some_and(|route| route.deadline.is_some())),
    ]
    .into_iter()
    .fold(0, |bits, (bit, present)| if present { bits | bit } else { bits })
}

/// Presence bits, queue, body, then the fields that are present.
pub fn put_new_job(out: &mut Vec<u8>, job: &NewJob) {
    let present = presence(job);
    put_u64(out, present);
    put_queue_name(out, &job.queue);
    put_bytes(out, &job.body);
    if let Some(id) = &job.id {
        put_job_id(out, id);
    }
    if present & PRIORITY != 0 {
        put_priority(out, job.priority);
    }
    if present & DELAY != 0 {
        put_u64(out, job.delay_ms);
    }
    if let Some(attempts) = job.attempts {
        put_u64(out, attempts.into());
    }
    if let Some(unique) = &job.unique {
        put_unique(out, unique);
    }
    if present & TAGS != 0 {
        put_list(out, &job.tags, |out, tag| put_str(out, tag));
    }
    if present & META != 0 {
        put_list(out, &job.meta, |out, (name, value)| {
            put_str(out, name);
            put_str(out, value);
        });
    }
    if present & CONTENT_TYPE != 0 {
        put_str(out, &job.content_type);
    }
    if let Some(at) = job.run_at {
        put_timestamp(out, at);
    }
    if let Some(crashes) = job.max_crashes {
        put_u64(out, crashes.into());
    }
    if let Some(backoff) = &job.backoff {
        put_backoff(out, backoff);
    }
    if let Some(timeout) = job.timeout_ms {
        put_u64(out, timeout);
    }
    if let Some(expires) = job.expires_ms {
        put_u64(out, expires);
    }
    if let Some(route) = &job.route {
        put_route(out, route);
    }
}

/// The fields of a route that say something; the bits of the job tell which.
fn put_route(out: &mut Vec<u8>, route: &Route) {
    for key in [&route.group, &route.ordering_key].into_iter().flatten() {
        put_str(out, key);
    }
    if !route.limits.is_empty() {
        put_list(out, &route.limits, put_limit_use);
    }
    if let Some(deadline) = route.deadline {
        put_timestamp(out, deadline);
    }
}

/// Key, cost.
pub fn put_limit_use(out: &mut Vec<u8>, used: &LimitUse) {
    put_str(out, &used.key);
    put_u64(out, used.cost.into());
}

/// What [`put_limit_use`] wrote.
pub fn read_limit_use(reader: &mut Reader<'_>) -> Result<LimitUse, Malformed> {
    Ok(LimitUse { key: read_compact(reader, "limit key")?, cost: reader.u32("cost")? })
}

/// What [`put_new_job`] wrote.
pub fn read_new_job(reader: &mut Reader<'_>) -> Result<NewJob, Malformed> {
    checked(reader, "job", |r| {
        let present = r.u64("job")?;
        if present >= UNKNOWN {
            return Ok(None);
        }
        let queue = read_queue_name(r)?;
        let mut job = NewJob::new(queue, Bytes::copy_from_slice(r.bytes("body")?));
        if present & ID != 0 {
            job.id = Some(read_job_id(r)?);
        }
        if present & PRIORITY != 0 {
            job.priority = read_priority(r)?;
        }
        if present & DELAY != 0 {
            job.delay_ms = r.u64("delay")?;
        }
        if present & ATTEMPTS != 0 {
            job.attempts = Some(r.u32("attempts")?);
        }
        if present & UNIQUE != 0 {
            job.unique = Some(read_unique(r)?);
        }
        if present & TAGS != 0 {
            job.tags = r.list("tags", |r| read_compact(r, "tag"))?;
        }
        if present & META != 0 {
            job.meta =
                r.list("meta", |r| Ok((read_compact(r, "meta name")?, read_compact(r, "meta value")?)))?;
        }
        if present & CONTENT_TYPE != 0 {
            job.content_type = read_compact(r, "content type")?;
        }
        if present & RUN_AT != 0 {
            job.run_at = Some(read_timestamp(r)?);
        }
        if present & MAX_CRASHES != 0 {
            job.max_crashes = Some(r.u32("crashes")?);
        }
        if present & BACKOFF != 0 {
            job.backoff = Some(read_backoff(r)?);
        }
        if present & TIMEOUT != 0 {
            job.timeout_ms = Some(r.u64("timeout")?);
        }
        if present & EXPIRES != 0 {
            job.expires_ms = Some(r.u64("expiry")?);
        }
        if present & (GROUP | ORDERING_KEY | LIMITS | DEADLINE) != 0 {
            let has = |bit| present & bit != 0;
            job.route = Some(Box::new(Route {
                group: has(GROUP).then(|| read_compact(r, "group")).transpose()?,
                ordering_key: has(ORDERING_KEY).then(|| read_compact(r, "ordering key")).transpose()?,
                limits: if has(LIMITS) { r.list("limits", read_limit_use)? } else { Vec::new() },
                deadline: has(DEADLINE).then(|| read_timestamp(r)).transpose()?,
            }));
        }
        Ok((presence(&job) == present).then_some(job))
    })
}

/// Key, span, rule.
pub fn put_unique(out: &mut Vec<u8>, unique: &Unique) {
    put_str(out, &unique.key);
    put_u64(out, unique.ttl_ms);
    put_on_conflict(out, unique.on_conflict);
}

/// What [`put_unique`] wrote.
pub fn read_unique(reader: &mut Reader<'_>) -> Result<Unique, Malformed> {
    Ok(Unique {
        key: read_compact(reader, "unique key")?,
        ttl_ms: reader.u64("unique span")?,
        on_conflict: read_on_conflict(reader)?,
    })
}
