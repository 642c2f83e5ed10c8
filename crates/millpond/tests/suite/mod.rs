//! What a pond does, whatever it stands on: the same cases for one in this process and for one on a server.
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use millpond::{
    BulkStatus, Error, EventFilter, Filter, Job, JobId, Join, Limit, Outcome, Pond, Priority, QueuePatch,
    Reason, Reject, State, StepError, Stream,
};
use std::{future::Future, pin::Pin, time::Duration};

type Case = fn(Pond) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case with its name. Each gets an empty pond, and closes it.
        pub(crate) const CASES: &[(&str, Case)] = &[$((stringify!($name), |pond| Box::pin($name(pond)))),*];
    };
}

cases! {
    results_progress_and_log_lines_are_kept,
    errors_are_retried_and_failures_are_final,
    options_reach_the_job_and_duplicates_are_named,
    many_jobs_are_pushed_as_one_change_and_all_run,
    refusals_are_the_same_values,
    a_key_makes_a_repeated_push_one,
    a_running_job_hears_that_it_is_cancelled,
    outcomes_push_suspend_and_crash,
    steps_signals_and_children_survive_attempts,
    joins_wait_and_hand_over_results,
    schedules_are_kept_and_shown,
    queues_are_configured_paused_and_counted,
    operations_run_in_the_background,
    batches_have_an_outcome_for_each_job,
    events_are_heard_in_their_order,
    dead_letters_have_their_classes,
    bodies_are_edited_before_a_redrive,
    a_stopped_worker_gives_back_what_it_has_not_begun,
    a_producer_waits_for_room,
}

async fn ended(pond: &Pond, id: &JobId) -> millpond::JobView {
    let wait = tokio::time::timeout(Duration::from_secs(60), pond.wait(id));
    wait.await.expect("the job ends").unwrap().unwrap()
}

async fn until<T, F: Future<Output = Option<T>>>(mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), looking).await.expect("it comes to pass")
}

async fn results_progress_and_log_lines_are_kept(pond: Pond) {
    let emails = pond.queue::<String>("emails").unwrap();
    let handler = |to: String, job: Job| async move {
        job.log("sending").await?;
        job.progress(50).await?;
        Ok::<_, Error>(format!("{to} {} {}", job.attempt(), job.queue()))
    };
    let worker = emails.worker(handler).start().unwrap();
    let receipt = emails.push(&"ada".into()).await.unwrap();
    let job = ended(&pond, &receipt.id).await;
    assert_eq!((job.state, job.result.as_deref()), (State::Completed, Some(&b"\"ada 1 emails\""[..])));
    assert_eq!((job.progress.as_deref(), job.body.as_deref()), (Some(&b"50"[..]), Some(&b"\"ada\""[..])));
    assert_eq!(pond.log_lines(&receipt.id).await.unwrap().unwrap()[0].text, "sending");
    let history = pond.history(&receipt.id).await.unwrap().unwrap();
    assert_eq!(history.iter().map(|one| one.cause.name()).collect::<Vec<_>>(), ["push", "fetch", "complete"]);
    assert_eq!(pond.explain(&receipt.id).await.unwrap().unwrap().state, State::Completed);
    assert_eq!(pond.job(&JobId::parse("nobody").unwrap()).await.unwrap(), None);
    worker.stop().await;
    pond.close().await.unwrap();
}

async fn errors_are_retried_and_failures_are_final(pond: Pond) {
    let queue = pond.queue::<String>("q").unwrap();
    let handler = |what: String, job: Job| async move {
        match what.as_str() {
            "never" => Ok(Outcome::fail("no such address")),
            "panic" => panic!("a handler's own"),
            _ if job.attempt() < 3 => Err(std::io::Error::other("busy")),
            _ => Ok(Outcome::done(job.attempt())),
        }
    };
    let worker = queue.worker(handler).start().unwrap();
    let soon = millpond::Backoff::Fixed { delay: 1 };
    let busy = queue.push(&"later".into()).backoff(soon).await.unwrap();
    let dead = queue.push(&"never".into()).await.unwrap();
    let panics = queue.push(&"panic".into()).attempts(1).await.unwrap();
    let shape = pond.queue::<u32>("q").unwrap().push(&7).await.unwrap();
    assert_eq!(ended(&pond, &busy.id).await.result.as_deref(), Some(&b"3"[..]));
    for (id, kind) in [(dead.id, "error"), (panics.id, "panic"), (shape.id, "decode")] {
        let job = ended(&pond, &id).await;
        assert_eq!((job.state, job.error.unwrap().kind.as_str()), (State::Dead, kind));
    }
    worker.stop().await;
    pond.close().await.unwrap();
}

async fn options_reach_the_job_and_duplicates_are_named(pond: Pond) {
    let queue = pond.queue::<String>("q").unwrap();
    let push = || queue.push(&"a".into()).id("one").priority(Priority::HIGH).delay(Duration::from_secs(60));
    let receipt = push().attempts(2).tag("blue").meta("k", "v").unique("key").group("g").limit("api").await;
    let receipt = receipt.unwrap();
    assert_eq!((receipt.deduplicated, receipt.state), (false, State::Delayed));
    assert!(push().await.unwrap().deduplicated);
    assert_eq!(queue.push(&"b".into()).unique("key").await.unwrap().id, receipt.id);
    let job = queue.job(&receipt.id).await.unwrap().unwrap();
    assert_eq!((job.priority, job.attempts, job.tags[0].as_str()), (Priority::HIGH, 2, "blue"));
    assert_eq!((job.unique_key.as_deref(), job.meta[0].1.as_str()), (Some("key"), "v"));
    assert_eq!(queue.cancel(&receipt.id, "no more").await.unwrap(), State::Cancelled);
    pond.close().await.unwrap();
}

async fn many_jobs_are_pushed_as_one_change_and_all_run(pond: Pond) {
    let queue = pond.queue::<u64>("q").unwrap();
    let numbers: Vec<u64> = (0..3_000).collect();
    let receipts = queue.push_many(&numbers).await.unwrap();
    assert_eq!(receipts.len(), 3_000);
    let mixed =
        vec![queue.push(&1).job().unwrap(), pond.queue::<u64>("other").unwrap().push(&2).job().unwrap()];
    assert_eq!(pond.push_all(mixed).await.unwrap().len(), 2);
    let worker = queue.worker(|_: u64, _| async {}).concurrency(32).start().unwrap();
    until(|| async { (worker.totals().done == 3_001).then_some(()) }).await;
    worker.stop().await;
    pond.close().await.unwrap();
}

async fn refusals_are_the_same_values(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let nobody = JobId::parse("nobody").unwrap();
    assert!(matches!(queue.cancel(&nobody, "").await, Err(Error::Refused(Reject::UnknownJob { .. }))));
    assert!(matches!(queue.pause().await, Err(Error::Refused(Reject::UnknownQueue { .. }))));
    let much = vec![queue.push(&1).job().unwrap(); 10_001];
    assert!(matches!(pond.push_all(much).await, Err(Error::Refused(Reject::TooMany { .. }))));
    let bad = queue.push(&1).attempts(0).await;
    assert!(matches!(bad, Err(Error::Refused(Reject::Invalid { field: "attempts", .. }))), "{bad:?}");
    let held = queue.push(&1).unique("k").await.unwrap();
    let conflict = queue.push(&1).unique_for("k", Duration::ZERO, millpond::OnConflict::Reject).await;
    let Err(Error::Refused(Reject::UniqueConflict { holder, .. })) = conflict else { panic!("{conflict:?}") };
    assert_eq!(holder, held.id.to_string());
    pond.close().await.unwrap();
}

async fn a_key_makes_a_repeated_push_one(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let first = queue.push(&1).idempotency_key("k").await.unwrap();
    assert_eq!(queue.push(&1).idempotency_key("k").await.unwrap().id, first.id);
    let other = queue.push(&2).idempotency_key("k").await;
    assert!(matches!(other, Err(Error::Refused(Reject::IdempotencyConflict { .. }))));
    pond.close().await.unwrap();
}

async fn a_running_job_hears_that_it_is_cancelled(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let (sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |_: u32, job: Job| {
        let sender = sender.clone();
        async move {
            sender.send(None).unwrap();
            sender.send(Some(job.cancelled().await)).unwrap();
        }
    };
    let worker = queue.worker(handler).start().unwrap();
    let receipt = queue.push(&1).await.unwrap();
    assert_eq!(heard.recv().await, Some(None));
    assert_eq!(pond.cancel(&receipt.id, "enough").await.unwrap(), State::Cancelled);
    assert_eq!(heard.recv().await, Some(Some(Reason::Cancelled)));
    worker.stop().await;
    pond.close().await.unwrap();
}

async fn outcomes_push_suspend_and_crash(pond: Pond) {
    let queue = pond.queue::<String>("q").unwrap();
    let next = pond.queue::<u32>("next").unwrap();
    let follow = next.clone();
    let handler = move |what: String, job: Job| {
        let follow = follow.push(&7).id("follow").job();
        async move {
            Ok::<_, Error>(match what.as_str() {
                "push" => Outcome::done(1).push(follow?),
                "cancel" => Outcome::cancel("not today"),
                _ if job.attempt() > 1 => Outcome::done(2),
                _ => Outcome::retry_after("once more", Duration::ZERO),
            })
        }
    };
    let worker = queue.worker(handler).start().unwrap();
    let push = queue.push(&"push".into()).await.unwrap();
    let cancel = queue.push(&"cancel".into()).await.unwrap();
    let retry = queue.push(&"retry".into()).await.unwrap();
    assert_eq!(ended(&pond, &push.id).await.state, State::Completed);
    assert_eq!(ended(&pond, &cancel.id).await.state, State::Cancelled);
    assert_eq!(ended(&pond, &retry.id).await.result.as_deref(), Some(&b"2"[..]));
    let follow = next.job(&JobId::parse("follow").unwrap()).await.unwrap().unwrap();
    assert_eq!(follow.body.as_deref(), Some(&b"7"[..]));
    worker.stop().await;
    pond.close().await.unwrap();
}

async fn steps_signals_and_children_survive_attempts(pond: Pond) {
    let queue = pond.queue::<u32>("orders").unwrap();
    let children = pond.queue::<u32>("children").unwrap();
    let child = children.clone();
    let handler = move |_: u32, job: Job| {
        let child = child.push(&5).job();
        async move {
            let charged: u32 = job.step("charge", || async { Ok::<_, Error>(3) }).await?;
            let approved: Option<u32> = job.wait_for_signal("approval", Duration::from_secs(60)).await?;
            let doubled: u32 = job.child("double", child?).await?.result()?;
            job.sleep("rest", Duration::from_millis(1)).await?;
            Ok::<_, StepError>(charged + approved.unwrap_or(0) + doubled)
        }
    };
    let worker = queue.worker(handler).start().unwrap();
    let helper = children.worker(|n: u32, _| async move { Ok::<_, Error>(2 * n) }).start().unwrap();
    let order = queue.push(&1).await.unwrap();
    until(|| async { (pond.job(&order.id).await.unwrap()?.state == State::Suspended).then_some(()) }).await;
    let told = pond.signal(&order.id, "approval", 4).idempotency_key("once").await.unwrap();
    assert!(!told.buffered);
    assert_eq!(ended(&pond, &order.id).await.result.as_deref(), Some(&b"17"[..]));
    let names: Vec<_> =
        pond.steps(&order.id).await.unwrap().unwrap().iter().map(|step| step.name.to_string()).collect();
    assert_eq!(names, ["charge", "approval", "double", "rest"]);
    worker.stop().await;
    helper.stop().await;
    pond.close().await.unwrap();
}

async fn joins_wait_and_hand_over_results(pond: Pond) {
    let images = pond.queue::<u32>("images").unwrap();
    let pages = pond.queue::<u32>("pages").unwrap();
    let worker = images.worker(|n: u32, _| async move { Ok::<_, Error>(10 * n) }).start().unwrap();
    let sum = |_: u32, job: Job| async move {
        let children = job.children().ok_or("no children")?;
        Ok::<_, String>(children.results::<u32>().map_err(|error| error.to_string())?.iter().sum::<u32>())
    };
    let page = pages.worker(sum).start().unwrap();
    let joined = pond.join(Join::all([1, 2, 3].map(|n| images.push(&n))).then(pages.push(&0))).await.unwrap();
    assert_eq!(ended(&pond, &joined.jobs[3].id).await.result.as_deref(), Some(&b"60"[..]));
    let view = pond.show_join(&joined.id).await.unwrap().unwrap();
    assert_eq!((view.total(), view.members.len()), (3, 3));
    worker.stop().await;
    page.stop().await;
    pond.close().await.unwrap();
}

async fn schedules_are_kept_and_shown(pond: Pond) {
    let reports = pond.queue::<String>("reports").unwrap();
    let schedule = pond.schedule("nightly").unwrap();
    let put = schedule.cron("0 3 * * *").zone("Europe/Berlin").push(reports.push(&"x".into())).await.unwrap();
    assert!(put.next_slot.is_some());
    let view = schedule.get().await.unwrap().unwrap();
    assert_eq!((view.spec.job.queue.as_str(), view.id.as_str()), ("reports", "nightly"));
    assert_eq!(pond.schedules(None).await.unwrap().len(), 1);
    assert_eq!(schedule.next(5).await.unwrap().unwrap().len(), 5);
    let ran = schedule.run().await.unwrap();
    assert_eq!(ran.state, State::Waiting);
    schedule.remove().await.unwrap();
    assert_eq!(schedule.get().await.unwrap(), None);
    pond.close().await.unwrap();
}

async fn queues_are_configured_paused_and_counted(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let settings = queue.configure(QueuePatch { attempts: Some(9), ..QueuePatch::default() }).await.unwrap();
    assert_eq!(settings.attempts, 9);
    queue.push_many(&[1, 2]).await.unwrap();
    queue.pause().await.unwrap();
    let view = queue.stats().await.unwrap().unwrap();
    assert_eq!((view.paused, view.counts.live(), view.pushed_total), (true, 2, 2));
    queue.resume().await.unwrap();
    queue.set_group("g", Some(3), None).await.unwrap();
    pond.set_limit("api", Limit { concurrency: 1, ..Limit::default() }).await.unwrap();
    pond.remove_limit("api").await.unwrap();
    assert_eq!(queue.producers_waiting().await.unwrap(), 0);
    pond.close().await.unwrap();
}

async fn operations_run_in_the_background(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    queue.push_many(&[1, 2, 3]).await.unwrap();
    let purge = queue.purge().await.unwrap();
    let over = until(|| async {
        let now = pond.operation(purge.id).await.unwrap()?;
        (now.status == BulkStatus::Finished).then_some(now)
    });
    assert_eq!(over.await.changed, 3);
    assert!(queue.redrive(Filter::default()).await.is_ok());
    pond.close().await.unwrap();
}

async fn batches_have_an_outcome_for_each_job(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let handler = |jobs: Vec<(u32, Job)>| async move {
        let judge = |n: &u32| if n.is_multiple_of(2) { Outcome::done(n) } else { Outcome::fail("odd") };
        jobs.iter().map(|(n, _)| judge(n)).collect::<Vec<_>>()
    };
    let worker = queue.batch_worker(handler).size(4).start().unwrap();
    let receipts = queue.push_many(&[1, 2, 3, 4]).await.unwrap();
    for (receipt, state) in receipts.iter().zip([State::Dead, State::Completed].into_iter().cycle()) {
        assert_eq!(ended(&pond, &receipt.id).await.state, state);
    }
    worker.stop().await;
    pond.close().await.unwrap();
}

async fn events_are_heard_in_their_order(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let mut events = pond.events(EventFilter::from("q"));
    let receipt = queue.push(&1).await.unwrap();
    queue.cancel(&receipt.id, "").await.unwrap();
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap();
        assert!(event.job.is_none_or(|job| job.id == receipt.id));
        kinds.push(event.kind.name());
    }
    assert_eq!(kinds, ["added", "cancelled"]);
    drop(events);
    pond.close().await.unwrap();
}

async fn dead_letters_have_their_classes(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let worker =
        queue.worker(|n: u32, _| async move { Outcome::fail(format!("number {n}")) }).start().unwrap();
    for receipt in queue.push_many(&[1, 2]).await.unwrap() {
        ended(&pond, &receipt.id).await;
    }
    let letters = queue.dead_letters().await.unwrap().unwrap();
    assert_eq!((letters.dead, letters.classes.len(), letters.classes[0].count), (2, 1, 2));
    worker.stop().await;
    pond.close().await.unwrap();
}

async fn bodies_are_edited_before_a_redrive(pond: Pond) {
    let queue = pond.queue::<Vec<u32>>("q").unwrap();
    let receipt = queue.push(&vec![1]).await.unwrap();
    queue.edit_body(&receipt.id, |body| body.push(2)).await.unwrap();
    assert_eq!(queue.job(&receipt.id).await.unwrap().unwrap().body.as_deref(), Some(&b"[1,2]"[..]));
    queue.cancel(&receipt.id, "").await.unwrap();
    queue.redrive_one(&receipt.id).await.unwrap();
    assert_eq!(queue.job(&receipt.id).await.unwrap().unwrap().state, State::Waiting);
    queue.cancel(&receipt.id, "").await.unwrap();
    queue.restart(&receipt.id).await.unwrap();
    pond.close().await.unwrap();
}

async fn a_stopped_worker_gives_back_what_it_has_not_begun(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let handler = |_: u32, _: Job| std::future::pending::<()>();
    let worker = queue.worker(handler).concurrency(2).grace(Duration::from_millis(300)).start().unwrap();
    queue.push_many(&[1, 2, 3, 4]).await.unwrap();
    until(|| async { (worker.totals().running == 2).then_some(()) }).await;
    worker.stop_within(Duration::ZERO).await;
    let waiting = until(|| async {
        let counts = queue.stats().await.unwrap().unwrap().counts;
        (counts.of(State::Active) == 0).then(|| counts.of(State::Waiting))
    });
    assert_eq!(waiting.await, 4);
    pond.close().await.unwrap();
}

async fn a_producer_waits_for_room(pond: Pond) {
    let queue = pond.queue::<u32>("q").unwrap();
    let capacity = millpond::Capacity { jobs: 1, bytes: 0, on_full: millpond::OnFull::Block };
    queue.configure(QueuePatch { capacity: Some(capacity), ..QueuePatch::default() }).await.unwrap();
    let first = queue.push(&1).await.unwrap();
    let refused = queue.push(&2).wait(Duration::from_millis(1)).await;
    assert!(matches!(refused, Err(Error::Refused(Reject::QueueFull { .. }))), "{refused:?}");
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { queue.push(&3).await }
    });
    until(|| async { (queue.producers_waiting().await.unwrap() == 1).then_some(()) }).await;
    let given_up = tokio::spawn({
        let queue = queue.clone();
        async move { queue.push(&4).await }
    });
    until(|| async { (queue.producers_waiting().await.unwrap() == 2).then_some(()) }).await;
    given_up.abort();
    until(|| async { (queue.producers_waiting().await.unwrap() == 1).then_some(()) }).await;
    queue.cancel(&first.id, "").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().state, State::Waiting);
    pond.close().await.unwrap();
}
