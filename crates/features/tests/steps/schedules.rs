//! Jobs that come by themselves.

use super::{SOON, World, read};
use cucumber::{given, then, when};
use rig::until;
use serde_json::{Value, json};

fn at(id: &str) -> String {
    format!("/v1/schedules/{id}")
}

impl World {
    fn put_schedule(&mut self, id: &str, schedule: &str) {
        let answer = self.client().call("PUT", &at(id), &[], schedule.as_bytes()).expect("an answer");
        self.answer = Some(answer);
    }

    fn schedule(&self, id: &str) -> Value {
        let answer = self.get(&at(id));
        assert!(answer.ok(), "{}", answer.body);
        answer.body
    }
}

#[given(regex = r#"^the schedule "(.+)" with (\{.+\})$"#)]
fn given_schedule(world: &mut World, id: String, schedule: String) {
    world.put_schedule(&id, &schedule);
    assert!(world.answer().ok(), "{}", world.answer().body);
}

#[when(regex = r#"^I put the schedule "(.+)" with (\{.+\})$"#)]
fn put_schedule(world: &mut World, id: String, schedule: String) {
    world.put_schedule(&id, &schedule);
}

#[then(expr = "the schedule was {string}")]
fn changed(world: &mut World, change: String) {
    assert_eq!(world.answer().body["change"], change.as_str(), "{}", world.answer().body);
}

#[when(regex = r#"^I (pause|resume|run) the schedule "(.+)"$"#)]
fn told(world: &mut World, verb: String, id: String) {
    world.must(&format!("{}/{verb}", at(&id)), &json!({}));
}

#[when(expr = "I remove the schedule {string}")]
fn remove(world: &mut World, id: String) {
    let answer = world.client().call("DELETE", &at(&id), &[], b"").expect("an answer");
    assert!(answer.ok(), "{}", answer.body);
}

#[then(expr = "there is no schedule {string}")]
fn gone(world: &mut World, id: String) {
    assert_eq!(world.get(&at(&id)).body["code"], "unknown_schedule");
}

#[then(regex = r#"^(before long )?the schedule "(.+)" is (\S+)$"#)]
fn stands(world: &mut World, later: String, id: String, state: String) {
    if !later.is_empty() {
        until(SOON, || (world.schedule(&id)["state"] == state.as_str()).then_some(())).expect("it is so");
    }
    assert_eq!(world.schedule(&id)["state"], state.as_str());
}

#[then(expr = "before long the schedule {string} has fired {int} times")]
fn fired(world: &mut World, id: String, times: u64) {
    until(SOON, || (world.schedule(&id)["fired"].as_u64() >= Some(times)).then_some(()))
        .expect("it has fired");
}

#[then(expr = "before long the schedule {string} has skipped a slot")]
fn skipped(world: &mut World, id: String) {
    until(SOON, || (world.schedule(&id)["skipped"].as_u64() >= Some(1)).then_some(()))
        .expect("it has skipped");
}

#[then(expr = "a worker that waits on {string} gets a job of the schedule {string}")]
fn gets_scheduled(world: &mut World, queue: String, id: String) {
    world.fetch(&queue, 1, 60_000, SOON);
    let job = world.fetched.first().cloned().expect("a job was fetched");
    assert_eq!(job["meta"]["schedule"], id.as_str(), "{job}");
    let text = job["id"].as_str().unwrap_or_default();
    assert!(text.starts_with(&format!("schedule:{id}:")), "{job}");
    world.job = Some(job);
}

#[then("its slot is a whole second")]
fn whole_second(world: &mut World) {
    let job = world.job.as_ref().expect("a job was named");
    assert!(job["meta"]["slot"].as_str().is_some_and(|slot| slot.ends_with(".000Z")), "{job}");
}

#[when(regex = r"^I preview (\{.+\})$")]
fn preview(world: &mut World, times: String) {
    world.must("/v1/schedules/preview", &read(&times));
}

#[then(regex = r"^the slots are (.+)$")]
fn seen(world: &mut World, slots: String) {
    let shown = world.answer().body["slots"].as_array().cloned().unwrap_or_default();
    let shown: Vec<&str> = shown.iter().filter_map(|slot| slot.as_str()?.strip_suffix(":00.000Z")).collect();
    assert_eq!(shown.join(", "), slots);
}
