use crate::{Breach, Plan, Ran, ledger::Ledger, pond::Pond};
use rig::{Client, Server, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A lease that ends while the server stands still.
const LEASE_MS: u64 = 200;
const JOBS: u64 = 5;
const AGAIN_MAX: Duration = Duration::from_secs(10);

/// F24: the server is stopped for longer than a lease, and goes on. Who had the jobs before must not pass for who has them now.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let server = pond.start()?;
    let mut ledgers = Vec::new();
    for trial in 0..plan.count {
        let ledger = Ledger::new(format!("frozen-{trial}"));
        freeze(&server, &ledger).map_err(|breach| format!("trial {trial}: {breach}"))?;
        plan.tally.fault();
        ledgers.push(ledger);
    }
    server.kill().map_err(|error| error.to_string())?;
    let ledgers: Vec<&Ledger> = ledgers.iter().collect();
    pond.heals(&ledgers)?;
    Ok(Ran::Passed(plan.count, format!("{} late results refused, none accepted", plan.count * JOBS)))
}

fn freeze(server: &Server, ledger: &Ledger) -> Result<(), Breach> {
    let failed = |error: std::io::Error| error.to_string();
    let (mut late, mut next) = (server.client(), server.client());
    let ids: Vec<String> = (0..JOBS).map(|number| number.to_string()).collect();
    let jobs: Vec<Value> = ids
        .iter()
        .map(|id| json!({"id": id, "body": null, "backoff": {"type": "fixed", "delay_ms": 1}}))
        .collect();
    ledger.push_sent(&ids);
    let pushed =
        late.post(&format!("/v1/queues/{}/jobs", ledger.queue), &json!({"jobs": jobs})).map_err(failed)?;
    if !pushed.ok() {
        return Err(format!("a push was refused: {}", pushed.body));
    }
    ledger.push_acknowledged(&ids);
    let first = fetch(&mut late, ledger, LEASE_MS)?;
    if first.len() as u64 != JOBS {
        return Err(format!("{} of {JOBS} jobs were handed out", first.len()));
    }
    let signal = |signal| {
        let pid = i32::try_from(server.pid()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        kill_process(pid, signal).map_err(|error| error.to_string())
    };
    signal(Signal::STOP)?;
    let moment = Instant::now() + Duration::from_millis(LEASE_MS * 3 / 2);
    until(AGAIN_MAX, || (Instant::now() >= moment).then_some(()));
    signal(Signal::CONT)?;
    // All of them come again, under higher tokens.
    let mut again: Vec<(String, u64)> = Vec::new();
    until(AGAIN_MAX, || match fetch(&mut next, ledger, 60_000) {
        Ok(more) => {
            again.extend(more);
            (again.len() as u64 >= JOBS).then_some(Ok(()))
        }
        Err(breach) => Some(Err(breach)),
    })
    .ok_or_else(|| format!("{} of {JOBS} jobs came again within {AGAIN_MAX:?}", again.len()))??;
    let refused = settle(&mut late, ledger, &first)?;
    if refused.iter().any(|ok| *ok) {
        return Err("a result under a lease that had ended was accepted".to_owned());
    }
    again.iter().for_each(|(id, token)| ledger.done_sent(id, *token));
    let done = settle(&mut next, ledger, &again)?;
    for ((id, _), ok) in again.iter().zip(done) {
        if !ok {
            return Err(format!("the result of {id} under its lease was refused"));
        }
        ledger.done_acknowledged(id);
    }
    Ok(())
}

fn fetch(client: &mut Client, ledger: &Ledger, lease_ms: u64) -> Result<Vec<(String, u64)>, Breach> {
    let call =
        json!({"worker": "w", "queues": [ledger.queue], "max": JOBS, "lease_ms": lease_ms, "wait_ms": 50});
    let answer = client.post("/v1/fetch", &call).map_err(|error| error.to_string())?;
    Ok(answer.body["jobs"].as_array().into_iter().flatten().map(|job| ledger.handed_out(job)).collect())
}

fn settle(client: &mut Client, ledger: &Ledger, leased: &[(String, u64)]) -> Result<Vec<bool>, Breach> {
    let outcomes: Vec<Value> = leased
        .iter()
        .map(|(id, token)| json!({"queue": ledger.queue, "id": id, "lease_token": token, "outcome": "done"}))
        .collect();
    let answer = client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes}));
    let answer = answer.map_err(|error| error.to_string())?;
    Ok((0..leased.len()).map(|index| answer.body["results"][index]["ok"] == true).collect())
}
