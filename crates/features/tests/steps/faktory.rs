//! A client that was written for Faktory.

use super::{SOON, World};
use cucumber::{given, then, when};
use rig::{Server, until};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// A connection, and the job that it has.
#[derive(Debug)]
pub(super) struct Client {
    stream: BufReader<TcpStream>,
    job: Value,
}

impl Client {
    fn connect(address: SocketAddr, wid: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        let mut client = Self { stream: BufReader::new(stream), job: Value::Null };
        assert_eq!(client.line(), r#"+HI {"v":2}"#);
        assert_eq!(client.say(&format!("HELLO {}", json!({"v": 2, "wid": wid}))), "+OK");
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn say(&mut self, line: &str) -> String {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).expect("a connection");
        let line = self.line();
        let Some(Ok(length)) = line.strip_prefix('$').map(str::parse::<usize>) else { return line };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).expect("the whole answer");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    fn ends_with(&mut self, verb: &str) {
        let said = json!({"jid": self.job["jid"], "errtype": "Oops", "message": "it broke"});
        assert_eq!(self.say(&format!("{verb} {said}")), "+OK");
    }
}

fn client(world: &mut World) -> &mut Client {
    world.faktory.as_mut().expect("a Faktory client is connected")
}

/// Where the server serves Faktory clients, as it says itself.
fn address(server: &Server) -> SocketAddr {
    let said = || {
        let output = server.output();
        output.lines().find_map(|line| line.split_once("FAKTORY_URL=tcp://")?.1.parse().ok())
    };
    until(SOON, said).expect("the server says where")
}

fn start(world: &mut World) {
    let starter = world.starter().arguments(["--faktory", "127.0.0.1:0"]);
    world.server = Some(starter.start().unwrap_or_else(|error| panic!("{error}")));
}

#[given("a running server that speaks the protocol of Faktory")]
fn running(world: &mut World) {
    start(world);
}

#[when("the server is killed and speaks to Faktory clients again")]
fn killed(world: &mut World) {
    world.server.take().expect("a server runs").kill().expect("it can be killed");
    start(world);
}

#[given(expr = "a Faktory client that works as {string}")]
#[when(expr = "the Faktory client connects again as {string}")]
fn connects(world: &mut World, wid: String) {
    let job = world.faktory.take().map_or(Value::Null, |client| client.job);
    world.faktory = Some(Client { job, ..Client::connect(address(world.server()), &wid) });
}

fn push(world: &mut World, jid: &str, jobtype: &str, queue: &str, retry: i64) {
    let job = json!({"jid": jid, "jobtype": jobtype, "queue": queue, "args": [], "retry": retry});
    assert_eq!(client(world).say(&format!("PUSH {job}")), "+OK");
}

#[when(expr = "the Faktory client pushes the job {string} of type {string} to {string}")]
fn pushes(world: &mut World, jid: String, jobtype: String, queue: String) {
    push(world, &jid, &jobtype, &queue, 25);
}

#[when(expr = "the Faktory client pushes the job {string} of type {string} to {string} without retries")]
fn pushes_once(world: &mut World, jid: String, jobtype: String, queue: String) {
    push(world, &jid, &jobtype, &queue, -1);
}

#[when(expr = "the Faktory client fetches from {string}")]
fn fetches(world: &mut World, queue: String) {
    let client = client(world);
    let job = client.say(&format!("FETCH {queue}"));
    client.job = serde_json::from_str(&job).unwrap_or_else(|error| panic!("{error}: {job}"));
}

#[then(expr = "the Faktory client has the job {string} of type {string}")]
fn has(world: &mut World, jid: String, jobtype: String) {
    let job = &client(world).job;
    assert_eq!((&job["jid"], &job["jobtype"]), (&json!(jid), &json!(jobtype)), "{job}");
}

#[then(regex = r"^its argument is (.+)$")]
fn has_argument(world: &mut World, argument: String) {
    let expected: Value = serde_json::from_str(&argument).expect("JSON");
    assert_eq!(client(world).job["args"], json!([expected]));
}

#[then(expr = "the Faktory client hears {string} in the beat of {string}")]
fn hears(world: &mut World, state: String, wid: String) {
    let told = client(world).say(&format!("BEAT {}", json!({"wid": wid})));
    assert_eq!(told, json!({"state": state}).to_string());
}

#[when("the Faktory client acknowledges it")]
fn acknowledges(world: &mut World) {
    client(world).ends_with("ACK");
}

#[when("the Faktory client fails it")]
fn fails(world: &mut World) {
    client(world).ends_with("FAIL");
}
