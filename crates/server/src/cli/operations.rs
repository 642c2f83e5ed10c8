//! `millpond operations`: how far bulk operations are, and what becomes of them.

use super::{Context, Failure, print};
use crate::client::Extras;
use clap::Args;
use hyper::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::time::Duration;

/// How often a progress bar looks.
const LOOK: Duration = Duration::from_millis(200);

/// What to do with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Verb {
    /// Show how far it is until it has ended
    Wait,
    /// Let it stand still
    Pause,
    /// Let it go on
    Resume,
    /// End it; what it changed stays changed
    Cancel,
}

/// Bulk operations: look at them, pause, resume or cancel them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond operations
  millpond operations 7
  millpond operations 7 wait
  millpond operations 7 pause")]
pub(crate) struct Operations {
    /// This one
    id: Option<u64>,
    /// What to do with it; it is shown if nothing is said
    #[arg(value_enum)]
    verb: Option<Verb>,
}

impl Operations {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (method, path) = match (self.id, self.verb) {
            (None, _) => (Method::GET, "/v1/operations".to_owned()),
            (Some(id), None) => (Method::GET, format!("/v1/operations/{id}")),
            (Some(id), Some(Verb::Wait)) => return watch(context, id).await,
            (Some(id), Some(Verb::Pause)) => (Method::POST, format!("/v1/operations/{id}/pause")),
            (Some(id), Some(Verb::Resume)) => (Method::POST, format!("/v1/operations/{id}/resume")),
            (Some(id), Some(Verb::Cancel)) => (Method::POST, format!("/v1/operations/{id}/cancel")),
        };
        let bytes = context.client.call(method, &path, bytes::Bytes::new(), Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let answer: Value = context.client.parse(&bytes)?;
        match answer.get("operation") {
            Some(operation) => print::line(&sentence(operation)),
            None => {
                let all = answer["operations"].as_array().cloned().unwrap_or_default();
                if all.is_empty() {
                    print::line("No operations.");
                }
                all.iter().for_each(|operation| print::line(&sentence(operation)));
            }
        }
        Ok(())
    }
}

/// One operation in one line.
pub(super) fn sentence(operation: &Value) -> String {
    let text = |name: &str| print::clean(operation[name].as_str().unwrap_or_default()).into_owned();
    let number = |name: &str| print::count(operation[name].as_u64().unwrap_or(0));
    let skipped = match operation["skipped"].as_u64() {
        Some(0) | None => String::new(),
        Some(skipped) => format!(", {} skipped", print::count(skipped)),
    };
    format!(
        "operation {}: {} {} {}: {} changed{skipped}, {} of about {} looked at",
        number("id"),
        text("action"),
        text("queue"),
        text("status"),
        number("changed"),
        number("examined"),
        number("total"),
    )
}

/// Shows how far an operation is until it has ended or stands still.
pub(super) async fn watch(context: &Context, id: u64) -> Result<(), Failure> {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:32} {percent}%  {msg}  {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    loop {
        let answer: Value = context.client.get(&format!("/v1/operations/{id}")).await?;
        let operation = &answer["operation"];
        let [total, examined] = ["total", "examined"].map(|name| operation[name].as_u64().unwrap_or(0));
        bar.set_length(total.max(1));
        bar.set_position(examined.min(total));
        bar.set_message(format!("{} changed", print::count(operation["changed"].as_u64().unwrap_or(0))));
        if operation["status"] != "running" {
            bar.finish_and_clear();
            print::line(&if context.json { answer.to_string() } else { sentence(operation) });
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}
