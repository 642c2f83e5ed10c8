//! The package for Node: built and tested against the real binary, in a copy, so that the sources stay clean.

use crate::{Done, Outcome, steps, tools::present};
use std::{fs, process::Command};

pub(crate) fn run() -> Outcome {
    if !present("node") || !present("npm") {
        return Ok(Done::Skipped("Node is not here".to_owned()));
    }
    let source = steps::root().join("sdk/node");
    let copy = steps::target().join("sdk-node");
    // What was there before may be another version's; `node_modules` is made anew by npm.
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir_all(&copy).map_err(|error| format!("{}: {error}", copy.display()))?;
    for name in ["package.json", "package-lock.json", ".npmrc", "tsconfig.json", "README.md", "src", "test"] {
        crate::run(Command::new("cp").arg("-r").arg(source.join(name)).arg(&copy))?;
    }
    let npm = |words: &[&str]| {
        let mut command = Command::new("npm");
        command
            .args(words)
            .env("MILLPOND_BIN", steps::target().join("release").join("millpond"))
            .current_dir(&copy);
        crate::run(&mut command)
    };
    if npm(&["ci", "--ignore-scripts"]).is_err() {
        return Ok(Done::Skipped("its dependencies are not to be had here".to_owned()));
    }
    npm(&["run", "build"])?;
    npm(&["test"])
}
