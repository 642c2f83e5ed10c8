//! `millpond signal`: tells a job what it waits for.

use super::{Context, Failure, print};
use crate::client::{Extras, segment};
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

/// Tell a job what it waits for
///
/// A signal that the job does not wait for yet is kept until it does.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond signal orders order-1 approved
  millpond signal orders order-1 approved --body '{\"by\":\"ada\"}' --key approval-1")]
pub(crate) struct Signal {
    /// The job's queue
    queue: String,
    /// The job's id
    id: String,
    /// The signal's name, as the job waits for it
    name: String,
    /// What the job gets: JSON, or text that is sent as a JSON string
    #[arg(long)]
    body: Option<String>,
    /// Makes the call safe to repeat: with the same key the job is told once
    #[arg(long)]
    key: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    state: String,
    buffered: bool,
}

impl Signal {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let body = self.body.map_or(Value::Null, |text| {
            serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.clone()))
        });
        let path = format!("/v1/queues/{}/jobs/{}/signal", segment(&self.queue), segment(&self.id));
        let extras = Extras { idempotency_key: self.key.as_deref(), ..Extras::default() };
        let call = json!({"name": self.name, "body": body}).to_string();
        let bytes = context.client.call(Method::POST, &path, call, extras).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let told: Told = context.client.parse(&bytes)?;
        let said = if told.buffered { "kept until the job waits for it" } else { "delivered" };
        let name = print::clean(&self.name);
        print::line(&format!("{name}: {said}; the job is {}", context.style.state(&told.state)));
        Ok(())
    }
}
