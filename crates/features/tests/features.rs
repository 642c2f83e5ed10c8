//! The sentences of `features/`, acted out against the real binary. Nothing here sleeps for a guess: what takes time is asked
//! for again until it is so.

#[path = "steps/backup.rs"]
mod backup;
#[path = "steps/cancellation.rs"]
mod cancellation;
#[path = "steps/durable.rs"]
mod durable;
#[path = "steps/events.rs"]
mod events;
#[path = "steps/faktory.rs"]
mod faktory;
#[path = "steps/flow.rs"]
mod flow;
#[path = "steps/handlers.rs"]
mod handlers;
#[path = "steps/joins.rs"]
mod joins;
#[path = "steps/schedules.rs"]
mod schedules;
#[path = "steps/security.rs"]
mod security;
#[path = "steps/stream.rs"]
mod stream;
#[path = "steps/workers.rs"]
mod workers;

use cucumber::{World as _, given, then, when};
use rig::{Answer, Client, Ended, Server, StartError, Starter, TempDir, until};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

/// What happens by itself has happened by then.
const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, cucumber::World)]
#[world(init = Self::new)]
struct World {
    folder: TempDir,
    server: Option<Server>,
    ended: Option<Ended>,
    /// The answer to the newest call.
    answer: Option<Answer>,
    /// What the newest fetch brought, and what the first one did.
    fetched: Vec<Value>,
    first: Option<Value>,
    /// The job that the newest sentence named.
    job: Option<Value>,
    /// Exit code and output of the newest command.
    command: (Option<i32>, String),
    /// A program that takes jobs.
    worker: Option<cancellation::Worker>,
    /// A push that waits for room.
    producer: Option<flow::Producer>,
    /// A stream of events.
    listener: Option<events::Listener>,
    /// A program that is connected by the stream.
    connected: Option<stream::Connected>,
    /// One whose jobs end when they may.
    slow: Option<workers::Slow>,
    /// One that speaks the protocol of Faktory.
    faktory: Option<faktory::Client>,
    /// The position up to which revocations were heard.
    heard_to: u64,
    /// The newest token of each name.
    tokens: BTreeMap<String, String>,
}

impl World {
    fn new() -> Result<Self, std::io::Error> {
        Ok(Self {
            folder: TempDir::with_prefix("millpond-features-")?,
            server: None,
            ended: None,
            answer: None,
            fetched: Vec::new(),
            first: None,
            job: None,
            command: (None, String::new()),
            worker: None,
            producer: None,
            listener: None,
            connected: None,
            slow: None,
            faktory: None,
            heard_to: 0,
            tokens: BTreeMap::new(),
        })
    }

    fn starter(&self) -> Starter {
        Starter::new(&self.folder.path().join("data")).arguments(["--log", "warn"])
    }

    fn start(&mut self) {
        self.server = Some(self.starter().start().unwrap_or_else(|error| panic!("{error}")));
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a server runs")
    }

    fn client(&self) -> Client {
        self.server().client()
    }

    fn get(&self, path: &str) -> Answer {
        self.client().get(path).expect("an answer")
    }

    fn post(&mut self, path: &str, body: &Value) {
        self.answer = Some(self.client().post(path, body).expect("an answer"));
    }

    /// A call that the sentence takes for granted.
    fn must(&mut self, path: &str, body: &Value) -> Value {
        self.post(path, body);
        let answer = self.answer();
        assert!(answer.ok(), "{path}: {} {}", answer.status, answer.body);
        answer.body.clone()
    }

    fn answer(&self) -> &Answer {
        self.answer.as_ref().expect("a call was made")
    }

    fn push(&mut self, id: &str, queue: &str, body: &Value, options: &Value) {
        let mut job = options.clone();
        (job["id"], job["body"]) = (json!(id), body.clone());
        self.post(&jobs_of(queue), &job);
    }

    fn fetch(&mut self, queue: &str, max: u64, lease_ms: u64, wait: Duration) {
        self.fetch_as("tester", queue, max, lease_ms, wait);
    }

    fn fetch_as(&mut self, worker: &str, queue: &str, max: u64, lease_ms: u64, wait: Duration) {
        let wait_ms = u64::try_from(wait.as_millis()).expect("a short wait");
        let call = json!({"worker": worker, "queues": [queue], "max": max, "lease_ms": lease_ms, "wait_ms": wait_ms});
        let answer = self.must("/v1/fetch", &call);
        self.fetched = answer["jobs"].as_array().cloned().unwrap_or_default();
        if self.first.is_none() {
            self.first = self.fetched.first().cloned();
        }
    }

    fn report(&mut self, job: &Value, outcome: Value) {
        let mut outcome = outcome;
        for name in ["queue", "id", "lease_token"] {
            outcome[name] = job[name].clone();
        }
        self.must("/v1/outcomes", &json!({"worker": "tester", "outcomes": [outcome]}));
    }

    fn report_newest(&mut self, outcome: Value) {
        let job = self.fetched.first().cloned().expect("a job was fetched");
        self.report(&job, outcome);
        assert_eq!(self.answer().body["results"][0]["ok"], true, "{}", self.answer().body);
    }

    fn counts(&self, queue: &str, state: &str) -> u64 {
        let answer = self.get(&format!("/v1/queues/{queue}"));
        answer.body["counts"][state].as_u64().unwrap_or(0)
    }
}

fn jobs_of(queue: &str) -> String {
    format!("/v1/queues/{queue}/jobs")
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

// --- the server ---

#[given("a running server")]
#[when("the server is started again")]
fn starts(world: &mut World) {
    world.start();
}

#[when("the server is killed and started again")]
fn killed(world: &mut World) {
    world.server.take().expect("a server runs").kill().expect("it can be killed");
    world.start();
}

#[when("the server is stopped")]
fn stopped(world: &mut World) {
    let server = world.server.take().expect("a server runs");
    server.terminate().expect("it can be asked");
    world.ended = Some(server.wait(SOON).expect("it stops"));
}

#[then(expr = "it ends with exit code {int}")]
fn ends(world: &mut World, code: i32) {
    let ended = world.ended.as_ref().expect("a server ended");
    assert_eq!(ended.code(), Some(code), "{}", ended.output);
}

#[when("a second server is started on the same directory")]
fn second(world: &mut World) {
    match world.starter().start() {
        Err(StartError::Ended(ended)) => world.ended = Some(ended),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a second server serves the same directory"),
    }
}

#[then(expr = "it is refused with exit code {int} and says {string}")]
fn refused_start(world: &mut World, code: i32, says: String) {
    let ended = world.ended.as_ref().expect("a server ended");
    assert_eq!(ended.code(), Some(code), "{}", ended.output);
    assert!(ended.output.contains(&says), "{}", ended.output);
}

#[then(expr = "{string} can still take a job")]
fn takes_a_job(world: &mut World, queue: String) {
    world.must(&jobs_of(&queue), &json!({"body": null}));
}

// --- encryption ---

impl World {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command on files; no server is needed.
    fn command(&mut self, words: &[&str]) {
        let output = Command::new(rig::binary().expect("a binary")).args(words).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        self.command = (output.status.code(), String::from_utf8_lossy(&text).into_owned());
    }

    fn starter_with(&self, file: &str) -> Starter {
        self.starter().arguments([PathBuf::from("--encryption-key-file"), self.path(file)])
    }

    fn files_with(&self, folder: &std::path::Path, text: &str) -> Vec<PathBuf> {
        let entries =
            std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
        let holds = |path: &PathBuf| {
            let bytes = std::fs::read(path).expect("a file");
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        let inside = folders.iter().flat_map(|folder| self.files_with(folder, text));
        files.into_iter().filter(holds).chain(inside).collect()
    }
}

#[given(expr = "the key file {string}")]
fn key_file(world: &mut World, name: String) {
    let path = world.path(&name).display().to_string();
    world.command(&["key", "generate", "--out", &path]);
    succeeds(world);
}

#[given(expr = "the key file {string} with a new key above those of {string}")]
fn key_above(world: &mut World, name: String, old: String) {
    key_file(world, name.clone());
    let read = |name: &str| std::fs::read_to_string(world.path(name)).expect("a key file");
    let both = format!("{}{}", read(&name), read(&old));
    std::fs::write(world.path(&name), both).expect("it can be written");
}

#[when(expr = "the last key of {string} is taken away")]
fn key_away(world: &mut World, name: String) {
    let text = std::fs::read_to_string(world.path(&name)).expect("a key file");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.pop();
    std::fs::write(world.path(&name), lines.join("\n")).expect("it can be written");
}

#[given(expr = "a running server with the key file {string}")]
#[when(expr = "a server is started with the key file {string}")]
fn starts_with(world: &mut World, name: String) {
    world.server = Some(world.starter_with(&name).start().unwrap_or_else(|error| panic!("{error}")));
}

#[when(expr = "a server is tried with the key file {string}")]
fn tried_with(world: &mut World, name: String) {
    let starter = world.starter_with(&name);
    tried(world, starter);
}

#[when("a server is tried without a key file")]
fn tried_without(world: &mut World) {
    let starter = world.starter();
    tried(world, starter);
}

fn tried(world: &mut World, starter: Starter) {
    match starter.start() {
        Err(StartError::Ended(ended)) => world.ended = Some(ended),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it serves a directory that it cannot read"),
    }
}

#[when(expr = "the data directory is written again with the key file {string}")]
fn rotates(world: &mut World, name: String) {
    let (data, keys) = (world.path("data").display().to_string(), world.path(&name).display().to_string());
    world.command(&["key", "rotate", &data, "--encryption-key-file", &keys]);
}

#[when("the data directory is checked")]
fn checks(world: &mut World) {
    let data = world.path("data").display().to_string();
    world.command(&["key", "check", &data]);
}

#[then(expr = "no file of the data directory holds {string}")]
fn holds_not(world: &mut World, text: String) {
    assert_eq!(world.files_with(&world.path("data"), &text), Vec::<PathBuf>::new());
}

#[then(expr = "a file of the data directory holds {string}")]
fn holds(world: &mut World, text: String) {
    assert!(!world.files_with(&world.path("data"), &text).is_empty());
}

// --- pushing ---

#[when(regex = r#"^I push the job "(.+)" to "(.+)" with the body (.+)$"#)]
fn push_body(world: &mut World, id: String, queue: String, body: String) {
    world.push(&id, &queue, &read(&body), &json!({}));
}

#[when(regex = r#"^I push the job "(.+)" to "(.+)" with the options (.+)$"#)]
fn push_options(world: &mut World, id: String, queue: String, options: String) {
    world.push(&id, &queue, &Value::Null, &read(&options));
}

#[given(regex = r#"^the job "(.+)" in "(.+)" with the options (.+)$"#)]
fn pushed(world: &mut World, id: String, queue: String, options: String) {
    world.push(&id, &queue, &Value::Null, &read(&options));
    assert!(world.answer().ok(), "{}", world.answer().body);
}

#[when(regex = r#"^I push to "(.+)" the (?:batch|text) (.+)$"#)]
fn push_text(world: &mut World, queue: String, text: String) {
    let answer = world.client().call("POST", &jobs_of(&queue), &[], text.as_bytes());
    world.answer = Some(answer.expect("an answer"));
}

#[when(regex = r#"^I push the body (.+) to "(.+)" under the idempotency key "(.+)"$"#)]
fn push_key(world: &mut World, body: String, queue: String, key: String) {
    let job = json!({"body": read(&body)}).to_string();
    let answer = world.client().call("POST", &jobs_of(&queue), &[("idempotency-key", &key)], job.as_bytes());
    world.answer = Some(answer.expect("an answer"));
}

#[when(expr = "I push a body of {int} bytes to {string}")]
fn push_bytes(world: &mut World, bytes: usize, queue: String) {
    // The quotes of the JSON text count.
    world.post(&jobs_of(&queue), &json!({"body": "x".repeat(bytes - 2)}));
}

#[given(expr = "{int} jobs in {string}")]
fn many(world: &mut World, count: u64, queue: String) {
    let jobs: Vec<Value> = (0..count).map(|n| json!({"body": n})).collect();
    world.must(&jobs_of(&queue), &json!({"jobs": jobs}));
}

#[given(expr = "{int} orders in {string}")]
fn orders(world: &mut World, count: u64, queue: String) {
    let order = |n| json!({"order": n, "template": "order-confirmed", "email": format!("user{n}@example.com"), "currency": "EUR"});
    let jobs: Vec<Value> = (0..count).map(|n| json!({"id": n.to_string(), "body": order(n)})).collect();
    world.must(&jobs_of(&queue), &json!({"jobs": jobs}));
}

#[then("the push says that the job was there already")]
fn deduplicated(world: &mut World) {
    assert_eq!(world.answer().body["jobs"][0]["deduplicated"], true, "{}", world.answer().body);
}

// --- working ---

#[when(expr = "a worker fetches from {string}")]
fn fetches(world: &mut World, queue: String) {
    world.fetch(&queue, 1, 60_000, Duration::ZERO);
}

#[when(expr = "a worker fetches {int} jobs from {string}")]
fn fetches_many(world: &mut World, max: u64, queue: String) {
    world.fetch(&queue, max, 60_000, Duration::ZERO);
}

#[when(expr = "a worker fetches from {string} with a lease of {int} ms")]
fn fetches_for(world: &mut World, queue: String, lease_ms: u64) {
    world.fetch(&queue, 1, lease_ms, Duration::ZERO);
}

#[given(expr = "the job {string} in {string} was fetched by a worker")]
fn was_fetched(world: &mut World, id: String, queue: String) {
    was_fetched_for(world, id, queue, 60_000);
}

#[given(expr = "the job {string} in {string} was fetched by a worker with a lease of {int} ms")]
fn was_fetched_for(world: &mut World, id: String, queue: String, lease_ms: u64) {
    world.push(&id, &queue, &Value::Null, &json!({}));
    world.fetch(&queue, 1, lease_ms, Duration::ZERO);
    assert_eq!(world.fetched[0]["id"], id);
}

#[given(expr = "the dead job {string} in {string}")]
fn dead(world: &mut World, id: String, queue: String) {
    let open = world.fetched.clone();
    world.push(&id, &queue, &Value::Null, &json!({}));
    world.fetch(&queue, 1, 60_000, Duration::ZERO);
    assert_eq!(world.fetched[0]["id"], id);
    world.report_newest(json!({"outcome": "fail", "error": {"kind": "test", "message": "broken"}}));
    world.fetched = open;
}

#[then(regex = r#"^it gets the job "(.+)" as attempt (\d+) with the body (.+)$"#)]
fn gets_with_body(world: &mut World, id: String, attempt: u64, body: String) {
    gets(world, id, attempt);
    assert_eq!(world.fetched[0]["body"], read(&body));
}

#[then(regex = r#"^it gets the job "(.+)" as attempt (\d+)$"#)]
fn gets(world: &mut World, id: String, attempt: u64) {
    let job = world.fetched.first().expect("a job was fetched");
    assert_eq!((&job["id"], &job["attempt"]), (&json!(id), &json!(attempt)));
}

#[then(expr = "a worker that waits on {string} gets the job {string} as attempt {int}")]
fn waits(world: &mut World, queue: String, id: String, attempt: u64) {
    world.fetch(&queue, 1, 60_000, SOON / 2);
    gets(world, id, attempt);
}

#[then(regex = r"^its body is (.+)$")]
fn its_body(world: &mut World, body: String) {
    assert_eq!(world.fetched[0]["body"], read(&body));
}

#[when(expr = "a worker fetches from {string} under the idempotency key {string}")]
fn fetches_key(world: &mut World, queue: String, key: String) {
    let call = json!({"worker": "tester", "queues": [queue], "wait_ms": 1_000}).to_string();
    let answer = world.client().call("POST", "/v1/fetch", &[("idempotency-key", &key)], call.as_bytes());
    let answer = answer.expect("an answer");
    world.fetched = answer.body["jobs"].as_array().cloned().unwrap_or_default();
    if world.first.is_none() {
        world.first = world.fetched.first().cloned();
    }
}

#[then("it gets the same job again")]
fn gets_same(world: &mut World) {
    assert_eq!(world.fetched.first(), world.first.as_ref());
    assert!(world.first.is_some());
}

#[then("it gets nothing")]
fn gets_nothing(world: &mut World) {
    assert!(world.fetched.is_empty(), "{:?}", world.fetched);
}

#[then(expr = "a worker that fetches from {string} gets nothing")]
fn fetches_nothing(world: &mut World, queue: String) {
    fetches(world, queue);
    gets_nothing(world);
}

#[then(expr = "it gets the jobs {string} in this order")]
fn gets_in_order(world: &mut World, ids: String) {
    let got: Vec<&str> = world.fetched.iter().filter_map(|job| job["id"].as_str()).collect();
    assert_eq!(got.join(", "), ids);
}

#[then(expr = "they are of the groups {string}")]
fn are_of_groups(world: &mut World, groups: String) {
    let got: Vec<&str> = world.fetched.iter().filter_map(|job| job["group"].as_str()).collect();
    assert_eq!(got.join(", "), groups);
}

#[then("its lease token is larger than the first one")]
fn larger_token(world: &mut World) {
    let token = |job: &Value| job["lease_token"].as_u64().expect("a token");
    assert!(token(&world.fetched[0]) > token(world.first.as_ref().expect("a first job")));
}

#[when(regex = r"^the worker reports that it is done with the result (.+)$")]
fn done_with(world: &mut World, result: String) {
    world.report_newest(json!({"outcome": "done", "result": read(&result)}));
}

#[when("the worker reports that it is done")]
fn done(world: &mut World) {
    world.report_newest(json!({"outcome": "done"}));
}

#[when(expr = "the worker reports that it is done and pushes the job {string} to {string}")]
fn done_and_pushes(world: &mut World, id: String, queue: String) {
    world.report_newest(json!({"outcome": "done", "push": [{"queue": queue, "id": id, "body": null}]}));
}

#[when(expr = "the worker reports the error {string}")]
fn retry(world: &mut World, message: String) {
    world.report_newest(json!({"outcome": "retry", "error": {"kind": "test", "message": message}}));
}

#[when(expr = "the worker fails it for good with the error {string}")]
fn fail(world: &mut World, message: String) {
    world.report_newest(json!({"outcome": "fail", "error": {"kind": "test", "message": message}}));
}

#[when(expr = "the worker snoozes it for {int} ms")]
fn snooze(world: &mut World, after_ms: u64) {
    world.report_newest(json!({"outcome": "snooze", "after_ms": after_ms}));
}

#[when("the first worker reports that it is done")]
fn first_done(world: &mut World) {
    let job = world.first.clone().expect("a first job");
    world.report(&job, json!({"outcome": "done"}));
}

#[then(expr = "that report is refused with the code {string}")]
fn report_refused(world: &mut World, code: String) {
    let result = &world.answer().body["results"][0];
    assert_eq!((&result["ok"], &result["code"]), (&json!(false), &json!(code)));
}

// --- changing ---

#[when(expr = "I promote the job {string} in {string}")]
fn promote(world: &mut World, id: String, queue: String) {
    world.must(&format!("{}/{id}/promote", jobs_of(&queue)), &json!({}));
}

#[when(expr = "I redrive the job {string} in {string}")]
fn redrive(world: &mut World, id: String, queue: String) {
    world.must(&format!("{}/{id}/redrive", jobs_of(&queue)), &json!({}));
}

#[when(expr = "I redrive everything dead in {string}")]
fn redrive_all(world: &mut World, queue: String) {
    world.must(&format!("/v1/queues/{queue}/redrive"), &json!({}));
}

#[when(regex = r#"^I (pause|resume) "(.+)"$"#)]
fn pause(world: &mut World, verb: String, queue: String) {
    world.must(&format!("/v1/queues/{queue}/{verb}"), &json!({}));
}

// --- looking ---

#[then(regex = r#"^the job "(.+)" in "(.+)" is (\S+)$"#)]
fn is_in_state(world: &mut World, id: String, queue: String, state: String) {
    let answer = world.get(&format!("{}/{id}", jobs_of(&queue)));
    assert_eq!(answer.body["state"], state, "{}", answer.body);
    world.job = Some(answer.body);
}

#[then(expr = "its error is {string}")]
fn error(world: &mut World, message: String) {
    let job = world.job.as_ref().expect("a job was named");
    assert_eq!(job["error"]["message"], message, "{job}");
}

#[then(regex = r"^its history is (.+)$")]
fn history(world: &mut World, causes: String) {
    let job = world.job.as_ref().expect("a job was named");
    let (queue, id) = (job["queue"].as_str().expect("a queue"), job["id"].as_str().expect("an id"));
    let answer = world.get(&format!("{}/{id}/history", jobs_of(queue)));
    let entries = answer.body["history"].as_array().cloned().unwrap_or_default();
    let seen: Vec<&str> = entries.iter().filter_map(|entry| entry["cause"].as_str()).collect();
    assert_eq!(seen.join(", "), causes);
}

#[then(regex = r#"^"(.+)" has (\d+) (\w+) jobs?$"#)]
fn has(world: &mut World, queue: String, count: u64, state: String) {
    assert_eq!(world.counts(&queue, &state), count);
}

#[then(regex = r#"^before long "(.+)" has (\d+) (\w+) jobs?$"#)]
fn has_before_long(world: &mut World, queue: String, count: u64, state: String) {
    let seen = until(SOON, || (world.counts(&queue, &state) == count).then_some(()));
    assert!(seen.is_some(), "{queue} has {} {state} jobs", world.counts(&queue, &state));
}

#[when(expr = "I ask for the job {string} in {string}")]
fn ask(world: &mut World, id: String, queue: String) {
    world.answer = Some(world.get(&format!("{}/{id}", jobs_of(&queue))));
}

#[then(expr = "there is no job {string} in {string}")]
fn no_job(world: &mut World, id: String, queue: String) {
    assert_eq!(world.get(&format!("{}/{id}", jobs_of(&queue))).status, 404);
}

#[then(expr = "there is no queue {string}")]
fn no_queue(world: &mut World, queue: String) {
    assert_eq!(world.get(&format!("/v1/queues/{queue}")).code(), "unknown_queue");
}

#[then(expr = "the call is refused with status {int} and the code {string}")]
fn refused(world: &mut World, status: u16, code: String) {
    let answer = world.answer();
    assert_eq!((answer.status, answer.code()), (status, code.as_str()), "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(answer.body["help"].as_str().is_some_and(|help| !help.is_empty()), "{}", answer.body);
}

#[then(expr = "the refusal says {string}")]
fn says(world: &mut World, text: String) {
    assert!(world.answer().body.to_string().contains(&text), "{}", world.answer().body);
}

// --- the command line ---

#[when(regex = r#"^I run "millpond (.+)"$"#)]
fn run(world: &mut World, line: String) {
    let binary: PathBuf = rig::binary().expect("a binary");
    let output = Command::new(binary)
        .args(words(&line.replace("\\\"", "\"")))
        .env("MILLPOND_URL", world.server().url())
        .output()
        .expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    world.command = (output.status.code(), String::from_utf8_lossy(&text).into_owned());
}

/// Splits at spaces, but not inside single quotes.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    parts
        .flat_map(|(nth, part)| match nth % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

#[then("the command succeeds")]
fn succeeds(world: &mut World) {
    fails(world, 0);
}

#[then(expr = "the command fails with exit code {int}")]
fn fails(world: &mut World, code: i32) {
    assert_eq!(world.command.0, Some(code), "{}", world.command.1);
}

#[then(expr = "it prints {string}")]
fn prints(world: &mut World, text: String) {
    assert!(world.command.1.contains(&text), "{}", world.command.1);
}

fn main() {
    if let Err(error) = rig::binary() {
        eprintln!("features: {error}");
        std::process::exit(1);
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../features");
    let run = World::cucumber().max_concurrent_scenarios(1).fail_on_skipped().run_and_exit(folder);
    futures_executor::block_on(run);
}
