//! The seeded simulator: production code on a disk, a clock and callers that misbehave the same way each time.
//!
//! ```text
//!  workload ──► node::Driver ──► node::Writer ──► WatchedLog ──► SegmentLog ──► WatchedFiles ──► FakeFiles
//!     ▲              │                                 │                                             ▲
//!     └── answers ◄──┴──► node::Keeper ──► Store       └──► Tee ──► genesis replay ──► Shadow        └── faults
//! ```
//!
//! Everything follows from one seed: what callers do, when they do it, and what goes wrong. What was told to callers, what
//! the log was given and what it holds after each crash is compared by the rules in `invariants`. A second model
//! of the jobs' rules, the shadow, is written apart from the core, so that the core is not its own judge.

mod history;
mod invariants;
mod minimise;
mod plant;
mod pond;
mod script;
mod shadow;
mod shims;
mod workload;
mod world;

pub use history::Violation;
pub use minimise::{Minimised, minimise};
pub use plant::Planted;
pub use script::Script;

use script::{Course, Recording};
use std::panic::AssertUnwindSafe;

/// What one run does.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Calls made.
    pub commands: u64,
    /// Whether anything goes wrong.
    pub faults: bool,
    /// A bug on purpose.
    pub planted: Option<Planted>,
    /// Print every step.
    pub verbose: bool,
}

impl Plan {
    /// A run of so many calls, with faults.
    pub const fn new(commands: u64) -> Self {
        Self { commands, faults: true, planted: None, verbose: false }
    }
}

/// What one run did. The same seed and plan give the same trace, in every build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trace {
    /// Of everything that happened, in order.
    pub hash: u64,
    /// Of the last state.
    pub state: u128,
    /// Calls made.
    pub calls: u64,
    /// Commands in the log.
    pub positions: u64,
    /// Answers that were OK.
    pub acked: u64,
    /// Calls that were told "not now": overloaded, or the disk was full.
    pub put_off: u64,
    /// Processes ended and started again.
    pub crashes: u64,
    /// Faults injected, crashes included.
    pub faults: u64,
    /// Checkpoints stored.
    pub checkpoints: u64,
    /// Simulated time, milliseconds.
    pub millis: u64,
}

/// A run that broke a rule.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// The step it was found at.
    pub step: u64,
    /// What is broken.
    pub violation: Violation,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {} step {}: {}", self.seed, self.step, self.violation)
    }
}

/// Runs one seed.
///
/// # Errors
/// The first broken rule. A panic breaks one, too.
pub fn simulate(seed: u64, plan: Plan) -> Result<Trace, Failure> {
    run(seed, plan, Course::Free, Recording::default())
}

/// Runs what is written in a script.
///
/// # Errors
/// As [`simulate`].
pub fn replay(script: &Script, plan: Plan) -> Result<Trace, Failure> {
    run(script.seed, plan, Course::Script(script.lines.clone()), Recording::default())
}

/// Runs, and writes down what was done.
fn recorded(seed: u64, plan: Plan, course: Course) -> (Script, Result<Trace, Failure>) {
    let recording = Recording::on();
    let outcome = run(seed, plan, course, recording.clone());
    (Script { seed, lines: recording.taken() }, outcome)
}

fn run(seed: u64, plan: Plan, course: Course, recording: Recording) -> Result<Trace, Failure> {
    millpond_core::plant::set(plan.planted.and_then(Planted::core));
    let world = AssertUnwindSafe(|| world::World::new(seed, plan, recording).run(course));
    let outcome = std::panic::catch_unwind(world);
    millpond_core::plant::set(None);
    outcome.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what =
            what.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default();
        Err(Failure { seed, step: 0, violation: Violation { invariant: "panic", what } })
    })
}
