//! `millpond work`: a program does the jobs.

use super::{
    Context, Failure, endpoint::EndpointOptions, options::span, print, queues::fetch_all,
    sandbox::SandboxOptions, source::HttpSource,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kit::Millis;
use serde_json::json;
use std::{
    io::IsTerminal,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use workers::{
    Options, Runtime, Totals,
    endpoint::Endpoint,
    process::{OneShot, Pool, PoolOptions, Program},
};

/// Have a program or an HTTP endpoint do the jobs of one or more queues
///
/// The program is started for each job: the body on its standard input, the result on its standard output, exit status 0
/// for done, 65 for dead at once, 75 for later, anything else for another attempt. With --pool a few children take many
/// jobs in turn, over JSON lines. With --to every job is posted to a URL, and the answer is its outcome. Ctrl-C takes no more
/// jobs and lets running ones finish, as does `millpond worker stop`; a second one stops at once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond work mail -- python3 send_mail.py
  millpond work thumbnails -- convert - -resize 200x200 jpg:-
  millpond work thumbnails --sandbox strict --allow-write /srv/thumbs -- ./thumbnail
  millpond work mail news --pool --concurrency 8 -- node worker.js
  millpond work mail --to https://app.example/jobs --secret-file secret --concurrency 32")]
pub(crate) struct Work {
    /// The queues, in order of preference
    #[arg(required = true)]
    queues: Vec<String>,
    /// The program and its arguments
    #[arg(last = true, required_unless_present = "to", conflicts_with = "to", value_name = "PROGRAM")]
    program: Vec<std::ffi::OsString>,
    /// Jobs at once [default: processors of this machine]
    #[arg(long, short, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    concurrency: Option<u64>,
    /// Keep children that take many jobs in turn
    #[arg(long)]
    pool: bool,
    /// With --pool: replace a child after so many jobs
    #[arg(long, value_name = "N", requires = "pool")]
    max_jobs_per_child: Option<u64>,
    /// The longest attempt here; the job's own timeout counts if it is shorter
    #[arg(long, value_parser = span, value_name = "SPAN")]
    timeout: Option<Millis>,
    /// How long a job is ours without a word; it is renewed at a third
    #[arg(long, value_parser = span, value_name = "SPAN", default_value = "30s")]
    lease: Millis,
    /// How long running jobs may go on after Ctrl-C
    #[arg(long, value_parser = span, value_name = "SPAN", default_value = "30s")]
    drain: Millis,
    /// Pass on a variable of this environment (NAME) or set one (NAME=VALUE)
    #[arg(long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Show what the program writes to standard error
    #[arg(long)]
    echo: bool,
    /// The worker's name, for the history [default: host and process]
    #[arg(long)]
    worker: Option<String>,
    #[command(flatten)]
    endpoint: EndpointOptions,
    #[command(flatten)]
    sandbox: SandboxOptions,
}

/// What does the jobs.
enum Kind {
    Program(Program),
    Endpoint(Arc<Endpoint>),
}

impl Work {
    pub(crate) async fn run(mut self, context: &Context) -> Result<(), Failure> {
        for queue in &self.queues {
            model::QueueName::new(queue).map_err(|error| Failure::Usage(format!("{queue:?}: {error}")))?;
        }
        let handler = match self.endpoint.endpoint()? {
            Some(endpoint) => Kind::Endpoint(Arc::new(endpoint)),
            None => Kind::Program(self.program()?),
        };
        // A server that is not there, or wants another token, is said before anything starts.
        fetch_all(&context.client).await?;
        let concurrency = self.concurrency.unwrap_or_else(processors) as usize;
        let options =
            Options { concurrency, timeout: self.timeout.map(Duration::from_millis), ..Options::default() };
        let source = HttpSource {
            client: context.client.clone(),
            worker: self.worker.take().unwrap_or_else(worker_name),
            queues: self.queues.clone(),
            lease: Duration::from_millis(self.lease),
            revoked: Arc::default(),
        };
        let started = match handler {
            Kind::Endpoint(endpoint) => Runtime::start(source, endpoint, options),
            Kind::Program(program) if self.pool => {
                let pool = PoolOptions {
                    children: concurrency,
                    jobs_per_child: self.max_jobs_per_child,
                    ..PoolOptions::default()
                };
                Runtime::start(source, Pool::new(program, pool), options)
            }
            Kind::Program(program) => Runtime::start(source, OneShot::new(program), options),
        };
        let runtime = started.map_err(|error| Failure::Usage(format!("cannot start: {error}")))?;
        self.watch(context, runtime).await
    }

    fn program(&self) -> Result<Program, Failure> {
        let (path, arguments) =
            self.program.split_first().ok_or_else(|| Failure::Usage("which program?".to_owned()))?;
        let mut program = Program::new(path).args(arguments).echo_stderr(self.echo);
        if let Some(launcher) = self.sandbox.launcher()? {
            program = program.through(launcher);
        }
        for variable in &self.env {
            program = match variable.split_once('=') {
                Some((name, value)) => program.env(name, value),
                None => program.allow_env(variable),
            };
        }
        Ok(program)
    }

    /// Shows what happens until somebody says stop, then lets running jobs finish.
    async fn watch(&self, context: &Context, mut runtime: Runtime) -> Result<(), Failure> {
        let line = live_line(context.json);
        let mut signals = Signals::new()?;
        let began = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(250)) => {}
                () = signals.next() => break,
                () = runtime.closed() => {
                    print::note("an operator has told this worker to stop");
                    break;
                }
            }
            line.set_message(counters(&runtime.counters().totals(), began.elapsed(), runtime.source_error()));
        }
        line.set_message("finishing what has begun; Ctrl-C again stops at once");
        let before = runtime.counters().totals();
        let stop = runtime.stop(Duration::from_millis(self.drain));
        let drained = tokio::select! {
            drained = stop => drained,
            () = signals.next() => {
                line.finish_and_clear();
                let what = "stopped at once; jobs in hand go to other workers when their leases end";
                return Err(Failure::Interrupted(what.to_owned()));
            }
        };
        line.finish_and_clear();
        if context.json {
            let out = json!({
                "started": before.started, "done": before.done + drained.finished, "retried": before.retried,
                "dead": before.failed, "crashed": before.crashed, "snoozed": before.snoozed, "handed_back": drained.handed_back,
                "left": drained.left, "seconds": began.elapsed().as_secs_f64(),
            });
            print::line(&out.to_string());
        } else {
            print::line(&counters(&before, began.elapsed(), None));
            let finished = print::count(drained.finished);
            let mut text = format!("drained: {finished} more finished");
            for (count, what) in
                [(drained.handed_back, "handed back"), (drained.left, "left to their leases")]
            {
                if count > 0 {
                    text.push_str(&format!(", {} {what}", print::count(count)));
                }
            }
            print::line(&text);
        }
        Ok(())
    }
}

/// Ctrl-C, or a polite kill.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::Usage(format!("cannot listen for signals: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn counters(totals: &Totals, elapsed: Duration, trouble: Option<String>) -> String {
    let rate = totals.done as f64 / elapsed.as_secs_f64().max(0.001);
    let mut text = format!("{} done", print::count(totals.done));
    for (count, what) in [
        (totals.running, "running"),
        (totals.retried, "to be tried again"),
        (totals.failed, "dead"),
        (totals.crashed, "crashed"),
        (totals.snoozed, "put off"),
        (totals.timeouts, "timed out"),
        (totals.dropped, "results dropped"),
    ] {
        if count > 0 {
            text.push_str(&format!(" · {} {what}", print::count(count)));
        }
    }
    text.push_str(&format!(" · {rate:.1}/s"));
    if let Some(trouble) = trouble {
        text.push_str(&format!(" · {}", print::clean(&trouble)));
    }
    text
}

fn live_line(quiet: bool) -> ProgressBar {
    let visible = !quiet && std::io::stderr().is_terminal();
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template("{spinner} {wide_msg}");
    let line = ProgressBar::with_draw_target(None, target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    line.enable_steady_tick(Duration::from_millis(120));
    line
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(4, |count| count.get() as u64)
}

fn worker_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    let host = host.trim();
    format!("{}:{}", if host.is_empty() { "millpond-work" } else { host }, std::process::id())
}
