use crate::{
    Breach, Plan, Ran,
    ledger::Ledger,
    pond::{Pond, drain},
};
use rig::{Server, until};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Fetches that wait at once.
const WAITERS: u64 = 150;
/// Jobs that come while they wait.
const RELEASED: u64 = 40;
/// Jobs that are due in the same millisecond.
const TIMERS: u64 = 2_000;
/// So long before they are due they are pushed.
const AHEAD_MS: u64 = 1_500;
const ALL_MAX: Duration = Duration::from_secs(30);

/// F40: many fetches wait for few jobs, and each job goes to exactly one; many jobs fall due at once, and all are handed out.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let server = pond.start()?;
    let mut ledgers = Vec::new();
    for trial in 0..plan.count {
        let inside = |breach| format!("trial {trial}: {breach}");
        let ledger = Arc::new(Ledger::new(format!("herd-{trial}")));
        waiters(&server, &ledger).map_err(inside)?;
        timers(&server, &ledger).map_err(inside)?;
        plan.tally.fault();
        plan.tally.fault();
        ledgers.push(ledger);
    }
    server.kill().map_err(|error| error.to_string())?;
    let ledgers: Vec<&Ledger> = ledgers.iter().map(AsRef::as_ref).collect();
    pond.heals(&ledgers)?;
    Ok(Ran::Passed(
        plan.count,
        format!("{RELEASED} jobs for {WAITERS} waiting fetches, {TIMERS} timers at once"),
    ))
}

fn waiters(server: &Server, ledger: &Arc<Ledger>) -> Result<(), Breach> {
    let fetch =
        json!({"worker": "w", "queues": [ledger.queue], "max": 20, "lease_ms": 60_000, "wait_ms": 3_000});
    let waiting: Vec<_> = (0..WAITERS)
        .map(|_| {
            let (mut client, ledger, fetch) = (server.client(), ledger.clone(), fetch.clone());
            std::thread::spawn(move || {
                let answer = client.post("/v1/fetch", &fetch).map_err(|error| error.to_string())?;
                let jobs = answer.body["jobs"].as_array().cloned().unwrap_or_default();
                Ok::<_, Breach>(jobs.iter().map(|job| ledger.handed_out(job)).collect::<Vec<_>>())
            })
        })
        .collect();
    let mut client = server.client();
    for number in 0..RELEASED {
        push(&mut client, ledger, vec![json!({"id": format!("w{number}"), "body": null})])?;
    }
    let mut leased = Vec::new();
    for waiter in waiting {
        leased.extend(waiter.join().map_err(|_| "a client panicked".to_owned())??);
    }
    if leased.len() as u64 != RELEASED {
        return Err(format!("{} of {RELEASED} jobs reached a waiting fetch", leased.len()));
    }
    let outcomes: Vec<Value> = leased
        .iter()
        .map(|(id, token)| {
            ledger.done_sent(id, *token);
            json!({"queue": ledger.queue, "id": id, "lease_token": token, "outcome": "done"})
        })
        .collect();
    let call = json!({"worker": "w", "outcomes": outcomes});
    let answer = client.post("/v1/outcomes", &call).map_err(|error| error.to_string())?;
    for (index, (id, _)) in leased.iter().enumerate() {
        if answer.body["results"][index]["ok"] != true {
            return Err(format!("the result of {id} was refused: {}", answer.body));
        }
        ledger.done_acknowledged(id);
    }
    Ok(())
}

fn timers(server: &Server, ledger: &Ledger) -> Result<(), Breach> {
    let mut client = server.client();
    let due = clock()? + AHEAD_MS;
    for chunk in 0..TIMERS / 500 {
        let jobs = (0..500)
            .map(|number| json!({"id": format!("t{chunk}-{number}"), "body": null, "run_at": due}))
            .collect();
        push(&mut client, ledger, jobs)?;
    }
    let path = format!("/v1/queues/{}", ledger.queue);
    let all = until(ALL_MAX, || {
        let answer = client.get(&path).ok()?;
        let waiting = answer.body["counts"]["waiting"].as_u64()?;
        match clock() {
            Ok(now) if now < due && waiting > 0 => {
                Some(Err(format!("{waiting} jobs were waiting {} ms before they were due", due - now)))
            }
            Ok(_) => (waiting >= TIMERS).then_some(Ok(())),
            Err(breach) => Some(Err(breach)),
        }
    });
    all.unwrap_or_else(|| Err(format!("not all of {TIMERS} jobs were due after {ALL_MAX:?}")))?;
    drain(server, &[ledger])
}

/// Milliseconds since 1970: the server is on this machine, so it has the same clock.
fn clock() -> Result<u64, Breach> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Ok(since.map_err(|error| error.to_string())?.as_millis() as u64)
}

fn push(client: &mut rig::Client, ledger: &Ledger, jobs: Vec<Value>) -> Result<(), Breach> {
    let ids: Vec<String> = jobs.iter().filter_map(|job| job["id"].as_str().map(str::to_owned)).collect();
    ledger.push_sent(&ids);
    let answer = client.post(&format!("/v1/queues/{}/jobs", ledger.queue), &json!({"jobs": jobs}));
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.ok() {
        return Err(format!("a push was refused: {} {}", answer.status, answer.body));
    }
    ledger.push_acknowledged(&ids);
    Ok(())
}
