//! Jobs, what was asked for, what happened to them, and their durable steps.

use super::{
    VERSION, fields, key, put_opaque, put_places, put_text, read_opaque, read_places, read_text, read_u16,
    version,
};
use crate::{
    flow::NO_LINE,
    history::History,
    job::{Asked, Job, Log, Run, Stored},
    join::Ties,
    steps::{Parent, Signal, Steps, Wait},
};
use kit::{
    Timestamp,
    codec::{Malformed, Reader, end_fields, put_field, put_option, put_u64},
};
use model::{LogLine, Route, Step, codec::*};

pub(crate) fn job_key(sequence: u64) -> Vec<u8> {
    key(b'j', &sequence.to_be_bytes())
}

pub(crate) fn step_key(sequence: u64, number: u64) -> Vec<u8> {
    let mut key = key(b'e', &sequence.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Room for the record of a job that ran once and asked for little, in bytes. A larger one grows.
const JOB_SIZE: usize = 256;

pub(crate) fn job(job: &Job) -> Vec<u8> {
    let mut out = Vec::with_capacity(JOB_SIZE);
    out.push(VERSION);
    put_u64(&mut out, job.sequence);
    put_timestamp(&mut out, job.created_at);
    put_u64(&mut out, job.position);
    put_u64(&mut out, job.order);
    put_timestamp(&mut out, job.due);
    put_u64(&mut out, u64::from(job.body_len));
    out.extend_from_slice(&job.body_crc.to_le_bytes());
    put_u64(&mut out, u64::from(job.queue));
    put_u64(&mut out, u64::from(job.attempt));
    put_u64(&mut out, u64::from(job.timeout_ms));
    put_u64(&mut out, u64::from(job.attempts));
    put_u64(&mut out, u64::from(job.max_crashes));
    put_u64(&mut out, u64::from(job.crashes));
    put_priority(&mut out, job.priority);
    put_state(&mut out, job.state);
    put_option(&mut out, job.asked.as_deref(), put_asked);
    put_option(&mut out, job.run.as_deref(), put_run);
    end_fields(&mut out);
    out
}

pub(crate) fn read_job(bytes: &[u8]) -> Result<Job, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let sequence = reader.u64("sequence")?;
    let created_at = read_timestamp(reader)?;
    let position = reader.u64("position")?;
    let job = Job {
        sequence,
        created_at,
        position,
        order: reader.u64("order")?,
        due: read_timestamp(reader)?,
        body: None,
        body_len: reader.u32("body length")?,
        body_crc: read_u32_le(reader)?,
        queue: reader.u32("queue")?,
        line: NO_LINE,
        attempt: reader.u32("attempt")?,
        timeout_ms: reader.u32("timeout")?,
        attempts: read_u16(reader)?,
        max_crashes: read_u16(reader)?,
        crashes: read_u16(reader)?,
        priority: read_priority(reader)?,
        state: read_state(reader)?,
        stored: Stored { dirty: false, record: true, body: true },
        asked: reader.option("asked", |reader| read_asked(reader, version))?.map(Box::new),
        run: reader.option("run", |reader| read_run(reader, (created_at, position), version))?.map(Box::new),
    };
    #[cfg(feature = "plant")]
    let job = Job {
        crashes: if crate::plant::is(crate::plant::Bug::ForgetCrashes) { 0 } else { job.crashes },
        ..job
    };
    fields(reader, version, "job field", |_, _| Ok(false))?;
    reader.finish("job")?;
    Ok(job)
}

fn read_u32_le(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let bytes = reader.take(4, "checksum")?;
    Ok(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

fn put_asked(out: &mut Vec<u8>, asked: &Asked) {
    let Asked {
        pusher,
        id,
        content_type,
        backoff,
        expires_at,
        unique_key,
        unique_until,
        tags,
        meta,
        ties,
        route,
        rank,
        unique_latest,
        stands_by,
        parent,
    } = asked;
    put_actor(out, pusher);
    put_option(out, id.as_ref(), put_job_id);
    put_text(out, content_type);
    put_option(out, backoff.as_ref(), put_backoff);
    put_option(out, expires_at.as_ref(), |out, at| put_timestamp(out, *at));
    put_option(out, unique_key.as_ref(), put_text);
    put_timestamp(out, *unique_until);
    put_u64(out, tags.len() as u64);
    tags.iter().for_each(|tag| put_text(out, tag));
    put_u64(out, meta.len() as u64);
    for (key, value) in meta {
        put_text(out, key);
        put_text(out, value);
    }
    if let Some(route) = route {
        put_field(out, FIELD_ROUTE, |out| put_route(out, route));
    }
    if *rank != 0 {
        put_field(out, FIELD_RANK, |out| put_u64(out, *rank));
    }
    if let Some(Ties { member_of, waits_for }) = ties.as_deref() {
        put_field(out, 15, |out| {
            put_places(out, member_of);
            put_u64(out, *waits_for);
        });
    }
    if let Some(parent) = parent {
        put_field(out, 20, |out| {
            put_u64(out, parent.sequence);
            put_text(out, &parent.step);
        });
    }
    if *unique_latest != Timestamp::ZERO {
        put_field(out, 25, |out| put_timestamp(out, *unique_latest));
    }
    if let Some(run_at) = stands_by {
        put_field(out, 26, |out| put_timestamp(out, *run_at));
    }
    end_fields(out);
}

/// Tags of what a job asked for.
const FIELD_ROUTE: u8 = 1;

const FIELD_RANK: u8 = 2;

fn put_route(out: &mut Vec<u8>, route: &Route) {
    let Route { group, ordering_key, limits, deadline } = route;
    put_option(out, group.as_ref(), put_text);
    put_option(out, ordering_key.as_ref(), put_text);
    put_u64(out, limits.len() as u64);
    limits.iter().for_each(|used| put_limit_use(out, used));
    put_option(out, deadline.as_ref(), |out, at| put_timestamp(out, *at));
}

fn read_route(reader: &mut Reader<'_>) -> Result<Route, Malformed> {
    Ok(Route {
        group: reader.option("group", read_text)?,
        ordering_key: reader.option("ordering key", read_text)?,
        limits: reader.list("limits", read_limit_use)?,
        deadline: reader.option("deadline", read_timestamp)?,
    })
}

fn read_asked(reader: &mut Reader<'_>, version: u8) -> Result<Asked, Malformed> {
    let mut asked = Asked {
        pusher: read_actor(reader)?,
        id: reader.option("id", read_job_id)?,
        content_type: read_text(reader)?,
        backoff: reader.option("backoff", read_backoff)?,
        expires_at: reader.option("expiry", read_timestamp)?,
        unique_key: reader.option("unique key", read_text)?,
        unique_until: read_timestamp(reader)?,
        unique_latest: Timestamp::ZERO,
        stands_by: None,
        tags: reader.list("tags", read_text)?,
        meta: reader.list("meta", |reader| Ok((read_text(reader)?, read_text(reader)?)))?,
        ties: None,
        route: None,
        rank: 0,
        parent: None,
    };
    fields(reader, version, "option of a job", |tag, field| {
        match tag {
            15 => {
                let ties = Ties { member_of: read_places(field)?, waits_for: field.u64("join")? };
                asked.ties = Some(Box::new(ties));
            }
            FIELD_ROUTE => asked.route = Some(read_route(field)?.into()),
            FIELD_RANK => asked.rank = field.u64("rank")?,
            20 => {
                let parent = Parent { sequence: field.u64("parent")?, step: read_text(field)? };
                asked.parent = Some(Box::new(parent));
            }
            25 => asked.unique_latest = read_timestamp(field)?,
            26 => asked.stands_by = Some(read_timestamp(field)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(asked)
}

fn put_run(out: &mut Vec<u8>, run: &Run) {
    let Run {
        worker,
        token,
        lease_until,
        started_at,
        timeout_at,
        finished_at,
        result,
        progress,
        error,
        log,
        history,
        holds_order,
        budgeted,
        steps,
    } = run;
    put_actor(out, worker);
    put_u64(out, *token);
    for at in [lease_until, started_at, timeout_at, finished_at] {
        put_timestamp(out, *at);
    }
    put_option(out, result.as_ref(), put_opaque);
    put_option(out, progress.as_ref(), put_opaque);
    put_option(out, error.as_deref(), put_error_info);
    put_option(out, log.as_deref(), |out, log| {
        put_u64(out, log.lines.len() as u64);
        for line in &log.lines {
            put_timestamp(out, line.at);
            put_u64(out, u64::from(line.attempt));
            put_text(out, &line.text);
        }
    });
    history.put(out);
    let flags = u8::from(*holds_order) | u8::from(*budgeted) << 1;
    if flags != 0 {
        put_field(out, FIELD_FLAGS, |out| out.push(flags));
    }
    if let Some(steps) = steps {
        put_field(out, 20, |out| put_steps(out, steps));
    }
    end_fields(out);
}

/// Tag of a run: bit 0 it holds its ordering key, bit 1 its retries are budgeted.
const FIELD_FLAGS: u8 = 1;

fn read_run(reader: &mut Reader<'_>, base: (Timestamp, u64), version: u8) -> Result<Run, Malformed> {
    let mut run = Run {
        worker: read_actor(reader)?,
        token: reader.u64("token")?,
        lease_until: read_timestamp(reader)?,
        started_at: read_timestamp(reader)?,
        timeout_at: read_timestamp(reader)?,
        finished_at: read_timestamp(reader)?,
        result: reader.option("result", read_opaque)?,
        progress: reader.option("progress", read_opaque)?,
        error: reader.option("error", read_error_info)?.map(Box::new),
        log: reader.option("log", read_log)?.map(Box::new),
        history: History::read(reader, base)?,
        holds_order: false,
        budgeted: false,
        steps: None,
    };
    fields(reader, version, "field of a run", |tag, field| {
        match tag {
            FIELD_FLAGS => {
                let flags = field.u8("flags")?;
                (run.holds_order, run.budgeted) = (flags & 1 != 0, flags & 2 != 0);
            }
            20 => run.steps = Some(Box::new(read_steps(field)?)),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(run)
}

/// The numbers of its steps (first, next), what is waited for (0 nothing, 1 a signal, 2 a child), the kept signals. The
/// steps themselves have records of their own.
fn put_steps(out: &mut Vec<u8>, steps: &Steps) {
    put_u64(out, steps.first);
    put_u64(out, steps.next);
    match &steps.wait {
        None => out.push(0),
        Some(Wait::Signal { step, name }) => {
            out.push(1);
            put_text(out, step);
            put_text(out, name);
        }
        Some(Wait::Child { step }) => {
            out.push(2);
            put_text(out, step);
        }
    }
    put_u64(out, steps.signals.len() as u64);
    for signal in &steps.signals {
        put_text(out, &signal.name);
        put_opaque(out, &signal.body);
    }
}

/// Without the steps themselves.
fn read_steps(reader: &mut Reader<'_>) -> Result<Steps, Malformed> {
    let (first, next) = (reader.u64("step number")?, reader.u64("step number")?);
    let wait = match reader.u8("suspension")? {
        0 => None,
        1 => Some(Wait::Signal { step: read_text(reader)?, name: read_text(reader)? }),
        2 => Some(Wait::Child { step: read_text(reader)? }),
        _ => return Err(reader.malformed("suspension")),
    };
    let signals = reader
        .list("signals", |reader| Ok(Signal { name: read_text(reader)?, body: read_opaque(reader)? }))?;
    let signal_bytes = signals.iter().map(Signal::bytes).sum();
    Ok(Steps { first, next, wait, signals: signals.into(), signal_bytes, ..Steps::default() })
}

pub(crate) fn step(step: &Step) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_step(&mut out, step);
    end_fields(&mut out);
    out
}

pub(crate) fn read_stored_step(bytes: &[u8]) -> Result<Step, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let step = read_step(reader)?;
    fields(reader, version, "field of a step", |_, _| Ok(false))?;
    reader.finish("step")?;
    Ok(step)
}

fn read_log(reader: &mut Reader<'_>) -> Result<Log, Malformed> {
    let lines = reader.list("log lines", |reader| {
        Ok(LogLine { at: read_timestamp(reader)?, attempt: reader.u32("attempt")?, text: read_text(reader)? })
    })?;
    let bytes = lines.iter().map(|line| line.text.len()).sum();
    Ok(Log { lines: lines.into(), bytes })
}
