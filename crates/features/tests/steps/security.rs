//! Tokens: who is let in, to what, and where.

use super::{SOON, World, jobs_of};
use cucumber::{given, then, when};
use rig::{Answer, until};
use serde_json::{Value, json};

impl World {
    fn token_command(&mut self, words: &[&str]) -> Value {
        let file = self.path("tokens").display().to_string();
        let all = [&["token"], words, &["--tokens-file", &file, "--json"]].concat();
        self.command(&all);
        assert_eq!(self.command.0, Some(0), "{}", self.command.1);
        super::read(&self.command.1)
    }

    fn try_as(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        extra: &[(&str, &str)],
        body: &Value,
    ) -> Answer {
        let bearer = format!("Bearer {}", token.unwrap_or_default());
        let mut headers = extra.to_vec();
        if token.is_some() {
            headers.push(("authorization", &bearer));
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.client().call(method, path, &headers, body.as_bytes()).expect("an answer")
    }

    fn call_as(&mut self, name: &str, method: &str, path: &str, body: &Value) {
        let token = self.tokens[name].clone();
        self.answer = Some(self.try_as(Some(&token), method, path, &[], body));
    }

    /// The right to look at a preview is everybody's who is known.
    fn is_known(&self, token: &str) -> bool {
        self.try_as(Some(token), "GET", "/openapi.json", &[], &Value::Null).ok()
    }
}

#[given(expr = "the token {string} for {string}")]
fn token(world: &mut World, name: String, role: String) {
    let made = world.token_command(&["add", &name, "--role", &role]);
    world.tokens.insert(name, made["token"].as_str().expect("a token").to_owned());
}

#[given(expr = "the token {string} for {string} in {string}")]
fn token_in(world: &mut World, name: String, role: String, queues: String) {
    let made = world.token_command(&["add", &name, "--role", &role, "--queue", &queues]);
    world.tokens.insert(name, made["token"].as_str().expect("a token").to_owned());
}

#[given("a running server with these tokens")]
fn starts_with_tokens(world: &mut World) {
    let tokens = world.path("tokens").display().to_string();
    let starter = world.starter().arguments(["--tokens-file".to_owned(), tokens]);
    world.server = Some(starter.start().unwrap_or_else(|error| panic!("{error}")));
}

#[when("somebody without a token lists the queues")]
fn nobody_lists(world: &mut World) {
    world.answer = Some(world.try_as(None, "GET", "/v1/queues", &[], &Value::Null));
}

#[when(expr = "somebody with the token {string} lists the queues")]
fn somebody_lists(world: &mut World, token: String) {
    world.answer = Some(world.try_as(Some(&token), "GET", "/v1/queues", &[], &Value::Null));
}

#[then("the server is alive for everybody")]
fn alive(world: &mut World) {
    assert!(world.try_as(None, "GET", "/livez", &[], &Value::Null).ok());
}

#[when(expr = "{string} lists the queues")]
fn lists(world: &mut World, name: String) {
    world.call_as(&name, "GET", "/v1/queues", &Value::Null);
}

#[when(expr = "{string} pushes the job {string} to {string}")]
fn pushes(world: &mut World, name: String, id: String, queue: String) {
    world.call_as(&name, "POST", &jobs_of(&queue), &json!({"id": id, "body": 1}));
}

#[when(expr = "{string} pushes the job {string} to {string} and says that it is {string}")]
fn pushes_as(world: &mut World, name: String, id: String, queue: String, other: String) {
    let token = world.tokens[&name].clone();
    let (said, body) = ([("millpond-actor", other.as_str())], json!({"id": id, "body": 1}));
    world.answer = Some(world.try_as(Some(&token), "POST", &jobs_of(&queue), &said, &body));
}

#[when(expr = "{string} pushes a job to {string} and tells its id")]
fn pushes_and_tells(world: &mut World, name: String, queue: String) {
    world.call_as(&name, "POST", &jobs_of(&queue), &json!({"body": 1}));
    world.job = Some(world.answer().body["jobs"][0].clone());
}

#[when(expr = "{string} asks for that job")]
fn asks(world: &mut World, name: String) {
    let id = world.job.as_ref().and_then(|job| job["id"].as_str()).expect("an id").to_owned();
    world.call_as(&name, "GET", &format!("/v1/jobs/{id}"), &Value::Null);
}

#[when(expr = "{string} fetches from {string}")]
fn fetches(world: &mut World, name: String, queue: String) {
    world.call_as(&name, "POST", "/v1/fetch", &json!({"worker": "w", "queues": [queue]}));
}

#[when(expr = "{string} pauses {string}")]
fn pauses(world: &mut World, name: String, queue: String) {
    world.call_as(&name, "POST", &format!("/v1/queues/{queue}/pause"), &Value::Null);
}

#[then("the call succeeds")]
fn succeeds(world: &mut World) {
    assert!(world.answer().ok(), "{} {}", world.answer().status, world.answer().body);
}

#[then(expr = "the history of {string} in {string} says {string}")]
fn history_says(world: &mut World, id: String, queue: String, actor: String) {
    world.call_as("ops", "GET", &format!("{}/{id}/history", jobs_of(&queue)), &Value::Null);
    assert_eq!(world.answer().body["history"][0]["actor"], actor.as_str(), "{}", world.answer().body);
}

#[when(expr = "{string} gets its next token")]
fn next_token(world: &mut World, name: String) {
    let made = world.token_command(&["rotate", &name, "--overlap", "1h"]);
    let former = world.tokens.insert(name, made["token"].as_str().expect("a token").to_owned());
    world.tokens.insert("former".to_owned(), former.expect("it had one"));
}

#[then(expr = "before long {string} is known")]
fn before_long_known(world: &mut World, name: String) {
    let known = until(SOON, || world.is_known(&world.tokens[&name]).then_some(()));
    assert!(known.is_some(), "the next token never counted");
}

#[then(expr = "the former token of {string} still counts")]
fn former_counts(world: &mut World, _name: String) {
    assert!(world.is_known(&world.tokens["former"]));
}

#[when(expr = "the token of {string} is taken away")]
fn taken_away(world: &mut World, name: String) {
    world.token_command(&["revoke", &name]);
}

#[then(expr = "before long {string} is not known")]
fn before_long_unknown(world: &mut World, name: String) {
    let gone = until(SOON, || (!world.is_known(&world.tokens[&name])).then_some(()));
    assert!(gone.is_some(), "it counts for ever");
}

#[then(expr = "{string} is known")]
fn known(world: &mut World, name: String) {
    assert!(world.is_known(&world.tokens[&name]));
}

#[then("no file of the folder holds a token")]
fn holds_none(world: &mut World) {
    for token in world.tokens.values() {
        assert_eq!(world.files_with(world.folder.path(), token), Vec::<std::path::PathBuf>::new());
    }
}

#[when(expr = "a server without tokens is tried on {string}")]
fn tried_public(world: &mut World, address: String) {
    world.command(&["serve", "--memory", "--listen", &address]);
}

#[when(expr = "a server with these tokens is tried on {string}")]
fn tried_public_with_tokens(world: &mut World, address: String) {
    let tokens = world.path("tokens").display().to_string();
    world.command(&["serve", "--memory", "--listen", &address, "--tokens-file", &tokens]);
}
