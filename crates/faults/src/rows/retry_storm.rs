use crate::{
    Breach, Plan, Ran,
    pond::Pond,
    talk::{counted, good, push},
};
use rig::{Client, until};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

const JOBS: u64 = 200;
const WORKERS: usize = 2;
/// Jobs of one fetch.
const BATCH: u64 = 4;
/// What the jobs call is down for so long on either side of a restart.
const DOWN: Duration = Duration::from_millis(800);
const LEASE_MS: u64 = 500;
const DRAIN_MAX: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);

/// Retries in reserve, and as many more a minute.
const RETRIES: u64 = 60;
const WITH_BUDGET: &str = "budget";

/// Failures until the breaker opens; it lets one call through after so long.
const FAILURES: u64 = 20;
const OPEN_MS: u64 = 300;
const WITH_BREAKER: &str = "breaker";

/// What the jobs of a queue call.
#[derive(Default)]
struct Downstream {
    up: AtomicBool,
    calls: AtomicU64,
    ended: AtomicBool,
}

/// F41: what jobs call is down and they fail at once, with no backoff to speak of. The budget of retries and the breaker keep the
/// calls few, also over a kill -9; when it is up again everything is worked off.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut calls = [0, 0];
    for trial in 0..plan.count {
        for (queue, most) in [WITH_BUDGET, WITH_BREAKER].iter().zip(&mut calls) {
            *most =
                storm(plan, queue).map_err(|breach| format!("trial {trial}: {queue}: {breach}"))?.max(*most);
            plan.tally.fault();
            plan.tally.found(JOBS);
        }
    }
    let [budget, breaker] = calls;
    Ok(Ran::Passed(
        plan.count,
        format!(
            "{JOBS} jobs that fail made {budget} calls under a budget, {breaker} under a breaker; all done at last"
        ),
    ))
}

/// Returns the calls that were made while nothing answered.
fn storm(plan: &Plan, queue: &'static str) -> Result<u64, Breach> {
    let pond = Pond::new(plan)?;
    let server = pond.start()?;
    let mut client = server.client();
    let settings = match queue {
        WITH_BUDGET => json!({"retry_budget": {"percent": 100, "per_minute": RETRIES}}),
        _ => json!({"limit": {"breaker": {
            "failed_percent": 50, "window_ms": 60_000, "calls": FAILURES, "open_ms": OPEN_MS, "probes": 1,
        }}}),
    };
    good(client.call("PATCH", &format!("/v1/queues/{queue}"), &[], settings.to_string().as_bytes()))?;
    let backoff = json!({"type": "fixed", "delay_ms": 1});
    let jobs: Vec<_> = (0..JOBS)
        .map(|number| json!({"id": number.to_string(), "body": null, "backoff": backoff, "attempts": 10_000}))
        .collect();
    push(&mut client, queue, &jobs)?;

    let downstream = Arc::new(Downstream::default());
    let address = server.address();
    let began = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            std::thread::spawn({
                let downstream = downstream.clone();
                move || work(address, queue, &downstream)
            })
        })
        .collect();
    pass(DOWN);
    server.kill().map_err(|error| error.to_string())?;
    let server = pond.starter().at(address).start().map_err(|error| error.to_string())?;
    pass(DOWN);
    let calls = downstream.calls.load(SeqCst);
    let down = began.elapsed();
    downstream.up.store(true, SeqCst);

    let mut client = server.client();
    let drained = until(DRAIN_MAX, || match counted(&mut client, queue, "completed") {
        Ok(done) => (done == JOBS).then_some(Ok(())),
        Err(breach) => Some(Err(breach)),
    });
    downstream.ended.store(true, SeqCst);
    for worker in workers {
        worker.join().map_err(|_| "a client panicked")?;
    }
    drained.unwrap_or_else(|| {
        let seen = client.get(&format!("/v1/queues/{queue}")).map(|answer| answer.body["counts"].clone());
        Err(format!("healed, and not worked off after {DRAIN_MAX:?}: {seen:?}"))
    })?;
    let most = allowed(queue, down);
    if calls > most {
        return Err(format!("{calls} calls in {down:?}, {most} are allowed"));
    }
    // As long as it is down something tries: otherwise nobody would see that it is up.
    let least = if queue == WITH_BUDGET { JOBS } else { FAILURES };
    if calls < least {
        return Err(format!("only {calls} calls in {down:?}, at least {least} were to be made"));
    }
    Ok(calls)
}

/// The most calls in that time. Beside what was configured, those under way when the breaker opens, and when a server dies who was
/// under way is tried again.
fn allowed(queue: &str, down: Duration) -> u64 {
    let under_way = WORKERS as u64 * BATCH;
    let ms = down.as_millis() as u64;
    match queue {
        WITH_BUDGET => JOBS + RETRIES + RETRIES * ms / 60_000 + 1,
        _ => FAILURES + 2 * under_way + ms / OPEN_MS + 1,
    }
}

fn pass(span: Duration) {
    let moment = Instant::now() + span;
    until(span, || (Instant::now() >= moment).then_some(()));
}

/// Calls what is down and reports that it failed, over and over, whatever becomes of the server.
fn work(address: SocketAddr, queue: &str, downstream: &Downstream) {
    let mut client = Client::new(address, PATIENCE);
    let fetch = json!({"worker": "w", "queues": [queue], "max": BATCH, "lease_ms": LEASE_MS, "wait_ms": 50});
    while !downstream.ended.load(SeqCst) {
        // A call that fails found the server gone; it comes again.
        let Ok(answer) = client.post("/v1/fetch", &fetch) else { continue };
        let outcome = |job: &Value| {
            downstream.calls.fetch_add(1, SeqCst);
            let end = if downstream.up.load(SeqCst) { "done" } else { "retry" };
            json!({"queue": queue, "id": job["id"], "lease_token": job["lease_token"], "outcome": end})
        };
        let outcomes: Vec<Value> =
            answer.body["jobs"].as_array().into_iter().flatten().map(outcome).collect();
        if !outcomes.is_empty() {
            let _ = client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes}));
        }
    }
}
