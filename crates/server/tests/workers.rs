//! The list of workers, and what an operator asks of them: by each door.
#![allow(missing_docs, clippy::unwrap_used)]

mod faktory_support;
mod support;

use faktory_support::Wire;
use millpond::{Connect, Job, Pond, Worker};
use serde_json::{Value, json};
use server::serve::Server;
use std::{sync::Arc, time::Duration};
use support::{call, start};
use tokio::sync::{Semaphore, mpsc};

const LONG: Duration = Duration::from_secs(60);

async fn listed(server: &Server) -> Value {
    call(server, "GET /v1/workers", "").await.json()["workers"].take()
}

async fn show(server: &Server, worker: &str) -> Value {
    call(server, &format!("GET /v1/workers/{worker}"), "").await.json()
}

/// What the worker's state is after this was asked.
async fn tell(server: &Server, worker: &str, verb: &str) -> String {
    let answer = call(server, &format!("POST /v1/workers/{worker}/{verb}"), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["state"].as_str().unwrap().to_owned()
}

async fn push(server: &Server, id: &str) {
    let job = json!({"id": id, "body": id}).to_string();
    assert_eq!(call(server, "POST /v1/queues/mail/jobs", &job).await.status, 201);
}

async fn state(server: &Server, id: &str) -> Value {
    call(server, &format!("GET /v1/queues/mail/jobs/{id}"), "").await.json()["state"].take()
}

/// The ids that a fetch in this name brings, and the answer.
async fn fetch(server: &Server, worker: &str, wait_ms: u64) -> (Vec<String>, Value) {
    let fetch = json!({"worker": worker, "queues": ["mail"], "wait_ms": wait_ms}).to_string();
    let answer = call(server, "POST /v1/fetch", &fetch).await.json();
    let jobs = answer["jobs"].as_array().unwrap();
    (jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect(), answer)
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let met = async {
        loop {
            if let Some(met) = look().await {
                return met;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, met).await.unwrap_or_else(|_| panic!("{what}"))
}

/// A connected program that works on "mail". Each job says that it runs, and ends when it is let go.
struct Program {
    _pond: Pond,
    worker: Worker,
    running: mpsc::UnboundedReceiver<String>,
    let_go: Arc<Semaphore>,
}

impl Program {
    async fn start(server: &Server, name: &str) -> Self {
        let options = Connect { name: Some(name.into()), labels: vec!["blue".into()], ..Connect::default() };
        let pond = Pond::connect_with(&server.url(), options).await.unwrap();
        let (said, running) = mpsc::unbounded_channel();
        let let_go = Arc::new(Semaphore::new(0));
        let gate = let_go.clone();
        let handler = move |body: String, _: Job| {
            let (said, gate) = (said.clone(), gate.clone());
            async move {
                said.send(body).unwrap();
                gate.acquire().await.unwrap().forget();
            }
        };
        let worker = pond.queue::<String>("mail").unwrap().worker(handler);
        let worker = worker.concurrency(8).prefetch(0).start().unwrap();
        until("it is listed", || async { show(server, name).await["worker"].is_string().then_some(()) })
            .await;
        Self { _pond: pond, worker, running, let_go }
    }

    async fn runs(&mut self) -> String {
        tokio::time::timeout(LONG, self.running.recv()).await.expect("a job runs").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connected_program_is_listed_with_what_it_says_and_has() {
    let server = start(&[]).await;
    assert_eq!(listed(&server).await, json!([]));
    let mut program = Program::start(&server, "w1").await;
    push(&server, "a").await;
    program.runs().await;
    let shown = show(&server, "w1").await;
    for (field, value) in [
        ("state", json!("running")),
        ("connected", json!(true)),
        ("door", json!("stream")),
        ("pid", json!(std::process::id())),
        ("labels", json!(["blue"])),
        ("queues", json!(["mail"])),
        ("in_hand", json!(1)),
        ("concurrency", json!(8)),
    ] {
        assert_eq!(shown[field], value, "{field}: {shown}");
    }
    assert!(shown["client"].as_str().unwrap().starts_with("millpond-rust "), "{shown}");
    assert_eq!((&shown["jobs"][0]["queue"], &shown["jobs"][0]["id"]), (&json!("mail"), &json!("a")));
    assert!(shown["jobs"][0]["started_at"].is_string() && shown["heard_at"].is_string(), "{shown}");
    let list = listed(&server).await;
    assert_eq!((list.as_array().unwrap().len(), &list[0]["in_hand"]), (1, &json!(1)), "{list}");
    program.let_go.add_permits(1);
    program.worker.stop().await;
    until("it is gone", || async { (listed(&server).await == json!([])).then_some(()) }).await;
    let unknown = call(&server, "POST /v1/workers/w1/quiet", "").await;
    assert_eq!((unknown.status, unknown.code()), (404, "unknown_worker".into()));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_program_ends_what_it_has_and_gets_nothing_until_it_is_resumed() {
    let server = start(&[]).await;
    let mut program = Program::start(&server, "w1").await;
    push(&server, "a").await;
    assert_eq!(program.runs().await, "a");
    assert_eq!(tell(&server, "w1", "quiet").await, "quiet");
    push(&server, "b").await;
    // It has free handlers, and asks for jobs all the time: whoever asks now gets the job.
    assert_eq!(fetch(&server, "other", 60_000).await.0, ["b"]);
    program.let_go.add_permits(1);
    until("what runs is reported", || async { (state(&server, "a").await == "completed").then_some(()) })
        .await;
    drop(program);
    let mut program = Program::start(&server, "w1").await;
    assert_eq!(show(&server, "w1").await["state"], "quiet", "it came back");
    push(&server, "c").await;
    assert_eq!(fetch(&server, "other", 60_000).await.0, ["c"]);
    assert_eq!(tell(&server, "w1", "resume").await, "running");
    push(&server, "d").await;
    assert_eq!(program.runs().await, "d");
    program.let_go.add_permits(1);
    program.worker.stop().await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_told_to_stop_ends_its_jobs_and_hears_of_it() {
    let server = start(&[]).await;
    let mut program = Program::start(&server, "w1").await;
    push(&server, "a").await;
    program.runs().await;
    let hears = tokio::time::timeout(LONG, program.worker.closed());
    let (heard, told) = tokio::join!(hears, tell(&server, "w1", "stop"));
    assert!(heard.is_ok() && told == "stopping", "{told}");
    push(&server, "b").await;
    program.let_go.add_permits(1);
    let drained = program.worker.stop().await;
    assert_eq!((drained.handed_back, drained.left), (0, 0), "{drained:?}");
    assert_eq!(
        (state(&server, "a").await, state(&server, "b").await),
        (json!("completed"), json!("waiting"))
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_over_http_hears_in_its_answer_what_was_asked_of_it() {
    let server = start(&[]).await;
    let (jobs, answer) = fetch(&server, "w1", 0).await;
    assert!(jobs.is_empty() && answer["state"].is_null(), "{answer}");
    let shown = show(&server, "w1").await;
    assert_eq!((&shown["door"], &shown["queues"]), (&json!("http"), &json!(["mail"])), "{shown}");
    // It waits for a job when it is asked to be quiet, and goes on waiting until it may work again.
    let tells = async {
        assert_eq!(tell(&server, "w1", "quiet").await, "quiet");
        push(&server, "a").await;
        assert_eq!(fetch(&server, "other", 60_000).await.0, ["a"]);
        assert_eq!(tell(&server, "w1", "resume").await, "running");
    };
    let ((jobs, answer), ()) = tokio::join!(fetch(&server, "w1", 60_000), tells);
    assert!(jobs.is_empty() && answer["state"].is_null(), "{answer}");
    let ((jobs, answer), state) = tokio::join!(fetch(&server, "w1", 60_000), tell(&server, "w1", "stop"));
    assert!(jobs.is_empty() && state == "stopping", "{answer}");
    assert_eq!(answer["state"], "stopping");
    push(&server, "b").await;
    assert!(fetch(&server, "w1", 60_000).await.0.is_empty());
    assert_eq!(fetch(&server, "other", 0).await.0, ["b"]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_faktory_worker_hears_in_its_beat_what_was_asked_of_it() {
    let server = faktory_support::start(&[]).await;
    let mut wire = Wire::worker(&server, "w-1").await;
    let beat = r#"BEAT {"wid":"w-1","rss_kb":2048}"#;
    assert_eq!(wire.say(beat).await, "+OK");
    let shown = show(&server, "faktory:w-1").await;
    assert_eq!((&shown["door"], &shown["host"], &shown["pid"]), (&json!("faktory"), &json!("h"), &json!(1)));
    assert_eq!((&shown["labels"], &shown["rss_bytes"]), (&json!(["test"]), &json!(2 << 20)), "{shown}");
    // It waits for a job meanwhile.
    wire.send(b"FETCH mail\r\n").await;
    until("it asks", || async {
        (show(&server, "faktory:w-1").await["queues"] == json!(["mail"])).then_some(())
    })
    .await;
    tell(&server, "faktory:w-1", "quiet").await;
    push(&server, "a").await;
    assert_eq!(wire.hear().await, "$-1");
    assert_eq!(wire.say(beat).await, r#"{"state":"quiet"}"#);
    assert_eq!(fetch(&server, "other", 0).await.0, ["a"]);
    tell(&server, "faktory:w-1", "resume").await;
    assert_eq!(wire.say(beat).await, "+OK");
    tell(&server, "faktory:w-1", "stop").await;
    assert_eq!(wire.say(beat).await, r#"{"state":"terminate"}"#);
    // The same id again from another process: it was started anew.
    let mut anew = Wire::connect(&server).await;
    assert_eq!(anew.say(r#"HELLO {"v":2,"wid":"w-1","hostname":"h","pid":2,"labels":[]}"#).await, "+OK");
    assert_eq!(anew.say(beat).await, "+OK");
    server.stop().await.unwrap();
}
