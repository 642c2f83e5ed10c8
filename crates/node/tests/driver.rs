//! What the driver promises, one step at a time.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod common;

use common::{Rig, done, is_unknown, jobs, push, queue, tickets};
use kit::Durability::{Disk, Memory, Os, Quorum};
use model::{Command, DispatchedJob, JobRef, NewJob, State};
use node::{Answered, CallError, Options, Scarce};
use storage::files::{Damage, Operation};

#[test]
fn calls_of_one_batch_share_one_flush_and_are_answered_in_order_with_rising_positions() {
    let mut rig = Rig::new();
    for ticket in 0..100 {
        assert!(rig.offer(ticket, push("mail", 1), Disk).is_none());
    }
    let flushes = rig.files.count(Operation::Sync);
    let sealed = rig.seal().unwrap();
    assert_eq!(sealed.len(), 100);
    let answers = rig.write(sealed).answers;
    assert_eq!(rig.files.count(Operation::Sync), flushes + 1);
    let positions: Vec<u64> = answers.iter().map(|(_, answer)| answer.as_ref().unwrap().position).collect();
    assert_eq!(positions, (1..=100).collect::<Vec<_>>());
    assert_eq!(tickets(&answers), (0..100).collect::<Vec<_>>());
}

#[test]
fn nothing_is_applied_before_its_batch_is_written_and_a_second_batch_fills_meanwhile() {
    let mut rig = Rig::new();
    rig.offer(1, push("mail", 1), Disk);
    let mut first = rig.seal().unwrap();
    rig.offer(2, push("mail", 1), Disk);
    let mut second = rig.seal().unwrap();
    rig.writer.write(&mut first);
    rig.writer.write(&mut second);
    assert_eq!(rig.driver.shard().position(), 0);
    assert_eq!(tickets(&rig.driver.commit(first).answers), [1]);
    assert_eq!(tickets(&rig.driver.commit(second).answers), [2]);
    assert_eq!(rig.driver.shard().position(), 2);
}

#[test]
fn batches_committed_out_of_order_or_unwritten_stop_the_driver_instead_of_being_applied() {
    for swapped in [true, false] {
        let mut rig = Rig::new();
        rig.offer(1, push("mail", 1), Disk);
        let mut first = rig.seal().unwrap();
        rig.offer(2, push("mail", 1), Disk);
        let mut second = rig.seal().unwrap();
        if swapped {
            rig.writer.write(&mut first);
            rig.writer.write(&mut second);
        }
        assert!(rig.driver.commit(second).answers.iter().all(is_unknown));
        assert_eq!(rig.driver.shard().position(), 0);
        assert!(rig.driver.poison().is_some());
    }
}

#[test]
fn a_batch_reaches_the_strongest_level_asked_for_and_answers_name_it() {
    let mut rig = Rig::new();
    for (asked, reached) in [(vec![Memory], Memory), (vec![Memory, Os], Os), (vec![Os, Disk, Memory], Disk)] {
        for level in &asked {
            rig.offer(1, push("mail", 1), *level);
        }
        let syncs = rig.files.count(Operation::Sync);
        let sealed = rig.seal().unwrap();
        for (_, answer) in rig.write(sealed).answers {
            assert_eq!(answer.unwrap().durability, reached, "{asked:?}");
        }
        assert_eq!(rig.files.count(Operation::Sync) > syncs, reached == Disk, "{asked:?}");
    }
}

#[test]
fn what_was_acknowledged_below_disk_is_flushed_within_the_window_and_then_never_again() {
    let mut rig = Rig::new();
    rig.offer(1, push("mail", 1), Os);
    rig.settle();
    assert_eq!(rig.driver.next_due(), Some(rig.now + 50));
    rig.now = rig.now + 50;
    let syncs = rig.files.count(Operation::Sync);
    let sealed = rig.seal().unwrap();
    assert!(sealed.is_empty());
    rig.write(sealed);
    assert_eq!(rig.files.count(Operation::Sync), syncs + 1);
    assert!(rig.seal().is_none());
}

#[test]
fn a_level_that_the_log_does_not_keep_is_refused_before_anything_is_logged() {
    let mut rig = Rig::new();
    let refused = rig.offer(1, push("mail", 1), Quorum).unwrap();
    assert!(matches!(refused.1, Err(CallError::TooDurable { wanted: Quorum, strongest: Disk })));
    assert!(rig.seal().is_none());
}

#[test]
fn too_much_waiting_is_refused_and_taken_again_after_a_commit() {
    let mut rig = Rig::with(Options { pending_max: 2, ..Options::default() });
    assert!(rig.offer(1, push("mail", 1), Disk).is_none());
    assert!(rig.offer(2, push("mail", 1), Disk).is_none());
    assert!(matches!(rig.offer(3, push("mail", 1), Disk).unwrap().1, Err(CallError::Overloaded { .. })));
    rig.settle();
    assert!(rig.offer(4, push("mail", 1), Disk).is_none());
}

#[test]
fn a_full_memory_refuses_new_work_until_running_work_has_made_room() {
    let mut rig = Rig::with(Options { held_bytes_max: 20_000, ..Options::default() });
    let full = |answered: Option<Answered<u64>>| {
        answered.is_some_and(|(_, refused)| {
            matches!(refused, Err(CallError::Overloaded { scarce: Scarce::Memory, .. }))
        })
    };
    let mut pushes = 0;
    while !full(rig.offer(1, push("mail", 10), Disk)) {
        rig.settle();
        // What is on the disk has no copy in memory.
        assert!(rig.checkpoint());
        pushes += 1;
        assert!(pushes < 20, "nothing was refused");
    }
    assert!(rig.driver.stats().held_bytes > 10_000);

    rig.fetch(2, &["mail"], 20, 0);
    let answers = rig.settle();
    let leased = jobs(&answers[0]).to_vec();
    assert_eq!(leased.len(), 20);
    rig.offer(3, done(&leased), Disk);
    assert!(rig.settle()[0].1.is_ok());
    assert!(full(rig.offer(4, push("mail", 1), Disk)), "who is done is kept");
    let name = |job: &DispatchedJob| JobRef { queue: Some(queue("mail")), id: job.id.clone() };
    rig.offer(5, Command::Remove { jobs: leased.iter().map(name).collect() }, Disk);
    assert!(rig.settle()[0].1.is_ok());
    assert!(rig.checkpoint());
    assert!(rig.offer(6, push("mail", 1), Disk).is_none());
}

#[test]
fn after_a_failed_flush_nobody_gets_an_ok_any_more() {
    let mut rig = Rig::new();
    rig.fetch(1, &["other"], 1, 1_000);
    rig.offer(2, push("mail", 1), Disk);
    let first = rig.seal().unwrap();
    rig.offer(3, push("mail", 1), Disk);
    let mut second = rig.seal().unwrap();
    rig.offer(4, push("mail", 1), Disk);
    rig.files.inject(Operation::Sync, 1, Damage::Device);
    let answers = rig.write(first).answers;
    assert_eq!(tickets(&answers), [2, 4, 1], "the batch, what waits behind it, and waiting fetches");
    assert!(answers.iter().all(is_unknown));
    // The disk works again, which must not matter.
    rig.files.heal();
    rig.writer.write(&mut second);
    assert!(rig.driver.commit(second).answers.iter().all(is_unknown));
    assert!(is_unknown(&rig.offer(5, push("mail", 1), Memory).unwrap()));
    assert!(is_unknown(&rig.fetch(6, &["mail"], 1, 0).unwrap()));
    assert!(rig.seal().is_none() && rig.driver.snapshot().is_none());
    assert!(rig.writer.sync().is_err() && rig.writer.close().is_err());
    assert_eq!(rig.driver.shard().position(), 0);
}

#[test]
fn a_full_disk_refuses_new_work_lets_running_work_finish_and_heals_by_itself() {
    fill_and_heal(|now| now + 200);
}

#[test]
fn a_full_disk_heals_though_the_clock_was_set_back() {
    fill_and_heal(|now| kit::Timestamp(now.0 - 1_000));
}

fn fill_and_heal(later: impl Fn(kit::Timestamp) -> kit::Timestamp) {
    let mut rig = Rig::new();
    rig.offer(1, push("mail", 3), Disk);
    rig.settle();
    rig.fetch(2, &["mail"], 1, 0);
    let answers = rig.settle();
    let leased = jobs(&answers[0]).to_vec();

    // As large as it is now, and not a byte more.
    rig.files.set_capacity(Some(0));
    let mut refused = 0;
    for ticket in 10..200 {
        rig.offer(ticket, push("mail", 50), Disk);
        let answers = rig.settle();
        match &answers[0].1 {
            Ok(_) => assert_eq!(refused, 0, "it does not heal while the disk is full"),
            Err(CallError::DiskFull) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0 && rig.driver.stats().disk_full);
    let waiting = rig.driver.shard().queue(&queue("mail")).unwrap().counts.of(State::Waiting);
    // In one batch, what may pass does, and what may not changes nothing.
    rig.offer(1, push("mail", 1), Disk);
    rig.offer(2, done(&leased), Disk);
    let answers = rig.settle();
    assert!(matches!(answers[0].1, Err(CallError::DiskFull)));
    assert!(answers[1].1.is_ok());
    let view = rig.driver.shard().queue(&queue("mail")).unwrap();
    assert_eq!((view.counts.of(State::Waiting), view.counts.of(State::Completed)), (waiting, 1));

    rig.files.set_capacity(None);
    rig.now = later(rig.now);
    rig.offer(3, push("mail", 1), Disk);
    assert!(rig.settle()[0].1.is_ok());
    assert!(!rig.driver.stats().disk_full);
    let hash = rig.driver.shard().state_hash();
    rig.reopen();
    assert_eq!(rig.driver.shard().state_hash(), hash);
}

#[test]
fn one_job_wakes_one_waiting_fetch_the_longest_waiting_one() {
    let mut rig = Rig::new();
    for number in 1..=1_000 {
        assert!(rig.fetch(number, &["mail"], 10, 5_000).is_none());
    }
    assert!(rig.seal().is_none(), "waiting is not logged");
    rig.offer(0, push("mail", 1), Disk);
    let sealed = rig.seal().unwrap();
    assert_eq!(sealed.len(), 2, "one fetch for one job, and one flush for both");
    let answers = rig.write(sealed).answers;
    assert_eq!((tickets(&answers), jobs(&answers[1]).len()), (vec![0, 1], 1));
    assert!(rig.seal().is_none());
    // Three jobs for fetches of up to ten: again one is enough; it takes them all.
    rig.offer(0, push("mail", 3), Disk);
    let answers = rig.settle();
    assert_eq!((tickets(&answers), jobs(&answers[1]).len()), (vec![0, 2], 3));
    assert_eq!(rig.driver.stats().waiting_fetches, 998);
}

#[test]
fn fetches_that_come_at_once_do_not_log_more_than_there_is_work_for() {
    let mut rig = Rig::new();
    rig.offer(0, push("mail", 2), Disk);
    rig.settle();
    for number in 1..=50 {
        rig.fetch(number, &["mail"], 1, 5_000);
    }
    let sealed = rig.seal().unwrap();
    assert_eq!(sealed.len(), 2);
    assert_eq!(tickets(&rig.write(sealed).answers), [1, 2]);
    assert_eq!(rig.driver.stats().waiting_fetches, 48);
}

#[test]
fn a_waiter_held_back_by_anothers_claim_is_served_when_that_one_took_less() {
    let mut rig = Rig::new();
    rig.offer(0, push("a", 1), Disk);
    rig.offer(0, push("b", 1), Disk);
    rig.settle();
    // The first takes its job from `a`, and yet claims `b` until that is known.
    rig.fetch(1, &["a", "b"], 1, 5_000);
    rig.fetch(2, &["b"], 1, 5_000);
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [1, 2]);
    assert!(answers.iter().all(|answered| jobs(answered).len() == 1));
}

#[test]
fn a_woken_fetch_that_comes_back_empty_waits_on_in_its_old_place_and_for_its_old_time() {
    let mut rig = Rig::new();
    rig.offer(0, push("mail", 1), Disk);
    rig.fetch(0, &["mail"], 1, 500);
    rig.settle();
    rig.fetch(1, &["mail"], 1, 500);
    rig.fetch(2, &["mail"], 1, 900);
    // The push does not know yet that the queue will be paused.
    rig.offer(3, Command::Pause { queue: queue("mail") }, Disk);
    rig.offer(4, push("mail", 1), Disk);
    let sealed = rig.seal().unwrap();
    assert_eq!(sealed.len(), 3, "the pause, the push, and the fetch behind it");
    assert_eq!(tickets(&rig.write(sealed).answers), [3, 4]);
    assert_eq!(rig.driver.stats().waiting_fetches, 2);
    assert_eq!(rig.driver.next_due(), Some(rig.now + 500));
    rig.offer(5, Command::Resume { queue: queue("mail") }, Disk);
    assert_eq!(tickets(&rig.settle()), [5, 1], "and not 2, which came later");
}

#[test]
fn a_fetch_follows_only_jobs_that_may_start_at_once() {
    let mut rig = Rig::new();
    let batch = |rig: &mut Rig, command| {
        rig.offer(0, command, Disk);
        let sealed = rig.seal().unwrap();
        let commands = sealed.len();
        rig.write(sealed);
        commands
    };
    batch(&mut rig, push("held", 1));
    batch(&mut rig, Command::Pause { queue: queue("held") });
    for number in 1..=9 {
        rig.fetch(number, &["mail", "held", "later"], 2, 5_000);
    }
    assert_eq!(batch(&mut rig, push("other", 9)), 1, "nobody waits there");
    assert_eq!(batch(&mut rig, push("held", 9)), 1, "paused");
    let delayed = NewJob { delay_ms: 1, ..NewJob::new(queue("later"), "{}") };
    assert_eq!(batch(&mut rig, Command::Push { jobs: vec![delayed] }), 1, "not due");
    assert_eq!(batch(&mut rig, push("mail", 3)), 3, "two fetches of two jobs each, for three");
    assert_eq!(rig.driver.stats().waiting_fetches, 7);
}

#[test]
fn waits_end_with_nothing_at_their_time_and_a_withdrawn_one_is_never_served() {
    let mut rig = Rig::new();
    rig.fetch(1, &["mail"], 1, 500);
    rig.fetch(2, &["mail", "post"], 1, 900);
    rig.fetch(3, &["mail"], 1, 900);
    rig.driver.withdraw(2);
    assert_eq!(rig.driver.next_due(), Some(rig.now + 500));
    rig.now = rig.now + 500;
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [1]);
    assert!(jobs(&answers[0]).is_empty());
    rig.offer(0, push("post", 1), Disk);
    assert_eq!(tickets(&rig.settle()), [0], "2 is gone");
    let answers = rig.driver.stop();
    assert_eq!(tickets(&answers), [3]);
    assert!(jobs(&answers[0]).is_empty());
}

#[test]
fn waiting_fetches_are_bounded_and_a_fetch_without_wait_is_answered_without_logging() {
    let mut rig = Rig::with(Options { waiters_max: 1, ..Options::default() });
    assert!(jobs(&rig.fetch(1, &["mail"], 1, 0).unwrap()).is_empty());
    assert!(rig.fetch(2, &["mail"], 1, 100).is_none());
    assert!(matches!(rig.fetch(3, &["mail"], 1, 100).unwrap().1, Err(CallError::Overloaded { .. })));
    assert!(rig.seal().is_none());
}

#[test]
fn jobs_that_nobody_received_are_handed_back_without_using_an_attempt_or_waiting_for_the_lease() {
    let mut rig = Rig::new();
    rig.offer(0, push("mail", 2), Disk);
    rig.settle();
    rig.fetch(1, &["mail"], 2, 0);
    let answers = rig.settle();
    let leased = jobs(&answers[0]).to_vec();
    rig.driver.hand_back(&leased);
    rig.settle();
    rig.fetch(2, &["mail"], 2, 0);
    let answers = rig.settle();
    let again = jobs(&answers[0]);
    assert_eq!(again.len(), 2);
    assert!(
        again.iter().zip(&leased).all(|(new, old)| new.attempt == 1 && new.lease_token > old.lease_token)
    );
}

#[test]
fn timers_become_ticks_when_they_are_due_and_an_idle_driver_has_nothing_to_do() {
    let mut rig = Rig::new();
    assert_eq!(rig.driver.next_due(), None);
    let mut job = model::NewJob::new(queue("mail"), "later");
    job.delay_ms = 700;
    rig.offer(0, Command::Push { jobs: vec![job] }, Disk);
    rig.fetch(1, &["mail"], 1, 5_000);
    rig.settle();
    assert!(rig.seal().is_none());
    assert_eq!(rig.driver.next_due(), Some(rig.now + 700));
    rig.now = rig.now + 700;
    let sealed = rig.seal().unwrap();
    assert_eq!(sealed.len(), 1);
    assert!(rig.seal().is_none(), "one tick at a time");
    rig.write(sealed);
    assert_eq!(tickets(&rig.settle()), [1]);
}

#[test]
fn time_in_the_log_never_runs_backwards() {
    let mut rig = Rig::new();
    rig.offer(0, push("mail", 1), Disk);
    rig.settle();
    let late = rig.now;
    rig.now = kit::Timestamp(5);
    rig.offer(0, push("mail", 1), Disk);
    rig.settle();
    assert_eq!(rig.driver.shard().time(), late);
}

#[test]
fn a_restart_finds_the_same_state_from_the_log_from_the_checkpoint_and_from_both() {
    let mut rig = Rig::new();
    for round in 0..6_u64 {
        rig.offer(0, push("mail", 20), Disk);
        rig.fetch(round, &["mail"], 7, 0);
        let answers = rig.settle();
        let leased: Vec<_> = answers
            .iter()
            .filter(|(_, a)| matches!(a, Ok(a) if matches!(a.reply, model::Reply::Fetched(_))))
            .flat_map(jobs)
            .cloned()
            .collect();
        rig.offer(0, done(&leased[..leased.len() / 2]), Disk);
        rig.settle();
        if round % 2 == 1 {
            assert!(rig.checkpoint());
            assert!(!rig.checkpoint(), "nothing changed since");
            assert_eq!(rig.driver.checkpoint_due(), None);
        }
        let hash = rig.driver.shard().state_hash();
        rig.reopen();
        assert_eq!(rig.driver.shard().state_hash(), hash, "round {round}");
        assert_eq!(rig.driver.stats().recovered_records == 0, round % 2 == 1);
        rig.driver.shard().check().unwrap();
    }
}

#[test]
fn a_checkpoint_is_due_some_time_after_the_first_change_or_at_once_when_much_changed() {
    let mut rig = Rig::with(Options { checkpoint_bytes: 10_000, ..Options::default() });
    rig.offer(0, push("mail", 1), Disk);
    rig.settle();
    assert_eq!(rig.driver.checkpoint_due(), Some(rig.now + 5_000));
    rig.offer(0, push("mail", 1_000), Disk);
    rig.settle();
    assert!(rig.driver.checkpoint_due().unwrap() <= rig.now);
    let snapshot = rig.driver.snapshot().unwrap();
    rig.offer(0, push("mail", 1_000), Disk);
    rig.settle();
    assert_eq!(rig.driver.checkpoint_due(), None, "one at a time");
    rig.driver.not_stored(snapshot, rig.now);
    assert_eq!(rig.driver.checkpoint_due(), Some(rig.now + 1_000));
    assert!(rig.checkpoint());
}

#[test]
fn a_checkpoint_flushes_what_it_covers_before_it_is_written() {
    let mut rig = Rig::new();
    rig.offer(0, push("mail", 1), Memory);
    rig.settle();
    let syncs = rig.files.count(Operation::Sync);
    assert!(rig.checkpoint());
    assert!(rig.files.count(Operation::Sync) > syncs);
    // And if that is not possible, it is not written.
    rig.offer(0, push("mail", 1), Memory);
    rig.settle();
    rig.files.inject(Operation::Sync, 1, Damage::Device);
    let snapshot = rig.driver.snapshot().unwrap();
    assert!(rig.keeper.store(&snapshot, &rig.writer).is_err());
    assert_ne!(storage::Checkpoints::mark(&rig.checkpoints, 0).unwrap().unwrap(), snapshot.mark);
}
