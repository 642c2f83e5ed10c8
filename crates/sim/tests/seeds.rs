//! Runs that once failed, and what every run must keep. The script that `sim run` prints for a failing seed becomes a file in
//! `regressions`, named after what was wrong.

use millpond_core::plant::Bug;
use sim::{Plan, Planted, Script, minimise, replay, simulate};

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1_000..1_004 {
        let [first, second] =
            [(); 2].map(|()| simulate(seed, Plan::new(600)).map_err(|failure| failure.to_string()));
        assert_eq!(first, second);
        assert!(first.is_ok(), "{first:?}");
    }
    let traces: Vec<_> = [1_000, 1_001].map(|seed| simulate(seed, Plan::new(600)).unwrap().hash).into();
    assert_ne!(traces[0], traces[1], "the seed decides");
}

#[test]
fn without_faults_nothing_crashes_and_everything_is_acknowledged() {
    let trace = simulate(5, Plan { faults: false, ..Plan::new(600) }).unwrap();
    assert_eq!((trace.faults, trace.crashes), (0, 1), "only the last restart");
    assert!(trace.checkpoints > 0 && trace.acked > 300, "{trace:?}");
}

#[test]
fn a_failing_seed_becomes_a_short_script_that_fails_alike() {
    let plan = Plan { planted: Some(Planted::Core(Bug::AcceptStaleToken)), ..Plan::new(1_000) };
    let short = (0..40).find_map(|seed| minimise(seed, plan, 400)).expect("the bug is found");
    assert!(short.script.len() * 20 < short.before, "{} of {} steps", short.script.len(), short.before);
    let read: Script = short.script.to_string().parse().unwrap();
    assert_eq!(read.to_string(), short.script.to_string());
    let again = replay(&read, plan).expect_err("the script fails as the seed did");
    assert_eq!(again.violation.to_string(), short.failure.violation.to_string());
    let holds = Plan { planted: None, ..plan };
    assert!(replay(&read, holds).is_ok(), "without the bug nothing is wrong with it");
}

#[test]
fn a_script_that_is_not_one_is_refused_by_its_line() {
    for line in ["step 1 at 2 call disk xyz", "step 1 at 2 sing", "step x at 2 work", "seed", "hello"] {
        assert_eq!(line.parse::<Script>().unwrap_err(), format!("not a line of a script: {line}"));
    }
}

#[test]
fn runs_that_failed_once_hold() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "script") {
            let script: Script = std::fs::read_to_string(&path).unwrap().parse().unwrap();
            assert!(!script.is_empty(), "{}", path.display());
            replay(&script, Plan::new(0)).unwrap_or_else(|failure| panic!("{}: {failure}", path.display()));
        }
    }
}

/// Others may stumble over these bugs as well; the rule that was written for them must do so by itself.
#[test]
fn bugs_are_found_by_the_rule_that_was_written_for_them() {
    for (bug, rule) in [
        (Bug::JoinTooEarly, "I17"),
        (Bug::KeepLosers, "I17"),
        (Bug::TellAlertAgain, "I22"),
        (Bug::TellAlertLate, "I22"),
        (Bug::PatchBlindly, "I23"),
    ] {
        let plan = Plan { planted: Some(Planted::Core(bug)), ..Plan::new(1_000) };
        let found = |seed| simulate(seed, plan).is_err_and(|failure| failure.to_string().contains(rule));
        assert!((0..40).any(found), "{bug:?} was missed by 40 seeds");
    }
}
