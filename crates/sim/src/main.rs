//! `sim run`, `sim seed`, `sim plant`, `sim minimise`, `sim script`: see `USAGE`.

use sim::{Failure, Plan, Planted, Script, Trace, minimise, replay, simulate};
use std::{
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

const USAGE: &str = "usage:
  sim run [--seeds 300] [--commands 5000] [--first 0]   many seeds on all cores; prints what failed
  sim seed N [--commands 5000]                          one seed, every step printed
  sim plant [--seeds 40] [--commands 3000]              every planted bug; each must be caught
  sim minimise N [--commands 5000] [--runs 2000] [--planted BUG]
                                                        the shortest script found that fails as the seed does
  sim script FILE                                       a script, every step printed";

/// How often a failing seed of many is run again to make it short.
const RUNS: u64 = 600;

/// A seed allocates and frees more than anything else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    match arguments.first().map(String::as_str) {
        Some("run") => run(number("--first", 0), number("--seeds", 300), number("--commands", 5_000)),
        Some("seed") => one(number("seed", 0), number("--commands", 5_000)),
        Some("plant") => plant(number("--seeds", 40), number("--commands", 3_000)),
        Some("minimise") => {
            let named = arguments.iter().skip_while(|argument| *argument != "--planted").nth(1);
            let planted = named.and_then(|name| {
                Planted::ALL.into_iter().find(|planted| format!("{planted:?}").contains(name))
            });
            let plan = Plan { planted, ..Plan::new(number("--commands", 5_000)) };
            shorten(number("minimise", 0), plan, number("--runs", 2_000))
        }
        Some("script") => script(arguments.get(1).map_or("", String::as_str)),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::FAILURE
        }
    }
}

/// Runs seeds on all cores, in order of their start.
fn sweep(first: u64, seeds: u64, plan: Plan, stop_early: bool) -> (Vec<Trace>, Vec<Failure>) {
    let next = AtomicU64::new(first);
    let found = AtomicU64::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let (mut traces, mut failures) = (Vec::new(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || stop_early && found.load(Ordering::Relaxed) > 0 {
                return (traces, failures);
            }
            match simulate(seed, plan) {
                Ok(trace) => traces.push((seed, trace)),
                Err(failure) => {
                    found.fetch_add(1, Ordering::Relaxed);
                    failures.push(failure);
                }
            }
        }
    };
    let (mut traces, mut failures) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Ok((some, bad)) = thread.join() {
                traces.extend(some);
                failures.extend(bad);
            } else {
                eprintln!("a seed panicked; see above");
                std::process::exit(101);
            }
        }
    });
    traces.sort_by_key(|(seed, _)| *seed);
    failures.sort_by_key(|failure| failure.seed);
    (traces.into_iter().map(|(_, trace)| trace).collect(), failures)
}

fn run(first: u64, seeds: u64, commands: u64) -> ExitCode {
    let began = Instant::now();
    let (traces, failures) = sweep(first, seeds, Plan::new(commands), false);
    let sum = |of: fn(&Trace) -> u64| traces.iter().map(of).sum::<u64>();
    let hash = traces.iter().fold(0, |hash, trace| kit::random::mix(hash ^ trace.hash, trace.state as u64));
    let fewest = traces.iter().map(|trace| trace.faults).min().unwrap_or(0);
    for failure in failures.iter().take(20) {
        println!("{failure}");
    }
    println!(
        "{} of {seeds} seeds hold in {:.1} s: {} calls, {} commands logged, {} acknowledged, {} put off, {} faults, {} crashes, \
         {} checkpoints, {:.1} simulated hours, at least {fewest} faults a seed; trace and state hash {hash:016x}",
        traces.len(),
        began.elapsed().as_secs_f64(),
        sum(|trace| trace.calls),
        sum(|trace| trace.positions),
        sum(|trace| trace.acked),
        sum(|trace| trace.put_off),
        sum(|trace| trace.faults),
        sum(|trace| trace.crashes),
        sum(|trace| trace.checkpoints),
        sum(|trace| trace.millis) as f64 / 3_600_000.0,
    );
    let Some(first) = failures.first() else {
        // Fewer would prove little.
        let enough = fewest * 100 >= commands.min(5_000);
        return if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    };
    shorten(first.seed, Plan::new(commands), RUNS);
    ExitCode::FAILURE
}

/// Prints the script of a seed that fails, ready for the folder of regressions.
fn shorten(seed: u64, plan: Plan, runs: u64) -> ExitCode {
    // Panics are expected, over and over.
    std::panic::set_hook(Box::new(|_| ()));
    let runs = usize::try_from(runs).unwrap_or(usize::MAX);
    let Some(short) = minimise(seed, plan, runs) else {
        println!("seed {seed} holds");
        return ExitCode::SUCCESS;
    };
    println!(
        "# {} (of {} steps, {} are needed; {} runs)",
        short.failure,
        short.before,
        short.script.len(),
        short.runs
    );
    print!("{}", short.script);
    ExitCode::FAILURE
}

fn script(file: &str) -> ExitCode {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    match read.and_then(|text| text.parse::<Script>()) {
        Ok(script) => told(replay(&script, Plan { verbose: true, ..Plan::new(0) })),
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, commands: u64) -> ExitCode {
    told(simulate(seed, Plan { verbose: true, ..Plan::new(commands) }))
}

fn told(outcome: Result<Trace, Failure>) -> ExitCode {
    match outcome {
        Ok(trace) => {
            println!("{trace:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn plant(seeds: u64, commands: u64) -> ExitCode {
    let mut missed = 0;
    for planted in Planted::ALL {
        let plan = Plan { planted: Some(planted), ..Plan::new(commands) };
        let (_, failures) = sweep(0, seeds, plan, true);
        match failures.first() {
            Some(failure) => println!("caught  {planted:?}: {failure}"),
            None => {
                missed += 1;
                println!("MISSED  {planted:?}");
            }
        }
    }
    println!("{} of {} planted bugs caught", Planted::ALL.len() - missed, Planted::ALL.len());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
