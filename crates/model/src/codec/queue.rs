//! Settings of queues.

use super::{
    checked, put_backoff, put_bulkhead, put_limit, put_on_full, put_order, put_queue_name, put_retry_budget,
    read_backoff, read_bulkhead, read_limit, read_on_full, read_order, read_queue_name, read_retry_budget,
};
use crate::{Alert, Capacity, DeadLetter, Keep, QueuePatch, QueueSettings};
use kit::codec::{Malformed, Reader, put_option, put_u64};

/// Age, count.
pub fn put_keep(out: &mut Vec<u8>, keep: &Keep) {
    put_u64(out, keep.age_ms);
    put_u64(out, keep.count);
}

/// What [`put_keep`] wrote.
pub fn read_keep(reader: &mut Reader<'_>) -> Result<Keep, Malformed> {
    Ok(Keep { age_ms: reader.u64("kept age")?, count: reader.u64("kept count")? })
}

/// Jobs, bytes, rule.
pub fn put_capacity(out: &mut Vec<u8>, capacity: &Capacity) {
    put_u64(out, capacity.jobs);
    put_u64(out, capacity.bytes);
    put_on_full(out, capacity.on_full);
}

/// What [`put_capacity`] wrote.
pub fn read_capacity(reader: &mut Reader<'_>) -> Result<Capacity, Malformed> {
    Ok(Capacity {
        jobs: reader.u64("capacity in jobs")?,
        bytes: reader.u64("capacity in bytes")?,
        on_full: read_on_full(reader)?,
    })
}

/// Target, then the alert's count and rate.
pub fn put_dead_letter(out: &mut Vec<u8>, dead_letter: &DeadLetter) {
    let DeadLetter { queue, alert: Alert { count, per_minute } } = dead_letter;
    put_option(out, queue.as_ref(), put_queue_name);
    put_u64(out, *count);
    put_u64(out, *per_minute);
}

/// What [`put_dead_letter`] wrote.
pub fn read_dead_letter(reader: &mut Reader<'_>) -> Result<DeadLetter, Malformed> {
    let queue = reader.option("dead-letter queue", read_queue_name)?;
    let alert = Alert { count: reader.u64("alert count")?, per_minute: reader.u64("alert rate")? };
    Ok(DeadLetter { queue, alert })
}

/// A zero, then the patch that leads from the defaults to these settings.
///
/// The first form, which is still read, was all eight settings of its time in the order of the struct. It began with the attempts,
/// which are never zero.
pub fn put_queue_settings(out: &mut Vec<u8>, settings: &QueueSettings) {
    put_u64(out, 0);
    put_queue_patch(out, &settings.as_patch());
}

/// What [`put_queue_settings`] wrote.
pub fn read_queue_settings(reader: &mut Reader<'_>) -> Result<QueueSettings, Malformed> {
    let attempts = reader.u32("attempts")?;
    let mut settings = QueueSettings::DEFAULT;
    if attempts == 0 {
        settings.apply(&read_queue_patch(reader)?);
        return Ok(settings);
    }
    settings.attempts = attempts;
    settings.max_crashes = reader.u32("crashes")?;
    settings.timeout_ms = reader.u64("timeout")?;
    settings.lease_ms = reader.u64("lease")?;
    settings.backoff = read_backoff(reader)?;
    settings.capacity = read_capacity(reader)?;
    settings.keep_completed = read_keep(reader)?;
    settings.keep_dead = read_keep(reader)?;
    Ok(settings)
}

/// Bits of a patch that mean something. Bits 12 to 15 are kept for what limits a queue.
const PATCH_BITS: u64 = 1 << 16 | 0xfff;

/// One bit per change, lowest first in the order of the struct (`dead_letter` has bit 16), then the changes.
pub fn put_queue_patch(out: &mut Vec<u8>, patch: &QueuePatch) {
    let QueuePatch {
        attempts,
        max_crashes,
        timeout_ms,
        lease_ms,
        backoff,
        capacity,
        keep_completed,
        keep_dead,
        limit,
        order,
        bulkhead,
        retry_budget,
        dead_letter,
    } = patch;
    let present = [
        attempts.is_some(),
        max_crashes.is_some(),
        timeout_ms.is_some(),
        lease_ms.is_some(),
        backoff.is_some(),
        capacity.is_some(),
        keep_completed.is_some(),
        keep_dead.is_some(),
        limit.is_some(),
        order.is_some(),
        bulkhead.is_some(),
        retry_budget.is_some(),
        false,
        false,
        false,
        false,
        dead_letter.is_some(),
    ];
    put_u64(out, present.iter().rev().fold(0, |bits, present| bits << 1 | u64::from(*present)));
    for number in [attempts, max_crashes].into_iter().flatten() {
        put_u64(out, (*number).into());
    }
    for span in [timeout_ms, lease_ms].into_iter().flatten() {
        put_u64(out, *span);
    }
    if let Some(backoff) = backoff {
        put_backoff(out, backoff);
    }
    if let Some(capacity) = capacity {
        put_capacity(out, capacity);
    }
    for keep in [keep_completed, keep_dead].into_iter().flatten() {
        put_keep(out, keep);
    }
    if let Some(limit) = limit {
        put_limit(out, limit);
    }
    if let Some(order) = order {
        put_order(out, order);
    }
    if let Some(bulkhead) = bulkhead {
        put_bulkhead(out, bulkhead);
    }
    if let Some(budget) = retry_budget {
        put_retry_budget(out, budget);
    }
    if let Some(dead_letter) = dead_letter {
        put_dead_letter(out, dead_letter);
    }
}

/// What [`put_queue_patch`] wrote.
pub fn read_queue_patch(reader: &mut Reader<'_>) -> Result<QueuePatch, Malformed> {
    let present = checked(reader, "settings", |r| {
        let present = r.u64("settings")?;
        Ok((present & !PATCH_BITS == 0).then_some(present))
    })?;
    let has = |bit: u32| present & 1 << bit != 0;
    Ok(QueuePatch {
        attempts: has(0).then(|| reader.u32("attempts")).transpose()?,
        max_crashes: has(1).then(|| reader.u32("crashes")).transpose()?,
        timeout_ms: has(2).then(|| reader.u64("timeout")).transpose()?,
        lease_ms: has(3).then(|| reader.u64("lease")).transpose()?,
        backoff: has(4).then(|| read_backoff(reader)).transpose()?,
        capacity: has(5).then(|| read_capacity(reader)).transpose()?,
        keep_completed: has(6).then(|| read_keep(reader)).transpose()?,
        keep_dead: has(7).then(|| read_keep(reader)).transpose()?,
        limit: has(8).then(|| read_limit(reader)).transpose()?,
        order: has(9).then(|| read_order(reader)).transpose()?,
        bulkhead: has(10).then(|| read_bulkhead(reader)).transpose()?,
        retry_budget: has(11).then(|| read_retry_budget(reader)).transpose()?,
        dead_letter: has(16).then(|| read_dead_letter(reader).map(Box::new)).transpose()?,
    })
}
