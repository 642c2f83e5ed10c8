//! `millpond job`: one job, as a card; and what can be done to it.

use super::{
    Context, Failure,
    print::{self, Style},
};
use crate::client::{Change, ErrorText, Explanation, Extras, History, Job, Step, segment};
use clap::Args;
use hyper::Method;
use kit::Timestamp;
use serde_json::Value;
use std::fmt::Write;

/// What to do with the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Verb {
    /// The job, why it is where it is, and its history
    Show,
    /// Every change: from, to, when, why, by whom
    History,
    /// Why it is where it is, and when it is expected to run
    Explain,
    /// What its handler wrote
    Log,
    /// Call it off, waiting or running
    Cancel,
    /// Start it now instead of later
    Promote,
    /// Another life for a job that has ended; what its steps stored is kept
    Redrive,
    /// Another life from the very beginning: its steps and signals are forgotten
    Restart,
    /// Forget it
    Remove,
}

/// One job: where it stands, why, and how it came there
///
/// The queue is needed where the id was given by a client. Word order after the ID is free.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond job 0190c6e4-7f5b-7000-8000-000000000001
  millpond job photo-17 thumbnails explain
  millpond job photo-17 thumbnails redrive")]
pub(crate) struct JobCommand {
    /// The job's id
    id: String,
    /// [QUEUE] [show|history|explain|log|cancel|promote|redrive|restart|remove]
    #[arg(value_name = "QUEUE|VERB", num_args = 0..=2)]
    rest: Vec<String>,
    /// For cancel: the reason, for the history
    #[arg(long)]
    reason: Option<String>,
}

impl JobCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (queue, verb) = self.words()?;
        let queue = match queue {
            Some(queue) => queue,
            None => find_queue(context, &self.id).await?,
        };
        let path = format!("/v1/queues/{}/jobs/{}", segment(&queue), segment(&self.id));
        match verb {
            Verb::Show => show(context, &path).await,
            Verb::History => {
                let bytes = get(context, &format!("{path}/history")).await?;
                print_or(context, &bytes, |history: History| {
                    history_lines(context.style, &history.history, print::now())
                })
            }
            Verb::Explain => {
                let bytes = get(context, &format!("{path}/explain")).await?;
                print_or(context, &bytes, |explanation: Explanation| {
                    explanation_lines(context.style, &explanation, print::now())
                })
            }
            Verb::Log => {
                let bytes = get(context, &format!("{path}/log")).await?;
                print_or(context, &bytes, |log: Value| log_lines(context.style, &log))
            }
            Verb::Cancel | Verb::Promote | Verb::Redrive | Verb::Restart | Verb::Remove => {
                self.change(context, &path, verb).await
            }
        }
    }

    /// The words after the id: a queue, a verb, both in any order, or none.
    fn words(&self) -> Result<(Option<String>, Verb), Failure> {
        let verb = |word: &String| <Verb as clap::ValueEnum>::from_str(word, true).ok();
        match self.rest.as_slice() {
            [] => Ok((None, Verb::Show)),
            [word] => Ok(verb(word).map_or((Some(word.clone()), Verb::Show), |verb| (None, verb))),
            [queue, word] => match (verb(word), verb(queue)) {
                (Some(verb), _) => Ok((Some(queue.clone()), verb)),
                (None, Some(verb)) => Ok((Some(word.clone()), verb)),
                (None, None) => Err(Failure::Usage(format!(
                    "{word:?} is not something to do with a job: show, history, explain, log, cancel, promote, redrive, restart, remove"
                ))),
            },
            _ => Err(Failure::Usage("expected ID [QUEUE] [VERB]".to_owned())),
        }
    }

    async fn change(&self, context: &Context, path: &str, verb: Verb) -> Result<(), Failure> {
        let body = match &self.reason {
            Some(reason) if verb == Verb::Cancel => serde_json::json!({"reason": reason}).to_string(),
            _ => "{}".to_owned(),
        };
        let (method, path, body, said) = match verb {
            Verb::Remove => (Method::DELETE, path.to_owned(), String::new(), "removed"),
            Verb::Cancel => (Method::POST, format!("{path}/cancel"), body, "cancelled"),
            Verb::Promote => (
                Method::POST,
                format!("{path}/promote"),
                body,
                "promoted: it starts as soon as a worker asks",
            ),
            Verb::Restart => {
                (Method::POST, format!("{path}/restart"), body, "restarted: its steps are forgotten")
            }
            _ => (Method::POST, format!("{path}/redrive"), body, "redriven: its attempts count from zero"),
        };
        let bytes = context.client.call(method, &path, body, Extras::default()).await?;
        if context.json {
            let text = String::from_utf8_lossy(&bytes);
            print::line(if text.trim().is_empty() { "{}" } else { text.trim_end() });
        } else {
            print::line(&format!("{}: {said}", print::clean(&self.id)));
        }
        Ok(())
    }
}

/// The queue of a job whose id was generated, which the server finds by itself.
async fn find_queue(context: &Context, id: &str) -> Result<String, Failure> {
    let found = context.client.get::<Job>(&format!("/v1/jobs/{}", segment(id))).await;
    match found {
        Ok(job) => Ok(job.queue),
        Err(crate::client::ClientError::Refused(mut problem))
            if matches!(problem.status, 400 | 404 | 422) =>
        {
            problem.help = format!("an id that a client gave needs its queue: millpond job {id} QUEUE");
            Err(crate::client::ClientError::Refused(problem).into())
        }
        Err(error) => Err(error.into()),
    }
}

async fn get(context: &Context, path: &str) -> Result<bytes::Bytes, Failure> {
    Ok(context.client.call(Method::GET, path, bytes::Bytes::new(), Extras::default()).await?)
}

fn print_or<T: serde::de::DeserializeOwned>(
    context: &Context,
    bytes: &[u8],
    show: impl FnOnce(T) -> String,
) -> Result<(), Failure> {
    if context.json {
        print::line(String::from_utf8_lossy(bytes).trim_end());
    } else {
        print::put(&show(context.client.parse(bytes)?));
    }
    Ok(())
}

async fn show(context: &Context, path: &str) -> Result<(), Failure> {
    let bytes = get(context, path).await?;
    let history = get(context, &format!("{path}/history")).await?;
    let explanation = get(context, &format!("{path}/explain")).await?;
    if context.json {
        let mut job: Value = context.client.parse(&bytes)?;
        let history: Value = context.client.parse(&history)?;
        job["history"] = history.get("history").cloned().unwrap_or(history);
        job["explain"] = context.client.parse(&explanation)?;
        print::line(&job.to_string());
        return Ok(());
    }
    let job: Job = context.client.parse(&bytes)?;
    let history: History = context.client.parse(&history)?;
    let explanation: Explanation = context.client.parse(&explanation)?;
    print::put(&card(context.style, &job, &explanation, &history.history, print::now()));
    Ok(())
}

fn card(style: Style, job: &Job, explanation: &Explanation, history: &[Change], now: Timestamp) -> String {
    let mut out = format!(
        "{}  {}  {}\n",
        style.bold(&print::clean(&job.id)),
        style.state(&job.state),
        style.dim(&format!("in {}", print::clean(&job.queue)))
    );
    out.push_str(&explanation_lines(style, explanation, now));
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "  {} {}", style.dim(&format!("{name:<9}")), value);
        }
    };
    field("priority", job.priority.0.to_string());
    let crashes = if job.crashes > 0 { format!(", crashed {} times", job.crashes) } else { String::new() };
    field("attempts", format!("{} of {}{crashes}", job.attempt, job.attempts));
    field("worker", print::clean(job.worker.as_deref().unwrap_or_default()).into_owned());
    for (name, time) in [
        ("pushed", job.created_at),
        ("due", job.due_at),
        ("started", job.started_at),
        ("finished", job.finished_at),
        ("expires", job.expires_at),
    ] {
        field(
            name,
            time.map_or_else(String::new, |time| format!("{} ({})", time.0, print::relative(time.0, now))),
        );
    }
    field("unique", print::clean(job.unique_key.as_deref().unwrap_or_default()).into_owned());
    field("tags", print::clean(&job.tags.join(", ")).into_owned());
    let meta: Vec<_> = job.meta.iter().map(|(key, value)| format!("{key}={value}")).collect();
    field("meta", print::clean(&meta.join(", ")).into_owned());
    let size = job.body_bytes.map_or_else(String::new, |bytes| format!(" ({})", print::bytes(bytes)));
    let body = job.body.as_ref().map_or_else(|| job.content_type.clone(), |body| body.get().to_owned());
    field("body", format!("{}{}", print::cut(&print::clean(&body), 200), style.dim(&size)));
    for (name, value) in [("progress", &job.progress), ("result", &job.result)] {
        field(
            name,
            value.as_ref().map_or_else(String::new, |value| print::cut(&print::clean(value.get()), 200)),
        );
    }
    if let Some(error) = &job.error {
        out.push_str(&error_lines(style, error));
    }
    if !job.steps.is_empty() {
        let _ = writeln!(out, "\n{}", style.dim("steps"));
        out.push_str(&step_lines(style, &job.steps, now));
    }
    let _ = writeln!(out, "\n{}", style.dim("history"));
    out.push_str(&history_lines(style, history, now));
    out
}

fn error_lines(style: Style, error: &ErrorText) -> String {
    let head = format!("{}: {}", print::clean(&error.kind), print::clean(&error.message));
    let mut out = format!("  {} {}\n", style.dim("error    "), style.bad(&head));
    out.push_str(&print::clean_block(&error.stack, "            "));
    out
}

fn explanation_lines(style: Style, explanation: &Explanation, now: Timestamp) -> String {
    let mut out = format!("  {}\n", print::clean(&explanation.summary));
    if let Some(time) = explanation.expected_at {
        let _ = writeln!(
            out,
            "  {}",
            style.dim(&format!("expected {} ({})", print::relative(time.0, now), time.0))
        );
    }
    out
}

fn step_lines(style: Style, steps: &[Step], now: Timestamp) -> String {
    let mut rows = vec![["step", "what", "when", "attempt", "size"].map(str::to_owned).to_vec()];
    for step in steps {
        let child = step.child_id.as_ref().map(|id| {
            format!("child {} {}", print::clean(id), step.ended.as_deref().unwrap_or("has not ended"))
        });
        rows.push(vec![
            print::cut(&print::clean(&step.name), 40),
            child.unwrap_or_else(|| print::clean(&step.kind).into_owned()),
            print::relative(step.at.0, now),
            step.attempt.to_string(),
            print::bytes(step.bytes),
        ]);
    }
    print::table(style, &rows, &[3, 4]).lines().map(|line| format!("  {line}\n")).collect()
}

fn history_lines(style: Style, history: &[Change], now: Timestamp) -> String {
    let mut rows = vec![["when", "change", "cause", "attempt", "by", "log", ""].map(str::to_owned).to_vec()];
    for change in history {
        let from =
            change.from.as_deref().map_or_else(String::new, |from| format!("{} → ", print::clean(from)));
        let error = change.error.as_ref().map_or_else(String::new, |error| {
            print::cut(&print::clean(&format!("{}: {}", error.kind, error.message)), 60)
        });
        rows.push(vec![
            print::relative(change.at.0, now),
            format!("{from}{}", style.state(&change.to)),
            print::clean(&change.cause).into_owned(),
            change.attempt.to_string(),
            print::cut(&print::clean(change.actor.as_deref().unwrap_or_default()), 30),
            format!("@{}", change.position),
            style.bad(&error),
        ]);
    }
    print::table(style, &rows, &[3]).lines().map(|line| format!("  {line}\n")).collect()
}

fn log_lines(style: Style, log: &Value) -> String {
    let lines = log.get("lines").or_else(|| log.get("log")).and_then(Value::as_array);
    let mut out = String::new();
    for line in lines.into_iter().flatten() {
        let text = line.get("text").or_else(|| line.get("line")).and_then(Value::as_str).unwrap_or_default();
        let at = line.get("at").and_then(Value::as_str).unwrap_or_default();
        let attempt = line.get("attempt").and_then(Value::as_u64).unwrap_or_default();
        let head = format!("{} #{attempt}", print::clean(at));
        let _ = writeln!(out, "{} {}", style.dim(&head), print::clean(text));
    }
    if out.is_empty() { "Its handler wrote nothing.\n".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(rest: &[&str]) -> Result<(Option<String>, Verb), ()> {
        let rest = rest.iter().map(|word| (*word).to_owned()).collect();
        JobCommand { id: "a".to_owned(), rest, reason: None }.words().map_err(|_| ())
    }

    #[test]
    fn queue_and_verb_are_told_apart() {
        let mail = || Some("mail".to_owned());
        assert_eq!(words(&[]), Ok((None, Verb::Show)));
        assert_eq!(words(&["mail"]), Ok((mail(), Verb::Show)));
        assert_eq!(words(&["explain"]), Ok((None, Verb::Explain)));
        assert_eq!(words(&["mail", "remove"]), Ok((mail(), Verb::Remove)));
        assert_eq!(words(&["remove", "mail"]), Ok((mail(), Verb::Remove)));
        assert_eq!(words(&["log", "log"]), Ok((Some("log".to_owned()), Verb::Log)));
        assert_eq!(words(&["mail", "destroy"]), Err(()));
    }
}
