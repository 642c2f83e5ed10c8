//! I17: a continuation starts once, when the policy of its join is met and not before; who has lost does not go on; every join ends.
//!
//! The shadow knows from the graphs which job continues which join, and judges the members that are handed over by rules of its own.

use crate::history::{Check, broken};
use millpond_core::{JoinQuery, Shard};
use model::{DispatchedJob, JobId, JoinState, JoinView, MemberOf, MemberState, MemberView, Policy, Rest};
use std::collections::BTreeSet;

/// A continuation is handed out with its join, which has ended as its members say.
pub(crate) fn may_start(given: &DispatchedJob) -> Check {
    match &given.children {
        Some(join) => judge(join),
        None => broken("I17", format!("continuation {} was handed out without its join", given.id)),
    }
}

fn judge(join: &JoinView) -> Check {
    let count = |wanted: fn(MemberState) -> bool| {
        join.members.iter().filter(|member| wanted(member.state)).count() as u32
    };
    let completed = count(|state| state == MemberState::Completed);
    let pending = count(|state| state == MemberState::Pending);
    let ignored = join.members.iter().filter(|member| join.ignore.has(member.state)).count() as u32;
    let total = join.members.len() as u32;
    let failed = total - completed - pending - ignored;
    let fits = match (join.state, join.policy) {
        (JoinState::Open, _) => false,
        (JoinState::Cancelled, _) => true,
        (JoinState::Completed, Policy::All) => completed + ignored == total,
        (JoinState::Completed, Policy::AllSettled) => pending == 0,
        (JoinState::Completed, Policy::Any | Policy::Race) => completed > 0,
        (JoinState::Completed, Policy::KOfN(needed)) => completed >= needed,
        (JoinState::Failed, Policy::All | Policy::Race) => failed > 0 || completed == 0,
        (JoinState::Failed, Policy::Any) => completed == 0,
        (JoinState::Failed, Policy::KOfN(needed)) => completed < needed,
        (JoinState::Failed, Policy::AllSettled) => false,
    };
    if fits { Ok(()) } else { broken("I17", format!("a continuation was handed out too early: {join:?}")) }
}

/// The members that a join that has ended must have cancelled and has not. `shared` are jobs that several joins wait for.
pub(crate) fn losers_are_gone(join: &JoinView, shared: &BTreeSet<JobId>) -> Check {
    let spared = |member: &&MemberView| match &member.what {
        MemberOf::Job(_, id) => shared.contains(id),
        MemberOf::Join(_) | MemberOf::Gone => true,
    };
    let left = join.members.iter().filter(|member| member.state == MemberState::Pending);
    match left.filter(|member| !spared(member)).count() {
        0 => Ok(()),
        _ if join.rest == Rest::Run => Ok(()),
        left => broken("I17", format!("{left} losers of a join go on: {join:?}")),
    }
}

/// After the drain no join is open.
pub(crate) fn all_ended(shard: &Shard, joins: &BTreeSet<JobId>) -> Check {
    let open = |id: &&JobId| {
        shard.join_view(id, JoinQuery::default()).is_some_and(|join| join.state == JoinState::Open)
    };
    match joins.iter().find(open) {
        None => Ok(()),
        Some(id) => broken("I17", format!("join {id} has not ended")),
    }
}
