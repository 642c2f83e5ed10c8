//! Layers around a handler: in their order, with the last word, and with the power to leave it out.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use millpond::{Job, Next, Outcome, Pond, State};
use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: impl Into<String>) {
        self.0.lock().unwrap().push(note.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// A layer that says when it begins, and what it hears of the end.
    fn layer(&self, name: &'static str) -> impl Fn(Job, Next) -> Told + use<> {
        let notes = self.clone();
        move |job, next| {
            let notes = notes.clone();
            Box::pin(async move {
                notes.add(format!("{name} begins attempt {}", job.attempt()));
                let outcome = next.run(job).await;
                notes.add(format!("{name} hears {} {}", outcome.name(), outcome.error().unwrap_or("-")));
                outcome
            })
        }
    }
}

type Told = Pin<Box<dyn Future<Output = Outcome> + Send>>;

#[tokio::test]
async fn the_first_layer_is_the_outermost_and_each_hears_the_outcome() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let notes = Notes::default();
    let told = notes.clone();
    let worker = queue
        .worker(move |number: u32, _| {
            told.add(format!("handler has {number}"));
            async { Err::<(), _>("no luck") }
        })
        .wrap(notes.layer("outer"))
        .wrap(notes.layer("inner"))
        .start()
        .unwrap();
    let receipt = queue.push(&7).attempts(1).await.unwrap();
    assert_eq!(pond.wait(&receipt.id).await.unwrap().unwrap().state, State::Dead);
    worker.stop().await;
    let expected = [
        "outer begins attempt 1",
        "inner begins attempt 1",
        "handler has 7",
        "inner hears retry no luck",
        "outer hears retry no luck",
    ];
    assert_eq!(notes.all(), expected);
}

#[tokio::test]
async fn the_outcome_of_the_outermost_layer_counts() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let worker = queue
        .worker(|_: u32, _| async { Err::<(), _>("gone for good") })
        .wrap(|job, next| async move {
            let outcome = next.run(job).await;
            match outcome.error() {
                Some(error) if error.contains("for good") => Outcome::fail(error.to_owned()),
                _ => outcome,
            }
        })
        .start()
        .unwrap();
    let receipt = queue.push(&7).attempts(9).await.unwrap();
    let job = pond.wait(&receipt.id).await.unwrap().unwrap();
    worker.stop().await;
    assert_eq!((job.state, job.attempt), (State::Dead, 1));
}

#[tokio::test]
async fn a_layer_may_leave_the_handler_out() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let worker = queue
        .worker(|_: u32, _| async { Outcome::done("handled") })
        .wrap(|_, _| async { Outcome::done("cached") })
        .start()
        .unwrap();
    let receipt = queue.push(&7).await.unwrap();
    let job = pond.wait(&receipt.id).await.unwrap().unwrap();
    worker.stop().await;
    assert_eq!((job.state, job.result.as_deref()), (State::Completed, Some(&b"\"cached\""[..])));
}

#[tokio::test]
async fn a_body_that_the_handler_cannot_take_is_an_outcome_for_layers_too() {
    let pond = Pond::in_memory().await.unwrap();
    let notes = Notes::default();
    let worker = pond
        .queue::<u32>("q")
        .unwrap()
        .worker(|_: u32, _| async {})
        .wrap(notes.layer("layer"))
        .start()
        .unwrap();
    let receipt = pond.queue::<String>("q").unwrap().push(&"seven".to_owned()).await.unwrap();
    assert_eq!(pond.wait(&receipt.id).await.unwrap().unwrap().state, State::Dead);
    worker.stop().await;
    let all = notes.all();
    assert!(all[1].starts_with("layer hears fail the body is not what the handler takes"), "{all:?}");
}

#[tokio::test]
async fn time_that_a_layer_takes_counts_for_the_timeout() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let worker = queue
        .worker(|_: u32, _| async {})
        .wrap(|_, _| std::future::pending::<()>())
        .timeout(Duration::from_millis(20))
        .grace(Duration::ZERO)
        .start()
        .unwrap();
    let receipt = queue.push(&7).attempts(1).await.unwrap();
    assert_eq!(pond.wait(&receipt.id).await.unwrap().unwrap().state, State::Dead);
    worker.stop().await;
}
