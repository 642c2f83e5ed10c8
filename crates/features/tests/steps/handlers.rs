//! Programs as handlers.

use super::{SOON, World, cancellation::Worker, jobs_of, read};
use cucumber::{gherkin::Step, given, then, when};
use rig::until;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

#[given(expr = "a program that takes jobs from {string}:")]
fn program(world: &mut World, queue: String, step: &Step) {
    program_with(world, String::new(), queue, step);
}

#[given(expr = "a program with the options {string} that takes jobs from {string}:")]
fn program_with(world: &mut World, options: String, queue: String, step: &Step) {
    let script = step.docstring.as_ref().expect("a script");
    let mut command = Command::new(rig::binary().expect("a binary"));
    command.args(["work", &queue, "--concurrency", "1"]).args(options.split_whitespace());
    command.args(["--", "sh", "-c", script]);
    command.env("MILLPOND_URL", world.server().url()).current_dir(world.folder.path());
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    world.worker = Some(Worker(child));
}

fn job(world: &World, id: &str, queue: &str) -> Value {
    world.get(&format!("{}/{id}", jobs_of(queue))).body
}

#[then(regex = r#"^the job "(.+)" in "(.+)" becomes ([a-z-]+)$"#)]
fn becomes(world: &mut World, id: String, queue: String, state: String) {
    let there = until(SOON, || {
        let job = job(world, &id, &queue);
        (job["state"] == *state).then_some(job)
    });
    assert!(there.is_some(), "{}", job(world, &id, &queue));
    world.job = there;
}

#[then(regex = r"^its result is (.+)$")]
fn has_result(world: &mut World, result: String) {
    assert_eq!(world.job.as_ref().expect("a job was named")["result"], read(&result));
}

#[then(regex = r#"^the history of "(.+)" in "(.+)" has "(.+)" (\d+) times?$"#)]
fn has_history(world: &mut World, id: String, queue: String, cause: String, times: usize) {
    let path = format!("{}/{id}/history", jobs_of(&queue));
    let count = |history: &Value| {
        let changes = history["history"].as_array().expect("a history");
        changes.iter().filter(|change| change["cause"] == *cause).count()
    };
    let there = until(SOON, || (count(&world.get(&path).body) == times).then_some(()));
    assert!(there.is_some(), "{}", world.get(&path).body);
    world.job = Some(job(world, &id, &queue));
}

#[when(expr = "the worker reports that its process was killed by {string}")]
fn crashes(world: &mut World, signal: String) {
    world.report_newest(json!({"outcome": "crash", "crash": {"signal": signal, "stderr": "last words"}}));
}

#[then(regex = r"^it has crashed (\d+) times?$")]
fn has_crashed(world: &mut World, times: u64) {
    assert_eq!(world.answer().body["crashes"], times, "{}", world.answer().body);
}

#[when(expr = "the file {string} is there")]
fn file(world: &mut World, name: String) {
    std::fs::write(world.folder.path().join(name), "").expect("it can be written");
}
