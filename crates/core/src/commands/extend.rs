use super::join::{check_name, plain};
use crate::{
    join::{Join, Node},
    shard::{Context, Shard},
};
use compact_str::ToCompactString;
use model::{JobId, JoinState, NamedJob, Reject, Reply, limits};
use std::collections::BTreeSet;

impl Shard {
    /// Adds members to an open join, all or none; `seal` says that no more will come.
    ///
    /// Their names differ within one call; of two members with one name the first is meant.
    pub(crate) fn extend_join(
        &mut self,
        id: &JobId,
        jobs: &[NamedJob],
        seal: bool,
        context: &mut Context<'_>,
    ) -> Result<Reply, Reject> {
        let join = self.known_join(id)?;
        let number = join.id;
        if join.state != JoinState::Open || join.sealed {
            let state = if join.state == JoinState::Open { "sealed" } else { join.state.name() };
            return Err(Reject::JoinClosed { id: id.to_compact_string(), state });
        }
        if join.members.len() + jobs.len() > limits::JOIN_MEMBERS_MAX {
            return Err(Reject::TooMany {
                what: "members of a join",
                limit: limits::JOIN_MEMBERS_MAX as u64,
            });
        }
        let mut seen = BTreeSet::new();
        jobs.iter().try_for_each(|named| check_name(&named.name, &mut seen))?;
        self.check_new(&plain(jobs), context.now)?;
        let mut met = BTreeSet::new();
        for NamedJob { name, job } in jobs {
            if let Some(slot) = self.check_node(name, job, &mut met, context.now)? {
                self.check_ties(name, slot, 1)?;
                self.check_not_waiting(name, slot, None)?;
            }
        }
        let mut pushed = Vec::with_capacity(jobs.len());
        for NamedJob { name, job } in jobs {
            let (answer, sequence) = self.push_node(job, false, context);
            self.add_member(number, name, Node::Job(sequence));
            pushed.push(answer);
        }
        if seal {
            self.seal_join(number);
        }
        self.touch_join(number);
        self.decide(number, context.now);
        Ok(Reply::Pushed(pushed))
    }

    pub(crate) fn known_join(&self, id: &JobId) -> Result<&Join, Reject> {
        self.find_join(id).ok_or_else(|| Reject::UnknownJoin { id: id.to_compact_string() })
    }

    /// No more members can come.
    fn seal_join(&mut self, id: u64) {
        if let Some(join) = self.joins.all.get_mut(&id) {
            join.sealed = true;
        }
        self.set_join_timer(id, kit::Timestamp::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn an_open_join_takes_members_until_it_is_sealed() {
        check(
            "
            0s  join q id=a ; sum id=x | j all a then=x open=1
            1s  fetch q                      -> a 1/5 t1
            1s  done a t1                    -> completed
            1s  summary x -> all 1 members of join 018bcfe5-6800-7003-8000-0000000361be have ended; \
                more may come until it is sealed
            2s  extend #3 q id=b ; q id=c    -> b waiting, c waiting
            2s  extend #3 q id=d seal=1      -> d waiting
            2s  extend #3 q id=e             -> ! join_closed
            3s  fetch q max=9                -> b 1/5 t2, c 1/5 t3, d 1/5 t4
            3s  done b t2                    -> completed
            3s  done c t3                    -> completed
            3s  done d t4                    -> completed
            3s  show x                       -> waiting 0/5
            3s  extend #3 q id=e             -> ! join_closed
            3s  extend #99 q id=e            -> ! unknown_join
        ",
        );
    }

    #[test]
    fn a_join_that_nobody_seals_is_sealed_after_a_day() {
        check(
            "
            0s     join sum id=x | j all then=x open=1
            1s     join q id=a | k any a open=1
            2s     cancel a                  -> cancelled
            86399s tick
            86399s show x                    -> waiting-children 0/5
            86400s tick
            86400s show x                    -> waiting 0/5
            86401s tick
            86401s joined #4                 -> failed a=cancelled
        ",
        );
    }

    #[test]
    fn a_member_that_waits_itself_is_refused() {
        check(
            "
            0s  join q id=a ; q id=x | j all a then=x open=1
            0s  extend #3 q id=x             -> ! bad_graph x: waits for other jobs itself, so it cannot be waited for from here
            0s  extend #3 q id=b ; q name=b  -> ! bad_graph b: two nodes of the graph have this name
            0s  extend #3 q id=a             -> a waiting again
            0s  joined #3                    -> open a=pending a=pending
            0s  extend #3 seal=1             -> 
            1s  cancel a                     -> cancelled
            1s  joined #3                    -> failed a=cancelled a=cancelled
        ",
        );
    }
}
