//! Limits, groups and queues that hold jobs, and what is said to start next.

use super::{SOON, World, cancellation::Worker, jobs_of, words};
use cucumber::{given, then, when};
use rig::{Answer, until};
use serde_json::{Value, json};
use std::{
    io,
    process::{Command, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

/// A push that may wait, on a thread of its own.
pub(crate) type Producer = JoinHandle<io::Result<Answer>>;

impl World {
    fn change(&mut self, method: &str, path: &str, body: &str) {
        let answer = self.client().call(method, path, &[], body.as_bytes()).expect("an answer");
        assert!(answer.ok(), "{path}: {} {}", answer.status, answer.body);
        self.answer = Some(answer);
    }
}

#[given(regex = r#"^the limit "(.+)" is (\{.*\})$"#)]
#[when(regex = r#"^the limit "(.+)" is (\{.*\})$"#)]
fn set_limit(world: &mut World, key: String, limit: String) {
    world.change("PUT", &format!("/v1/limits/{key}"), &limit);
}

#[when(expr = "the limit {string} is removed")]
fn remove_limit(world: &mut World, key: String) {
    world.change("DELETE", &format!("/v1/limits/{key}"), "");
}

#[given(regex = r#"^the group "(.+)" of "(.+)" has the settings (\{.*\})$"#)]
#[when(regex = r#"^the group "(.+)" of "(.+)" has the settings (\{.*\})$"#)]
fn set_group(world: &mut World, group: String, queue: String, settings: String) {
    world.change("PATCH", &format!("/v1/queues/{queue}/groups/{group}"), &settings);
}

#[given(regex = r#"^the queue "(.+)" has the settings (\{.*\})$"#)]
fn set_queue(world: &mut World, queue: String, settings: String) {
    world.change("PATCH", &format!("/v1/queues/{queue}"), &settings);
}

#[when(expr = "the worker {string} fetches {int} jobs from {string}")]
fn fetches_as(world: &mut World, worker: String, max: u64, queue: String) {
    world.fetch_as(&worker, &queue, max, 60_000, Duration::ZERO);
}

#[when(expr = "the worker reports that {string} lets it wait for {int} ms")]
fn told_to_wait(world: &mut World, limit: String, after_ms: u64) {
    world.report_newest(json!({"outcome": "rate_limited", "limit": limit, "after_ms": after_ms}));
}

/// Ids of the jobs that a queue lists as next: those that start, or those that are held.
fn upcoming(world: &World, queue: &str, held: bool) -> String {
    let answer = world.get(&format!("/v1/queues/{queue}/upcoming?limit=100"));
    let jobs = answer.body["jobs"].as_array().cloned().unwrap_or_default();
    let chosen = jobs.iter().filter(|job| job["explain"].is_object() == held);
    chosen.filter_map(|job| job["id"].as_str()).collect::<Vec<_>>().join(", ")
}

#[then(expr = "{string} holds back {string}")]
fn holds_back(world: &mut World, queue: String, ids: String) {
    assert_eq!(upcoming(world, &queue, true), ids);
}

#[then(expr = "{string} says that {string} start next, and a fetch brings them")]
fn foretold(world: &mut World, queue: String, ids: String) {
    assert_eq!(upcoming(world, &queue, false), ids);
    world.fetch(&queue, 100, 60_000, Duration::ZERO);
    super::gets_in_order(world, ids);
}

// --- producers that wait ---

fn patient(id: &str, queue: &str, wait_ms: u64) -> (String, Value) {
    (format!("{}?wait_ms={wait_ms}", jobs_of(queue)), json!({"id": id, "body": null}))
}

#[when(expr = "a producer pushes the job {string} to {string} and waits up to {int} ms")]
fn producer_pushes(world: &mut World, id: String, queue: String, wait_ms: u64) {
    let (path, job) = patient(&id, &queue, wait_ms);
    let mut client = world.client();
    world.producer = Some(thread::spawn(move || client.post(&path, &job)));
}

#[when(expr = "I push the job {string} to {string} without waiting")]
fn pushes_at_once(world: &mut World, id: String, queue: String) {
    let (path, job) = patient(&id, &queue, 0);
    world.post(&path, &job);
}

#[then(regex = r#"^before long (\d+) push(?:es)? waits? for room in "(.+)"$"#)]
fn waits_for_room(world: &mut World, count: u64, queue: String) {
    let waiting = || world.get(&format!("/v1/queues/{queue}")).body["producers_waiting"].clone();
    assert!(until(SOON, || (waiting() == count).then_some(())).is_some(), "{} wait", waiting());
}

#[then("the producer's push goes through")]
fn goes_through(world: &mut World) {
    hears(world);
    assert_eq!(world.answer().status, 201, "{}", world.answer().body);
}

#[then(expr = "the producer's push is refused with status {int} and the code {string}")]
fn gives_up(world: &mut World, status: u16, code: String) {
    hears(world);
    super::refused(world, status, code);
}

fn hears(world: &mut World) {
    let producer = world.producer.take().expect("a producer waits");
    world.answer = Some(producer.join().expect("it ends").expect("an answer"));
}

#[then("the refusal says after how many seconds to try again")]
fn retry_after(world: &mut World) {
    let seconds = world.answer().header("retry-after").and_then(|text| text.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{seconds:?}");
}

#[when(regex = r#"^the program "millpond (.+)" is started$"#)]
fn program_starts(world: &mut World, line: String) {
    let child = Command::new(rig::binary().expect("a binary"))
        .args(words(&line))
        .env("MILLPOND_URL", world.server().url())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    world.worker = Some(Worker(child));
}

#[when("the program is killed")]
fn program_killed(world: &mut World) {
    world.worker.take().expect("a program runs");
}

#[then("the program succeeds")]
fn program_succeeds(world: &mut World) {
    let worker = world.worker.as_mut().expect("a program runs");
    let ended = until(SOON, || worker.0.try_wait().expect("it can be asked"));
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}
