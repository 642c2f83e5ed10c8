//! Schedules, how far they have come, and rules of time zones.

use super::{VERSION, fields, put_opaque, read_opaque, version};
use crate::schedule::{Course, rules_of};
use bytes::Bytes;
use kit::codec::{Malformed, Reader, end_fields, put_bool, put_option, put_u64};
use model::{ScheduleId, ScheduleSpec, When, codec::*};

pub(crate) fn schedule_key(id: &ScheduleId) -> Vec<u8> {
    [b"s=", id.as_str().as_bytes()].concat()
}

pub(crate) fn course_key(id: &ScheduleId) -> Vec<u8> {
    [b"s+", id.as_str().as_bytes()].concat()
}

pub(crate) fn zone_key(hash: u128) -> Vec<u8> {
    [&b"s/"[..], &hash.to_be_bytes()].concat()
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
