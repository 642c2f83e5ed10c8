//! `millpond salvage`: tells what damage took from a data directory, and makes a new one of the rest. It works on files; no server is asked.

use super::{
    Failure, Global,
    backup::failed,
    key::{Directory, options},
    print,
    print::Style,
    verify::many,
};
use clap::Args;
use model::{JobId, QueueName};
use node::{Loss, Salvaged};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Tell what damage took from a data directory, and save the rest in a new one
///
/// The damaged directory is only read; its server must be stopped. Without --to nothing is written anywhere: it says what would be saved, and
/// names what is lost. With it, a new data directory is made of what is left, which opens as any other. A backup, if there is one, may have
/// more: look at both. Exit code 0 if nothing is lost, 4 if a part is, 5 if nothing can be saved.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond salvage ./millpond-data
  millpond salvage ./millpond-data --to ./new-data
  millpond salvage ./millpond-data --json > lost.json")]
pub(crate) struct Salvage {
    #[command(flatten)]
    directory: Directory,
    /// The data directory to make; it must not exist, or be empty
    #[arg(long, value_name = "NEW")]
    to: Option<PathBuf>,
    /// Write nothing, even with --to
    #[arg(long)]
    dry_run: bool,
}

impl Salvage {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        let config = self.directory.load()?;
        let to = self.to.filter(|_| !self.dry_run);
        let found = node::salvage(&config.data, to.as_deref(), &options(&config), print::now())
            .map_err(|error| failed(&error))?;
        let written = to.filter(|_| found.state.is_some());
        if global.json {
            print::line(&json(&found, written.as_deref()).to_string());
        } else {
            show(&found, Style::stdout(global.color));
        }
        let path = config.data.display();
        let Some(state) = &found.state else {
            return Err(Failure::Damaged(format!(
                "nothing of {path} can be saved: restore a backup; what the log still tells of is above"
            )));
        };
        let mut sum = format!(
            "{} in {}, up to position {} of {}",
            many(state.jobs, "job"),
            many(state.queues, "queue"),
            state.position,
            state.time
        );
        sum = match &written {
            Some(new) => format!("{}: {sum}", new.display()),
            None => format!("{path}: {sum} can be saved with --to"),
        };
        if !found.lost.is_empty() {
            let count = found.lost.len();
            let what = if count == 1 { "thing is" } else { "things are" };
            return Err(Failure::Partial(format!("{sum}; {} {what} lost", print::count(count as u64))));
        }
        if !global.json {
            print::line(&format!("{sum}; nothing is lost"));
        }
        Ok(())
    }
}

fn show(found: &Salvaged, style: Style) {
    for note in &found.notes {
        print::line(&format!("{} {}", style.warn("made anew:"), print::clean(note)));
    }
    for loss in &found.lost {
        print::line(&format!("{} {}", style.bad("lost:"), print::clean(&sentence(loss))));
    }
}

fn named(queue: &QueueName, id: Option<&JobId>) -> String {
    match id {
        Some(id) => format!("{queue}/{id}"),
        None => format!("{queue}/(an id of the server's)"),
    }
}

fn sentence(loss: &Loss) -> String {
    match loss {
        Loss::Checkpoint { reason } => format!("the whole checkpoint: {reason}"),
        Loss::Job { sequence, name: None, reason } => format!("the job number {sequence}: {reason}"),
        Loss::Job { name: Some((queue, id)), reason, .. } => format!("job {queue}/{id}: {reason}"),
        Loss::Value { what, reason } => format!("{what}: {reason}"),
        Loss::Records { first, last, positions, after, before } => {
            let last = last.map_or("the end, which nobody knows".to_owned(), |last| last.to_string());
            let until = positions.1.map_or("?".to_owned(), |until| until.to_string());
            let before = before.map_or(String::new(), |before| format!(" and before {before}"));
            format!(
                "the records {first} to {last} of the log, positions {} to {until}, after {after}{before}",
                positions.0
            )
        }
        Loss::Unapplied { record, position, time, pushed, settled, others } => {
            let mut parts = Vec::new();
            if !pushed.is_empty() {
                let names: Vec<_> = pushed.iter().map(|(queue, id)| named(queue, id.as_ref())).collect();
                parts.push(format!("pushed {}", names.join(", ")));
            }
            if !settled.is_empty() {
                let names: Vec<_> = settled
                    .iter()
                    .map(|job| match &job.queue {
                        Some(queue) => named(queue, Some(&job.id)),
                        None => job.id.to_string(),
                    })
                    .collect();
                parts.push(format!("ended attempts of {}", names.join(", ")));
            }
            if *others > 0 {
                parts.push(many(*others, "other command"));
            }
            format!(
                "behind lost records: record {record}, position {position} of {time}: {}",
                parts.join("; ")
            )
        }
    }
}

fn json(found: &Salvaged, to: Option<&std::path::Path>) -> Value {
    let lost: Vec<Value> = found.lost.iter().map(loss).collect();
    let state = found.state.as_ref().map(|state| {
        json!({
            "jobs": state.jobs, "queues": state.queues, "position": state.position,
            "time": state.time.to_string(),
        })
    });
    json!({"ok": found.lost.is_empty(), "directory": to, "state": state, "lost": lost, "notes": found.notes})
}

fn loss(loss: &Loss) -> Value {
    match loss {
        Loss::Checkpoint { reason } => json!({"what": "checkpoint", "reason": reason}),
        Loss::Job { sequence, name, reason } => json!({
            "what": "job", "number": sequence, "reason": reason,
            "queue": name.as_ref().map(|(queue, _)| queue.to_string()),
            "id": name.as_ref().map(|(_, id)| id.to_string()),
        }),
        Loss::Value { what, reason } => json!({"what": "value", "value": what, "reason": reason}),
        Loss::Records { first, last, positions, after, before } => json!({
            "what": "records", "first": first, "last": last, "first_position": positions.0,
            "last_position": positions.1, "after": after.to_string(),
            "before": before.map(|before| before.to_string()),
        }),
        Loss::Unapplied { record, position, time, pushed, settled, others } => {
            let pushed: Vec<_> = pushed
                .iter()
                .map(|(queue, id)| json!({"queue": queue.to_string(), "id": id.as_ref().map(JobId::to_string)}))
                .collect();
            let settled: Vec<_> = settled
                .iter()
                .map(|job| json!({"queue": job.queue.as_ref().map(QueueName::to_string), "id": job.id.to_string()}))
                .collect();
            json!({
                "what": "unapplied", "record": record, "position": position, "time": time.to_string(),
                "pushed": pushed, "settled": settled, "others": others,
            })
        }
    }
}
