//! Faults on the real binary and the real disk. Every row of the table below runs a server, breaks something at a chosen
//! moment, starts it again, and compares what is there with the ledger of what was acknowledged.
//!
//! ```text
//! faults list
//! faults run [ROW...] [--count N] [--seed N]
//! ```

mod ledger;
mod load;
mod pond;
mod rows;
mod script;
mod strace;

use rows::{ROWS, Row};
use std::{process::ExitCode, time::Instant};

/// What a row is told.
struct Plan {
    /// Trials, or points per system call.
    count: u64,
    /// Where its randomness begins.
    seed: u64,
}

/// How a row ended without a breach.
enum Ran {
    /// So many trials, and what was seen.
    Passed(u64, String),
    /// It cannot run here.
    Skipped(String),
}

/// What a row found broken, for people.
type Breach = String;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("list") if words.len() == 1 => {
            for row in ROWS {
                println!("{:<5} {:<5} {}", row.name, row.count, row.about);
            }
            ExitCode::SUCCESS
        }
        Some("run") => match parse(&words[1..]) {
            Ok((rows, count, seed)) => run(&rows, count, seed),
            Err(wrong) => usage(&wrong),
        },
        _ => usage("expected `run` or `list`"),
    }
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("faults: {wrong}\nusage: faults list | faults run [ROW...] [--count N] [--seed N]");
    ExitCode::from(2)
}

fn parse(words: &[String]) -> Result<(Vec<&'static Row>, Option<u64>, u64), String> {
    let (mut rows, mut count, mut seed) = (Vec::new(), None, 1);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("{word} needs a number"))
        };
        match word.as_str() {
            "--count" => count = Some(number()?),
            "--seed" => seed = number()?,
            name => match ROWS.iter().find(|row| row.name.eq_ignore_ascii_case(name)) {
                Some(row) => rows.push(row),
                None => return Err(format!("there is no row {name}; `faults list` names them")),
            },
        }
    }
    if rows.is_empty() {
        rows.extend(ROWS);
    }
    Ok((rows, count, seed))
}

fn run(rows: &[&Row], count: Option<u64>, seed: u64) -> ExitCode {
    let mut broken = 0;
    println!("| row | fault | trials | result | time |\n|---|---|--:|---|--:|");
    for row in rows {
        let started = Instant::now();
        let plan = Plan { count: count.unwrap_or(row.count), seed };
        let (trials, result) = match (row.run)(&plan) {
            Ok(Ran::Passed(trials, seen)) => (trials, format!("ok: {seen}")),
            Ok(Ran::Skipped(why)) => (0, format!("skipped: {why}")),
            Err(breach) => {
                broken += 1;
                eprintln!("{} (seed {seed}): {breach}", row.name);
                (0, "BROKEN".to_owned())
            }
        };
        let time = started.elapsed().as_secs_f64();
        println!("| {} | {} | {trials} | {result} | {time:.1} s |", row.name, row.about);
    }
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
