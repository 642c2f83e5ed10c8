use super::push::{Plan, check_id};
use crate::{
    join::{Join, Member, Node, member_state},
    shard::{Context, Shard},
    unique::Meeting,
};
use compact_str::{CompactString, ToCompactString};
use kit::Timestamp;
use model::{
    Graph, JobId, JobRef, Joined, MemberState, NamedJob, NewJob, NewJoin, Policy, Pushed, QueueName, Reject,
    Reply, State, limits,
};
use std::collections::{BTreeMap, BTreeSet};

impl Shard {
    /// Adds a graph of jobs and joins, all or none.
    pub(crate) fn join(&mut self, graph: &Graph, context: &mut Context<'_>) -> Result<Reply, Reject> {
        self.check_graph(graph)?;
        self.check_new(&plain(&graph.jobs), context.now)?;
        self.check_nodes(graph, None, context.now)?;
        let (jobs, joins) = self.add_graph(graph, context);
        Ok(Reply::Joined(Joined { jobs, joins: joins.iter().map(|id| self.join_id(*id)).collect() }))
    }

    /// Refuses what a push of these would refuse.
    pub(crate) fn check_new(&self, jobs: &[NewJob], now: Timestamp) -> Result<(), Reject> {
        jobs.iter().try_for_each(check_id)?;
        self.check_push(jobs, &mut Plan::default(), now)
    }

    pub(crate) fn join_id(&self, id: u64) -> JobId {
        self.joins.all[&id].public_id(self.id)
    }

    /// Refuses a graph that is too large or does not fit together.
    pub(crate) fn check_graph(&self, graph: &Graph) -> Result<(), Reject> {
        let too_many = |what, limit| Err(Reject::TooMany { what, limit: limit as u64 });
        if graph.jobs.len() + graph.joins.len() > limits::GRAPH_NODES_MAX {
            return too_many("nodes of a graph", limits::GRAPH_NODES_MAX);
        }
        if graph.joins.iter().map(|join| join.members.len()).sum::<usize>() > limits::GRAPH_EDGES_MAX {
            return too_many("members named by one graph", limits::GRAPH_EDGES_MAX);
        }
        if self.joins.all.len() + graph.joins.len() > limits::JOINS_MAX {
            return too_many("joins", limits::JOINS_MAX);
        }
        Shape::of(graph)?.check_order()
    }

    /// Refuses jobs of a graph that are in the pond already and cannot be what the graph makes of them. `waiter` is the job that
    /// would wait for it: whatever it finds must not wait itself, or two jobs could wait for each other.
    pub(crate) fn check_nodes(
        &self,
        graph: &Graph,
        waiter: Option<u32>,
        now: Timestamp,
    ) -> Result<(), Reject> {
        let continuations: BTreeSet<_> = graph.joins.iter().filter_map(|join| join.then.as_ref()).collect();
        let mut joins_of: BTreeMap<&CompactString, usize> = BTreeMap::new();
        for name in graph.joins.iter().flat_map(|join| &join.members) {
            *joins_of.entry(name).or_default() += 1;
        }
        let mut seen = BTreeSet::new();
        for NamedJob { name, job } in &graph.jobs {
            let leads = continuations.contains(name);
            let Some(slot) = self.check_node(name, job, &mut seen, now)? else {
                if leads && self.would_stand_by(job, now) {
                    return bad(name, "cannot stand by for its unique key: it is a continuation");
                }
                continue;
            };
            if leads {
                return bad(name, "exists already; a continuation is a new job");
            }
            self.check_ties(name, slot, joins_of.get(name).copied().unwrap_or(0))?;
            if waiter.is_some() {
                self.check_not_waiting(name, slot, waiter)?;
            }
        }
        Ok(())
    }

    /// The job in the pond that a job of a graph would be answered with. Refuses one that would be answered with another job of
    /// the graph: that job would have two names.
    pub(crate) fn check_node<'a>(
        &self,
        name: &CompactString,
        job: &'a NewJob,
        seen: &mut BTreeSet<(&'a QueueName, bool, CompactString)>,
        now: Timestamp,
    ) -> Result<Option<u32>, Reject> {
        let answered = self.would_be_answered(job, now)?;
        let id = job.id.as_ref().map(|id| (&job.queue, false, id.to_compact_string()));
        let key = job.unique.as_ref().map(|unique| (&job.queue, true, unique.key.clone()));
        for mark in id.into_iter().chain(key) {
            if seen.contains(&mark) {
                return bad(name, "has the id or the unique key of another job of the graph");
            }
            if !answered {
                seen.insert(mark);
            }
        }
        Ok(if answered { self.existing_job(job, now) } else { None })
    }

    /// Refuses an existing job as a member of so many more joins.
    pub(crate) fn check_ties(&self, name: &CompactString, slot: u32, joins: usize) -> Result<(), Reject> {
        let ties = self.jobs[slot].ties().map_or(0, |ties| ties.member_of.len());
        if ties + joins > limits::JOINS_PER_MEMBER_MAX { bad(name, "is in too many joins") } else { Ok(()) }
    }

    /// Refuses an existing job as a member where somebody waits already: if it waited itself, that could close a circle.
    pub(crate) fn check_not_waiting(
        &self,
        name: &CompactString,
        slot: u32,
        waiter: Option<u32>,
    ) -> Result<(), Reject> {
        if waiter == Some(slot) {
            return bad(name, "waits for itself");
        }
        if self.jobs[slot].state == State::WaitingChildren {
            return bad(name, "waits for other jobs itself, so it cannot be waited for from here");
        }
        Ok(())
    }

    /// The job in the pond that a push of this one is answered with, if that is still kept.
    fn existing_job(&self, job: &NewJob, now: Timestamp) -> Option<u32> {
        let named = job
            .id
            .as_ref()
            .and_then(|id| self.find(&JobRef { queue: Some(job.queue.clone()), id: id.clone() }));
        named.or_else(|| {
            let queue = self.queue_index.get(&job.queue)?;
            match self.meet(*queue, job.unique.as_ref()?, None, now) {
                Meeting::Found(slot) | Meeting::Renew(slot) => Some(slot),
                Meeting::Free
                | Meeting::Forgotten(_)
                | Meeting::Conflict(_)
                | Meeting::Replace(_)
                | Meeting::StandBy => None,
            }
        })
    }

    fn would_stand_by(&self, job: &NewJob, now: Timestamp) -> bool {
        let queue = self.queue_index.get(&job.queue);
        queue
            .zip(job.unique.as_ref())
            .is_some_and(|(queue, unique)| matches!(self.meet(*queue, unique, None, now), Meeting::StandBy))
    }

    /// Adds a checked graph: its jobs, then its joins. Returns the numbers of the joins.
    pub(crate) fn add_graph(&mut self, graph: &Graph, context: &mut Context<'_>) -> (Vec<Pushed>, Vec<u64>) {
        let held: BTreeSet<_> = graph.joins.iter().filter_map(|join| join.then.as_ref()).collect();
        let mut nodes: BTreeMap<&CompactString, Node> = BTreeMap::new();
        let mut asked: BTreeMap<&CompactString, &NewJob> = BTreeMap::new();
        let mut pushed = Vec::with_capacity(graph.jobs.len());
        for NamedJob { name, job } in &graph.jobs {
            let (answer, sequence) = self.push_node(job, held.contains(name), context);
            nodes.insert(name, Node::Job(sequence));
            asked.insert(name, job);
            pushed.push(answer);
        }
        let mut ids = Vec::with_capacity(graph.joins.len());
        for new in &graph.joins {
            self.counters.sequence += 1;
            let id = self.counters.sequence;
            self.joins.all.insert(id, Join::new(id, new, context.now));
            nodes.insert(&new.name, Node::Join(id));
            ids.push(id);
        }
        for (new, id) in graph.joins.iter().zip(&ids) {
            for member in &new.members {
                self.add_member(*id, member, nodes[member]);
            }
            if let Some((Some(Node::Job(then)), job)) =
                new.then.as_ref().map(|then| (nodes.get(then), asked[then]))
            {
                let not_before = (context.now + job.delay_ms).max(job.run_at.unwrap_or_default());
                self.set_continuation(*id, *then, not_before);
            }
        }
        for id in &ids {
            if !self.joins.all[id].sealed {
                self.set_join_timer(*id, context.now + limits::JOIN_OPEN_MS);
            }
            self.touch_join(*id);
            self.decide(*id, context.now);
        }
        (pushed, ids)
    }

    /// Pushes a job of a graph. Also returns its number, or that of the job that it found; 0 if that is gone already.
    pub(crate) fn push_node(&mut self, job: &NewJob, held: bool, context: &mut Context<'_>) -> (Pushed, u64) {
        let queue = self.ensure_queue(&job.queue);
        let pushed = self.push_one(queue, job, held, context);
        let found = self.find(&JobRef { queue: Some(job.queue.clone()), id: pushed.id.clone() });
        let sequence = found.map_or(0, |slot| self.jobs[slot].sequence);
        (pushed, sequence)
    }

    /// Adds a member, with what has become of it already.
    pub(crate) fn add_member(&mut self, id: u64, name: &CompactString, node: Node) {
        let join = self.joins.all.get_mut(&id).expect("members are added to joins that exist");
        let place = join.members.len() as u32;
        let mut member = Member::new(name.clone(), node);
        match node {
            Node::Job(number) => match self.by_sequence.find(number, |slot| self.jobs[slot].sequence) {
                Some(slot) => {
                    member.state = member_state(self.jobs[slot].state);
                    member.take(&self.jobs[slot], limits::JOIN_RESULTS_BYTES_MAX - join.result_bytes);
                    join.add(member);
                    self.jobs[slot].ties_mut().member_of.push((id, place));
                    self.touch(slot);
                }
                None => {
                    member.state = MemberState::Removed;
                    join.add(member);
                }
            },
            Node::Join(number) => {
                join.add(member);
                if let Some(child) = self.joins.all.get_mut(&number) {
                    child.member_of.push((id, place));
                }
            }
        }
        self.dirty.touch_join(id, Some(place));
    }

    /// Makes a job the continuation of a join.
    pub(crate) fn set_continuation(&mut self, id: u64, then: u64, not_before: Timestamp) {
        let Some(slot) = self.slot_of(then) else { return };
        self.jobs[slot].ties_mut().waits_for = id;
        self.touch(slot);
        if let Some(join) = self.joins.all.get_mut(&id) {
            (join.then, join.not_before) = (then, not_before);
        }
    }
}

/// The jobs without their names.
pub(crate) fn plain(jobs: &[NamedJob]) -> Vec<NewJob> {
    jobs.iter().map(|named| named.job.clone()).collect()
}

pub(crate) fn bad<T>(name: &CompactString, reason: &'static str) -> Result<T, Reject> {
    Err(Reject::BadGraph { name: name.clone(), reason })
}

/// Refuses a name that cannot be told apart or printed.
pub(crate) fn check_name<'a>(name: &'a CompactString, seen: &mut BTreeSet<&'a str>) -> Result<(), Reject> {
    if name.is_empty() || name.len() > limits::NODE_NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return bad(name, "has a name of 1 to 128 bytes");
    }
    if !seen.insert(name) {
        return bad(name, "two nodes of the graph have this name");
    }
    Ok(())
}

/// A graph as numbers: jobs first, then joins.
struct Shape<'a> {
    graph: &'a Graph,
    /// What each node waits for.
    waits_for: Vec<Vec<u32>>,
}

impl<'a> Shape<'a> {
    /// Refuses names that lead nowhere or to the wrong place.
    fn of(graph: &'a Graph) -> Result<Self, Reject> {
        let (mut seen, mut numbers) = (BTreeSet::new(), BTreeMap::new());
        let jobs = graph.jobs.iter().map(|job| &job.name);
        for (number, name) in jobs.chain(graph.joins.iter().map(|join| &join.name)).enumerate() {
            check_name(name, &mut seen)?;
            numbers.insert(name, number as u32);
        }
        let number = |name: &CompactString| match numbers.get(name) {
            Some(number) => Ok(*number),
            None => bad(name, "no node of the graph has this name"),
        };
        let mut waits_for = vec![Vec::new(); numbers.len()];
        let mut joins_of = vec![0; numbers.len()];
        for (at, join) in (graph.jobs.len()..).zip(&graph.joins) {
            check_policy(join)?;
            for name in &join.members {
                let member = number(name)?;
                waits_for[at].push(member);
                joins_of[member as usize] += 1;
                if joins_of[member as usize] > limits::JOINS_PER_MEMBER_MAX {
                    return bad(name, "is in too many joins");
                }
            }
            let Some(then) = &join.then else { continue };
            let continuation = number(then)? as usize;
            if continuation >= graph.jobs.len() {
                return bad(then, "is a join; a continuation is a job");
            }
            if !waits_for[continuation].is_empty() {
                return bad(then, "is the continuation of two joins");
            }
            waits_for[continuation].push(at as u32);
        }
        Ok(Self { graph, waits_for })
    }

    fn name(&self, number: usize) -> &CompactString {
        match self.graph.jobs.get(number) {
            Some(job) => &job.name,
            None => &self.graph.joins[number - self.graph.jobs.len()].name,
        }
    }

    /// Refuses circles, and joins nested too deep.
    fn check_order(&self) -> Result<(), Reject> {
        let count = self.waits_for.len();
        let mut waited_by = vec![Vec::new(); count];
        for (waiter, members) in self.waits_for.iter().enumerate() {
            members.iter().for_each(|member| waited_by[*member as usize].push(waiter));
        }
        let mut left: Vec<usize> = self.waits_for.iter().map(Vec::len).collect();
        let mut depth = vec![0usize; count];
        let mut free: Vec<usize> = (0..count).filter(|node| left[*node] == 0).collect();
        let mut met = 0;
        while let Some(node) = free.pop() {
            met += 1;
            if node >= self.graph.jobs.len() {
                depth[node] += 1;
            }
            if depth[node] > limits::JOIN_DEPTH_MAX {
                return bad(self.name(node), "is nested too deep");
            }
            for &waiter in &waited_by[node] {
                // A continuation begins anew: its results are its own.
                if waiter >= self.graph.jobs.len() {
                    depth[waiter] = depth[waiter].max(depth[node]);
                }
                left[waiter] -= 1;
                if left[waiter] == 0 {
                    free.push(waiter);
                }
            }
        }
        if met == count {
            return Ok(());
        }
        // Whoever goes on along what is left ends up in a circle.
        let Some(mut node) = (0..count).find(|node| left[*node] > 0) else { return Ok(()) };
        for _ in 0..count {
            let onward = self.waits_for[node].iter().map(|member| *member as usize);
            node = onward.into_iter().find(|member| left[*member] > 0).unwrap_or(node);
        }
        bad(self.name(node), "waits for itself")
    }
}

fn check_policy(join: &NewJoin) -> Result<(), Reject> {
    if join.members.is_empty() && !join.open {
        return bad(&join.name, "has no members and is not open");
    }
    match join.policy {
        Policy::KOfN(0) => bad(&join.name, "needs at least one member to complete"),
        Policy::KOfN(needed) if !join.open && needed as usize > join.members.len() => {
            bad(&join.name, "needs more members than it has")
        }
        Policy::KOfN(_) | Policy::All | Policy::AllSettled | Policy::Any | Policy::Race => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_continuation_starts_with_the_results_when_all_have_completed() {
        check(
            "
            0s  join mail id=a ; video id=b ; sum id=c | both all a b then=c -> \
                a waiting, b waiting, c waiting-children | #4
            0s  counts sum                   -> 1 waiting-children
            0s  explain c                    -> waiting-children WaitsForChildren at never
            0s  fetch sum                    -> none
            1s  fetch mail                   -> a 1/5 t1
            1s  fetch video                  -> b 1/5 t2
            2s  done b t2 result=two         -> completed
            2s  joined #4                    -> open a=pending b=completed:two
            3s  done a t1 result=one         -> completed
            3s  heard                        -> 1 in sum
            3s  fetch sum                    -> c 1/5 t3 [completed a=completed:one b=completed:two]
            3s  history c -> 0s 1 w1 push waiting-children 0, 3s 6 - join waiting 0, 3s 7 w1 fetch active 1
            4s  retry c t3 oops after=0s     -> waiting
            4s  fetch sum                    -> c 2/5 t4 [completed a=completed:one b=completed:two]
        ",
        );
    }

    #[test]
    fn all_fails_with_the_first_failure_and_cancels_the_rest() {
        check(
            "
            0s  join mail id=a ; mail id=b ; mail id=d ; sum id=c | j all a b d then=c
            1s  fetch mail max=2             -> a 1/5 t1, b 1/5 t2
            2s  fail a t1 oops               -> dead
            2s  heard                        -> w1 lost b t2 cancelled
            2s  joined #5                    -> failed a=failed b=cancelled d=cancelled
            2s  show c                       -> dead 0/5
            2s  history c                    -> 0s 1 w1 push waiting-children 0, 2s 3 - join dead 0 join_failed
            2s  done b t2                    -> ! cancelled
            2s  fetch mail                   -> none
            3s  redrive c                    -> waiting
            3s  fetch sum                    -> c 1/5 t3 [failed a=failed b=cancelled d=cancelled]
        ",
        );
    }

    #[test]
    fn what_follows_a_failure_is_an_option() {
        check(
            "
            0s  join mail id=a ; mail id=b ; sum id=c | j all a b then=c fail=run rest=run
            0s  join mail id=d ; sum id=e | j all d then=e fail=cancel
            1s  fetch mail                   -> a 1/5 t1
            1s  fail a t1 oops               -> dead
            1s  show b                       -> waiting 0/5
            1s  fetch sum                    -> c 1/5 t2 [failed a=failed b=pending]
            2s  cancel d                     -> cancelled
            2s  show e                       -> cancelled 0/5
            2s  summary e                        -> it ended cancelled after 0 attempts: \
                join j failed (all): 1 of 1 members ended without success
        ",
        );
    }

    #[test]
    fn each_policy_ends_when_it_says() {
        check(
            "
            0s  join mail id=a ; mail id=b ; sum id=x | j settled a b then=x
            0s  join mail id=c ; mail id=d ; sum id=y | j any c d then=y
            0s  join mail id=e ; mail id=f ; sum id=z | j race e f then=z
            0s  join mail id=g ; mail id=h ; mail id=i ; sum id=w | j 2_of_n g h i then=w
            1s  fetch mail max=20 -> a 1/5 t1, b 1/5 t2, c 1/5 t3, d 1/5 t4, e 1/5 t5, f 1/5 t6, \
                g 1/5 t7, h 1/5 t8, i 1/5 t9
            2s  fail a t1 oops               -> dead
            2s  joined #4                    -> open a=failed b=pending
            2s  done b t2                    -> completed
            2s  joined #4                    -> completed a=failed b=completed
            3s  fail c t3 oops               -> dead
            3s  joined #8                    -> open c=failed d=pending
            3s  done d t4 result=r           -> completed
            3s  joined #8                    -> completed c=failed d=completed:r
            4s  fail e t5 oops               -> dead
            4s  joined #12                   -> failed e=failed f=cancelled
            5s  done g t7                    -> completed
            5s  joined #17                   -> open g=completed h=pending i=pending
            5s  done h t8                    -> completed
            5s  joined #17                   -> completed g=completed h=completed i=cancelled
            5s  done i t9                    -> ! cancelled
            6s  fetch sum max=9 -> x 1/5 t10 [completed a=failed b=completed], \
                y 1/5 t11 [completed c=failed d=completed:r], w 1/5 t12 [completed g=completed h=completed i=cancelled]
        ",
        );
    }

    #[test]
    fn a_policy_that_can_no_longer_be_met_fails() {
        check(
            "
            0s  join mail id=a ; mail id=b | j any a b
            0s  join mail id=c ; mail id=d ; mail id=e | k 2_of_n c d e
            1s  cancel a                     -> cancelled
            1s  remove b                     -> ok
            1s  joined #3                    -> failed a=cancelled b=removed
            2s  cancel c                     -> cancelled
            2s  joined #7                    -> open c=cancelled d=pending e=pending
            2s  cancel d                     -> cancelled
            2s  joined #7                    -> failed c=cancelled d=cancelled e=cancelled
        ",
        );
    }

    #[test]
    fn an_end_that_is_ignored_counts_neither_way() {
        check(
            "
            0s  join mail id=a expires=5s ; mail id=b ; sum id=c | j all a b then=c ignore=expired,removed
            1s  fetch mail                   -> a 1/5 t1
            1s  snooze a t1 after=9s         -> delayed
            2s  remove a                     -> ok
            2s  joined #4                    -> open a=removed b=pending
            2s  fetch mail                   -> b 1/5 t2
            2s  done b t2                    -> completed
            2s  fetch sum                    -> c 1/5 t3 [completed a=removed b=completed]
            3s  join mail id=d ; mail id=e | k any d e ignore=cancelled
            3s  cancel d                     -> cancelled
            3s  joined #7                    -> open d=cancelled e=pending
            3s  cancel e                     -> cancelled
            3s  joined #7                    -> failed d=cancelled e=cancelled
        ",
        );
    }

    #[test]
    fn joins_nest_and_a_job_may_be_in_several() {
        check(
            "
            0s  join mail id=a ; mail id=b ; mail id=c ; sum id=x ; sum id=y | \
                in all a b then=x | out all in c then=y | any any a c
            1s  fetch mail max=3             -> a 1/5 t1, b 1/5 t2, c 1/5 t3
            2s  done a t1 result=r           -> completed
            2s  joined #8                    -> completed a=completed:r c=pending
            2s  show c                       -> active 1/5 due 31s
            3s  done b t2                    -> completed
            3s  joined #7                    -> open in=completed(a=completed:r b=completed) c=pending
            3s  fetch sum                    -> x 1/5 t4 [completed a=completed:r b=completed]
            4s  done c t3                    -> completed
            4s  fetch sum -> y 1/5 t5 [completed in=completed(a=completed:r b=completed) c=completed]
        ",
        );
    }

    #[test]
    fn a_graph_runs_from_its_leaves_to_its_root() {
        check(
            "
            0s  join mail id=a ; mail id=b ; mail id=c ; mail id=d | j1 all a then=b | j2 all a then=c | j3 all b c then=d
            0s  fetch mail max=9             -> a 1/5 t1
            1s  done a t1                    -> completed
            1s  fetch mail max=9             -> b 1/5 t2 [completed a=completed], c 1/5 t3 [completed a=completed]
            2s  fail b t2 oops               -> dead
            2s  heard                        -> w1 lost c t3 cancelled
            2s  show d                       -> dead 0/5
        ",
        );
    }

    #[test]
    fn a_failure_goes_up_through_every_join_that_waits() {
        check(
            "
            0s  join q id=a ; q id=b ; q id=c ; q id=d | j1 all a then=b | j2 all b then=c | j3 all c then=d
            1s  cancel a                     -> cancelled
            1s  counts q                     -> 3 dead, 1 cancelled
            1s  joined #7                    -> failed c=failed
        ",
        );
    }

    #[test]
    fn a_continuation_that_goes_takes_what_it_waited_for_along() {
        check(
            "
            0s  join q id=a ; q id=b ; sum id=x | in all a b then=x
            0s  join q id=c ; sum id=y expires=5s | in all c then=y rest=run
            0s  join q id=d ; sum id=z | in all d then=z
            1s  cancel x                     -> cancelled
            1s  joined #4                    -> cancelled a=cancelled b=cancelled
            5s  tick
            5s  show y                       -> expired 0/5
            5s  show c                       -> cancelled 0/5
            6s  remove z                     -> ok
            6s  show d                       -> cancelled 0/5
            7s  tick
            7s  joined #10                   -> gone
        ",
        );
    }

    #[test]
    fn a_continuation_keeps_its_delay_and_its_expiry() {
        check(
            "
            0s  join q id=a ; sum id=x delay=10s expires=30s | in all a then=x
            1s  fetch q                      -> a 1/5 t1
            2s  done a t1                    -> completed
            2s  show x                       -> delayed 0/5 due 10s
            10s tick
            10s show x                       -> waiting 0/5
            30s tick
            30s show x                       -> expired 0/5
        ",
        );
    }

    #[test]
    fn an_existing_job_may_be_a_member_with_what_it_has_ended_with() {
        check(
            "
            0s  push q id=a ; q id=b unique=k
            0s  fetch q                      -> a 1/5 t1
            0s  done a t1 result=r           -> completed
            1s  join q id=a ; q name=n unique=k ; sum id=x | j all a n then=x -> \
                a completed again, b waiting again, x waiting-children | #4
            1s  joined #4                    -> open a=completed:r n=pending
            2s  fetch q                      -> b 1/5 t2
            2s  done b t2                    -> completed
            2s  show x                       -> waiting 0/5
            3s  join q id=a ; sum id=y | j all a then=y -> a completed again, y waiting-children | #6
            3s  show y                       -> waiting 0/5
        ",
        );
    }

    #[test]
    fn a_member_that_is_redriven_is_awaited_again_until_the_join_has_ended() {
        check(
            "
            0s  join q id=a ; q id=b ; sum id=x | j settled a b then=x
            1s  cancel a                     -> cancelled
            1s  redrive a                    -> waiting
            1s  joined #4                    -> open a=pending b=pending
            2s  cancel b                     -> cancelled
            2s  show x                       -> waiting-children 0/5
            3s  cancel a                     -> cancelled
            3s  show x                       -> waiting 0/5
            4s  redrive a                    -> waiting
            4s  joined #4                    -> completed a=cancelled b=cancelled
            5s  show a                       -> waiting 0/5
        ",
        );
    }

    #[test]
    fn a_graph_that_does_not_fit_together_is_refused_by_name_and_changes_nothing() {
        check(
            "
            0s  push q id=old
            1s  join q id=a | j all a b                     -> ! bad_graph b: no node of the graph has this name
            1s  join q id=a ; q name=a | j all a            -> ! bad_graph a: two nodes of the graph have this name
            1s  join q id=a | a all a                       -> ! bad_graph a: two nodes of the graph have this name
            1s  join q id=a | j all                         -> ! bad_graph j: has no members and is not open
            1s  join q id=a | j 2_of_n a                    -> ! bad_graph j: needs more members than it has
            1s  join q id=a | j 0_of_n a                    -> ! bad_graph j: needs at least one member to complete
            1s  join q id=a | j all a then=a                -> ! bad_graph a: waits for itself
            1s  join q id=a | j all a k | k all j           -> ! bad_graph k: waits for itself
            1s  join q id=a ; q id=b | j all a then=b | k all b then=a | m all a -> ! bad_graph k: waits for itself
            1s  join q id=a | j all a then=k | k all a      -> ! bad_graph k: is a join; a continuation is a job
            1s  join q id=a ; q id=b | j all a then=b | k all a then=b -> ! bad_graph b: is the continuation of two joins
            1s  join q id=a ; q id=old | j all a then=old -> ! bad_graph old: exists already; a continuation is a new job
            1s  join q id=a ; q name=b unique=k ; q name=c unique=k | j all a b then=c -> \
                ! bad_graph c: has the id or the unique key of another job of the graph
            1s  join q id=a attempts=0 | j all a            -> ! invalid attempts
            1s  join q name=a x10000 | j all a1             -> ! too_many 10000
            1s  counts q                                    -> 1 waiting
        ",
        );
    }

    #[test]
    fn results_are_handed_on_up_to_a_size() {
        let mut script = check("0s join q id=a ; q id=b ; sum id=x | j all a b then=x\n1s fetch q max=2");
        let big = "r".repeat(model::limits::JOIN_RESULT_BYTES_MAX + 1);
        script.line(&format!("2s done a t1 result={big}"));
        script.line(&format!("2s done b t2 result={}", &big[1..]));
        let id = script.line("3s joined #4");
        assert!(id.starts_with("completed a=completed b=completed:rrr"), "{}", &id[..60]);
    }

    #[test]
    fn losers_go_a_bounded_number_at_a_time_and_none_of_them_starts_or_reports_meanwhile() {
        let mut script = check("0s join q name=m | any any open=1 | ends all m\n0s push q id=other");
        for (name, urgency) in [("a", "normal"), ("b", "normal"), ("c", "high")] {
            let pushed = script.line(&format!("1s extend #2 q name={name} x1000 p={urgency}"));
            assert!(pushed.ends_with("waiting"), "{pushed}");
        }
        assert_eq!(script.line("1s counts q"), "3002 waiting");
        assert_eq!(script.line("2s fetch q max=2"), "#2005 1/5 t1, #2006 1/5 t2");
        assert_eq!(script.line("2s done #2005 t1"), "completed");
        // One step to tell of the end, and 1,998 of 1,999 members swept: the settlement and its command have 1,000 steps each.
        assert_eq!(script.line("2s counts q"), "1001 waiting, 1 active, 1 completed, 1999 cancelled");
        assert_eq!(script.line("2s done #2006 t2"), "! cancelled");
        assert_eq!(script.line("2s fetch q max=9"), "#1 1/5 t3, other 1/5 t4");
        assert_eq!(script.line("2s counts q"), "2 active, 1 completed, 2999 cancelled");
    }

    #[test]
    fn a_join_without_a_continuation_is_kept_for_a_day() {
        check(
            "
            0s     join q id=a | j all a
            1s     cancel a                  -> cancelled
            86400s joined #2                 -> failed a=cancelled
            86401s tick
            86401s joined #2                 -> gone
            86401s next                      -> never
        ",
        );
    }
}
