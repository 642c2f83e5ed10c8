//! What the commands say, and how they end.

mod cli_support;

use cli_support::{Ran, Server, millpond};

#[test]
fn a_job_is_pushed_shown_cancelled_and_removed() {
    let server = Server::start();
    let pushed =
        server.json(&["push", "mail", "{\"n\": 1.50}", "--id", "a", "--tag", "blue", "--delay", "1h"]);
    assert_eq!(pushed["jobs"][0]["id"], "a");
    assert_eq!(pushed["jobs"][0]["state"], "delayed");
    let again = server.json(&["push", "mail", "2", "--id", "a"]);
    assert_eq!(again["jobs"][0]["deduplicated"], true);

    let card = server.run(&["job", "a", "mail"]);
    assert_eq!(card.code, 0, "{card:?}");
    for part in ["delayed", "blue", "{\"n\": 1.50}", "push"] {
        assert!(card.out.contains(part), "{part}: {}", card.out);
    }
    assert!(!card.out.contains('\x1b'), "no colour outside a terminal");
    assert_eq!(server.jobs("mail").len(), 1);
    assert_eq!(server.run(&["job", "a", "mail", "promote"]).code, 0);
    assert_eq!(server.run(&["job", "cancel", "a"]).code, 1, "a job named `cancel` is not there");
    assert_eq!(server.run(&["job", "a", "mail", "cancel", "--reason", "tried"]).code, 0);
    assert_eq!(server.json(&["job", "a", "mail"])["state"], "cancelled");
    assert_eq!(server.run(&["job", "a", "mail", "remove"]).code, 0);
    let gone = server.run(&["job", "a", "mail"]);
    assert_eq!(gone.code, 1);
    assert!(gone.err.contains("unknown_job"), "{gone:?}");
}

#[test]
fn queues_are_paused_resumed_and_purged() {
    let server = Server::start();
    server.json(&["push", "mail", "1"]);
    server.json(&["push", "mail", "2"]);
    assert_eq!(server.run(&["pause", "mail"]).code, 0);
    assert!(server.run(&["queues"]).out.contains("paused"));
    assert_eq!(server.json(&["fetch", "mail"])["jobs"].as_array().unwrap().len(), 0);
    assert_eq!(server.run(&["resume", "mail"]).code, 0);
    assert_eq!(server.json(&["fetch", "mail"])["jobs"][0]["body"], 1);
    assert_eq!(server.run(&["purge", "mail"]).code, 2, "not without --yes");
    assert_eq!(server.run(&["purge", "mail", "--yes"]).code, 0);
    assert_eq!(server.json(&["stats"])["jobs"]["waiting"], 0);
    assert!(server.run(&["top", "--once", "--every", "100ms"]).out.contains("mail"));
}

#[test]
fn every_way_to_fail_has_its_exit_code_and_says_what_to_do() {
    let nobody = ["--url", "http://127.0.0.1:1"];
    let unreachable = Ran::of(millpond().args(nobody).arg("queues").output().unwrap());
    assert_eq!(unreachable.code, 3);
    assert!(unreachable.err.contains("millpond serve"), "{unreachable:?}");
    for usage in [
        &["push"][..],
        &["push", "mail", "not json"],
        &["queues", "--url", "ftp://x"],
        &["import", "a", "missing.csv"],
    ] {
        assert_eq!(Ran::of(millpond().args(usage).output().unwrap()).code, 2, "{usage:?}");
    }
    let server = Server::start();
    let refused = server.run(&["push", "no spaces", "1"]);
    assert_eq!(refused.code, 1, "{refused:?}");
    let json = server.run(&["job", "nothing", "mail", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(error["status"], 404, "{json:?}");
}

#[test]
fn what_a_job_holds_cannot_steer_the_terminal() {
    let server = Server::start();
    server.json(&["push", "mail", "--text", "\u{1b}[2Jgone\u{7}", "--id", "x", "--tag", "a\u{202e}b"]);
    for arguments in [&["job", "x", "mail"][..], &["jobs", "mail"], &["fetch", "mail"]] {
        let ran = server.run(arguments);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(!ran.out.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{ran:?}");
    }
}

#[test]
fn settings_are_checked_and_shown_without_the_token() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("millpond.toml");
    let check = || Ran::of(millpond().args(["config", "check"]).arg(&file).output().unwrap());
    std::fs::write(&file, "listen = \"127.0.0.1:9\"\ntoken = \"0123456789abcdef\"\n").unwrap();
    assert_eq!(check().code, 0);
    let shown = Ran::of(millpond().args(["config", "show", "--config"]).arg(&file).output().unwrap());
    assert!(shown.out.contains("127.0.0.1:9") && !shown.out.contains("0123456789abcdef"), "{shown:?}");
    std::fs::write(&file, "listn = \"127.0.0.1:9\"\n").unwrap();
    let wrong = check();
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("did you mean `listen`"), "{wrong:?}");
}

#[test]
fn a_program_does_the_jobs_and_a_dead_one_is_redriven() {
    let server = Server::start();
    for n in 0..5 {
        server.json(&["push", "sums", &n.to_string(), "--id", &format!("j{n}"), "--attempts", "1"]);
    }
    // Job 3 fails with its only attempt.
    let script = "read n; test $n != 3 || { echo three >&2; exit 1; }; echo $((n * 2))";
    let mut worker =
        server.command(&["work", "sums", "--concurrency", "2", "--", "sh", "-c", script]).spawn().unwrap();
    while server.json(&["stats"])["totals"]["completed"] != 4 || server.json(&["stats"])["jobs"]["dead"] != 1
    {
    }
    let terminated = std::process::Command::new("kill").arg(worker.id().to_string()).status().unwrap();
    assert!(terminated.success());
    assert_eq!(worker.wait().unwrap().code(), Some(0), "a worker that is told to stop drains");
    assert_eq!(server.json(&["job", "j4", "sums"])["result"], 8);
    let dead = server.run(&["dead", "sums"]);
    assert!(dead.out.contains("j3") && dead.out.contains("three"), "{dead:?}");
    assert_eq!(server.run(&["dead", "sums", "redrive"]).code, 2, "which?");
    assert_eq!(server.run(&["dead", "sums", "redrive", "j3"]).code, 0);
    assert_eq!(server.json(&["job", "j3", "sums"])["state"], "waiting");
}

#[test]
fn the_bench_counts_every_job() {
    let server = Server::start();
    let seen = server.json(&["bench", "--jobs", "1000", "--batch", "64", "--clients", "2"]);
    assert_eq!((&seen["push"]["jobs"], &seen["drain"]["jobs"]), (&1_000.into(), &1_000.into()), "{seen}");
}

#[test]
fn a_token_is_shown_once_and_lives_as_long_as_it_is_let() {
    let folder = tempfile::tempdir().unwrap();
    let token = |arguments: &[&str]| {
        let mut command = millpond();
        command.current_dir(folder.path()).env("MILLPOND_TOKENS_FILE", "tokens").arg("token");
        Ran::of(command.args(arguments).output().unwrap())
    };
    let added = token(&["add", "web", "--role", "producer,worker", "--queue", "mail.*", "--expires", "1h"]);
    assert_eq!(added.code, 0, "{added:?}");
    let secret = added.out.trim();
    assert_eq!((secret.len(), &secret[..9]), (57, "millpond_"));
    let file = std::fs::read_to_string(folder.path().join("tokens")).unwrap();
    assert!(!file.contains(&secret[9..]) && file.contains("web producer,worker mail.* 2"), "{file}");

    assert_eq!(token(&["add", "web", "--role", "worker"]).code, 2, "there is one already");
    assert_eq!(token(&["add", "w/b", "--role", "worker"]).code, 2);
    assert_eq!(token(&["add", "web2", "--role", "boss"]).code, 2);
    let rotated = token(&["rotate", "web", "--overlap", "10m", "--json"]);
    let rotated: serde_json::Value = serde_json::from_str(&rotated.out).unwrap();
    assert_ne!(rotated["token"], secret);
    let list = |ran: Ran| serde_json::from_str::<serde_json::Value>(&ran.out).unwrap()["tokens"].clone();
    let all = list(token(&["list", "--json"]));
    assert_eq!((&all[1]["roles"], &all[1]["expires"]), (&all[0]["roles"], &serde_json::Value::Null));
    assert!(all[0]["expires"].is_string(), "{all}");
    let id = all[0]["id"].as_str().unwrap();
    assert_eq!(token(&["revoke", "web", "--id", id]).code, 0);
    assert_eq!(list(token(&["list", "--json"]))[0]["id"], rotated["id"]);
    assert_eq!(token(&["revoke", "web"]).code, 0);
    assert_eq!(token(&["revoke", "web"]).code, 2, "nobody is left");
}
