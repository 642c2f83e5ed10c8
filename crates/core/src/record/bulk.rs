//! Bulk operations.

use super::{VERSION, fields, key, put_text, read_text};
use crate::bulk::{Bulk, Cursor};
use compact_str::CompactString;
use kit::{
    Timestamp,
    codec::{Malformed, Reader, end_fields, put_field, put_option, put_u64},
};
use model::{Actor, BulkStatus, codec::*};

/// Of bulk operations, which were laid out anew.
const BULK_VERSION: u8 = 3;

pub(crate) fn bulk_key(id: u64) -> Vec<u8> {
    key(b'o', &id.to_be_bytes())
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
