//! Pushes into a full queue that lets its producers wait.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{Capacity, Error, OnFull, Pond, Queue, QueuePatch, Reject, State};
use std::{future::IntoFuture, time::Duration};

/// A queue with room for one job, which it has.
async fn full(pond: &Pond) -> Queue<u32> {
    let queue = pond.queue::<u32>("mail").unwrap();
    let capacity = Some(Capacity { jobs: 1, bytes: 0, on_full: OnFull::Block });
    queue.configure(QueuePatch { capacity, ..QueuePatch::default() }).await.unwrap();
    queue.push(&1).id("first").await.unwrap();
    queue
}

async fn producers(queue: &Queue<u32>, count: u64) {
    while queue.producers_waiting().await.unwrap() != count {
        tokio::task::yield_now().await;
    }
}

async fn make_room(queue: &Queue<u32>) {
    let first = millpond::JobId::parse("first").unwrap();
    assert_eq!(queue.cancel(&first, "room").await.unwrap(), State::Cancelled);
}

#[tokio::test]
async fn a_push_waits_for_room_and_goes_through() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = full(&pond).await;
    let later = async {
        producers(&queue, 1).await;
        assert_eq!(queue.stats().await.unwrap().unwrap().pushed_total, 1);
        make_room(&queue).await;
    };
    let (pushed, ()) = tokio::join!(queue.push(&2).into_future(), later);
    assert_eq!(pushed.unwrap().state, State::Waiting);
    assert_eq!(queue.producers_waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn a_push_waits_as_long_as_it_was_told_and_is_then_refused() {
    let pond = Pond::test();
    let queue = full(&pond).await;
    let clock = async {
        producers(&queue, 1).await;
        pond.advance(Duration::from_millis(4_999)).await;
        assert_eq!(queue.producers_waiting().await.unwrap(), 1);
        pond.advance(Duration::from_millis(1)).await;
        assert_eq!(queue.producers_waiting().await.unwrap(), 0);
    };
    let push = queue.push(&2).wait(Duration::from_secs(5)).into_future();
    let (refused, ()) = tokio::join!(push, clock);
    let Err(Error::Refused(refusal @ Reject::QueueFull { .. })) = refused else { panic!("{refused:?}") };
    assert!(refusal.retry_after_ms().is_some());
    let at_once = queue.push(&3).wait(Duration::ZERO).await;
    assert!(matches!(at_once, Err(Error::Refused(Reject::QueueFull { .. }))), "{at_once:?}");
    assert_eq!(queue.stats().await.unwrap().unwrap().pushed_total, 1);
}

#[tokio::test]
async fn a_push_that_is_dropped_while_it_waits_is_never_done_and_frees_its_place() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = full(&pond).await;
    tokio::select! {
        pushed = queue.push(&2).id("dropped").into_future() => panic!("{pushed:?}"),
        () = producers(&queue, 1) => {}
    }
    let later = async {
        producers(&queue, 1).await;
        make_room(&queue).await;
    };
    let (pushed, ()) = tokio::join!(queue.push(&3).id("next").into_future(), later);
    assert_eq!(pushed.unwrap().state, State::Waiting);
    let stats = queue.stats().await.unwrap().unwrap();
    assert_eq!((stats.pushed_total, stats.counts.of(State::Waiting)), (2, 1));
    assert!(queue.job(&millpond::JobId::parse("dropped").unwrap()).await.unwrap().is_none());
}
