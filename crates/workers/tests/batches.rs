//! Handlers that take several jobs in one call, against a source in memory. Time is tokio's and moves by itself where all wait.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Pit, job, next};
use model::{DispatchedJob, NewJob, Outcome, QueueName};
use std::{
    future::{Future, pending},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use workers::{BatchHandler, BatchOptions, Context, Options, Reason, Runtime, Verdict};

struct Run<F>(F);

impl<F, R> BatchHandler for Run<F>
where
    F: Fn(Vec<Context>) -> R + Send + Sync + 'static,
    R: Future<Output = Vec<Verdict>> + Send,
{
    async fn run(&self, jobs: Vec<Context>) -> Vec<Verdict> {
        (self.0)(jobs).await
    }
}

const LEASE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);
const BACK: Outcome = Outcome::Snooze { after_ms: 0 };

fn done() -> Outcome {
    Outcome::Done { result: None }
}

fn batches(size: usize) -> BatchOptions {
    BatchOptions { size, wait: SECOND * 10, ..BatchOptions::default() }
}

fn calls(concurrency: usize) -> Options {
    Options { concurrency, ..Options::default() }
}

fn tokens(jobs: &[Context]) -> Vec<u64> {
    jobs.iter().map(|job| job.job().lease_token).collect()
}

fn of_group(token: u64, group: &str) -> DispatchedJob {
    DispatchedJob { group: Some(group.into()), ..job(token, "") }
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::task::yield_now().await;
    }
}

/// A handler that says which jobs it has, and ends with `done` for all when it is let.
#[derive(Clone)]
struct Gate {
    calls: Arc<Mutex<Vec<Vec<u64>>>>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new(open: usize) -> Self {
        Self { calls: Arc::default(), open: Arc::new(Semaphore::new(open)) }
    }

    fn calls(&self) -> Vec<Vec<u64>> {
        self.calls.lock().unwrap().clone()
    }
}

impl BatchHandler for Gate {
    async fn run(&self, jobs: Vec<Context>) -> Vec<Verdict> {
        self.calls.lock().unwrap().push(tokens(&jobs));
        self.open.acquire().await.unwrap().forget();
        jobs.iter().map(|_| done().into()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn each_job_of_a_call_has_its_own_outcome_and_its_own_follow_ups() {
    let (pit, mut told) = Pit::new(LEASE);
    let error = workers::error("k", "m", "");
    let outcomes = [
        Outcome::Done { result: Some("1".into()) },
        Outcome::Retry { error: error.clone(), after_ms: Some(5) },
        Outcome::Fail { error },
        Outcome::Snooze { after_ms: 7 },
        Outcome::Cancel { reason: "r".into() },
    ];
    let wish = outcomes.clone();
    let handler = Run(move |jobs: Vec<Context>| {
        let verdicts = jobs.iter().map(|job| {
            let token = job.job().lease_token as usize;
            let push = vec![NewJob::new(QueueName::new("next").unwrap(), format!("{token}"))];
            Verdict { outcome: wish[token].clone(), push }
        });
        let verdicts = verdicts.collect();
        async { verdicts }
    });
    let runtime = Runtime::start_batches(pit.clone(), handler, &batches(5), calls(1)).unwrap();
    let start = Instant::now();
    pit.push((0..5).map(|token| job(token, "")));
    for token in 0..5 {
        let settlement = told.recv().await.unwrap();
        assert_eq!(settlement.lease.token, token);
        assert_eq!(settlement.outcome, outcomes[token as usize]);
        assert_eq!(settlement.push[0].body, format!("{token}"));
    }
    assert_eq!(start.elapsed(), Duration::ZERO, "a full batch does not wait");
    let totals = runtime.counters().totals();
    assert_eq!((totals.calls, totals.started, totals.running), (1, 5, 0));
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_does_not_fill_is_called_when_its_wait_is_over() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(9);
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &batches(3), calls(1)).unwrap();
    let start = Instant::now();
    pit.push([job(1, "")]);
    tokio::time::sleep(SECOND * 4).await;
    pit.push([job(2, "")]);
    assert_eq!(next(&mut told).await, (1, done()));
    assert_eq!(start.elapsed(), SECOND * 10, "counted from the first job");
    assert_eq!(gate.calls(), [[1, 2]]);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_of_different_groups_do_not_share_a_call() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(9);
    let options = BatchOptions { by_group: true, ..batches(2) };
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &options, calls(2)).unwrap();
    pit.push([of_group(1, "a"), of_group(2, "b"), of_group(3, "a"), of_group(4, "b")]);
    for _ in 0..4 {
        next(&mut told).await;
    }
    assert_eq!(gate.calls(), [[1, 3], [2, 4]]);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_of_every_job_of_the_call() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|jobs: Vec<Context>| async move {
        assert!(!tokens(&jobs).contains(&1), "poison");
        vec![done().into(); jobs.len()]
    });
    let runtime = Runtime::start_batches(pit.clone(), handler, &batches(2), calls(1)).unwrap();
    pit.push((1..=4).map(|token| job(token, "")));
    let panicked = || Outcome::Retry { error: workers::error("panic", "poison", ""), after_ms: None };
    for (token, outcome) in [(1, panicked()), (2, panicked()), (3, done()), (4, done())] {
        assert_eq!(next(&mut told).await, (token, outcome));
    }
    assert_eq!(runtime.counters().totals().panics, 1);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_with_too_few_outcomes_has_failed() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|_| async { vec![done().into()] });
    let runtime = Runtime::start_batches(pit.clone(), handler, &batches(2), calls(1)).unwrap();
    pit.push([job(1, ""), job(2, "")]);
    let text = "the handler returned 1 outcomes for 2 jobs";
    for token in [1, 2] {
        let outcome = Outcome::Retry { error: workers::error("outcomes", text, ""), after_ms: None };
        assert_eq!(next(&mut told).await, (token, outcome));
    }
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn leases_are_renewed_while_jobs_gather_and_while_they_run() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(0);
    let options = BatchOptions { wait: LEASE * 3, ..batches(3) };
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &options, calls(1)).unwrap();
    let start = Instant::now();
    pit.push([job(1, ""), job(2, "")]);
    while start.elapsed() < LEASE * 2 {
        pit.renewal().await;
    }
    assert!(gate.calls().is_empty(), "they gather");
    pit.push([job(3, "")]);
    while start.elapsed() < LEASE * 5 {
        pit.renewal().await;
    }
    assert_eq!(gate.calls(), [[1, 2, 3]]);
    let renewed = pit.renewals.lock().unwrap().last().unwrap().len();
    assert_eq!(renewed, 3);
    gate.open.add_permits(1);
    for token in [1, 2, 3] {
        assert_eq!(next(&mut told).await, (token, done()));
    }
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_gathers_is_given_up_when_its_lease_cannot_be_renewed() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(9);
    let options = BatchOptions { wait: LEASE * 3, ..batches(2) };
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &options, calls(1)).unwrap();
    pit.push([job(1, "")]);
    until(|| pit.jobs.lock().unwrap().is_empty()).await;
    *pit.failures.lock().unwrap() = 100_000;
    tokio::time::sleep(LEASE).await;
    *pit.failures.lock().unwrap() = 0;
    pit.push([job(2, ""), job(3, "")]);
    assert_eq!(next(&mut told).await, (2, done()));
    assert_eq!((gate.calls(), runtime.counters().totals().dropped), (vec![vec![2, 3]], 1));
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_while_it_gathers_is_in_no_call() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(9);
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &batches(3), calls(1)).unwrap();
    pit.push([job(1, ""), job(2, "")]);
    until(|| pit.jobs.lock().unwrap().is_empty()).await;
    pit.cancel(1);
    until(|| pit.heard()).await;
    pit.push([job(3, ""), job(4, "")]);
    for token in [2, 3, 4] {
        assert_eq!(next(&mut told).await, (token, done()));
    }
    assert_eq!(gate.calls(), [[2, 3, 4]]);
    assert_eq!(runtime.counters().totals().dropped, 1);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_cancelled_while_it_runs_hears_of_it_and_the_others_go_on() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = Run(|jobs: Vec<Context>| async move {
        assert_eq!(jobs[0].cancelled().wait().await, Reason::Cancelled);
        assert_eq!(jobs[1].cancelled().reason(), None);
        vec![done().into(); 2]
    });
    let runtime = Runtime::start_batches(pit.clone(), handler, &batches(2), calls(1)).unwrap();
    pit.push([job(1, ""), job(2, "")]);
    until(|| runtime.counters().totals().running == 2).await;
    pit.cancel(1);
    assert_eq!(next(&mut told).await, (2, done()));
    let totals = runtime.counters().totals();
    assert_eq!((totals.dropped, totals.panics), (1, 0));
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_told_then_dropped_then_retried() {
    let (pit, mut told) = Pit::new(LEASE);
    let (hear, mut heard) = mpsc::unbounded_channel();
    let handler = Run(move |jobs: Vec<Context>| {
        let hear = hear.clone();
        async move {
            for job in jobs {
                hear.send(job.cancelled().wait().await).unwrap();
            }
            pending().await
        }
    });
    let options = Options { timeout: Some(SECOND * 60), ..calls(1) };
    let runtime = Runtime::start_batches(pit.clone(), handler, &batches(3), options).unwrap();
    let start = Instant::now();
    pit.push([job(1, ""), job(2, "")]);
    for _ in 0..2 {
        assert_eq!(heard.recv().await, Some(Reason::Timeout));
    }
    assert_eq!(start.elapsed().as_secs(), 70, "the wait is not part of it");
    for token in [1, 2] {
        let (of, outcome) = next(&mut told).await;
        let Outcome::Retry { error, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!((of, error.kind.as_str()), (token, "timeout"));
    }
    assert_eq!(runtime.counters().totals().timeouts, 2);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn stopping_hands_back_what_gathers_and_lets_calls_finish() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(0);
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &batches(2), calls(2)).unwrap();
    pit.push((1..=3).map(|token| job(token, "")));
    until(|| !gate.calls().is_empty() && pit.jobs.lock().unwrap().is_empty()).await;
    let opener = gate.clone();
    let (drained, back) = tokio::join!(runtime.stop(SOON), async {
        let back = next(&mut told).await;
        opener.open.add_permits(1);
        back
    });
    assert_eq!(back, (3, BACK), "at once, while the call still runs");
    assert_eq!((drained.finished, drained.handed_back, drained.left), (2, 1, 0));
    assert_eq!(gate.calls(), [[1, 2]]);
    assert_eq!(next(&mut told).await, (1, done()));
}

#[tokio::test(start_paused = true)]
async fn stopping_hands_back_a_call_that_does_not_finish_in_time() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(0);
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &batches(2), calls(1)).unwrap();
    pit.push([job(1, ""), job(2, "")]);
    until(|| !gate.calls().is_empty()).await;
    let drained = runtime.stop(SOON).await;
    assert_eq!((drained.finished, drained.handed_back, drained.left), (0, 2, 0));
    assert_eq!((next(&mut told).await, next(&mut told).await), ((1, BACK), (2, BACK)));
}

#[tokio::test(start_paused = true)]
async fn concurrency_counts_calls_and_no_job_is_taken_for_a_call_that_still_runs() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(0);
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &batches(3), calls(2)).unwrap();
    pit.push((1..=9).map(|token| job(token, "")));
    until(|| gate.calls().len() == 2).await;
    assert_eq!(gate.calls(), [[1, 2, 3], [4, 5, 6]]);
    tokio::time::sleep(SECOND * 100).await;
    assert_eq!(pit.jobs.lock().unwrap().len(), 3, "they are for other workers");
    gate.open.add_permits(3);
    for _ in 0..9 {
        assert_eq!(next(&mut told).await.1, done());
    }
    assert_eq!(gate.calls()[2], [7, 8, 9]);
    runtime.stop(SOON).await;
}

#[tokio::test(start_paused = true)]
async fn jobs_that_have_gathered_and_find_no_call_go_back() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(0);
    let options = BatchOptions { by_group: true, ..batches(2) };
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &options, calls(1)).unwrap();
    let start = Instant::now();
    // Both places are taken, so the older group is called alone, and the other one has to wait for its end.
    pit.push([of_group(1, "a"), of_group(2, "b")]);
    assert_eq!(next(&mut told).await, (2, BACK));
    assert_eq!(start.elapsed(), SECOND * 10 + LEASE / 3);
    assert_eq!(gate.calls(), [[1]]);
    drop(runtime);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_come_one_by_one_fill_a_batch() {
    let (pit, mut told) = Pit::new(LEASE);
    let gate = Gate::new(9);
    let runtime = Runtime::start_batches(pit.clone(), gate.clone(), &batches(4), calls(1)).unwrap();
    let start = Instant::now();
    for token in 1..=4 {
        pit.push([job(token, "")]);
        until(|| pit.jobs.lock().unwrap().is_empty()).await;
    }
    assert_eq!(next(&mut told).await, (1, done()));
    assert_eq!((start.elapsed(), gate.calls()), (Duration::ZERO, vec![vec![1, 2, 3, 4]]));
    runtime.stop(SOON).await;
}
