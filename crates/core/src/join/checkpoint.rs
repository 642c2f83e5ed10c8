//! Joins as they come back from a checkpoint, and what must hold of them.

use super::{Join, Member, Node, Place};
use crate::{job::Job, record, shard::Shard};
use bytes::Bytes;
use kit::{Timestamp, codec::Malformed};
use model::{JoinState, MemberState, State};
use std::collections::BTreeMap;

/// Joins and members as they are read from a checkpoint, in any order.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    joins: Vec<(Join, usize)>,
    members: BTreeMap<Place, Member>,
}

impl Restored {
    /// Takes one record. `None` as an error: the key is none of ours.
    pub(crate) fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), Option<Malformed>> {
        if key.len() == 8 {
            self.joins.push(record::read_join(value)?);
            return Ok(());
        }
        let (id, place) = key.split_first_chunk::<8>().ok_or(None)?;
        let place = u32::from_be_bytes(place.try_into().map_err(|_| None)?);
        self.members.insert((u64::from_be_bytes(*id), place), record::read_member(value)?);
        Ok(())
    }
}

impl Shard {
    /// Puts restored joins together, after the jobs. Refuses, by key, what does not fit.
    pub(crate) fn place_joins(&mut self, restored: Restored) -> Result<(), (Vec<u8>, &'static str)> {
        let Restored { joins, mut members } = restored;
        for (mut join, count) in joins {
            let key = record::join_key(join.id);
            if join.id > self.counters.sequence {
                return Err((key, "it is newer than the counters"));
            }
            for place in 0..count as u32 {
                let member = members.remove(&(join.id, place)).ok_or((key.clone(), "a member is missing"))?;
                join.add(member);
            }
            if let Some(stage) = join.stage() {
                self.joins.work.insert((stage, join.id));
            }
            if join.due != Timestamp::ZERO {
                self.joins.timers.insert((join.due, join.id));
            }
            self.joins.all.insert(join.id, join);
        }
        if let Some((id, place)) = members.into_keys().next() {
            return Err((record::member_key(id, place), "its join is missing"));
        }
        self.check_joins().map_err(|(id, reason)| (record::join_key(id), reason))
    }

    /// Compares joins, members and ties with each other. The first thing that does not fit, with the number of its join.
    pub(crate) fn check_joins(&self) -> Result<(), (u64, &'static str)> {
        let (mut work, mut timers) = (0, 0);
        for (id, join) in &self.joins.all {
            let fail = |what| Err((*id, what));
            let mut counts = [0; MemberState::COUNT];
            let mut bytes = 0;
            for (place, member) in (0..).zip(&join.members) {
                counts[member.state as usize] += 1;
                bytes += member.result.as_ref().map_or(0, Bytes::len);
                let pending = member.state == MemberState::Pending;
                let fits = match member.node {
                    Node::Job(number) => match self.slot_of(number).map(|slot| &self.jobs[slot]) {
                        Some(job) => {
                            job.ties().is_some_and(|ties| ties.member_of.contains(&(*id, place)))
                                && !(pending && job.state.is_final())
                        }
                        None => !pending,
                    },
                    Node::Join(number) => self.joins.all.get(&number).is_some_and(|child| {
                        child.member_of.contains(&(*id, place)) && !(pending && child.told)
                    }),
                };
                if !fits {
                    return fail("a member does not fit");
                }
            }
            if (counts, bytes) != (join.counts, join.result_bytes) {
                return fail("its members are miscounted");
            }
            let heir = self.slot_of(join.then).map(|slot| &self.jobs[slot]);
            if join.then != 0 && heir.and_then(Job::ties).is_none_or(|ties| ties.waits_for != *id) {
                return fail("its continuation does not know it");
            }
            if join.state == JoinState::Open
                && (join.verdict() != JoinState::Open || !join.sealed && join.due == Timestamp::ZERO)
            {
                return fail("it would stay open for ever");
            }
            for (parent, place) in &join.member_of {
                let parent = self.joins.all.get(parent);
                let member = parent.and_then(|parent| parent.members.get(*place as usize));
                if member.is_none_or(|member| member.node != Node::Join(*id)) {
                    return fail("a join that it is a member of does not know it");
                }
            }
            if let Some(stage) = join.stage() {
                work += 1;
                if !self.joins.work.contains(&(stage, *id)) {
                    return fail("its end would be forgotten");
                }
            } else if join.state != JoinState::Open
                && join.then == 0
                && join.member_of.is_empty()
                && join.due == Timestamp::ZERO
            {
                return fail("it would be kept for ever");
            }
            if join.due != Timestamp::ZERO {
                timers += 1;
                if !self.joins.timers.contains(&(join.due, *id)) {
                    return fail("its timer is not set");
                }
            }
        }
        if (work, timers) != (self.joins.work.len(), self.joins.timers.len()) {
            return Err((0, "the lists of work and timers hold joins that are not there"));
        }
        for (_, job) in self.jobs.iter() {
            let Some(ties) = job.ties() else { continue };
            for (id, place) in &ties.member_of {
                let member = self.joins.all.get(id).and_then(|join| join.members.get(*place as usize));
                if member.is_none_or(|member| member.node != Node::Job(job.sequence)) {
                    return Err((*id, "a job thinks that it is a member"));
                }
            }
            let heir = self.joins.all.get(&ties.waits_for);
            if ties.waits_for != 0 && heir.is_none_or(|join| join.then != job.sequence) {
                return Err((ties.waits_for, "a job thinks that it is its continuation"));
            }
            let in_step =
                job.run.as_ref().and_then(|run| run.steps.as_ref()).is_some_and(|steps| steps.wait.is_some());
            if job.state == State::WaitingChildren && !in_step && heir.is_none_or(|join| join.told) {
                return Err((ties.waits_for, "a job would wait for it for ever"));
            }
        }
        Ok(())
    }
}
