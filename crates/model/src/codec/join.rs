//! Joins: graphs as they are pushed, and the small types of their options.

use super::{checked, put_list, put_new_job, put_pushed, read_compact, read_new_job, read_pushed};
use crate::{Graph, Ignore, JoinState, Joined, MemberState, NamedJob, NewJoin, OnFailure, Policy, Rest};
use kit::codec::{Malformed, Reader, put_bool, put_option, put_str, put_u64};

/// 0 all, 1 all settled, 2 any, 3 race, 4 and how many of n.
pub fn put_policy(out: &mut Vec<u8>, policy: Policy) {
    match policy {
        Policy::All => out.push(0),
        Policy::AllSettled => out.push(1),
        Policy::Any => out.push(2),
        Policy::Race => out.push(3),
        Policy::KOfN(needed) => {
            out.push(4);
            put_u64(out, needed.into());
        }
    }
}

/// What [`put_policy`] wrote.
pub fn read_policy(reader: &mut Reader<'_>) -> Result<Policy, Malformed> {
    checked(reader, "policy", |r| {
        Ok(Some(match r.u8("policy")? {
            0 => Policy::All,
            1 => Policy::AllSettled,
            2 => Policy::Any,
            3 => Policy::Race,
            4 => Policy::KOfN(r.u32("needed")?),
            _ => return Ok(None),
        }))
    })
}

/// Its number.
pub fn put_on_failure(out: &mut Vec<u8>, on_failure: OnFailure) {
    out.push(on_failure as u8);
}

/// What [`put_on_failure`] wrote.
pub fn read_on_failure(reader: &mut Reader<'_>) -> Result<OnFailure, Malformed> {
    numbered(reader, "what happens on failure", &OnFailure::ALL)
}

/// Its number.
pub fn put_rest(out: &mut Vec<u8>, rest: Rest) {
    out.push(rest as u8);
}

/// What [`put_rest`] wrote.
pub fn read_rest(reader: &mut Reader<'_>) -> Result<Rest, Malformed> {
    numbered(reader, "what happens to the rest", &Rest::ALL)
}

/// One bit for each state.
pub fn put_ignore(out: &mut Vec<u8>, ignore: Ignore) {
    out.push(ignore.bits());
}

/// What [`put_ignore`] wrote.
pub fn read_ignore(reader: &mut Reader<'_>) -> Result<Ignore, Malformed> {
    checked(reader, "ignored ends", |r| Ok(Ignore::from_bits(r.u8("ignored ends")?)))
}

/// Its number.
pub fn put_join_state(out: &mut Vec<u8>, state: JoinState) {
    out.push(state as u8);
}

/// What [`put_join_state`] wrote.
pub fn read_join_state(reader: &mut Reader<'_>) -> Result<JoinState, Malformed> {
    numbered(reader, "state of a join", &JoinState::ALL)
}

/// Its number.
pub fn put_member_state(out: &mut Vec<u8>, state: MemberState) {
    out.push(state as u8);
}

/// What [`put_member_state`] wrote.
pub fn read_member_state(reader: &mut Reader<'_>) -> Result<MemberState, Malformed> {
    numbered(reader, "state of a member", &MemberState::ALL)
}

fn numbered<T: Copy>(reader: &mut Reader<'_>, what: &'static str, all: &[T]) -> Result<T, Malformed> {
    checked(reader, what, |r| Ok(all.get(usize::from(r.u8(what)?)).copied()))
}

/// Jobs, then joins.
pub fn put_graph(out: &mut Vec<u8>, graph: &Graph) {
    put_list(out, &graph.jobs, put_named_job);
    put_list(out, &graph.joins, put_new_join);
}

/// What [`put_graph`] wrote.
pub fn read_graph(reader: &mut Reader<'_>) -> Result<Graph, Malformed> {
    Ok(Graph {
        jobs: reader.list("jobs of a graph", read_named_job)?,
        joins: reader.list("joins of a graph", read_new_join)?,
    })
}

/// Name, job.
pub fn put_named_job(out: &mut Vec<u8>, named: &NamedJob) {
    put_str(out, &named.name);
    put_new_job(out, &named.job);
}

/// What [`put_named_job`] wrote.
pub fn read_named_job(reader: &mut Reader<'_>) -> Result<NamedJob, Malformed> {
    Ok(NamedJob { name: read_compact(reader, "name")?, job: read_new_job(reader)? })
}

/// All fields, in the order of the struct.
pub fn put_new_join(out: &mut Vec<u8>, join: &NewJoin) {
    let NewJoin { name, members, policy, then, on_failure, rest, ignore, open } = join;
    put_str(out, name);
    put_list(out, members, |out, member| put_str(out, member));
    put_policy(out, *policy);
    put_option(out, then.as_deref(), put_str);
    put_on_failure(out, *on_failure);
    put_rest(out, *rest);
    put_ignore(out, *ignore);
    put_bool(out, *open);
}

/// What [`put_new_join`] wrote.
pub fn read_new_join(reader: &mut Reader<'_>) -> Result<NewJoin, Malformed> {
    Ok(NewJoin {
        name: read_compact(reader, "name")?,
        members: reader.list("members", |r| read_compact(r, "member"))?,
        policy: read_policy(reader)?,
        then: reader.option("continuation", |r| read_compact(r, "continuation"))?,
        on_failure: read_on_failure(reader)?,
        rest: read_rest(reader)?,
        ignore: read_ignore(reader)?,
        open: reader.bool("open")?,
    })
}

/// Jobs, then joins.
pub fn put_joined(out: &mut Vec<u8>, joined: &Joined) {
    put_list(out, &joined.jobs, put_pushed);
    put_list(out, &joined.joins, super::put_job_id);
}

/// What [`put_joined`] wrote.
pub fn read_joined(reader: &mut Reader<'_>) -> Result<Joined, Malformed> {
    Ok(Joined {
        jobs: reader.list("pushed jobs", read_pushed)?,
        joins: reader.list("joins", super::read_job_id)?,
    })
}
