//! `millpond explain`: why a job waits, and what starts next.

use super::{Context, Failure, print};
use crate::client::{Time, segment};
use clap::Args;
use serde_json::Value;

/// Why a job is where it is; or what a queue starts next, and what it holds back
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond explain mail
  millpond explain mail --next 20
  millpond explain mail photo-17")]
pub(crate) struct Explain {
    /// The queue
    queue: String,
    /// One job of it
    id: Option<String>,
    /// How many jobs to look ahead
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "id",
        value_parser = clap::value_parser!(u32).range(1..=100))]
    next: u32,
}

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let queue = segment(&self.queue);
        let path = match &self.id {
            Some(id) => format!("/v1/queues/{queue}/jobs/{}/explain", segment(id)),
            None => format!("/v1/queues/{queue}/upcoming?limit={}", self.next),
        };
        let answer: Value = context.client.get(&path).await?;
        if context.json {
            print::line(&answer.to_string());
        } else if self.id.is_some() {
            let state = answer["state"].as_str().unwrap_or_default();
            print::line(&format!("{}: {}", context.style.state(state), reason(&answer)));
        } else {
            print::put(&upcoming(context, &answer));
            print::put(&dead_letters(context, &self.queue, &answer["dead_letters"]));
        }
        Ok(())
    }
}

fn upcoming(context: &Context, answer: &Value) -> String {
    let jobs = answer["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut out = String::new();
    if jobs.is_empty() {
        out.push_str("Nothing waits.\n");
    }
    for (nth, job) in jobs.iter().enumerate() {
        let id = job["id"].as_str().unwrap_or_default();
        let (place, text) = match &job["explain"] {
            Value::Null => (format!("{}.", nth + 1), "starts when a worker asks".to_owned()),
            why => ("–".to_owned(), format!("{}: {}", context.style.warn("held"), reason(why))),
        };
        out.push_str(&format!("{place:>4} {}  {text}\n", context.style.bold(&print::clean(id))));
    }
    let pushes = match answer["producers_waiting"].as_u64() {
        None | Some(0) => return out,
        Some(1) => "1 push waits".to_owned(),
        Some(count) => format!("{} pushes wait", print::count(count)),
    };
    let full = context.style.warn("The queue is full:");
    out.push_str(&format!("{full} {pushes} for room. It comes when jobs end, or with more capacity.\n"));
    out
}

/// What is dead, whether that is an alert, and where the dead go.
fn dead_letters(context: &Context, queue: &str, letters: &Value) -> String {
    let mut out = String::new();
    let dead = letters["dead"].as_u64().unwrap_or(0);
    let since = serde_json::from_value::<Option<Time>>(letters["alert_since"].clone()).ok().flatten();
    let jobs = if dead == 1 { "job is" } else { "jobs are" };
    if let Some(since) = since {
        let alert = context.style.warn("Alert:");
        let raised = print::relative(since.0, print::now());
        out.push_str(&format!("{alert} too many jobs died (raised {raised}). "));
    }
    if dead > 0 {
        out.push_str(&format!("{} {jobs} dead here. ", print::count(dead)));
    }
    if dead > 0 || since.is_some() {
        out.push_str(&format!("`millpond dead {queue} classes` says of what.\n"));
    }
    if let Some(target) = letters["target"].as_str() {
        out.push_str(&format!("Jobs that die go on to queue {}.\n", print::clean(target)));
    }
    out
}

fn reason(why: &Value) -> String {
    let summary = print::clean(why["summary"].as_str().unwrap_or_default()).into_owned();
    match serde_json::from_value::<Option<Time>>(why["expected_at"].clone()) {
        Ok(Some(time)) => format!("{summary} (expected {})", print::relative(time.0, print::now())),
        _ => summary,
    }
}
