//! The library from end to end, on a pond in memory and on one in a directory.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{
    CatchUp, Durability, Error, Filter, Job, JobId, Outcome, Overlap, Pond, Priority, Reason, Reject,
    ScheduleChange, ScheduleState, State,
};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Email {
    to: String,
}

fn email(to: &str) -> Email {
    Email { to: to.into() }
}

async fn ended(pond: &Pond, id: &JobId) -> millpond::JobView {
    tokio::time::timeout(Duration::from_secs(60), pond.wait(id))
        .await
        .expect("the job ends")
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn what_a_handler_returns_is_kept_with_the_job() {
    let pond = Pond::in_memory().await.unwrap();
    let emails = pond.queue::<Email>("emails").unwrap();
    let handler = |email: Email, job: Job| async move {
        job.log("sending").await.map_err(|error| error.to_string())?;
        job.progress(50).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(email)
    };
    let worker = emails.worker(handler).start().unwrap();
    let receipt = emails.push(&email("a@b.c")).await.unwrap();
    let job = ended(&pond, &receipt.id).await;
    assert_eq!(job.state, State::Completed);
    assert_eq!(serde_json::from_slice::<Email>(&job.result.unwrap()).unwrap(), email("a@b.c"));
    assert_eq!(job.progress.as_deref(), Some(&b"50"[..]));
    assert_eq!(pond.log_lines(&receipt.id).await.unwrap().unwrap()[0].text, "sending");
    let causes: Vec<_> =
        pond.history(&receipt.id).await.unwrap().unwrap().iter().map(|e| e.cause.name()).collect();
    assert_eq!(causes, ["push", "fetch", "complete"]);
    worker.stop().await;
    pond.close().await.unwrap();
}

#[tokio::test]
async fn errors_are_retried_with_their_kind_and_fail_is_final() {
    let pond = Pond::in_memory().await.unwrap();
    let emails = pond.queue::<Email>("emails").unwrap();
    let handler = |email: Email, job: Job| async move {
        if email.to == "never" {
            return Ok(Outcome::fail("no such address"));
        }
        if job.attempt() < 3 {
            return Err(std::io::Error::other("busy"));
        }
        Ok(Outcome::done(job.attempt()))
    };
    let worker = emails.worker(handler).start().unwrap();
    let soon = millpond::Backoff::Fixed { delay: 1 };
    let busy = emails.push(&email("later")).backoff(soon).await.unwrap();
    let dead = emails.push(&email("never")).await.unwrap();
    assert_eq!(ended(&pond, &busy.id).await.result.as_deref(), Some(&b"3"[..]));
    let errors: Vec<_> =
        pond.history(&busy.id).await.unwrap().unwrap().into_iter().filter_map(|entry| entry.error).collect();
    assert_eq!((errors.len(), errors[0].kind.as_str(), errors[0].message.as_str()), (2, "Error", "busy"));
    let job = ended(&pond, &dead.id).await;
    assert_eq!(
        (job.state, job.attempt, job.error.unwrap().message.as_str()),
        (State::Dead, 1, "no such address")
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_body_of_another_shape_is_dead_at_once_with_kind_decode() {
    let pond = Pond::in_memory().await.unwrap();
    let receipt = pond.queue::<u32>("emails").unwrap().push(&7).await.unwrap();
    let worker = pond.queue::<Email>("emails").unwrap().worker(|_, _| async {}).start().unwrap();
    let job = ended(&pond, &receipt.id).await;
    assert_eq!((job.state, job.error.unwrap().kind.as_str()), (State::Dead, "decode"));
    worker.stop().await;
}

#[tokio::test]
async fn an_outcome_can_push_the_next_job_in_the_same_change() {
    let pond = Pond::in_memory().await.unwrap();
    let first = pond.queue::<u32>("first").unwrap();
    let second = pond.queue::<u32>("second").unwrap();
    let next = second.clone();
    let handler = move |n: u32, _: Job| {
        let next = next.push(&(n + 1)).id("follow").job();
        async move { Ok::<_, Error>(Outcome::done(n).push(next?)) }
    };
    let worker = first.worker(handler).start().unwrap();
    let receipt = first.push(&1).await.unwrap();
    ended(&pond, &receipt.id).await;
    let follow = second.job(&JobId::parse("follow").unwrap()).await.unwrap().unwrap();
    assert_eq!(follow.body.as_deref(), Some(&b"2"[..]));
    worker.stop().await;
}

#[tokio::test]
async fn push_options_reach_the_job_and_duplicates_are_named() {
    let pond = Pond::in_memory().await.unwrap();
    let emails = pond.queue::<Email>("emails").unwrap();
    let push = || emails.push(&email("a")).id("one").priority(Priority::HIGH).delay(Duration::from_secs(60));
    let receipt = push().attempts(2).tag("blue").meta("k", "v").unique("key").await.unwrap();
    assert_eq!(
        (receipt.deduplicated, receipt.state, receipt.durability),
        (false, State::Delayed, Durability::Memory)
    );
    assert!(push().await.unwrap().deduplicated);
    assert_eq!(emails.push(&email("b")).unique("key").await.unwrap().id, receipt.id);
    let job = emails.job(&receipt.id).await.unwrap().unwrap();
    assert_eq!((job.priority, job.attempts, job.tags[0].as_str()), (Priority::HIGH, 2, "blue"));
    assert_eq!(job.unique_key.as_deref(), Some("key"));
    let why = emails.explain(&receipt.id).await.unwrap().unwrap();
    assert_eq!(why.state, State::Delayed);
    assert_eq!(emails.cancel(&receipt.id, "not needed").await.unwrap(), State::Cancelled);
    let keyed = || emails.push(&email("c")).idempotency_key("call-1");
    assert_eq!(keyed().await.unwrap().id, keyed().await.unwrap().id);
}

#[tokio::test]
async fn mistakes_are_refused_with_a_reason() {
    let pond = Pond::in_memory().await.unwrap();
    assert!(matches!(pond.queue::<u32>("no spaces"), Err(Error::Name(_))));
    let queue = pond.queue::<String>("q").unwrap();
    assert!(matches!(queue.push(&"x".into()).id("").await, Err(Error::Name(_))));
    let large = "x".repeat(2 << 20);
    assert!(matches!(queue.push(&large).await, Err(Error::Refused(Reject::BodyTooLarge { .. }))));
    assert!(matches!(queue.push(&"x".into()).durability(Durability::Disk).await, Err(Error::Call(_))));
    assert!(queue.stats().await.unwrap().is_none());
}

#[tokio::test]
async fn a_paused_queue_waits_and_a_purged_one_is_empty() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let receipts = queue.push_many(&[1, 2, 3]).await.unwrap();
    queue.pause().await.unwrap();
    assert_eq!(pond.explain(&receipts[0].id).await.unwrap().unwrap().state, State::Blocked);
    queue.purge().await.unwrap();
    queue.resume().await.unwrap();
    let worker = queue.worker(|_, _| async {}).start().unwrap();
    // The purge goes on in the background; what it will remove does not start meanwhile.
    while queue.stats().await.unwrap().unwrap().counts.live() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(worker.totals().started, 0);
    worker.stop().await;
}

#[tokio::test]
async fn dead_jobs_live_again_by_redrive() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let receipt = queue.push(&1).await.unwrap();
    let worker = queue.worker(|_, _| async { Outcome::fail("no") }).start().unwrap();
    assert_eq!(ended(&pond, &receipt.id).await.state, State::Dead);
    worker.stop().await;
    queue.redrive(Filter::default()).await.unwrap();
    let worker = queue.worker(|_, _| async {}).start().unwrap();
    while pond.job(&receipt.id).await.unwrap().unwrap().state != State::Completed {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_dead_body_is_mended_by_a_patch_that_leaves_the_rest_as_it_was() {
    let pond = Pond::in_memory().await.unwrap();
    let mail = pond.queue::<Email>("mail").unwrap();
    let name = millpond::QueueName::new("mail").unwrap();
    let body = r#"{"cost":1.50e400,"to":"an"}"#;
    pond.push_all(vec![
        millpond::NewJob {
            id: Some(JobId::Text("dead".into())),
            ..millpond::NewJob::new(name.clone(), body)
        },
        millpond::NewJob {
            id: Some(JobId::Text("text".into())),
            content_type: "text/plain".into(),
            delay_ms: 60_000,
            ..millpond::NewJob::new(name, "1")
        },
    ])
    .await
    .unwrap();
    let worker = mail.worker(|_, _| async { Outcome::fail("no such address") }).start().unwrap();
    let dead = JobId::Text("dead".into());
    while mail.job(&dead).await.unwrap().unwrap().state != State::Dead {
        tokio::task::yield_now().await;
    }
    worker.stop().await;
    assert_eq!(mail.patch_body(&dead, &email("ann")).await.unwrap(), State::Dead);
    let job = mail.job(&dead).await.unwrap().unwrap();
    assert_eq!(job.body.unwrap(), r#"{"cost":1.50e400,"to":"ann"}"#);
    let invalid = |result| matches!(result, Err(Error::Refused(Reject::Invalid { field: "body", .. })));
    assert!(invalid(mail.patch_body(&JobId::Text("text".into()), &email("ann")).await));
    assert!(invalid(mail.edit_body(&JobId::Text("text".into()), |_| {}).await));
    let gone = mail.patch_body(&JobId::Text("gone".into()), &email("ann")).await;
    assert!(matches!(gone, Err(Error::Refused(Reject::UnknownJob { .. }))));
}

#[tokio::test]
async fn a_handler_hears_at_once_that_its_job_was_cancelled() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_: u32, job: Job| {
        let (started, heard) = (started.clone(), heard.clone());
        async move {
            started.send(()).unwrap();
            heard.send(job.cancelled().await).unwrap();
        }
    };
    // Renewals are hours away, so that nothing but the revocation can tell.
    let worker = queue.worker(handler).lease(Duration::from_secs(86_400)).start().unwrap();
    let receipt = queue.push(&1).await.unwrap();
    starts.recv().await.unwrap();
    assert_eq!(pond.cancel(&receipt.id, "not needed").await.unwrap(), State::Cancelled);
    let reason = tokio::time::timeout(Duration::from_secs(60), hears.recv()).await.unwrap().unwrap();
    assert_eq!(reason, Reason::Cancelled);
    assert_eq!(ended(&pond, &receipt.id).await.state, State::Cancelled);
    worker.stop().await;
}

#[tokio::test]
async fn a_handler_hears_that_its_attempt_ran_out_of_time() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_: u32, job: Job| {
        let heard = heard.clone();
        async move { heard.send(job.cancelled().await).unwrap() }
    };
    let worker = queue.worker(handler).lease(Duration::from_secs(86_400)).start().unwrap();
    let receipt = queue.push(&1).timeout(Duration::from_millis(100)).attempts(1).await.unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(60), hears.recv()).await.unwrap().unwrap();
    assert_eq!(reason, Reason::Timeout);
    assert_eq!(ended(&pond, &receipt.id).await.state, State::Dead);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_a_large_backlog_is_completed_once() {
    let pond = Pond::in_memory().await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let bodies: Vec<u32> = (0..10_000).collect();
    queue.push_many(&bodies).await.unwrap();
    let worker = queue.worker(|n: u32, _| async move { Outcome::done(n) }).concurrency(64).start().unwrap();
    while worker.totals().done < 10_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let totals = worker.totals();
    assert_eq!((totals.started, totals.retried, totals.dropped), (10_000, 0, 0));
    worker.stop().await;
    assert_eq!(queue.stats().await.unwrap().unwrap().completed_total, 10_000);
}

#[tokio::test]
async fn jobs_outlive_the_process_that_pushed_them() {
    let dir = std::env::temp_dir().join(format!("millpond-lib-{}", std::process::id()));
    let pond = Pond::open(&dir).await.unwrap();
    let receipt = pond.queue::<u32>("q").unwrap().push(&41).await.unwrap();
    assert_eq!(receipt.durability, Durability::Disk);
    assert!(matches!(Pond::open(&dir).await, Err(Error::Open(_))), "a pond opens once at a time");
    pond.close().await.unwrap();
    let pond = Pond::open(&dir).await.unwrap();
    let queue = pond.queue::<u32>("q").unwrap();
    let worker = queue.worker(|n: u32, _| async move { Ok::<_, String>(n + 1) }).start().unwrap();
    assert_eq!(ended(&pond, &receipt.id).await.result.as_deref(), Some(&b"42"[..]));
    worker.stop().await;
    pond.close().await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn a_schedule_pushes_jobs_that_a_worker_does() {
    let pond = Pond::in_memory().await.unwrap();
    let emails = pond.queue::<Email>("emails").unwrap();
    let pulse = pond.schedule("pulse").unwrap();
    let put = || pulse.every(Duration::from_secs(1)).limit(2).push(emails.push(&email("a@b.c")).attempts(1));
    assert_eq!(put().await.unwrap().change, ScheduleChange::Created);
    assert_eq!(put().await.unwrap().change, ScheduleChange::Unchanged);
    let (sender, mut slots) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_: Email, job: Job| {
        let _ = sender.send(job.meta("slot").unwrap_or_default().to_string());
        async {}
    };
    let worker = emails.worker(handler).start().unwrap();
    let first = tokio::time::timeout(Duration::from_secs(60), slots.recv()).await.unwrap().unwrap();
    let second = tokio::time::timeout(Duration::from_secs(60), slots.recv()).await.unwrap().unwrap();
    assert!(first < second && second.ends_with(".000Z"), "{first} {second}");
    let view = pulse.get().await.unwrap().unwrap();
    assert_eq!((view.state, view.fired), (ScheduleState::Ended, 2));
    worker.stop().await;
    pond.close().await.unwrap();
}

#[tokio::test]
async fn a_schedule_can_be_looked_at_paused_run_and_removed() {
    let pond = Pond::in_memory().await.unwrap();
    let emails = pond.queue::<Email>("emails").unwrap();
    let nightly = pond.schedule("nightly").unwrap();
    let push = || emails.push(&email("a@b.c"));
    let wrong = nightly.cron("0 25 * * *").push(push()).await.unwrap_err();
    assert!(matches!(wrong, Error::Refused(Reject::BadCron { at: 3, .. })), "{wrong}");
    let wrong = nightly.cron("0 3 * * *").zone("Europe/Nowhere").push(push()).await.unwrap_err();
    assert!(matches!(wrong, Error::Refused(Reject::BadZone { .. })), "{wrong}");
    let wrong = nightly.every(Duration::from_secs(9)).zone("UTC").push(push()).await.unwrap_err();
    assert!(matches!(wrong, Error::Refused(Reject::Invalid { field: "zone", .. })), "{wrong}");
    nightly
        .cron("0 3 * * *")
        .zone("Europe/Berlin")
        .overlap(Overlap::Skip)
        .catch_up(CatchUp::Skip)
        .jitter(Duration::from_secs(60))
        .push(push())
        .await
        .unwrap();
    assert_eq!(nightly.next(3).await.unwrap().unwrap().len(), 3);
    assert_eq!(pond.schedules(None).await.unwrap().len(), 1);
    assert_eq!(nightly.pause().await.unwrap().state, ScheduleState::Paused);
    let receipt = nightly.run().await.unwrap();
    assert!(receipt.id.to_string().starts_with("schedule:nightly:run-"), "{}", receipt.id);
    assert_eq!(nightly.resume().await.unwrap().state, ScheduleState::Active);
    nightly.remove().await.unwrap();
    assert!(nightly.get().await.unwrap().is_none() && nightly.next(1).await.unwrap().is_none());
    assert!(emails.job(&receipt.id).await.unwrap().is_some(), "its jobs stay");
    pond.close().await.unwrap();
}
