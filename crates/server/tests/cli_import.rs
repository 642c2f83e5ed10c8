//! Imports: exactly one job of every row, whatever is killed in between.

#![allow(clippy::unwrap_used, reason = "test code")]

mod cli_support;

use cli_support::{Ran, Server};
use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Child, Stdio},
};

fn places() -> &'static str {
    include_str!("../../../demo/places.csv")
}

#[test]
fn a_csv_file_becomes_one_job_a_row_once() {
    let server = Server::start();
    fs::write(server.path().join("places.csv"), places()).unwrap();
    let first = server.json(&["import", "places", "places.csv", "--batch", "300", "--in-flight", "1"]);
    assert_eq!((&first["added"], &first["rejected"]), (&2_000.into(), &0.into()), "{first}");
    let again = server.json(&["import", "places", "places.csv"]);
    assert_eq!(again["already_imported"], true);
    // Without the state file the server still knows every row.
    let restarted = server.json(&["import", "places", "places.csv", "--restart", "--batch", "700"]);
    assert_eq!((&restarted["added"], &restarted["already_there"]), (&0.into(), &2_000.into()), "{restarted}");
    let on_purpose = server.json(&["import", "places", "places.csv", "--again"]);
    assert_eq!(on_purpose["added"], 2_000, "{on_purpose}");
    assert_eq!(server.pushed("places"), 4_000);
    let job = server.jobs("places")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.json(&["job", &job, "places"])["body"]["zip_code"], "00501");
}

/// An import from a pipe, so that the test decides how much of it arrives before the kill.
fn import_pipe(server: &Server) -> Child {
    server
        .command(&["import", "rows", "-", "--format", "csv", "--state", "state", "--batch", "100"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn an_import_that_is_killed_anywhere_goes_on_without_doubling_a_row() {
    let server = Server::start();
    let lines: Vec<&str> = places().split_inclusive('\n').collect();
    for (rows, confirmed) in [(150, 1), (420, 101), (1_700, 901)] {
        let mut import = import_pipe(&server);
        let text: String = lines[..=rows].concat();
        // The pipe stays open: the rows after the last whole batch are in the reader's hands at the kill.
        let mut pipe = import.stdin.take().unwrap();
        pipe.write_all(text.as_bytes()).unwrap();
        pipe.flush().unwrap();
        while server.pushed("rows") < confirmed {}
        import.kill().unwrap();
        import.wait().unwrap();
    }
    let mut last = import_pipe(&server);
    last.stdin.take().unwrap().write_all(places().as_bytes()).unwrap();
    assert!(last.wait().unwrap().success());
    assert_eq!(server.pushed("rows"), 2_000);
    let ids: HashSet<String> =
        server.jobs("rows").iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2_000);
}

#[test]
fn a_lost_state_file_costs_time_and_nothing_else() {
    let server = Server::start();
    fs::write(server.path().join("places.csv"), places()).unwrap();
    server.json(&["import", "places", "places.csv"]);
    fs::remove_file(server.path().join(".places.csv.places.millpond-import")).unwrap();
    let again = server.json(&["import", "places", "places.csv"]);
    assert_eq!(again["done"], true, "{again}");
    assert_eq!(server.pushed("places"), 2_000);
}

#[test]
fn rows_that_cannot_be_read_are_kept_aside_with_their_lines() {
    let server = Server::start();
    let mut text = "a,b\n1,2\nonly one\n".to_owned();
    let _ = writeln!(text, "\"{}\",2", "x".repeat(2 << 20));
    text.push_str("3,4\n");
    fs::write(server.path().join("bad.csv"), text).unwrap();
    let ran = server.run(&["import", "bad", "bad.csv"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let rejects = fs::read_to_string(server.path().join("bad.csv.rejects.ndjson")).unwrap();
    let lines: Vec<u64> = rejects
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [3, 4]);
    assert_eq!(server.pushed("bad"), 2);
}

#[test]
fn ids_come_from_a_column_and_are_unique() {
    let server = Server::start();
    let rows = "{\"k\":\"a\",\"n\":1}\n{\"k\":\"b\"}\n{\"k\":\"a\",\"n\":2}\n{\"n\":3}\n";
    fs::write(server.path().join("rows.ndjson"), rows).unwrap();
    let ran = server.run(&["import", "rows", "rows.ndjson", "--id-column", "k", "--json"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&report["added"], &report["already_there"]), (&2.into(), &1.into()), "{report}");
    assert_eq!(server.json(&["job", "a", "rows"])["body"]["n"], 1);
}

#[test]
fn a_file_that_changed_after_a_kill_is_not_guessed_at() {
    let server = Server::start();
    fs::write(server.path().join("places.csv"), places()).unwrap();
    server.json(&["import", "places", "places.csv"]);
    let state = server.path().join(".places.csv.places.millpond-import");
    let stopped = fs::read_to_string(&state).unwrap().replace("\"done\":true", "\"done\":false");
    fs::write(&state, stopped).unwrap();
    fs::write(server.path().join("places.csv"), format!("{}1,2,3,4,5,6\n", places())).unwrap();
    let refused = Ran::of(server.command(&["import", "places", "places.csv"]).output().unwrap());
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("--restart"), "{refused:?}");
}
