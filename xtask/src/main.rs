//! `cargo xtask test`: everything that a developer or CI runs, in one order, with one summary.

mod contract;
mod faktory;
mod instructions;
mod package;
mod steps;
mod tidy;
mod tools;

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};
use steps::{STEPS, Step};

/// How a step ended when nothing is wrong.
pub(crate) enum Done {
    Passed,
    /// It cannot run here; why.
    Skipped(String),
}

pub(crate) type Outcome = Result<Done, String>;

const USAGE: &str = "usage: cargo xtask test [--only STEP,...] [--skip STEP,...] | cargo xtask tidy";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("test") => match select(&words[1..]) {
            Ok(steps) => test(&steps),
            Err(wrong) => usage(&wrong),
        },
        Some("tidy") if words.len() == 1 => match tidy::run() {
            Ok(_) => ExitCode::SUCCESS,
            Err(wrong) => {
                eprintln!("{wrong}");
                ExitCode::FAILURE
            }
        },
        _ => usage("expected `test` or `tidy`"),
    }
}

fn usage(wrong: &str) -> ExitCode {
    let names: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    eprintln!("xtask: {wrong}\n{USAGE}\nsteps: {}", names.join(", "));
    ExitCode::from(2)
}

fn select(words: &[String]) -> Result<Vec<&'static Step>, String> {
    let mut steps: Vec<&Step> = STEPS.iter().collect();
    for pair in words.chunks(2) {
        let [flag, names] = pair else { return Err(format!("{} needs names", pair[0])) };
        let names: Vec<&str> = names.split(',').collect();
        if let Some(unknown) = names.iter().find(|name| !STEPS.iter().any(|step| step.name == **name)) {
            return Err(format!("there is no step {unknown}"));
        }
        match flag.as_str() {
            "--only" => steps.retain(|step| names.contains(&step.name)),
            "--skip" => steps.retain(|step| !names.contains(&step.name)),
            other => return Err(format!("there is no flag {other}")),
        }
    }
    Ok(steps)
}

fn test(steps: &[&Step]) -> ExitCode {
    let mut rows: Vec<(&str, Outcome, Duration)> = Vec::new();
    for step in steps {
        println!("\n=== {}: {}", step.name, step.about);
        let started = Instant::now();
        let outcome = (step.run)();
        if let Err(wrong) = &outcome {
            eprintln!("{}: {wrong}", step.name);
        }
        rows.push((step.name, outcome, started.elapsed()));
    }
    println!("\n{:<10} {:>9}  result", "step", "seconds");
    for (name, outcome, time) in &rows {
        let result = match outcome {
            Ok(Done::Passed) => "ok".to_owned(),
            Ok(Done::Skipped(why)) => format!("skipped: {why}"),
            Err(wrong) => format!("FAILED: {}", wrong.lines().next().unwrap_or_default()),
        };
        println!("{name:<10} {:>9.1}  {result}", time.as_secs_f64());
    }
    let failed = rows.iter().filter(|(_, outcome, _)| outcome.is_err()).count();
    let passed = rows.iter().filter(|(_, outcome, _)| matches!(outcome, Ok(Done::Passed))).count();
    println!("{passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a command to its end; a bad exit status is an error.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| format!("{command:?} cannot start: {error}"))?;
    if status.success() { Ok(Done::Passed) } else { Err(format!("{command:?} ended with {status}")) }
}
