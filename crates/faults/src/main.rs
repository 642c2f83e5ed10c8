//! The fault suite as the tests of this workspace run it.
//!
//! ```text
//! faults list
//! faults run [ROW...] [--count N] [--soak] [--seed N]
//! ```

use faults::{Plan, ROWS, Ran, Row, Tally};
use std::{process::ExitCode, sync::Arc, time::Instant};

#[derive(Default)]
struct Asked {
    rows: Vec<&'static Row>,
    count: Option<u64>,
    soak: bool,
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("list") if words.len() == 1 => {
            for row in ROWS {
                println!("{:<5} {:>6} {:>6}  {}", row.name, row.count, row.soak, row.about);
            }
            ExitCode::SUCCESS
        }
        Some("run") => match parse(&words[1..]) {
            Ok(asked) => run(&asked),
            Err(wrong) => usage(&wrong),
        },
        _ => usage("expected `run` or `list`"),
    }
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("faults: {wrong}\nusage: faults list | faults run [ROW...] [--count N] [--soak] [--seed N]");
    ExitCode::from(2)
}

fn parse(words: &[String]) -> Result<Asked, String> {
    let mut asked = Asked::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("{word} needs a number"))
        };
        match word.as_str() {
            "--count" => asked.count = Some(number()?),
            "--soak" => asked.soak = true,
            "--seed" => asked.seed = Some(number()?),
            name => match ROWS.iter().find(|row| row.name.eq_ignore_ascii_case(name)) {
                Some(row) => asked.rows.push(row),
                None => return Err(format!("there is no row {name}; `faults list` names them")),
            },
        }
    }
    if asked.rows.is_empty() {
        asked.rows.extend(ROWS);
    }
    Ok(asked)
}

fn run(asked: &Asked) -> ExitCode {
    let mut broken = 0;
    let seed = asked.seed.unwrap_or(1);
    println!("| row | fault | trials | result | time |\n|---|---|--:|---|--:|");
    for row in &asked.rows {
        let started = Instant::now();
        let count = asked.count.unwrap_or(if asked.soak { row.soak } else { row.count });
        let plan = Plan { count, seed, place: std::env::temp_dir(), tally: Arc::new(Tally::default()) };
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
