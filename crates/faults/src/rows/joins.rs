use crate::{
    Breach, Plan, Ran,
    pond::{LEASE_MS, Pond},
    talk::good,
};
use kit::random::Random;
use rig::{Client, Server, until};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// The load runs between these many milliseconds.
const LOAD_MS: std::ops::Range<u64> = 20..200;
/// Children of a graph; half of them through a join within the join.
const CHILDREN: u64 = 6;
const WORKERS: u64 = 2;
const QUEUES: [&str; 2] = ["children", "parents"];
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// F49: kill -9 while children of joins are pushed and end. Each join ends, its continuation starts after all children have ended, has
/// the results of all, and ends once.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let mut random = Random::new(plan.seed);
    let book = Arc::new(Book::default());
    for cycle in 0..plan.count {
        let server = pond.start().map_err(|breach| format!("cycle {cycle}: {breach}"))?;
        let clients = Clients::start(&server, &book, &mut random);
        let wait = LOAD_MS.start + random.below(LOAD_MS.end - LOAD_MS.start);
        let moment = Instant::now() + Duration::from_millis(wait);
        until(Duration::from_millis(wait), || (Instant::now() >= moment).then_some(()));
        server.kill().map_err(|error| error.to_string())?;
        plan.tally.fault();
        clients.stop()?;
        book.fine().map_err(|breach| format!("cycle {cycle}: {breach}"))?;
    }
    let server = pond.start()?;
    let mut client = server.client();
    let graphs = book.next.load(SeqCst);
    // What had no answer is repeated under its key, and what had one is answered the same.
    let mut joins = Vec::new();
    for graph in 0..graphs {
        let id = push(&mut client, graph).map_err(|why| format!("a repeated push failed: {why}"))?;
        let known = book.lock().pushed.insert(graph, id.clone());
        if known.is_some_and(|known| known != id) {
            return Err(format!("graph {graph}, pushed again under its key, is another"));
        }
        joins.push(id);
    }
    drain(&mut client, &book)?;
    book.fine()?;
    for (graph, id) in joins.iter().enumerate() {
        let join = good(client.get(&format!("/v1/joins/{id}")))?;
        if join["state"] != "completed" {
            return Err(format!("everything was worked off, and the join of graph {graph} is {join}"));
        }
    }
    for (queue, expected) in QUEUES.iter().zip([graphs * CHILDREN, graphs]) {
        let answer = good(client.get(&format!("/v1/queues/{queue}")))?;
        if answer["counts"]["completed"] != expected || answer["live"] != 0 {
            return Err(format!("{expected} jobs were pushed to {queue}, and there are {answer}"));
        }
    }
    plan.tally.found(graphs * (CHILDREN + 1));
    Ok(Ran::Passed(
        plan.count,
        format!("{graphs} joins: each continuation ran after all, with all results, and ended once"),
    ))
}

/// What the clients know.
#[derive(Default)]
struct Book {
    /// The next graph to push.
    next: AtomicU64,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    /// The id of the join of each graph whose push was answered.
    pushed: BTreeMap<u64, String>,
    /// Jobs whose end was reported, and those whose end was acknowledged.
    sent: BTreeSet<String>,
    ended: BTreeSet<String>,
    tokens: BTreeSet<u64>,
    breach: Option<Breach>,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fine(&self) -> Result<(), Breach> {
        self.lock().breach.take().map_or(Ok(()), Err)
    }
}

impl Notes {
    /// A job was handed out; the outcome to be reported.
    fn handed_out(&mut self, job: &Value) -> Value {
        let id = job["id"].as_str().unwrap_or_default();
        if let Some(breach) = self.wrong(id, job) {
            self.breach.get_or_insert(format!("{id}: {breach}"));
        }
        self.sent.insert(id.to_owned());
        json!({
            "queue": job["queue"], "id": id, "lease_token": job["lease_token"], "outcome": "done", "result": {"of": id},
        })
    }

    fn wrong(&mut self, id: &str, job: &Value) -> Option<Breach> {
        if self.ended.contains(id) {
            return Some("started again after its end was acknowledged".to_owned());
        }
        if !self.tokens.insert(job["lease_token"].as_u64().unwrap_or(0)) {
            return Some(format!("token {} was given twice", job["lease_token"]));
        }
        let graph = id.strip_suffix("-then")?;
        let mut members = job["children"]["members"].as_array().cloned().unwrap_or_default();
        let within = members.iter().find_map(|member| member["join"]["members"].as_array().cloned());
        members.extend(within.unwrap_or_default());
        for number in 0..CHILDREN {
            let child = format!("{graph}-{number}");
            if !self.sent.contains(&child) {
                return Some(format!("started before {child} ended"));
            }
            let told = members.iter().find(|member| member["id"] == child.as_str());
            let good = told.is_some_and(|member| {
                member["state"] == "completed" && member["result"] == json!({"of": child})
            });
            if !good {
                return Some(format!("was told of {child}: {told:?}"));
            }
        }
        None
    }
}

struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Clients {
    fn start(server: &Server, book: &Arc<Book>, random: &mut Random) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for number in 0..=WORKERS {
            let (mut client, book, stop, most) =
                (server.client(), book.clone(), stop.clone(), 1 + random.below(8));
            threads.push(std::thread::spawn(move || {
                // Any call without an answer says that the server is gone.
                while !stop.load(SeqCst) {
                    let went = match number {
                        0 => push_next(&mut client, &book),
                        _ => work(&mut client, &book, most).map(drop),
                    };
                    if went.is_err() {
                        return;
                    }
                }
            }));
        }
        Self { stop, threads }
    }

    fn stop(self) -> Result<(), Breach> {
        self.stop.store(true, SeqCst);
        self.threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| "a client panicked".to_owned()))
    }
}

fn push_next(client: &mut Client, book: &Book) -> Result<(), String> {
    let graph = book.next.fetch_add(1, SeqCst);
    let id = push(client, graph)?;
    book.lock().pushed.insert(graph, id);
    Ok(())
}

/// The id of its join.
fn push(client: &mut Client, graph: u64) -> Result<String, String> {
    let name = |number: u64| format!("c{number}");
    let mut jobs: Map<String, Value> = (0..CHILDREN)
        .map(|number| {
            (name(number), json!({"queue": QUEUES[0], "id": format!("{graph}-{number}"), "body": null}))
        })
        .collect();
    jobs.insert("then".to_owned(), json!({"queue": QUEUES[1], "id": format!("{graph}-then"), "body": null}));
    let inner: Vec<String> = (0..CHILDREN / 2).map(name).collect();
    let outer: Vec<String> = (CHILDREN / 2..CHILDREN).map(name).chain(["inner".to_owned()]).collect();
    let joins = json!({"inner": {"members": inner}, "outer": {"members": outer, "then": "then"}});
    let body = json!({"jobs": jobs, "joins": joins}).to_string();
    let key = format!("graph-{graph}");
    let answer = good(client.call("POST", "/v1/joins", &[("idempotency-key", &key)], body.as_bytes()))?;
    let joins = answer["joins"].as_array().into_iter().flatten();
    let outer = joins.clone().find(|join| join["name"] == "outer");
    outer
        .and_then(|join| join["id"].as_str())
        .map(str::to_owned)
        .ok_or_else(|| format!("no join in {answer}"))
}

/// One round of work; returns how many jobs there were.
fn work(client: &mut Client, book: &Book, most: u64) -> Result<usize, String> {
    let fetch = json!({"worker": "w", "queues": QUEUES, "max": most, "lease_ms": LEASE_MS, "wait_ms": 20});
    let answer = good(client.post("/v1/fetch", &fetch))?;
    let jobs = answer["jobs"].as_array().cloned().unwrap_or_default();
    if jobs.is_empty() {
        return Ok(0);
    }
    let outcomes: Vec<Value> = jobs.iter().map(|job| book.lock().handed_out(job)).collect();
    let answer = good(client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": outcomes})))?;
    let mut notes = book.lock();
    for (job, result) in jobs.iter().zip(answer["results"].as_array().into_iter().flatten()) {
        let id = job["id"].as_str().unwrap_or_default();
        if result["ok"] == true && !notes.ended.insert(id.to_owned()) {
            notes.breach.get_or_insert(format!("{id}: its end was acknowledged twice"));
        }
    }
    Ok(jobs.len())
}

/// Works until nothing is live.
fn drain(client: &mut Client, book: &Book) -> Result<(), Breach> {
    let mut round = || -> Result<bool, String> {
        if work(client, book, 1_000)? > 0 {
            return Ok(false);
        }
        let mut live = 0;
        for queue in QUEUES {
            live += good(client.get(&format!("/v1/queues/{queue}")))?["live"].as_u64().unwrap_or(0);
        }
        Ok(live == 0)
    };
    let drained = until(DRAIN_MAX, || round().map(|over| over.then_some(())).transpose());
    drained.unwrap_or_else(|| Err(format!("an orphan: not worked off within {DRAIN_MAX:?}")))
}
