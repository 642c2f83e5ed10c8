//! Joins: who waits for whom.
//!
//! A join counts the ends of its members and is decided by its policy at the very change that decides it. What follows from its
//! end is work that is spread over commands, at most [`limits::TICK_WORK_MAX`] steps each:
//!
//! ```text
//! open ── decided ──► tell: the joins that it is a member of, and its continuation
//!                     sweep: cancel the members that have not ended
//!                     drop: untie the members, once nobody can ask for the join any more
//! ```
//!
//! Nothing here calls itself, so a long chain of joins is as cheap as a short one. A member that is to be cancelled is lost from the
//! moment of the decision on: it is not handed out, and what its worker reports is refused, before the sweep has come to it.

mod checkpoint;
mod view;

pub(crate) use checkpoint::Restored;
pub use view::JoinQuery;

use crate::{
    job::Job,
    shard::{Context, Shard},
    transition::Change,
};
use bytes::Bytes;
use compact_str::{CompactString, ToCompactString, format_compact};
use kit::Timestamp;
use model::{
    Actor, Cause, ErrorInfo, Ignore, JobId, JoinState, LeaseRef, MemberState, NewJoin, OnFailure, Policy,
    Rest, Revocation, State, limits,
};
use std::collections::{BTreeMap, BTreeSet};

/// A member's place: the number of the join, and the place in its list.
pub(crate) type Place = (u64, u32);

/// What ties a job to joins.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Ties {
    /// Where it is a member.
    pub(crate) member_of: Vec<Place>,
    /// The join whose continuation it is; 0 for none.
    pub(crate) waits_for: u64,
}

/// A job or a join, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Job(u64),
    Join(u64),
}

/// A member and what came of it. It outlives its job.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: CompactString,
    pub(crate) node: Node,
    pub(crate) state: MemberState,
    pub(crate) result: Option<Bytes>,
    pub(crate) result_bytes: u32,
    pub(crate) error: Option<Box<ErrorInfo>>,
}

/// A join.
#[derive(Debug, Clone)]
pub(crate) struct Join {
    pub(crate) id: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) name: CompactString,
    pub(crate) policy: Policy,
    pub(crate) on_failure: OnFailure,
    pub(crate) rest: Rest,
    pub(crate) ignore: Ignore,
    pub(crate) sealed: bool,
    pub(crate) state: JoinState,
    pub(crate) ended_at: Timestamp,
    /// The continuation's number; 0 for none.
    pub(crate) then: u64,
    /// The continuation asked not to start before.
    pub(crate) not_before: Timestamp,
    /// Where this join is a member.
    pub(crate) member_of: Vec<Place>,
    /// When it is sealed, or dropped; zero for never.
    pub(crate) due: Timestamp,
    /// Who waits for it has heard of its end.
    pub(crate) told: bool,
    /// The members before this place were swept.
    pub(crate) swept: u32,
    /// Who kept it is gone: it goes as soon as its work is done.
    pub(crate) orphan: bool,
    /// It is on its way out.
    pub(crate) dropped: bool,
    pub(crate) members: Vec<Member>,
    /// Members by state. Follows from the members.
    pub(crate) counts: [u32; MemberState::COUNT],
    /// Bytes of results kept here. Follows from the members.
    pub(crate) result_bytes: usize,
}

/// What is left to do for a join that has ended, in the order of its urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Tell,
    Sweep,
    Drop,
}

/// Every join of a shard.
#[derive(Debug, Default)]
pub(crate) struct Joins {
    pub(crate) all: BTreeMap<u64, Join>,
    /// Joins with something left to do. Follows from the joins.
    pub(crate) work: BTreeSet<(Stage, u64)>,
    /// When joins are sealed or dropped by themselves. Follows from the joins.
    pub(crate) timers: BTreeSet<(Timestamp, u64)>,
}

impl Member {
    pub(crate) fn new(name: CompactString, node: Node) -> Self {
        Self { name, node, state: MemberState::Pending, result: None, result_bytes: 0, error: None }
    }

    /// Takes what a job that has ended leaves; results only as far as `room` goes.
    pub(crate) fn take(&mut self, job: &Job, room: usize) {
        let Some(run) = &job.run else { return };
        if job.state == State::Completed
            && let Some(result) = &run.result
        {
            self.result_bytes = result.len() as u32;
            if result.len() <= limits::JOIN_RESULT_BYTES_MAX.min(room) {
                self.result = Some(result.clone());
            }
        }
        if job.state != State::Completed
            && let Some(error) = &run.error
        {
            let (kind, message) = (cut(&error.kind), cut(&error.message));
            self.error = Some(Box::new(ErrorInfo { kind, message, stack: CompactString::default() }));
        }
    }
}

/// At most half of what a join keeps of an error.
fn cut(text: &str) -> CompactString {
    let mut end = text.len().min(limits::JOIN_ERROR_BYTES_MAX / 2);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

impl Join {
    pub(crate) fn new(id: u64, new: &NewJoin, now: Timestamp) -> Self {
        Self {
            id,
            created_at: now,
            name: new.name.clone(),
            policy: new.policy,
            on_failure: new.on_failure,
            rest: new.rest,
            ignore: new.ignore,
            sealed: !new.open,
            state: JoinState::Open,
            ended_at: Timestamp::ZERO,
            then: 0,
            not_before: Timestamp::ZERO,
            member_of: Vec::new(),
            due: Timestamp::ZERO,
            told: false,
            swept: 0,
            orphan: false,
            dropped: false,
            members: Vec::with_capacity(new.members.len()),
            counts: [0; MemberState::COUNT],
            result_bytes: 0,
        }
    }

    pub(crate) fn public_id(&self, shard: u16) -> JobId {
        JobId::generated(self.created_at, shard, self.id)
    }

    /// Adds a member, with what is already known of it.
    pub(crate) fn add(&mut self, member: Member) {
        self.counts[member.state as usize] += 1;
        self.result_bytes += member.result.as_ref().map_or(0, Bytes::len);
        self.members.push(member);
    }

    fn count(&self, state: MemberState) -> u32 {
        self.counts[state as usize]
    }

    /// How the policy sees it now.
    pub(crate) fn verdict(&self) -> JoinState {
        let ignored: u32 = self.ignore.states().map(|state| self.count(state)).sum();
        let (pending, completed) = (self.count(MemberState::Pending), self.count(MemberState::Completed));
        let total = self.members.len() as u32;
        let failed = total - pending - completed - ignored;
        self.policy.verdict(total, completed, failed, ignored, self.sealed)
    }

    /// Whether members that have not ended are cancelled with it.
    pub(crate) fn cancels_rest(&self) -> bool {
        match self.state {
            JoinState::Open => false,
            JoinState::Completed | JoinState::Failed => self.rest == Rest::Cancel,
            JoinState::Cancelled => true,
        }
    }

    /// What is left to do.
    pub(crate) fn stage(&self) -> Option<Stage> {
        if self.state == JoinState::Open {
            None
        } else if !self.told {
            Some(Stage::Tell)
        } else if self.cancels_rest() && (self.swept as usize) < self.members.len() {
            Some(Stage::Sweep)
        } else if self.dropped {
            Some(Stage::Drop)
        } else {
            None
        }
    }

    /// Whether that member is to be cancelled and the sweep has not come to it.
    fn loses(&self, place: u32) -> bool {
        self.cancels_rest()
            && place >= self.swept
            && self.members[place as usize].state == MemberState::Pending
    }

    /// Whether it waits for that member.
    fn wants(&self, place: u32) -> bool {
        self.state == JoinState::Open && self.members[place as usize].state == MemberState::Pending
    }

    /// Members that have ended.
    pub(crate) fn ended(&self) -> u32 {
        self.members.len() as u32 - self.count(MemberState::Pending)
    }
}

/// How a join sees the state of a job.
pub(crate) fn member_state(state: State) -> MemberState {
    match state {
        State::Completed => MemberState::Completed,
        State::Dead => MemberState::Failed,
        State::Cancelled => MemberState::Cancelled,
        State::Expired => MemberState::Expired,
        State::Waiting
        | State::Delayed
        | State::Blocked
        | State::Active
        | State::Retrying
        | State::WaitingChildren
        | State::Suspended => MemberState::Pending,
    }
}

impl Job {
    pub(crate) fn ties(&self) -> Option<&Ties> {
        self.asked.as_ref().and_then(|asked| asked.ties.as_deref())
    }

    pub(crate) fn ties_mut(&mut self) -> &mut Ties {
        self.asked.get_or_insert_default().ties.get_or_insert_default()
    }
}

impl Shard {
    /// The join with this id.
    pub(crate) fn find_join(&self, id: &JobId) -> Option<&Join> {
        let (shard, number) = id.parts().filter(|(shard, _)| *shard == self.id)?;
        self.joins.all.get(&number).filter(|join| join.public_id(shard) == *id)
    }

    fn join_mut(&mut self, id: u64) -> &mut Join {
        self.joins.all.get_mut(&id).expect("a tie leads to a join")
    }

    pub(crate) fn touch_join(&mut self, id: u64) {
        self.dirty.touch_join(id, None);
    }

    // What happens to members

    /// A job with ties changed between live and final, or stopped waiting for its join.
    pub(crate) fn tied_job_changed(&mut self, slot: u32, from: State, now: Timestamp) {
        let job = &self.jobs[slot];
        let to = job.state;
        let Some(ties) = job.ties().cloned() else { return };
        // A step may wait for a child, too: that is no join's business.
        let join = self.joins.all.get(&ties.waits_for);
        if from == State::WaitingChildren && join.is_some_and(|join| join.state == JoinState::Open) {
            self.end_join(ties.waits_for, JoinState::Cancelled, now);
        }
        if from.is_final() != to.is_final() {
            for place in ties.member_of {
                self.member_changed(place, member_state(to), Some(slot), now);
            }
        }
    }

    /// A job with ties is about to be forgotten.
    pub(crate) fn tied_job_gone(&mut self, slot: u32, now: Timestamp) {
        let job = &self.jobs[slot];
        let live = !job.state.is_final();
        let Some(ties) = job.ties().cloned() else { return };
        if live {
            for place in ties.member_of {
                self.member_changed(place, MemberState::Removed, None, now);
            }
        }
        self.let_go(ties.waits_for, now);
    }

    /// A join loses its continuation: nobody waits for it from there.
    pub(crate) fn let_go(&mut self, id: u64, now: Timestamp) {
        if id == 0 {
            return;
        }
        let join = self.join_mut(id);
        (join.then, join.orphan) = (0, true);
        if join.state == JoinState::Open {
            self.end_join(id, JoinState::Cancelled, now);
        }
        self.touch_join(id);
        self.retire(id, now);
    }

    /// A member ended, or lives again. A join that has ended keeps what it ended with.
    fn member_changed(&mut self, (id, place): Place, state: MemberState, slot: Option<u32>, now: Timestamp) {
        let join = self.joins.all.get_mut(&id).expect("a tie leads to a join");
        let room = limits::JOIN_RESULTS_BYTES_MAX - join.result_bytes;
        let member = &mut join.members[place as usize];
        if member.state == state || join.state != JoinState::Open && member.state != MemberState::Pending {
            return;
        }
        join.counts[member.state as usize] -= 1;
        join.counts[state as usize] += 1;
        join.result_bytes -= member.result.as_ref().map_or(0, Bytes::len);
        *member = Member { state, ..Member::new(std::mem::take(&mut member.name), member.node) };
        if let Some(slot) = slot {
            member.take(&self.jobs[slot], room);
        }
        join.result_bytes += member.result.as_ref().map_or(0, Bytes::len);
        self.dirty.touch_join(id, Some(place));
        self.decide(id, now);
    }

    /// Ends a join whose policy says so.
    pub(crate) fn decide(&mut self, id: u64, now: Timestamp) {
        let join = self.join_mut(id);
        let verdict = join.verdict();
        #[cfg(feature = "plant")]
        let verdict = match crate::plant::is(crate::plant::Bug::JoinTooEarly)
            && join.ended() > 0
            && join.state == JoinState::Open
        {
            true => JoinState::Completed,
            false => verdict,
        };
        if join.state == JoinState::Open && verdict != JoinState::Open {
            self.end_join(id, verdict, now);
        }
    }

    /// Ends an open join. What follows is work for later steps.
    pub(crate) fn end_join(&mut self, id: u64, state: JoinState, now: Timestamp) {
        let join = self.join_mut(id);
        assert_eq!(join.state, JoinState::Open, "a join ends once");
        (join.state, join.ended_at) = (state, now);
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::KeepLosers) {
            join.swept = join.members.len() as u32;
        }
        self.set_join_timer(id, Timestamp::ZERO);
        self.joins.work.insert((Stage::Tell, id));
        self.touch_join(id);
    }

    pub(crate) fn set_join_timer(&mut self, id: u64, due: Timestamp) {
        let join = self.join_mut(id);
        let former = std::mem::replace(&mut join.due, due);
        self.joins.timers.remove(&(former, id));
        if due != Timestamp::ZERO {
            self.joins.timers.insert((due, id));
        }
    }

    /// Lets a join go, now or after a while, if nothing is left to do and nobody keeps it.
    fn retire(&mut self, id: u64, now: Timestamp) {
        let join = self.join_mut(id);
        let busy = join.state == JoinState::Open || join.stage().is_some() || join.dropped;
        if busy || join.then != 0 || !join.member_of.is_empty() {
            return;
        }
        let due = if join.orphan { now } else { join.ended_at + limits::JOIN_KEEP_MS };
        self.set_join_timer(id, due);
        self.touch_join(id);
    }

    /// A join's time came: it is sealed, or dropped.
    pub(crate) fn fire_join(&mut self, id: u64, now: Timestamp) {
        self.set_join_timer(id, Timestamp::ZERO);
        self.touch_join(id);
        let join = self.join_mut(id);
        if join.state == JoinState::Open {
            join.sealed = true;
            self.decide(id, now);
        } else {
            join.dropped = true;
            self.joins.work.insert((Stage::Drop, id));
        }
    }

    // What follows from an end

    /// Does what follows from the ends of joins, at most `budget` steps. Returns how many are left of it.
    pub(crate) fn advance_joins(&mut self, mut budget: usize, context: &mut Context<'_>) -> usize {
        let engine = Actor::default();
        let mut quiet = context.unattended(&engine);
        while budget > 0
            && let Some((stage, id)) = self.joins.work.pop_first()
        {
            match stage {
                Stage::Tell => {
                    self.tell_of_end(id, &mut quiet);
                    budget -= 1;
                }
                Stage::Sweep => budget = self.sweep(id, budget, &mut quiet),
                Stage::Drop => budget = self.drop_members(id, budget, quiet.now),
            }
            self.touch_join(id);
            if let Some(join) = self.joins.all.get(&id) {
                match join.stage() {
                    Some(stage) => {
                        self.joins.work.insert((stage, id));
                    }
                    None => self.retire(id, quiet.now),
                }
            }
        }
        let ready = quiet.ready;
        for (queue, count) in ready {
            context.tell_many_ready(queue, count);
        }
        budget
    }

    fn tell_of_end(&mut self, id: u64, context: &mut Context<'_>) {
        let join = self.join_mut(id);
        #[cfg(feature = "plant")]
        let forgetful = crate::plant::is(crate::plant::Bug::ForgetContinuation) && id.is_multiple_of(4);
        #[cfg(not(feature = "plant"))]
        let forgetful = false;
        join.told = true;
        let (state, then, not_before, on_failure) = (join.state, join.then, join.not_before, join.on_failure);
        let seen = match state {
            JoinState::Completed => MemberState::Completed,
            JoinState::Failed => MemberState::Failed,
            JoinState::Open | JoinState::Cancelled => MemberState::Cancelled,
        };
        for place in join.member_of.clone() {
            self.member_changed(place, seen, None, context.now);
        }
        let Some(slot) = self.slot_of(then) else { return };
        if self.jobs[slot].state != State::WaitingChildren || forgetful {
            return;
        }
        match (state, on_failure) {
            (JoinState::Completed, _) | (JoinState::Failed, OnFailure::Run) => {
                self.release(slot, not_before, context)
            }
            (JoinState::Failed, OnFailure::Fail) => {
                let error = self.why_failed(id);
                self.die(slot, Cause::Join, error, context);
            }
            (JoinState::Failed, OnFailure::Cancel) => {
                let error = self.why_failed(id);
                self.transition(slot, Change::new(State::Cancelled, Cause::Join).error(error), context);
            }
            (JoinState::Cancelled | JoinState::Open, _) => self.call_off(slot, id, context),
        }
    }

    /// Starts a continuation, or delays it until the time that it asked for.
    fn release(&mut self, slot: u32, not_before: Timestamp, context: &mut Context<'_>) {
        if not_before <= context.now {
            return self.wait(slot, Change::new(State::Waiting, Cause::Join), context);
        }
        let job = &self.jobs[slot];
        let expires = job.expires_at().filter(|_| job.token() == 0);
        let due = expires.map_or(not_before, |expires| expires.min(not_before));
        self.transition(slot, Change::new(State::Delayed, Cause::Join).due(due), context);
    }

    fn why_failed(&self, id: u64) -> ErrorInfo {
        let join = &self.joins.all[&id];
        let failed = join.ended() - join.count(MemberState::Completed);
        let message = format_compact!(
            "join {} failed ({}): {failed} of {} members ended without success",
            if join.name.is_empty() {
                join.public_id(self.id).to_compact_string()
            } else {
                join.name.clone()
            },
            join.policy.name(),
            join.members.len(),
        );
        ErrorInfo { kind: "join_failed".into(), message, ..ErrorInfo::default() }
    }

    /// Cancels a job because of a join.
    fn call_off(&mut self, slot: u32, id: u64, context: &mut Context<'_>) {
        self.revoke(slot, Revocation::Cancelled, context);
        let join = &self.joins.all[&id];
        let message = format_compact!("join {} is {}", join.public_id(self.id), join.state);
        let error = ErrorInfo { kind: "cancelled".into(), message, ..ErrorInfo::default() };
        self.transition(slot, Change::new(State::Cancelled, Cause::Join).error(error), context);
    }

    /// Cancels members that have not ended, from where it stopped.
    fn sweep(&mut self, id: u64, mut budget: usize, context: &mut Context<'_>) -> usize {
        while budget > 0 {
            let join = self.join_mut(id);
            let place = join.swept;
            let Some(member) = join.members.get(place as usize) else { break };
            let (node, pending) = (member.node, member.state == MemberState::Pending);
            budget -= 1;
            if pending && !self.is_wanted(node) {
                match node {
                    Node::Job(number) => {
                        if let Some(slot) = self.slot_of(number) {
                            self.call_off(slot, id, context);
                        }
                    }
                    Node::Join(number) => {
                        if self.join_mut(number).state == JoinState::Open {
                            self.end_join(number, JoinState::Cancelled, context.now);
                        }
                    }
                }
            }
            self.join_mut(id).swept += 1;
        }
        budget
    }

    /// Whether an open join waits for it.
    fn is_wanted(&self, node: Node) -> bool {
        let places: &[Place] = match node {
            Node::Job(number) => self
                .slot_of(number)
                .and_then(|slot| self.jobs[slot].ties())
                .map_or(&[], |ties| &ties.member_of),
            Node::Join(number) => self.joins.all.get(&number).map_or(&[], |join| &join.member_of),
        };
        places.iter().any(|(id, place)| self.joins.all[id].wants(*place))
    }

    /// Unties members from the end of the list; the join goes with the last one.
    fn drop_members(&mut self, id: u64, mut budget: usize, now: Timestamp) -> usize {
        while budget > 0 {
            budget -= 1;
            let join = self.join_mut(id);
            let Some(member) = join.members.pop() else {
                self.joins.all.remove(&id);
                break;
            };
            let place = join.members.len() as u32;
            join.swept = join.swept.min(place);
            join.counts[member.state as usize] -= 1;
            join.result_bytes -= member.result.as_ref().map_or(0, Bytes::len);
            self.dirty.touch_join(id, Some(place));
            self.untie(member.node, (id, place), now);
        }
        budget
    }

    fn untie(&mut self, node: Node, from: Place, now: Timestamp) {
        match node {
            Node::Job(number) => {
                let Some(slot) = self.slot_of(number) else { return };
                let ties = self.jobs[slot].ties_mut();
                ties.member_of.retain(|place| *place != from);
                if *ties == Ties::default()
                    && let Some(asked) = &mut self.jobs[slot].asked
                {
                    asked.ties = None;
                }
                self.touch(slot);
            }
            Node::Join(number) => {
                let Some(join) = self.joins.all.get_mut(&number) else { return };
                join.member_of.retain(|place| *place != from);
                join.orphan |= join.member_of.is_empty();
                self.touch_join(number);
                self.retire(number, now);
            }
        }
    }

    // Losers

    /// Whether a join that has ended is about to cancel this job.
    fn is_lost(&self, slot: u32) -> Option<u64> {
        let ties = self.jobs[slot].ties()?;
        let loses = |(id, place): &&Place| self.joins.all[id].loses(*place);
        let (id, _) = ties.member_of.iter().find(loses)?;
        let wanted = ties.member_of.iter().any(|(id, place)| self.joins.all[id].wants(*place));
        (!wanted).then_some(*id)
    }

    /// Does so for the job of a lease, so that a loser's report is refused.
    pub(crate) fn fence_lease(&mut self, lease: &LeaseRef, context: &mut Context<'_>) {
        if !self.joins.work.is_empty()
            && let Some(slot) = self.find(&lease.job)
        {
            self.fence(slot, context);
        }
    }

    /// Cancels a live job that a join has lost interest in, before the sweep comes to it. True if it did.
    pub(crate) fn fence(&mut self, slot: u32, context: &mut Context<'_>) -> bool {
        if self.joins.work.is_empty() || self.jobs[slot].state.is_final() {
            return false;
        }
        let Some(id) = self.is_lost(slot) else { return false };
        self.call_off(slot, id, &mut context.unattended(&Actor::default()));
        true
    }
}
