//! Steps, sleeps, signals and children.

use super::{World, jobs_of, read};
use cucumber::{then, when};
use serde_json::{Value, json};

fn store(world: &mut World, name: &str, result: &Value) {
    let job = world.fetched.first().cloned().expect("a job was fetched");
    let at = |field: &str| job[field].as_str().expect("a text").to_owned();
    let path = format!("{}/{}/steps", jobs_of(&at("queue")), at("id"));
    world.post(
        &path,
        &json!({"worker": "tester", "lease_token": job["lease_token"], "name": name, "result": result}),
    );
}

fn steps(world: &World, id: &str, queue: &str) -> Vec<Value> {
    let answer = world.get(&format!("{}/{id}/steps", jobs_of(queue)));
    answer.body["steps"].as_array().cloned().expect("steps")
}

fn step(world: &World, id: &str, queue: &str, name: &str) -> Value {
    let steps = steps(world, id, queue);
    steps.into_iter().find(|step| step["name"] == name).expect("the step is stored")
}

#[when(regex = r#"^the worker stores the step "(.+)" with the result (.+)$"#)]
fn stores(world: &mut World, name: String, result: String) {
    store(world, &name, &read(&result));
    assert!(world.answer().ok(), "{}", world.answer().body);
}

#[when(expr = "the worker tries to store the step {string}")]
fn tries(world: &mut World, name: String) {
    store(world, &name, &Value::Null);
}

#[then(regex = r"^the step was there already with the value (.+)$")]
fn was_there(world: &mut World, value: String) {
    let answer = &world.answer().body;
    assert_eq!((&answer["stored"], &answer["step"]["value"]), (&json!(false), &read(&value)), "{answer}");
}

#[when(expr = "the worker reports the error {string} and wants to try again at once")]
fn retry_at_once(world: &mut World, message: String) {
    let error = json!({"kind": "test", "message": message});
    world.report_newest(json!({"outcome": "retry", "error": error, "after_ms": 0}));
}

#[when(expr = "the worker sleeps in step {string} for {int} ms")]
fn sleeps(world: &mut World, name: String, after_ms: u64) {
    world.report_newest(json!({"outcome": "sleep", "step": name, "after_ms": after_ms}));
}

#[when(expr = "the worker waits for the signal {string}")]
fn waits_for_signal(world: &mut World, signal: String) {
    world.report_newest(json!({"outcome": "wait_for_signal", "signal": signal}));
}

#[when(expr = "the worker waits for the signal {string} for {int} ms")]
fn waits_for_signal_for(world: &mut World, signal: String, timeout_ms: u64) {
    world.report_newest(json!({"outcome": "wait_for_signal", "signal": signal, "timeout_ms": timeout_ms}));
}

#[when(expr = "the worker waits in step {string} for the child {string} in {string}")]
fn waits_for_child(world: &mut World, name: String, id: String, queue: String) {
    let child = json!({"queue": queue, "id": id, "body": null});
    world.report_newest(json!({"outcome": "wait_for_child", "step": name, "child": child}));
}

#[when(expr = "I signal {string} to the job {string} in {string}")]
fn signals(world: &mut World, name: String, id: String, queue: String) {
    world.post(&format!("{}/{id}/signal", jobs_of(&queue)), &json!({"name": name, "body": true}));
}

#[then(expr = "its explanation says {string}")]
fn explained(world: &mut World, text: String) {
    let job = world.job.as_ref().expect("a job was named");
    let (queue, id) = (job["queue"].as_str().expect("a queue"), job["id"].as_str().expect("an id"));
    let answer = world.get(&format!("{}/{id}/explain", jobs_of(queue)));
    let summary = answer.body["summary"].as_str().expect("a summary");
    assert!(summary.contains(&text), "{summary}");
}

#[then(regex = r#"^the job "(.+)" in "(.+)" has stored (.+) as "(.+)"$"#)]
fn has_stored(world: &mut World, id: String, queue: String, value: String, name: String) {
    assert_eq!(step(world, &id, &queue, &name)["value"], read(&value));
}

#[then(expr = "the step {string} of {string} in {string} is of the kind {string}")]
fn is_of_kind(world: &mut World, name: String, id: String, queue: String, kind: String) {
    assert_eq!(step(world, &id, &queue, &name)["kind"], kind);
}

#[then(regex = r#"^the job "(.+)" in "(.+)" has (\d+) stored steps?$"#)]
fn has_steps(world: &mut World, id: String, queue: String, count: usize) {
    assert_eq!(steps(world, &id, &queue).len(), count);
}
