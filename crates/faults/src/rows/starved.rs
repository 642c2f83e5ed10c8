use crate::{
    Breach, Plan, Ran,
    group::Group,
    ledger::Ledger,
    load::{self, Load},
    pond::Pond,
    talk::{good, push},
};
use rig::{Client, Server};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// Of a core, for the server.
const PERCENT: u64 = 5;
const JOBS: u64 = 20;
/// The lease, and how often it is renewed: as workers do, at a third.
const LEASE_MS: u64 = 6_000;
const RENEW: Duration = Duration::from_secs(2);
/// Longer than a lease.
const SPAN: Duration = Duration::from_secs(10);
const HELD: &str = "held";

/// F44: the server has a twentieth of a core, and other clients who want all of it. Who renews in time keeps its leases: the server must not
/// take its own slowness for theirs.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut slowest = Duration::ZERO;
    for trial in 0..plan.count {
        let inside = |breach| format!("trial {trial}: {breach}");
        let group = match Group::processor(PERCENT) {
            Ok(group) => group,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        let pond = Pond::new(plan)?;
        let server = pond.starter().under(group.wrapper()).start();
        let server = server.map_err(|error| inside(error.to_string()))?;
        let ledger = Arc::new(Ledger::new("load"));
        let leases = hold(&server).map_err(inside)?;
        let load = Load::start(&server, ledger.clone(), plan.seed + trial);
        let envious = Envious::start(&server);
        let kept = keep(&mut server.client(), &leases);
        let stolen = envious.stop();
        let left = load.stop()?;
        slowest = slowest.max(kept.map_err(inside)?);
        if let Some(job) = stolen.map_err(inside)? {
            return Err(inside(format!("somebody else got a job that was renewed in time: {job}")));
        }
        if let Some(failure) = left.failures.first() {
            return Err(inside(format!("a call failed: {failure}")));
        }
        plan.tally.fault();
        plan.tally.found(JOBS);
        load::repeat(&server, &ledger, &left.unknown)?;
        server.kill().map_err(|error| error.to_string())?;
        pond.heals(&[&ledger])?;
    }
    Ok(Ran::Passed(
        plan.count,
        format!("{JOBS} leases of {LEASE_MS} ms kept; the slowest renewal took {} ms", slowest.as_millis()),
    ))
}

/// Has the jobs handed out; the leases as calls name them.
fn hold(server: &Server) -> Result<Vec<Value>, Breach> {
    let mut client = server.client();
    let jobs: Vec<Value> = (0..JOBS).map(|number| json!({"id": number.to_string(), "body": null})).collect();
    push(&mut client, HELD, &jobs)?;
    let fetch = json!({"worker": "holder", "queues": [HELD], "max": JOBS, "lease_ms": LEASE_MS});
    let answer = good(client.post("/v1/fetch", &fetch))?;
    let jobs = answer["jobs"].as_array().into_iter().flatten();
    Ok(jobs.map(|job| json!({"queue": HELD, "id": job["id"], "lease_token": job["lease_token"]})).collect())
}

/// Renews for a while, then completes; returns how long the slowest renewal took.
fn keep(client: &mut Client, leases: &[Value]) -> Result<Duration, Breach> {
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < SPAN {
        let sent = Instant::now();
        let call = json!({"worker": "holder", "leases": leases, "lease_ms": LEASE_MS});
        all_ok(&good(client.post("/v1/renew", &call))?, "a renewal")?;
        slowest = slowest.max(sent.elapsed());
        std::thread::sleep(RENEW.saturating_sub(sent.elapsed()));
    }
    let outcome = |lease: &Value| {
        let mut outcome = lease.clone();
        outcome["outcome"] = "done".into();
        outcome
    };
    let outcomes: Vec<Value> = leases.iter().map(outcome).collect();
    all_ok(
        &good(client.post("/v1/outcomes", &json!({"worker": "holder", "outcomes": outcomes})))?,
        "a result",
    )?;
    Ok(slowest)
}

fn all_ok(answer: &Value, what: &str) -> Result<(), Breach> {
    let results = answer["results"].as_array().cloned().unwrap_or_default();
    if results.len() as u64 == JOBS && results.iter().all(|result| result["ok"] == true) {
        return Ok(());
    }
    Err(format!("{what} in time was refused: {answer}"))
}

/// Somebody who would take the jobs at once.
struct Envious {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<Option<Value>, Breach>>,
}

impl Envious {
    fn start(server: &Server) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (mut client, stop) = (server.client(), stop.clone());
            move || {
                let fetch = json!({"worker": "envious", "queues": [HELD], "max": 1, "wait_ms": 500});
                while !stop.load(SeqCst) {
                    let answer = good(client.post("/v1/fetch", &fetch))?;
                    if let Some(job) = answer["jobs"].get(0) {
                        return Ok(Some(job.clone()));
                    }
                }
                Ok(None)
            }
        });
        Self { stop, thread }
    }

    fn stop(self) -> Result<Option<Value>, Breach> {
        self.stop.store(true, SeqCst);
        self.thread.join().map_err(|_| "a client panicked".to_owned())?
    }
}
