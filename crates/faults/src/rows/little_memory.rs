use super::system_calls::STOP_MAX;
use crate::{
    Breach, Plan, Ran,
    group::Group,
    ledger::Ledger,
    pond::Pond,
    talk::{counted, good},
};
use kit::random::Random;
use rig::{Client, Server, until};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

const LIMIT: u64 = 256 << 20;
/// Large bodies: more of them are pushed than fit in the memory.
const BODY_BYTES: usize = 200 << 10;
const PUSHERS: u64 = 4;
const PUSHES: u64 = 500;
/// Small jobs of one push, and more pushes of them than fit.
const BATCH: u64 = 1_000;
const BATCHES_MAX: u64 = 2_000;
const SMALL: &str = "small";
/// SIGKILL.
const KILL: i32 = 9;
const SOON: Duration = Duration::from_secs(60);

/// F43: the server may use 256 MiB of memory, which it finds out by itself. Clients push more than that, in large bodies and in many jobs.
/// It keeps bodies on the disk and refuses further work politely; meanwhile work can be done, and once what nobody needs is removed, new work
/// is taken again. If the system kills it all the same, for what the store takes while it sorts, a start has everything.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let (mut refused, mut pushed, mut killed) = (0, 0, 0);
    for trial in 0..plan.count {
        let inside = |breach| format!("trial {trial}: {breach}");
        let pond = Pond::new(plan)?;
        let group = match Group::memory(LIMIT) {
            Ok(group) => group,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        let server = pond.starter().under(group.wrapper()).start();
        let server = server.map_err(|error| inside(error.to_string()))?;
        let ledger = Arc::new(Ledger::new("large"));
        let story = push_large(&server, &ledger, plan.seed + trial).and_then(|more| {
            let jobs = fill(&server)?;
            (refused, pushed) = (refused + more, pushed + jobs);
            work_and_remove(&server)
        });
        plan.tally.fault();
        // It may be gone already.
        let _ = server.terminate();
        let end = server.wait(STOP_MAX).ok_or("it did not stop")?;
        if end.by_signal(KILL) {
            killed += 1;
        } else {
            story.map_err(inside)?;
            if end.code() != Some(0) {
                return Err(inside(format!("it ended with {}:\n{}", end.status, end.output)));
            }
        }
        pond.heals(&[&ledger])?;
    }
    Ok(Ran::Passed(
        plan.count,
        format!(
            "{} large jobs, {refused} more refused, {pushed} small ones until it was full; {killed} times killed",
            PUSHERS * PUSHES
        ),
    ))
}

/// Returns how many pushes were refused.
fn push_large(server: &Server, ledger: &Arc<Ledger>, seed: u64) -> Result<u64, Breach> {
    let refused = Arc::new(AtomicU64::new(0));
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|pusher| {
            let (mut client, ledger, refused) = (server.client(), ledger.clone(), refused.clone());
            let mut random = Random::new(seed << 8 | pusher);
            std::thread::spawn(move || {
                for number in 0..PUSHES {
                    let ids = [format!("{pusher}-{number}")];
                    ledger.push_sent(&ids);
                    // Not to be compressed away.
                    let body: String =
                        (0..BODY_BYTES / 16).map(|_| format!("{:016x}", random.next_u64())).collect();
                    let job = json!({"id": ids[0], "body": body});
                    match client.post("/v1/queues/large/jobs", &job) {
                        Ok(answer) if answer.ok() => ledger.push_acknowledged(&ids),
                        Ok(answer) if is_polite(&answer) => drop(refused.fetch_add(1, SeqCst)),
                        Ok(answer) => return Err(format!("{} {}", answer.status, answer.body)),
                        Err(error) => return Err(format!("a push had no answer: {error}")),
                    }
                }
                Ok(())
            })
        })
        .collect();
    pushers
        .into_iter()
        .try_for_each(|pusher| pusher.join().map_err(|_| "a client panicked".to_owned())?)?;
    Ok(refused.load(SeqCst))
}

fn is_polite(answer: &rig::Answer) -> bool {
    answer.status == 503
        && matches!(answer.code(), "memory_full" | "overloaded")
        && answer.header("retry-after").is_some()
}

/// Pushes small jobs until that is refused; returns how many were taken.
fn fill(server: &Server) -> Result<u64, Breach> {
    let mut client = server.client();
    let jobs: Vec<Value> = (0..BATCH).map(|number| json!({"body": number})).collect();
    let batch = json!({ "jobs": jobs });
    for taken in 0..BATCHES_MAX {
        let answer = client.post(&format!("/v1/queues/{SMALL}/jobs"), &batch);
        let answer = answer.map_err(|error| format!("a push had no answer: {error}"))?;
        if answer.code() == "memory_full" && is_polite(&answer) {
            return Ok(taken * BATCH);
        }
        good(Ok(answer))?;
    }
    Err(format!("{} jobs, and it is not full", BATCHES_MAX * BATCH))
}

/// While no new work is taken, work goes on; when what waits is removed, new work is taken.
fn work_and_remove(server: &Server) -> Result<(), Breach> {
    let mut client = server.client();
    let fetch = json!({"worker": "w", "queues": [SMALL], "max": 10, "lease_ms": 60_000});
    let answer =
        good(client.post("/v1/fetch", &fetch)).map_err(|why| format!("no work while it is full: {why}"))?;
    let outcome = |job: &Value| json!({"queue": SMALL, "id": job["id"], "lease_token": job["lease_token"], "outcome": "done"});
    let outcomes: Vec<Value> = answer["jobs"].as_array().into_iter().flatten().map(outcome).collect();
    let answer = good(client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes})))?;
    let done =
        answer["results"].as_array().into_iter().flatten().filter(|result| result["ok"] == true).count();
    if done != 10 {
        return Err(format!("{done} of 10 jobs could be done while it was full"));
    }
    good(client.post(&format!("/v1/queues/{SMALL}/purge"), &json!({})))?;
    let again = until(SOON, || push_one(&mut client));
    let left = counted(&mut client, SMALL, "waiting")?;
    again.ok_or_else(|| {
        format!("new work is refused {SOON:?} after what waited was removed, but for {left} jobs")
    })
}

fn push_one(client: &mut Client) -> Option<()> {
    let answer = client.post(&format!("/v1/queues/{SMALL}/jobs"), &json!({"body": null}));
    answer.ok()?.ok().then_some(())
}
