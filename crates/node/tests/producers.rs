//! Pushes that wait for room.
#![allow(clippy::unwrap_used, reason = "tests may")]

mod common;

use common::{Rig, done, is_unknown, jobs, push, queue, tickets};
use kit::Durability::Disk;
use model::{Capacity, Command, DispatchedJob, NewJob, OnFull, QueuePatch, Reject, Reply, State};
use node::{Answered, CallError, Options};
use storage::files::{Damage, Operation};

fn capacity(name: &str, jobs: u64, bytes: u64, on_full: OnFull) -> Command {
    let capacity = Some(Capacity { jobs, bytes, on_full });
    Command::Configure { queue: queue(name), patch: QueuePatch { capacity, ..QueuePatch::default() } }
}

/// A rig whose queue `mail` blocks at so many jobs, and is full.
fn full(jobs: usize, options: Options) -> Rig {
    let mut rig = Rig::with(options);
    rig.offer(0, capacity("mail", jobs as u64, 0, OnFull::Block), Disk);
    rig.push(0, push("mail", jobs), 0);
    assert_eq!(rig.settle().len(), 2);
    rig
}

fn fetch(rig: &mut Rig, max: u32) -> Vec<DispatchedJob> {
    rig.fetch(0, &["mail"], max, 0);
    jobs(&rig.settle()[0]).to_vec()
}

fn is_full(answered: &Answered<u64>) -> bool {
    matches!(&answered.1, Err(CallError::Refused(reject @ Reject::QueueFull { .. })) if reject.retry_after_ms().is_some())
}

fn live(rig: &Rig) -> u64 {
    rig.driver.shard().queue(&queue("mail")).unwrap().counts.live()
}

#[test]
fn a_push_waits_for_room_and_gets_through_when_a_job_ends() {
    let mut rig = full(2, Options::default());
    assert!(rig.push(7, push("mail", 1), 5_000).is_none());
    assert_eq!(tickets(&rig.settle()), []);
    assert_eq!((rig.driver.stats().waiting_pushes, rig.driver.producers(&queue("mail"))), (1, 1));
    let taken = fetch(&mut rig, 1);
    assert_eq!(rig.driver.stats().waiting_pushes, 1, "a running job holds its place");
    rig.offer(1, done(&taken), Disk);
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [1, 7]);
    assert!(matches!(&answers[1].1.as_ref().unwrap().reply, Reply::Pushed(pushed) if pushed.len() == 1));
    assert_eq!((rig.driver.stats().waiting_pushes, live(&rig)), (0, 2));
}

#[test]
fn a_stream_of_small_pushes_does_not_starve_a_large_one() {
    let mut rig = full(4, Options::default());
    rig.push(10, push("mail", 3), 60_000);
    for number in 11..20 {
        rig.push(number, push("mail", 1), 60_000);
    }
    assert_eq!(tickets(&rig.settle()), []);
    // Room for any of the small ones, but it is not their turn; nor that of one that comes now, whether it waits or not.
    for _ in 0..2 {
        let taken = fetch(&mut rig, 1);
        rig.offer(1, done(&taken), Disk);
        assert_eq!(tickets(&rig.settle()), [1]);
        assert!(is_full(&rig.push(30, push("mail", 1), 0).unwrap()));
    }
    let taken = fetch(&mut rig, 1);
    rig.offer(1, done(&taken), Disk);
    assert_eq!(tickets(&rig.settle()), [1, 10]);
    let taken = fetch(&mut rig, 4);
    rig.offer(1, done(&taken[..2]), Disk);
    assert_eq!(tickets(&rig.settle()), [1, 11, 12]);
}

#[test]
fn as_many_pushes_are_logged_again_as_there_is_room_for() {
    let mut rig = full(3, Options::default());
    for number in 10..40 {
        rig.push(number, push("mail", 1), 60_000);
    }
    rig.settle();
    let taken = fetch(&mut rig, 3);
    rig.offer(1, done(&taken[..2]), Disk);
    let sealed = rig.seal().unwrap();
    rig.write(sealed);
    let sealed = rig.seal().unwrap();
    assert_eq!(sealed.len(), 2);
    // What ends before their answers are known makes room for one more, and not for the same ones again.
    rig.offer(2, done(&taken[2..]), Disk);
    assert_eq!(tickets(&rig.write(sealed).answers), [10, 11]);
    assert_eq!(tickets(&rig.settle()), [2, 12]);
    assert_eq!(live(&rig), 3);
}

#[test]
fn a_wait_ends_with_the_refusal_of_a_full_queue() {
    let mut rig = full(1, Options::default());
    rig.push(7, push("mail", 1), 500);
    rig.push(8, push("mail", 1), 0);
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [8], "it would not wait");
    assert!(is_full(&answers[0]));
    assert_eq!(rig.driver.next_due(), Some(rig.now + 500));
    rig.now = rig.now + 500;
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [7]);
    assert!(is_full(&answers[0]));
    assert_eq!((live(&rig), rig.driver.stats().waiting_pushes), (1, 0));
}

#[test]
fn only_a_queue_that_blocks_lets_its_producers_wait_and_only_for_what_could_fit() {
    let mut rig = full(2, Options::default());
    rig.offer(0, capacity("post", 1, 0, OnFull::Reject), Disk);
    rig.settle();
    rig.push(1, push("post", 2), 5_000);
    rig.push(2, push("mail", 3), 5_000);
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [1, 2]);
    assert!(answers.iter().all(is_full));
}

#[test]
fn a_push_that_is_withdrawn_leaves_no_trace_and_lets_those_behind_it_pass() {
    let mut rig = full(3, Options::default());
    rig.push(7, push("mail", 3), 60_000);
    rig.push(8, push("mail", 1), 60_000);
    rig.settle();
    let taken = fetch(&mut rig, 1);
    rig.offer(1, done(&taken), Disk);
    assert_eq!(tickets(&rig.settle()), [1]);
    rig.driver.withdraw(7);
    assert_eq!(tickets(&rig.settle()), [8]);
    let taken = fetch(&mut rig, 3);
    rig.offer(1, done(&taken), Disk);
    assert_eq!(tickets(&rig.settle()), [1]);
    assert_eq!(live(&rig), 0);
}

#[test]
fn those_behind_one_that_gave_up_pass_too() {
    let mut rig = full(3, Options::default());
    rig.push(7, push("mail", 3), 100);
    rig.push(8, push("mail", 1), 60_000);
    rig.settle();
    let taken = fetch(&mut rig, 1);
    rig.offer(1, done(&taken), Disk);
    assert_eq!(tickets(&rig.settle()), [1]);
    rig.now = rig.now + 100;
    assert_eq!(tickets(&rig.settle()), [7, 8]);
}

#[test]
fn room_comes_from_settings_and_removals_as_well() {
    let mut rig = full(2, Options::default());
    rig.push(7, push("mail", 1), 60_000);
    rig.settle();
    rig.offer(1, capacity("mail", 3, 0, OnFull::Block), Disk);
    assert_eq!(tickets(&rig.settle()), [1, 7]);
    rig.push(8, push("mail", 1), 60_000);
    rig.settle();
    // The rule changes while one waits: it is asked again, and refused.
    rig.offer(2, capacity("mail", 3, 0, OnFull::Reject), Disk);
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [2, 8]);
    assert!(is_full(&answers[1]));
    rig.offer(3, capacity("mail", 3, 0, OnFull::Block), Disk);
    rig.push(9, push("mail", 1), 60_000);
    assert_eq!(tickets(&rig.settle()), [3]);
    let waiting = &rig.driver.shard().upcoming(&queue("mail"), 1).unwrap()[0];
    let job = model::JobRef { queue: Some(queue("mail")), id: waiting.0.id.clone() };
    rig.offer(4, Command::Cancel { job, reason: "".into() }, Disk);
    assert_eq!(tickets(&rig.settle()), [4, 9]);
}

#[test]
fn bytes_count_as_jobs_do() {
    let mut rig = Rig::new();
    rig.offer(0, capacity("mail", 0, 20, OnFull::Block), Disk);
    let of = |bytes: usize| Command::Push { jobs: vec![NewJob::new(queue("mail"), vec![b'x'; bytes])] };
    rig.push(1, of(15), 0);
    rig.push(2, of(10), 60_000);
    rig.push(3, of(5), 60_000);
    assert_eq!(tickets(&rig.settle()), [0, 1, 3], "it came in the same batch, and it fits");
    rig.push(4, of(0), 60_000);
    let taken = fetch(&mut rig, 1);
    rig.offer(5, done(&taken), Disk);
    assert_eq!(tickets(&rig.settle()), [5, 2, 4]);
}

#[test]
fn a_push_to_several_queues_waits_for_all_of_them_and_keeps_its_place_in_each() {
    let mut rig = full(1, Options::default());
    rig.offer(0, capacity("post", 1, 0, OnFull::Block), Disk);
    rig.settle();
    let both =
        || Command::Push { jobs: vec![NewJob::new(queue("post"), "b"), NewJob::new(queue("mail"), "a")] };
    rig.push(7, both(), 60_000);
    rig.settle();
    rig.push(8, push("post", 1), 60_000);
    assert_eq!(
        tickets(&rig.settle()),
        [],
        "the second in line for `post`, which has room, is behind the first"
    );
    rig.push(9, push("mail", 1), 60_000);
    let taken = fetch(&mut rig, 1);
    rig.offer(1, done(&taken), Disk);
    assert_eq!(tickets(&rig.settle()), [1, 7]);
    assert_eq!(rig.driver.producers(&queue("post")), 1);
}

#[test]
fn waiting_pushes_are_bounded_in_number_and_in_bytes() {
    let mut rig = full(1, Options { producers_max: 2, producers_bytes_max: 500, ..Options::default() });
    let large = || Command::Push { jobs: vec![NewJob::new(queue("mail"), vec![b'x'; 600])] };
    rig.push(1, large(), 60_000);
    assert!(is_full(&rig.settle()[0]));
    rig.push(2, push("mail", 1), 60_000);
    rig.push(3, push("mail", 1), 60_000);
    assert_eq!(tickets(&rig.settle()), []);
    assert!(is_full(&rig.push(4, push("mail", 1), 60_000).unwrap()));
    rig.driver.withdraw(3);
    assert!(is_full(&rig.push(5, large(), 60_000).unwrap()));
    assert!(rig.push(6, push("mail", 1), 60_000).is_none());
}

#[test]
fn a_waiting_push_that_is_repeated_with_its_key_is_done_once_and_answered_twice() {
    let mut rig = full(1, Options::default());
    rig.push_as(7, Some("k"), push("mail", 1), 60_000);
    rig.settle();
    rig.push_as(8, Some("k"), push("mail", 1), 60_000);
    rig.push_as(9, Some("l"), push("mail", 1), 60_000);
    assert_eq!(tickets(&rig.settle()), []);
    let taken = fetch(&mut rig, 1);
    rig.offer(1, done(&taken), Disk);
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [1, 7, 8]);
    let reply = |n: usize| answers[n].1.as_ref().unwrap().reply.clone();
    assert_eq!(reply(1), reply(2));
    assert_eq!(live(&rig), 1);
    rig.push_as(10, Some("k"), push("mail", 1), 0);
    assert_eq!(rig.settle()[0].1.as_ref().unwrap().reply, reply(1), "it does not wait behind the others");
}

#[test]
fn a_push_that_adds_nothing_does_not_wait_behind_those_that_do() {
    let mut rig = Rig::new();
    let named = || {
        let id = Some(model::JobId::Text("a".into()));
        Command::Push { jobs: vec![NewJob { id, ..NewJob::new(queue("mail"), "a") }] }
    };
    rig.offer(0, capacity("mail", 1, 0, OnFull::Block), Disk);
    rig.push(1, named(), 0);
    rig.push(2, push("mail", 1), 60_000);
    assert_eq!(tickets(&rig.settle()), [0, 1]);
    rig.push(3, named(), 0);
    assert!(matches!(&rig.settle()[0].1.as_ref().unwrap().reply, Reply::Pushed(p) if p[0].deduplicated));
}

#[test]
fn stopping_answers_waiting_pushes_and_lets_no_others_wait() {
    let mut rig = full(1, Options::default());
    rig.push(7, push("mail", 1), 60_000);
    rig.settle();
    let answers = rig.driver.stop();
    assert!(matches!(answers[..], [(7, Err(CallError::Stopping))]));
    rig.push(8, push("mail", 1), 60_000);
    assert!(is_full(&rig.settle()[0]));
    assert_eq!(rig.driver.shard().queue(&queue("mail")).unwrap().counts.of(State::Waiting), 1);
}

#[test]
fn after_a_failed_flush_waiting_pushes_hear_of_it() {
    let mut rig = full(1, Options::default());
    rig.push(7, push("mail", 1), 60_000);
    rig.settle();
    rig.offer(1, push("other", 1), Disk);
    rig.files.inject(Operation::Sync, 1, Damage::Device);
    let answers = rig.settle();
    assert_eq!(tickets(&answers), [1, 7]);
    assert!(answers.iter().all(is_unknown));
    assert!(is_unknown(&rig.push(8, push("mail", 1), 60_000).unwrap()));
}
