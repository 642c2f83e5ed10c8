use crate::{
    Breach, Plan, Ran,
    pond::Pond,
    talk::{counted, job, push},
    worker::Worker,
};
use rig::{Server, until};
use serde_json::json;
use std::{collections::BTreeMap, fs, path::Path, time::Duration};

/// Jobs beside the pill.
const SIBLINGS: u64 = 10;
/// The crashes that a job may have.
const CRASHES: u64 = 3;
/// Long enough for a job, short enough to wait for when its worker is gone.
const LEASE: &str = "500ms";
const DONE_MAX: Duration = Duration::from_secs(60);

/// F37: a job kills the process of its handler each time, and another the whole worker. Either is dead after so many crashes, and
/// stays so; nothing else suffers.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let folder = pond.data.with_file_name("starts");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let server = pond.start()?;
    for trial in 0..plan.count {
        for (kind, kills) in KINDS {
            let queue = format!("{kind}-{trial}");
            take(&server, &queue, kills, &folder.join(&queue))
                .map_err(|breach| format!("trial {trial}: {kind}: {breach}"))?;
            plan.tally.fault();
        }
    }
    server.kill().map_err(|error| error.to_string())?;
    let server = pond.start()?;
    for trial in 0..plan.count {
        for (kind, _) in KINDS {
            let queue = format!("{kind}-{trial}");
            quarantined(&server, &queue).map_err(|breach| format!("{queue}, after a restart: {breach}"))?;
            plan.tally.found(SIBLINGS);
        }
    }
    Ok(Ran::Passed(
        plan.count,
        format!("each pill in quarantine after {CRASHES} crashes, {SIBLINGS} others done once"),
    ))
}

/// Who dies of the pill: `$$` is the shell that does the job, its parent the worker.
const KINDS: [(&str, &str); 2] = [("handler", "kill -SEGV $$"), ("worker", "kill -KILL $PPID")];

fn take(server: &Server, queue: &str, kills: &str, starts: &Path) -> Result<(), Breach> {
    let mut client = server.client();
    // In the middle of the line.
    let named = |number| if number == SIBLINGS / 2 { "pill".to_owned() } else { format!("job-{number}") };
    let backoff = json!({"type": "fixed", "delay_ms": 1});
    let jobs: Vec<_> = (0..=SIBLINGS)
        .map(|number| json!({"id": named(number), "body": null, "backoff": backoff, "max_crashes": CRASHES}))
        .collect();
    push(&mut client, queue, &jobs)?;
    let script =
        format!("echo $MILLPOND_JOB_ID >>{}; [ $MILLPOND_JOB_ID != pill ] || {kills}", starts.display());
    let start = || Worker::start(server, queue, &["--lease", LEASE], &script);
    let mut worker = start()?;
    let mut deaths = 0;
    let done = until(DONE_MAX, || {
        if !worker.running() {
            deaths += 1;
            match start() {
                Ok(next) => worker = next,
                Err(breach) => return Some(Err(breach)),
            }
        }
        match (counted(&mut client, queue, "dead"), counted(&mut client, queue, "completed")) {
            (Ok(1), Ok(SIBLINGS)) => Some(Ok(())),
            (Err(breach), _) | (_, Err(breach)) => Some(Err(breach)),
            _ => None,
        }
    });
    done.unwrap_or_else(|| {
        let counts = client.get(&format!("/v1/queues/{queue}")).map(|answer| answer.body["counts"].clone());
        Err(format!("not over after {DONE_MAX:?}: {counts:?}"))
    })?;
    worker.stop()?;
    let expected = if kills.contains("PPID") { CRASHES } else { 0 };
    if deaths != expected {
        return Err(format!("{deaths} workers died, not {expected}"));
    }
    let mut times: BTreeMap<String, u64> = BTreeMap::new();
    for line in fs::read_to_string(starts).map_err(|error| error.to_string())?.lines() {
        *times.entry(line.to_owned()).or_default() += 1;
    }
    for number in 0..=SIBLINGS {
        let id = named(number);
        let (started, allowed) =
            (times.get(&id).copied().unwrap_or(0), if id == "pill" { CRASHES } else { 1 });
        if started != allowed {
            return Err(format!("{id} was started {started} times, not {allowed}"));
        }
    }
    quarantined(server, queue)
}

fn quarantined(server: &Server, queue: &str) -> Result<(), Breach> {
    let mut client = server.client();
    let pill = job(&mut client, queue, "pill")?;
    let seen = (pill["state"].as_str(), pill["crashes"].as_u64());
    if seen != (Some("dead"), Some(CRASHES)) {
        return Err(format!("the pill is {pill}"));
    }
    let path = format!("/v1/queues/{queue}/jobs/pill/history");
    let history = client.get(&path).map_err(|error| error.to_string())?.body;
    let last = history["history"].as_array().and_then(|entries| entries.last()).cloned().unwrap_or_default();
    if last["to"] != "dead" || last["cause"] != "quarantine" {
        return Err(format!("the history of the pill ends with {last}"));
    }
    match counted(&mut client, queue, "completed")? {
        SIBLINGS => Ok(()),
        done => Err(format!("{done} of {SIBLINGS} jobs beside the pill are done")),
    }
}
