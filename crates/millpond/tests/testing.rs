//! The pond for tests: no thread, no sleep, a clock that is moved by hand.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{Backoff, Durability, Job, Outcome, Pond, Reason, State, Stream};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn time_passes_only_when_it_is_told_to() {
    let pond = Pond::test();
    let queue = pond.queue::<u32>("mail").unwrap();
    let _worker = queue.worker(|n: u32, _| async move { Ok::<_, String>(n + 1) }).start().unwrap();
    let later = queue.push(&1).delay(DAY).await.unwrap();
    let soon = queue.push(&7).durability(Durability::Disk).await.unwrap();
    assert!(pond.ran().is_empty(), "nothing runs behind the back of a test");
    assert_eq!(pond.run_until_idle().await, 1);
    assert_eq!(pond.advance(DAY - Duration::from_millis(1)).await, 0);
    assert_eq!(pond.job(&later.id).await.unwrap().unwrap().state, State::Delayed);
    assert_eq!(pond.advance(Duration::from_millis(1)).await, 1);
    let ran = pond.take_ran();
    let told: Vec<_> = ran.iter().map(|ran| (ran.id.clone(), ran.state, ran.result.as_deref())).collect();
    let (eight, two) = (Some(&b"8"[..]), Some(&b"2"[..]));
    assert_eq!(told, [(soon.id, State::Completed, eight), (later.id, State::Completed, two)]);
    assert_eq!(ran[1].at - ran[0].at, 86_400_000);
    assert!(pond.ran().is_empty());
}

#[tokio::test]
async fn retries_wait_for_the_clock_and_each_step_can_be_jumped_to() {
    let pond = Pond::test();
    let queue = pond.queue::<u32>("mail").unwrap();
    let handler = |_: u32, job: Job| async move {
        match job.attempt() {
            1 | 2 => Err("busy"),
            _ => Ok("sent"),
        }
    };
    let worker = queue.worker(handler).start().unwrap();
    let receipt = queue.push(&1).backoff(Backoff::Fixed { delay: 60_000 }).await.unwrap();
    assert_eq!(pond.advance_to_next().await, Some(Duration::ZERO));
    assert_eq!(pond.job(&receipt.id).await.unwrap().unwrap().state, State::Retrying);
    assert_eq!(pond.advance_to_next().await, Some(MINUTE));
    assert_eq!(pond.advance_to_next().await, Some(MINUTE));
    assert_eq!(pond.advance_to_next().await, None, "what retention forgets later is nothing that runs");
    let told: Vec<_> = pond.ran().iter().map(|ran| (ran.attempt, ran.state, ran.error.clone())).collect();
    let busy = || Some("busy".to_owned());
    assert_eq!(
        told,
        [(1, State::Retrying, busy()), (2, State::Retrying, busy()), (3, State::Completed, None)]
    );
    assert_eq!((worker.totals().retried, worker.totals().done, worker.totals().running), (2, 1, 0));
}

#[tokio::test]
async fn waiting_for_a_job_moves_the_clock_as_far_as_it_takes() {
    let pond = Pond::test();
    let queue = pond.queue::<u32>("mail").unwrap();
    let worker = queue.worker(|_: u32, _| async { Err::<(), _>("no") }).start().unwrap();
    let before = pond.now();
    let receipt =
        queue.push(&1).attempts(4).backoff(Backoff::Fixed { delay: 3_600_000 }).delay(DAY).await.unwrap();
    let job = pond.wait(&receipt.id).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt, pond.now() - before), (State::Dead, 4, 97_200_000));
    worker.stop().await;
    let stuck = queue.push(&1).await.unwrap();
    assert_eq!(pond.wait(&stuck.id).await.unwrap().unwrap().state, State::Waiting, "no worker takes it");
    assert_eq!(pond.jobs("mail", State::Waiting).await.unwrap().len(), 1);
    assert_eq!(pond.jobs("mail", State::Dead).await.unwrap()[0].id, receipt.id);
}

#[tokio::test]
async fn panics_timeouts_and_cancellations_happen_as_they_would() {
    let pond = Pond::test();
    let queue = pond.queue::<String>("q").unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let handler = move |what: String, job: Job| {
        let hears = hears.clone();
        async move {
            if what == "panic" {
                panic!("oh no");
            }
            let reason = job.cancelled().await;
            hears.lock().unwrap().push(reason);
            if what == "stubborn" {
                std::future::pending::<()>().await;
            }
        }
    };
    let worker = queue.worker(handler).start().unwrap();
    let push = |what: &str| queue.push(&what.to_owned()).attempts(1).timeout(MINUTE);
    let panics = push("panic").await.unwrap();
    let (slow, stubborn) = (push("slow").await.unwrap(), push("stubborn").await.unwrap());
    let unwanted = push("unwanted").timeout(DAY).await.unwrap();
    assert_eq!(pond.run_until_idle().await, 4);
    assert_eq!(worker.totals().running, 3);
    assert_eq!(pond.job(&panics.id).await.unwrap().unwrap().error.unwrap().message.as_str(), "oh no");
    pond.cancel(&unwanted.id, "not needed").await.unwrap();
    pond.run_until_idle().await;
    assert_eq!(*heard.lock().unwrap(), [Reason::Cancelled]);
    pond.advance(MINUTE).await;
    assert_eq!(*heard.lock().unwrap(), [Reason::Cancelled, Reason::Timeout, Reason::Timeout]);
    for (id, state) in [(slow.id, State::Dead), (stubborn.id, State::Dead), (unwanted.id, State::Cancelled)] {
        assert_eq!(pond.job(&id).await.unwrap().unwrap().state, state);
    }
    assert_eq!((worker.totals().running, worker.totals().dropped), (0, 3));
}

#[tokio::test]
async fn the_same_test_runs_the_same_way_each_time() {
    async fn once() -> Vec<String> {
        let pond = Pond::test();
        let (first, second) = (pond.queue::<u32>("first").unwrap(), pond.queue::<u32>("second").unwrap());
        let next = second.clone();
        let workers = [
            first
                .worker(move |n: u32, job: Job| {
                    let next = next.push(&(n * 10)).job();
                    async move {
                        // Lets the others in between.
                        tokio::task::yield_now().await;
                        if n.is_multiple_of(3) && job.attempt() == 1 {
                            Outcome::retry("again")
                        } else {
                            Outcome::done(n).push(next.unwrap())
                        }
                    }
                })
                .concurrency(3)
                .start()
                .unwrap(),
            second.worker(|_: u32, _| async { Ok::<_, String>("done") }).start().unwrap(),
        ];
        first.push_many(&(0..20).collect::<Vec<_>>()).await.unwrap();
        pond.advance(DAY).await;
        assert_eq!(workers[1].totals().done, 20);
        pond.ran().iter().map(|ran| format!("{} {ran}", ran.at)).collect()
    }
    let runs = once().await;
    assert_eq!(runs.len(), 47);
    assert_eq!(runs, once().await);
}

#[tokio::test]
async fn handlers_that_wait_for_something_real_are_waited_for() {
    let pond = Pond::test();
    let queue = pond.queue::<u32>("q").unwrap();
    let (sender, receiver) = tokio::sync::oneshot::channel::<u32>();
    let receiver = Arc::new(Mutex::new(Some(receiver)));
    let handler = move |_: u32, _| {
        let receiver = receiver.lock().unwrap().take();
        async move { receiver.expect("once").await.map_err(|error| error.to_string()) }
    };
    let _worker = queue.worker(handler).start().unwrap();
    queue.push(&1).await.unwrap();
    let answers = async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        sender.send(42).unwrap();
    };
    let (ran, ()) = tokio::join!(pond.run_until_idle(), answers);
    assert_eq!((ran, pond.ran()[0].result.as_deref()), (1, Some(&b"42"[..])));
}

#[tokio::test]
async fn events_are_heard_in_a_test_as_well() {
    let pond = Pond::test();
    let mut events = pond.events("mail.*");
    let queue = pond.queue::<u32>("mail.eu").unwrap();
    let _worker = queue.worker(|_: u32, _| async {}).start().unwrap();
    queue.push(&1).await.unwrap();
    pond.run_until_idle().await;
    let mut kinds = Vec::new();
    for _ in 0..5 {
        kinds.push(events.next().await.unwrap().kind.name());
    }
    assert_eq!(kinds, ["added", "active", "drained", "completed", "empty"]);
}

#[tokio::test]
async fn a_process_that_dies_is_a_crash_and_three_are_quarantine() {
    use std::os::unix::process::ExitStatusExt;
    let pond = Pond::test();
    let queue = pond.queue::<u32>("mail").unwrap();
    let segv = std::process::ExitStatus::from_raw(11);
    let worker =
        queue.worker(move |_: u32, _| async move { Outcome::crash(segv, "bad page") }).start().unwrap();
    let receipt = queue.push(&1).attempts(1).backoff(Backoff::Fixed { delay: 60_000 }).await.unwrap();
    pond.advance(DAY).await;
    let told: Vec<_> = pond.ran().iter().map(|ran| (ran.state, ran.error.clone())).collect();
    let segv = || Some("killed by SIGSEGV".to_owned());
    assert_eq!(told, [(State::Retrying, segv()), (State::Retrying, segv()), (State::Dead, segv())]);
    let job = pond.job(&receipt.id).await.unwrap().unwrap();
    assert_eq!((job.attempt, job.crashes, worker.totals().crashed), (0, 3, 3));
    assert_eq!(job.error.unwrap().stack, "bad page");
}
