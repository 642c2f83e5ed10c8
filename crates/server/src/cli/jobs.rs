//! `millpond jobs`

use super::{
    Context, Failure,
    print::{self, Style},
    queues::{all, next_page},
};
use crate::client::{Job, JobsPage, segment};
use clap::Args;
use kit::Timestamp;
use serde_json::{Value, json};

/// The jobs of a queue
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond jobs mail --state dead
  millpond jobs mail --tag welcome --limit 5
  millpond jobs mail --all --json | jq -r '.jobs[].id'")]
pub(crate) struct Jobs {
    /// The queue
    queue: String,
    /// Only jobs in this state: waiting, blocked (held by a limit or a pause), delayed, active, retrying,
    /// completed, dead, cancelled, expired, waiting-children, suspended
    #[arg(long)]
    state: Option<model::State>,
    /// Only jobs with this tag
    #[arg(long)]
    tag: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// All of them, page by page
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

impl Jobs {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = format!("/v1/queues/{}/jobs", segment(&self.queue));
        let mut filter = String::new();
        if let Some(state) = self.state {
            filter.push_str(&format!("&state={state}"));
        }
        if let Some(tag) = &self.tag {
            filter.push_str(&format!("&tag={}", segment(tag)));
        }
        if context.json {
            return self.print_json(context, &path, &filter).await;
        }
        let mut cursor = String::new();
        let limit = if self.all { 1_000 } else { self.limit };
        let mut printed = 0;
        loop {
            let page: JobsPage = context.client.get(&format!("{path}?limit={limit}{filter}{cursor}")).await?;
            printed += page.jobs.len();
            if printed == 0 && page.cursor.as_ref().is_none_or(Value::is_null) {
                print::line("No such jobs.");
            }
            print::put(&listing(context.style, &page.jobs, print::now(), printed == page.jobs.len()));
            match next_page(page.cursor) {
                Some(next) if self.all => cursor = next,
                Some(_) => {
                    print::note(&format!("{printed} shown, there are more: --limit or --all"));
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    async fn print_json(&self, context: &Context, path: &str, filter: &str) -> Result<(), Failure> {
        if self.all {
            let path = if filter.is_empty() { path.to_owned() } else { format!("{path}?{}", &filter[1..]) };
            let jobs = all::<Value>(&context.client, &path, "jobs").await?;
            print::line(&json!({"jobs": jobs}).to_string());
        } else {
            let page: Value = context.client.get(&format!("{path}?limit={}{filter}", self.limit)).await?;
            print::line(&page.to_string());
        }
        Ok(())
    }
}

/// A table of jobs.
pub(crate) fn listing(style: Style, jobs: &[Job], now: Timestamp, heading: bool) -> String {
    if jobs.is_empty() {
        return String::new();
    }
    let names = ["id", "state", "priority", "attempt", "age", "about"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    for job in jobs {
        let about = match &job.error {
            Some(error) if job.state != "completed" => format!("{}: {}", error.kind, error.message),
            _ => job.tags.join(" "),
        };
        rows.push(vec![
            print::clean(&job.id).into_owned(),
            style.state(&job.state),
            job.priority.0.to_string(),
            format!("{}/{}", job.attempt, job.attempts),
            job.created_at.map_or_else(String::new, |time| print::relative(time.0, now)),
            style.dim(&print::cut(&print::clean(&about), 60)),
        ]);
    }
    let table = print::table(style, &rows, &[3]);
    if heading { table } else { table.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()) }
}
