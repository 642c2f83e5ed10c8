//! `millpond bulk`: one change of many jobs, done by the server in the background.

use super::{Context, Failure, operations, options::span, print};
use crate::client::{Extras, segment};
use clap::Args;
use hyper::Method;
use kit::{Millis, Timestamp};
use serde_json::{Value, json};

/// What to do to each job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// Forget jobs that have not started
    Purge,
    /// Give dead jobs another life
    Redrive,
    /// Forget final jobs
    Remove,
    /// Call jobs off, running ones too
    Cancel,
    /// Start delayed and retrying jobs now
    Promote,
    /// Add and remove tags
    Retag,
    /// Give jobs another priority
    Reprioritise,
    /// Move jobs to another queue
    Move,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Purge => "purge",
            Action::Redrive => "redrive",
            Action::Remove => "remove",
            Action::Cancel => "cancel",
            Action::Promote => "promote",
            Action::Retag => "retag",
            Action::Reprioritise => "reprioritise",
            Action::Move => "move",
        }
    }
}

/// Change all jobs of a queue that match, in the background
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond bulk mail cancel --tag campaign-7 --dry-run
  millpond bulk mail cancel --tag campaign-7 --reason recalled --wait
  millpond bulk mail redrive --error-kind timeout --rate 50
  millpond bulk mail move --to mail.slow --older-than 1h
  millpond bulk mail retag --add vip --where 'body.customer.id == 42'
  millpond bulk mail reprioritise --priority high --attempts-min 3")]
pub(crate) struct Bulk {
    /// The queue
    queue: String,
    /// What to do to each job
    #[arg(value_enum)]
    action: Action,
    /// retag: add this tag (repeatable)
    #[arg(long, value_name = "TAG")]
    add: Vec<String>,
    /// retag: remove this tag (repeatable)
    #[arg(long, value_name = "TAG")]
    remove: Vec<String>,
    /// reprioritise: the new priority
    #[arg(long)]
    priority: Option<String>,
    /// move: the other queue
    #[arg(long, value_name = "QUEUE")]
    to: Option<String>,
    /// Why, for the history of cancelled jobs
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// At most so many jobs per second
    #[arg(long, default_value_t = 0, value_name = "JOBS", hide_default_value = true)]
    rate: u32,
    /// Say how many jobs it would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Show how far it is until it has ended
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

/// Which jobs are meant: every condition must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which jobs (all that the action is for, if none is given)")]
struct Filter {
    /// In this state (repeatable)
    #[arg(long)]
    state: Vec<String>,
    /// With this tag (repeatable: with all of them)
    #[arg(long)]
    tag: Vec<String>,
    /// With one of these tags (repeatable)
    #[arg(long)]
    any_tag: Vec<String>,
    /// Whose last error is of this kind
    #[arg(long)]
    error_kind: Option<String>,
    /// Whose last error says this
    #[arg(long, value_name = "TEXT")]
    error_contains: Option<String>,
    /// Pushed longer ago than this
    #[arg(long, value_parser = span, value_name = "SPAN")]
    older_than: Option<Millis>,
    /// Pushed within this span
    #[arg(long, value_parser = span, value_name = "SPAN")]
    newer_than: Option<Millis>,
    /// That ended longer ago than this
    #[arg(long, value_parser = span, value_name = "SPAN")]
    ended_before: Option<Millis>,
    /// That ended within this span
    #[arg(long, value_parser = span, value_name = "SPAN")]
    ended_within: Option<Millis>,
    /// With this priority number or a larger one
    #[arg(long, value_name = "PRIORITY")]
    priority_min: Option<String>,
    /// With this priority number or a smaller one
    #[arg(long, value_name = "PRIORITY")]
    priority_max: Option<String>,
    /// That started at least so many attempts
    #[arg(long, value_name = "COUNT")]
    attempts_min: Option<u32>,
    /// That started at most so many attempts
    #[arg(long, value_name = "COUNT")]
    attempts_max: Option<u32>,
    /// Whose id begins with this
    #[arg(long, value_name = "TEXT")]
    id_prefix: Option<String>,
    /// Whose body holds this, such as 'body.customer.id == 42' (repeatable)
    #[arg(long = "where", value_parser = condition, value_name = "CONDITION")]
    conditions: Vec<Value>,
}

impl Filter {
    fn fill(&self, body: &mut Value) {
        let ago = |span: Millis| json!(Timestamp(print::now() - Timestamp(span)).to_string());
        let level =
            |level: &String| level.parse::<u8>().map_or_else(|_| json!(level), |number| json!(number));
        let lists = [("states", &self.state), ("tags_all", &self.tag), ("tags_any", &self.any_tag)];
        let lists =
            lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, json!(list)));
        let conditions = Some(&self.conditions).filter(|conditions| !conditions.is_empty());
        let fields = [
            ("error_kind", self.error_kind.as_ref().map(|text| json!(text))),
            ("error_contains", self.error_contains.as_ref().map(|text| json!(text))),
            ("created_before", self.older_than.map(ago)),
            ("created_after", self.newer_than.map(ago)),
            ("finished_before", self.ended_before.map(ago)),
            ("finished_after", self.ended_within.map(ago)),
            ("priority_min", self.priority_min.as_ref().map(level)),
            ("priority_max", self.priority_max.as_ref().map(level)),
            ("attempts_min", self.attempts_min.map(|count| json!(count))),
            ("attempts_max", self.attempts_max.map(|count| json!(count))),
            ("id_prefix", self.id_prefix.as_ref().map(|text| json!(text))),
            ("body", conditions.map(|conditions| json!(conditions))),
        ];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        for (name, value) in lists.chain(fields) {
            body[name] = value;
        }
    }
}

impl Bulk {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut body = json!({"action": self.action.name(), "rate": self.rate, "dry_run": self.dry_run});
        self.filter.fill(&mut body);
        for (name, tags) in [("add", &self.add), ("remove", &self.remove)] {
            if !tags.is_empty() {
                body[name] = json!(tags);
            }
        }
        for (name, text) in [("priority", &self.priority), ("to", &self.to), ("reason", &self.reason)] {
            if let Some(text) = text {
                let number = text.parse::<u8>().ok().filter(|_| name == "priority");
                body[name] = number.map_or_else(|| json!(text), |number| json!(number));
            }
        }
        let path = format!("/v1/queues/{}/operations", segment(&self.queue));
        let bytes = context.client.call(Method::POST, &path, body.to_string(), Extras::default()).await?;
        let answer: Value = context.client.parse(&bytes)?;
        let id = answer["operation"]["id"].as_u64();
        if let Some(id) = id.filter(|_| self.wait) {
            return operations::watch(context, id).await;
        }
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
        } else if let Some(id) = id {
            print::line(&operations::sentence(&answer["operation"]));
            print::note(&context.style.dim(&format!("how far it is: millpond operations {id}")));
        } else {
            print::put(&preview(&answer["dry_run"], self.action));
        }
        Ok(())
    }
}

fn preview(found: &Value, action: Action) -> String {
    let number = |name: &str| print::count(found[name].as_u64().unwrap_or(0));
    let least = if found["complete"] == json!(true) { "" } else { "at least " };
    let mut text = format!(
        "{} would change {least}{} jobs ({} looked at)\n",
        action.name(),
        number("matched"),
        number("examined")
    );
    for job in found["sample"].as_array().into_iter().flatten() {
        let [id, state] =
            ["id", "state"].map(|name| print::clean(job[name].as_str().unwrap_or_default()).into_owned());
        text.push_str(&format!("  {id}  {state}\n"));
    }
    text
}

/// Reads `body.customer.id == 42` into what the wire takes.
fn condition(text: &str) -> Result<Value, String> {
    let signs = model::Compare::ALL.map(|(_, sign)| sign);
    let mut words = text.splitn(3, ' ').map(str::trim);
    let (Some(path), Some(sign), Some(value)) = (words.next(), words.next(), words.next()) else {
        return Err("expected PATH SIGN VALUE with blanks between, such as body.customer.id == 42".to_owned());
    };
    if !signs.contains(&sign) {
        return Err(format!("{sign} is none of {}", signs.join(" ")));
    }
    let path = match path.strip_prefix("body") {
        Some(rest) if rest.is_empty() || rest.starts_with('.') => {
            rest.replace('~', "~0").replace('/', "~1").replace('.', "/")
        }
        _ if path.starts_with('/') => path.to_owned(),
        _ => return Err("the path begins with `body.`, or is a JSON pointer such as /customer/id".to_owned()),
    };
    let value: Value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    Ok(json!({"path": path, "compare": sign, "value": value}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_read_as_it_is_spoken() {
        let read = |text: &str| condition(text).unwrap().to_string();
        assert_eq!(read("body.customer.id == 42"), r#"{"compare":"==","path":"/customer/id","value":42}"#);
        assert_eq!(read("/a~1b >= 1.5"), r#"{"compare":">=","path":"/a~1b","value":1.5}"#);
        assert_eq!(read("body.name ~ Ann Lee"), r#"{"compare":"~","path":"/name","value":"Ann Lee"}"#);
        assert_eq!(read("body == true"), r#"{"compare":"==","path":"","value":true}"#);
        for bad in ["body.a", "body.a = 1", "customer.id == 1", ""] {
            assert!(condition(bad).is_err(), "{bad}");
        }
    }
}
