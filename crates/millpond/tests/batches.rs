//! Handlers that take several jobs in one call: by the clock of a test, and once for real.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{Job, JobId, Outcome, Pond, Push, State, StepError};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

type Calls = Arc<Mutex<Vec<Vec<u32>>>>;

/// A handler that notes what it was called with.
fn noting(calls: &Calls) -> impl Fn(Vec<(u32, Job)>) -> std::future::Ready<()> + Send + Sync + 'static {
    let calls = calls.clone();
    move |jobs| {
        calls.lock().unwrap().push(jobs.iter().map(|(body, _)| *body).collect());
        std::future::ready(())
    }
}

fn noted(calls: &Calls) -> Vec<Vec<u32>> {
    std::mem::take(&mut *calls.lock().unwrap())
}

async fn id(push: Push) -> JobId {
    push.await.unwrap().id
}

async fn state(pond: &Pond, id: &JobId) -> State {
    pond.job(id).await.unwrap().unwrap().state
}

#[tokio::test]
async fn a_call_is_made_when_it_is_full_or_the_clock_says_that_it_has_waited() {
    let (pond, calls) = (Pond::test(), Calls::default());
    let queue = pond.queue::<u32>("pages").unwrap();
    let worker = queue.batch_worker(noting(&calls)).size(3).wait(SECOND * 10).start().unwrap();
    queue.push_many(&[1, 2, 3, 4]).await.unwrap();
    assert_eq!(pond.run_until_idle().await, 3);
    assert_eq!(noted(&calls), [[1, 2, 3]]);
    pond.advance(SECOND * 4).await;
    queue.push(&5).await.unwrap();
    assert_eq!(pond.advance(SECOND * 6 - Duration::from_millis(1)).await, 0);
    assert_eq!(pond.advance_to_next().await, Some(Duration::from_millis(1)));
    assert_eq!(noted(&calls), [[4, 5]]);
    let totals = worker.totals();
    assert_eq!((totals.calls, totals.fetched, totals.done, totals.running), (2, 5, 5, 0));
}

#[tokio::test]
async fn a_call_may_take_what_is_there() {
    let (pond, calls) = (Pond::test(), Calls::default());
    let queue = pond.queue::<u32>("pages").unwrap();
    let _worker = queue.batch_worker(noting(&calls)).size(3).min_size(1).start().unwrap();
    queue.push_many(&[1, 2, 3, 4, 5]).await.unwrap();
    assert_eq!(pond.run_until_idle().await, 5);
    assert_eq!(noted(&calls), [vec![1, 2, 3], vec![4, 5]]);
}

#[tokio::test]
async fn groups_do_not_share_a_call_if_they_are_not_to() {
    let (pond, calls) = (Pond::test(), Calls::default());
    let queue = pond.queue::<u32>("pages").unwrap();
    let _worker = queue.batch_worker(noting(&calls)).size(2).by_group().start().unwrap();
    for (body, group) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
        queue.push(&body).group(group).await.unwrap();
    }
    queue.push(&5).await.unwrap();
    pond.advance(SECOND).await;
    let mut calls = noted(&calls);
    calls.sort();
    assert_eq!(calls, [vec![1, 3], vec![2, 4], vec![5]]);
}

#[tokio::test]
async fn each_job_has_its_own_outcome_and_an_error_is_a_retry_of_all() {
    let pond = Pond::test();
    let queue = pond.queue::<u32>("pages").unwrap();
    let further = pond.queue::<u32>("further").unwrap();
    let handler = move |jobs: Vec<(u32, Job)>| {
        let further = further.clone();
        async move {
            if jobs.iter().any(|(_, job)| job.attempt() == 1) {
                return Err("the index is away");
            }
            let outcome = |(body, _): &(u32, Job)| match body {
                1 => Outcome::done("indexed").push(further.push(&10).job().unwrap()),
                2 => Outcome::fail("not a page"),
                _ => Outcome::snooze(DAY),
            };
            Ok(jobs.iter().map(outcome).collect::<Vec<_>>())
        }
    };
    let _worker = queue.batch_worker(handler).size(3).start().unwrap();
    let receipts = queue.push_many(&[1, 2, 3]).await.unwrap();
    pond.run_until_idle().await;
    let first = pond.take_ran();
    assert!(first.iter().all(|ran| ran.error.as_deref() == Some("the index is away")), "{first:?}");
    // Each comes back by its own backoff, and they gather again.
    pond.wait(&receipts[1].id).await.unwrap();
    let states = [
        state(&pond, &receipts[0].id).await,
        state(&pond, &receipts[1].id).await,
        state(&pond, &receipts[2].id).await,
    ];
    assert_eq!(states, [State::Completed, State::Dead, State::Delayed]);
    assert_eq!(pond.jobs("further", State::Waiting).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_that_is_not_what_the_handler_takes_fails_alone() {
    let (pond, calls) = (Pond::test(), Calls::default());
    let words = pond.queue::<String>("pages").unwrap();
    let numbers = pond.queue::<u32>("pages").unwrap();
    let _worker = numbers.batch_worker(noting(&calls)).size(3).start().unwrap();
    let one = id(numbers.push(&1)).await;
    let word = id(words.push(&"two".into())).await;
    let three = id(numbers.push(&3)).await;
    pond.run_until_idle().await;
    assert_eq!(noted(&calls), [[1, 3]]);
    for (id, ends) in [(one, State::Completed), (word, State::Dead), (three, State::Completed)] {
        assert_eq!(state(&pond, &id).await, ends);
    }
}

#[tokio::test]
async fn a_job_that_is_cancelled_is_missed_by_nobody_else() {
    let (pond, calls) = (Pond::test(), Calls::default());
    let queue = pond.queue::<u32>("pages").unwrap();
    let worker = queue.batch_worker(noting(&calls)).size(3).start().unwrap();
    let gone = id(queue.push(&1)).await;
    queue.push(&2).await.unwrap();
    assert_eq!(pond.run_until_idle().await, 0);
    assert_eq!(state(&pond, &gone).await, State::Active);
    pond.cancel(&gone, "not needed").await.unwrap();
    pond.advance(SECOND).await;
    assert_eq!(noted(&calls), [[2]]);
    assert_eq!((worker.totals().dropped, worker.totals().done), (1, 1));
}

#[tokio::test]
async fn a_job_that_is_cancelled_in_a_call_hears_of_it_and_the_others_go_on() {
    let pond = Pond::test();
    let queue = pond.queue::<u32>("pages").unwrap();
    let handler = |jobs: Vec<(u32, Job)>| async move {
        let reason = jobs[0].1.cancelled().await;
        jobs.iter().map(|_| Ok::<_, String>(format!("{reason:?}"))).collect::<Vec<_>>()
    };
    let _worker = queue.batch_worker(handler).size(2).start().unwrap();
    let (gone, stays) = (id(queue.push(&1)).await, id(queue.push(&2)).await);
    pond.run_until_idle().await;
    pond.cancel(&gone, "not needed").await.unwrap();
    pond.run_until_idle().await;
    let ended = pond.job(&stays).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.result.as_deref()), (State::Completed, Some(&b"\"Cancelled\""[..])));
    assert_eq!(state(&pond, &gone).await, State::Cancelled);
}

#[tokio::test]
async fn a_job_that_sleeps_in_a_step_leaves_the_others_alone() {
    let pond = Pond::test();
    let queue = pond.queue::<u32>("pages").unwrap();
    let handler = |jobs: Vec<(u32, Job)>| async move {
        let mut outcomes = Vec::new();
        for (body, job) in jobs {
            let slept = if body == 1 { job.sleep("nap", DAY).await } else { Ok(()) };
            outcomes.push(slept.map(|()| body).map_err(|why: StepError| why.to_string()));
        }
        outcomes
    };
    let _worker = queue.batch_worker(handler).size(2).start().unwrap();
    let (sleeper, other) = (id(queue.push(&1)).await, id(queue.push(&2)).await);
    pond.run_until_idle().await;
    assert_eq!(
        (state(&pond, &sleeper).await, state(&pond, &other).await),
        (State::Delayed, State::Completed)
    );
    let job = pond.wait(&sleeper).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (State::Completed, 1));
}

#[tokio::test]
async fn a_worker_that_stops_gives_back_what_gathers_without_using_an_attempt() {
    let (pond, calls) = (Pond::test(), Calls::default());
    let queue = pond.queue::<u32>("pages").unwrap();
    let worker = queue.batch_worker(noting(&calls)).size(3).start().unwrap();
    let one = id(queue.push(&1)).await;
    pond.run_until_idle().await;
    assert_eq!(worker.stop().await.handed_back, 1);
    let job = pond.job(&one).await.unwrap().unwrap();
    assert_eq!((job.state, job.attempt), (State::Waiting, 0));
    let _worker = queue.batch_worker(noting(&calls)).size(1).start().unwrap();
    pond.run_until_idle().await;
    assert_eq!(noted(&calls), [[1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_jobs_go_through_few_calls_and_none_is_lost() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("pages").unwrap();
    let (calls, all) = (Calls::default(), (0..2_000).collect::<Vec<u32>>());
    let worker = queue
        .batch_worker(noting(&calls))
        .size(50)
        .wait(Duration::from_millis(100))
        .concurrency(3)
        .start()
        .unwrap();
    let receipts = queue.push_many(&all).await.unwrap();
    for receipt in &receipts {
        let ended = tokio::time::timeout(Duration::from_secs(60), pond.wait(&receipt.id)).await;
        assert_eq!(ended.expect("it ends").unwrap().unwrap().state, State::Completed);
    }
    let totals = worker.totals();
    worker.stop().await;
    let calls = noted(&calls);
    let mut seen = calls.concat();
    seen.sort_unstable();
    assert_eq!(seen, all);
    assert!(calls.iter().all(|call| call.len() <= 50));
    assert_eq!(totals.calls, calls.len() as u64);
    pond.close().await.unwrap();
}
