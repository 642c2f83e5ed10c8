//! `millpond torture`: breaks servers of its own in a scratch directory, and looks for what was acknowledged.

use super::{Failure, Global, print, print::Style, verify::many};
use clap::Args;
use faults::{Plan, ROWS, Ran, Row, Tally, TempDir};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Break servers on this machine on purpose, and check that nothing acknowledged is lost
///
/// It runs servers of its own in a new directory, kills them, freezes them, cuts their answers off, flips bits, and compares what they
/// have afterwards with a ledger of what they acknowledged. No server of yours is touched. A failure is named with a seed that repeats
/// what was broken and when. Exit code 0 if nothing was lost, 1 otherwise.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  millpond torture
  millpond torture --minutes 60 --dir /mnt/the-disk-in-question/scratch
  millpond torture --list
  millpond torture --rows F1,F24 --seed 42 --count 100")]
pub(crate) struct Torture {
    /// For how long; the round under way is finished
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Only these rows; without it, all that need no root
    #[arg(long, value_delimiter = ',', value_name = "ROW,..")]
    rows: Vec<String>,
    /// Where randomness begins; without it, from the clock
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run each row once with so many trials and exactly this seed, whatever the time: to repeat a failure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: Option<u64>,
    /// A scratch directory on the disk to try; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Say which rows there are, and end
    #[arg(long)]
    list: bool,
}

/// What is seen of a row.
#[derive(Default)]
struct Seen {
    trials: u64,
    rounds: u64,
    last: String,
    skipped: bool,
}

/// A breach, and how to see it again.
struct Found {
    row: &'static str,
    seed: u64,
    count: u64,
    breach: String,
}

impl Torture {
    pub(crate) fn run(self, global: &Global) -> Result<(), Failure> {
        if self.list {
            list(global);
            return Ok(());
        }
        let rows = self.chosen()?;
        let scratch = scratch(self.dir.as_deref())?;
        let this = std::env::current_exe()
            .map_err(|error| Failure::Check(format!("this program does not find itself: {error}")))?;
        faults::choose(this);
        let seed = self.seed.unwrap_or_else(|| print::now().0);
        let end = Instant::now() + Duration::from_secs(self.minutes * 60);
        let started = Instant::now();
        let tally = Arc::new(Tally::default());
        let mut seen: BTreeMap<&str, Seen> = BTreeMap::new();
        let mut found = None;
        let spinner = ProgressBar::new_spinner();
        spinner.enable_steady_tick(Duration::from_millis(200));
        'rounds: for round in 0.. {
            for (place, row) in rows.iter().enumerate() {
                let seen = seen.entry(row.name).or_default();
                if seen.skipped {
                    continue;
                }
                let plan = Plan {
                    count: self.count.unwrap_or(if row.round > 0 { row.round } else { row.count }),
                    seed: match self.count {
                        Some(_) => seed,
                        None => kit::random::mix(seed, round << 16 | place as u64) >> 16,
                    },
                    place: scratch.path().to_owned(),
                    tally: tally.clone(),
                };
                match watched(row, &plan, &spinner, started) {
                    Ok(Ran::Passed(trials, what)) => {
                        (seen.trials, seen.rounds, seen.last) = (seen.trials + trials, seen.rounds + 1, what);
                    }
                    Ok(Ran::Skipped(why)) => (seen.skipped, seen.last) = (true, why),
                    Err(breach) => {
                        found = Some(Found { row: row.name, seed: plan.seed, count: plan.count, breach });
                        break 'rounds;
                    }
                }
                if self.count.is_none() && Instant::now() >= end {
                    break 'rounds;
                }
            }
            if self.count.is_some() || seen.values().all(|seen| seen.skipped) {
                break;
            }
        }
        spinner.finish_and_clear();
        let took = started.elapsed();
        if global.json {
            print::line(&to_json(&rows, &seen, found.as_ref(), &tally, seed, took).to_string());
        } else {
            show(&rows, &seen, found.is_none(), &tally, seed, took, Style::stdout(global.color));
        }
        match found {
            None => Ok(()),
            Some(Found { row, seed, count, breach }) => Err(Failure::Check(format!(
                "{row} found something broken: {breach}\n  again: millpond torture --rows {row} --seed {seed} --count {count}"
            ))),
        }
    }

    fn chosen(&self) -> Result<Vec<&'static Row>, Failure> {
        if self.rows.is_empty() {
            return Ok(ROWS.iter().filter(|row| row.round > 0).collect());
        }
        let named = |name: &String| {
            ROWS.iter().find(|row| row.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                Failure::Usage(format!("there is no row {name}; `millpond torture --list` names them"))
            })
        };
        self.rows.iter().map(named).collect()
    }
}

/// A directory of its own, below the one that was asked for or in the place for temporary files; gone at the end.
fn scratch(asked: Option<&Path>) -> Result<TempDir, Failure> {
    let Some(path) = asked else {
        let made = TempDir::with_prefix("millpond-torture-");
        return made.map_err(|error| Failure::file(&std::env::temp_dir(), "make a directory in", &error));
    };
    if path.join("identity").exists() || path.join("log").exists() {
        return Err(Failure::Usage(format!(
            "{} holds a data directory, and torture is not for data: name a new or an empty directory",
            path.display()
        )));
    }
    std::fs::create_dir_all(path).map_err(|error| Failure::file(path, "make", &error))?;
    let mut entries = std::fs::read_dir(path).map_err(|error| Failure::file(path, "list", &error))?;
    if entries.next().is_some() {
        return Err(Failure::Usage(format!(
            "{} is not empty: name a new or an empty directory",
            path.display()
        )));
    }
    TempDir::with_prefix_in("torture-", path).map_err(|error| Failure::file(path, "write in", &error))
}

/// Runs a row, with counters that live meanwhile.
fn watched(row: &Row, plan: &Plan, spinner: &ProgressBar, started: Instant) -> Result<Ran, String> {
    std::thread::scope(|scope| {
        let running = scope.spawn(|| (row.run)(plan));
        while !running.is_finished() {
            spinner.set_message(format!(
                "{} {} · {} faults · {} acknowledgements checked · nothing lost · {} s",
                row.name,
                row.about,
                print::count(plan.tally.faults()),
                print::count(plan.tally.acknowledged()),
                started.elapsed().as_secs()
            ));
            std::thread::sleep(Duration::from_millis(100));
        }
        running.join().unwrap_or_else(|_| Err("the row itself failed: a mistake of the program".to_owned()))
    })
}

fn list(global: &Global) {
    if global.json {
        let rows: Vec<Value> = ROWS
            .iter()
            .map(|row| json!({"row": row.name, "about": row.about, "root": row.round == 0}))
            .collect();
        return print::line(&Value::from(rows).to_string());
    }
    for row in ROWS {
        let root = if row.round == 0 { "  (needs root; only if named)" } else { "" };
        print::line(&format!("{:<4} {}{root}", row.name, row.about));
    }
}

fn show(
    rows: &[&Row],
    seen: &BTreeMap<&str, Seen>,
    whole: bool,
    tally: &Tally,
    seed: u64,
    took: Duration,
    style: Style,
) {
    for row in rows {
        let Some(seen) = seen.get(row.name) else { continue };
        let what = match (seen.skipped, seen.rounds) {
            (true, _) => style.dim(&format!("skipped: {}", seen.last)),
            (false, 0) => continue,
            (false, _) => format!("{}; at last: {}", many(seen.trials, "trial"), seen.last),
        };
        print::line(&format!("{:<4} {}: {what}", row.name, row.about));
    }
    print::line(&format!("faults injected:          {}", print::count(tally.faults())));
    print::line(&format!("acknowledgements checked: {}", print::count(tally.acknowledged())));
    let lost = if whole { style.good("nothing") } else { style.bad("see below") };
    print::line(&format!("lost:                     {lost}"));
    print::line(&format!("seed {seed}, {} s", took.as_secs()));
}

fn to_json(
    rows: &[&Row],
    seen: &BTreeMap<&str, Seen>,
    found: Option<&Found>,
    tally: &Tally,
    seed: u64,
    took: Duration,
) -> Value {
    let rows: Vec<Value> = rows
        .iter()
        .filter_map(|row| {
            let seen = seen.get(row.name)?;
            Some(json!({
                "row": row.name, "about": row.about, "trials": seen.trials, "skipped": seen.skipped, "seen": seen.last,
            }))
        })
        .collect();
    let found = found.map(
        |found| json!({"row": found.row, "seed": found.seed, "count": found.count, "what": found.breach}),
    );
    json!({
        "ok": found.is_none(), "seed": seed, "seconds": took.as_secs(), "faults": tally.faults(),
        "acknowledgements": tally.acknowledged(), "rows": rows, "found": found,
    })
}
