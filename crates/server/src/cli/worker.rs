//! `millpond workers`, `millpond worker …`

use super::{
    Context, Failure,
    print::{self, Style},
    queues::all,
};
use crate::client::{Extras, Time, segment};
use clap::{Args, Subcommand};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

/// The workers that are there: what they ask for, what they have in hand, when they were last heard of
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  millpond workers")]
pub(crate) struct Workers {}

/// One worker: look at it, let it rest, let it end
///
/// A quiet worker gets no more jobs and ends those that it has; so does one that comes back under the same name, until it is resumed. One that
/// is told to stop ends itself when its jobs are done.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond worker show web-1:4711
  millpond worker quiet web-1:4711
  millpond worker resume web-1:4711
  millpond worker stop web-1:4711")]
pub(crate) struct WorkerCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// What it is, and the jobs that it has in hand
    Show(Named),
    /// Give it no more jobs
    Quiet(Named),
    /// Give it jobs again
    Resume(Named),
    /// Give it no more jobs, and tell it to end when those that it has are done
    Stop(Named),
}

#[derive(Debug, Args)]
struct Named {
    /// The worker, as `millpond workers` shows it
    name: String,
}

/// A worker, as far as it is shown here.
#[derive(Debug, Deserialize)]
struct Worker {
    worker: String,
    state: String,
    connected: bool,
    door: String,
    host: Option<String>,
    pid: Option<u64>,
    client: Option<String>,
    labels: Vec<String>,
    queues: Vec<String>,
    in_hand: u64,
    concurrency: Option<u64>,
    rss_bytes: Option<u64>,
    connected_at: Time,
    heard_at: Time,
    #[serde(default)]
    jobs: Vec<InHand>,
}

#[derive(Debug, Deserialize)]
struct InHand {
    queue: Option<String>,
    id: String,
    started_at: Option<Time>,
}

impl Workers {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if context.json {
            let workers = all::<Value>(&context.client, "/v1/workers", "workers").await?;
            print::line(&json!({"workers": workers}).to_string());
            return Ok(());
        }
        let workers = all::<Worker>(&context.client, "/v1/workers", "workers").await?;
        if workers.is_empty() {
            print::line("No worker is there. Start one: millpond work mail -- ./send-mail");
        } else {
            print::put(&overview(context.style, &workers));
        }
        Ok(())
    }
}

impl WorkerCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (name, method, verb) = match &self.verb {
            Verb::Show(Named { name }) => (name, Method::GET, ""),
            Verb::Quiet(Named { name }) => (name, Method::POST, "/quiet"),
            Verb::Resume(Named { name }) => (name, Method::POST, "/resume"),
            Verb::Stop(Named { name }) => (name, Method::POST, "/stop"),
        };
        let path = format!("/v1/workers/{}{verb}", segment(name));
        let bytes = context.client.call(method, &path, bytes::Bytes::new(), Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
        } else if verb.is_empty() {
            print::put(&details(&context.client.parse(&bytes)?));
        } else {
            let answer: Value = context.client.parse(&bytes)?;
            let state = answer["state"].as_str().unwrap_or_default();
            print::line(&format!("{}: {}", print::clean(name), print::clean(state)));
        }
        Ok(())
    }
}

/// Jobs in hand, of those that it runs at once.
fn load(worker: &Worker) -> String {
    let in_hand = print::count(worker.in_hand);
    worker.concurrency.map_or_else(|| in_hand.clone(), |most| format!("{in_hand}/{}", print::count(most)))
}

/// `quiet` and the like; one that is away is remembered only for what was asked of it.
fn state(worker: &Worker) -> String {
    if worker.connected { worker.state.clone() } else { format!("{}, away", worker.state) }
}

fn at(time: Time) -> String {
    time.0.to_string()
}

fn overview(style: Style, workers: &[Worker]) -> String {
    let heading = ["worker", "in hand", "queues", "client", "heard", ""];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for worker in workers {
        let client = worker.client.as_deref().unwrap_or(&worker.door);
        rows.push(vec![
            print::cut(&print::clean(&worker.worker), 40),
            load(worker),
            print::cut(&print::clean(&worker.queues.join(" ")), 30),
            print::cut(&print::clean(client), 24),
            at(worker.heard_at),
            if worker.connected && worker.state == "running" {
                String::new()
            } else {
                style.warn(&print::clean(&state(worker)))
            },
        ]);
    }
    print::table(style, &rows, &[1])
}

fn details(worker: &Worker) -> String {
    let place = worker.host.iter().cloned().chain(worker.pid.map(|pid| format!("process {pid}")));
    let memory = worker.rss_bytes.map(|bytes| format!("{} MiB", print::count(bytes >> 20)));
    let rows = [
        ("state", state(worker)),
        ("in hand", load(worker)),
        ("queues", worker.queues.join(" ")),
        ("place", place.collect::<Vec<_>>().join(", ")),
        ("client", worker.client.clone().unwrap_or_default()),
        ("labels", worker.labels.join(" ")),
        ("memory", memory.unwrap_or_default()),
        ("door", worker.door.clone()),
        ("connected", at(worker.connected_at)),
        ("heard", at(worker.heard_at)),
    ];
    let mut text = format!("{}\n", print::clean(&worker.worker));
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("  {name:<10} {}\n", print::clean(value)));
    }
    for job in &worker.jobs {
        let queue = job.queue.as_deref().unwrap_or_default();
        let since = job.started_at.map(at).unwrap_or_default();
        text.push_str(&format!(
            "  {:<10} {} {} since {since}\n",
            "job",
            print::clean(queue),
            print::clean(&job.id)
        ));
    }
    text
}
