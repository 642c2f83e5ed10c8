use crate::{
    Breach, Plan, Ran,
    faketime::FakeClock,
    ledger::Ledger,
    load::Load,
    pond::Pond,
    talk::{good, job, push},
};
use rig::{Client, Server, until};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// Where the clock goes, in seconds from the true time, one after the other.
const JUMPS: [(&str, &[i64]); 5] = [
    ("an hour ahead", &[3_600]),
    ("an hour back", &[-3_600]),
    ("a year ahead and back", &[31_536_000, 0]),
    ("a year back", &[-31_536_000]),
    ("back every second", &[-60, -120, -180]),
];
/// Between two jumps, and at the end.
const PAUSE: Duration = Duration::from_millis(1_100);
/// No jump reaches this job.
const FAR_MS: u64 = 10 * 365 * 24 * 3_600_000;
/// This one is due while the clock jumps about.
const NEAR_MS: u64 = 1_500;
const KEEP_MS: u64 = 2 * FAR_MS;
const SOON: Duration = Duration::from_secs(30);

/// F23: the wall clock of the server jumps, under load, then it is killed and started with the clock as it is, then with the true one. Nothing is
/// lost or done twice, no job is early, no slot of a schedule fires twice, and everything goes on whatever the clock says.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let mut slots = 0;
    for trial in 0..plan.count {
        let (what, jumps) = JUMPS[(plan.seed + trial) as usize % JUMPS.len()];
        let pond = Pond::new(plan)?;
        let clock = match FakeClock::new(&pond.data.with_file_name("clock")) {
            Ok(clock) => clock,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        slots += jump(plan, &pond, &clock, jumps, trial)
            .map_err(|breach| format!("trial {trial}: the clock goes {what}: {breach}"))?;
        plan.tally.fault();
    }
    Ok(Ran::Passed(plan.count, format!("nothing early, each of {slots} slots once")))
}

/// Returns how many slots of the schedule fired.
fn jump(plan: &Plan, pond: &Pond, clock: &FakeClock, jumps: &[i64], trial: u64) -> Result<usize, Breach> {
    let start = || pond.starter().under(clock.wrapper()).start().map_err(|error| error.to_string());
    clock.set(0)?;
    let server = start()?;
    let mut client = server.client();
    let ledger = Arc::new(Ledger::new("load"));
    // What has ended long ago, as the clock says, is not to be forgotten.
    for queue in [&ledger.queue, "slots", "timers"] {
        let keep = json!({"keep_completed": {"age_ms": KEEP_MS, "count": 1_000_000}}).to_string();
        good(client.call("PATCH", &format!("/v1/queues/{queue}"), &[], keep.as_bytes()))?;
    }
    let schedule = json!({"cron": "* * * * * *", "job": {"queue": "slots", "body": null}}).to_string();
    good(client.call("PUT", "/v1/schedules/every", &[], schedule.as_bytes()))?;
    let timers = [("near", NEAR_MS), ("far", FAR_MS)];
    push(
        &mut client,
        "timers",
        &timers.map(|(id, delay)| json!({"id": id, "body": null, "delay_ms": delay})),
    )?;

    let due = job(&mut client, "timers", "near")?["due_at"].as_str().unwrap_or_default().to_owned();

    let load = Load::start(&server, ledger.clone(), plan.seed + trial);
    let mut fired = BTreeSet::new();
    for seconds in jumps {
        clock.set(*seconds)?;
        work(&mut client, &mut fired, PAUSE)?;
    }
    let before = fired.len();
    let end = until(SOON, || match work(&mut client, &mut fired, Duration::from_millis(100)) {
        Ok(()) => (fired.contains("near") && fired.len() > before + 1).then_some(Ok(())),
        Err(breach) => Some(Err(breach)),
    });
    end.unwrap_or_else(|| Err(format!("after the jump nothing falls due any more within {SOON:?}")))?;
    server.kill().map_err(|error| error.to_string())?;
    load.stop()?;

    let server = start()?;
    let mut client = server.client();
    let before = fired.len();
    let goes_on = until(SOON, || match work(&mut client, &mut fired, Duration::from_millis(100)) {
        Ok(()) => (fired.len() > before).then_some(Ok(())),
        Err(breach) => Some(Err(breach)),
    });
    goes_on.unwrap_or_else(|| Err(format!("after a restart no slot fires within {SOON:?}")))?;
    timely(&server, &fired, &due)?;
    server.kill().map_err(|error| error.to_string())?;
    pond.heals(&[&ledger])?;
    Ok(fired.len() - 1)
}

/// Does what the schedule and the timers bring, for a while.
fn work(client: &mut Client, fired: &mut BTreeSet<String>, span: Duration) -> Result<(), Breach> {
    let end = Instant::now() + span;
    let fetch =
        json!({"worker": "w", "queues": ["slots", "timers"], "max": 100, "lease_ms": 60_000, "wait_ms": 50});
    while Instant::now() < end {
        let answer = good(client.post("/v1/fetch", &fetch))?;
        let jobs = answer["jobs"].as_array().cloned().unwrap_or_default();
        let outcome = |job: &Value| json!({"queue": job["queue"], "id": job["id"], "lease_token": job["lease_token"], "outcome": "done"});
        let outcomes: Vec<Value> = jobs.iter().map(outcome).collect();
        if outcomes.is_empty() {
            continue;
        }
        let answer = good(client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes})))?;
        for (job, result) in jobs.iter().zip(answer["results"].as_array().into_iter().flatten()) {
            let id = job["id"].as_str().unwrap_or_default();
            // A lease that the jump ended comes again.
            if result["ok"] == true && !fired.insert(id.to_owned()) {
                return Err(format!("{id} was done twice"));
            }
        }
    }
    Ok(())
}

/// No job started before its time, by the times that the server has given it, which never run backwards.
fn timely(server: &Server, fired: &BTreeSet<String>, near: &str) -> Result<(), Breach> {
    let mut client = server.client();
    if job(&mut client, "timers", "far")?["state"] != "delayed" {
        return Err("a job that is due in ten years is not delayed".to_owned());
    }
    for id in fired {
        let queue = if id == "near" { "timers" } else { "slots" };
        let history = good(client.get(&format!("/v1/queues/{queue}/jobs/{id}/history")))?;
        let entries = history["history"].as_array().cloned().unwrap_or_default();
        let times: Vec<&str> = entries.iter().filter_map(|entry| entry["at"].as_str()).collect();
        if times.is_empty() || !times.is_sorted() {
            return Err(format!("the times of {id} run backwards: {times:?}"));
        }
        let job = job(&mut client, queue, id)?;
        let due = if id == "near" { near } else { job["meta"]["slot"].as_str().unwrap_or("in no slot") };
        let started =
            entries.iter().find(|entry| entry["to"] == "active").and_then(|entry| entry["at"].as_str());
        if started.is_none_or(|started| started < due) {
            return Err(format!("{id} was due at {due} and started at {started:?}"));
        }
    }
    Ok(())
}
