//! A server and a command line, as a user has them.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses its part, and all of it is test code")]

use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;

pub(crate) fn millpond() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLPOND_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running `millpond serve` with a folder of its own; killed when dropped.
pub(crate) struct Server {
    pub url: String,
    pub folder: TempDir,
    child: Child,
}

impl Server {
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let mut child = millpond()
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "off", "--data"])
            .arg(&data)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line
            .split([' ', ','])
            .find(|word| word.starts_with("http://"))
            .unwrap_or_else(|| panic!("{line:?}"));
        Self { url: url.to_owned(), folder, child }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command against this server, in its folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = millpond();
        command.args(["--url", &self.url]).args(arguments).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed, and reads what it prints as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {ran:?}"))
    }

    /// What was ever pushed to a queue.
    pub(crate) fn pushed(&self, queue: &str) -> u64 {
        let queues = self.json(&["queues"]);
        let found = queues["queues"].as_array().unwrap().iter().find(|found| found["name"] == queue).cloned();
        found.map_or(0, |found| found["pushed_total"].as_u64().unwrap())
    }

    /// All jobs of a queue.
    pub(crate) fn jobs(&self, queue: &str) -> Vec<Value> {
        self.json(&["jobs", queue, "--all"])["jobs"].as_array().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
