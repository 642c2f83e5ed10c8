use crate::{
    bulk::{Bulk, Cursor, scope, states},
    shard::{Context, Shard},
};
use compact_str::CompactString;
use kit::{Timestamp, json};
use model::{
    Actor, BodyTest, BulkAction, BulkStatus, Filter, NewBulk, QueueName, Reject, Reply, State, limits,
};

impl Shard {
    /// Starts an operation over all jobs that match now. The work itself is done by ticks.
    pub(crate) fn start_bulk(&mut self, asked: &NewBulk, context: &mut Context<'_>) -> Result<Reply, Reject> {
        let planned = self.plan_bulk(asked)?;
        if self.bulks.values().filter(|bulk| !bulk.status.is_over()).count() >= limits::BULKS_MAX {
            return Err(Reject::TooMany {
                what: "bulk operations under way",
                limit: limits::BULKS_MAX as u64,
            });
        }
        if let BulkAction::Move { to } = &asked.action {
            self.ensure_queue(to);
        }
        self.counters.bulk += 1;
        let id = self.counters.bulk;
        let bulk = Bulk { id, by: context.actor.clone(), started_at: context.now, ..planned };
        let view = bulk.view(&asked.queue);
        self.dirty.bulks.insert(id);
        self.bulks.insert(id, bulk);
        Ok(Reply::Operation(Box::new(view)))
    }

    /// The operation as it would begin now, or why it is refused.
    pub(crate) fn plan_bulk(&self, asked: &NewBulk) -> Result<Bulk, Reject> {
        let NewBulk { queue: name, action, filter, rate, reason } = asked;
        let queue = self.known_queue(name)?;
        let (_, allowed) = scope(action);
        if filter.states.iter().any(|state| !allowed.contains(state)) {
            return invalid("state", wanted(action, allowed));
        }
        check_filter(filter)?;
        self.check_action(name, action)?;
        if *rate > limits::BULK_RATE_MAX {
            return invalid("rate", "is at most 100000 jobs per second; 0 for no limit");
        }
        if reason.len() > limits::LOG_LINE_BYTES_MAX {
            return invalid("reason", "has at most 4096 bytes");
        }
        let counts = &self.queues[queue as usize].counts;
        Ok(Bulk {
            id: 0,
            queue,
            action: action.clone(),
            filter: filter.clone(),
            rate: *rate,
            reason: reason.clone(),
            by: Actor::default(),
            status: BulkStatus::Running,
            newest: self.counters.sequence,
            newest_order: self.counters.order,
            cursor: Cursor::stage(0, self.counters.order),
            total: states(action, filter).into_iter().map(|state| counts.of(state)).sum(),
            examined: 0,
            changed: 0,
            skipped: 0,
            started_at: Timestamp::ZERO,
            finished_at: None,
            worked_at: Timestamp::ZERO,
            worked_position: 0,
            credit: 0,
        })
    }

    fn check_action(&self, queue: &QueueName, action: &BulkAction) -> Result<(), Reject> {
        match action {
            BulkAction::Purge
            | BulkAction::Redrive
            | BulkAction::Remove
            | BulkAction::Cancel
            | BulkAction::Promote
            | BulkAction::Reprioritise { .. } => Ok(()),
            BulkAction::Retag { add, remove } => check_tags(add, remove),
            BulkAction::Move { to } if to == queue => invalid("to", "is another queue"),
            BulkAction::Move { to } => {
                let room = self.queues.len() < limits::QUEUES_MAX || self.queue_index.contains_key(to);
                let full = Reject::TooMany { what: "queues", limit: limits::QUEUES_MAX as u64 };
                if room { Ok(()) } else { Err(full) }
            }
        }
    }
}

fn invalid<T>(field: &'static str, reason: impl Into<CompactString>) -> Result<T, Reject> {
    Err(Reject::Invalid { field, reason: reason.into() })
}

/// Tags that a push would take, too.
fn check_tags(add: &[CompactString], remove: &[CompactString]) -> Result<(), Reject> {
    let fits = |tag: &CompactString| (1..=limits::TAG_BYTES_MAX).contains(&tag.len());
    if add.is_empty() && remove.is_empty() {
        return invalid("add", "or `remove` names at least one tag");
    }
    if add.len().max(remove.len()) > limits::TAGS_MAX || !add.iter().chain(remove).all(fits) {
        return invalid("tags", "are at most 32, each of 1 to 128 bytes");
    }
    match add.iter().find(|tag| remove.contains(tag)) {
        Some(tag) => invalid("add", format!("and `remove` both name {tag}")),
        None => Ok(()),
    }
}

fn check_filter(filter: &Filter) -> Result<(), Reject> {
    let Filter { states, tags_any, tags_all, error_kind, error_contains, id_prefix, body, .. } = filter;
    let longest = states.len().max(tags_any.len()).max(tags_all.len()).max(body.len());
    if longest > limits::FILTER_LIST_MAX {
        return invalid("filter", "names at most 32 of each thing");
    }
    let texts = tags_any.iter().chain(tags_all).chain(error_kind).chain(error_contains).chain(id_prefix);
    let mut texts = texts.chain(body.iter().flat_map(|test| [&test.path, &test.value]));
    if texts.any(|text| text.len() > limits::FILTER_BYTES_MAX) {
        return invalid("filter", "has texts of at most 1024 bytes");
    }
    body.iter().try_for_each(|BodyTest { path, value, .. }| {
        if !json::is_pointer(path) {
            return invalid("body.path", "is a JSON pointer, such as /customer/id");
        }
        if json::Scalar::parse(value.as_bytes()).is_none() {
            return invalid("body.value", "is a JSON string, number, true, false or null");
        }
        Ok(())
    })
}

fn wanted(action: &BulkAction, allowed: &[State]) -> String {
    let states: Vec<_> = allowed.iter().map(|state| state.name()).collect();
    format!("{} takes jobs that are {}", action.name(), states.join(", "))
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_purge_takes_what_has_not_started_a_little_at_each_tick() {
        check(
            "
            0s push mail id=run
            0s fetch mail                -> run 1/5 t1
            0s push mail x1500 ; mail x300 delay=1h
            0s bulk purge mail           -> bulk 1: 0 of 0
            0s counts mail               -> 1500 waiting, 300 delayed, 1 active
            0s next                      -> 0s
            1s push mail id=new
            1s tick
            1s next                      -> 1005ms
            1s tick
            1s bulks                     -> bulk 1: 1000 of 1000
            2s tick
            2s bulks                     -> bulk 1: 1800 of 1801 finished
            2s counts mail               -> 1 waiting, 1 active
            2s fetch mail                -> new 1/5 t2
            3s next                      -> 30s
        ",
        );
    }

    #[test]
    fn no_fetch_overtakes_a_purge() {
        check(
            "
            0s push mail id=a ; mail id=b tag=red ; mail id=c delay=5s tag=red
            0s bulk purge mail tag=red   -> bulk 1: 0 of 0
            5s push mail id=d tag=red
            5s fetch mail max=9          -> a 1/5 t1, d 1/5 t2
            5s bulks                     -> bulk 1: 2 of 2
            6s tick
            6s bulks                     -> bulk 1: 2 of 2 finished
            6s show c                    -> gone
        ",
        );
    }

    #[test]
    fn a_redrive_gives_each_dead_job_one_life() {
        check(
            "
            0s push mail id=a attempts=1 ; mail id=b attempts=1 ; mail id=c
            0s fetch mail max=3          -> a 1/1 t1, b 1/1 t2, c 1/5 t3
            0s fail a t1 oops            -> dead
            0s fail b t2 TypeError       -> dead
            1s bulk redrive mail kind=oops -> bulk 1: 0 of 0
            1s fail c t3 oops            -> dead
            2s tick
            2s bulks                     -> bulk 1: 1 of 2 finished
            2s upcoming mail             -> a
            2s show c                    -> dead 1/5
        ",
        );
    }

    #[test]
    fn a_job_that_dies_again_is_not_redriven_for_ever() {
        check(
            "
            0s push mail x1002 attempts=1
            0s fetch mail max=2000 lease=100ms
            1s tick
            1s counts mail               -> 2 active, 1000 dead
            1s bulk redrive mail         -> bulk 1: 0 of 0
            1s counts mail               -> 1002 dead
            2s tick
            2s counts mail               -> 1000 waiting, 2 dead
            2s fetch mail                -> #1 1/1 t1003
            2s fail #1 t1003 oops        -> dead
            3s tick
            3s bulks                     -> bulk 1: 1002 of 1002 finished
            3s counts mail               -> 1001 waiting, 1 dead
        ",
        );
    }

    #[test]
    fn a_bulk_remove_and_a_bulk_cancel_take_what_they_are_for() {
        check(
            "
            0s push mail id=a ; mail id=b delay=1h ; mail id=c
            1s cancel c                  -> cancelled
            2s fetch mail                -> a 1/5 t1
            3s bulk cancel mail          -> bulk 1: 0 of 0
            4s tick
            4s heard                     -> w1 lost a t1 cancelled
            4s counts mail               -> 3 cancelled
            5s bulk remove mail before=0s -> bulk 2: 0 of 0
            5s tick
            5s counts mail               -> 3 cancelled
            6s bulk remove mail state=cancelled -> bulk 3: 0 of 0
            6s tick
            6s bulks -> bulk 1: 2 of 2 finished, bulk 2: 0 of 3 finished, bulk 3: 3 of 3 finished
            6s counts mail               ->
        ",
        );
    }

    #[test]
    fn a_purge_by_state_leaves_what_enters_that_state_later() {
        check(
            "
            0s push mail id=a ; mail id=b delay=1s
            0s bulk purge mail state=waiting -> bulk 1: 0 of 0
            1s fetch mail max=9              -> b 1/5 t1
            1s tick
            1s bulks                         -> bulk 1: 1 of 1 finished
        ",
        );
    }

    #[test]
    fn an_action_on_a_state_it_is_not_for_is_refused() {
        check(
            "
            0s push mail id=a
            0s bulk purge mail state=active      -> ! invalid state
            0s bulk purge mail state=dead        -> ! invalid state
            0s bulk redrive mail state=waiting   -> ! invalid state
            0s bulk remove mail state=retrying   -> ! invalid state
            0s bulk cancel mail state=completed  -> ! invalid state
            0s bulk purge nowhere                -> ! unknown_queue
        ",
        );
    }

    #[test]
    fn ended_operations_are_kept_for_a_while_and_running_ones_are_bounded() {
        let mut script = check("0s push mail id=a");
        for _ in 0..256 {
            script.line("1s bulk purge mail tag=none");
        }
        assert_eq!(script.line("1s bulk purge mail"), "! too_many 256");
        script.line("2s tick");
        let bulks = script.line("2s bulks");
        assert_eq!(bulks.split(", ").count(), model::limits::BULKS_KEPT);
        assert!(bulks.starts_with("bulk 225: 0 of 1 finished"), "{bulks}");
    }

    #[test]
    fn every_condition_of_a_filter_must_hold() {
        let pushed = "
            0s push mail id=a-1 tag=red,big p=10 ; mail id=a-2 tag=red ; mail id=b-1 tag=blue p=200 attempts=2
            1s push mail id=b-2
            2s fetch mail max=9          -> a-1 1/5 t1, a-2 1/5 t2, b-2 1/5 t3, b-1 1/2 t4
            2s retry a-1 t1 boom after=1h -> retrying
            3s fail a-2 t2 crash         -> dead
            4s fail b-1 t4 boom          -> dead
            5s snooze b-2 t3 after=1h    -> delayed
            6s bulk retag mail add=hit";
        let everything = "state=active,delayed,waiting,retrying,dead";
        for (filter, hit) in [
            ("any=blue,big", "a-1 b-1"),
            ("tag=red,big", "a-1"),
            ("kind=boom", "a-1 b-1"),
            ("text=ras", "a-2"),
            ("before=1s", "a-1 a-2 b-1"),
            ("after=1s", "b-2"),
            ("ended_before=4s", "a-2"),
            ("ended_after=4s", "b-1"),
            ("pmin=11", "a-2 b-1 b-2"),
            ("pmax=100", "a-1 a-2 b-2"),
            ("amin=1", "a-1 a-2 b-1"),
            ("amax=0", "b-2"),
            ("prefix=a-", "a-1 a-2"),
            ("prefix=a- any=big kind=boom amin=1 pmax=10", "a-1"),
            ("prefix=a- any=big kind=boom amin=1 pmax=9", ""),
        ] {
            let mut script = check(&format!("{pushed} {everything} {filter}"));
            script.line("7s tick");
            assert_eq!(script.line("7s tagged mail hit"), hit, "{filter}");
        }
    }

    #[test]
    fn a_retag_changes_what_is_not_yet_so() {
        check(
            "
            0s push mail id=a tag=x,y ; mail id=b tag=z ; mail id=c ; mail id=d tag=z,x delay=1h
            0s fetch mail                -> a 1/5 t1
            0s bulk retag mail add=z drop=x -> bulk 1: 0 of 0
            1s tick
            1s bulks                     -> bulk 1: 3 of 4 finished
            1s tags a                    -> y z
            1s tags b                    -> z
            1s tags c                    -> z
            1s tags d                    -> z
            1s bulk retag mail drop=z    -> bulk 2: 0 of 0
            2s tick
            2s tags b                    ->
            2s bulk retag mail           -> ! invalid add
            2s bulk retag mail add=q drop=q -> ! invalid add
        ",
        );
    }

    #[test]
    fn a_job_with_as_many_tags_as_it_may_have_is_skipped() {
        let tags = (0..32).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let mut script = check(&format!("0s push mail id=a tag={tags} ; mail id=b"));
        script.line("0s bulk retag mail add=one-more");
        script.line("1s tick");
        assert_eq!(script.line("1s bulks"), "bulk 1: 1 of 2, 1 skipped finished");
    }

    #[test]
    fn a_job_of_another_priority_stands_at_the_end_of_its_new_line() {
        check(
            "
            0s push mail id=a p=low ; mail id=b ; mail id=c p=low ; mail id=d p=critical ; mail id=e p=low delay=5s
            0s bulk reprioritise mail p=normal by=ops state=waiting pmin=150 -> bulk 1: 0 of 0
            1s tick
            1s bulks                     -> bulk 1: 2 of 4 finished
            1s upcoming mail             -> d b a c
            1s history a                 -> 0s 1 w1 push waiting 0, 1s 3 ops reprioritise waiting 0
            2s bulk reprioritise mail p=high -> bulk 2: 0 of 0
            2s fetch mail                -> d 1/5 t1
            3s tick
            3s bulks                     -> bulk 1: 2 of 4 finished, bulk 2: 5 of 5 finished
            3s retry d t1 oops after=1s  -> retrying
            6s tick
            6s upcoming mail             -> b a c d e
        ",
        );
    }

    #[test]
    fn a_moved_job_keeps_its_identity_its_attempts_and_its_history() {
        check(
            "
            0s push mail id=a unique=k ; mail id=b delay=1h ; mail id=c ; mail id=d
            0s fetch mail                -> a 1/5 t1
            1s retry a t1 oops after=1h  -> retrying
            1s fetch mail                -> c 1/5 t2
            2s bulk move mail to=post    -> bulk 1: 0 of 0
            3s tick
            3s bulks                     -> bulk 1: 3 of 3 finished
            3s counts mail               -> 1 active
            3s counts post               -> 1 waiting, 1 delayed, 1 retrying
            3s show post/a               -> retrying 1/5 due 3601s
            3s history post/a -> 0s 1 w1 push waiting 0, 0s 2 w1 fetch active 1, 1s 3 w1 fail retrying 1 oops, 3s 6 w1 move retrying 1
            4s promote post/a            -> waiting
            4s push post unique=k        -> a waiting again
            4s push mail id=a unique=k   -> a waiting
            5s fetch post max=9          -> d 1/5 t3, a 2/5 t4
        ",
        );
    }

    #[test]
    fn a_job_that_the_other_queue_cannot_take_stays() {
        check(
            "
            0s configure post jobs=3
            0s push post id=a ; post id=x unique=k
            0s push mail id=a ; mail id=b unique=k ; mail id=c ; mail id=d
            0s bulk move mail to=mail    -> ! invalid to
            0s bulk move mail to=post    -> bulk 1: 0 of 0
            1s tick
            1s bulks                     -> bulk 1: 1 of 4, 3 skipped finished
            1s upcoming mail             -> a b d
            1s upcoming post             -> a x c
        ",
        );
    }

    #[test]
    fn a_dead_job_is_moved_if_the_filter_says_so_and_kept_from_then_on() {
        check(
            "
            0s  configure mail keep_dead=10s:9
            0s  configure post keep_dead=10s:9
            0s  push mail id=a
            0s  fetch mail               -> a 1/5 t1
            1s  fail a t1 oops           -> dead
            5s  bulk move mail to=post state=dead -> bulk 1: 0 of 0
            5s  tick
            5s  counts post              -> 1 dead
            14s counts post              -> 1 dead
            14s redrive post/a           -> waiting
            15s fetch post               -> a 1/5 t2
        ",
        );
    }

    #[test]
    fn a_promotion_calls_up_what_is_delayed() {
        check(
            "
            0s push mail id=a delay=1h ; mail id=b delay=2h tag=x ; mail id=c
            0s bulk promote mail tag=x   -> bulk 1: 0 of 0
            1s tick
            1s heard                     -> 1 in mail
            1s bulks                     -> bulk 1: 1 of 2 finished
            1s upcoming mail             -> c b
        ",
        );
    }

    #[test]
    fn a_rate_is_kept_in_the_time_of_the_log() {
        check(
            "
            0s     push mail x100 attempts=1
            0s     fetch mail max=100 lease=100ms
            100ms  tick
            100ms  counts mail             -> 100 dead
            1s     bulk redrive mail rate=20 -> bulk 1: 0 of 0
            1s     next                    -> 1s
            1s     tick
            1s     counts mail             -> 2 waiting, 98 dead
            1s     next                    -> 1100ms
            1050ms tick
            1050ms counts mail             -> 2 waiting, 98 dead
            1100ms tick
            1100ms counts mail             -> 4 waiting, 96 dead
            1300ms tick
            1300ms counts mail             -> 8 waiting, 92 dead
            // However long nobody looked, no more than the work of a second is made up for.
            9s     tick
            9s     counts mail             -> 28 waiting, 72 dead
            9s     bulk redrive mail rate=100001 -> ! invalid rate
        ",
        );
    }

    #[test]
    fn operations_share_the_time_evenly_and_one_that_waits_holds_up_no_other() {
        check(
            "
            0s push mail x800 ; post x800
            0s bulk cancel mail rate=10  -> bulk 1: 0 of 0
            0s bulk purge mail p=1       -> bulk 2: 0 of 0
            0s bulk purge post           -> bulk 3: 0 of 0
            1s tick
            1s bulks                     -> bulk 1: 1 of 1, bulk 2: 500 of 500, bulk 3: 499 of 499
            2s tick
            2s bulks                     -> bulk 1: 11 of 11, bulk 2: 789 of 789 finished, bulk 3: 800 of 800 finished
        ",
        );
    }

    #[test]
    fn a_fetch_that_gave_up_before_a_purge_is_woken_when_it_has_moved_on() {
        check(
            "
            0s push mail x100 tag=red ; mail id=z
            0s bulk purge mail tag=red   -> bulk 1: 0 of 0
            0s fetch mail                -> none
            0s bulks                     -> bulk 1: 64 of 64
            1s tick
            1s heard                     -> 1 in mail
            1s fetch mail                -> z 1/5 t1
        ",
        );
    }

    #[test]
    fn running_jobs_are_cancelled_by_a_filter_with_the_reason_given() {
        check(
            "
            0s push mail id=a tag=eu ; mail id=b ; mail id=c tag=eu
            0s fetch mail max=2          -> a 1/5 t1, b 1/5 t2
            1s bulk cancel mail tag=eu by=ops why=recalled -> bulk 1: 0 of 0
            1s tick
            1s heard                     -> w1 lost a t1 cancelled
            1s done a t1                 -> ! cancelled
            1s done b t2                 -> completed
            1s history c                 -> 0s 1 w1 push waiting 0, 1s 4 ops cancel cancelled 0 cancelled
        ",
        );
    }

    #[test]
    fn a_walk_ends_although_new_jobs_keep_coming() {
        let mut script = check("0s push mail x1500");
        script.line("0s bulk purge mail tag=none");
        script.line("1s tick");
        script.line("1s push mail x5000");
        script.line("2s tick");
        assert_eq!(script.line("2s bulks"), "bulk 1: 0 of 1500 finished");
    }

    #[test]
    fn a_filter_is_bounded_and_its_conditions_on_bodies_are_sound() {
        let long = "x".repeat(1_025);
        let many = (0..33).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let mut script = check("0s push mail");
        assert_eq!(script.line(&format!("0s bulk purge mail text={long}")), "! invalid filter");
        assert_eq!(script.line(&format!("0s bulk purge mail any={many}")), "! invalid filter");
        assert_eq!(script.line("0s bulk purge mail body=[1]"), "! invalid body.value");
        assert_eq!(script.line("0s bulk purge mail path=customer body=1"), "! invalid body.path");
    }
}
