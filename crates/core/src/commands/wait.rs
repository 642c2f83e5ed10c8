use super::join::{bad, plain};
use crate::{
    shard::{Context, Shard},
    transition::Change,
};
use model::{Cause, Graph, NewJob, Reject, Settled, State};

impl Shard {
    /// Adds children and gives the worker back until the last join of their graph has ended. No attempt is used.
    pub(crate) fn wait_for_children(
        &mut self,
        slot: u32,
        children: &Graph,
        push: &[NewJob],
        context: &mut Context<'_>,
    ) -> Result<Settled, Reject> {
        let Some(root) = children.joins.last() else {
            return bad(&"children".into(), "has no join to wait for");
        };
        if root.then.is_some() {
            return bad(&root.name, "is what the job waits for: it names no other continuation");
        }
        self.check_graph(children)?;
        let jobs = plain(&children.jobs);
        self.check_follow_up(&jobs, None, context.now)?;
        self.check_nodes(children, Some(slot), context.now)?;
        self.check_follow_up(push, None, context.now)?;
        let former = self.jobs[slot].ties().map_or(0, |ties| ties.waits_for);
        self.let_go(former, context.now);
        let (mut pushed, joins) = self.add_graph(children, context);
        let sequence = self.jobs[slot].sequence;
        if let Some(id) = joins.last() {
            self.set_continuation(*id, sequence, kit::Timestamp::ZERO);
        }
        self.jobs[slot].attempt -= 1;
        self.transition(slot, Change::new(State::WaitingChildren, Cause::Wait), context);
        pushed.extend(self.push_checked(push, context));
        Ok(Settled { state: State::WaitingChildren, pushed })
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_job_waits_for_its_children_without_a_worker_and_without_an_attempt() {
        check(
            "
            0s  push q id=p attempts=2
            0s  fetch q                      -> p 1/2 t1
            1s  wait p t1 q id=a ; q id=b | kids all a b -> waiting-children + a waiting, b waiting
            1s  show p                       -> waiting-children 0/2
            1s  done p t1                    -> ! stale_lease
            2s  fetch q max=9                -> a 1/5 t2, b 1/5 t3
            3s  done a t2 result=one         -> completed
            4s  done b t3 result=two         -> completed
            5s  fetch q                      -> p 1/2 t4 [completed a=completed:one b=completed:two]
            6s  wait p t4 q id=c | kids all c -> waiting-children + c waiting
            7s  fetch q                      -> c 1/5 t5
            7s  fail c t5 oops               -> dead
            7s  show p                       -> dead 0/2
            8s  tick
            8s  joined #4                    -> gone
            8s  history p -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 1s 3 w1 wait waiting-children 0, \
                4s 7 - join waiting 0, 5s 8 w1 fetch active 1, 6s 9 w1 wait waiting-children 0, \
                7s 11 - join dead 0 join_failed
        ",
        );
    }

    #[test]
    fn a_parent_that_is_cancelled_takes_its_children_along() {
        check(
            "
            0s  push q id=p
            0s  fetch q                      -> p 1/5 t1
            1s  wait p t1 q id=a | kids all a fail=run -> waiting-children + a waiting
            2s  fetch q                      -> a 1/5 t2
            3s  wait a t2 q id=b | kids all b -> waiting-children + b waiting
            4s  cancel p                     -> cancelled
            4s  counts q                     -> 3 cancelled
        ",
        );
    }

    #[test]
    fn nobody_can_wait_in_a_circle() {
        check(
            "
            0s  push q id=p unique=k ; q id=o
            0s  fetch q max=2                -> p 1/5 t1, o 1/5 t2
            1s  wait p t1 q id=p | kids all p -> ! bad_graph p: waits for itself
            1s  wait p t1 q name=c unique=k | kids all c -> ! bad_graph c: waits for itself
            1s  wait p t1 q id=o | kids all o -> waiting-children + o active again
            1s  wait o t2 q id=p | kids all p -> \
                ! bad_graph p: waits for other jobs itself, so it cannot be waited for from here
            2s  wait o t2 q id=a             -> ! bad_graph children: has no join to wait for
            2s  wait o t2 q id=a ; q id=b | kids all a then=b -> \
                ! bad_graph kids: is what the job waits for: it names no other continuation
            3s  done o t2                    -> completed
            3s  show p                       -> waiting 0/5
        ",
        );
    }
}
