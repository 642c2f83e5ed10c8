//! Replies, as they are remembered for idempotency keys.

use super::{
    bulk::read_plain_bulk_view, checked, put_bulk_view, put_job_id, put_joined, put_list, put_priority,
    put_queue_name, put_queue_settings, put_reject, put_scheduled, put_state, put_step, put_timestamp,
    read_bulk_view, read_compact, read_job_id, read_joined, read_priority, read_queue_name,
    read_queue_settings, read_reject, read_scheduled, read_state, read_step, read_timestamp,
};
use crate::{DispatchedJob, Pushed, Reject, Renewed, Reply, Settled};
use bytes::Bytes;
use kit::codec::{Malformed, Reader, put_bool, put_bytes, put_option, put_str, put_u64};

/// Appends a reply: 0 pushed, 1 fetched, 2 renewed, 3 settled, 4 changed, 5 configured, 7 done, 10 scheduled,
/// 13 joined, 16 step, 17 signalled, 21 operation. 6 was the shorter form of 21; it is read and not written.
pub fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Pushed(jobs) => {
            out.push(0);
            put_list(out, jobs, put_pushed);
        }
        Reply::Fetched(jobs) => {
            out.push(1);
            put_list(out, jobs, put_dispatched_job);
        }
        Reply::Renewed(leases) => {
            out.push(2);
            put_list(out, leases, |out, lease| {
                put_result(out, lease, |out, renewed| put_timestamp(out, renewed.lease_until));
            });
        }
        Reply::Settled(attempts) => {
            out.push(3);
            put_list(out, attempts, |out, attempt| put_result(out, attempt, put_settled));
        }
        Reply::Changed(states) => {
            out.push(4);
            put_list(out, states, |out, state| put_state(out, *state));
        }
        Reply::Configured(settings) => {
            out.push(5);
            put_queue_settings(out, settings);
        }
        Reply::Operation(bulk) => {
            out.push(21);
            put_bulk_view(out, bulk);
        }
        Reply::Done => out.push(7),
        Reply::Joined(joined) => {
            out.push(13);
            put_joined(out, joined);
        }
        Reply::Scheduled(scheduled) => {
            out.push(10);
            put_scheduled(out, scheduled);
        }
        Reply::Step(step) => {
            out.push(16);
            put_option(out, step.as_ref(), put_step);
        }
        Reply::Signalled { state, buffered } => {
            out.push(17);
            put_state(out, *state);
            put_bool(out, *buffered);
        }
    }
}

/// Reads what [`encode_reply`] wrote.
pub fn decode_reply(reader: &mut Reader<'_>) -> Result<Reply, Malformed> {
    checked(reader, "reply", |r| {
        Ok(Some(match r.u8("reply")? {
            0 => Reply::Pushed(r.list("pushed jobs", read_pushed)?),
            1 => Reply::Fetched(r.list("fetched jobs", read_dispatched_job)?),
            2 => Reply::Renewed(r.list("renewed leases", |r| {
                read_result(r, |r| Ok(Renewed { lease_until: read_timestamp(r)? }))
            })?),
            3 => Reply::Settled(r.list("settled attempts", |r| read_result(r, read_settled))?),
            4 => Reply::Changed(r.list("states", read_state)?),
            5 => Reply::Configured(Box::new(read_queue_settings(r)?)),
            6 => Reply::Operation(Box::new(read_plain_bulk_view(r)?)),
            7 => Reply::Done,
            13 => Reply::Joined(read_joined(r)?),
            10 => Reply::Scheduled(read_scheduled(r)?),
            16 => Reply::Step(r.option("step", read_step)?),
            17 => Reply::Signalled { state: read_state(r)?, buffered: r.bool("buffered")? },
            21 => Reply::Operation(Box::new(read_bulk_view(r)?)),
            _ => return Ok(None),
        }))
    })
}

/// 1 and the value, or 0 and the refusal.
fn put_result<T>(out: &mut Vec<u8>, result: &Result<T, Reject>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    put_bool(out, result.is_ok());
    match result {
        Ok(value) => put(out, value),
        Err(reject) => put_reject(out, reject),
    }
}

fn read_result<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Result<T, Reject>, Malformed> {
    Ok(if reader.bool("result")? { Ok(read(reader)?) } else { Err(read_reject(reader)?) })
}

/// Id, state, and 0 for a new job, 1 for one that was there already, 2 for one that was and is no longer kept.
pub fn put_pushed(out: &mut Vec<u8>, job: &Pushed) {
    put_job_id(out, &job.id);
    put_state(out, job.state);
    out.push(u8::from(job.deduplicated) + u8::from(job.forgotten));
}

/// What [`put_pushed`] wrote.
pub fn read_pushed(reader: &mut Reader<'_>) -> Result<Pushed, Malformed> {
    let (id, state) = (read_job_id(reader)?, read_state(reader)?);
    let (deduplicated, forgotten) = checked(reader, "deduplicated", |r| {
        Ok(match r.u8("deduplicated")? {
            0 => Some((false, false)),
            1 => Some((true, false)),
            2 => Some((true, true)),
            _ => None,
        })
    })?;
    Ok(Pushed { id, state, deduplicated, forgotten })
}

fn put_settled(out: &mut Vec<u8>, settled: &Settled) {
    put_state(out, settled.state);
    put_list(out, &settled.pushed, put_pushed);
}

fn read_settled(reader: &mut Reader<'_>) -> Result<Settled, Malformed> {
    Ok(Settled { state: read_state(reader)?, pushed: reader.list("pushed jobs", read_pushed)? })
}

/// All fields, in the order of the struct, but the number of steps, the group and the children: they stand in the job and in its join.
pub fn put_dispatched_job(out: &mut Vec<u8>, job: &DispatchedJob) {
    put_u64(out, job.sequence);
    put_job_id(out, &job.id);
    put_queue_name(out, &job.queue);
    put_option(out, job.body.as_deref(), put_bytes);
    put_str(out, &job.content_type);
    put_u64(out, job.attempt.into());
    put_u64(out, job.attempts.into());
    put_u64(out, job.crashes.into());
    put_u64(out, job.lease_token);
    put_timestamp(out, job.lease_until);
    put_timestamp(out, job.timeout_at);
    put_priority(out, job.priority);
    put_timestamp(out, job.created_at);
    put_list(out, &job.tags, |out, tag| put_str(out, tag));
    put_list(out, &job.meta, |out, (name, value)| {
        put_str(out, name);
        put_str(out, value);
    });
}

/// What [`put_dispatched_job`] wrote.
pub fn read_dispatched_job(reader: &mut Reader<'_>) -> Result<DispatchedJob, Malformed> {
    Ok(DispatchedJob {
        sequence: reader.u64("sequence")?,
        id: read_job_id(reader)?,
        queue: read_queue_name(reader)?,
        body: reader.option("body", |r| r.bytes("body").map(Bytes::copy_from_slice))?,
        content_type: read_compact(reader, "content type")?,
        attempt: reader.u32("attempt")?,
        attempts: reader.u32("attempts")?,
        crashes: reader.u32("crashes")?,
        lease_token: reader.u64("lease token")?,
        lease_until: read_timestamp(reader)?,
        timeout_at: read_timestamp(reader)?,
        priority: read_priority(reader)?,
        created_at: read_timestamp(reader)?,
        tags: reader.list("tags", |r| read_compact(r, "tag"))?,
        meta: reader.list("meta", |r| Ok((read_compact(r, "meta name")?, read_compact(r, "meta value")?)))?,
        children: None,
        steps: 0,
        group: None,
    })
}
