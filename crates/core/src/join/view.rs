//! Reads: what people, tools and continuations see of a join.

use super::{Join, Member, Node, Ties};
use crate::{explain::Reason, job::Job, shard::Shard};
use kit::Timestamp;
use model::{JobId, JoinState, JoinView, MemberOf, MemberState, MemberView, QueueName, limits};
use std::collections::BTreeSet;

/// Members on one page of a view, at most.
const PAGE_MAX: usize = 1_000;
/// Members that an explanation names.
const NAMED_MAX: usize = 3;

/// Which members of a join to show.
#[derive(Debug, Clone, Copy)]
pub struct JoinQuery {
    /// Only members in this state; those of nested joins are then left out.
    pub state: Option<MemberState>,
    /// At most so many, nested ones included, 1 to 1,000.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: u32,
}

impl Default for JoinQuery {
    fn default() -> Self {
        Self { state: None, limit: PAGE_MAX, cursor: 0 }
    }
}

/// How much one view may still take up.
struct Room {
    members: usize,
    bytes: usize,
    state: Option<MemberState>,
}

impl Shard {
    /// One join with a page of its members.
    pub fn join_view(&self, id: &JobId, query: JoinQuery) -> Option<JoinView> {
        let members = query.limit.clamp(1, PAGE_MAX);
        let mut room = Room { members, bytes: limits::CHILDREN_BYTES_MAX, state: query.state };
        Some(self.view_join(self.find_join(id)?, query.cursor, &mut room))
    }

    /// The queues of a join's continuation and of its members, those of nested joins included, as far as they are still there.
    pub fn join_queues(&self, id: &JobId) -> Option<BTreeSet<QueueName>> {
        let mut queues = BTreeSet::new();
        let mut rest = vec![self.find_join(id)?];
        while let Some(join) = rest.pop() {
            let jobs = join.members.iter().filter_map(|member| match member.node {
                Node::Job(number) => Some(number),
                Node::Join(number) => {
                    rest.extend(self.joins.all.get(&number));
                    None
                }
            });
            let slots = jobs.chain([join.then]).filter_map(|number| self.slot_of(number));
            queues.extend(slots.map(|slot| self.jobs[slot].queue));
        }
        Some(queues.into_iter().map(|queue| self.queues[queue as usize].name.clone()).collect())
    }

    /// Joins that have not been forgotten.
    pub fn joins(&self) -> u64 {
        self.joins.all.len() as u64
    }

    /// What a continuation is handed of the join that it waited for.
    pub(crate) fn children(&self, id: u64) -> Option<Box<JoinView>> {
        let mut room = Room { members: limits::CHILDREN_MAX, bytes: limits::CHILDREN_BYTES_MAX, state: None };
        Some(Box::new(self.view_join(self.joins.all.get(&id)?, 0, &mut room)))
    }

    pub(crate) fn public_join_id(&self, id: u64) -> Option<JobId> {
        self.joins.all.get(&id).map(|join| join.public_id(self.id))
    }

    pub(crate) fn joins_of(&self, ties: &Ties) -> Vec<JobId> {
        let mut ids: Vec<_> = ties.member_of.iter().filter_map(|(id, _)| self.public_join_id(*id)).collect();
        ids.dedup();
        ids
    }

    fn view_join(&self, join: &Join, from: u32, room: &mut Room) -> JoinView {
        let mut members = Vec::new();
        let mut next = None;
        for (place, member) in (0..).zip(&join.members).skip(from as usize) {
            if room.state.is_some_and(|state| state != member.state) {
                continue;
            }
            if room.members == 0 {
                next = Some(place);
                break;
            }
            room.members -= 1;
            members.push(self.view_member(member, room));
        }
        let then = self.slot_of(join.then).map(|slot| self.name_of(&self.jobs[slot]));
        JoinView {
            id: join.public_id(self.id),
            name: join.name.clone(),
            state: join.state,
            policy: join.policy,
            on_failure: join.on_failure,
            rest: join.rest,
            ignore: join.ignore,
            sealed: join.sealed,
            created_at: join.created_at,
            ended_at: (join.ended_at != Timestamp::ZERO).then_some(join.ended_at),
            then,
            counts: join.counts,
            members,
            next,
        }
    }

    fn view_member(&self, member: &Member, room: &mut Room) -> MemberView {
        let what = match member.node {
            Node::Job(number) => match self.slot_of(number) {
                Some(slot) => {
                    let (queue, id) = self.name_of(&self.jobs[slot]);
                    MemberOf::Job(queue, id)
                }
                None => MemberOf::Gone,
            },
            Node::Join(number) => match self.joins.all.get(&number) {
                // Of a filtered view, the nested joins show nothing but themselves.
                Some(join) => {
                    let from = if room.state.is_some() { u32::MAX } else { 0 };
                    MemberOf::Join(Box::new(self.view_join(join, from, room)))
                }
                None => MemberOf::Gone,
            },
        };
        let result = member.result.clone().filter(|result| result.len() <= room.bytes);
        room.bytes -= result.as_ref().map_or(0, |result| result.len());
        MemberView {
            name: member.name.clone(),
            state: member.state,
            what,
            result,
            result_bytes: member.result_bytes,
            error: member.error.as_deref().cloned(),
        }
    }

    fn name_of(&self, job: &Job) -> (model::QueueName, JobId) {
        (self.queues[job.queue as usize].name.clone(), job.id(self.id))
    }

    /// Whom a job waits for.
    pub(crate) fn waits_for_children(&self, job: &Job) -> Option<Reason> {
        let join = self.joins.all.get(&job.ties()?.waits_for)?;
        let pending = join.members.iter().filter(|member| member.state == MemberState::Pending);
        Some(Reason::WaitsForChildren {
            join: join.public_id(self.id),
            ended: join.ended(),
            total: join.members.len() as u32,
            missing: pending.take(NAMED_MAX).map(|member| member.name.clone()).collect(),
            open: join.state == JoinState::Open && !join.sealed,
        })
    }
}
