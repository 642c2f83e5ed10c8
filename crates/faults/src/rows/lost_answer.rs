use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    pond::{LEASE_MS, Pond, drain},
    proxy::Proxy,
};
use kit::random::Random;
use rig::Client;
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// F29: a push, a fetch or an outcome is done, and its answer is lost. A push repeated under its key is there once; jobs of a fetch that
/// nobody heard of come again; an outcome repeated is refused as stale, or was never heard.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let server = pond.start()?;
    let proxy = Proxy::start(server.address()).map_err(|error| error.to_string())?;
    let ledger = Ledger::new("lost");
    let mut random = Random::new(plan.seed);
    let mut lost = [0_u64; 3];
    for trial in 0..plan.count {
        let inside = |breach| format!("trial {trial}: {breach}");
        let kind = random.below(3) as usize;
        lost[kind] += 1;
        let mut client = Client::new(proxy.address(), PATIENCE);
        let cut = |kind_of_call: usize| {
            if kind == kind_of_call {
                proxy.cut_next();
            }
        };
        cut(0);
        push(&mut client, &ledger, trial).map_err(inside)?;
        cut(1);
        let fetch = json!({"worker": "w", "queues": ["lost"], "max": 2, "lease_ms": LEASE_MS});
        // Without an answer nobody knows of the leases; they run out.
        let fetched = client.post("/v1/fetch", &fetch).ok().map(|answer| answer.body).unwrap_or_default();
        let leased: Vec<(String, u64)> =
            fetched["jobs"].as_array().into_iter().flatten().map(|job| ledger.handed_out(job)).collect();
        if leased.is_empty() {
            // Nothing to answer: the cut is meant for nobody.
            if kind == 2 {
                lost[2] -= 1;
            }
            continue;
        }
        cut(2);
        settle(&mut client, &ledger, &leased).map_err(inside)?;
    }
    let (asked, known): (u64, u64) = (lost.iter().sum(), proxy.lost());
    if asked != known {
        return Err(format!("{asked} answers were to be lost, and {known} were: the row is wrong"));
    }
    drop(proxy);
    (0..known).for_each(|_| plan.tally.fault());
    drain(&server, &[&ledger])?;
    server.kill().map_err(|error| error.to_string())?;
    pond.heals(&[&ledger])?;
    Ok(Ran::Passed(
        plan.count,
        format!(
            "answers lost: {} of pushes, {} of fetches, {} of outcomes; each job there once",
            lost[0], lost[1], lost[2]
        ),
    ))
}

/// The server gives the ids: a push that was done twice shows as jobs that nobody knows of.
fn push(client: &mut Client, ledger: &Ledger, trial: u64) -> Result<(), Breach> {
    let body = json!({"jobs": [{"body": trial}, {"body": trial}]}).to_string();
    let key = format!("push-{trial}");
    let mut send =
        || client.call("POST", "/v1/queues/lost/jobs", &[("idempotency-key", &key)], body.as_bytes());
    let answer = send().or_else(|_| send()).map_err(|error| format!("a repeated push failed: {error}"))?;
    if !answer.ok() {
        return Err(format!("a push was refused: {} {}", answer.status, answer.body));
    }
    let jobs = answer.body["jobs"].as_array().into_iter().flatten();
    let ids: Vec<String> = jobs.filter_map(|job| job["id"].as_str().map(str::to_owned)).collect();
    ledger.push_sent(&ids);
    ledger.push_acknowledged(&ids);
    Ok(())
}

fn settle(client: &mut Client, ledger: &Ledger, leased: &[(String, u64)]) -> Result<(), Breach> {
    let outcomes: Vec<Value> = leased
        .iter()
        .map(|(id, token)| {
            ledger.done_sent(id, *token);
            json!({"queue": "lost", "id": id, "lease_token": token, "outcome": "done"})
        })
        .collect();
    let call = json!({"worker": "w", "outcomes": outcomes});
    let first = client.post("/v1/outcomes", &call);
    let repeated = first.is_err();
    let answer = first.or_else(|_| client.post("/v1/outcomes", &call));
    let answer = answer.map_err(|error| format!("a repeated outcome failed: {error}"))?;
    for (index, (id, _)) in leased.iter().enumerate() {
        let result = &answer.body["results"][index];
        if result["ok"] == true {
            ledger.done_acknowledged(id);
        } else if !repeated {
            return Err(format!("an outcome was refused the first time: {result}"));
        }
    }
    Ok(())
}
