//! `millpond demo`: the whole of it in one command. A server in this process, orders from a real file, five queues of
//! work, failures that are tried again, one job that ends dead, and the books at the end.

mod books;
mod pipeline;

use super::{Context, Failure, import, print, source::HttpSource};
use crate::client::{Client, ClientError};
use books::{Books, Plan};
use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use pipeline::{STEPS, Step};
use server::{config::Config, serve::Server};
use std::{
    io::IsTerminal,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    time::{Duration, Instant},
};
use workers::{Options, Runtime};

/// 2,000 places; `demo/README.md` names the source.
const PLACES: &str = include_str!("../../../../../demo/places.csv");
const PLACES_ROWS: u64 = 2_000;
/// Ports tried before any free one is taken.
const PORTS: std::ops::Range<u16> = 7077..7087;

/// See it work: a server, 2,000 orders, five queues, in a few seconds
///
/// It starts a server in this process with a fresh folder of data, imports 2,000 rows of a real file as orders, validates
/// them, reserves stock, then notifies and counts in parallel and follows up some of them later. A handler fails now and
/// then, one order cannot be delivered and ends dead. At the end it says what happened and keeps serving until Ctrl-C.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond demo
  millpond demo --exit --rows 200 --json")]
pub(crate) struct Demo {
    /// How many orders
    #[arg(long, default_value_t = PLACES_ROWS, value_parser = clap::value_parser!(u64).range(1..=PLACES_ROWS))]
    rows: u64,
    /// End when the work is done, with exit code 1 if a job was lost
    #[arg(long)]
    exit: bool,
    /// Keep the data here instead of in a temporary folder
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

impl Demo {
    pub(crate) async fn run(self, context: &Context) -> Result<(), Failure> {
        let folder = Folder::new(self.data.clone())?;
        let config = Config { listen: free_port()?, data: folder.path.clone(), ..Config::default() };
        let server = Server::start(&config).await.map_err(|error| Failure::Check(error.to_string()))?;
        let client = Client::new(&server.url(), None, None)?;
        say(context, &format!("{} {}", context.style.bold("server"), server.url()));
        say(context, &format!("{}   {}", context.style.bold("data"), folder.path.display()));
        let ended = tokio::select! {
            ended = self.show(context, &client) => ended,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted("interrupted".to_owned())),
        };
        if ended.is_ok() && !self.exit {
            say(context, &format!("\nserving at {} until Ctrl-C", server.url()));
            // If signals cannot be heard the process can only be killed, which is what waiting for ever comes to.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        let stopped = server.stop().await.map_err(|error| Failure::Check(error.to_string()));
        ended.and(stopped.map(drop))
    }

    async fn show(&self, context: &Context, client: &Client) -> Result<(), Failure> {
        let began = Instant::now();
        let source = import::Source::text("places.csv", PLACES)?;
        let mut options = serde_json::Map::new();
        options.insert("attempts".to_owned(), 3.into());
        let imported = import::import_text(client, STEPS[0].queue, source, self.rows, &options).await?;
        let took = began.elapsed().as_secs_f64();
        let rate = print::count((imported as f64 / took.max(0.001)) as u64);
        say(
            context,
            &format!(
                "{} {} orders from a CSV file, {rate}/s\n",
                context.style.bold("import"),
                print::count(imported)
            ),
        );

        let plan = Plan::of(PLACES, self.rows);
        let working = Instant::now();
        let runtimes: Vec<Runtime> =
            STEPS.iter().map(|step| start(client, *step)).collect::<Result<_, _>>()?;
        let bars = Bars::new(context.json);
        let books = loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let books = Books::read(client).await?;
            bars.show(&books);
            if books.at_rest(imported) {
                break books;
            }
        };
        bars.clear();
        let seconds = working.elapsed().as_secs_f64();
        for runtime in runtimes {
            runtime.stop(Duration::from_secs(5)).await;
        }
        let mistakes = books.compare(&plan, imported);
        if context.json {
            print::line(&books.to_json(seconds, &mistakes).to_string());
        } else {
            print::put(&books.summary(context.style, seconds, client.url()));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Failure::Check(mistakes.join("; "))) }
    }
}

fn say(context: &Context, text: &str) {
    if !context.json {
        print::line(text);
    }
}

/// A worker of one queue, in this process, over HTTP like any other.
fn start(client: &Client, step: Step) -> Result<Runtime, Failure> {
    let source = HttpSource {
        client: client.clone(),
        worker: format!("demo:{}", step.queue),
        queues: vec![step.queue.to_owned()],
        lease: Duration::from_secs(30),
        revoked: std::sync::Arc::default(),
    };
    let options = Options { concurrency: step.concurrency, prefetch: 200, ..Options::default() };
    Runtime::start(source, step, options).map_err(|error| Failure::Check(error.to_string()))
}

/// The usual port, the next ones, or any.
fn free_port() -> Result<SocketAddr, Failure> {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let free = PORTS.map(address).find(|address| TcpListener::bind(address).is_ok());
    Ok(free.unwrap_or(address(0)))
}

/// The data of a demo; a temporary folder goes when the demo goes.
struct Folder {
    path: PathBuf,
    temporary: bool,
}

impl Folder {
    fn new(wanted: Option<PathBuf>) -> Result<Self, Failure> {
        let temporary = wanted.is_none();
        let path = wanted.unwrap_or_else(|| {
            let name = format!("millpond-demo-{}-{}", std::process::id(), print::now().0);
            std::env::temp_dir().join(name)
        });
        if !temporary && path.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            let path = path.display();
            return Err(Failure::Usage(format!(
                "{path} is not empty; the demo counts from zero, give it a new folder"
            )));
        }
        Ok(Self { path, temporary })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed stays in the system's folder for temporary files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// One bar a queue, on a terminal.
struct Bars {
    group: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Bars {
    fn new(quiet: bool) -> Self {
        let visible = !quiet && std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let group = MultiProgress::with_draw_target(target);
        let style = ProgressStyle::with_template("{prefix:16} {bar:30} {pos:>6}/{len:<6} {msg}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar =
            |step: &Step| group.add(ProgressBar::new(0).with_style(style.clone()).with_prefix(step.queue));
        let bars = STEPS.iter().map(bar).collect();
        Self { group, bars }
    }

    fn show(&self, books: &Books) {
        for (bar, queue) in self.bars.iter().zip(&books.queues) {
            bar.set_length(queue.pushed_total);
            bar.set_position(queue.completed_total + queue.dead_total);
            bar.set_message(books::remarks(queue));
        }
    }

    fn clear(&self) {
        // A terminal that cannot be cleared keeps the bars.
        let _ = self.group.clear();
    }
}

/// A queue that nothing was pushed to yet is empty, not missing.
fn or_empty(
    found: Result<crate::client::Queue, ClientError>,
    name: &str,
) -> Result<crate::client::Queue, ClientError> {
    match found {
        Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(crate::client::Queue::empty(name)),
        other => other,
    }
}
