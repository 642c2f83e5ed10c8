//! Listening to what happens.

use super::{SOON, World, jobs_of, read};
use cucumber::{then, when};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

/// An open stream, and what it brought.
#[derive(Debug)]
pub(crate) struct Listener {
    lines: BufReader<TcpStream>,
    heard: Vec<Value>,
}

impl Listener {
    fn open(world: &World, query: &str, after: Option<&str>) -> Self {
        let address = world.server().url().trim_start_matches("http://").to_owned();
        let mut stream = TcpStream::connect(&address).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        let after = after.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        // HTTP/1.0 has no chunks: what comes is the stream itself.
        write!(stream, "GET /v1/events?{query} HTTP/1.0\r\nhost: {address}\r\n{after}\r\n")
            .expect("a request");
        let mut listener = Self { lines: BufReader::new(stream), heard: Vec::new() };
        while listener.line() != ": millpond" {}
        listener
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("a line in time");
        assert!(read > 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next event that has data, with its name under `event`.
    fn next(&mut self) -> Value {
        let mut name = String::new();
        loop {
            let line = self.line();
            if let Some(event) = line.strip_prefix("event: ") {
                event.clone_into(&mut name);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let mut event: Value = serde_json::from_str(data).expect("JSON");
                event["event"] = name.into();
                self.heard.push(event.clone());
                return event;
            }
        }
    }
}

#[when(expr = "I listen to the events of {string}")]
fn listen(world: &mut World, query: String) {
    world.listener = Some(Listener::open(world, &query, None));
}

#[when("I come back behind the first event")]
fn come_back(world: &mut World) {
    let first = &world.listener.as_ref().expect("somebody listens").heard[0];
    let id = first["event_id"].as_str().expect("an id").to_owned();
    world.listener = Some(Listener::open(world, "", Some(&id)));
}

#[then(expr = "I hear {string}")]
fn hear(world: &mut World, expected: String) {
    let listener = world.listener.as_mut().expect("somebody listens");
    let mut last = None;
    for expected in expected.split(", ") {
        let event = listener.next();
        let whom = if event["event"] == "job" { &event["id"] } else { &event["queue"] };
        let told = format!("{} {}", event["kind"].as_str().unwrap_or("?"), whom.as_str().unwrap_or("?"));
        assert_eq!(told, expected, "{event}");
        let (position, index) = event["event_id"].as_str().and_then(|id| id.split_once('.')).expect("an id");
        let id = (position.parse::<u64>().expect("a position"), index.parse::<u32>().expect("an index"));
        assert_eq!(event["position"], id.0);
        assert!(last < Some(id), "{last:?} before {id:?}");
        last = Some(id);
    }
}

#[then(expr = "I hear that events are gone, and then {string}")]
fn gone(world: &mut World, expected: String) {
    let event = world.listener.as_mut().expect("somebody listens").next();
    assert_eq!(event["event"], "gone", "{event}");
    assert!(event["since"].is_string() && event["reason"].is_string(), "{event}");
    hear(world, expected);
}

#[when(expr = "the worker says that it is at {int}")]
fn say_how_far(world: &mut World, progress: u64) {
    let job = world.fetched[0].clone();
    let text = |name: &str| job[name].as_str().expect("text").to_owned();
    let path = format!("{}/{}/progress", jobs_of(&text("queue")), text("id"));
    let call = json!({"lease_token": job["lease_token"], "worker": "tester", "progress": progress});
    world.must(&path, &call);
}

#[then(regex = r#"^what I heard said the "(.+)" (.+) and the "(.+)" (.+)$"#)]
fn values(world: &mut World, first: String, one: String, second: String, other: String) {
    let heard = &world.listener.as_ref().expect("somebody listens").heard;
    let said = |name: &str| heard.iter().find_map(|event| event.get(name)).cloned();
    assert_eq!(said(&first), Some(read(&one)));
    assert_eq!(said(&second), Some(read(&other)));
}

#[when(expr = "I ask for the events of {string}")]
fn ask(world: &mut World, query: String) {
    world.answer = Some(world.get(&format!("/v1/events?{query}")));
}

#[when(expr = "I remove the job {string} in {string}")]
fn remove(world: &mut World, id: String, queue: String) {
    let answer =
        world.client().call("DELETE", &format!("{}/{id}", jobs_of(&queue)), &[], b"").expect("an answer");
    assert!(answer.ok(), "{}", answer.body);
}
