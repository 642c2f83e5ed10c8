//! Durable steps and what suspended jobs wait for.

use super::{
    checked, put_error_info, put_job_id, put_new_job, put_queue_name, put_state, put_timestamp, read_compact,
    read_error_info, read_job_id, read_new_job, read_queue_name, read_state, read_timestamp,
};
use crate::{ChildEnd, Step, StepValue, Until};
use bytes::Bytes;
use kit::codec::{Malformed, Reader, put_bytes, put_option, put_str, put_u64};

/// Name, time, attempt, value.
pub fn put_step(out: &mut Vec<u8>, step: &Step) {
    put_str(out, &step.name);
    put_timestamp(out, step.at);
    put_u64(out, step.attempt.into());
    put_step_value(out, &step.value);
}

/// What [`put_step`] wrote.
pub fn read_step(reader: &mut Reader<'_>) -> Result<Step, Malformed> {
    Ok(Step {
        name: read_compact(reader, "step name")?,
        at: read_timestamp(reader)?,
        attempt: reader.u32("attempt")?,
        value: read_step_value(reader)?,
    })
}

/// 0 result (bytes), 1 slept (until), 2 signal (bytes), 3 timed out, 4 child (queue, id, end).
fn put_step_value(out: &mut Vec<u8>, value: &StepValue) {
    match value {
        StepValue::Result(value) => {
            out.push(0);
            put_bytes(out, value);
        }
        StepValue::Slept { until } => {
            out.push(1);
            put_timestamp(out, *until);
        }
        StepValue::Signal(body) => {
            out.push(2);
            put_bytes(out, body);
        }
        StepValue::TimedOut => out.push(3),
        StepValue::Child { queue, id, end } => {
            out.push(4);
            put_queue_name(out, queue);
            put_job_id(out, id);
            put_option(out, end.as_ref(), |out, end| {
                put_option(out, end.state.as_ref(), |out, state| put_state(out, *state));
                put_option(out, end.result.as_deref(), put_bytes);
                put_option(out, end.error.as_ref(), put_error_info);
            });
        }
    }
}

fn read_step_value(reader: &mut Reader<'_>) -> Result<StepValue, Malformed> {
    checked(reader, "step value", |r| {
        Ok(Some(match r.u8("step value")? {
            0 => StepValue::Result(read_opaque(r)?),
            1 => StepValue::Slept { until: read_timestamp(r)? },
            2 => StepValue::Signal(read_opaque(r)?),
            3 => StepValue::TimedOut,
            4 => StepValue::Child {
                queue: read_queue_name(r)?,
                id: read_job_id(r)?,
                end: r.option("end of a child", |r| {
                    Ok(ChildEnd {
                        state: r.option("state", read_state)?,
                        result: r.option("result", read_opaque)?,
                        error: r.option("error", read_error_info)?,
                    })
                })?,
            },
            _ => return Ok(None),
        }))
    })
}

fn read_opaque(reader: &mut Reader<'_>) -> Result<Bytes, Malformed> {
    reader.bytes("step bytes").map(Bytes::copy_from_slice)
}

/// 0 time (wait), 1 signal (name, wait), 2 child (job).
pub fn put_until(out: &mut Vec<u8>, until: &Until) {
    match until {
        Until::Time { after_ms } => {
            out.push(0);
            put_u64(out, *after_ms);
        }
        Until::Signal { name, timeout_ms } => {
            out.push(1);
            put_str(out, name);
            put_u64(out, *timeout_ms);
        }
        Until::Child { job } => {
            out.push(2);
            put_new_job(out, job);
        }
    }
}

/// What [`put_until`] wrote.
pub fn read_until(reader: &mut Reader<'_>) -> Result<Until, Malformed> {
    checked(reader, "suspension", |r| {
        Ok(Some(match r.u8("suspension")? {
            0 => Until::Time { after_ms: r.u64("wait")? },
            1 => Until::Signal { name: read_compact(r, "signal name")?, timeout_ms: r.u64("wait")? },
            2 => Until::Child { job: Box::new(read_new_job(r)?) },
            _ => return Ok(None),
        }))
    })
}
