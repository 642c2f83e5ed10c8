//! How commands, replies and their parts are written to the log and to checkpoints.
//!
//! Numbers are unsigned LEB128, bytes and text carry their length, options a 0 or a 1: see [`kit::codec`].
//! An envelope, the unit of the log:
//!
//! ```text
//!  1 byte    length + text  0 | 1 + length + text   1 byte
//! +---------+--------------+-----------------------+-----+-----------------------+
//! | VERSION | actor        | idempotency key       | tag | fields, by tag        |
//! +---------+--------------+-----------------------+-----+-----------------------+
//!
//!  tag  command    fields
//!   0   push       jobs
//!   1   fetch      queues, max, lease_ms
//!   2   renew      leases, lease_ms
//!   3   settle     settlements
//!   4   cancel     job reference, reason
//!   5   progress   lease, value
//!   6   log        lease, lines
//!   7   promote    job references
//!   8   redrive    job references
//!   9   remove     job references
//!  10   pause      queue
//!  11   resume     queue
//!  12   configure  queue, patch
//!  13   bulk       queue, action, filter
//!  14   tick       nothing
//!  25   join       graph
//!  26   extend     join, jobs, seal
//!  27   cancel_join  join, reason
//!  15   set limit  pattern, limit or nothing
//!  16   set group  queue, group, weight or nothing, paused or nothing
//!  20   put schedule     id, schedule
//!  21   pause schedule   id
//!  22   resume schedule  id
//!  23   run schedule     id
//!  24   remove schedule  id
//!  30   step       lease, name, result
//!  31   signal     job reference, name, body
//!  32   restart    job references
//! ```
//!
//! A job to be added says with one bit each which fields differ from [`NewJob::new`]; the frequent ones have the low
//! bits, so the presence of a plain job costs one byte:
//!
//! ```text
//! +----------+-------+------+----------------------------------------------------+
//! | presence | queue | body | the present fields, lowest bit first               |
//! +----------+-------+------+----------------------------------------------------+
//!  bit 0 id   1 priority   2 delay_ms   3 attempts   4 unique   5 tags   6 meta
//!      7 content_type   8 run_at   9 max_crashes   10 backoff   11 timeout_ms   12 expires_ms
//!     13 group   14 ordering_key   15 limits   16 deadline
//! ```
//!
//! # One value, one encoding
//! The content of a call is compared by the hash of its encoding, so a value has exactly one: numbers are in their
//! shortest form, and a present field that equals its default is refused.
//!
//! # What a reader refuses
//! Bytes that are no value of the type: unknown tags, bad names, numbers too large for their field, text that is not
//! UTF-8. It does *not* refuse what the state machine refuses, such as too many jobs in one push: that command and its
//! refusal are part of the log, and a log that was acknowledged must be readable for ever.
//!
//! # Changing the format
//! 1. Tags and bits are never given a second meaning. A new command, outcome or field takes the next free number, and
//!    old bytes keep reading as before: no new [`VERSION`] is needed, since an old program refuses a number it does
//!    not know instead of misreading it.
//! 2. A change of meaning (another layout, another limit in [`crate::limits`]) raises [`VERSION`]; the reader keeps the
//!    branch for every older version.
//! 3. `fixtures/v1/` holds one encoding of every command, written once. They are never rewritten, only added to.
//!
//! [`NewJob::new`]: crate::NewJob::new

mod bulk;
mod command;
mod join;
mod limit;
mod new_job;
mod queue;
mod reject;
mod reply;
mod schedule;
mod step;
mod words;

pub use bulk::{
    put_bulk_action, put_bulk_status, put_bulk_view, put_filter, put_new_bulk, put_plain_filter,
    read_bulk_action, read_bulk_status, read_bulk_view, read_filter, read_new_bulk, read_plain_action,
    read_plain_filter,
};
pub use command::{
    encode_command, put_lease_ref, put_outcome, put_settlement, read_command, read_lease_ref, read_outcome,
    read_settlement,
};
pub use join::{
    put_graph, put_ignore, put_join_state, put_joined, put_member_state, put_named_job, put_new_join,
    put_on_failure, put_policy, put_rest, read_graph, read_ignore, read_join_state, read_joined,
    read_member_state, read_named_job, read_new_join, read_on_failure, read_policy, read_rest,
};
pub use limit::{
    put_breaker, put_bulkhead, put_limit, put_order, put_rate, put_retry_budget, read_breaker, read_bulkhead,
    read_limit, read_order, read_rate, read_retry_budget,
};
pub use new_job::{put_limit_use, put_new_job, put_unique, read_limit_use, read_new_job, read_unique};
pub use queue::{
    put_capacity, put_dead_letter, put_keep, put_queue_patch, put_queue_settings, read_capacity,
    read_dead_letter, read_keep, read_queue_patch, read_queue_settings,
};
pub use reject::{REJECT_WORDS, put_reject, read_reject};
pub use reply::{
    decode_reply, encode_reply, put_dispatched_job, put_pushed, read_dispatched_job, read_pushed,
};
pub use schedule::{
    put_firing, put_schedule_id, put_schedule_spec, put_scheduled, read_firing, read_schedule_id,
    read_schedule_spec, read_scheduled,
};
pub use step::{put_step, put_until, read_step, read_until};
pub use words::{
    put_actor, put_backoff, put_cause, put_error_info, put_job_id, put_job_ref, put_on_conflict, put_on_full,
    put_priority, put_queue_name, put_state, put_timestamp, read_actor, read_backoff, read_cause,
    read_compact, read_error_info, read_job_id, read_job_ref, read_on_conflict, read_on_full, read_priority,
    read_queue_name, read_state, read_timestamp,
};

use crate::Envelope;
use kit::codec::{Malformed, Reader, put_option, put_str};

/// The version of the encoding that this program writes. It reads all from 1 up to this one.
pub const VERSION: u8 = 1;

/// Appends the encoding of one envelope.
pub fn encode_envelope(envelope: &Envelope, out: &mut Vec<u8>) {
    out.push(VERSION);
    put_actor(out, &envelope.actor);
    put_option(out, envelope.idempotency_key.as_deref(), put_str);
    encode_command(&envelope.command, out);
}

/// Reads one envelope; the reader stands behind it afterwards.
pub fn decode_envelope(reader: &mut Reader<'_>) -> Result<Envelope, Malformed> {
    let start = reader.offset();
    if reader.u8("version")? != VERSION {
        return Err(Malformed { what: "version", offset: start });
    }
    Ok(Envelope {
        actor: read_actor(reader)?,
        idempotency_key: reader.option("idempotency key", |r| read_compact(r, "idempotency key"))?,
        command: read_command(reader)?,
    })
}

/// Appends a count and the items, as [`Reader::list`] reads them.
fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    kit::codec::put_u64(out, items.len() as u64);
    for item in items {
        put(out, item);
    }
}

/// Names the place of a value that was read but is not allowed.
fn checked<'a, T>(
    reader: &mut Reader<'a>,
    what: &'static str,
    read: impl FnOnce(&mut Reader<'a>) -> Result<Option<T>, Malformed>,
) -> Result<T, Malformed> {
    let offset = reader.offset();
    read(reader)?.ok_or(Malformed { what, offset })
}

#[cfg(test)]
mod tests;
