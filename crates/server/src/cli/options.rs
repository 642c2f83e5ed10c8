//! The options of a job, the same flags for `push` and `import`.

use clap::Args;
use kit::{Durability, Millis, Timestamp};
use model::Priority;
use serde_json::{Map, Value, json};

/// Reads `30s`, `1h30m`; for clap.
pub(crate) fn span(text: &str) -> Result<Millis, String> {
    kit::time::parse_span(text).map_err(|error| error.to_string())
}

/// Reads a level; for clap.
pub(crate) fn durability(text: &str) -> Result<Durability, String> {
    text.parse::<Durability>().map_err(|error| error.to_string())
}

fn priority(text: &str) -> Result<Priority, String> {
    text.parse().map_err(|error: model::BadName| error.to_string())
}

pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|error: kit::time::BadTime| error.to_string())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// Reads `api` or `api=2`.
fn used(text: &str) -> Result<(String, u32), String> {
    let (key, cost) = text.rsplit_once('=').unwrap_or((text, "1"));
    let cost = cost.parse().map_err(|_| "expected KEY or KEY=COST, such as api=2".to_owned())?;
    Ok((key.to_owned(), cost))
}

/// Reads `exponential[:BASE[:CAP]]`, `fixed:SPAN`, `sidekiq` or `SPAN,SPAN,…` into what the wire takes.
fn backoff(text: &str) -> Result<Value, String> {
    let bad =
        |_| "expected exponential[:BASE[:CAP]], fixed:SPAN, sidekiq, or a list such as 1s,10s,1m".to_owned();
    let (kind, rest) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
    match (kind, rest) {
        ("sidekiq", None) => Ok(json!({"type": "sidekiq"})),
        ("exponential", None) => Ok(json!({"type": "exponential"})),
        ("exponential", Some(rest)) => {
            let (base, cap) = rest.split_once(':').map_or((rest, None), |(base, cap)| (base, Some(cap)));
            let mut value = json!({"type": "exponential", "base_ms": span(base).map_err(bad)?});
            if let Some(cap) = cap {
                value["cap_ms"] = json!(span(cap).map_err(bad)?);
            }
            Ok(value)
        }
        ("fixed", Some(rest)) => Ok(json!({"type": "fixed", "delay_ms": span(rest).map_err(bad)?})),
        _ => {
            let delays: Result<Vec<_>, _> =
                text.split(',').map(|part| span(part.trim()).map_err(bad)).collect();
            Ok(json!({"type": "list", "delays_ms": delays?}))
        }
    }
}

/// How a job is to be treated. What is not given is decided by the queue.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Job")]
pub(crate) struct JobOptions {
    /// 0 to 255, lower is more urgent; or critical, high, normal, low, background
    #[arg(long, short, value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// Not before this span has passed, such as 30s or 2h
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub(crate) delay: Option<Millis>,
    /// Not before this time: RFC 3339 or Unix milliseconds
    #[arg(long, value_parser = moment, value_name = "TIME", conflicts_with = "delay")]
    pub(crate) run_at: Option<Timestamp>,
    /// How many attempts it has
    #[arg(long, value_name = "N")]
    pub(crate) attempts: Option<u32>,
    /// Wait between attempts: exponential[:BASE[:CAP]], fixed:5s, sidekiq, or a list 1s,10s,1m
    #[arg(long, value_parser = backoff, value_name = "RULE")]
    pub(crate) backoff: Option<Value>,
    /// How long one attempt may take
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub(crate) timeout: Option<Millis>,
    /// Drop it if it has not started within this span
    #[arg(long, value_parser = span, value_name = "SPAN")]
    pub(crate) expires: Option<Millis>,
    /// Groups of a queue take turns: the group that it belongs to
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// Jobs of one key start one after the other, each when the one before has ended
    #[arg(long, value_name = "KEY")]
    pub(crate) ordering_key: Option<String>,
    /// A limit that it counts against, and how much; may be repeated
    #[arg(long, value_parser = used, value_name = "KEY[=COST]")]
    pub(crate) limit: Vec<(String, u32)>,
    /// In a queue ordered by deadline, earlier ones start first: RFC 3339 or Unix milliseconds
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) deadline: Option<Timestamp>,
    /// A searchable word; may be repeated
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// A header for the handler; may be repeated
    #[arg(long, value_parser = pair, value_name = "KEY=VALUE")]
    pub(crate) meta: Vec<(String, String)>,
}

impl JobOptions {
    /// The options in the names of the wire.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(name.to_owned(), value);
            }
        };
        set("priority", self.priority.map(|priority| json!(priority.0)));
        set("delay_ms", self.delay.map(|span| json!(span)));
        set("run_at", self.run_at.map(|time| json!(time.to_string())));
        set("attempts", self.attempts.map(|attempts| json!(attempts)));
        set("backoff", self.backoff.clone());
        set("timeout_ms", self.timeout.map(|span| json!(span)));
        set("expires_ms", self.expires.map(|span| json!(span)));
        set("group", self.group.as_ref().map(|group| json!(group)));
        set("ordering_key", self.ordering_key.as_ref().map(|key| json!(key)));
        let limits: Vec<_> = self.limit.iter().map(|(key, cost)| json!({"key": key, "cost": cost})).collect();
        set("limits", (!limits.is_empty()).then(|| json!(limits)));
        set("deadline", self.deadline.map(|time| json!(time.to_string())));
        set("tags", (!self.tag.is_empty()).then(|| json!(self.tag)));
        let meta: Map<String, Value> =
            self.meta.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        set("meta", (!meta.is_empty()).then_some(Value::Object(meta)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_rules_have_one_short_spelling_each() {
        assert_eq!(backoff("fixed:5s"), Ok(json!({"type": "fixed", "delay_ms": 5_000})));
        assert_eq!(
            backoff("exponential:1s:1m"),
            Ok(json!({"type": "exponential", "base_ms": 1_000, "cap_ms": 60_000}))
        );
        assert_eq!(backoff("1s, 10s"), Ok(json!({"type": "list", "delays_ms": [1_000, 10_000]})));
        for wrong in ["", "soon", "fixed", "fixed:soon", "sidekiq:3"] {
            assert!(backoff(wrong).is_err(), "{wrong}");
        }
    }
}
