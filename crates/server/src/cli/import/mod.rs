//! `millpond import`: rows of a file become jobs, each exactly once, whatever is killed in between.
//!
//! One thread reads rows and cuts batches; a bounded number of batches is on its way to the server; what the
//! server confirmed without a gap is written to the state file. After a kill the next run begins where that file
//! ends. Batches that were on their way then are sent again, with the same idempotency key and the same ids, so
//! the server recognises them.

mod batch;
mod rejects;
mod sender;
mod source;
mod state;

pub(crate) use source::Source;

use super::{
    Context, Failure,
    options::{self, JobOptions},
    print,
};
use crate::client::{Client, ClientError, Queue, segment};
use batch::{Batch, Batcher};
use clap::Args;
use kit::{Durability, Millis, random::mix};
use rejects::Rejects;
use server::rows::{Place, Rules};
use source::Format;
use state::{Progress, StateFile};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Make a job of every row of a CSV or NDJSON file
///
/// Files of any size are streamed. An import that was stopped, by whatever, goes on where it was when the same
/// command is run again; no row becomes two jobs. Rows that cannot be read go to a file of rejects.
/// With more than one batch in flight, neighbouring batches may swap places in the queue.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond import orders orders.csv
  millpond import events events.ndjson --id-column event_id --priority low
  zcat big.csv.gz | millpond import rows - --format csv --state big.state

Exit code 4: done, but some rows were rejected.")]
pub(crate) struct Import {
    /// The queue; it is made by its first job
    queue: String,
    /// A file, or `-` for standard input
    file: PathBuf,
    /// How the file is written; guessed from its name or its first byte
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What stands between two cells
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<char>,
    /// Turn cells such as 12, true and the empty cell into number, boolean and null; 00501 stays text
    #[arg(long)]
    infer: bool,
    /// The column (CSV) or key (NDJSON) that is the job's id; a row with an id that exists adds nothing
    #[arg(long, value_name = "NAME")]
    id_column: Option<String>,
    #[command(flatten)]
    options: JobOptions,
    /// Rows in one call
    #[arg(long, value_name = "ROWS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Calls under way at once
    #[arg(long, value_name = "CALLS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    in_flight: u64,
    /// Bytes of the largest row; larger ones are rejected
    #[arg(long, value_name = "BYTES", default_value_t = model::limits::BODY_BYTES_MAX, value_parser = row_bytes)]
    row_bytes_max: usize,
    /// How safe a batch must be before it counts: memory, os, disk
    #[arg(long, value_parser = options::durability, value_name = "LEVEL")]
    durability: Option<Durability>,
    /// Where the progress is kept [default: .FILE.QUEUE.millpond-import in the current folder; none for `-`]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Where bad rows go [default: FILE.rejects.ndjson]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Import a file once more that was imported before (an import that was stopped is still resumed)
    #[arg(long, conflicts_with = "restart")]
    again: bool,
    /// Read from the first row again; rows that became jobs already are recognised as long as the server has them
    #[arg(long)]
    restart: bool,
    /// How long to keep trying when the server does not answer
    #[arg(long, value_parser = options::span, value_name = "SPAN", default_value = "30s")]
    patience: Millis,
}

fn row_bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (64..=64 << 20).contains(&bytes) => Ok(bytes),
        _ => Err("expected a number of bytes from 64 to 67108864".to_owned()),
    }
}

impl Import {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        model::QueueName::new(&self.queue).map_err(|error| Failure::Usage(error.to_string()))?;
        let source = Source::open(&self.file, self.format)?;
        // Asked before anything is read: a server that is not there is said at once.
        let queue = find_queue(&context.client, &self.queue).await?;
        let state = self.state_file(&source);
        let begun = self.begin(&source, state.as_ref(), queue.as_ref(), &context.client)?;
        if begun.done {
            return already_done(context, &source.name, &begun, state.as_ref());
        }
        let rejects_path = self.rejects_path();
        let total = source.size;
        let name = source.name.clone();
        let batches = self.read(source, &begun, &rejects_path)?;
        let sender = sender::Sender {
            client: context.client.clone(),
            queue: self.queue.clone(),
            durability: self.durability.map(Durability::name),
            in_flight: self.in_flight as usize,
            patience_ms: self.patience,
            state: state.clone(),
            bar: sender::bar(total, context.json),
        };
        let resumed = begun.place;
        let started = std::time::Instant::now();
        let (progress, ended) = sender.run(batches, begun).await;
        let seconds = started.elapsed().as_secs_f64().max(0.001);
        let report = Report {
            name,
            progress,
            resumed,
            seconds,
            rejects: rejects_path,
            state: state.map(|state| state.path().to_owned()),
        };
        report.finish(context, ended)
    }

    fn state_file(&self, source: &Source) -> Option<StateFile> {
        match &self.state {
            Some(path) => Some(StateFile::at(path.clone())),
            None => source.size.map(|_| StateFile::beside(&source.name, &self.queue)),
        }
    }

    fn rejects_path(&self) -> PathBuf {
        self.rejects.clone().unwrap_or_else(|| {
            let mut path = self.file.clone().into_os_string();
            if self.file == Path::new("-") {
                path = "stdin".into();
            }
            path.push(".rejects.ndjson");
            path.into()
        })
    }

    /// Where this run begins: at the start, where an earlier one was stopped, or nowhere.
    fn begin(
        &self,
        source: &Source,
        state: Option<&StateFile>,
        queue: Option<&Queue>,
        client: &Client,
    ) -> Result<Progress, Failure> {
        let chance = mix(print::now().0, u64::from(std::process::id()));
        let fresh = |salt| Progress::new(&source.name, &self.queue, client.url(), source.fingerprint, salt);
        let Some(state) = state else { return Ok(fresh(chance)) };
        let known = state.load()?;
        let unfinished = known.as_ref().is_some_and(|known| !known.done && known.place.row > 0);
        let same = known.filter(|known| known.is_of(source.fingerprint, &self.queue, client.url()));
        let progress = match same {
            None if unfinished && !self.restart => {
                return Err(Failure::Usage(format!(
                    "{} has the progress of another import (or {} was changed since it was stopped); finish that one, or start over with --restart",
                    state.path().display(),
                    source.name
                )));
            }
            None => fresh(if self.again || source.size.is_none() { chance } else { 0 }),
            Some(known) if self.restart => fresh(known.salt),
            Some(known) if known.done && self.again => fresh(chance),
            // The server lost what it had confirmed, or is another one: its folder was removed, most likely.
            Some(known) if queue.map_or(0, |queue| queue.pushed_total) < known.added => {
                print::note("the server does not have the rows that were imported before; starting over");
                fresh(known.salt)
            }
            Some(known) => known,
        };
        if !progress.done {
            state.save(&progress)?;
        }
        Ok(progress)
    }

    /// Starts the thread that reads.
    fn read(
        &self,
        source: Source,
        begun: &Progress,
        rejects: &Path,
    ) -> Result<mpsc::Receiver<Result<Batch, Failure>>, Failure> {
        let tab = source.format == Format::Tsv;
        let delimiter = self.delimiter.unwrap_or(if tab { '\t' } else { ',' });
        let delimiter = u8::try_from(delimiter)
            .ok()
            .filter(|byte| byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n'))
            .ok_or_else(|| Failure::Usage("a delimiter is one ASCII character, not a quote".to_owned()))?;
        let rules = Rules {
            row_bytes_max: self.row_bytes_max,
            id_column: self.id_column.clone(),
            infer: self.infer,
            delimiter,
        };
        let import = import_id(begun.fingerprint, begun.salt, &self.queue);
        let rejects = Rejects::resume(rejects, begun.rejects_bytes)?;
        let rows = source.rows(rules, begun.place)?;
        let batcher = Batcher::new(rows, rejects, self.batch as usize, import, &self.options.to_json());
        Ok(spawn(batcher))
    }
}

/// Names an import: which rows, where to, and the how-manieth time.
fn import_id(fingerprint: u64, salt: u64, queue: &str) -> u64 {
    mix(mix(fingerprint, salt), xxhash_rust::xxh3::xxh3_64(queue.as_bytes()))
}

/// A small buffer: reading goes ahead of sending by two batches, no more.
fn spawn(mut batcher: Batcher) -> mpsc::Receiver<Result<Batch, Failure>> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        while let Some(batch) = batcher.next().transpose() {
            let failed = batch.is_err();
            if sender.blocking_send(batch).is_err() || failed {
                break;
            }
        }
    });
    receiver
}

/// Imports text that is part of the program, without leaving anything in the current folder.
pub(crate) async fn import_text(
    client: &Client,
    queue: &str,
    source: Source,
    rows_max: u64,
    options: &serde_json::Map<String, serde_json::Value>,
) -> Result<u64, Failure> {
    let begun = Progress::new(&source.name, queue, client.url(), source.fingerprint, 0);
    let rules = Rules {
        row_bytes_max: model::limits::BODY_BYTES_MAX,
        id_column: None,
        infer: false,
        delimiter: b',',
    };
    let import = import_id(begun.fingerprint, 0, queue);
    let rejects = Rejects::resume(Path::new("demo.rejects.ndjson"), 0)?;
    let rows = source.rows(rules, begun.place)?.limited(rows_max);
    let batches = spawn(Batcher::new(rows, rejects, 250, import, options));
    let sender = sender::Sender {
        client: client.clone(),
        queue: queue.to_owned(),
        durability: None,
        in_flight: 4,
        patience_ms: 10_000,
        state: None,
        bar: sender::bar(None, true),
    };
    let (progress, ended) = sender.run(batches, begun).await;
    ended.map(|()| progress.added + progress.present)
}

async fn find_queue(client: &Client, queue: &str) -> Result<Option<Queue>, Failure> {
    match client.get::<Queue>(&format!("/v1/queues/{}", segment(queue))).await {
        Ok(queue) => Ok(Some(queue)),
        Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn already_done(
    context: &Context,
    name: &str,
    progress: &Progress,
    state: Option<&StateFile>,
) -> Result<(), Failure> {
    if context.json {
        let rows = progress.place.row;
        print::line(&serde_json::json!({"file": name, "queue": progress.queue, "rows": rows, "added": 0, "already_imported": true}).to_string());
        return Ok(());
    }
    let known = state.map_or_else(String::new, |state| format!(" (says {})", state.path().display()));
    print::line(&format!(
        "{}: all {} rows were imported to {} before{known}. To import them once more: --again",
        print::clean(name),
        print::count(progress.place.row),
        progress.queue,
    ));
    Ok(())
}

/// What there is to say at the end.
struct Report {
    name: String,
    progress: Progress,
    resumed: Place,
    seconds: f64,
    rejects: PathBuf,
    state: Option<PathBuf>,
}

impl Report {
    fn finish(&self, context: &Context, ended: Result<(), Failure>) -> Result<(), Failure> {
        let progress = &self.progress;
        let rows = progress.place.row - self.resumed.row;
        let rate = rows as f64 / self.seconds;
        if context.json {
            let report = serde_json::json!({
                "file": self.name, "queue": progress.queue, "rows": progress.place.row, "added": progress.added,
                "already_there": progress.present, "rejected": progress.rejected, "done": progress.done,
                "resumed_at_row": self.resumed.row, "seconds": self.seconds, "rows_per_second": rate,
                "rejects": (progress.rejected > 0).then(|| self.rejects.display().to_string()),
            });
            print::line(&report.to_string());
        } else {
            self.print(context, rows, rate);
        }
        if let Err(failure) = ended {
            if let Some(state) = &self.state {
                let place = print::count(progress.place.row);
                print::note(&format!(
                    "stopped after row {place}; the same command goes on from there ({})",
                    state.display()
                ));
            }
            return Err(failure);
        }
        if progress.rejected > 0 {
            let rejected = print::count(progress.rejected);
            return Err(Failure::Partial(format!(
                "{rejected} rows could not be read; they are in {}",
                self.rejects.display()
            )));
        }
        Ok(())
    }

    fn print(&self, context: &Context, rows: u64, rate: f64) {
        let (progress, style) = (&self.progress, context.style);
        let mut text = format!(
            "{} {} rows of {} → {}: {} added",
            if progress.done { style.good("✓") } else { style.warn("…") },
            print::count(progress.place.row),
            print::clean(&self.name),
            progress.queue,
            print::count(progress.added),
        );
        for (count, what) in [(progress.present, "already there"), (progress.rejected, "rejected")] {
            if count > 0 {
                text.push_str(&format!(", {} {what}", print::count(count)));
            }
        }
        if self.resumed.row > 0 {
            text.push_str(&format!(", resumed after row {}", print::count(self.resumed.row)));
        }
        let pace =
            format!("  {} rows in {:.1}s, {}/s", print::count(rows), self.seconds, print::count(rate as u64));
        print::line(&format!("{text}\n{}", style.dim(&pace)));
    }
}
