//! The records of a checkpoint: a key, a value, and how to read them back.
//!
//! ```text
//! b | sequence (8 bytes, big endian)   the body, as it was pushed
//! g | gate                             what a gate remembers
//! h | queue (4 bytes, big endian), group   a group's time and settings
//! e | sequence, number (8 bytes each)  a durable step of a job
//! d | queue (4), fingerprint (8)        a class of errors
//! i | idempotency key                  a remembered call and its reply
//! j | sequence (8 bytes, big endian)   a job without its body
//! l | key or pattern                   a limit
//! m                                    the counters
//! n | number (8 bytes, big endian)     a join; with a place (4 bytes, big endian) behind it, a member
//! o | number (8 bytes, big endian)     a bulk operation
//! q | index (4 bytes, big endian)      a queue
//! s | = | schedule id                  what a schedule is
//! s | + | schedule id                  how far it has come
//! s | / | hash (16 bytes, big endian)  the rules of a time zone
//! u | queue (4 bytes, big endian), key a throttled unique key
//! ```
//!
//! Every value begins with the version of its layout; old versions are read for ever. A new field takes the next free tag in the
//! list of tagged fields at the end of its value (see [`kit::codec::put_field`]): absent means the default.

use crate::{
    bulk::{Bulk, Cursor},
    dead::{Class, Window},
    dead_letter::Alarm,
    flow::{Circuit, GateKey, Group, Lineup, Memory, NO_LINE},
    history::History,
    idempotency::Call,
    job::{Asked, Job, Log, Run, Stored},
    join::{Join, Member, Node, Place, Ties},
    queue::{Queue, Totals},
    schedule::{Course, rules_of},
    shard::Counters,
    steps::{Parent, Signal, Steps, Wait},
    throttle::Throttle,
};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{
    Timestamp,
    codec::{Malformed, Reader, end_fields, put_bool, put_bytes, put_field, put_option, put_str, put_u64},
};
use model::{
    Actor, BulkStatus, Limit, LogLine, NewJoin, QueueCounts, Route, ScheduleId, ScheduleSpec, Step, When,
    codec::*,
};

/// Version 2 ends jobs, their two boxes, queues and counters with a list of tagged fields. Version 1 had none.
const VERSION: u8 = 2;
/// Of bulk operations, which were laid out anew.
const BULK_VERSION: u8 = 3;
pub(crate) const META_KEY: &[u8] = b"m";

/// The key of a job's body in the checkpoint store.
pub fn body_key(sequence: u64) -> Vec<u8> {
    key(b'b', &sequence.to_be_bytes())
}

pub(crate) fn job_key(sequence: u64) -> Vec<u8> {
    key(b'j', &sequence.to_be_bytes())
}

pub(crate) fn queue_key(index: u32) -> Vec<u8> {
    key(b'q', &index.to_be_bytes())
}

pub(crate) fn call_key(name: &str) -> Vec<u8> {
    key(b'i', name.as_bytes())
}

pub(crate) fn limit_key(pattern: &str) -> Vec<u8> {
    key(b'l', pattern.as_bytes())
}

pub(crate) fn group_key(queue: u32, name: &str) -> Vec<u8> {
    let mut bytes = key(b'h', &queue.to_be_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

pub(crate) fn gate_key(gate: &GateKey) -> Vec<u8> {
    let mut bytes = key(b'g', &[]);
    match gate {
        GateKey::Limit(name) => {
            bytes.push(b'l');
            bytes.extend_from_slice(name.as_bytes());
        }
        GateKey::Order(queue, name) => {
            bytes.push(b'o');
            bytes.extend_from_slice(&queue.to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        GateKey::Queue(queue) => {
            bytes.push(b'q');
            bytes.extend_from_slice(&queue.to_be_bytes());
        }
        GateKey::Retries(queue) => {
            bytes.push(b'r');
            bytes.extend_from_slice(&queue.to_be_bytes());
        }
    }
    bytes
}

/// The gate of a key that [`gate_key`] wrote, without its first byte.
pub(crate) fn read_gate_key(bytes: &[u8]) -> Option<GateKey> {
    let (kind, rest) = bytes.split_first()?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(CompactString::from);
    let queue = || rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    match kind {
        b'l' => Some(GateKey::Limit(text(rest)?)),
        b'o' => Some(GateKey::Order(queue()?, text(&rest[4..])?)),
        b'q' => Some(GateKey::Queue(queue()?)),
        b'r' => Some(GateKey::Retries(queue()?)),
        _ => None,
    }
}

/// Queue and name of a key that [`group_key`] wrote, without its first byte.
pub(crate) fn read_group_key(bytes: &[u8]) -> Option<(u32, CompactString)> {
    let (queue, name) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*queue), std::str::from_utf8(name).ok()?.into()))
}

pub(crate) fn memory(memory: &Memory) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_u64(&mut out, memory.full_at);
    put_timestamp(&mut out, memory.closed_until);
    put_option(&mut out, memory.circuit.as_deref(), |out, circuit| circuit.put(out));
    end_fields(&mut out);
    out
}

pub(crate) fn read_memory(bytes: &[u8]) -> Result<Memory, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let memory = Memory {
        full_at: reader.u64("rate")?,
        closed_until: read_timestamp(reader)?,
        circuit: reader.option("circuit", Circuit::read)?.map(Box::new),
    };
    fields(reader, version, "field of a gate", |_, _| Ok(false))?;
    reader.finish("gate")?;
    Ok(memory)
}

/// A group, by the clock of its lineup: an idle one keeps its time only while that is still ahead.
pub(crate) fn group(group: &Group, clock: u64) -> Vec<u8> {
    let (tag, seat) = match group.waiting {
        0 if group.tag <= clock => (0, 0),
        0 => (group.tag, 0),
        _ => group.at(),
    };
    let mut out = vec![VERSION];
    put_u64(&mut out, group.weight.into());
    put_bool(&mut out, group.paused);
    put_u64(&mut out, tag);
    put_u64(&mut out, seat);
    end_fields(&mut out);
    out
}

pub(crate) fn read_group(name: CompactString, bytes: &[u8]) -> Result<Group, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let group = Group {
        weight: reader.u32("weight")?,
        paused: reader.bool("paused")?,
        tag: reader.u64("virtual time")?,
        seat: reader.u64("seat")?,
        ..Group::new(name)
    };
    fields(reader, version, "field of a group", |_, _| Ok(false))?;
    reader.finish("group")?;
    Ok(group)
}

pub(crate) fn limit(limit: &Limit) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_limit(&mut out, limit);
    end_fields(&mut out);
    out
}

pub(crate) fn read_limit_record(bytes: &[u8]) -> Result<Limit, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let limit = read_limit(reader)?;
    fields(reader, version, "field of a limit", |_, _| Ok(false))?;
    reader.finish("limit")?;
    Ok(limit)
}

pub(crate) fn bulk_key(id: u64) -> Vec<u8> {
    key(b'o', &id.to_be_bytes())
}

pub(crate) fn join_key(id: u64) -> Vec<u8> {
    key(b'n', &id.to_be_bytes())
}

pub(crate) fn member_key(id: u64, place: u32) -> Vec<u8> {
    let mut key = join_key(id);
    key.extend_from_slice(&place.to_be_bytes());
    key
}

pub(crate) fn schedule_key(id: &ScheduleId) -> Vec<u8> {
    [b"s=", id.as_str().as_bytes()].concat()
}

pub(crate) fn course_key(id: &ScheduleId) -> Vec<u8> {
    [b"s+", id.as_str().as_bytes()].concat()
}

pub(crate) fn zone_key(hash: u128) -> Vec<u8> {
    [&b"s/"[..], &hash.to_be_bytes()].concat()
}
pub(crate) fn class_key((queue, print): (u32, u64)) -> Vec<u8> {
    let mut key = key(b'd', &queue.to_be_bytes());
    key.extend_from_slice(&print.to_be_bytes());
    key
}

pub(crate) fn throttle_key(queue: u32, name: &str) -> Vec<u8> {
    let mut key = key(b'u', &queue.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

pub(crate) fn step_key(sequence: u64, number: u64) -> Vec<u8> {
    let mut key = key(b'e', &sequence.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

fn version(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    match reader.u8("record version")? {
        version @ 1..=VERSION => Ok(version),
        _ => Err(reader.malformed("record version")),
    }
}

/// The tagged fields at the end of a value, of which version 1 has none.
fn fields(
    reader: &mut Reader<'_>,
    version: u8,
    what: &'static str,
    read: impl FnMut(u8, &mut Reader<'_>) -> Result<bool, Malformed>,
) -> Result<(), Malformed> {
    if version == 1 { Ok(()) } else { reader.fields(what, read) }
}

fn put_opaque(out: &mut Vec<u8>, bytes: &Bytes) {
    put_bytes(out, bytes);
}

fn read_opaque(reader: &mut Reader<'_>) -> Result<Bytes, Malformed> {
    reader.bytes("bytes").map(Bytes::copy_from_slice)
}

fn put_text(out: &mut Vec<u8>, text: &CompactString) {
    put_str(out, text);
}

fn read_text(reader: &mut Reader<'_>) -> Result<CompactString, Malformed> {
    reader.str("text").map(CompactString::from)
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

fn read_u16(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    u16::try_from(reader.u64("count")?).map_err(|_| reader.malformed("count"))
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

fn put_places(out: &mut Vec<u8>, places: &[Place]) {
    put_u64(out, places.len() as u64);
    for (join, place) in places {
        put_u64(out, *join);
        put_u64(out, u64::from(*place));
    }
}

fn read_places(reader: &mut Reader<'_>) -> Result<Vec<Place>, Malformed> {
    reader.list("joins", |reader| Ok((reader.u64("join")?, reader.u32("place")?)))
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

pub(crate) fn queue(queue: &Queue) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_queue_name(&mut out, &queue.name);
    put_bool(&mut out, queue.paused);
    put_queue_settings(&mut out, &queue.settings);
    let Totals { pushed, started, completed, failed, dead } = queue.totals;
    for total in [pushed, started, completed, failed, dead] {
        put_u64(&mut out, total);
    }
    if let Some(lineup) = &queue.lineup {
        put_field(&mut out, FIELD_CLOCK, |out| put_u64(out, lineup.clock));
    }
    if let Some(alarm) = &queue.alarm {
        put_field(&mut out, FIELD_ALARM, |out| {
            put_window(out, &alarm.minute);
            put_option(out, alarm.raised_at.as_ref(), |out, at| put_timestamp(out, *at));
        });
    }
    end_fields(&mut out);
    out
}

/// Tag of a queue: it has a lineup, with this virtual time.
const FIELD_CLOCK: u8 = 1;
/// Tag of a queue: it has an alert; deaths of the minute, and since when it is raised.
const FIELD_ALARM: u8 = 25;

/// A queue without its jobs. A lineup has no plain line yet.
pub(crate) fn read_queue(bytes: &[u8]) -> Result<Queue, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let mut queue = Queue::new(read_queue_name(reader)?);
    queue.paused = reader.bool("paused")?;
    queue.settings = read_queue_settings(reader)?;
    queue.counts = QueueCounts::default();
    queue.totals = Totals {
        pushed: reader.u64("total")?,
        started: reader.u64("total")?,
        completed: reader.u64("total")?,
        failed: reader.u64("total")?,
        dead: reader.u64("total")?,
    };
    fields(reader, version, "queue field", |tag, field| {
        match tag {
            FIELD_CLOCK => {
                let clock = field.u64("virtual time")?;
                queue.lineup = Some(Box::new(Lineup { clock, ..Lineup::default() }));
            }
            FIELD_ALARM => {
                let minute = read_window(field)?;
                let raised_at = field.option("alert", read_timestamp)?;
                queue.alarm = Some(Box::new(Alarm { minute, raised_at }));
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    reader.finish("queue")?;
    Ok(queue)
}

pub(crate) fn call(call: &Call) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&call.content.to_le_bytes());
    put_timestamp(&mut out, call.at);
    put_bytes(&mut out, &call.reply);
    out
}

pub(crate) fn read_call(bytes: &[u8]) -> Result<Call, Malformed> {
    let reader = &mut Reader::new(bytes);
    version(reader)?;
    let content =
        reader.take(16, "content hash")?.iter().rev().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
    let call = Call { content, at: read_timestamp(reader)?, reply: reader.bytes("reply")?.to_vec() };
    reader.finish("call")?;
    // A reply that cannot be read is found now, not when somebody asks for it.
    decode_reply(&mut Reader::new(&call.reply))?;
    Ok(call)
}

pub(crate) fn class(class: &Class) -> Vec<u8> {
    let mut out = vec![VERSION];
    let Class { kind, message, count, first_at, last_at, sample, minute, hour } = class;
    put_text(&mut out, kind);
    put_text(&mut out, message);
    put_u64(&mut out, *count);
    put_timestamp(&mut out, *first_at);
    put_timestamp(&mut out, *last_at);
    put_job_id(&mut out, sample);
    for window in [minute, hour] {
        put_window(&mut out, window);
    }
    end_fields(&mut out);
    out
}

fn put_window(out: &mut Vec<u8>, window: &Window) {
    put_timestamp(out, window.from);
    put_u64(out, window.now);
    put_u64(out, window.before);
}

fn read_window(reader: &mut Reader<'_>) -> Result<Window, Malformed> {
    Ok(Window { from: read_timestamp(reader)?, now: reader.u64("count")?, before: reader.u64("count")? })
}

pub(crate) fn read_class(bytes: &[u8]) -> Result<Class, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let class = Class {
        kind: read_text(reader)?,
        message: read_text(reader)?,
        count: reader.u64("count")?,
        first_at: read_timestamp(reader)?,
        last_at: read_timestamp(reader)?,
        sample: read_job_id(reader)?,
        minute: read_window(reader)?,
        hour: read_window(reader)?,
    };
    fields(reader, version, "field of a class of errors", |_, _| Ok(false))?;
    reader.finish("class of errors")?;
    Ok(class)
}

pub(crate) fn throttle(throttle: &Throttle) -> Vec<u8> {
    let mut out = vec![VERSION];
    let Throttle { until, sequence, id, gone } = throttle;
    put_timestamp(&mut out, *until);
    put_u64(&mut out, *sequence);
    put_job_id(&mut out, id);
    put_option(&mut out, gone.as_ref(), |out, state| put_state(out, *state));
    end_fields(&mut out);
    out
}

pub(crate) fn read_throttle(bytes: &[u8]) -> Result<Throttle, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let throttle = Throttle {
        until: read_timestamp(reader)?,
        sequence: reader.u64("sequence")?,
        id: read_job_id(reader)?,
        gone: reader.option("last state", read_state)?,
    };
    fields(reader, version, "field of a throttle", |_, _| Ok(false))?;
    reader.finish("throttle")?;
    Ok(throttle)
}

pub(crate) fn bulk(bulk: &Bulk) -> Vec<u8> {
    let mut out = vec![BULK_VERSION];
    let Bulk {
        id,
        queue,
        action,
        filter,
        rate,
        reason,
        by,
        status,
        newest,
        newest_order,
        cursor: Cursor { stage, priority, order, until },
        total,
        examined,
        changed,
        skipped,
        started_at,
        finished_at,
        worked_at,
        worked_position,
        credit,
    } = bulk;
    put_u64(&mut out, *id);
    put_u64(&mut out, u64::from(*queue));
    put_bulk_action(&mut out, action);
    put_filter(&mut out, filter);
    put_u64(&mut out, u64::from(*rate));
    put_text(&mut out, reason);
    put_actor(&mut out, by);
    put_bulk_status(&mut out, *status);
    put_priority(&mut out, *priority);
    for number in [newest, newest_order, &(*stage as u64), order, until, total, examined, changed, skipped] {
        put_u64(&mut out, *number);
    }
    put_timestamp(&mut out, *started_at);
    put_option(&mut out, finished_at.as_ref(), |out, at| put_timestamp(out, *at));
    put_timestamp(&mut out, *worked_at);
    put_u64(&mut out, *credit);
    if *worked_position > 0 {
        put_field(&mut out, 30, |out| put_u64(out, *worked_position));
    }
    end_fields(&mut out);
    out
}

pub(crate) fn read_bulk(bytes: &[u8]) -> Result<Bulk, Malformed> {
    let reader = &mut Reader::new(bytes);
    let bulk = match reader.u8("record version")? {
        BULK_VERSION => read_newest_bulk(reader)?,
        version @ 1..=VERSION => read_first_bulk(reader, version)?,
        _ => return Err(reader.malformed("record version")),
    };
    reader.finish("bulk operation")?;
    Ok(bulk)
}

/// A join without its members, and without what follows from them.
pub(crate) fn join(join: &Join) -> Vec<u8> {
    let Join {
        id,
        created_at,
        name,
        policy,
        on_failure,
        rest,
        ignore,
        sealed,
        state,
        ended_at,
        then,
        not_before,
        member_of,
        due,
        told,
        swept,
        orphan,
        dropped,
        members,
        counts: _,
        result_bytes: _,
    } = join;
    let mut out = vec![VERSION];
    put_u64(&mut out, *id);
    put_timestamp(&mut out, *created_at);
    put_text(&mut out, name);
    put_policy(&mut out, *policy);
    put_on_failure(&mut out, *on_failure);
    put_rest(&mut out, *rest);
    put_ignore(&mut out, *ignore);
    put_bool(&mut out, *sealed);
    put_join_state(&mut out, *state);
    put_timestamp(&mut out, *ended_at);
    put_u64(&mut out, *then);
    put_timestamp(&mut out, *not_before);
    put_places(&mut out, member_of);
    put_timestamp(&mut out, *due);
    put_bool(&mut out, *told);
    put_u64(&mut out, u64::from(*swept));
    put_bool(&mut out, *orphan);
    put_bool(&mut out, *dropped);
    put_u64(&mut out, members.len() as u64);
    end_fields(&mut out);
    out
}

/// A join without its members, and how many it has.
pub(crate) fn read_join(bytes: &[u8]) -> Result<(Join, usize), Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let mut join = Join::new(reader.u64("id")?, &NewJoin::default(), read_timestamp(reader)?);
    join.name = read_text(reader)?;
    join.policy = read_policy(reader)?;
    join.on_failure = read_on_failure(reader)?;
    join.rest = read_rest(reader)?;
    join.ignore = read_ignore(reader)?;
    join.sealed = reader.bool("sealed")?;
    join.state = read_join_state(reader)?;
    join.ended_at = read_timestamp(reader)?;
    join.then = reader.u64("continuation")?;
    join.not_before = read_timestamp(reader)?;
    join.member_of = read_places(reader)?;
    join.due = read_timestamp(reader)?;
    join.told = reader.bool("told")?;
    join.swept = reader.u32("swept")?;
    join.orphan = reader.bool("orphan")?;
    join.dropped = reader.bool("dropped")?;
    let members = reader.u32("members")? as usize;
    fields(reader, version, "field of a join", |_, _| Ok(false))?;
    reader.finish("join")?;
    Ok((join, members))
}

pub(crate) fn member(member: &Member) -> Vec<u8> {
    let Member { name, node, state, result, result_bytes, error } = member;
    let mut out = vec![VERSION];
    put_text(&mut out, name);
    let (is_join, number) = match node {
        Node::Job(number) => (false, number),
        Node::Join(number) => (true, number),
    };
    put_bool(&mut out, is_join);
    put_u64(&mut out, *number);
    put_member_state(&mut out, *state);
    put_option(&mut out, result.as_ref(), put_opaque);
    put_u64(&mut out, u64::from(*result_bytes));
    put_option(&mut out, error.as_deref(), put_error_info);
    end_fields(&mut out);
    out
}

pub(crate) fn read_member(bytes: &[u8]) -> Result<Member, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let name = read_text(reader)?;
    let is_join = reader.bool("kind of member")?;
    let number = reader.u64("member")?;
    let member = Member {
        name,
        node: if is_join { Node::Join(number) } else { Node::Job(number) },
        state: read_member_state(reader)?,
        result: reader.option("result", read_opaque)?,
        result_bytes: reader.u32("size of a result")?,
        error: reader.option("error", read_error_info)?.map(Box::new),
    };
    fields(reader, version, "field of a member", |_, _| Ok(false))?;
    reader.finish("member")?;
    Ok(member)
}
fn read_newest_bulk(reader: &mut Reader<'_>) -> Result<Bulk, Malformed> {
    let id = reader.u64("id")?;
    let queue = reader.u32("queue")?;
    let action = read_bulk_action(reader)?;
    let filter = read_filter(reader)?;
    let rate = reader.u32("rate")?;
    let reason = read_text(reader)?;
    let by = read_actor(reader)?;
    let status = read_bulk_status(reader)?;
    let priority = read_priority(reader)?;
    let (newest, newest_order) = (reader.u64("newest")?, reader.u64("newest order")?);
    let cursor = Cursor {
        stage: reader.u32("stage")? as usize,
        priority,
        order: reader.u64("order")?,
        until: reader.u64("end of the stage")?,
    };
    let mut bulk = Bulk {
        id,
        queue,
        action,
        filter,
        rate,
        reason,
        by,
        status,
        newest,
        newest_order,
        cursor,
        total: reader.u64("total")?,
        examined: reader.u64("examined")?,
        changed: reader.u64("changed")?,
        skipped: reader.u64("skipped")?,
        started_at: read_timestamp(reader)?,
        finished_at: reader.option("end", read_timestamp)?,
        worked_at: read_timestamp(reader)?,
        worked_position: 0,
        credit: reader.u64("credit")?,
    };
    reader.fields("field of a bulk operation", |tag, field| {
        if tag == 30 {
            bulk.worked_position = field.u64("position")?;
        }
        Ok(tag == 30)
    })?;
    Ok(bulk)
}

/// Versions 1 and 2 knew four actions, two states of an operation, and walked each state to its present end.
fn read_first_bulk(reader: &mut Reader<'_>, version: u8) -> Result<Bulk, Malformed> {
    let id = reader.u64("id")?;
    let queue = reader.u32("queue")?;
    let action = read_plain_action(reader)?;
    let filter = read_plain_filter(reader)?;
    let (newest, newest_order) = (reader.u64("newest")?, reader.u64("newest order")?);
    let stage = reader.u32("stage")? as usize;
    let priority = read_priority(reader)?;
    let cursor = Cursor { stage, priority, order: reader.u64("order")?, until: u64::MAX };
    let (examined, changed) = (reader.u64("examined")?, reader.u64("changed")?);
    let status = if reader.bool("finished")? { BulkStatus::Finished } else { BulkStatus::Running };
    fields(reader, version, "field of a bulk operation", |_, _| Ok(false))?;
    Ok(Bulk {
        id,
        queue,
        action,
        filter,
        rate: 0,
        reason: CompactString::default(),
        by: Actor::default(),
        status,
        newest,
        newest_order,
        cursor,
        total: 0,
        examined,
        changed,
        skipped: 0,
        started_at: Timestamp::ZERO,
        finished_at: status.is_over().then_some(Timestamp::ZERO),
        worked_at: Timestamp::ZERO,
        worked_position: 0,
        credit: 0,
    })
}

pub(crate) fn meta(shard: u16, counters: &Counters) -> Vec<u8> {
    let mut out = vec![VERSION];
    let Counters { position, time, sequence, order, token, bulk } = counters;
    put_u64(&mut out, u64::from(shard));
    put_u64(&mut out, *position);
    put_timestamp(&mut out, *time);
    for number in [sequence, order, token, bulk] {
        put_u64(&mut out, *number);
    }
    end_fields(&mut out);
    out
}

pub(crate) fn read_meta(bytes: &[u8]) -> Result<(u16, Counters), Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let shard = read_u16(reader)?;
    let counters = Counters {
        position: reader.u64("position")?,
        time: read_timestamp(reader)?,
        sequence: reader.u64("sequence")?,
        order: reader.u64("order")?,
        token: reader.u64("token")?,
        bulk: reader.u64("bulk")?,
    };
    fields(reader, version, "counter", |_, _| Ok(false))?;
    reader.finish("counters")?;
    Ok((shard, counters))
}

/// What a schedule is, with the hash of its zone's rules in their place.
pub(crate) fn schedule(spec: &ScheduleSpec) -> Vec<u8> {
    let mut out = vec![VERSION];
    let hash = rules_of(spec).map(|(hash, _)| hash);
    let mut spec = spec.clone();
    if let When::Cron { rules, .. } = &mut spec.when {
        *rules = Bytes::new();
    }
    put_schedule_spec(&mut out, &spec);
    put_option(&mut out, hash.as_ref(), |out, hash| out.extend_from_slice(&hash.to_be_bytes()));
    end_fields(&mut out);
    out
}

/// A schedule without the rules of its zone, and their hash.
pub(crate) fn read_schedule(bytes: &[u8]) -> Result<(ScheduleSpec, Option<u128>), Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let spec = read_schedule_spec(reader)?;
    let hash = reader.option("rules", |reader| {
        let bytes = reader.take(16, "rules")?;
        Ok(bytes.iter().fold(0, |hash, byte| hash << 8 | u128::from(*byte)))
    })?;
    fields(reader, version, "field of a schedule", |_, _| Ok(false))?;
    reader.finish("schedule")?;
    Ok((spec, hash))
}

pub(crate) fn course(course: &Course) -> Vec<u8> {
    let mut out = vec![VERSION];
    let Course {
        created_at,
        updated_at,
        paused,
        cursor,
        owed_until,
        fired,
        skipped,
        missed,
        refused,
        queued,
        live,
        firings,
    } = course;
    for at in [created_at, updated_at, cursor, owed_until] {
        put_timestamp(&mut out, *at);
    }
    put_bool(&mut out, *paused);
    for count in [fired, skipped, missed, refused] {
        put_u64(&mut out, *count);
    }
    put_u64(&mut out, queued.len() as u64);
    queued.iter().for_each(|slot| put_timestamp(&mut out, *slot));
    put_u64(&mut out, live.len() as u64);
    live.iter().for_each(|sequence| put_u64(&mut out, *sequence));
    put_u64(&mut out, firings.len() as u64);
    firings.iter().for_each(|firing| put_firing(&mut out, firing));
    end_fields(&mut out);
    out
}

pub(crate) fn read_course(bytes: &[u8]) -> Result<Course, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let created_at = read_timestamp(reader)?;
    let updated_at = read_timestamp(reader)?;
    let course = Course {
        created_at,
        updated_at,
        cursor: read_timestamp(reader)?,
        owed_until: read_timestamp(reader)?,
        paused: reader.bool("paused")?,
        fired: reader.u64("fired")?,
        skipped: reader.u64("skipped")?,
        missed: reader.u64("missed")?,
        refused: reader.u64("refused")?,
        queued: reader.list("queued slots", read_timestamp)?.into(),
        live: reader.list("live jobs", |reader| reader.u64("live job"))?.into_iter().collect(),
        firings: reader.list("firings", read_firing)?.into(),
    };
    fields(reader, version, "field of a course", |_, _| Ok(false))?;
    reader.finish("course")?;
    Ok(course)
}

pub(crate) fn zone(rules: &Bytes) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_opaque(&mut out, rules);
    end_fields(&mut out);
    out
}

pub(crate) fn read_zone(bytes: &[u8]) -> Result<Bytes, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let rules = read_opaque(reader)?;
    fields(reader, version, "field of a zone", |_, _| Ok(false))?;
    reader.finish("zone")?;
    Ok(rules)
}
