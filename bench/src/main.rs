//! What Millpond does in a second, beside what the machine can do at all.
//!
//! ```text
//! cargo run --release -p bench -- [all|limits|embedded|flow|fairness|http|stream|latency|backlog|growth|bulk|idle|at_rest|bodies] [--rounds N] [--huge] [--curve NAME] [--markdown]
//! ```
//!
//! Every number is the median of several rounds, with the smallest and the largest. A peer to compare with is one more
//! module that returns rows.

mod at_rest;
mod backlog;
mod bodies;
mod bulk;
mod embedded;
mod fairness;
mod flow;
mod growth;
mod http;
mod idle;
mod latency;
mod limits;
mod process;
mod report;
mod stream;

use report::{Report, Result};
use std::process::ExitCode;

/// The same as in the server, so that the library is measured with what the documentation advises.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was asked for.
struct Plan {
    /// Measurements of each number.
    rounds: usize,
    /// Ten million jobs as well as one.
    huge: bool,
    /// Of the curves only this one.
    curve: Option<String>,
}

type Part = fn(&Plan, &mut Report) -> Result<()>;

/// The limits come first, so that everything else can be read against them.
const PARTS: [(&str, Part); 13] = [
    ("limits", limits::run),
    ("embedded", embedded::run),
    ("flow", flow::run),
    ("fairness", fairness::run),
    ("http", http::run),
    ("stream", stream::run),
    ("latency", latency::run),
    ("backlog", backlog::run),
    ("growth", growth::run),
    ("bulk", bulk::run),
    ("idle", idle::run),
    ("at_rest", at_rest::run),
    ("bodies", bodies::run),
];

fn main() -> ExitCode {
    let mut plan = Plan { rounds: 5, huge: false, curve: None };
    let (mut wanted, mut markdown) = (Vec::new(), false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--huge" => plan.huge = true,
            "--markdown" => markdown = true,
            "--curve" => match words.next() {
                Some(name) if growth::CURVES.contains(&name.as_str()) => plan.curve = Some(name),
                _ => return usage(&format!("--curve needs one of {}", growth::CURVES.join(", "))),
            },
            "--rounds" => {
                match words.next().and_then(|value| value.parse().ok()).filter(|rounds| *rounds > 0) {
                    Some(rounds) => plan.rounds = rounds,
                    None => return usage("--rounds needs a number"),
                }
            }
            "all" => wanted.extend(PARTS.map(|(name, _)| name.to_owned())),
            name if PARTS.iter().any(|(known, _)| *known == name) => wanted.push(name.to_owned()),
            other => return usage(&format!("there is no part or flag {other}")),
        }
    }
    if wanted.is_empty() {
        return usage("name a part, or all");
    }
    let mut report = Report::new(markdown);
    for (name, part) in PARTS {
        // The limits of the machine stand beside every result.
        if name != "limits" && !wanted.iter().any(|part| part == name) {
            continue;
        }
        eprintln!("measuring {name} …");
        if let Err(error) = part(&plan, &mut report) {
            eprintln!("bench: {name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    report.print();
    ExitCode::SUCCESS
}

fn usage(wrong: &str) -> ExitCode {
    let names = PARTS.map(|(name, _)| name).join("|");
    eprintln!("bench: {wrong}\nusage: bench [all|{names}] [--rounds N] [--huge] [--curve NAME] [--markdown]");
    ExitCode::from(2)
}
