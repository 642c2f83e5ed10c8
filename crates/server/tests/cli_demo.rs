//! The README's first command.

mod cli_support;

use cli_support::{Ran, millpond};

#[test]
fn the_demo_loses_nothing_and_says_so() {
    let ran = Ran::of(millpond().args(["demo", "--exit", "--json"]).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let books: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(
        (&books["ok"], &books["lost"], &books["dead"]),
        (&true.into(), &0.into(), &1.into()),
        "{books}"
    );
    assert_eq!(books["queues"][0]["pushed"], 2_000);
}
