//! Refusals, where one is remembered as part of a reply.

use super::{
    checked, put_queue_name, put_schedule_id, put_state, read_compact, read_queue_name, read_schedule_id,
    read_state,
};
use crate::Reject;
use kit::codec::{Malformed, Reader, put_str, put_u64};

/// The fixed words of refusals, by number. Append only: a number is never given to another word.
///
/// A refusal holds `&'static str`, which no reader can make from bytes; so a word is written as its number. A word that
/// is not listed is written as number 0 and reads as `value`: the code of the refusal stays, the text loses a word.
pub const REJECT_WORDS: &[&str] = &[
    "value",
    "jobs",
    "bytes",
    "queue",
    "queues",
    "id",
    "body",
    "content_type",
    "priority",
    "delay_ms",
    "run_at",
    "attempts",
    "max_crashes",
    "backoff",
    "timeout_ms",
    "expires_ms",
    "unique",
    "tags",
    "meta",
    "max",
    "lease_ms",
    "leases",
    "settlements",
    "outcome",
    "result",
    "error",
    "after_ms",
    "push",
    "reason",
    "progress",
    "lines",
    "patch",
    "capacity",
    "keep_completed",
    "keep_dead",
    "filter",
    "idempotency_key",
    "cursor",
    "state",
    "the size of a command in bytes",
    "jobs in one push",
    "jobs named in one call",
    "follow-up jobs in one call",
    "outcomes in one call",
    "leases in one renew",
    "log lines in one call",
    "queues in one fetch",
    "bulk operations under way",
    "idempotency keys within 24 hours",
    "only a job that is not final can be cancelled",
    "only a delayed or retrying job can be promoted",
    "only a final job can be redriven",
    "cancel a running job before removing it",
    "has a name of 1 to 128 bytes",
    "two nodes of the graph have this name",
    "no node of the graph has this name",
    "waits for itself",
    "is the continuation of two joins",
    "is a join; a continuation is a job",
    "exists already; a continuation is a new job",
    "waits for other jobs itself, so it cannot be waited for from here",
    "needs more members than it has",
    "needs at least one member to complete",
    "has no members and is not open",
    "is what the job waits for: it names no other continuation",
    "has no join to wait for",
    "has the id or the unique key of another job of the graph",
    "cannot stand by for its unique key: it is a continuation",
    "is in too many joins",
    "is nested too deep",
    "members of a join",
    "nodes of a graph",
    "members named by one graph",
    "joins",
    "sealed",
    "completed",
    "failed",
    "cancelled",
    "step",
    "signal",
    "steps",
    "bytes of steps",
    "bytes of steps in this pond",
    "signals",
    "bytes of signals",
    "only a job that is not final can be signalled",
    "only a final job can be restarted",
    "throttled unique keys",
    "it stands by until the job that holds its unique key ends",
    "finished",
    "cancelled",
    "rate",
    "to",
    "add",
    "remove",
    "body.path",
    "body.value",
    "limit",
    "limits",
    "group",
    "ordering_key",
    "key",
    "weight",
    "breaker",
    "order",
    "bulkhead",
    "retry_budget",
    "groups of one queue with a weight or a pause",
    "the body of a job can be changed while no worker has it",
    "dead_letter",
    "queues from one dead-letter queue to the next",
];

fn put_word(out: &mut Vec<u8>, word: &str) {
    let number = REJECT_WORDS.iter().position(|known| *known == word).unwrap_or(0);
    put_u64(out, number as u64);
}

fn read_word(reader: &mut Reader<'_>) -> Result<&'static str, Malformed> {
    checked(reader, "word", |r| {
        Ok(usize::try_from(r.u64("word")?).ok().and_then(|number| REJECT_WORDS.get(number)).copied())
    })
}

/// The number of the refusal, then its fields in the order of the variant.
pub fn put_reject(out: &mut Vec<u8>, reject: &Reject) {
    match reject {
        Reject::Invalid { field, reason } => {
            out.push(0);
            put_word(out, field);
            put_str(out, reason);
        }
        Reject::TooMany { what, limit } => {
            out.push(1);
            put_word(out, what);
            put_u64(out, *limit);
        }
        Reject::BodyTooLarge { bytes, limit } => {
            out.push(2);
            put_u64(out, *bytes);
            put_u64(out, *limit);
        }
        Reject::QueueFull { queue, limit, unit, waits } => {
            out.push(if *waits { 38 } else { 3 });
            put_queue_name(out, queue);
            put_u64(out, *limit);
            put_word(out, unit);
        }
        Reject::PondFull { limit } => {
            out.push(4);
            put_u64(out, *limit);
        }
        Reject::UnknownQueue { queue } => {
            out.push(5);
            put_queue_name(out, queue);
        }
        Reject::UnknownJob { id } => {
            out.push(6);
            put_str(out, id);
        }
        Reject::StaleLease { id, token } => {
            out.push(7);
            put_str(out, id);
            put_u64(out, *token);
        }
        Reject::Cancelled { id } => {
            out.push(8);
            put_str(out, id);
        }
        Reject::WrongState { id, state, wanted } => {
            out.push(9);
            put_str(out, id);
            put_state(out, *state);
            put_word(out, wanted);
        }
        Reject::UniqueConflict { key, holder } => {
            out.push(10);
            put_str(out, key);
            put_str(out, holder);
        }
        Reject::IdempotencyConflict { key } => {
            out.push(11);
            put_str(out, key);
        }
        Reject::UnknownJoin { id } => {
            out.push(20);
            put_str(out, id);
        }
        Reject::BadGraph { name, reason } => {
            out.push(21);
            put_str(out, name);
            put_word(out, reason);
        }
        Reject::JoinClosed { id, state } => {
            out.push(22);
            put_str(out, id);
            put_word(out, state);
        }
        Reject::BadCron { field, at, help } => {
            out.push(16);
            put_str(out, field);
            put_u64(out, (*at).into());
            put_str(out, help);
        }
        Reject::BadZone { zone, help } => {
            out.push(17);
            put_str(out, zone);
            put_str(out, help);
        }
        Reject::UnknownSchedule { id } => {
            out.push(18);
            put_schedule_id(out, id);
        }
        Reject::StepsFull { id, limit, unit } => {
            out.push(24);
            put_str(out, id);
            put_u64(out, *limit);
            put_word(out, unit);
        }
        Reject::SignalsFull { id, limit, unit } => {
            out.push(25);
            put_str(out, id);
            put_u64(out, *limit);
            put_word(out, unit);
        }
        Reject::ChildExists { id } => {
            out.push(26);
            put_str(out, id);
        }
        Reject::BodyChanged { id } => {
            out.push(28);
            put_str(out, id);
        }
        Reject::DeadLetterCycle { queue, target } => {
            out.push(29);
            put_queue_name(out, queue);
            put_queue_name(out, target);
        }
        Reject::UnknownOperation { operation } => {
            out.push(31);
            put_u64(out, *operation);
        }
        Reject::OperationEnded { operation, status } => {
            out.push(32);
            put_u64(out, *operation);
            put_word(out, status);
        }
        Reject::StaleChoice { operation } => {
            out.push(33);
            put_u64(out, *operation);
        }
    }
}

/// What [`put_reject`] wrote.
pub fn read_reject(reader: &mut Reader<'_>) -> Result<Reject, Malformed> {
    checked(reader, "refusal", |r| {
        let number = r.u8("refusal")?;
        Ok(Some(match number {
            0 => Reject::Invalid { field: read_word(r)?, reason: read_compact(r, "reason")? },
            1 => Reject::TooMany { what: read_word(r)?, limit: r.u64("limit")? },
            2 => Reject::BodyTooLarge { bytes: r.u64("bytes")?, limit: r.u64("limit")? },
            3 | 38 => {
                let (queue, limit, unit) = (read_queue_name(r)?, r.u64("limit")?, read_word(r)?);
                Reject::QueueFull { queue, limit, unit, waits: number == 38 }
            }
            4 => Reject::PondFull { limit: r.u64("limit")? },
            5 => Reject::UnknownQueue { queue: read_queue_name(r)? },
            6 => Reject::UnknownJob { id: read_compact(r, "job id")? },
            7 => Reject::StaleLease { id: read_compact(r, "job id")?, token: r.u64("lease token")? },
            8 => Reject::Cancelled { id: read_compact(r, "job id")? },
            9 => Reject::WrongState {
                id: read_compact(r, "job id")?,
                state: read_state(r)?,
                wanted: read_word(r)?,
            },
            10 => Reject::UniqueConflict {
                key: read_compact(r, "unique key")?,
                holder: read_compact(r, "job id")?,
            },
            11 => Reject::IdempotencyConflict { key: read_compact(r, "idempotency key")? },
            20 => Reject::UnknownJoin { id: read_compact(r, "join id")? },
            21 => Reject::BadGraph { name: read_compact(r, "name")?, reason: read_word(r)? },
            22 => Reject::JoinClosed { id: read_compact(r, "join id")?, state: read_word(r)? },
            16 => Reject::BadCron {
                field: read_compact(r, "cron field")?,
                at: r.u32("place")?,
                help: read_compact(r, "help")?,
            },
            17 => Reject::BadZone { zone: read_compact(r, "time zone")?, help: read_compact(r, "help")? },
            18 => Reject::UnknownSchedule { id: read_schedule_id(r)? },
            24 => Reject::StepsFull {
                id: read_compact(r, "job id")?,
                limit: r.u64("limit")?,
                unit: read_word(r)?,
            },
            25 => Reject::SignalsFull {
                id: read_compact(r, "job id")?,
                limit: r.u64("limit")?,
                unit: read_word(r)?,
            },
            26 => Reject::ChildExists { id: read_compact(r, "job id")? },
            28 => Reject::BodyChanged { id: read_compact(r, "job id")? },
            29 => Reject::DeadLetterCycle { queue: read_queue_name(r)?, target: read_queue_name(r)? },
            31 => Reject::UnknownOperation { operation: r.u64("operation")? },
            32 => Reject::OperationEnded { operation: r.u64("operation")?, status: read_word(r)? },
            33 => Reject::StaleChoice { operation: r.u64("operation")? },
            _ => return Ok(None),
        }))
    })
}
