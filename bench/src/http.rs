//! The real binary over loopback, client and server on the same cores.

use crate::{
    Plan, embedded, process,
    report::{Report, Result},
};
use rig::{Client, Server, Starter};
use serde_json::{Value, json};
use std::time::Instant;

const JOBS: usize = 100_000;
const BATCH: usize = 100;
const CLIENTS: usize = 4;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for (bytes, name) in [(100, "100 B"), (1_024, "1 KiB")] {
        let (mut rates, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            let (rate, seconds) = measure(bytes)?;
            rates.push(rate);
            cpu.push(seconds);
        }
        let setting = format!("disk, {name}, 4 clients, batches of 100");
        report.add("http: push + fetch + complete", &setting, "jobs/s", rates);
        report.add("http: server CPU", &setting, "s/million", cpu);
    }
    Ok(())
}

/// Jobs a second, and CPU seconds of the server for a million jobs.
fn measure(bytes: usize) -> Result<(f64, f64)> {
    let folder = tempfile::tempdir()?;
    let server = Starter::new(folder.path()).arguments(["--log", "warn"]).start()?;
    let cpu = process::cpu_seconds(server.pid())?;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let server = &server;
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || client(server, number, bytes))).collect();
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok::<_, crate::report::Error>(())
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = process::cpu_seconds(server.pid())? - cpu;
    Ok((JOBS as f64 / seconds, cpu * 1e6 / JOBS as f64))
}

/// Each client has a queue of its own and takes what it pushed.
fn client(server: &Server, number: usize, bytes: usize) -> Result<()> {
    let mut client = server.client();
    let queue = format!("bench-{number}");
    let jobs: Vec<Value> = (0..BATCH).map(|_| json!({"body": embedded::body(bytes)})).collect();
    let push = json!({"jobs": jobs}).to_string();
    let fetch = json!({"worker": queue, "queues": [queue], "max": BATCH}).to_string();
    for _ in 0..JOBS / CLIENTS / BATCH {
        call(&mut client, &format!("/v1/queues/{queue}/jobs"), &push)?;
        let fetched = call(&mut client, "/v1/fetch", &fetch)?;
        let outcomes: Vec<Value> = fetched["jobs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|job| json!({"queue": queue, "id": job["id"], "lease_token": job["lease_token"], "outcome": "done"}))
            .collect();
        if outcomes.len() != BATCH {
            return Err(format!("{} jobs instead of {BATCH}", outcomes.len()).into());
        }
        call(&mut client, "/v1/outcomes", &json!({"worker": queue, "outcomes": outcomes}).to_string())?;
    }
    Ok(())
}

/// A call that must be done.
pub(crate) fn call(client: &mut Client, path: &str, body: &str) -> Result<Value> {
    let answer = client.call("POST", path, &[], body.as_bytes())?;
    if answer.ok() {
        Ok(answer.body)
    } else {
        Err(format!("{path}: {} {}", answer.status, answer.body).into())
    }
}
