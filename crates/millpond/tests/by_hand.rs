//! Schedules, steps, sleeps, signals, children, joins and limits, with a clock that is moved by hand.
#![allow(missing_docs, clippy::unwrap_used)]

use millpond::{
    Backoff, CatchUp, Error, Job, JobId, JobView, Join, Limit, Outcome, Overlap, Pond, Rate, ScheduleState,
    State, TestPond,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn job(pond: &TestPond, id: &JobId) -> JobView {
    pond.job(id).await.unwrap().unwrap()
}

/// Seconds since `begin` at which attempts began.
fn seconds(pond: &TestPond, begin: millpond::Timestamp) -> Vec<u64> {
    pond.take_ran().iter().map(|ran| (ran.at - begin) / 1_000).collect()
}

#[tokio::test]
async fn a_schedule_fires_each_slot_at_its_time_and_not_once_more() {
    let pond = Pond::test();
    let begin = pond.now();
    let reports = pond.queue::<()>("reports").unwrap();
    let handler =
        |(), job: Job| async move { Ok::<_, Failure>(job.meta("slot").unwrap_or_default().to_owned()) };
    let _worker = reports.worker(handler).start().unwrap();
    let nightly = pond.schedule("nightly").unwrap();
    nightly.cron("0 3 * * *").zone("Europe/Berlin").push(reports.push(&())).await.unwrap();
    assert_eq!(pond.run_until_idle().await, 0);
    // Midnight UTC is one o'clock in Berlin.
    assert_eq!(pond.advance_to_next().await, Some(2 * HOUR));
    assert_eq!(pond.ran()[0].result.as_deref(), Some(&br#""2026-01-01T02:00:00.000Z""#[..]));
    assert_eq!(pond.advance(30 * DAY).await, 30);
    assert_eq!(seconds(&pond, begin), (0..=30).map(|day| 7_200 + day * 86_400).collect::<Vec<_>>());
    nightly.pause().await.unwrap();
    assert_eq!(pond.advance(2 * DAY).await, 0);
    nightly.resume().await.unwrap();
    assert_eq!(pond.advance(DAY).await, 1);
    assert_eq!(nightly.get().await.unwrap().unwrap().fired, 32);
    assert_eq!(nightly.run().await.unwrap().state, State::Waiting);
    assert_eq!(pond.run_until_idle().await, 1);
}

#[tokio::test]
async fn a_schedule_keeps_its_rules_for_overlap_limit_and_end() {
    let pond = Pond::test();
    let begin = pond.now();
    let slow = pond.queue::<()>("slow").unwrap();
    // Each job takes two attempts and 90 seconds between them, longer than the interval.
    let handler = |(), job: Job| async move { if job.attempt() == 1 { Err("again") } else { Ok(()) } };
    let _worker = slow.worker(handler).start().unwrap();
    let pulse = pond.schedule("pulse").unwrap();
    let push = slow.push(&()).backoff(Backoff::Fixed { delay: 90_000 });
    let spec = pulse.every(MINUTE).overlap(Overlap::Skip).catch_up(CatchUp::One).limit(2);
    spec.push(push).await.unwrap();
    pond.advance(HOUR).await;
    assert_eq!(seconds(&pond, begin), [60, 150, 180, 270]);
    let view = pulse.get().await.unwrap().unwrap();
    assert_eq!((view.state, view.fired, view.skipped), (ScheduleState::Ended, 2, 1));
    assert_eq!(pond.advance_to_next().await, None);
}

#[tokio::test]
async fn steps_are_kept_over_sleeps_and_retries() {
    let pond = Pond::test();
    let begin = pond.now();
    let charges = Arc::new(AtomicUsize::new(0));
    let orders = pond.queue::<u32>("orders").unwrap();
    let counted = charges.clone();
    let handler = move |amount: u32, job: Job| {
        let charges = counted.clone();
        async move {
            let charged = job.step("charge", || async {
                charges.fetch_add(1, Relaxed);
                Ok::<_, Failure>(amount * 2)
            });
            let charged = charged.await?;
            job.sleep("cool down", 3 * DAY).await?;
            if job.attempt() == 1 {
                return Err("the mail server is busy".into());
            }
            Ok::<_, Failure>(charged)
        }
    };
    let _worker = orders.worker(handler).start().unwrap();
    let id = orders.push(&21).backoff(Backoff::Fixed { delay: 60_000 }).await.unwrap().id;
    pond.run_until_idle().await;
    assert_eq!(job(&pond, &id).await.state, State::Delayed);
    assert_eq!(pond.advance(3 * DAY - SECOND).await, 0);
    let done = pond.wait(&id).await.unwrap().unwrap();
    assert_eq!((done.state, done.result.as_deref()), (State::Completed, Some(&b"42"[..])));
    assert_eq!(seconds(&pond, begin), [0, 3 * 86_400, 3 * 86_400 + 60]);
    assert_eq!(charges.load(Relaxed), 1, "the step ran once");
}

#[tokio::test]
async fn a_signal_comes_from_the_test_or_its_time_runs_out() {
    let pond = Pond::test();
    let begin = pond.now();
    let orders = pond.queue::<()>("orders").unwrap();
    let handler =
        |(), job: Job| async move { Ok::<_, Failure>(job.wait_for_signal::<String>("approved", DAY).await?) };
    let _worker = orders.worker(handler).start().unwrap();
    let [told, late, early] = ["told", "late", "early"].map(|id| JobId::Text(id.into()));
    for id in ["told", "late"] {
        orders.push(&()).id(id).await.unwrap();
    }
    pond.run_until_idle().await;
    assert_eq!(pond.advance(HOUR).await, 0);
    orders.signal(&told, "approved", "ada").await.unwrap();
    assert_eq!(pond.run_until_idle().await, 1);
    orders.push(&()).id("early").delay(HOUR).await.unwrap();
    assert!(orders.signal(&early, "approved", "eve").await.unwrap().buffered);
    pond.advance(23 * HOUR).await;
    let mut results = Vec::new();
    for id in [&told, &late, &early] {
        let job = orders.job(id).await.unwrap().unwrap();
        assert_eq!(job.state, State::Completed);
        results.push(job.result.map(|json| String::from_utf8(json.to_vec()).unwrap()));
    }
    assert_eq!(results, [Some(r#""ada""#.into()), None, Some(r#""eve""#.into())]);
    assert_eq!(seconds(&pond, begin).last(), Some(&86_400), "the late one went on when its time was up");
}

#[tokio::test]
async fn children_and_joins_run_in_the_same_test() {
    let pond = Pond::test();
    let (pages, images) = (pond.queue::<u32>("pages").unwrap(), pond.queue::<u32>("images").unwrap());
    let children = images.clone();
    let page = move |n: u32, job: Job| {
        let images = children.clone();
        async move {
            if let Some(children) = job.children() {
                return Ok::<_, Failure>(Outcome::done(children.results::<u32>()?));
            }
            if n == 0 {
                let made = [1, 2].map(|size| images.push(&size).delay(MINUTE * size));
                return Ok(Outcome::wait(Join::all(made)));
            }
            let child = job.child("resize", images.push(&n).delay(HOUR).job()?).await?;
            Ok(Outcome::done(child.result::<u32>()?))
        }
    };
    let image = |size: u32, job: Job| async move {
        if size == 9 && job.attempt() == 1 { Err("again") } else { Ok(size * 10) }
    };
    let _workers = (pages.worker(page).start().unwrap(), images.worker(image).start().unwrap());
    let result = |job: JobView| String::from_utf8(job.result.unwrap().to_vec()).unwrap();

    let parent = pages.push(&0).await.unwrap().id;
    assert_eq!(result(pond.wait(&parent).await.unwrap().unwrap()), "[10,20]");
    let stepped = pages.push(&3).await.unwrap().id;
    assert_eq!(result(pond.wait(&stepped).await.unwrap().unwrap()), "30");

    let retried = images.push(&9).backoff(Backoff::Fixed { delay: 60_000 });
    let join = Join::all_settled([retried, images.push(&4).delay(DAY)]).then(pages.push(&7));
    let added = pond.join(join).await.unwrap();
    let before = pond.now();
    assert_eq!(result(pond.wait(&added.jobs[2].id).await.unwrap().unwrap()), "[90,40]");
    assert_eq!(pond.now() - before, 86_400_000);
}

#[tokio::test]
async fn what_gates_hold_starts_when_the_clock_opens_them() -> Result<(), Error> {
    let pond = Pond::test();
    let begin = pond.now();
    let calls = pond.queue::<()>("calls")?;
    let limit = Limit { rate: Rate { units: 1, per_ms: 10_000, burst: 1 }, ..Limit::default() };
    pond.set_limit("api", limit).await?;
    let _worker = calls.worker(|(), _| async {}).start()?;
    for _ in 0..3 {
        calls.push(&()).limit("api").await?;
    }
    assert_eq!(pond.run_until_idle().await, 1);
    assert_eq!(pond.advance_to_next().await, Some(10 * SECOND));
    assert_eq!(pond.advance(MINUTE).await, 1);
    assert_eq!(seconds(&pond, begin), [0, 10, 20]);
    calls.push(&()).expires(MINUTE).group("a").await?;
    calls.set_group("a", None, Some(true)).await?;
    pond.advance(HOUR).await;
    assert_eq!(pond.jobs("calls", State::Expired).await?.len(), 1, "nobody started it in time");
    Ok(())
}
