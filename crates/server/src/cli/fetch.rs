//! `millpond fetch`: take jobs by hand.

use super::{Context, Failure, options::span, print};
use crate::client::Extras;
use clap::Args;
use hyper::Method;
use kit::Millis;
use serde_json::json;
use std::time::Duration;

/// Take jobs and print them, for scripts and for looking
///
/// The jobs are leased: a job that is not reported within the lease goes to somebody else, and counts as a lost worker.
/// Report with POST /v1/outcomes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond fetch mail --json
  millpond fetch mail news --max 10 --wait 20s --lease 5m")]
pub(crate) struct Fetch {
    /// The queues, in order of preference
    #[arg(required = true)]
    queues: Vec<String>,
    /// At most this many jobs
    #[arg(long, default_value_t = 1)]
    max: u32,
    /// How long to wait for the first
    #[arg(long, value_parser = span, default_value = "0", value_name = "SPAN")]
    wait: Millis,
    /// How long the jobs are ours [default: the queue's]
    #[arg(long, value_parser = span, value_name = "SPAN")]
    lease: Option<Millis>,
    /// The worker's name, for the history
    #[arg(long, default_value = "millpond-fetch")]
    worker: String,
}

impl Fetch {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut call = json!({
            "worker": self.worker, "queues": self.queues, "max": self.max, "wait_ms": self.wait,
        });
        if let Some(lease) = self.lease {
            call["lease_ms"] = json!(lease);
        }
        let extras = Extras { patience: Duration::from_millis(self.wait), ..Extras::default() };
        let bytes = context.client.call(Method::POST, "/v1/fetch", call.to_string(), extras).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let answer: crate::client::FetchAnswer = context.client.parse(&bytes)?;
        if answer.jobs.is_empty() {
            print::note("nothing to do");
        }
        let now = print::now();
        for job in &answer.jobs {
            let body = job.body.as_ref().map_or("null", |body| body.get());
            let until = print::relative(job.lease_until.0, now);
            let about = format!(
                "{} · attempt {} of {} · lease {} ends {until}",
                print::clean(&job.queue),
                job.attempt,
                job.attempts,
                job.lease_token
            );
            let style = context.style;
            print::line(&format!(
                "{}  {}\n  {}",
                style.bold(&print::clean(&job.id)),
                style.dim(&about),
                print::clean(body)
            ));
        }
        Ok(())
    }
}
