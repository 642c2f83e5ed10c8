//! Durable steps from end to end.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{Backoff, Job, JobId, JobView, Outcome, Pond, Reject, State, StepError};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const SOON: Backoff = Backoff::Fixed { delay: 1 };

async fn ended(pond: &Pond, id: &JobId) -> JobView {
    tokio::time::timeout(Duration::from_secs(60), pond.wait(id))
        .await
        .expect("the job ends")
        .unwrap()
        .unwrap()
}

/// Until the job is in that state.
async fn reached(pond: &Pond, id: &JobId, state: State) -> JobView {
    tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let job = pond.job(id).await.unwrap().unwrap();
            if job.state == state {
                return job;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the job gets there")
}

fn text(job: &JobView) -> String {
    String::from_utf8(job.result.clone().unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn a_step_that_is_stored_is_not_done_again() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("orders").unwrap();
    let charged = Arc::new(AtomicU32::new(0));
    let counter = charged.clone();
    let handler = move |cents: u32, job: Job| {
        let counter = counter.clone();
        async move {
            let charge = job
                .step("charge", || async {
                    counter.fetch_add(1, SeqCst);
                    Ok::<_, Failure>(format!("charge of {cents}"))
                })
                .await?;
            if job.attempt() < 3 {
                return Err::<String, Failure>("the printer is on fire".into());
            }
            Ok(charge)
        }
    };
    let worker = queue.worker(handler).start().unwrap();
    let id = queue.push(&42).backoff(SOON).await.unwrap().id;
    let job = ended(&pond, &id).await;
    assert_eq!((job.state, job.attempt, text(&job).as_str()), (State::Completed, 3, "\"charge of 42\""));
    assert_eq!(charged.load(SeqCst), 1);
    assert_eq!(pond.steps(&id).await.unwrap().unwrap()[0].attempt, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_step_that_fails_is_tried_again_by_the_next_attempt() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<()>("orders").unwrap();
    let handler = |(), job: Job| async move {
        let attempt = job.attempt();
        job.step("charge", || async move {
            if attempt == 1 { Err(std::io::Error::other("busy")) } else { Ok(attempt) }
        })
        .await
    };
    let worker = queue.worker(handler).start().unwrap();
    let id = queue.push(&()).backoff(SOON).await.unwrap().id;
    assert_eq!(text(&ended(&pond, &id).await), "2");
    let history = pond.history(&id).await.unwrap().unwrap();
    let errors: Vec<_> = history.into_iter().filter_map(|entry| entry.error).collect();
    assert_eq!(errors[0].message, "step charge: busy");
    worker.stop().await;
}

#[tokio::test]
async fn steps_of_a_loop_are_numbered() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<()>("orders").unwrap();
    let handler = |(), job: Job| async move {
        let mut sum = 0;
        for number in 1..=3 {
            sum += job.step("add", || async move { Ok::<_, Failure>(number) }).await?;
            job.sleep("rest", Duration::ZERO).await?;
        }
        Ok::<_, StepError>(sum)
    };
    let worker = queue.worker(handler).start().unwrap();
    let id = queue.push(&()).attempts(1).await.unwrap().id;
    assert_eq!(text(&ended(&pond, &id).await), "6");
    let names: Vec<_> = pond.steps(&id).await.unwrap().unwrap().into_iter().map(|step| step.name).collect();
    assert_eq!(names, ["add", "rest", "add#2", "rest#2", "add#3", "rest#3"]);
    assert_eq!(worker.totals().suspended, 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_signal_wakes_the_handler_with_its_body_and_none_means_it_did_not_come() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<()>("orders").unwrap();
    let handler = |(), job: Job| async move {
        let by = job.wait_for_signal::<String>("approved", Duration::from_secs(3_600)).await?;
        let late = job.wait_for_signal::<u32>("never", Duration::from_millis(1)).await?;
        Ok::<_, Failure>((by, late))
    };
    let worker = queue.worker(handler).start().unwrap();
    let waits = queue.push(&()).attempts(1).await.unwrap().id;
    reached(&pond, &waits, State::Suspended).await;
    let summary = pond.explain(&waits).await.unwrap().unwrap().summary;
    assert!(summary.contains("waits for signal `approved` until"), "{summary}");
    let told = pond.signal(&waits, "approved", "ada").idempotency_key("k").await.unwrap();
    assert_eq!((told.state, told.buffered), (State::Waiting, false));
    assert_eq!(text(&ended(&pond, &waits).await), "[\"ada\",null]");
    assert_eq!(pond.signal(&waits, "approved", "ada").idempotency_key("k").await.unwrap(), told);
    let refused = pond.signal(&waits, "approved", "bob").await.unwrap_err();
    assert!(matches!(refused, millpond::Error::Refused(Reject::WrongState { .. })), "{refused}");

    let early = queue.push(&()).delay(Duration::from_millis(1)).await.unwrap().id;
    let told = queue.signal(&early, "approved", "eve").await.unwrap();
    assert!(told.buffered || told.state == State::Waiting);
    assert_eq!(text(&ended(&pond, &early).await), "[\"eve\",null]");
    worker.stop().await;
}

#[tokio::test]
async fn a_child_runs_once_and_its_end_is_the_parents_step() {
    let pond = Pond::in_memory().await.unwrap();
    let (orders, images) = (pond.queue::<()>("orders").unwrap(), pond.queue::<u32>("images").unwrap());
    let children = images.clone();
    let parent = move |(), job: Job| {
        let children = children.clone();
        async move {
            let good = job.child("small", children.push(&7).job()?).await?;
            let bad = job.child("large", children.push(&0).job()?).await?;
            let why = bad.result::<u32>().unwrap_err().to_string();
            if job.attempt() == 1 {
                return Err("again".into());
            }
            Ok::<_, Failure>((good.result::<u32>()?, why.contains("ended dead: too large")))
        }
    };
    let child = |size: u32, _: Job| async move {
        if size == 0 { Outcome::fail("too large") } else { Outcome::done(size * 2) }
    };
    let workers = (orders.worker(parent).start().unwrap(), images.worker(child).start().unwrap());
    let id = orders.push(&()).backoff(SOON).await.unwrap().id;
    assert_eq!(text(&ended(&pond, &id).await), "[14,true]");
    assert_eq!(images.stats().await.unwrap().unwrap().pushed_total, 2);
    workers.0.stop().await;
    workers.1.stop().await;
}

#[tokio::test]
async fn a_handler_that_swallows_a_suspension_is_suspended_all_the_same() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<()>("orders").unwrap();
    let handler = |(), job: Job| async move {
        let _ = job.sleep("nap", Duration::from_secs(3_600)).await;
        Ok::<_, Failure>("done too early")
    };
    let worker = queue.worker(handler).start().unwrap();
    let id = queue.push(&()).await.unwrap().id;
    let job = reached(&pond, &id, State::Delayed).await;
    assert_eq!((job.attempt, job.steps), (0, 1));
    worker.stop().await;
}

#[tokio::test]
async fn a_step_whose_value_changed_its_kind_says_so() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<()>("orders").unwrap();
    let handler = |(), job: Job| async move {
        if job.attempt() == 1 {
            job.step("charge", || async { Ok::<_, Failure>("text".to_string()) }).await?;
            return Err(Failure::from("again"));
        }
        job.step("charge", || async { Ok::<u32, Failure>(1) }).await?;
        Ok(())
    };
    let worker = queue.worker(handler).start().unwrap();
    let id = queue.push(&()).backoff(SOON).attempts(2).await.unwrap().id;
    let job = ended(&pond, &id).await;
    assert_eq!(job.state, State::Dead);
    let message = job.error.unwrap().message;
    assert!(message.contains("step charge is stored with another kind of value"), "{message}");
    queue.restart(&id).await.unwrap();
    worker.stop().await;
}

/// The example of the documentation, killed while its job waits, and started again.
#[test]
fn the_order_example_goes_on_where_it_was_killed() {
    let exe = std::env::current_exe().unwrap();
    let example = exe.parent().unwrap().parent().unwrap().join("examples/order");
    assert!(example.exists(), "build it with `cargo build -p millpond --example order`");
    let directory = tempfile::tempdir().unwrap();
    let start = |words: &[&str]| {
        let mut command = Command::new(&example);
        command.arg(directory.path()).args(words).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut first = start(&[]);
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "charging 4200 cents for a mill");
    let suspended = lines.next().unwrap().unwrap();
    assert!(suspended.starts_with("suspended: it waits for signal `approved` until "), "{suspended}");
    first.kill().unwrap();
    first.wait().unwrap();

    let second = start(&["approve"]);
    let output = second.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("charging"), "{said}");
    for line in ["approved by ada", "shipping a mill (charge-of-4200)", "completed: \"parcel-1\""] {
        assert!(said.contains(line), "{line}: {said}");
    }
}
