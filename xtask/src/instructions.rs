//! How many instructions fixed work takes: the same number on a busy machine, so that a test can hold it where it is.
//!
//! Valgrind counts them. `bench/instructions.txt` holds what they were; `MILLPOND_BLESS=1` writes it anew.

use crate::{
    Done, Outcome,
    steps::{root, target},
    tools,
};
use std::{collections::BTreeMap, env, fs, process::Command};

const PAGE: &str = "bench/instructions.txt";
const SCENARIOS: [(&str, u64); 7] = [
    ("core", 40),
    ("core-limits", 40),
    ("core-ordered", 40),
    ("stream", 40),
    ("pond", 40),
    ("checkpoint", 20),
    ("recovery", 10),
];
/// What a change may add before it has to be looked at, in percent.
const MORE: f64 = 3.0;
/// The same where another compiler made the program: it is not the change that is compared then.
const MORE_ELSEWHERE: f64 = 25.0;

pub(crate) fn run() -> Outcome {
    if !tools::present("valgrind") {
        return Ok(Done::Skipped("valgrind is not installed".to_owned()));
    }
    let compiler = compiler()?;
    let mut now = BTreeMap::new();
    for (name, times) in SCENARIOS {
        let (once, twice) = (count(name, times)?, count(name, 2 * times)?);
        now.insert(name.to_owned(), twice.saturating_sub(once) / times);
    }
    let path = root().join(PAGE);
    if env::var_os("MILLPOND_BLESS").is_some() {
        fs::write(&path, page(&compiler, &now)).map_err(|error| format!("{PAGE}: {error}"))?;
        return Ok(Done::Passed);
    }
    let page = fs::read_to_string(&path).map_err(|error| format!("{PAGE}: {error}"))?;
    let (made_by, then) = read(&page);
    let more = if made_by == compiler { MORE } else { MORE_ELSEWHERE };
    println!("{:<16} {:>12} {:>12}   {made_by}, now {compiler}", "for 100 jobs", "then", "now");
    for (name, count) in &now {
        println!("{name:<16} {:>12} {count:>12}", then.get(name).copied().unwrap_or(0));
    }
    let wrong = worse(&then, &now, more);
    if wrong.is_empty() {
        return Ok(Done::Passed);
    }
    Err(format!("{}; if it is worth it, MILLPOND_BLESS=1 writes {PAGE}", wrong.join("; ")))
}

fn compiler() -> Result<String, String> {
    let out = Command::new("rustc").arg("--version").output().map_err(|error| format!("rustc: {error}"))?;
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Instructions from the start to the end.
fn count(name: &str, times: u64) -> Result<u64, String> {
    let program = target().join("release").join("scenarios");
    let out = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&out.stderr);
    let counted = counted(&said).filter(|_| out.status.success());
    counted.ok_or_else(|| format!("{name} was not counted:\n{said}"))
}

/// The number in valgrind's line `==1== I refs: 1,234`; older ones say `I   refs`.
fn counted(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains(" I ") && line.contains("refs:"))?;
    line.rsplit(':').next()?.trim().replace(',', "").parse().ok()
}

fn page(compiler: &str, counts: &BTreeMap<String, u64>) -> String {
    let mut page = format!(
        "# Instructions for a batch of 100 jobs of 100 bytes, counted by `cargo xtask test --only release,instructions`.\n# {compiler}\n"
    );
    for (name, count) in counts {
        page += &format!("{name} {count}\n");
    }
    page
}

/// The compiler and the counts.
fn read(page: &str) -> (String, BTreeMap<String, u64>) {
    let compiler = page.lines().find_map(|line| line.strip_prefix("# rustc")).unwrap_or_default();
    let row = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    (format!("rustc{compiler}"), page.lines().filter_map(row).collect())
}

fn worse(then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, more: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, count) in now {
        match then.get(name) {
            None => wrong.push(format!("{name} is not in the list")),
            Some(then) => {
                let grown = 100.0 * (*count as f64 / *then as f64 - 1.0);
                if grown > more {
                    wrong.push(format!("{name} takes {grown:.1} % more instructions, {more} % may be"));
                }
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_what_valgrind_says() {
        assert_eq!(counted("==7== Command: x\n==7== \n==7== I refs:        1,234,567\n"), Some(1_234_567));
        assert_eq!(counted("==7== I   refs:      99\n"), Some(99));
        assert_eq!(counted("==7== Command: x\n"), None);
    }

    #[test]
    fn more_than_allowed_is_found_and_less_is_welcome() {
        let of = |count| BTreeMap::from([("core".to_owned(), count)]);
        assert_eq!(read(&page("rustc 1.2.3", &of(1_000))), ("rustc 1.2.3".to_owned(), of(1_000)));
        assert!(worse(&of(1_000), &of(1_029), 3.0).is_empty());
        assert!(worse(&of(1_000), &of(10), 3.0).is_empty());
        assert_eq!(worse(&of(1_000), &of(1_040), 3.0).len(), 1);
        assert_eq!(worse(&BTreeMap::new(), &of(1), 3.0), ["core is not in the list"]);
    }
}
