//! The small types, each a `put` and a `read`.

use super::{checked, put_list};
use crate::{Actor, Cause, ErrorInfo, JobId, JobRef, OnConflict, OnFull, Priority, QueueName, State};
use compact_str::CompactString;
use kit::codec::{Malformed, Reader, put_str, put_u64};
use kit::{Backoff, Timestamp};

/// Reads text into the short-string type.
pub fn read_compact(reader: &mut Reader<'_>, what: &'static str) -> Result<CompactString, Malformed> {
    reader.str(what).map(CompactString::from)
}

/// Milliseconds since 1970.
pub fn put_timestamp(out: &mut Vec<u8>, at: Timestamp) {
    put_u64(out, at.0);
}

/// What [`put_timestamp`] wrote.
pub fn read_timestamp(reader: &mut Reader<'_>) -> Result<Timestamp, Malformed> {
    reader.u64("time").map(Timestamp)
}

/// The name as text.
pub fn put_queue_name(out: &mut Vec<u8>, name: &QueueName) {
    put_str(out, name.as_str());
}

/// What [`put_queue_name`] wrote; a name that [`QueueName::new`] refuses is malformed.
pub fn read_queue_name(reader: &mut Reader<'_>) -> Result<QueueName, Malformed> {
    checked(reader, "queue name", |r| Ok(QueueName::new(r.str("queue name")?).ok()))
}

/// The name as text.
pub fn put_actor(out: &mut Vec<u8>, actor: &Actor) {
    put_str(out, actor.as_str());
}

/// What [`put_actor`] wrote; a name that [`Actor::new`] would change is malformed.
pub fn read_actor(reader: &mut Reader<'_>) -> Result<Actor, Malformed> {
    checked(reader, "actor", |r| {
        let name = r.str("actor")?;
        let actor = Actor::new(name);
        Ok((actor.as_str() == name).then_some(actor))
    })
}

/// 0 and 16 bytes, most significant first, or 1 and the text.
pub fn put_job_id(out: &mut Vec<u8>, id: &JobId) {
    match id {
        JobId::Uuid(bits) => {
            out.push(0);
            out.extend_from_slice(&bits.to_be_bytes());
        }
        JobId::Text(text) => {
            out.push(1);
            put_str(out, text);
        }
    }
}

/// What [`put_job_id`] wrote.
pub fn read_job_id(reader: &mut Reader<'_>) -> Result<JobId, Malformed> {
    match reader.bool("job id")? {
        false => read_uuid(reader),
        true => read_compact(reader, "job id").map(JobId::Text),
    }
}

fn read_uuid(reader: &mut Reader<'_>) -> Result<JobId, Malformed> {
    let mut bits = [0; 16];
    bits.copy_from_slice(reader.take(16, "job id")?);
    Ok(JobId::Uuid(u128::from_be_bytes(bits)))
}

/// Bit 0: the queue is named and comes first. Bit 1: the id is text.
pub fn put_job_ref(out: &mut Vec<u8>, job: &JobRef) {
    let text = matches!(job.id, JobId::Text(_));
    out.push(u8::from(job.queue.is_some()) | u8::from(text) << 1);
    if let Some(queue) = &job.queue {
        put_queue_name(out, queue);
    }
    match &job.id {
        JobId::Uuid(bits) => out.extend_from_slice(&bits.to_be_bytes()),
        JobId::Text(text) => put_str(out, text),
    }
}

/// What [`put_job_ref`] wrote.
pub fn read_job_ref(reader: &mut Reader<'_>) -> Result<JobRef, Malformed> {
    let form = checked(reader, "job reference", |r| {
        let form = r.u8("job reference")?;
        Ok((form < 4).then_some(form))
    })?;
    let queue = if form & 1 == 0 { None } else { Some(read_queue_name(reader)?) };
    let id = if form & 2 == 0 { read_uuid(reader)? } else { JobId::Text(read_compact(reader, "job id")?) };
    Ok(JobRef { queue, id })
}

/// One byte.
pub fn put_priority(out: &mut Vec<u8>, priority: Priority) {
    out.push(priority.0);
}

/// What [`put_priority`] wrote.
pub fn read_priority(reader: &mut Reader<'_>) -> Result<Priority, Malformed> {
    reader.u8("priority").map(Priority)
}

/// The state's number.
pub fn put_state(out: &mut Vec<u8>, state: State) {
    out.push(state as u8);
}

/// What [`put_state`] wrote.
pub fn read_state(reader: &mut Reader<'_>) -> Result<State, Malformed> {
    checked(reader, "state", |r| Ok(State::from_u8(r.u8("state")?)))
}

/// The cause's number.
pub fn put_cause(out: &mut Vec<u8>, cause: Cause) {
    out.push(cause as u8);
}

/// What [`put_cause`] wrote.
pub fn read_cause(reader: &mut Reader<'_>) -> Result<Cause, Malformed> {
    checked(reader, "cause", |r| Ok(Cause::ALL.get(usize::from(r.u8("cause")?)).copied()))
}

/// 0 return, 1 reject, 2 replace, 3 debounce (longest wait), 4 throttle, 5 keep last.
pub fn put_on_conflict(out: &mut Vec<u8>, rule: OnConflict) {
    match rule {
        OnConflict::Return => out.push(0),
        OnConflict::Reject => out.push(1),
        OnConflict::Replace => out.push(2),
        OnConflict::Debounce { max_wait_ms } => {
            out.push(3);
            put_u64(out, max_wait_ms);
        }
        OnConflict::Throttle => out.push(4),
        OnConflict::KeepLast => out.push(5),
    }
}

/// What [`put_on_conflict`] wrote.
pub fn read_on_conflict(reader: &mut Reader<'_>) -> Result<OnConflict, Malformed> {
    checked(reader, "conflict rule", |r| {
        Ok(Some(match r.u8("conflict rule")? {
            0 => OnConflict::Return,
            1 => OnConflict::Reject,
            2 => OnConflict::Replace,
            3 => OnConflict::Debounce { max_wait_ms: r.u64("longest wait")? },
            4 => OnConflict::Throttle,
            5 => OnConflict::KeepLast,
            _ => return Ok(None),
        }))
    })
}

/// The number of the rule.
pub fn put_on_full(out: &mut Vec<u8>, rule: OnFull) {
    out.push(rule as u8);
}

/// What [`put_on_full`] wrote.
pub fn read_on_full(reader: &mut Reader<'_>) -> Result<OnFull, Malformed> {
    const ALL: [OnFull; 3] = [OnFull::Reject, OnFull::DropOldest, OnFull::Block];
    checked(reader, "full rule", |r| Ok(ALL.get(usize::from(r.u8("full rule")?)).copied()))
}

/// 0 exponential (base, cap), 1 fixed (delay), 2 Sidekiq, 3 list (delays).
pub fn put_backoff(out: &mut Vec<u8>, backoff: &Backoff) {
    match backoff {
        Backoff::Exponential { base, cap } => {
            out.push(0);
            put_u64(out, *base);
            put_u64(out, *cap);
        }
        Backoff::Fixed { delay } => {
            out.push(1);
            put_u64(out, *delay);
        }
        Backoff::Sidekiq => out.push(2),
        Backoff::List { delays } => {
            out.push(3);
            put_list(out, delays, |out, delay| put_u64(out, *delay));
        }
    }
}

/// What [`put_backoff`] wrote.
pub fn read_backoff(reader: &mut Reader<'_>) -> Result<Backoff, Malformed> {
    checked(reader, "backoff", |r| {
        Ok(Some(match r.u8("backoff")? {
            0 => Backoff::Exponential { base: r.u64("backoff base")?, cap: r.u64("backoff cap")? },
            1 => Backoff::Fixed { delay: r.u64("backoff delay")? },
            2 => Backoff::Sidekiq,
            3 => Backoff::List { delays: r.list("backoff list", |r| r.u64("backoff delay"))? },
            _ => return Ok(None),
        }))
    })
}

/// Kind, message, stack.
pub fn put_error_info(out: &mut Vec<u8>, error: &ErrorInfo) {
    put_str(out, &error.kind);
    put_str(out, &error.message);
    put_str(out, &error.stack);
}

/// What [`put_error_info`] wrote.
pub fn read_error_info(reader: &mut Reader<'_>) -> Result<ErrorInfo, Malformed> {
    Ok(ErrorInfo {
        kind: read_compact(reader, "error kind")?,
        message: read_compact(reader, "error message")?,
        stack: read_compact(reader, "error stack")?,
    })
}
