//! Packages for Node: built and tested against the real binary, in a copy, so that the sources stay clean.

use crate::{Done, Outcome, run, steps, tools::present};
use std::{fs, process::Command};

/// `@millpond/client`.
pub(crate) fn client() -> Outcome {
    package("node", "ci", &["package-lock.json", "README.md"])
}

/// `@millpond/bullmq`, with the published BullMQ. Without a lock: it would have to name optional packages of every system, and a
/// registry may not have them all.
pub(crate) fn bullmq() -> Outcome {
    package("bullmq", "install", &["tsconfig.cjs.json"])
}

fn package(name: &str, fetch: &str, more: &[&str]) -> Outcome {
    if !present("node") || !present("npm") {
        return Ok(Done::Skipped("Node is not here".to_owned()));
    }
    let source = steps::root().join("sdk").join(name);
    let copy = steps::target().join("packages").join(name);
    // What was there before may be another version's; npm makes `node_modules` anew.
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    for part in ["package.json", ".npmrc", "tsconfig.json", "src", "test"].iter().chain(more) {
        run(Command::new("cp").arg("-r").arg(source.join(part)).arg(&copy))?;
    }
    let npm = |words: &[&str]| {
        let binary = steps::target().join("release").join("millpond");
        run(Command::new("npm").args(words).env("MILLPOND_BIN", binary).current_dir(&copy))
    };
    if npm(&[fetch, "--ignore-scripts"]).is_err() {
        return Ok(Done::Skipped("its dependencies are not to be had here".to_owned()));
    }
    npm(&["run", "build"])?;
    npm(&["test"])
}
