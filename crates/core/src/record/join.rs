//! Joins and their members.

use super::{VERSION, fields, key, put_opaque, put_text, read_opaque, read_text, version};
use crate::join::{Join, Member, Node, Place};
use kit::codec::{Malformed, Reader, end_fields, put_bool, put_option, put_u64};
use model::{NewJoin, codec::*};

pub(crate) fn join_key(id: u64) -> Vec<u8> {
    key(b'n', &id.to_be_bytes())
}

pub(crate) fn member_key(id: u64, place: u32) -> Vec<u8> {
    let mut key = join_key(id);
    key.extend_from_slice(&place.to_be_bytes());
    key
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

pub(super) fn put_places(out: &mut Vec<u8>, places: &[Place]) {
    put_u64(out, places.len() as u64);
    for (join, place) in places {
        put_u64(out, *join);
        put_u64(out, u64::from(*place));
    }
}

pub(super) fn read_places(reader: &mut Reader<'_>) -> Result<Vec<Place>, Malformed> {
    reader.list("joins", |reader| Ok((reader.u64("join")?, reader.u32("place")?)))
}
