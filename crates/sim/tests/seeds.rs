//! Seeds that once failed, and what every run must keep. A failing seed of `sim run` gets a line in [`REGRESSIONS`].

use millpond_core::plant::Bug;
use sim::{Plan, Planted, simulate};

/// Seed, calls, and what it found.
const REGRESSIONS: &[(u64, u64, &str)] = &[
    (12, 1_000, "a remembered fetch held the bodies that happened to be in memory"),
    (4, 1_000, "a flipped bit in the newest record, before the mark behind it was durable"),
    (
        208,
        5_000,
        "a large first append left an empty segment behind, and the next opening took the log for broken",
    ),
    (177, 5_000, "a full disk that refused which bodies an operation chose was asked again without end"),
    (10, 5_000, "a body that was replaced left the memory before the store had the new one"),
    (25, 5_000, "an operation cancelled as one of too many that had ended was forgotten before it was shown"),
    (249, 5_000, "the shadow compared a refusal with the first asking of a fetch that had waited"),
    (95, 5_000, "the rule of deaths took the changed body of a dead job for another death"),
    (
        100,
        5_000,
        "the shadow looked for a throttled job of a given id only where it was pushed, and it had been moved",
    ),
    (1_000, 600, "the shadow took a later job of the same given id for the holder of a unique key"),
];

#[test]
fn seeds_that_failed_once_hold() {
    for (seed, commands, found) in REGRESSIONS {
        if let Err(failure) = simulate(*seed, Plan::new(*commands)) {
            panic!("{failure} (it once found: {found})");
        }
    }
}

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
