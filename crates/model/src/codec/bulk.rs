//! Bulk operations.
//!
//! The first version knew four actions, one state, one tag and no rate. An order that says no more than that is *plain* and
//! keeps its encoding, so that every order has exactly one.

use super::{
    checked, put_actor, put_list, put_priority, put_queue_name, put_state, put_timestamp, read_actor,
    read_compact, read_priority, read_queue_name, read_state, read_timestamp,
};
use crate::{
    Actor, BodyTest, BulkAction, BulkControl, BulkStatus, BulkView, Chosen, Compare, Filter, NewBulk,
};
use compact_str::CompactString;
use kit::Timestamp;
use kit::codec::{Malformed, Reader, put_option, put_str, put_u64};

/// Whether the first version could say this.
pub(super) fn is_plain(order: &NewBulk) -> bool {
    let NewBulk { queue: _, action, filter, rate, reason } = order;
    let Filter { states, tags_all, error_kind, created_before, .. } = filter;
    let said = Filter {
        states: states.clone(),
        tags_all: tags_all.clone(),
        error_kind: error_kind.clone(),
        created_before: *created_before,
        ..Filter::default()
    };
    plain_number(action).is_some()
        && *rate == 0
        && reason.is_empty()
        && states.len() <= 1
        && tags_all.len() <= 1
        && *filter == said
}

fn plain_number(action: &BulkAction) -> Option<u8> {
    match action {
        BulkAction::Purge => Some(0),
        BulkAction::Redrive => Some(1),
        BulkAction::Remove => Some(2),
        BulkAction::Cancel => Some(3),
        BulkAction::Promote
        | BulkAction::Retag { .. }
        | BulkAction::Reprioritise { .. }
        | BulkAction::Move { .. } => None,
    }
}

/// Queue, action, four options of the filter.
pub(super) fn put_plain_bulk(out: &mut Vec<u8>, order: &NewBulk) {
    put_queue_name(out, &order.queue);
    put_bulk_action(out, &order.action);
    put_plain_filter(out, &order.filter);
}

/// What [`put_plain_bulk`] wrote.
pub(super) fn read_plain_bulk(reader: &mut Reader<'_>) -> Result<NewBulk, Malformed> {
    Ok(NewBulk::new(read_queue_name(reader)?, read_plain_action(reader)?, read_plain_filter(reader)?))
}

/// One of the four actions of the first version.
pub fn read_plain_action(reader: &mut Reader<'_>) -> Result<BulkAction, Malformed> {
    const ALL: [BulkAction; 4] =
        [BulkAction::Purge, BulkAction::Redrive, BulkAction::Remove, BulkAction::Cancel];
    checked(reader, "bulk action", |r| Ok(ALL.get(usize::from(r.u8("bulk action")?)).cloned()))
}

/// State, tag, error kind, time: four options.
pub fn put_plain_filter(out: &mut Vec<u8>, filter: &Filter) {
    put_option(out, filter.states.first(), |out, state| put_state(out, *state));
    put_option(out, filter.tags_all.first(), |out, tag| put_str(out, tag));
    put_option(out, filter.error_kind.as_deref(), put_str);
    put_option(out, filter.created_before.as_ref(), |out, at| put_timestamp(out, *at));
}

/// What [`put_plain_filter`] wrote.
pub fn read_plain_filter(reader: &mut Reader<'_>) -> Result<Filter, Malformed> {
    Ok(Filter {
        states: reader.option("state", read_state)?.into_iter().collect(),
        tags_all: reader.option("tag", |r| read_compact(r, "tag"))?.into_iter().collect(),
        error_kind: reader.option("error kind", |r| read_compact(r, "error kind"))?,
        created_before: reader.option("time", read_timestamp)?,
        ..Filter::default()
    })
}

/// Queue, action, filter, rate, reason.
pub fn put_new_bulk(out: &mut Vec<u8>, order: &NewBulk) {
    let NewBulk { queue, action, filter, rate, reason } = order;
    put_queue_name(out, queue);
    put_bulk_action(out, action);
    put_filter(out, filter);
    put_u64(out, (*rate).into());
    put_str(out, reason);
}

/// What [`put_new_bulk`] wrote.
pub fn read_new_bulk(reader: &mut Reader<'_>) -> Result<NewBulk, Malformed> {
    Ok(NewBulk {
        queue: read_queue_name(reader)?,
        action: read_bulk_action(reader)?,
        filter: read_filter(reader)?,
        rate: reader.u32("rate")?,
        reason: read_compact(reader, "reason")?,
    })
}

/// 0 purge, 1 redrive, 2 remove, 3 cancel, 4 promote, 5 retag (added, removed), 6 reprioritise (priority), 7 move (queue).
pub fn put_bulk_action(out: &mut Vec<u8>, action: &BulkAction) {
    match action {
        BulkAction::Purge => out.push(0),
        BulkAction::Redrive => out.push(1),
        BulkAction::Remove => out.push(2),
        BulkAction::Cancel => out.push(3),
        BulkAction::Promote => out.push(4),
        BulkAction::Retag { add, remove } => {
            out.push(5);
            put_texts(out, add);
            put_texts(out, remove);
        }
        BulkAction::Reprioritise { priority } => {
            out.push(6);
            put_priority(out, *priority);
        }
        BulkAction::Move { to } => {
            out.push(7);
            put_queue_name(out, to);
        }
    }
}

/// What [`put_bulk_action`] wrote.
pub fn read_bulk_action(reader: &mut Reader<'_>) -> Result<BulkAction, Malformed> {
    checked(reader, "bulk action", |r| {
        Ok(Some(match r.u8("bulk action")? {
            0 => BulkAction::Purge,
            1 => BulkAction::Redrive,
            2 => BulkAction::Remove,
            3 => BulkAction::Cancel,
            4 => BulkAction::Promote,
            5 => BulkAction::Retag { add: read_texts(r, "tags")?, remove: read_texts(r, "tags")? },
            6 => BulkAction::Reprioritise { priority: read_priority(r)? },
            7 => BulkAction::Move { to: read_queue_name(r)? },
            _ => return Ok(None),
        }))
    })
}

fn put_texts(out: &mut Vec<u8>, texts: &[CompactString]) {
    put_list(out, texts, |out, text| put_str(out, text));
}

fn read_texts(reader: &mut Reader<'_>, what: &'static str) -> Result<Vec<CompactString>, Malformed> {
    reader.list(what, |r| read_compact(r, what))
}

/// One bit per condition, lowest first in the order of the struct, then the conditions.
pub fn put_filter(out: &mut Vec<u8>, filter: &Filter) {
    let Filter {
        states,
        tags_any,
        tags_all,
        error_kind,
        error_contains,
        created_before,
        created_after,
        finished_before,
        finished_after,
        priority_min,
        priority_max,
        attempts_min,
        attempts_max,
        id_prefix,
        body,
    } = filter;
    let present = [
        !states.is_empty(),
        !tags_any.is_empty(),
        !tags_all.is_empty(),
        error_kind.is_some(),
        error_contains.is_some(),
        created_before.is_some(),
        created_after.is_some(),
        finished_before.is_some(),
        finished_after.is_some(),
        priority_min.is_some(),
        priority_max.is_some(),
        attempts_min.is_some(),
        attempts_max.is_some(),
        id_prefix.is_some(),
        !body.is_empty(),
    ];
    put_u64(out, present.iter().rev().fold(0, |bits, present| bits << 1 | u64::from(*present)));
    if !states.is_empty() {
        put_list(out, states, |out, state| put_state(out, *state));
    }
    for tags in [tags_any, tags_all].into_iter().filter(|tags| !tags.is_empty()) {
        put_texts(out, tags);
    }
    for text in [error_kind, error_contains].into_iter().flatten() {
        put_str(out, text);
    }
    for at in [created_before, created_after, finished_before, finished_after].into_iter().flatten() {
        put_timestamp(out, *at);
    }
    for priority in [priority_min, priority_max].into_iter().flatten() {
        put_priority(out, *priority);
    }
    for attempts in [attempts_min, attempts_max].into_iter().flatten() {
        put_u64(out, (*attempts).into());
    }
    if let Some(prefix) = id_prefix {
        put_str(out, prefix);
    }
    if !body.is_empty() {
        put_list(out, body, put_body_test);
    }
}

/// What [`put_filter`] wrote.
pub fn read_filter(reader: &mut Reader<'_>) -> Result<Filter, Malformed> {
    let present = checked(reader, "filter", |r| {
        let present = r.u64("filter")?;
        Ok((present < 1 << 15).then_some(present))
    })?;
    let has = |bit: u32| present & 1 << bit != 0;
    Ok(Filter {
        states: some_of(reader, has(0), "states", read_state)?,
        tags_any: some_of(reader, has(1), "tags", |r| read_compact(r, "tag"))?,
        tags_all: some_of(reader, has(2), "tags", |r| read_compact(r, "tag"))?,
        error_kind: has(3).then(|| read_compact(reader, "error kind")).transpose()?,
        error_contains: has(4).then(|| read_compact(reader, "error text")).transpose()?,
        created_before: has(5).then(|| read_timestamp(reader)).transpose()?,
        created_after: has(6).then(|| read_timestamp(reader)).transpose()?,
        finished_before: has(7).then(|| read_timestamp(reader)).transpose()?,
        finished_after: has(8).then(|| read_timestamp(reader)).transpose()?,
        priority_min: has(9).then(|| read_priority(reader)).transpose()?,
        priority_max: has(10).then(|| read_priority(reader)).transpose()?,
        attempts_min: has(11).then(|| reader.u32("attempts")).transpose()?,
        attempts_max: has(12).then(|| reader.u32("attempts")).transpose()?,
        id_prefix: has(13).then(|| read_compact(reader, "id prefix")).transpose()?,
        body: some_of(reader, has(14), "body conditions", read_body_test)?,
    })
}

/// A list that is there; an empty one is refused, because it need not be said.
fn some_of<'a, T>(
    reader: &mut Reader<'a>,
    present: bool,
    what: &'static str,
    read: impl FnMut(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    if !present {
        return Ok(Vec::new());
    }
    checked(reader, what, |r| {
        let items = r.list(what, read)?;
        Ok((!items.is_empty()).then_some(items))
    })
}

fn put_body_test(out: &mut Vec<u8>, test: &BodyTest) {
    put_str(out, &test.path);
    out.push(test.compare as u8);
    put_str(out, &test.value);
}

fn read_body_test(reader: &mut Reader<'_>) -> Result<BodyTest, Malformed> {
    Ok(BodyTest {
        path: read_compact(reader, "path")?,
        compare: checked(reader, "comparison", |r| {
            Ok(Compare::ALL.get(usize::from(r.u8("comparison")?)).map(|(compare, _)| *compare))
        })?,
        value: read_compact(reader, "value")?,
    })
}

/// The number of the control.
pub(super) fn put_bulk_control(out: &mut Vec<u8>, control: BulkControl) {
    out.push(control as u8);
}

/// What [`put_bulk_control`] wrote.
pub(super) fn read_bulk_control(reader: &mut Reader<'_>) -> Result<BulkControl, Malformed> {
    const ALL: [BulkControl; 3] = [BulkControl::Pause, BulkControl::Resume, BulkControl::Cancel];
    checked(reader, "control", |r| Ok(ALL.get(usize::from(r.u8("control")?)).copied()))
}

/// The number of the status.
pub fn put_bulk_status(out: &mut Vec<u8>, status: BulkStatus) {
    out.push(status as u8);
}

/// What [`put_bulk_status`] wrote.
pub fn read_bulk_status(reader: &mut Reader<'_>) -> Result<BulkStatus, Malformed> {
    checked(reader, "status", |r| Ok(BulkStatus::ALL.get(usize::from(r.u8("status")?)).copied()))
}

/// All fields, in the order of the struct.
pub(super) fn put_chosen(out: &mut Vec<u8>, chosen: &Chosen) {
    let Chosen { operation, stage, priority, order, jobs } = chosen;
    put_u64(out, *operation);
    put_u64(out, (*stage).into());
    put_priority(out, *priority);
    put_u64(out, *order);
    put_list(out, jobs, |out, job| put_u64(out, *job));
}

/// What [`put_chosen`] wrote.
pub(super) fn read_chosen(reader: &mut Reader<'_>) -> Result<Chosen, Malformed> {
    Ok(Chosen {
        operation: reader.u64("operation")?,
        stage: reader.u32("stage")?,
        priority: read_priority(reader)?,
        order: reader.u64("order")?,
        jobs: reader.list("chosen jobs", |r| r.u64("sequence"))?,
    })
}

/// All fields, in the order of the struct.
pub fn put_bulk_view(out: &mut Vec<u8>, bulk: &BulkView) {
    let BulkView { id, asked, by, status, total, examined, changed, skipped, started_at, finished_at } = bulk;
    put_u64(out, *id);
    put_new_bulk(out, asked);
    put_actor(out, by);
    put_bulk_status(out, *status);
    for number in [total, examined, changed, skipped] {
        put_u64(out, *number);
    }
    put_timestamp(out, *started_at);
    put_option(out, finished_at.as_ref(), |out, at| put_timestamp(out, *at));
}

/// What [`put_bulk_view`] wrote.
pub fn read_bulk_view(reader: &mut Reader<'_>) -> Result<BulkView, Malformed> {
    Ok(BulkView {
        id: reader.u64("bulk number")?,
        asked: read_new_bulk(reader)?,
        by: read_actor(reader)?,
        status: read_bulk_status(reader)?,
        total: reader.u64("total")?,
        examined: reader.u64("examined")?,
        changed: reader.u64("changed")?,
        skipped: reader.u64("skipped")?,
        started_at: read_timestamp(reader)?,
        finished_at: reader.option("end", read_timestamp)?,
    })
}

/// What the first version remembered: number, queue, action, filter, jobs examined and changed, whether it had ended.
pub(super) fn read_plain_bulk_view(reader: &mut Reader<'_>) -> Result<BulkView, Malformed> {
    let id = reader.u64("bulk number")?;
    let asked = read_plain_bulk(reader)?;
    let (examined, changed) = (reader.u64("examined")?, reader.u64("changed")?);
    let status = if reader.bool("finished")? { BulkStatus::Finished } else { BulkStatus::Running };
    Ok(BulkView {
        id,
        asked,
        by: Actor::default(),
        status,
        total: 0,
        examined,
        changed,
        skipped: 0,
        started_at: Timestamp::ZERO,
        finished_at: None,
    })
}
