//! `millpond queues | pause | resume | purge`

use super::{
    Context, Failure,
    options::span,
    print::{self, Style},
};
use crate::client::{Client, ClientError, Extras, Queue, QueuesPage, segment};
use clap::Args;
use hyper::Method;
use kit::{Millis, Timestamp};
use model::State;
use serde_json::{Value, json};

/// All queues and how many jobs of each are where
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  millpond queues")]
pub(crate) struct Queues {}

impl Queues {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if context.json {
            let queues = all::<Value>(&context.client, "/v1/queues", "queues").await?;
            print::line(&json!({"queues": queues}).to_string());
            return Ok(());
        }
        let queues = fetch_all(&context.client).await?;
        if queues.is_empty() {
            print::line(
                "There are no queues yet. Make one with its first job: millpond push mail '{\"to\":\"ann\"}'",
            );
        } else {
            print::put(&overview(context.style, &queues, print::now(), None));
        }
        Ok(())
    }
}

/// Every queue of the server.
pub(crate) async fn fetch_all(client: &Client) -> Result<Vec<Queue>, ClientError> {
    let mut queues = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: QueuesPage = client.get(&format!("/v1/queues?limit=1000{cursor}")).await?;
        queues.extend(page.queues);
        match next_page(page.cursor) {
            Some(next) => cursor = next,
            None => return Ok(queues),
        }
    }
}

/// All items of a listing, as the server writes them.
pub(crate) async fn all<T: serde::de::DeserializeOwned>(
    client: &Client,
    path: &str,
    field: &str,
) -> Result<Vec<T>, ClientError> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let sign = if path.contains('?') { '&' } else { '?' };
        let mut page: Value = client.get(&format!("{path}{sign}limit=1000{cursor}")).await?;
        let Value::Array(part) = page[field].take() else { return Ok(items) };
        for item in part {
            items.push(client.parse(item.to_string().as_bytes())?);
        }
        match next_page(page.get_mut("cursor").map(Value::take)) {
            Some(next) => cursor = next,
            None => return Ok(items),
        }
    }
}

/// The parameter that asks for the page after this one.
pub(crate) fn next_page(cursor: Option<Value>) -> Option<String> {
    match cursor {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(format!("&cursor={}", segment(&text))),
        Some(other) => Some(format!("&cursor={}", segment(&other.to_string()))),
    }
}

/// Jobs pushed and completed a second.
pub(crate) type Rates<'a> = dyn Fn(&Queue) -> (f64, f64) + 'a;

/// A table of queues; with `per_second`, also how fast each moves.
pub(crate) fn overview(
    style: Style,
    queues: &[Queue],
    now: Timestamp,
    per_second: Option<&Rates<'_>>,
) -> String {
    let mut heading = vec!["queue"];
    let columns = [
        ("waiting", State::Waiting),
        ("delayed", State::Delayed),
        ("active", State::Active),
        ("retrying", State::Retrying),
        ("completed", State::Completed),
        ("dead", State::Dead),
    ];
    heading.extend(columns.iter().map(|(name, _)| *name));
    heading.push("oldest");
    if per_second.is_some() {
        heading.extend(["in/s", "done/s"]);
    }
    heading.push("");
    let right: Vec<usize> = (1..heading.len() - 1).collect();
    let mut rows = vec![heading.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    for queue in queues {
        let mut row = vec![print::cut(&print::clean(&queue.name), 40)];
        for (_, state) in columns {
            // Where a queue is paused, its waiting jobs show as blocked.
            let blocked = if state == State::Waiting { queue.count(State::Blocked) } else { 0 };
            let number = queue.count(state) + blocked;
            let text = print::count(number);
            row.push(match (number, state) {
                (0, _) => style.dim("0"),
                (_, State::Dead) => style.bad(&text),
                (_, State::Retrying) => style.warn(&text),
                _ => text,
            });
        }
        row.push(
            queue
                .oldest_waiting_at
                .map_or_else(String::new, |time| kit::time::format_span(coarse(now - time.0))),
        );
        if let Some(per_second) = per_second {
            let (pushed, done) = per_second(queue);
            row.extend([pushed, done].map(|rate| print::count(rate.round() as u64)));
        }
        row.push(if queue.paused { style.warn("paused") } else { String::new() });
        rows.push(row);
    }
    print::table(style, &rows, &right)
}

fn coarse(millis: Millis) -> Millis {
    if millis < 1_000 { millis } else { millis / 1_000 * 1_000 }
}

/// Stop handing out a queue's jobs; running ones go on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  millpond pause mail")]
pub(crate) struct Pause {
    /// The queue
    queue: String,
}

impl Pause {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        control(context, &self.queue, "pause", &Value::Null, "paused; its jobs wait until `millpond resume`")
            .await
    }
}

/// Hand out a queue's jobs again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  millpond resume mail")]
pub(crate) struct Resume {
    /// The queue
    queue: String,
}

impl Resume {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        control(context, &self.queue, "resume", &Value::Null, "resumed").await
    }
}

/// Forget the jobs of a queue that have not started
///
/// Waiting, delayed and retrying jobs no longer start from the answer on; a large queue is cleared in the background.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond purge mail --yes
  millpond purge mail --state completed --yes
  millpond purge mail --tag test --older-than 7d --yes")]
pub(crate) struct Purge {
    /// The queue
    queue: String,
    /// Only jobs in this state
    #[arg(long)]
    state: Option<String>,
    /// Only jobs with this tag
    #[arg(long)]
    tag: Option<String>,
    /// Only jobs pushed longer ago than this
    #[arg(long, value_parser = span, value_name = "SPAN")]
    older_than: Option<Millis>,
    /// Yes, forget them
    #[arg(long)]
    yes: bool,
}

impl Purge {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if !self.yes {
            let queue: Queue = context.client.get(&format!("/v1/queues/{}", segment(&self.queue))).await?;
            let live = print::count(queue.live() - queue.count(State::Active));
            return Err(Failure::Usage(format!(
                "this forgets jobs of {} for good ({live} have not started); add --yes if that is meant",
                self.queue
            )));
        }
        let mut filter = json!({});
        for (name, value) in [("state", &self.state), ("tag", &self.tag)] {
            if let Some(value) = value {
                filter[name] = json!(value);
            }
        }
        if let Some(span) = self.older_than {
            filter["created_before"] = json!(Timestamp(print::now() - Timestamp(span)).to_string());
        }
        control(context, &self.queue, "purge", &filter, "purged").await
    }
}

/// A call that changes a queue.
async fn control(
    context: &Context,
    queue: &str,
    verb: &str,
    body: &Value,
    said: &str,
) -> Result<(), Failure> {
    let path = format!("/v1/queues/{}/{verb}", segment(queue));
    let body = if body.is_null() { "{}".to_owned() } else { body.to_string() };
    let bytes = context.client.call(Method::POST, &path, body, Extras::default()).await?;
    if context.json {
        print::line(String::from_utf8_lossy(&bytes).trim_end());
        return Ok(());
    }
    print::line(&format!("{}: {said}{}", print::clean(queue), changed(&context.client, &bytes)));
    Ok(())
}

/// How many jobs a bulk operation has reached when it was answered.
pub(crate) fn changed(client: &Client, bytes: &[u8]) -> String {
    let Ok(answer) = client.parse::<Value>(bytes) else { return String::new() };
    let operation = answer.get("operation").unwrap_or(&answer);
    let Some(changed) = operation.get("changed").and_then(Value::as_u64) else { return String::new() };
    match operation.get("finished").and_then(Value::as_bool) {
        Some(true) => format!(" ({} jobs)", print::count(changed)),
        _ => format!(" ({} jobs so far; the rest follows in the background)", print::count(changed)),
    }
}
