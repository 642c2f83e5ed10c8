//! The package for Python: its types, and its tests against the real binary.

use crate::{Done, Outcome, steps, tools::present};
use std::{
    path::Path,
    process::{Command, Stdio},
};

/// What checks it, besides what it needs itself.
const CHECKERS: [&str; 2] = ["mypy==2.4.1", "pytest==9.2.0"];

pub(crate) fn run() -> Outcome {
    if !present("python3") {
        return Ok(Done::Skipped("python3 is not installed".to_owned()));
    }
    let sources = steps::root().join("sdk/python");
    let home = steps::target().join("sdk-python");
    let python = home.join("bin/python");
    if !python.is_file() && !works(Command::new("python3").args(["-m", "venv"]).arg(&home)) {
        return Ok(Done::Skipped("python3 makes no virtual environment here".to_owned()));
    }
    if !works(&mut pip(&python, &sources)) {
        return Ok(Done::Skipped(format!("not to be had here: {}", CHECKERS.join(", "))));
    }
    let module = |name: &str| {
        let mut command = Command::new(&python);
        command.args(["-m", name]).current_dir(&sources);
        command
    };
    crate::run(&mut module("mypy"))?;
    let binary = steps::target().join("release").join("millpond");
    crate::run(module("pytest").arg("-q").env("MILLPOND_BIN", binary))
}

/// The package as it lies there, with what it needs.
fn pip(python: &Path, sources: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet"]).args(CHECKERS).arg("--editable").arg(sources);
    pip
}

fn works(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}
