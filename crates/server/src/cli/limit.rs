//! `millpond limit | group`: what may run at once, how often, and who gets which share.

use super::{Context, Failure, options::span, print};
use crate::client::{Extras, segment};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

/// What to do with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Verb {
    /// Show all limits
    #[default]
    List,
    /// Set one, as a whole
    Set,
    /// Remove one; what it held may start
    Remove,
}

/// Limits by key: how many jobs that name a key run at once, and how many start in a time
///
/// A KEY that ends in `*` stands for all keys that begin so; the most specific one counts. A change counts at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond limit
  millpond limit set api --rate 100/1m --breaker 50%:20:1m:30s
  millpond limit set 'user:*' --concurrency 5 --rate 10/1s --burst 20
  millpond limit set user:vip
  millpond limit remove 'user:*'")]
pub(crate) struct LimitCommand {
    /// list, set or remove
    #[arg(value_enum, default_value_t)]
    verb: Verb,
    /// The key that jobs name, or the beginning of keys followed by `*`
    key: Option<String>,
    /// Slots: attempts that run at once
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Starts in a time, such as 10/1s
    #[arg(long, value_parser = rate, value_name = "N/SPAN")]
    rate: Option<Value>,
    /// Starts at once after a pause
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Opens when so many percent of at least CALLS attempts in WINDOW failed; tries again after OPEN
    #[arg(long, value_parser = breaker, value_name = "FAILED%:CALLS:WINDOW:OPEN")]
    breaker: Option<Value>,
}

fn rate(text: &str) -> Result<Value, String> {
    let bad = || format!("{text:?} is no rate: expected a number and a span, such as 10/1s");
    let (units, per) = text.split_once('/').ok_or_else(bad)?;
    let units: u32 = units.trim().parse().map_err(|_| bad())?;
    Ok(json!({"units": units, "per_ms": span(per.trim()).map_err(|_| bad())?}))
}

fn breaker(text: &str) -> Result<Value, String> {
    let bad = || format!("{text:?} is no breaker: expected FAILED%:CALLS:WINDOW:OPEN, such as 50%:20:1m:30s");
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let [failed, calls, window, open] = parts.as_slice() else { return Err(bad()) };
    Ok(json!({
        "failed_percent": failed.trim_end_matches('%').parse::<u8>().map_err(|_| bad())?,
        "calls": calls.parse::<u32>().map_err(|_| bad())?,
        "window_ms": span(window).map_err(|_| bad())?,
        "open_ms": span(open).map_err(|_| bad())?,
    }))
}

impl LimitCommand {
    pub(crate) async fn run(mut self, context: &Context) -> Result<(), Failure> {
        if let (Some(rate), Some(burst)) = (&mut self.rate, self.burst) {
            rate["burst"] = json!(burst);
        }
        let given = self.concurrency.is_some() || self.rate.is_some() || self.breaker.is_some();
        if given && self.verb != Verb::Set {
            return Err(Failure::Usage("to set a limit: millpond limit set KEY …".to_owned()));
        }
        match (self.verb, self.key.as_deref()) {
            (Verb::List, None) => list(context).await,
            (Verb::List, Some(_)) => Err(Failure::Usage("list shows all limits and takes no key".to_owned())),
            (Verb::Set | Verb::Remove, None) => Err(Failure::Usage("which limit? give its KEY".to_owned())),
            (Verb::Set, Some(key)) => {
                let limit =
                    json!({"concurrency": self.concurrency, "rate": self.rate, "breaker": self.breaker});
                let said = format!("{key}: {}", words(&limit));
                change(context, Method::PUT, &path(key), limit.to_string(), &said).await
            }
            (Verb::Remove, Some(key)) => {
                let said = format!("{key}: no limit of its own any more");
                change(context, Method::DELETE, &path(key), String::new(), &said).await
            }
        }
    }
}

fn path(key: &str) -> String {
    format!("/v1/limits/{}", segment(key))
}

async fn change(
    context: &Context,
    method: Method,
    path: &str,
    body: String,
    said: &str,
) -> Result<(), Failure> {
    let bytes = context.client.call(method, path, body, Extras::default()).await?;
    let text = String::from_utf8_lossy(&bytes);
    print::line(&if context.json { text.trim_end().into() } else { print::clean(said) });
    Ok(())
}

async fn list(context: &Context) -> Result<(), Failure> {
    let answer: Value = context.client.get("/v1/limits").await?;
    if context.json {
        print::line(&answer.to_string());
        return Ok(());
    }
    let limits = answer["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    if limits.is_empty() {
        print::line("There are no limits. Set one: millpond limit set api --concurrency 5");
    }
    for limit in limits {
        let key = limit["key"].as_str().unwrap_or_default();
        print::line(&format!("{}  {}", context.style.bold(&print::clean(key)), print::clean(&words(limit))));
    }
    Ok(())
}

/// A limit as people read it.
fn words(limit: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(slots) = limit["concurrency"].as_u64().filter(|slots| *slots > 0) {
        parts.push(format!("{slots} at once"));
    }
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let time = |value: &Value| kit::time::format_span(number(value));
    if limit["rate"].is_object() {
        let rate = &limit["rate"];
        parts.push(format!("{} in {}", number(&rate["units"]), time(&rate["per_ms"])));
        if number(&rate["burst"]) > 0 {
            parts.push(format!("bursts of {}", number(&rate["burst"])));
        }
    }
    if limit["breaker"].is_object() {
        let breaker = &limit["breaker"];
        let mut when = Vec::new();
        if number(&breaker["failed_percent"]) > 0 {
            when.push(format!("{}% failed", number(&breaker["failed_percent"])));
        }
        if number(&breaker["slow_percent"]) > 0 {
            let slow = time(&breaker["slow_ms"]);
            when.push(format!("{}% took over {slow}", number(&breaker["slow_percent"])));
        }
        let (window, open) = (time(&breaker["window_ms"]), time(&breaker["open_ms"]));
        let when = when.join(" or ");
        parts.push(format!("stops for {open} when {when} of {}+ in {window}", number(&breaker["calls"])));
    }
    if parts.is_empty() { "not limited".to_owned() } else { parts.join(", ") }
}

/// One group of a queue: its share, or hold its jobs and let them go
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond group mail tenant-7 --weight 3
  millpond group mail tenant-7 --pause
  millpond group mail tenant-7 --resume")]
pub(crate) struct GroupCommand {
    /// The queue
    queue: String,
    /// The group
    group: String,
    /// Its share: twice the weight, twice the jobs
    #[arg(long, value_name = "N", required_unless_present_any = ["pause", "resume"])]
    weight: Option<u32>,
    /// Hold its jobs; running ones go on
    #[arg(long)]
    pause: bool,
    /// Let its jobs go
    #[arg(long, conflicts_with = "pause")]
    resume: bool,
}

impl GroupCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut body = json!({});
        let mut said = Vec::new();
        if let Some(weight) = self.weight {
            body["weight"] = json!(weight);
            said.push(format!("weight {weight}"));
        }
        if self.pause || self.resume {
            body["paused"] = json!(self.pause);
            said.push(if self.pause { "paused; running jobs go on" } else { "resumed" }.to_owned());
        }
        let path = format!("/v1/queues/{}/groups/{}", segment(&self.queue), segment(&self.group));
        let said = format!("group {} of {}: {}", self.group, self.queue, said.join(", "));
        change(context, Method::PATCH, &path, body.to_string(), &said).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_breakers_have_one_short_spelling_each() {
        assert_eq!(rate("10/1s"), Ok(json!({"units": 10, "per_ms": 1_000})));
        let expected = json!({"failed_percent": 50, "calls": 20, "window_ms": 60_000, "open_ms": 30_000});
        assert_eq!(breaker("50%:20:1m:30s"), Ok(expected));
        for wrong in ["", "10", "x/1s", "10/soon"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "50%", "50%:20:1m", "half:20:1m:30s", "50%:20:1m:30s:2"] {
            assert!(breaker(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_limit_is_told_in_words() {
        let limit = json!({"concurrency": 5, "rate": {"units": 10, "per_ms": 1_000, "burst": 20}});
        assert_eq!(words(&limit), "5 at once, 10 in 1s, bursts of 20");
        assert_eq!(words(&json!({"concurrency": null})), "not limited");
    }
}
