//! Schedules.

use super::{
    checked, put_new_job, put_timestamp, read_compact, read_job_id, read_new_job, read_timestamp, words::*,
};
use crate::{
    CatchUp, Firing, FiringResult, Overlap, ScheduleChange, ScheduleId, ScheduleSpec, ScheduleState,
    Scheduled, When,
};
use bytes::Bytes;
use kit::codec::{Malformed, Reader, put_bytes, put_option, put_str, put_u64};

const START: u64 = 1 << 0;
const END: u64 = 1 << 1;
const LIMIT: u64 = 1 << 2;
const JITTER: u64 = 1 << 3;
const OVERLAP: u64 = 1 << 4;
const CATCH_UP: u64 = 1 << 5;
/// The first bit without a meaning.
const UNKNOWN: u64 = 1 << 6;

fn presence(spec: &ScheduleSpec) -> u64 {
    [
        (START, spec.start.is_some()),
        (END, spec.end.is_some()),
        (LIMIT, spec.limit != 0),
        (JITTER, spec.jitter_ms != 0),
        (OVERLAP, spec.overlap != Overlap::default()),
        (CATCH_UP, spec.catch_up != CatchUp::default()),
    ]
    .into_iter()
    .fold(0, |bits, (bit, present)| if present { bits | bit } else { bits })
}

/// The name as text.
pub fn put_schedule_id(out: &mut Vec<u8>, id: &ScheduleId) {
    put_str(out, id.as_str());
}

/// What [`put_schedule_id`] wrote; a name that [`ScheduleId::new`] refuses is malformed.
pub fn read_schedule_id(reader: &mut Reader<'_>) -> Result<ScheduleId, Malformed> {
    checked(reader, "schedule id", |r| Ok(ScheduleId::new(r.str("schedule id")?).ok()))
}

/// Presence bits, times, job, then the fields that are present: 0 start, 1 end, 2 limit, 3 jitter, 4 overlap, 5 catch-up.
/// Times: 0 cron (expression, zone, rules), 1 every (interval).
pub fn put_schedule_spec(out: &mut Vec<u8>, spec: &ScheduleSpec) {
    let present = presence(spec);
    put_u64(out, present);
    match &spec.when {
        When::Cron { expression, zone, rules } => {
            out.push(0);
            put_str(out, expression);
            put_str(out, zone);
            put_bytes(out, rules);
        }
        When::Every { interval_ms } => {
            out.push(1);
            put_u64(out, *interval_ms);
        }
    }
    put_new_job(out, &spec.job);
    if let Some(start) = spec.start {
        put_timestamp(out, start);
    }
    if let Some(end) = spec.end {
        put_timestamp(out, end);
    }
    if present & LIMIT != 0 {
        put_u64(out, spec.limit);
    }
    if present & JITTER != 0 {
        put_u64(out, spec.jitter_ms);
    }
    if present & OVERLAP != 0 {
        out.push(spec.overlap as u8);
    }
    if present & CATCH_UP != 0 {
        put_catch_up(out, spec.catch_up);
    }
}

/// What [`put_schedule_spec`] wrote.
pub fn read_schedule_spec(reader: &mut Reader<'_>) -> Result<ScheduleSpec, Malformed> {
    checked(reader, "schedule", |r| {
        let present = r.u64("schedule")?;
        if present >= UNKNOWN {
            return Ok(None);
        }
        let when = match r.u8("times of a schedule")? {
            0 => When::Cron {
                expression: read_compact(r, "cron expression")?,
                zone: read_compact(r, "time zone")?,
                rules: Bytes::copy_from_slice(r.bytes("rules of a time zone")?),
            },
            1 => When::Every { interval_ms: r.u64("interval")? },
            _ => return Ok(None),
        };
        let mut spec = ScheduleSpec::new(when, read_new_job(r)?);
        if present & START != 0 {
            spec.start = Some(read_timestamp(r)?);
        }
        if present & END != 0 {
            spec.end = Some(read_timestamp(r)?);
        }
        if present & LIMIT != 0 {
            spec.limit = r.u64("limit")?;
        }
        if present & JITTER != 0 {
            spec.jitter_ms = r.u64("jitter")?;
        }
        if present & OVERLAP != 0 {
            spec.overlap = one_of(r, "overlap", &Overlap::ALL)?;
        }
        if present & CATCH_UP != 0 {
            spec.catch_up = read_catch_up(r)?;
        }
        Ok((presence(&spec) == present).then_some(spec))
    })
}

/// 0 skip, 1 one, 2 all (how many).
fn put_catch_up(out: &mut Vec<u8>, rule: CatchUp) {
    match rule {
        CatchUp::Skip => out.push(0),
        CatchUp::One => out.push(1),
        CatchUp::All { most } => {
            out.push(2);
            put_u64(out, most.into());
        }
    }
}

fn read_catch_up(reader: &mut Reader<'_>) -> Result<CatchUp, Malformed> {
    checked(reader, "catch-up", |r| {
        Ok(Some(match r.u8("catch-up")? {
            0 => CatchUp::Skip,
            1 => CatchUp::One,
            2 => CatchUp::All { most: r.u32("catch-up")? },
            _ => return Ok(None),
        }))
    })
}

fn one_of<T: Copy>(reader: &mut Reader<'_>, what: &'static str, all: &[T]) -> Result<T, Malformed> {
    checked(reader, what, |r| Ok(all.get(usize::from(r.u8(what)?)).copied()))
}

/// Id, change, state, next slot.
pub fn put_scheduled(out: &mut Vec<u8>, scheduled: &Scheduled) {
    put_schedule_id(out, &scheduled.id);
    out.push(scheduled.change as u8);
    out.push(scheduled.state as u8);
    put_option(out, scheduled.next_slot.as_ref(), |out, slot| put_timestamp(out, *slot));
}

/// What [`put_scheduled`] wrote.
pub fn read_scheduled(reader: &mut Reader<'_>) -> Result<Scheduled, Malformed> {
    Ok(Scheduled {
        id: read_schedule_id(reader)?,
        change: one_of(reader, "change of a schedule", &ScheduleChange::ALL)?,
        state: one_of(reader, "state of a schedule", &ScheduleState::ALL)?,
        next_slot: reader.option("next slot", read_timestamp)?,
    })
}

/// Slot, when, then 0 fired (job), 1 ran (job), 2 skipped, 3 missed (until), 4 refused (code).
pub fn put_firing(out: &mut Vec<u8>, firing: &Firing) {
    put_timestamp(out, firing.slot);
    put_timestamp(out, firing.at);
    match &firing.result {
        FiringResult::Fired { job } => {
            out.push(0);
            put_job_id(out, job);
        }
        FiringResult::Ran { job } => {
            out.push(1);
            put_job_id(out, job);
        }
        FiringResult::Skipped => out.push(2),
        FiringResult::Missed { until } => {
            out.push(3);
            put_timestamp(out, *until);
        }
        FiringResult::Refused { code } => {
            out.push(4);
            put_str(out, code);
        }
    }
}

/// What [`put_firing`] wrote.
pub fn read_firing(reader: &mut Reader<'_>) -> Result<Firing, Malformed> {
    let (slot, at) = (read_timestamp(reader)?, read_timestamp(reader)?);
    let result = checked(reader, "firing", |r| {
        Ok(Some(match r.u8("firing")? {
            0 => FiringResult::Fired { job: read_job_id(r)? },
            1 => FiringResult::Ran { job: read_job_id(r)? },
            2 => FiringResult::Skipped,
            3 => FiringResult::Missed { until: read_timestamp(r)? },
            4 => FiringResult::Refused { code: read_compact(r, "code")? },
            _ => return Ok(None),
        }))
    })?;
    Ok(Firing { slot, at, result })
}
