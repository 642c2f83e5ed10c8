use crate::{
    Breach, Plan, Ran,
    pond::Pond,
    talk::{good, job, push},
    worker::Worker,
};
use rig::{Client, Server, until};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

const LEASE: &str = "300ms";
const SOON: Duration = Duration::from_secs(30);

/// F38: a worker hangs in the middle of a job for longer than its lease, while its program goes on and ends. Somebody else has the
/// job by then; what the first one says late must not count.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let folder = pond.data.with_file_name("signs");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let server = pond.start()?;
    for trial in 0..plan.count {
        hang(&server, trial, &folder).map_err(|breach| format!("trial {trial}: {breach}"))?;
        plan.tally.fault();
    }
    server.kill().map_err(|error| error.to_string())?;
    let server = pond.start()?;
    for trial in 0..plan.count {
        settled(&mut server.client(), trial)
            .map_err(|breach| format!("trial {trial}, after a restart: {breach}"))?;
        plan.tally.found(1);
    }
    Ok(Ran::Passed(plan.count, "each late result refused, each job done once".to_owned()))
}

/// Odd trials have the second worker still at it when the first comes back.
fn hang(server: &Server, trial: u64, folder: &Path) -> Result<(), Breach> {
    let (mut client, queue) = (server.client(), queue(trial));
    let sign = |name: &str| folder.join(format!("{trial}-{name}"));
    let (begun, go, ended) = (sign("begun"), sign("go"), sign("ended"));
    let backoff = json!({"type": "fixed", "delay_ms": 1});
    push(&mut client, &queue, &[json!({"id": "late", "body": null, "backoff": backoff})])?;
    let script = format!(
        "echo $MILLPOND_LEASE_TOKEN >{0}.new; mv {0}.new {0}; until [ -e {1} ]; do sleep 0.01; done; echo \\\"first\\\"; touch {2}",
        begun.display(),
        go.display(),
        ended.display()
    );
    let first = Worker::start(server, &queue, &["--lease", LEASE], &script)?;
    until(SOON, || begun.exists().then_some(())).ok_or("the first worker never began")?;
    first.signal(Signal::STOP)?;
    let lease = until(SOON, || match fetch(&mut client, &queue) {
        Ok(job) => job.map(Ok),
        Err(breach) => Some(Err(breach)),
    })
    .ok_or_else(|| format!("the job of a worker that hangs did not come again within {SOON:?}"))??;
    let done = |client: &mut Client| settle(client, &queue, &lease, "second");
    if trial.is_multiple_of(2) {
        done(&mut client)?;
    }
    fs::write(&go, "").map_err(|error| error.to_string())?;
    until(SOON, || ended.exists().then_some(())).ok_or("the program of the first worker never ended")?;
    first.signal(Signal::CONT)?;
    // It is good for more: what it is given now it does, and with that it has said all about the job before.
    push(&mut client, &queue, &[json!({"id": "next", "body": null})])?;
    until(SOON, || match job(&mut client, &queue, "next") {
        Ok(next) => (next["state"] == "completed").then_some(Ok(())),
        Err(breach) => Some(Err(breach)),
    })
    .ok_or("a worker that came back does nothing any more")??;
    first.stop()?;
    // A worker with no clock of its own would have said so.
    let stale = fs::read_to_string(&begun).map_err(|error| error.to_string())?;
    let stale: u64 = stale.trim().parse().map_err(|_| format!("the first worker had the token {stale:?}"))?;
    if settle(&mut client, &queue, &json!({"id": "late", "lease_token": stale}), "first").is_ok() {
        return Err("a result under a lease that had ended was accepted".to_owned());
    }
    if !trial.is_multiple_of(2) {
        done(&mut client)?;
    }
    settled(&mut client, trial)
}

fn queue(trial: u64) -> String {
    format!("late-{trial}")
}

fn fetch(client: &mut Client, queue: &str) -> Result<Option<Value>, Breach> {
    let call = json!({"worker": "second", "queues": [queue], "lease_ms": 60_000, "wait_ms": 50});
    Ok(good(client.post("/v1/fetch", &call))?["jobs"].get(0).cloned())
}

fn settle(client: &mut Client, queue: &str, lease: &Value, result: &str) -> Result<(), Breach> {
    let outcome = json!({
        "queue": queue, "id": lease["id"], "lease_token": lease["lease_token"], "outcome": "done", "result": result,
    });
    let answer = good(client.post("/v1/outcomes", &json!({"worker": result, "outcomes": [outcome]})))?;
    if answer["results"][0]["ok"] == true {
        return Ok(());
    }
    Err(format!("the result was refused: {answer}"))
}

/// Done by the second worker, and that once.
fn settled(client: &mut Client, trial: u64) -> Result<(), Breach> {
    let queue = queue(trial);
    let late = job(client, &queue, "late")?;
    if late["state"] != "completed" || late["result"] != "second" {
        return Err(format!("the job is {late}"));
    }
    let history = good(client.get(&format!("/v1/queues/{queue}/jobs/late/history")))?;
    let entries = history["history"].as_array().into_iter().flatten();
    match entries.filter(|entry| entry["to"] == "completed").count() {
        1 => Ok(()),
        ends => Err(format!("the job ended {ends} times: {history}")),
    }
}
