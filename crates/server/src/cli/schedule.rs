//! `millpond schedules`, `millpond schedule …`

use super::{
    Context, Failure,
    options::{JobOptions, moment, span},
    print::{self, Style},
    push::{checked_json, read_body, with_body},
    queues::all,
};
use crate::client::{Extras, Schedule, Scheduled, Slots, segment};
use clap::{Args, Subcommand};
use hyper::Method;
use kit::{Millis, Timestamp};
use serde_json::{Map, Value, json};

/// All schedules: when each fires next, and why not
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  millpond schedules")]
pub(crate) struct Schedules {}

impl Schedules {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        if context.json {
            let schedules = all::<Value>(&context.client, "/v1/schedules", "schedules").await?;
            print::line(&json!({"schedules": schedules}).to_string());
            return Ok(());
        }
        let schedules = all::<Schedule>(&context.client, "/v1/schedules", "schedules").await?;
        if schedules.is_empty() {
            print::line(
                "There are no schedules yet. Make one: millpond schedule put nightly --cron '0 3 * * *' --queue reports",
            );
        } else {
            print::put(&overview(context.style, &schedules));
        }
        Ok(())
    }
}

fn overview(style: Style, schedules: &[Schedule]) -> String {
    let heading = ["schedule", "when", "queue", "next", "fired", "missed", ""];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for schedule in schedules {
        let next = schedule.next_at.map_or_else(String::new, |time| time.0.to_string());
        rows.push(vec![
            print::cut(&print::clean(&schedule.id), 40),
            print::cut(&print::clean(&schedule.when()), 40),
            print::cut(&print::clean(&schedule.job.queue), 30),
            next.replace(".000Z", "Z"),
            print::count(schedule.fired),
            print::count(schedule.missed + schedule.skipped + schedule.refused),
            if schedule.state == "active" {
                String::new()
            } else {
                style.warn(&print::clean(&schedule.state))
            },
        ]);
    }
    print::table(style, &rows, &[4, 5])
}

/// One schedule: make it, look at it, pause it, run it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond schedule put nightly --cron '0 3 * * *' --zone Europe/Berlin --queue reports --body '{}'
  millpond schedule put pulse --every 30s --queue checks --overlap skip
  millpond schedule show nightly
  millpond schedule next nightly -n 10
  millpond schedule preview --cron '0 9 * * mon-fri' --zone America/New_York")]
pub(crate) struct ScheduleCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a schedule, or make the one of this id like this
    Put(Box<Put>),
    /// What it is, when it fires next, and what became of the last slots
    Show(Named),
    /// Let slots fire nothing until it is resumed
    Pause(Named),
    /// Go on with the next slot
    Resume(Named),
    /// Push its job now, beside the slots
    Run(Named),
    /// The slots to come
    Next(Next),
    /// Forget it; the jobs that it made stay
    Remove(Named),
    /// The slots that a schedule would have, without making it
    Preview(Preview),
}

#[derive(Debug, Args)]
struct Named {
    /// The schedule
    id: String,
}

#[derive(Debug, Args)]
struct Next {
    /// The schedule
    id: String,
    /// How many slots
    #[arg(short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    n: u32,
}

/// When a schedule fires.
#[derive(Debug, Args)]
#[group(id = "times", required = true, multiple = true)]
struct When {
    /// Minute, hour, day of month, month, weekday; six fields have seconds first; or @daily and the like
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "every")]
    cron: Option<String>,
    /// The IANA time zone whose clocks count [default: UTC]
    #[arg(long, requires = "cron")]
    zone: Option<String>,
    /// An interval such as 30s or 1h, counted from the start, or else from 1970
    #[arg(long, value_parser = span, value_name = "SPAN")]
    every: Option<Millis>,
    /// No slot before: RFC 3339 or Unix milliseconds
    #[arg(long, value_parser = moment, value_name = "TIME")]
    start: Option<Timestamp>,
    /// No slot after
    #[arg(long, value_parser = moment, value_name = "TIME")]
    end: Option<Timestamp>,
}

impl When {
    fn to_json(&self) -> Map<String, Value> {
        let mut out = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                out.insert(name.to_owned(), value);
            }
        };
        set("cron", self.cron.as_ref().map(|cron| json!(cron)));
        set("zone", self.zone.as_ref().map(|zone| json!(zone)));
        set("every_ms", self.every.map(|span| json!(span)));
        set("start", self.start.map(|time| json!(time.to_string())));
        set("end", self.end.map(|time| json!(time.to_string())));
        out
    }
}

#[derive(Debug, Args)]
struct Put {
    /// The schedule: letters, digits and . _ -
    id: String,
    #[command(flatten)]
    when: When,
    /// The queue of its jobs
    #[arg(long)]
    queue: String,
    /// The body of its jobs: JSON, `-` for standard input, or `@FILE` [default: null]
    #[arg(long)]
    body: Option<String>,
    /// It ends after so many jobs
    #[arg(long, value_name = "N")]
    most: Option<u64>,
    /// Each slot fires up to so much later, by chance
    #[arg(long, value_parser = span, value_name = "SPAN")]
    jitter: Option<Millis>,
    /// While a job of an earlier slot has not ended: allow, skip, queue, cancel_previous
    #[arg(long, value_name = "WHAT", value_parser = ["allow", "skip", "queue", "cancel_previous"])]
    overlap: Option<String>,
    /// Slots of an outage: skip, one, or all:N
    #[arg(long, value_name = "WHAT", value_parser = catch_up)]
    catch_up: Option<Value>,
    #[command(flatten)]
    options: JobOptions,
}

fn catch_up(text: &str) -> Result<Value, String> {
    match text.split_once(':') {
        None if matches!(text, "skip" | "one") => Ok(json!(text)),
        Some(("all", most)) if most.parse::<u32>().is_ok() => {
            Ok(json!({"all": most.parse::<u32>().unwrap_or(0)}))
        }
        _ => Err("expected skip, one, or all:N with N from 1 to 1000".to_owned()),
    }
}

#[derive(Debug, Args)]
struct Preview {
    #[command(flatten)]
    when: When,
    /// How many slots
    #[arg(short, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    n: u32,
}

impl ScheduleCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.verb {
            Verb::Put(put) => put.run(context).await,
            Verb::Show(named) => named.show(context).await,
            Verb::Pause(named) => named.change(context, "pause").await,
            Verb::Resume(named) => named.change(context, "resume").await,
            Verb::Run(named) => named.run(context).await,
            Verb::Next(next) => {
                let path = format!("{}/next?n={}", at(&next.id), next.n);
                slots(context, Method::GET, &path, String::new()).await
            }
            Verb::Remove(named) => named.remove(context).await,
            Verb::Preview(preview) => {
                let mut body = preview.when.to_json();
                body.insert("n".to_owned(), json!(preview.n));
                slots(context, Method::POST, "/v1/schedules/preview", Value::Object(body).to_string()).await
            }
        }
    }
}

fn at(id: &str) -> String {
    format!("/v1/schedules/{}", segment(id))
}

async fn slots(context: &Context, method: Method, path: &str, body: String) -> Result<(), Failure> {
    let bytes = context.client.call(method, path, body, Extras::default()).await?;
    if context.json {
        print::line(String::from_utf8_lossy(&bytes).trim_end());
        return Ok(());
    }
    let answer: Slots = context.client.parse(&bytes)?;
    if answer.slots.is_empty() {
        print::line("No slot is left.");
    }
    for slot in answer.slots {
        print::line(&slot.0.to_string().replace(".000Z", "Z"));
    }
    Ok(())
}

impl Put {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut job = self.options.to_json();
        job.insert("queue".to_owned(), json!(self.queue));
        let body = checked_json(read_body(self.body.as_deref())?)?;
        let job = with_body(&job, &body);
        let mut spec = self.when.to_json();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                spec.insert(name.to_owned(), value);
            }
        };
        set("limit", self.most.map(|most| json!(most)));
        set("jitter_ms", self.jitter.map(|span| json!(span)));
        set("overlap", self.overlap.map(|overlap| json!(overlap)));
        set("catch_up", self.catch_up);
        let rest = Value::Object(spec).to_string();
        let call = format!("{{\"job\":{},{}", String::from_utf8_lossy(&job), rest.trim_start_matches('{'));
        said(context, Method::PUT, &at(&self.id), call).await
    }
}

/// A call that answers with where the schedule stands.
async fn said(context: &Context, method: Method, path: &str, body: String) -> Result<(), Failure> {
    let bytes = context.client.call(method, path, body, Extras::default()).await?;
    if context.json {
        print::line(String::from_utf8_lossy(&bytes).trim_end());
        return Ok(());
    }
    let answer: Scheduled = context.client.parse(&bytes)?;
    let next = match answer.next_slot {
        Some(slot) => format!("next slot {}", slot.0.to_string().replace(".000Z", "Z")),
        None => print::clean(&answer.state).into_owned(),
    };
    print::line(&format!(
        "{}  {}  {next}",
        print::clean(&answer.id),
        context.style.good(&print::clean(&answer.change))
    ));
    Ok(())
}

impl Named {
    async fn change(self, context: &Context, verb: &str) -> Result<(), Failure> {
        said(context, Method::POST, &format!("{}/{verb}", at(&self.id)), "{}".to_owned()).await
    }

    async fn run(self, context: &Context) -> Result<(), Failure> {
        let path = format!("{}/run", at(&self.id));
        let bytes = context.client.call(Method::POST, &path, "{}", Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let answer: crate::client::PushAnswer = context.client.parse(&bytes)?;
        for job in &answer.jobs {
            print::line(&format!("{}  {}", print::clean(&job.id), context.style.state(&job.state)));
        }
        Ok(())
    }

    async fn remove(self, context: &Context) -> Result<(), Failure> {
        let bytes = context.client.call(Method::DELETE, &at(&self.id), "", Extras::default()).await?;
        let text = String::from_utf8_lossy(&bytes);
        print::line(&if context.json {
            text.trim_end().to_owned()
        } else {
            format!("{}  removed", print::clean(&self.id))
        });
        Ok(())
    }

    async fn show(self, context: &Context) -> Result<(), Failure> {
        let bytes = context.client.call(Method::GET, &at(&self.id), "", Extras::default()).await?;
        if context.json {
            print::line(String::from_utf8_lossy(&bytes).trim_end());
            return Ok(());
        }
        let schedule: Schedule = context.client.parse(&bytes)?;
        print::put(&described(context.style, &schedule));
        Ok(())
    }
}

fn described(style: Style, schedule: &Schedule) -> String {
    let mut out =
        format!("{}  {}\n", style.bold(&print::clean(&schedule.id)), print::clean(&schedule.summary));
    let counts = [
        ("fired", schedule.fired),
        ("skipped", schedule.skipped),
        ("missed", schedule.missed),
        ("refused", schedule.refused),
    ];
    let counts = counts.map(|(name, count)| format!("{} {name}", print::count(count))).join(", ");
    for (name, value) in [
        ("when", schedule.when()),
        ("pushes to", schedule.job.queue.clone()),
        ("overlap", schedule.overlap.clone()),
        ("slots", counts),
    ] {
        out.push_str(&format!("  {}  {}\n", style.dim(&format!("{name:<9}")), print::clean(&value)));
    }
    for firing in schedule.firings.iter().rev() {
        let what = match (firing.result.as_str(), &firing.job, &firing.until, &firing.code) {
            ("missed", _, Some(until), _) => style.warn(&format!("missed until {}", until.0)),
            ("refused", _, _, Some(code)) => style.bad(&format!("refused: {}", print::clean(code))),
            ("skipped", ..) => style.warn("skipped: an earlier job had not ended"),
            (result, Some(job), ..) => format!("{}  {}", print::clean(result), style.dim(&print::clean(job))),
            (result, ..) => print::clean(result).into_owned(),
        };
        out.push_str(&format!("  {}  {what}\n", firing.slot.0.to_string().replace(".000Z", "Z")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catch_up_has_one_short_spelling_each() {
        assert_eq!(catch_up("one"), Ok(json!("one")));
        assert_eq!(catch_up("all:7"), Ok(json!({"all": 7})));
        for wrong in ["", "all", "all:", "all:x", "two", "one:1"] {
            assert!(catch_up(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_schedule_is_described_in_words() {
        let text = r#"{"id":"nightly","state":"active","summary":"fires next at …","next_at":"2026-01-02T03:00:00.000Z",
            "cron":"0 3 * * *","zone":"Europe/Berlin","job":{"queue":"reports"},"overlap":"skip","fired":2,"newer":1,
            "firings":[{"slot":"2026-01-01T03:00:00.000Z","at":"2026-01-01T03:00:00.001Z","result":"skipped"}]}"#;
        let schedule: Schedule = serde_json::from_str(text).unwrap();
        let said = described(Style::PLAIN, &schedule);
        assert!(said.contains("0 3 * * * (Europe/Berlin)") && said.contains("skipped: an earlier"), "{said}");
        assert!(overview(Style::PLAIN, &[schedule]).contains("2026-01-02T03:00:00Z"));
    }
}
