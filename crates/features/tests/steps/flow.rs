//! Limits, groups and queues that hold jobs, and what is said to start next.

use super::World;
use cucumber::{given, then, when};
use serde_json::json;
use std::time::Duration;

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
