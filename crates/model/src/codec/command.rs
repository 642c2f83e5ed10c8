//! Commands by tag.

use super::{
    bulk::{
        is_plain, put_bulk_control, put_chosen, put_plain_bulk, read_bulk_control, read_chosen,
        read_plain_bulk,
    },
    checked, put_error_info, put_graph, put_job_id, put_job_ref, put_limit, put_list, put_named_job,
    put_new_bulk, put_new_job, put_queue_name, put_queue_patch, put_schedule_id, put_schedule_spec,
    put_until, read_compact, read_error_info, read_graph, read_job_id, read_job_ref, read_limit,
    read_named_job, read_new_bulk, read_new_job, read_queue_name, read_queue_patch, read_schedule_id,
    read_schedule_spec, read_until,
};
use crate::{Command, Crash, LeaseRef, Outcome, Settlement};
use bytes::Bytes;
use kit::codec::{Malformed, Reader, put_bool, put_bytes, put_option, put_str, put_u64};

/// Appends a command without its envelope. Equal commands, and only those, have equal bytes.
pub fn encode_command(command: &Command, out: &mut Vec<u8>) {
    match command {
        Command::Push { jobs } => {
            out.push(0);
            put_list(out, jobs, put_new_job);
        }
        Command::Fetch { queues, max, lease_ms } => {
            out.push(1);
            put_list(out, queues, put_queue_name);
            put_u64(out, (*max).into());
            put_u64(out, *lease_ms);
        }
        Command::Renew { leases, lease_ms } => {
            out.push(2);
            put_list(out, leases, put_lease_ref);
            put_u64(out, *lease_ms);
        }
        Command::Settle { settlements } => {
            out.push(3);
            put_list(out, settlements, put_settlement);
        }
        Command::Cancel { job, reason } => {
            out.push(4);
            put_job_ref(out, job);
            put_str(out, reason);
        }
        Command::Progress { lease, value } => {
            out.push(5);
            put_lease_ref(out, lease);
            put_bytes(out, value);
        }
        Command::Log { lease, lines } => {
            out.push(6);
            put_lease_ref(out, lease);
            put_list(out, lines, |out, line| put_str(out, line));
        }
        Command::Promote { jobs } => {
            out.push(7);
            put_list(out, jobs, put_job_ref);
        }
        Command::Redrive { jobs } => {
            out.push(8);
            put_list(out, jobs, put_job_ref);
        }
        Command::Remove { jobs } => {
            out.push(9);
            put_list(out, jobs, put_job_ref);
        }
        Command::Pause { queue } => {
            out.push(10);
            put_queue_name(out, queue);
        }
        Command::Resume { queue } => {
            out.push(11);
            put_queue_name(out, queue);
        }
        Command::Configure { queue, patch } => {
            out.push(12);
            put_queue_name(out, queue);
            put_queue_patch(out, patch);
        }
        Command::Bulk(order) if is_plain(order) => {
            out.push(13);
            put_plain_bulk(out, order);
        }
        Command::Tick => out.push(14),
        Command::Join { graph } => {
            out.push(25);
            put_graph(out, graph);
        }
        Command::Extend { join, jobs, seal } => {
            out.push(26);
            put_job_id(out, join);
            put_list(out, jobs, put_named_job);
            put_bool(out, *seal);
        }
        Command::CancelJoin { join, reason } => {
            out.push(27);
            put_job_id(out, join);
            put_str(out, reason);
        }
        Command::SetLimit { pattern, limit } => {
            out.push(15);
            put_str(out, pattern);
            put_option(out, limit.as_ref(), put_limit);
        }
        Command::SetGroup { queue, group, weight, paused } => {
            out.push(16);
            put_queue_name(out, queue);
            put_str(out, group);
            put_option(out, weight.as_ref(), |out, weight| put_u64(out, (*weight).into()));
            put_option(out, paused.as_ref(), |out, paused| put_bool(out, *paused));
        }
        Command::PutSchedule { id, spec } => {
            out.push(20);
            put_schedule_id(out, id);
            put_schedule_spec(out, spec);
        }
        Command::PauseSchedule { id } => {
            out.push(21);
            put_schedule_id(out, id);
        }
        Command::ResumeSchedule { id } => {
            out.push(22);
            put_schedule_id(out, id);
        }
        Command::RunSchedule { id } => {
            out.push(23);
            put_schedule_id(out, id);
        }
        Command::RemoveSchedule { id } => {
            out.push(24);
            put_schedule_id(out, id);
        }
        Command::Step { lease, name, result } => {
            out.push(30);
            put_lease_ref(out, lease);
            put_str(out, name);
            put_bytes(out, result);
        }
        Command::Signal { job, name, body } => {
            out.push(31);
            put_job_ref(out, job);
            put_str(out, name);
            put_bytes(out, body);
        }
        Command::Restart { jobs } => {
            out.push(32);
            put_list(out, jobs, put_job_ref);
        }
        Command::PatchBody { job, expected_crc, body } => {
            out.push(35);
            put_job_ref(out, job);
            put_u64(out, (*expected_crc).into());
            put_bytes(out, body);
        }
        Command::Bulk(order) => {
            out.push(40);
            put_new_bulk(out, order);
        }
        Command::ControlBulk { operation, control } => {
            out.push(41);
            put_u64(out, *operation);
            put_bulk_control(out, *control);
        }
        Command::Choose(chosen) => {
            out.push(42);
            put_chosen(out, chosen);
        }
        Command::RaiseTokens { seconds } => {
            out.push(50);
            put_u64(out, *seconds);
        }
    }
}

/// What [`encode_command`] wrote.
pub fn read_command(reader: &mut Reader<'_>) -> Result<Command, Malformed> {
    checked(reader, "command", |r| {
        Ok(Some(match r.u8("command")? {
            0 => Command::Push { jobs: r.list("jobs", read_new_job)? },
            1 => Command::Fetch {
                queues: r.list("queues", read_queue_name)?,
                max: r.u32("fetch size")?,
                lease_ms: r.u64("lease")?,
            },
            2 => Command::Renew { leases: r.list("leases", read_lease_ref)?, lease_ms: r.u64("lease")? },
            3 => Command::Settle { settlements: r.list("settlements", read_settlement)? },
            4 => Command::Cancel { job: read_job_ref(r)?, reason: read_compact(r, "reason")? },
            5 => Command::Progress { lease: read_lease_ref(r)?, value: read_body(r, "progress")? },
            6 => Command::Log {
                lease: read_lease_ref(r)?,
                lines: r.list("log lines", |r| read_compact(r, "log line"))?,
            },
            7 => Command::Promote { jobs: r.list("jobs", read_job_ref)? },
            8 => Command::Redrive { jobs: r.list("jobs", read_job_ref)? },
            9 => Command::Remove { jobs: r.list("jobs", read_job_ref)? },
            10 => Command::Pause { queue: read_queue_name(r)? },
            11 => Command::Resume { queue: read_queue_name(r)? },
            12 => Command::Configure { queue: read_queue_name(r)?, patch: read_queue_patch(r)? },
            13 => Command::Bulk(Box::new(read_plain_bulk(r)?)),
            14 => Command::Tick,
            25 => Command::Join { graph: read_graph(r)? },
            26 => Command::Extend {
                join: read_job_id(r)?,
                jobs: r.list("jobs", read_named_job)?,
                seal: r.bool("seal")?,
            },
            27 => Command::CancelJoin { join: read_job_id(r)?, reason: read_compact(r, "reason")? },
            15 => Command::SetLimit {
                pattern: read_compact(r, "limit pattern")?,
                limit: r.option("limit", read_limit)?,
            },
            16 => Command::SetGroup {
                queue: read_queue_name(r)?,
                group: read_compact(r, "group")?,
                weight: r.option("weight", |r| r.u32("weight"))?,
                paused: r.option("paused", |r| r.bool("paused"))?,
            },
            20 => Command::PutSchedule { id: read_schedule_id(r)?, spec: Box::new(read_schedule_spec(r)?) },
            21 => Command::PauseSchedule { id: read_schedule_id(r)? },
            22 => Command::ResumeSchedule { id: read_schedule_id(r)? },
            23 => Command::RunSchedule { id: read_schedule_id(r)? },
            24 => Command::RemoveSchedule { id: read_schedule_id(r)? },
            30 => Command::Step {
                lease: read_lease_ref(r)?,
                name: read_compact(r, "step name")?,
                result: read_body(r, "step result")?,
            },
            31 => Command::Signal {
                job: read_job_ref(r)?,
                name: read_compact(r, "signal name")?,
                body: read_body(r, "signal body")?,
            },
            32 => Command::Restart { jobs: r.list("jobs", read_job_ref)? },
            35 => Command::PatchBody {
                job: read_job_ref(r)?,
                expected_crc: r.u32("checksum")?,
                body: read_body(r, "body")?,
            },
            40 => {
                let order = read_new_bulk(r)?;
                if is_plain(&order) {
                    return Ok(None);
                }
                Command::Bulk(Box::new(order))
            }
            41 => Command::ControlBulk { operation: r.u64("operation")?, control: read_bulk_control(r)? },
            42 => Command::Choose(Box::new(read_chosen(r)?)),
            50 => Command::RaiseTokens { seconds: r.u64("seconds")? },
            _ => return Ok(None),
        }))
    })
}

/// Job, token.
pub fn put_lease_ref(out: &mut Vec<u8>, lease: &LeaseRef) {
    put_job_ref(out, &lease.job);
    put_u64(out, lease.token);
}

/// What [`put_lease_ref`] wrote.
pub fn read_lease_ref(reader: &mut Reader<'_>) -> Result<LeaseRef, Malformed> {
    Ok(LeaseRef { job: read_job_ref(reader)?, token: reader.u64("lease token")? })
}

/// Lease, outcome, follow-up jobs.
pub fn put_settlement(out: &mut Vec<u8>, settlement: &Settlement) {
    put_lease_ref(out, &settlement.lease);
    put_outcome(out, &settlement.outcome);
    put_list(out, &settlement.push, put_new_job);
}

/// What [`put_settlement`] wrote.
pub fn read_settlement(reader: &mut Reader<'_>) -> Result<Settlement, Malformed> {
    Ok(Settlement {
        lease: read_lease_ref(reader)?,
        outcome: read_outcome(reader)?,
        push: reader.list("follow-up jobs", read_new_job)?,
    })
}

/// 0 done (result), 1 retry (error, wait), 2 fail (error), 3 snooze (wait), 4 cancel (reason), 5 rate limited (key, wait),
/// 6 wait (children), 7 suspend (step, until), 10 crash (signal, exit status, stderr).
pub fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Done { result } => {
            out.push(0);
            put_option(out, result.as_deref(), put_bytes);
        }
        Outcome::Retry { error, after_ms } => {
            out.push(1);
            put_error_info(out, error);
            put_option(out, after_ms.as_ref(), |out, span| put_u64(out, *span));
        }
        Outcome::Fail { error } => {
            out.push(2);
            put_error_info(out, error);
        }
        Outcome::Snooze { after_ms } => {
            out.push(3);
            put_u64(out, *after_ms);
        }
        Outcome::Cancel { reason } => {
            out.push(4);
            put_str(out, reason);
        }
        Outcome::Wait { children } => {
            out.push(6);
            put_graph(out, children);
        }
        Outcome::RateLimited { key, after_ms } => {
            out.push(5);
            put_option(out, key.as_deref(), put_str);
            put_u64(out, *after_ms);
        }
        Outcome::Suspend { step, until } => {
            out.push(7);
            put_str(out, step);
            put_until(out, until);
        }
        Outcome::Crash(Crash { signal, exit, stderr }) => {
            out.push(10);
            put_option(out, signal.as_deref(), put_str);
            put_option(out, exit.as_ref(), |out, status| put_u64(out, (*status).into()));
            put_str(out, stderr);
        }
    }
}

/// What [`put_outcome`] wrote.
pub fn read_outcome(reader: &mut Reader<'_>) -> Result<Outcome, Malformed> {
    checked(reader, "outcome", |r| {
        Ok(Some(match r.u8("outcome")? {
            0 => Outcome::Done { result: r.option("result", |r| read_body(r, "result"))? },
            1 => {
                Outcome::Retry { error: read_error_info(r)?, after_ms: r.option("wait", |r| r.u64("wait"))? }
            }
            2 => Outcome::Fail { error: read_error_info(r)? },
            3 => Outcome::Snooze { after_ms: r.u64("wait")? },
            4 => Outcome::Cancel { reason: read_compact(r, "reason")? },
            6 => Outcome::Wait { children: read_graph(r)? },
            5 => Outcome::RateLimited {
                key: r.option("limit key", |r| read_compact(r, "limit key"))?,
                after_ms: r.u64("wait")?,
            },
            10 => Outcome::Crash(Crash {
                signal: r.option("signal", |r| read_compact(r, "signal"))?,
                exit: r.option("exit status", |r| r.u32("exit status"))?,
                stderr: read_compact(r, "stderr")?,
            }),
            7 => Outcome::Suspend { step: read_compact(r, "step name")?, until: read_until(r)? },
            _ => return Ok(None),
        }))
    })
}

fn read_body(reader: &mut Reader<'_>, what: &'static str) -> Result<Bytes, Malformed> {
    reader.bytes(what).map(Bytes::copy_from_slice)
}
