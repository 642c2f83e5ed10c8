//! Makes a failing run short: leaves out steps as long as the same rule stays broken.
//!
//! Delta debugging (Zeller, Hildebrandt: "Simplifying and isolating failure-inducing input", 2002): ever smaller pieces are tried. Each step
//! has luck of its own, and what callers choose is counted back from what they learned last, so most steps
//! do the same whether or not others happen.

use crate::{
    Failure, Plan,
    script::{Course, Script},
};

/// A failing run, made short.
#[derive(Debug, Clone)]
pub struct Minimised {
    /// What it breaks.
    pub failure: Failure,
    /// The steps that are needed.
    pub script: Script,
    /// How many steps it had.
    pub before: usize,
    /// How many runs that took.
    pub runs: usize,
}

/// The shortest run that was found within so many tries; `None` if the seed breaks no rule.
pub fn minimise(seed: u64, plan: Plan, runs_max: usize) -> Option<Minimised> {
    let (script, outcome) = crate::recorded(seed, plan, Course::Free);
    let mut found = Minimised { failure: outcome.err()?, before: script.len(), script, runs: 1 };
    let mut piece = found.script.len().div_ceil(2);
    while piece > 0 && found.runs < runs_max {
        let before = found.script.len();
        let mut from = 0;
        while from < found.script.len() && found.runs < runs_max {
            let steps = found.script.lines.iter().map(|line| line.step).enumerate();
            let steps = steps.filter(|(at, _)| !(from..from + piece).contains(at)).map(|(_, step)| step);
            let (script, outcome) = crate::recorded(seed, plan, Course::Only(steps.collect()));
            found.runs += 1;
            match outcome {
                Err(failure) if failure.violation.invariant == found.failure.violation.invariant => {
                    (found.failure, found.script) = (failure, script);
                }
                _ => from += piece,
            }
        }
        // Single steps are tried until none can be left out.
        piece = if piece == 1 && found.script.len() < before { 1 } else { piece / 2 };
    }
    Some(found)
}
