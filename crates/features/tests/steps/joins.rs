//! Jobs that wait for jobs.

use super::{World, read};
use cucumber::{then, when};
use serde_json::{Value, json};

#[when(regex = r"^I push the graph (.+)$")]
fn push_graph(world: &mut World, graph: String) {
    world.post("/v1/joins", &read(&graph));
}

#[when("I cancel the join")]
fn cancel_join(world: &mut World) {
    let id = world.answer().body["id"].as_str().expect("a join").to_owned();
    world.must(&format!("/v1/joins/{id}/cancel"), &json!({"reason": "not needed"}));
}

#[when(regex = r"^the worker waits for the children (.+)$")]
fn wait_for(world: &mut World, children: String) {
    world.report_newest(json!({"outcome": "wait", "children": read(&children)}));
}

#[then(regex = r#"^its children are "(.+)"$"#)]
fn children(world: &mut World, expected: String) {
    let members = world.fetched[0]["children"]["members"].as_array().cloned().unwrap_or_default();
    let told = members.iter().map(|member| {
        let word = |key: &str| member[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", word("name"), word("state"), member.get("result").unwrap_or(&Value::Null))
    });
    assert_eq!(told.collect::<Vec<_>>().join(", "), expected);
}

#[then(expr = "the report of {string} is refused with the code {string}")]
fn late_report(world: &mut World, id: String, code: String) {
    let job = world.fetched.iter().find(|job| job["id"] == id).cloned().expect("it was fetched");
    world.report(&job, json!({"outcome": "done"}));
    assert_eq!(world.answer().body["results"][0]["code"], code);
}

#[then(expr = "the explanation of {string} in {string} says {string}")]
fn explained(world: &mut World, id: String, queue: String, says: String) {
    let answer = world.get(&format!("/v1/queues/{queue}/jobs/{id}/explain"));
    let summary = answer.body["summary"].as_str().unwrap_or_default();
    assert!(summary.contains(&says), "{summary}");
}
