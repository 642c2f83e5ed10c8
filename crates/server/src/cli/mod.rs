//! The command line. One command, one file; each is a struct of its flags and a `run`.
//!
//! What is typed stays apart from what is meant: clap fills the structs, `run` turns them into calls. Results
//! go to standard output, everything about the way there to standard error.

mod backup;
mod bench;
mod bulk;
mod config;
mod dead;
mod demo;
mod endpoint;
mod events;
mod explain;
mod failure;
mod fetch;
mod import;
mod job;
mod jobs;
mod join;
mod key;
mod limit;
mod operations;
mod options;
#[cfg(test)]
mod page;
mod print;
mod push;
mod queues;
mod restore;
mod salvage;
mod sandbox;
mod schedule;
mod serve;
mod signal;
mod source;
mod stats;
mod token;
mod top;
mod torture;
mod verify;
mod work;
mod worker;

use crate::client::Client;
use clap::{Args, Parser, Subcommand};
use failure::Failure;
use print::{ColorChoice, Style};
use std::process::ExitCode;

/// Where a server listens unless told otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:7077";

#[derive(Debug, Parser)]
#[command(
    name = "millpond",
    version,
    about = "Durable background jobs: one server, one queue of work that survives everything.",
    after_help = "Start with:\n  millpond demo                          see it work\n  millpond serve                         a server in ./millpond-data\n  millpond push mail '{\"to\":\"ann\"}'      hand in a job\n  millpond work mail -- ./send-mail      have a program do the jobs\n\nExit codes: 0 done · 1 refused by the server · 2 wrong usage or file · 3 no server · 4 done in part · 5 damaged data · 130 interrupted",
    max_term_width = 110,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The server to talk to
    #[arg(long, global = true, env = "MILLPOND_URL", default_value = DEFAULT_URL, hide_env_values = true, help_heading = "Everywhere")]
    url: String,
    /// The server's token
    #[arg(long, global = true, env = "MILLPOND_TOKEN", hide_env_values = true, help_heading = "Everywhere")]
    token: Option<String>,
    /// Believe a server only if its certificate leads to one of this PEM file, instead of those that this system trusts
    #[arg(
        long,
        global = true,
        env = "MILLPOND_CA",
        value_name = "FILE",
        hide_env_values = true,
        help_heading = "Everywhere"
    )]
    ca: Option<std::path::PathBuf>,
    /// Print JSON for scripts
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// When to colour; NO_COLOR is respected
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Everywhere")]
    color: ColorChoice,
}

impl Global {
    /// The token, from `--token`, from `MILLPOND_TOKEN`, or from the file that `MILLPOND_TOKEN_FILE` names.
    fn token(&self) -> Result<Option<String>, Failure> {
        if self.token.is_some() {
            return Ok(self.token.clone());
        }
        let Some(path) = std::env::var_os("MILLPOND_TOKEN_FILE").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let path = std::path::PathBuf::from(path);
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::file(&path, "read", &error))?;
        Ok(Some(text.trim().to_owned()))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Push(push::Push),
    Import(import::Import),
    Work(work::Work),
    Workers(worker::Workers),
    Worker(worker::WorkerCommand),
    Fetch(fetch::Fetch),
    Queues(queues::Queues),
    Jobs(jobs::Jobs),
    Job(job::JobCommand),
    Join(join::JoinCommand),
    Signal(signal::Signal),
    Explain(explain::Explain),
    Dead(dead::Dead),
    Limit(limit::LimitCommand),
    Group(limit::GroupCommand),
    Pause(queues::Pause),
    Resume(queues::Resume),
    Purge(queues::Purge),
    Schedules(schedule::Schedules),
    Schedule(schedule::ScheduleCommand),
    Events(events::Events),
    Bulk(bulk::Bulk),
    Operations(operations::Operations),
    Stats(stats::StatsCommand),
    Top(top::Top),
    Bench(bench::Bench),
    Demo(demo::Demo),
    Config(config::Config),
    Key(key::Key),
    Token(token::Token),
    Backup(backup::Backup),
    Restore(restore::Restore),
    Verify(verify::Verify),
    Salvage(salvage::Salvage),
    Torture(torture::Torture),
}

/// What a command needs beside its own flags.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) json: bool,
    pub(crate) style: Style,
}

/// Reads the command line, does what it says, and answers with an exit code.
pub(crate) fn main() -> ExitCode {
    if let Some(ended) = sandbox::confined() {
        return ended;
    }
    let arguments = Arguments::parse();
    let global = arguments.global.clone();
    match run(arguments) {
        Ok(code) => code,
        Err(failure) => {
            report(&failure, &global);
            failure.exit_code()
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { global, command } = arguments;
    let threads = match command {
        Command::Serve(serve) => return serve.run(&global),
        Command::Config(config) => return config.run(&global).map(|()| ExitCode::SUCCESS),
        Command::Key(key) => return key.run(&global).map(|()| ExitCode::SUCCESS),
        Command::Token(token) => return token.run(&global).map(|()| ExitCode::SUCCESS),
        Command::Verify(verify) => return verify.run(&global).map(|()| ExitCode::SUCCESS),
        Command::Torture(torture) => return torture.run(&global).map(|()| ExitCode::SUCCESS),
        Command::Salvage(salvage) => return salvage.run(&global).map(|()| ExitCode::SUCCESS),
        Command::Restore(restore) => return restore.run(&global).map(|()| ExitCode::SUCCESS),
        Command::Backup(backup) if backup.is_offline() => {
            return backup.offline(&global).map(|()| ExitCode::SUCCESS);
        }
        Command::Demo(_) => 2,
        // A client waits on one socket: one thread spares it every hand-off between cores.
        _ => 1,
    };
    let runtime = runtime(threads)?;
    let context = Context {
        client: Client::new(&global.url, global.token()?.as_deref(), global.ca.as_deref())?,
        json: global.json,
        style: Style::stdout(global.color),
    };
    let context = &context;
    let ended = runtime.block_on(async move {
        match command {
            Command::Serve(_)
            | Command::Config(_)
            | Command::Key(_)
            | Command::Token(_)
            | Command::Restore(_)
            | Command::Salvage(_)
            | Command::Torture(_)
            | Command::Verify(_) => Ok(()),
            Command::Backup(command) => command.run(context).await,
            Command::Push(command) => command.run(context).await,
            Command::Import(command) => command.run(context).await,
            Command::Work(command) => command.run(context).await,
            Command::Workers(command) => command.run(context).await,
            Command::Worker(command) => command.run(context).await,
            Command::Fetch(command) => command.run(context).await,
            Command::Queues(command) => command.run(context).await,
            Command::Jobs(command) => command.run(context).await,
            Command::Job(command) => command.run(context).await,
            Command::Join(command) => command.run(context).await,
            Command::Signal(command) => command.run(context).await,
            Command::Explain(command) => command.run(context).await,
            Command::Dead(command) => command.run(context).await,
            Command::Limit(command) => command.run(context).await,
            Command::Group(command) => command.run(context).await,
            Command::Pause(command) => command.run(context).await,
            Command::Resume(command) => command.run(context).await,
            Command::Purge(command) => command.run(context).await,
            Command::Schedules(command) => command.run(context).await,
            Command::Schedule(command) => command.run(context).await,
            Command::Events(command) => command.run(context).await,
            Command::Bulk(command) => command.run(context).await,
            Command::Operations(command) => command.run(context).await,
            Command::Stats(command) => command.run(context).await,
            Command::Top(command) => command.run(context).await,
            Command::Bench(command) => command.run(context).await,
            Command::Demo(command) => command.run(context).await,
        }
    });
    // A thread that reads a terminal cannot be called back; nobody waits for it.
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}

/// The threads that a command runs on.
pub(crate) fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    };
    builder.enable_all().build().map_err(|error| Failure::Usage(format!("cannot start threads: {error}")))
}

fn report(failure: &Failure, global: &Global) {
    let style = Style::stderr(global.color);
    if global.json {
        let (code, status) = match failure {
            Failure::Client(crate::client::ClientError::Refused(problem)) => {
                (problem.code.as_str(), Some(problem.status))
            }
            _ => ("", None),
        };
        let text = serde_json::json!({
            "error": failure.to_string(), "code": code, "status": status, "help": failure.help(),
        });
        print::note(&text.to_string());
        return;
    }
    print::note(&format!("{} {}", style.bad("millpond:"), print::clean(&failure.to_string())));
    if let Some(help) = failure.help() {
        print::note(&format!("  {} {}", style.dim("→"), print::clean(&help)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_shows_an_example() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands_mut() {
            let help = sub.render_long_help().to_string();
            assert!(help.contains("millpond "), "{} shows no example:\n{help}", sub.get_name());
            assert!(help.contains("Example"), "{} shows no example:\n{help}", sub.get_name());
        }
    }
}
