use crate::shard::Shard;
use compact_str::CompactString;
use model::{QueueName, Reject, Reply, limits};

impl Shard {
    /// Changes the share of a group, or holds its jobs, or lets them go. Running ones go on.
    pub(crate) fn set_group(
        &mut self,
        name: &QueueName,
        group: &CompactString,
        weight: Option<u32>,
        paused: Option<bool>,
    ) -> Result<Reply, Reject> {
        let queue = self.known_queue(name)?;
        if group.len() > limits::ID_BYTES_MAX {
            return Err(Reject::Invalid { field: "group", reason: "has at most 255 bytes".into() });
        }
        if weight.is_some_and(|weight| !(1..=limits::GROUP_WEIGHT_MAX).contains(&weight)) {
            return Err(Reject::Invalid { field: "weight", reason: "is 1 to 1000".into() });
        }
        let lineup = self.queues[queue as usize].lineup.as_ref();
        if lineup.is_some_and(|lineup| lineup.groups_set >= limits::GROUPS_SET_MAX) {
            let what = "groups of one queue with a weight or a pause";
            return Err(Reject::TooMany { what, limit: limits::GROUPS_SET_MAX as u64 });
        }
        self.ensure_lineup(queue);
        let lineup = self.lineup_mut(queue);
        let number = lineup.group(group);
        let resumed = lineup.groups[number].paused && paused == Some(false);
        lineup.set_group(number, weight, paused);
        self.dirty.groups.insert((queue, group.clone()));
        if resumed {
            self.unpark(queue, number);
        }
        let lineup = self.queues[queue as usize].lineup.as_mut().expect("the queue has a lineup");
        lineup.retire(queue, number, &mut self.dirty);
        self.drop_lineup(queue);
        Ok(Reply::Done)
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn groups_take_turns_whatever_their_backlogs() {
        check(
            "
            0s push mail x5 group=big ; mail x2 group=small ; mail id=p
            0s upnext mail                           -> #1 #6 p #2 #7 #3 #4 #5
            0s fetch mail max=4                      -> #1 1/5 t1, #6 1/5 t2, p 1/5 t3, #2 1/5 t4
            1s push mail id=late group=late
            1s fetch mail max=9                      -> #7 1/5 t5, late 1/5 t6, #3 1/5 t7, #4 1/5 t8, #5 1/5 t9
        ",
        );
    }

    #[test]
    fn a_group_with_twice_the_weight_gets_twice_the_starts() {
        check(
            "
            0s push mail x9 group=a ; mail x9 group=b
            0s group mail a weight=2                 -> ok
            0s fetch mail max=6        -> #1 1/5 t1, #10 1/5 t2, #2 1/5 t3, #3 1/5 t4, #11 1/5 t5, #4 1/5 t6
        ",
        );
    }

    #[test]
    fn a_group_that_was_idle_has_saved_nothing_up() {
        check(
            "
            0s push mail x4 group=a ; mail x1 group=b
            0s fetch mail max=4                      -> #1 1/5 t1, #5 1/5 t2, #2 1/5 t3, #3 1/5 t4
            0s push mail x3 group=b ; mail x3 group=a
            0s fetch mail max=9 -> #6 1/5 t5, #4 1/5 t6, #7 1/5 t7, #9 1/5 t8, #8 1/5 t9, #10 1/5 t10, #11 1/5 t11
        ",
        );
    }

    #[test]
    fn priority_counts_within_a_group() {
        check(
            "
            0s push mail id=a1 group=a ; mail id=a2 group=a p=0 ; mail id=b1 group=b p=200
            0s fetch mail max=9                      -> a2 1/5 t1, b1 1/5 t2, a1 1/5 t3
        ",
        );
    }

    #[test]
    fn a_paused_group_holds_its_jobs_alone() {
        check(
            "
            0s push mail id=a group=a ; mail id=b group=b
            0s group mail a paused=yes               -> ok
            0s fetch mail max=9                      -> b 1/5 t1
            0s why a                                 -> blocked group a paused at never
            0s push mail id=c group=a
            0s heard                                 ->
            1s group mail a paused=no                -> ok
            1s heard                                 -> 1 in mail
            1s fetch mail max=9                      -> a 1/5 t2, c 1/5 t3
            1s group nowhere a weight=2              -> ! unknown_queue
            1s group mail a weight=0                 -> ! invalid weight
        ",
        );
    }

    #[test]
    fn one_job_of_an_ordering_key_is_under_way_until_it_is_final() {
        check(
            "
            0s  push mail id=a order=k backoff=fixed:5s ; mail id=b order=k ; mail id=c order=other ; mail id=d
            0s  fetch mail max=9                     -> a 1/5 t1, c 1/5 t2, d 1/5 t3
            0s  why b                                -> blocked order k a at never
            1s  retry a t1 oops                      -> retrying
            1s  fetch mail                           -> none
            1s  why b                                -> blocked order k a at never
            6s  fetch mail                           -> a 2/5 t4
            7s  snooze a t4                          -> waiting
            7s  push mail id=z order=k p=0
            7s  fetch mail max=9                     -> a 2/5 t5
            8s  done a t5                            -> completed
            8s  heard                                -> 1 in mail
            8s  fetch mail max=9                     -> z 1/5 t6
            9s  cancel z                             -> cancelled
            9s  fetch mail max=9                     -> b 1/5 t7
            10s fail b t7 oops                       -> dead
            11s redrive b                            -> waiting
            11s fetch mail                           -> b 1/5 t8
        ",
        );
    }

    #[test]
    fn the_earliest_deadline_starts_first_within_a_priority() {
        check(
            "
            0s configure mail order=deadline         -> configured
            0s push mail id=none ; mail id=late deadline=9s ; mail id=soon deadline=5s ; mail id=low p=low deadline=1s
            0s upnext mail                           -> soon late none low
            0s fetch mail max=9                      -> soon 1/5 t1, late 1/5 t2, none 1/5 t3, low 1/5 t4
        ",
        );
    }

    #[test]
    fn waiting_makes_more_urgent_where_a_queue_ages() {
        check(
            "
            0s  configure mail order=aging:1s        -> configured
            0s  push mail id=low p=low
            49s push mail id=first p=normal
            51s push mail id=second p=normal
            51s upnext mail                          -> first low second
            51s fetch mail max=9                     -> first 1/5 t1, low 1/5 t2, second 1/5 t3
        ",
        );
    }
}
