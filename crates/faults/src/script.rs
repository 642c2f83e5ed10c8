//! A fixed little story for one client: the same system calls in the same order, as far as a server has an order.

use crate::{ledger::Ledger, pond::LEASE_MS, talk::good};
use rig::{Client, Server};
use serde_json::{Value, json};

/// Rounds of push, fetch and complete.
const ROUNDS: u64 = 14;
/// Calls that are tried after the first that had no good answer.
const CALLS_AFTER: u64 = 4;

/// How the story went.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Calls that were answered well.
    pub(crate) good: u64,
    /// The first call without a good answer.
    pub(crate) broke: Option<String>,
    /// Pushes that were answered well after that.
    pub(crate) good_after: u64,
}

/// Tells it until a call has no good answer.
pub(crate) fn tell(server: &Server, ledger: &Ledger) -> Told {
    let mut client = server.client();
    let mut told = Told::default();
    for round in 0..ROUNDS {
        let calls: Result<u64, String> =
            push(&mut client, ledger, round).and_then(|()| work(&mut client, ledger)).map(|()| 3);
        match calls {
            Ok(calls) => told.good += calls,
            Err(broke) => {
                told.broke = Some(broke);
                break;
            }
        }
    }
    if told.broke.is_some() {
        for round in 0..CALLS_AFTER {
            told.good_after += u64::from(push(&mut client, ledger, ROUNDS + round).is_ok());
        }
    }
    told
}

fn push(client: &mut Client, ledger: &Ledger, round: u64) -> Result<(), String> {
    let ids: Vec<String> = (0..3).map(|n| format!("{round}-{n}")).collect();
    let jobs: Vec<Value> = ids.iter().map(|id| json!({"id": id, "body": {"round": round}})).collect();
    ledger.push_sent(&ids);
    good(client.post(&format!("/v1/queues/{}/jobs", ledger.queue), &json!({"jobs": jobs})))?;
    ledger.push_acknowledged(&ids);
    Ok(())
}

fn work(client: &mut Client, ledger: &Ledger) -> Result<(), String> {
    let fetch = json!({"worker": "script", "queues": [ledger.queue], "max": 2, "lease_ms": LEASE_MS});
    let answer = good(client.post("/v1/fetch", &fetch))?;
    for job in answer["jobs"].as_array().into_iter().flatten() {
        let (id, token) = ledger.handed_out(job);
        ledger.done_sent(&id, token);
        let outcome = json!({"queue": ledger.queue, "id": id, "lease_token": token, "outcome": "done"});
        let answer = good(client.post("/v1/outcomes", &json!({"worker": "script", "outcomes": [outcome]})))?;
        if answer["results"][0]["ok"] == true {
            ledger.done_acknowledged(&id);
        }
    }
    Ok(())
}
