//! `millpond bench`: how fast this server takes, hands out and finishes jobs over HTTP, from this machine.

use super::{Context, Failure, options, print};
use crate::client::{Client, ClientError, Extras, FetchAnswer, ResultsAnswer, segment};
use clap::Args;
use hyper::Method;
use kit::Durability;
use serde_json::{Value, json};
use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// How fast this server is: push jobs, then drain them, over HTTP
///
/// The queue is one of its own and is purged at the end.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond bench
  millpond bench --jobs 1000000 --batch 100 --payload 1024 --clients 8 --durability os")]
pub(crate) struct Bench {
    /// How many jobs
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    jobs: u64,
    /// Jobs in one call
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Bytes of one body
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(2..=1_048_576))]
    payload: u64,
    /// Connections at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    clients: u64,
    /// How safe before the answer: memory, os, disk
    #[arg(long, value_parser = options::durability, value_name = "LEVEL", default_value = "disk")]
    durability: Durability,
    /// The queue
    #[arg(long, default_value = "bench")]
    queue: String,
}

/// What one phase has shown.
struct Phase {
    jobs: u64,
    seconds: f64,
    /// Microseconds of each call, sorted.
    calls: Vec<u32>,
}

impl Phase {
    fn percentile(&self, part: f64) -> f64 {
        let at = ((self.calls.len() as f64 * part) as usize).min(self.calls.len().saturating_sub(1));
        self.calls.get(at).map_or(0.0, |micros| f64::from(*micros) / 1_000.0)
    }

    fn rate(&self) -> f64 {
        self.jobs as f64 / self.seconds.max(1e-9)
    }

    fn to_json(&self) -> Value {
        json!({
            "jobs": self.jobs, "seconds": self.seconds, "jobs_per_second": self.rate(), "calls": self.calls.len(),
            "p50_ms": self.percentile(0.5), "p99_ms": self.percentile(0.99),
        })
    }

    fn line(&self, name: &str) -> String {
        format!(
            "{name:<7}{:>10} jobs in {:>6.2}s  {:>10} jobs/s   call p50 {:.2} ms, p99 {:.2} ms",
            print::count(self.jobs),
            self.seconds,
            print::count(self.rate() as u64),
            self.percentile(0.5),
            self.percentile(0.99)
        )
    }
}

impl Bench {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        model::QueueName::new(&self.queue).map_err(|error| Failure::Usage(error.to_string()))?;
        let push = self.phase(&context.client, Kind::Push).await?;
        if !context.json {
            let about = format!(
                "{} · {} bytes a job · {} a call · {} clients · durability {}",
                context.client.url(),
                self.payload,
                self.batch,
                self.clients,
                self.durability
            );
            print::line(&context.style.dim(&about));
            print::line(&push.line("push"));
        }
        let drain = self.phase(&context.client, Kind::Drain).await?;
        self.clear(&context.client).await;
        let both = Phase { jobs: push.jobs, seconds: push.seconds + drain.seconds, calls: Vec::new() };
        if context.json {
            let out = json!({
                "push": push.to_json(), "drain": drain.to_json(), "end_to_end_jobs_per_second": both.rate(),
                "batch": self.batch, "payload": self.payload, "clients": self.clients,
                "durability": self.durability.name(),
            });
            print::line(&out.to_string());
        } else {
            print::line(&drain.line("drain"));
            print::line(&format!("both   {:>37} jobs/s", print::count(both.rate() as u64)));
        }
        if drain.jobs < self.jobs {
            return Err(Failure::Check(format!("{} jobs did not come back", self.jobs - drain.jobs)));
        }
        Ok(())
    }

    async fn phase(&self, client: &Client, kind: Kind) -> Result<Phase, Failure> {
        let task = Arc::new(Task {
            client: client.clone(),
            queue: self.queue.clone(),
            batch: self.batch,
            durability: self.durability.name(),
            body: format!("\"{}\"", "x".repeat(self.payload as usize - 2)),
            left: AtomicU64::new(self.jobs),
        });
        let started = Instant::now();
        let mut clients = JoinSet::new();
        for _ in 0..self.clients {
            let task = task.clone();
            clients.spawn(async move {
                match kind {
                    Kind::Push => task.push().await,
                    Kind::Drain => task.drain().await,
                }
            });
        }
        let (mut jobs, mut calls) = (0, Vec::new());
        while let Some(ended) = clients.join_next().await {
            let (done, mut micros) = ended.map_err(|error| Failure::Check(error.to_string()))??;
            jobs += done;
            calls.append(&mut micros);
        }
        calls.sort_unstable();
        Ok(Phase { jobs, seconds: started.elapsed().as_secs_f64(), calls })
    }

    /// Best effort: what is left over harms nobody.
    async fn clear(&self, client: &Client) {
        let path = format!("/v1/queues/{}/purge", segment(&self.queue));
        for body in ["{\"state\":\"completed\"}", "{}"] {
            let _ = client.call(Method::POST, &path, body, Extras::default()).await;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Push,
    Drain,
}

struct Task {
    client: Client,
    queue: String,
    batch: u64,
    durability: &'static str,
    body: String,
    left: AtomicU64,
}

type Done = Result<(u64, Vec<u32>), ClientError>;

impl Task {
    fn extras(&self) -> Extras<'_> {
        Extras { durability: Some(self.durability), ..Extras::default() }
    }

    /// A share of what is left, at most a batch.
    fn take(&self) -> u64 {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(self.batch)))
            .unwrap_or(0);
        left.min(self.batch)
    }

    async fn push(&self) -> Done {
        let (mut jobs, mut calls) = (0, Vec::new());
        let job = format!("{{\"body\":{}}}", self.body);
        let full = bytes::Bytes::from(request(&job, self.batch));
        loop {
            let count = self.take();
            if count == 0 {
                return Ok((jobs, calls));
            }
            let call = if count == self.batch { full.clone() } else { request(&job, count).into() };
            let began = Instant::now();
            self.client.push(&self.queue, call, self.extras()).await?;
            calls.push(micros(began));
            jobs += count;
        }
    }

    async fn drain(&self) -> Done {
        let (mut jobs, mut calls) = (0, Vec::new());
        let worker = "millpond-bench";
        let wait = Duration::from_secs(1);
        while self.left.load(Ordering::Relaxed) > 0 {
            let fetch = json!({
                "worker": worker, "queues": [self.queue], "max": self.batch, "wait_ms": wait.as_millis() as u64,
            });
            let extras = Extras { patience: wait, ..self.extras() };
            let began = Instant::now();
            let answer: FetchAnswer =
                self.client.json(Method::POST, "/v1/fetch", fetch.to_string(), extras).await?;
            if answer.jobs.is_empty() {
                return Ok((jobs, calls));
            }
            calls.push(micros(began));
            let mut report = format!("{{\"worker\":\"{worker}\",\"outcomes\":[");
            for (at, job) in answer.jobs.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let (queue, id) = (json!(job.queue), json!(job.id));
                let token = job.lease_token;
                let _ = write!(
                    report,
                    "{comma}{{\"queue\":{queue},\"id\":{id},\"lease_token\":{token},\"outcome\":\"done\"}}"
                );
            }
            report.push_str("]}");
            let began = Instant::now();
            let answer: ResultsAnswer =
                self.client.json(Method::POST, "/v1/outcomes", report, self.extras()).await?;
            calls.push(micros(began));
            let done = answer.results.iter().filter(|result| result.ok).count() as u64;
            jobs += done;
            let _ = self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(done)));
        }
        Ok((jobs, calls))
    }
}

fn request(job: &str, count: u64) -> String {
    let jobs: Vec<&str> = std::iter::repeat_n(job, count as usize).collect();
    format!("{{\"jobs\":[{}]}}", jobs.join(","))
}

fn micros(began: Instant) -> u32 {
    u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX)
}
