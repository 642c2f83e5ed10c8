//! `millpond push`

use super::{
    Context, Failure,
    options::{self, JobOptions},
    print,
};
use crate::client::{Extras, PushAnswer, segment};
use bytes::Bytes;
use clap::Args;
use hyper::Method;
use kit::{Durability, Millis};
use serde_json::{json, value::RawValue};
use server::http::PUSH_WAIT_MS;
use std::{io::Read, time::Duration};

const CONFLICT_RULES: [&str; 6] =
    ["return", "reject", "replace", "debounce", "throttle", "keep_last_if_active"];

/// Hand in a job
///
/// The body is JSON. Without BODY it is null.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond push mail '{\"to\":\"ann@example.org\"}' --delay 10m
  millpond push thumbnails @photo.json --id photo-17 --priority high
  echo '{\"n\":1}' | millpond push numbers -
  millpond push greet --text 'hello' --unique greeting
  millpond push reindex '{\"page\":7}' --unique page-7 --on-conflict debounce --delay 5s --max-wait 1m")]
pub(crate) struct Push {
    /// The queue; it is made by its first job
    queue: String,
    /// JSON, `-` for standard input, or `@FILE`
    body: Option<String>,
    /// Take the body as plain text and send it as a JSON string
    #[arg(long)]
    text: bool,
    /// The job's id; if the queue has it already, nothing is added
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    options: JobOptions,
    /// At most one live job with this key
    #[arg(long, value_name = "KEY", help_heading = "Job")]
    unique: Option<String>,
    /// The key is free again after this span
    #[arg(long, value_parser = options::span, value_name = "SPAN", requires = "unique", help_heading = "Job")]
    unique_ttl: Option<Millis>,
    /// What happens if the key is held: return, reject, replace, debounce, throttle, keep_last_if_active
    #[arg(long, value_name = "WHAT", requires = "unique", value_parser = CONFLICT_RULES, help_heading = "Job")]
    on_conflict: Option<String>,
    /// With debounce: counted from the first push, the job waits no longer than this
    #[arg(long, value_parser = options::span, value_name = "SPAN", requires = "on_conflict", help_heading = "Job")]
    max_wait: Option<Millis>,
    /// How safe before the answer: memory, os, disk
    #[arg(long, value_parser = options::durability, value_name = "LEVEL")]
    durability: Option<Durability>,
    /// Repeating the call with this key within 24 h changes nothing and gives the first answer
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long to wait for room if the queue is full and lets its producers wait; 30s if absent
    #[arg(long, value_parser = options::span, value_name = "SPAN")]
    wait: Option<Millis>,
}

impl Push {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let text = read_body(self.body.as_deref())?;
        let mut job = self.options.to_json();
        let mut set = |name: &str, value| drop(job.insert(name.to_owned(), value));
        if let Some(id) = &self.id {
            set("id", json!(id));
        }
        if let Some(key) = &self.unique {
            let mut unique = json!({"key": key});
            if let Some(ttl) = self.unique_ttl {
                unique["ttl_ms"] = json!(ttl);
            }
            if let Some(on_conflict) = &self.on_conflict {
                unique["on_conflict"] = json!(on_conflict);
            }
            if let Some(max_wait) = self.max_wait {
                unique["max_wait_ms"] = json!(max_wait);
            }
            set("unique", unique);
        }
        let body = if self.text { json!(text).to_string() } else { checked_json(text)? };
        let call = with_body(&job, &body);
        let extras = Extras {
            idempotency_key: self.idempotency_key.as_deref(),
            durability: self.durability.map(Durability::name),
            patience: Duration::from_millis(self.wait.unwrap_or(PUSH_WAIT_MS)),
        };
        let wait = self.wait.map(|wait| format!("?wait_ms={wait}")).unwrap_or_default();
        let path = format!("/v1/queues/{}/jobs{wait}", segment(&self.queue));
        let bytes = context.client.call(Method::POST, &path, call, extras).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let answer: PushAnswer = context.client.parse(&bytes)?;
        for job in &answer.jobs {
            let style = context.style;
            let was = match (job.deduplicated, job.forgotten) {
                (false, _) => style.state(&job.state),
                (true, false) => style.warn("was there already"),
                (true, true) => style.warn("was there already and is no longer kept"),
            };
            let kept = style.dim(&format!("kept: {}", print::clean(&answer.durability)));
            print::line(&format!("{}  {was}  {kept}", print::clean(&job.id)));
        }
        Ok(())
    }
}

/// The job's options and its body, which is not parsed again: its numbers stay as they were typed.
pub(super) fn with_body(options: &serde_json::Map<String, serde_json::Value>, body: &str) -> Bytes {
    let options = serde_json::Value::Object(options.clone()).to_string();
    let rest = options.trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    format!("{{\"body\":{body}{comma}{rest}").into()
}

pub(super) fn read_body(argument: Option<&str>) -> Result<String, Failure> {
    let limit = model::limits::BODY_BYTES_MAX as u64 * 64;
    let mut text = String::new();
    match argument {
        None => text.push_str("null"),
        Some("-") => {
            let read = std::io::stdin().lock().take(limit).read_to_string(&mut text);
            read.map_err(|error| Failure::Usage(format!("cannot read standard input: {error}")))?;
        }
        Some(name) if name.starts_with('@') => {
            let path = std::path::Path::new(&name[1..]);
            let file = std::fs::File::open(path).map_err(|error| Failure::file(path, "open", &error))?;
            let read = file.take(limit).read_to_string(&mut text);
            read.map_err(|error| Failure::file(path, "read", &error))?;
        }
        Some(json) => text.push_str(json),
    }
    Ok(text)
}

pub(super) fn checked_json(text: String) -> Result<String, Failure> {
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(value) => Ok(value.get().to_owned()),
        Err(error) => Err(Failure::Usage(format!(
            "the body is not JSON ({error}); quote it for the shell, or add --text to send it as a string"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_travels_as_it_was_typed() {
        let mut options = serde_json::Map::new();
        assert_eq!(with_body(&options, "1.50e400"), "{\"body\":1.50e400}");
        options.insert("id".to_owned(), json!("a"));
        assert_eq!(with_body(&options, "null"), "{\"body\":null,\"id\":\"a\"}");
        assert_eq!(checked_json(" {\"a\": 1.0}\n".to_owned()).ok().as_deref(), Some("{\"a\": 1.0}"));
        assert!(checked_json("hello".to_owned()).is_err());
    }
}
