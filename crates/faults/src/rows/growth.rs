use crate::{
    Breach, Plan, Ran,
    pond::Pond,
    process::{open_files, resident_kib},
    talk::{good, push},
};
use kit::random::Random;
use rig::{Client, Server, until};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

/// How long the clients of a round work.
const ROUND: Duration = Duration::from_millis(700);
const CLIENTS: usize = 2;
/// Jobs of a call.
const BATCH: u64 = 20;
const QUEUE: &str = "busy";
/// Clients of a round that die in the middle of a call.
const DYING: u64 = 20;
/// Of what has ended, this much is kept, so that the jobs themselves do not add up.
const KEPT: u64 = 1_000;
/// Rounds until memory and files are what they will be.
const WARM_UP: u64 = 3;
/// More than this, and that share of what it was, is growth: caches fill up and memory comes in pieces.
const GROWTH_KIB_MAX: u64 = 24 << 10;
const GROWTH_PERCENT_MAX: u64 = 10;
/// The store opens a few more with time.
const FILES_MORE_MAX: usize = 24;
const SOON: Duration = Duration::from_secs(30);

/// F50: one server lives through all rounds, while clients work and others die in the middle of calls, waits and streams. In the end it has
/// no more files open than in the beginning, and its memory does not grow.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let server = pond.start()?;
    let keep = json!({"keep_completed": {"age_ms": 86_400_000, "count": KEPT}}).to_string();
    good(server.client().call("PATCH", &format!("/v1/queues/{QUEUE}"), &[], keep.as_bytes()))?;
    let mut random = Random::new(plan.seed);
    let (mut memory, mut files, mut done) = (Vec::new(), None, 0);
    for round in 0..plan.count.max(WARM_UP + 2) {
        let inside = |breach| format!("round {round}: {breach}");
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                std::thread::spawn({
                    let client = server.client();
                    move || work(client)
                })
            })
            .collect();
        for _ in 0..DYING {
            die(&server, &mut random).map_err(|error| inside(error.to_string()))?;
        }
        let mut completed = 0;
        for client in clients {
            completed += client.join().map_err(|_| "a client panicked")?.map_err(inside)?;
        }
        plan.tally.fault();
        plan.tally.found(completed);
        done += completed;
        let (Some(kib), Some(open)) = (resident_kib(server.pid()), open_files(server.pid())) else {
            return Ok(Ran::Skipped("the system does not say how much memory a process has".to_owned()));
        };
        memory.push(kib);
        files.get_or_insert(open);
    }
    let files_max = files.unwrap_or(0) + FILES_MORE_MAX;
    // What has died is noticed, if not at once.
    until(SOON, || open_files(server.pid()).filter(|open| *open <= files_max)).ok_or_else(|| {
        format!("{:?} files are open, {files:?} were after the first round", open_files(server.pid()))
    })?;
    let (before, after) = slope(&memory[WARM_UP as usize..]);
    if after > before + GROWTH_KIB_MAX.max(before * GROWTH_PERCENT_MAX / 100) {
        return Err(format!("memory grew from {before} to {after} KiB: {memory:?}"));
    }
    Ok(Ran::Passed(
        plan.count,
        format!(
            "{done} jobs, at most {files_max} files open, memory {} MiB, then {} MiB",
            before >> 10,
            after >> 10
        ),
    ))
}

/// Pushes and works for a round; returns how many jobs were completed.
fn work(mut client: Client) -> Result<u64, Breach> {
    let jobs: Vec<Value> = (0..BATCH).map(|number| json!({"body": {"number": number}})).collect();
    let fetch = json!({"worker": "w", "queues": [QUEUE], "max": BATCH, "lease_ms": 60_000});
    let (began, mut completed) = (Instant::now(), 0);
    while began.elapsed() < ROUND {
        push(&mut client, QUEUE, &jobs)?;
        let answer = good(client.post("/v1/fetch", &fetch))?;
        let outcome = |job: &Value| json!({"queue": QUEUE, "id": job["id"], "lease_token": job["lease_token"], "outcome": "done"});
        let outcomes: Vec<Value> = answer["jobs"].as_array().into_iter().flatten().map(outcome).collect();
        let answer = good(client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes})))?;
        let results = answer["results"].as_array().into_iter().flatten();
        completed += results.filter(|result| result["ok"] == true).count() as u64;
    }
    Ok(completed)
}

/// The middle of the first half and of the second.
fn slope(all: &[u64]) -> (u64, u64) {
    let middle = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).copied().unwrap_or(0)
    };
    let (first, second) = all.split_at(all.len() / 2);
    (middle(first), middle(second))
}

/// A client that is gone before it is answered, or listens and is gone.
fn die(server: &Server, random: &mut Random) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server.address())?;
    let host = format!("host: {}\r\n", server.address());
    let wait = r#"{"worker":"gone","queues":["nothing"],"wait_ms":60000}"#;
    let request = match random.below(4) {
        0 => format!("GET /v1/events HTTP/1.1\r\n{host}accept: text/event-stream\r\n\r\n"),
        1 => format!("POST /v1/fetch HTTP/1.1\r\n{host}content-length: {}\r\n\r\n{wait}", wait.len()),
        2 => format!("POST /v1/push HTTP/1.1\r\n{host}content-length: 100000\r\n\r\n{{\"jobs\":["),
        _ => format!("GET /v1/queues HTTP/1.1\r\n{host}"),
    };
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_is_seen_and_a_peak_is_not() {
        assert_eq!(slope(&[10, 11, 10, 90, 10, 11]), (10, 11));
        assert_eq!(slope(&[10, 20, 30, 40, 50, 60]), (20, 50));
    }
}
