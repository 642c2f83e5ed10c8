//! Queues, their classes of errors and throttled keys.

use super::{VERSION, fields, key, put_text, read_text, version};
use crate::{
    dead::{Class, Window},
    dead_letter::Alarm,
    flow::Lineup,
    queue::{Queue, Totals},
    throttle::Throttle,
};
use kit::codec::{Malformed, Reader, end_fields, put_bool, put_field, put_option, put_u64};
use model::{QueueCounts, codec::*};

pub(crate) fn queue_key(index: u32) -> Vec<u8> {
    key(b'q', &index.to_be_bytes())
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
