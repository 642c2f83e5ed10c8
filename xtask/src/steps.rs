//! What is tested, in the order in which it fails fastest.
//!
//! Two builds serve everything: the development build runs unit tests and features, the release build is the real
//! binary for the simulator, the fault suite, the features and the demo. Both are built for the whole workspace at once, so that no crate
//! is compiled again with other features.

use crate::{Done, Outcome, faktory, instructions, package, run, tidy, tools};
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn() -> Outcome,
}

#[rustfmt::skip]
pub(crate) const STEPS: &[Step] = &[
    Step { name: "tools", about: "what tests need beside Rust", run: tools::install },
    Step { name: "tidy", about: "the rules of the house", run: tidy::run },
    Step { name: "fmt", about: "formatting", run: || cargo(&["fmt", "--all", "--check"]) },
    Step { name: "deny", about: "licences and sources of dependencies", run: deny },
    Step { name: "clippy", about: "lints, as errors", run: || cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]) },
    Step { name: "unit", about: "tests of every crate", run: unit },
    Step { name: "doctest", about: "examples in the documentation", run: || cargo(&["test", "--workspace", "--doc"]) },
    Step { name: "doc", about: "the documentation, warnings as errors", run: doc },
    Step { name: "release", about: "the binaries for what follows", run: release },
    Step { name: "instructions", about: "how many fixed work takes", run: instructions::run },
    Step { name: "sim", about: "2,000 seeds of 5,000 commands", run: || built("sim", &["run", "--seeds", "2000", "--commands", "5000"]) },
    Step { name: "plant", about: "planted bugs that the simulator must catch", run: || built("sim", &["plant"]) },
    Step { name: "faults", about: "kills and failing calls on the real binary", run: || built("faults", &["run"]) },
    Step { name: "features", about: "what users see", run: features },
    Step { name: "faktory", about: "published Faktory clients on the real binary", run: faktory::run },
    Step { name: "sdk-node", about: "the package for Node on the real binary", run: package::client },
    Step { name: "sdk-bullmq", about: "the published BullMQ on the real binary", run: package::bullmq },
    Step { name: "demo", about: "the demo, to its end", run: demo },
];

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn cargo(words: &[&str]) -> Outcome {
    run(Command::new("cargo").args(words).current_dir(root()))
}

fn unit() -> Outcome {
    // The runner of the features has a main function of its own.
    let all = ["--workspace", "--exclude", "features"];
    if tools::present("cargo-nextest") {
        return cargo(&[&["nextest", "run", "--no-fail-fast"][..], &all].concat());
    }
    cargo(&[&["test", "--no-fail-fast", "--lib", "--bins", "--tests", "--examples"][..], &all].concat())
}

fn doc() -> Outcome {
    let mut command = Command::new("cargo");
    run(command
        .args(["doc", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(root()))
}

/// Advisories need data from the network; the other checks do not.
fn deny() -> Outcome {
    if !tools::present("cargo-deny") {
        return Ok(Done::Skipped("cargo-deny is not installed".to_owned()));
    }
    cargo(&["deny", "--offline", "check", "bans", "licenses", "sources"])
}

/// The simulator compiles hooks for planted bugs into the core, so the binary that users get is never built together with it.
fn release() -> Outcome {
    cargo(&["build", "--release", "--package", "server", "--package", "faults", "--package", "bench"])?;
    cargo(&["build", "--release", "--package", "sim"])
}

fn built(name: &str, words: &[&str]) -> Outcome {
    let folder = target().join("release");
    run(Command::new(folder.join(name))
        .args(words)
        .env("MILLPOND_BIN", folder.join("millpond"))
        .current_dir(root()))
}

fn features() -> Outcome {
    let binary = target().join("release").join("millpond");
    let mut command = Command::new("cargo");
    run(command
        .args(["test", "--workspace", "--test", "features"])
        .env("MILLPOND_BIN", binary)
        .current_dir(root()))
}

fn demo() -> Outcome {
    run(Command::new(target().join("release").join("millpond")).args(["demo", "--exit"]).current_dir(root()))
}
