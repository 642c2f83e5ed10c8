//! Clients that push and work as fast as they are answered, until told to stop or until the server is gone.

use crate::{ledger::Ledger, pond::LEASE_MS};
use kit::random::Random;
use rig::{Answer, Client, Server};
use serde_json::{Value, json};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

const PUSHERS: u64 = 2;
const WORKERS: u64 = 2;
/// Clients of a server that is gone have this long to notice.
const ENDED_MAX: Duration = Duration::from_secs(60);
/// Jobs of one push or one fetch at most.
const BATCH_MAX: u64 = 20;

/// Clients under way.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    ledger: Arc<Ledger>,
    stop: AtomicBool,
    /// Calls that had an answer other than done or `stopping`.
    failures: Mutex<Vec<String>>,
    /// Pushes without an answer: what was sent, and under which idempotency key.
    unknown: Mutex<Vec<Unknown>>,
}

/// A push without an answer.
pub(crate) struct Unknown {
    key: String,
    ids: Vec<String>,
    body: String,
}

/// What the clients leave behind.
pub(crate) struct Left {
    pub(crate) failures: Vec<String>,
    pub(crate) unknown: Vec<Unknown>,
}

impl Load {
    pub(crate) fn start(server: &Server, ledger: Arc<Ledger>, seed: u64) -> Self {
        let shared = Arc::new(Shared {
            ledger,
            stop: AtomicBool::new(false),
            failures: Mutex::default(),
            unknown: Mutex::default(),
        });
        let mut random = Random::new(seed);
        let mut threads = Vec::new();
        for number in 0..PUSHERS + WORKERS {
            let (client, shared, random) = (server.client(), shared.clone(), random.split());
            threads.push(std::thread::spawn(move || {
                if number < PUSHERS {
                    push(client, &shared, number, random)
                } else {
                    work(client, &shared, number)
                }
            }));
        }
        Self { shared, threads }
    }

    /// Waits until every client has ended by itself, as they do when the server does nothing any more.
    pub(crate) fn ended(self) -> Result<Left, String> {
        rig::until(ENDED_MAX, || self.threads.iter().all(JoinHandle::is_finished).then_some(()))
            .ok_or_else(|| format!("clients were still answered {ENDED_MAX:?} later"))?;
        self.stop()
    }

    /// Ends the clients; what they had under way has its answer, or none for ever.
    pub(crate) fn stop(self) -> Result<Left, String> {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a client panicked".to_owned())?;
        }
        let take = |list: &Mutex<Vec<String>>| {
            std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let unknown =
            std::mem::take(&mut *self.shared.unknown.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(Left { failures: take(&self.shared.failures), unknown })
    }
}

/// Repeats the pushes that had no answer, under their keys: now they must have one, and nothing may be there twice.
pub(crate) fn repeat(server: &Server, ledger: &Ledger, unknown: &[Unknown]) -> Result<(), String> {
    let mut client = server.client();
    for push in unknown {
        match send(&mut client, ledger, push) {
            Ok(answer) if answer.ok() => ledger.push_acknowledged(&push.ids),
            Ok(answer) => {
                return Err(format!("a repeated push was refused: {} {}", answer.status, answer.body));
            }
            Err(error) => return Err(format!("a repeated push failed: {error}")),
        }
    }
    Ok(())
}

fn send(client: &mut Client, ledger: &Ledger, push: &Unknown) -> io::Result<Answer> {
    let path = format!("/v1/queues/{}/jobs", ledger.queue);
    client.call("POST", &path, &[("idempotency-key", &push.key)], push.body.as_bytes())
}

fn push(mut client: Client, shared: &Shared, number: u64, mut random: Random) {
    let ledger = &shared.ledger;
    for batch in 0_u64.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let ids: Vec<String> =
            (0..=random.below(BATCH_MAX)).map(|n| format!("{number}-{batch}-{n}")).collect();
        let jobs: Vec<Value> = ids.iter().map(|id| json!({"id": id, "body": {"batch": batch}})).collect();
        let key = format!("{}-{number}-{batch}", ledger.queue);
        let push = Unknown { key, body: json!({"jobs": jobs}).to_string(), ids };
        ledger.push_sent(&push.ids);
        // An idle connection may be closed just as it is used again: the second try is on a new one.
        let answer = send(&mut client, ledger, &push).or_else(|_| send(&mut client, ledger, &push));
        let unanswered = answer.is_err();
        match shared.judge(answer) {
            Some(_) => ledger.push_acknowledged(&push.ids),
            None => {
                if unanswered {
                    shared.unknown.lock().unwrap_or_else(PoisonError::into_inner).push(push);
                }
                return;
            }
        }
    }
}

fn work(mut client: Client, shared: &Shared, number: u64) {
    let ledger = &shared.ledger;
    let worker = format!("worker-{number}");
    let fetch = json!({
        "worker": worker, "queues": [ledger.queue], "max": BATCH_MAX, "wait_ms": 50, "lease_ms": LEASE_MS,
    });
    while !shared.stop.load(Ordering::Relaxed) {
        let answer = client.post("/v1/fetch", &fetch).or_else(|_| client.post("/v1/fetch", &fetch));
        let Some(answer) = shared.judge(answer) else { return };
        let leased: Vec<(String, u64)> =
            answer.body["jobs"].as_array().into_iter().flatten().map(|job| ledger.handed_out(job)).collect();
        if leased.is_empty() {
            continue;
        }
        let outcome = |(id, token): &(String, u64)| {
            ledger.done_sent(id, *token);
            json!({"queue": ledger.queue, "id": id, "lease_token": token, "outcome": "done"})
        };
        let outcomes: Vec<Value> = leased.iter().map(outcome).collect();
        let call = json!({"worker": worker, "outcomes": outcomes});
        // As for a push: the second try is on a new connection. If the first was heard, it is refused as stale.
        let answer = client.post("/v1/outcomes", &call).or_else(|_| client.post("/v1/outcomes", &call));
        let Some(answer) = shared.judge(answer) else { return };
        let results = answer.body["results"].as_array().into_iter().flatten();
        for ((id, _), result) in leased.iter().zip(results) {
            if result["ok"] == true {
                ledger.done_acknowledged(id);
            }
        }
    }
}

impl Shared {
    /// The answer if the call was done. A server that stops or is gone ends the client; anything else is written down.
    fn judge(&self, answer: io::Result<Answer>) -> Option<Answer> {
        let failure = match answer {
            Ok(answer) if answer.ok() => return Some(answer),
            Ok(answer) if answer.code() == "stopping" => return None,
            Ok(answer) => format!("{} {}", answer.status, answer.body),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return None,
            Err(error) => error.to_string(),
        };
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
        None
    }
}
