//! `millpond join`: jobs that wait for jobs, as a tree.

use super::{
    Context, Failure,
    print::{self, Style},
};
use crate::client::{Extras, JoinAnswer, MemberAnswer, segment};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

/// Jobs that wait for jobs: push a graph, look at a join, call it off
///
/// A graph is JSON: `{"jobs": {"a": {…}, "b": {…}, "sum": {…}}, "join": {"policy": "all", "then": "sum"}}`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond join push graph.json
  millpond join 0190c6e4-7f5b-7000-8000-000000000001
  millpond join cancel 0190c6e4-7f5b-7000-8000-000000000001 --reason 'wrong file'")]
pub(crate) struct JoinCommand {
    /// ID, or push FILE, or cancel ID
    #[arg(value_name = "ID|push FILE|cancel ID", required = true, num_args = 1..=2)]
    words: Vec<String>,
    /// For cancel: the reason, for the history
    #[arg(long)]
    reason: Option<String>,
}

impl JoinCommand {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        match words[..] {
            ["push", file] => push(context, file).await,
            ["cancel", id] | [id, "cancel"] => self.cancel(context, id).await,
            [id] | ["show", id] | [id, "show"] => show(context, id).await,
            _ => Err(Failure::Usage("expected ID, push FILE or cancel ID".to_owned())),
        }
    }

    async fn cancel(&self, context: &Context, id: &str) -> Result<(), Failure> {
        let body = json!({"reason": self.reason.as_deref().unwrap_or_default()}).to_string();
        let path = format!("/v1/joins/{}/cancel", segment(id));
        let bytes = context.client.call(Method::POST, &path, body, Extras::default()).await?;
        let answer: Value = context.client.parse(&bytes)?;
        match context.json {
            true => print::line(&answer.to_string()),
            false => {
                let state = answer["state"].as_str().unwrap_or("gone");
                print::line(&format!("{}: {}", print::clean(id), print::clean(state)));
            }
        }
        Ok(())
    }
}

async fn push(context: &Context, file: &str) -> Result<(), Failure> {
    let text = match file {
        "-" => std::io::read_to_string(std::io::stdin()),
        file => std::fs::read_to_string(file),
    };
    let text = text.map_err(|error| Failure::Usage(format!("cannot read {file}: {error}")))?;
    let bytes = context.client.call(Method::POST, "/v1/joins", text, Extras::default()).await?;
    if context.json {
        print::line(String::from_utf8_lossy(&bytes).trim_end());
        return Ok(());
    }
    let answer: Value = context.client.parse(&bytes)?;
    for kind in ["joins", "jobs"] {
        for item in answer[kind].as_array().into_iter().flatten() {
            let word = |key: &str| print::clean(item[key].as_str().unwrap_or_default()).into_owned();
            print::line(format!("{}  {}  {}", word("id"), word("name"), word("state")).trim_end());
        }
    }
    Ok(())
}

async fn show(context: &Context, id: &str) -> Result<(), Failure> {
    let path = format!("/v1/joins/{}?limit=1000", segment(id));
    let bytes = context.client.call(Method::GET, &path, bytes::Bytes::new(), Extras::default()).await?;
    if context.json {
        print::line(String::from_utf8_lossy(&bytes).trim_end());
        return Ok(());
    }
    let join: JoinAnswer = context.client.parse(&bytes)?;
    let mut lines = Vec::new();
    tree(context.style, &join, ("", ""), &mut lines);
    if let Some(then) = &join.then {
        lines.push(format!("└─► {} in {}", print::clean(&then.id), print::clean(&then.queue)));
    }
    lines.iter().for_each(|line| print::line(line));
    Ok(())
}

/// A join's own line, which begins with `first`, and one for each member below it, which begins with `indent`.
fn tree(style: Style, join: &JoinAnswer, (first, indent): (&str, &str), lines: &mut Vec<String>) {
    let ended = join.total - join.counts.get("pending").copied().unwrap_or(0);
    let needed = join.k.map_or(String::new(), |k| format!(" (k = {k})"));
    let open = if join.sealed { "" } else { ", open for more" };
    lines.push(format!(
        "{first}{} {} {}{needed}: {}, {ended} of {} ended{open}",
        style.dim("join"),
        print::clean(&join.name),
        print::clean(&join.policy),
        print::clean(&join.state),
        join.total,
    ));
    for member in &join.members {
        branch(style, member, indent, lines);
    }
    if join.cursor.is_some() {
        lines.push(format!("{indent}├─ …"));
    }
}

fn branch(style: Style, member: &MemberAnswer, indent: &str, lines: &mut Vec<String>) {
    let (name, state) = (print::clean(&member.name), print::clean(&member.state));
    match &member.join {
        Some(join) => {
            tree(style, join, (&format!("{indent}├─ "), &format!("{indent}│  ")), lines);
        }
        None => {
            let what = match (&member.queue, &member.id) {
                (Some(queue), Some(id)) => format!("  {} in {}", print::clean(id), print::clean(queue)),
                _ => "  (no longer kept)".to_owned(),
            };
            let why = member
                .error
                .as_ref()
                .map_or(String::new(), |error| format!("  {}", style.bad(&print::clean(&error.message))));
            lines.push(format!("{indent}├─ {name}: {state}{}{why}", style.dim(&what)));
        }
    }
}
