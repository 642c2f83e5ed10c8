//! The worker loop against a source in memory. Time is tokio's and moves by itself where all wait.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Pit, job, job_with_timeout, next};
use model::{ErrorInfo, Outcome, Reject};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use workers::{Context, Handler, Keeper, Options, Reason, Runtime, Verdict};

struct Run<F>(F);

impl<F, R> Handler for Run<F>
where
    F: Fn(Context) -> R + Send + Sync + 'static,
    R: Future<Output = Outcome> + Send,
{
    async fn run(&self, context: Context) -> Verdict {
        (self.0)(context).await.into()
    }
}

const LEASE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);

fn done() -> Outcome {
    Outcome::Done { result: None }
}

fn kind(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Retry { error, .. } | Outcome::Fail { error } => &error.kind,
        other => panic!("not an error: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_outcome_reaches_the_source_and_is_counted() {
    let (pit, mut told) = Pit::new(LEASE);
    let error = ErrorInfo { kind: "k".into(), message: "m".into(), stack: "".into() };
    let outcomes = [
        Outcome::Done { result: Some("1".into()) },
        Outcome::Retry { error: error.clone(), after_ms: Some(5) },
        Outcome::Fail { error },
        Outcome::Snooze { after_ms: 7 },
        Outcome::Cancel { reason: "r".into() },
    ];
    let wish = outcomes.clone();
    let handler = Run(move |context: Context| {
        let outcome = wish[context.job().lease_token as usize].clone();
        async move { outcome }
    });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push((0..5).map(|token| job(token, "")));
    for _ in 0..5 {
        let (token, outcome) = next(&mut told).await;
        assert_eq!(outcome, outcomes[token as usize]);
    }
    let totals = runtime.counters().totals();
    runtime.stop(SOON).await;
    assert_eq!((totals.started, totals.fetched, totals.running), (5, 5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_and_the_slot_lives_on() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|context: Context| async move {
        assert!(context.job().lease_token != 1, "poison {}", context.job().id);
        done()
    });
    let runtime =
        Runtime::start(pit.clone(), handler, Options { concurrency: 1, ..Options::default() }).unwrap();
    pit.push([job(1, ""), job(2, "")]);
    let (_, first) = next(&mut told).await;
    assert_eq!(first, Outcome::Retry { error: workers::error("panic", "poison job-1", ""), after_ms: None });
    assert_eq!(next(&mut told).await, (2, done()));
    assert_eq!(runtime.counters().totals().panics, 1);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_jobs_run_at_once_than_allowed_and_none_is_fetched_for_later() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Arc::new(Notify::new());
    let held = gate.clone();
    let handler = Run(move |_| {
        let held = held.clone();
        async move {
            held.notified().await;
            done()
        }
    });
    let runtime =
        Runtime::start(pit.clone(), handler, Options { concurrency: 3, ..Options::default() }).unwrap();
    pit.push((0..7).map(|token| job(token, "")));
    while runtime.counters().totals().running < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pit.jobs.lock().unwrap().len(), 4);
    for _ in 0..7 {
        gate.notify_one();
        next(&mut told).await;
    }
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_that_come_one_by_one_fill_all_slots() {
    let (pit, _told) = Pit::new(LEASE);
    let handler = Run(|_| std::future::pending());
    let runtime =
        Runtime::start(pit.clone(), handler, Options { concurrency: 3, ..Options::default() }).unwrap();
    for token in 1..=3 {
        pit.push([job(token, "")]);
        while runtime.counters().totals().running < token {
            tokio::task::yield_now().await;
        }
    }
    drop(runtime);
}

#[tokio::test(start_paused = true)]
async fn running_jobs_are_renewed_together_before_half_their_lease() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Arc::new(Notify::new());
    let held = gate.clone();
    let handler = Run(move |_| {
        let held = held.clone();
        async move {
            held.notified().await;
            done()
        }
    });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    let start = tokio::time::Instant::now();
    pit.push((1..=5).map(|token| job(token, "")));
    pit.renewal().await;
    assert!(start.elapsed() < LEASE / 2);
    let mut first = pit.renewals.lock().unwrap()[0].clone();
    first.sort_unstable();
    assert_eq!(first, [1, 2, 3, 4, 5]);
    // Far beyond the first lease the handlers still own their jobs.
    while start.elapsed() < LEASE * 4 {
        pit.renewal().await;
    }
    gate.notify_waiters();
    for _ in 0..5 {
        assert_eq!(next(&mut told).await.1, done());
    }
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_lease_calls_the_handler_off_and_drops_its_result() {
    let (pit, mut told) = Pit::new(LEASE);
    let heard = Arc::new(AtomicBool::new(false));
    let hears = heard.clone();
    let handler = Run(move |context: Context| {
        let hears = hears.clone();
        async move {
            if context.job().lease_token == 1 {
                hears.store(context.cancelled().wait().await == Reason::LeaseLost, Ordering::SeqCst);
            }
            done()
        }
    });
    let runtime =
        Runtime::start(pit.clone(), handler, Options { concurrency: 1, ..Options::default() }).unwrap();
    pit.stale.lock().unwrap().push(1);
    pit.push([job(1, ""), job(2, "")]);
    assert_eq!(next(&mut told).await, (2, done()));
    assert!(heard.load(Ordering::SeqCst));
    assert_eq!(runtime.counters().totals().dropped, 1);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_cannot_renew_is_called_off_when_its_own_clock_says_the_lease_is_over() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|context: Context| async move {
        if context.job().lease_token == 1 {
            assert_eq!(context.cancelled().wait().await, Reason::LeaseLost);
        }
        done()
    });
    let runtime =
        Runtime::start(pit.clone(), handler, Options { concurrency: 1, ..Options::default() }).unwrap();
    let start = tokio::time::Instant::now();
    pit.push([job(1, "")]);
    while runtime.counters().totals().running < 1 {
        tokio::task::yield_now().await;
    }
    *pit.failures.lock().unwrap() = 100_000;
    while runtime.counters().totals().dropped < 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(start.elapsed() <= LEASE);
    *pit.failures.lock().unwrap() = 0;
    pit.push([job(2, "")]);
    assert_eq!(next(&mut told).await, (2, done()));
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_told_then_dropped_then_retried() {
    let (pit, mut told) = Pit::new(LEASE);
    let told_to_stop = Arc::new(AtomicBool::new(false));
    let flag = told_to_stop.clone();
    let handler = Run(move |context: Context| {
        let flag = flag.clone();
        async move {
            context.cancelled().wait().await;
            flag.store(true, Ordering::SeqCst);
            std::future::pending().await
        }
    });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job_with_timeout(1, "", LEASE, Duration::from_secs(90))]);
    let start = tokio::time::Instant::now();
    let (_, outcome) = next_within(&mut told, Duration::from_secs(200)).await;
    assert_eq!(kind(&outcome), "timeout");
    assert!(told_to_stop.load(Ordering::SeqCst));
    assert!(start.elapsed() >= Duration::from_secs(90), "{:?}", start.elapsed());
    runtime.stop(SOON).await;
}

async fn next_within(told: &mut common::Told, span: Duration) -> (u64, Outcome) {
    let settlement = tokio::time::timeout(span, told.recv()).await.unwrap().unwrap();
    (settlement.lease.token, settlement.outcome)
}

#[tokio::test(start_paused = true)]
async fn a_revoked_attempt_is_called_off_at_once() {
    let (pit, _told) = Pit::new(LEASE);
    let handler = Run(|context: Context| async move {
        assert_eq!(context.cancelled().wait().await, Reason::Cancelled);
        done()
    });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job(1, "")]);
    while runtime.counters().totals().running < 1 {
        tokio::task::yield_now().await;
    }
    pit.cancel(1);
    while runtime.counters().totals().dropped < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(runtime.counters().totals().panics, 0);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_was_revoked_before_it_began_never_begins() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Arc::new(Notify::new());
    let (held, ran) = (gate.clone(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let runs = ran.clone();
    let handler = Run(move |context: Context| {
        runs.lock().unwrap().push(context.job().lease_token);
        let held = held.clone();
        async move {
            held.notified().await;
            done()
        }
    });
    let options = Options { concurrency: 1, prefetch: 10, ..Options::default() };
    let runtime = Runtime::start(pit.clone(), handler, options).unwrap();
    pit.push([job(1, "")]);
    while runtime.counters().totals().running < 1 {
        tokio::task::yield_now().await;
    }
    // Of a job that is still on its way.
    pit.cancel(2);
    while !pit.heard() {
        tokio::task::yield_now().await;
    }
    pit.push([job(2, ""), job(3, "")]);
    gate.notify_one();
    assert_eq!(next(&mut told).await.0, 1);
    gate.notify_one();
    assert_eq!(next(&mut told).await.0, 3);
    assert_eq!(*ran.lock().unwrap(), [1, 3]);
    assert_eq!(runtime.counters().totals().dropped, 1);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_may_have_missed_something_renews_all_leases_at_once() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|context: Context| async move {
        match context.cancelled().wait().await {
            Reason::LeaseLost => done(),
            other => panic!("{other:?}"),
        }
    });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job(1, ""), job(2, "")]);
    while runtime.counters().totals().running < 2 {
        tokio::task::yield_now().await;
    }
    pit.stale.lock().unwrap().push(2);
    let start = tokio::time::Instant::now();
    pit.tell(workers::Revoked::Missed);
    while runtime.counters().totals().dropped < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "no timer had to pass");
    assert_eq!(runtime.counters().totals().running, 1);
    assert!(told.try_recv().is_err());
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn calls_that_fail_are_repeated_until_they_are_heard() {
    let (pit, mut told) = Pit::new(LEASE);
    *pit.failures.lock().unwrap() = 3;
    let failing = pit.clone();
    let handler = Run(move |_| {
        *failing.failures.lock().unwrap() = 3;
        async { done() }
    });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job(1, "")]);
    assert_eq!(next(&mut told).await, (1, done()));
    assert!(runtime.counters().totals().source_errors >= 6);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_outcome_becomes_an_error_in_the_history() {
    let (pit, mut told) = Pit::new(LEASE);
    let runtime = Runtime::start(pit.clone(), Run(|_| async { done() }), Options::default()).unwrap();
    *pit.reject_next.lock().unwrap() = Some(Reject::BodyTooLarge { bytes: 2, limit: 1 });
    pit.push([job(1, "")]);
    let (_, outcome) = next(&mut told).await;
    assert_eq!(kind(&outcome), "body_too_large");
    *pit.reject_next.lock().unwrap() = Some(Reject::StaleLease { id: "job-2".into(), token: 2 });
    pit.push([job(2, "")]);
    while runtime.counters().totals().dropped < 1 {
        tokio::task::yield_now().await;
    }
    runtime.stop(SOON).await;
    assert!(told.try_recv().is_err(), "a stale result is not shown again");
}

#[tokio::test(start_paused = true)]
async fn a_result_too_large_for_the_log_fails_with_its_size() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|_| async { Outcome::Done { result: Some(vec![b'1'; (1 << 20) + 1].into()) } });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job(1, "")]);
    assert_eq!(kind(&next(&mut told).await.1), "result_too_large");
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_lets_running_jobs_finish() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|_| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        done()
    });
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job(1, ""), job(2, "")]);
    while runtime.counters().totals().running < 2 {
        tokio::task::yield_now().await;
    }
    let drained = runtime.stop(SOON).await;
    assert_eq!((drained.finished, drained.handed_back, drained.left), (2, 0, 0));
    assert_eq!(next(&mut told).await.1, done());
}

#[tokio::test(start_paused = true)]
async fn stopping_hands_back_what_does_not_finish_in_time() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|_| std::future::pending());
    let runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job(1, "")]);
    while runtime.counters().totals().running < 1 {
        tokio::task::yield_now().await;
    }
    let drained = runtime.stop(SOON).await;
    assert_eq!((drained.finished, drained.handed_back, drained.left), (0, 1, 0));
    assert_eq!(next(&mut told).await, (1, Outcome::Snooze { after_ms: 0 }));
}

#[tokio::test(start_paused = true)]
async fn jobs_that_wait_too_long_for_a_slot_go_back() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|context: Context| async move {
        if context.job().lease_token == 60 {
            std::future::pending().await
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        done()
    });
    let options = Options { concurrency: 1, prefetch: 100, ..Options::default() };
    let runtime = Runtime::start(pit.clone(), handler, options).unwrap();
    // Quick jobs teach the worker to fetch ahead, then a stuck one holds those that wait behind it.
    pit.push((1..=200).map(|token| job(token, "")));
    for token in 1..60 {
        assert_eq!(next(&mut told).await, (token, done()));
    }
    assert_eq!(next(&mut told).await, (61, Outcome::Snooze { after_ms: 0 }));
    drop(runtime);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_quick_jobs_go_in_large_batches_and_none_is_lost() {
    let (pit, mut told) = Pit::new(LEASE);
    let options = Options { concurrency: 64, prefetch: 1_000, ..Options::default() };
    let runtime = Runtime::start(pit.clone(), Run(|_| async { done() }), options).unwrap();
    let count = 50_000;
    pit.push((0..count).map(|token| job(token, "")));
    let mut seen = vec![false; count as usize];
    for _ in 0..count {
        let (token, _) = next(&mut told).await;
        assert!(!std::mem::replace(&mut seen[token as usize], true), "job {token} was settled twice");
    }
    runtime.stop(SOON).await;
    let largest = pit.batches.lock().unwrap().iter().copied().max().unwrap();
    assert!(largest > 64, "the largest settle had {largest}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_keeper_thread_renews_while_handlers_block_every_thread() {
    let lease = Duration::from_millis(200);
    let (pit, mut told) = Pit::new(lease);
    let watch = pit.clone();
    let handler = Run(move |_| {
        let watch = watch.clone();
        async move {
            // Blocks the only thread until the lease was renewed twice.
            while watch.renewals.lock().unwrap().len() < 2 {
                std::thread::yield_now();
            }
            done()
        }
    });
    let options = Options { keeper: Keeper::Thread, ..Options::default() };
    let runtime = Runtime::start(pit.clone(), handler, options).unwrap();
    pit.push([job(1, "")]);
    assert_eq!(next(&mut told).await, (1, done()));
    runtime.stop(SOON).await;
}
