//! The Faktory door, line by line.
#![allow(clippy::unwrap_used, reason = "test code")]

mod faktory_support;
mod support;

use faktory_support::{Wire, job, pwdhash, start};
use serde_json::json;
use server::{
    access::{Fingerprint, SecretToken, TokenFile},
    serve::Server,
};
use support::{TOKEN, call};

async fn state(server: &Server, queue: &str, id: &str) -> String {
    let job = call(server, &format!("GET /v1/queues/{queue}/jobs/{id}"), "").await;
    job.json_or_null()["state"].as_str().unwrap_or_else(|| panic!("{}", job.text)).to_owned()
}

#[tokio::test]
async fn a_job_goes_from_a_producer_to_a_worker_and_is_done() {
    let server = start(&[]).await;
    let (mut producer, mut worker) = (Wire::client(&server).await, Wire::worker(&server, "w-1").await);
    assert_eq!(producer.hi, r#"+HI {"v":2}"#);
    let custom =
        r#","queue":"images","retry":3,"custom":{"locale":"fr"},"created_at":"2026-01-02T03:04:05Z""#;
    assert_eq!(producer.push("jid-00001", custom).await, "+OK");
    assert_eq!(state(&server, "images", "jid-00001").await, "waiting");
    let fetched = worker.json("FETCH critical images").await;
    for (key, value) in [
        ("jid", json!("jid-00001")),
        ("queue", json!("images")),
        ("jobtype", json!("mail")),
        ("args", json!([1, "two"])),
        ("retry", json!(3)),
        ("custom", json!({"locale": "fr"})),
        ("created_at", json!("2026-01-02T03:04:05Z")),
    ] {
        assert_eq!(fetched[key], value, "{fetched}");
    }
    let seen = call(&server, "GET /v1/queues/images/jobs/jid-00001", "").await.json();
    assert_eq!((&seen["worker"], &seen["tags"]), (&json!("faktory:w-1"), &json!(["mail"])));
    assert_eq!(worker.say(r#"ACK {"jid":"jid-00001"}"#).await, "+OK");
    assert_eq!(state(&server, "images", "jid-00001").await, "completed");
    assert_eq!(worker.say(r#"ACK {"jid":"jid-00001"}"#).await, "+OK", "an answer may have been lost");
    assert_eq!(worker.say("END").await, "+OK");
    assert_eq!(worker.hear().await, "");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_failure_is_kept_and_the_next_attempt_knows_it() {
    let server = start(&[]).await;
    let mut wire = Wire::worker(&server, "w-1").await;
    wire.push("jid-00001", r#","retry":2"#).await;
    assert_eq!(wire.fetch("default").await.unwrap(), "jid-00001");
    let fail =
        r#"FAIL {"jid":"jid-00001","errtype":"Timeout","message":" slow ","backtrace":["a.rb:1","b.rb:2"]}"#;
    assert_eq!(wire.say(fail).await, "+OK");
    assert_eq!(wire.say(fail).await, "-ERR Job not found jid-00001");
    let seen = call(&server, "GET /v1/queues/default/jobs/jid-00001", "").await.json();
    assert_eq!(seen["state"], "retrying");
    assert_eq!(seen["error"], json!({"kind": "Timeout", "message": "slow", "stack": "a.rb:1\nb.rb:2"}));
    call(&server, "POST /v1/queues/default/jobs/jid-00001/promote", "").await;
    let again = wire.json("FETCH default").await;
    let failure = &again["failure"];
    assert_eq!((&failure["retry_count"], &failure["remaining"]), (&json!(0), &json!(2)));
    assert_eq!((&failure["errtype"], &failure["message"]), (&json!("Timeout"), &json!("slow")));
    assert_eq!(failure["backtrace"], json!(["a.rb:1", "b.rb:2"]));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_last_failure_kills_or_discards_as_the_job_says() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    for (jid, retry, end) in [("jid-00000", 0, "cancelled"), ("jid-00001", -1, "dead")] {
        wire.push(jid, &format!(r#","retry":{retry}"#)).await;
        assert_eq!(wire.fetch("").await.unwrap(), jid, "no queue is the default one");
        assert_eq!(wire.say(&format!(r#"FAIL {{"jid":"{jid}"}}"#)).await, "+OK");
        assert_eq!(state(&server, "default", jid).await, end);
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn any_connection_of_a_worker_may_answer_for_it_and_no_other_worker() {
    let server = start(&[]).await;
    let (mut one, mut same) = (Wire::worker(&server, "w-1").await, Wire::worker(&server, "w-1").await);
    let mut other = Wire::worker(&server, "w-2").await;
    one.push("jid-00001", "").await;
    one.fetch("default").await.unwrap();
    assert_eq!(other.say(r#"ACK {"jid":"jid-00001"}"#).await, "+OK");
    assert_eq!(other.say(r#"FAIL {"jid":"jid-00001"}"#).await, "-ERR Job not found jid-00001");
    assert_eq!(state(&server, "default", "jid-00001").await, "active");
    assert_eq!(same.say(r#"ACK {"jid":"jid-00001"}"#).await, "+OK");
    assert_eq!(state(&server, "default", "jid-00001").await, "completed");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn jobs_of_both_doors_are_the_same_jobs() {
    let server = start(&[]).await;
    let mut wire = Wire::worker(&server, "w-1").await;
    let pushed = call(&server, "POST /v1/queues/mail/jobs", r#"{"body":{"to":"ada"},"attempts":4}"#).await;
    let id = pushed.json()["jobs"][0]["id"].as_str().unwrap_or_default().to_owned();
    let fetched = wire.json("FETCH mail").await;
    assert_eq!(fetched["jobtype"], "mail");
    assert_eq!((&fetched["args"], &fetched["retry"]), (&json!([{"to": "ada"}]), &json!(3)));
    let jid = fetched["jid"].as_str().unwrap().to_owned();
    assert!(id.is_empty() || id == jid, "{}", pushed.text);
    assert_eq!(wire.say(&format!(r#"ACK {{"jid":"{jid}"}}"#)).await, "+OK");
    assert_eq!(state(&server, "mail", &jid).await, "completed");
    wire.push("jid-00001", r#","queue":"mail""#).await;
    let work = call(&server, "POST /v1/fetch", r#"{"worker":"w","queues":["mail"]}"#).await.json();
    assert_eq!(work["jobs"][0]["body"]["args"], json!([1, "two"]));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn many_jobs_are_pushed_at_once_and_each_is_judged_by_itself() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    let unique = r#","custom":{"unique_for":60}"#;
    let jobs = [
        job("jid-00001", ""),
        job("short", ""),
        job("jid-00002", unique),
        job("jid-00003", unique),
        job("jid-00004", r#","queue":"no good""#),
        job("jid-00005", r#","queue":"other""#),
    ];
    let refused = wire.json(&format!("PUSHB [{}]", jobs.join(","))).await;
    let mut names: Vec<_> = refused.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["jid-00003", "jid-00004", "short"]);
    assert_eq!(refused["jid-00003"], "NOTUNIQUE Job not unique");
    assert_eq!(wire.json("PUSHB []").await, json!({}));
    let info = wire.json("INFO").await;
    assert_eq!(info["faktory"]["queues"], json!({"default": 2, "other": 1}));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn urgency_time_and_order_of_names_decide_what_comes_first() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    for (jid, more) in [
        ("jid-00001", ""),
        ("jid-00002", r#","priority":1"#),
        ("jid-00003", r#","priority":9"#),
        ("jid-00004", r#","at":"2999-01-01T00:00:00Z""#),
        ("jid-00005", r#","at":"2001-01-01T00:00:00Z","queue":"second""#),
        ("jid-00006", r#","queue":"first""#),
    ] {
        assert_eq!(wire.push(jid, more).await, "+OK");
    }
    for jid in ["jid-00006", "jid-00005", "jid-00003", "jid-00001", "jid-00002"] {
        assert_eq!(wire.fetch("first second default").await.as_deref(), Some(jid));
    }
    assert_eq!(wire.say("FETCH default").await, "$-1");
    assert_eq!(state(&server, "default", "jid-00004").await, "delayed");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_unique_job_is_there_once_until_it_has_succeeded_or_started() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    let (success, start) =
        (r#","custom":{"unique_for":60}"#, r#","custom":{"unique_for":60,"unique_until":"start"}"#);
    assert_eq!(wire.push("jid-00001", success).await, "+OK");
    assert_eq!(wire.push("jid-00002", success).await, "-NOTUNIQUE Job not unique");
    assert_eq!(wire.push("jid-00003", "").await, "+OK", "who does not ask is not compared");
    wire.fetch("default").await.unwrap();
    assert_eq!(wire.push("jid-00004", start).await, "-NOTUNIQUE Job not unique");
    wire.say(r#"ACK {"jid":"jid-00001"}"#).await;
    assert_eq!(wire.push("jid-00005", start).await, "+OK");
    assert_eq!(wire.push("jid-00006", success).await, "-NOTUNIQUE Job not unique");
    while wire.fetch("default").await.unwrap() != "jid-00005" {}
    assert_eq!(wire.push("jid-00007", success).await, "+OK", "the one before has started");
    assert_eq!(wire.push("jid-00008", start).await, "-NOTUNIQUE Job not unique");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_is_quiet_gets_no_jobs_and_is_told_so() {
    let server = start(&[]).await;
    let mut wire = Wire::worker(&server, "w-1").await;
    assert_eq!(wire.say(r#"BEAT {"wid":"w-1","rss_kb":1}"#).await, "+OK");
    assert_eq!(wire.say(r#"BEAT {"wid":"w-2"}"#).await, "-ERR Unknown worker w-2");
    wire.push("jid-00001", "").await;
    assert_eq!(wire.say(r#"BEAT {"wid":"w-1","current_state":"quiet"}"#).await, r#"{"state":"quiet"}"#);
    assert_eq!(wire.say("FETCH default").await, "$-1");
    assert_eq!(state(&server, "default", "jid-00001").await, "waiting");
    assert_eq!(
        wire.say(r#"BEAT {"wid":"w-1","current_state":"terminate"}"#).await,
        r#"{"state":"terminate"}"#
    );
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_job_for_a_client_that_left_goes_to_the_next() {
    let server = start(&[]).await;
    let mut waiting = Wire::worker(&server, "w-1").await;
    waiting.send(b"FETCH default\r\n").await;
    drop(waiting);
    let mut wire = Wire::client(&server).await;
    wire.push("jid-00001", "").await;
    while wire.fetch("default").await.is_none() {}
    server.stop().await.unwrap();
}

#[tokio::test]
async fn info_says_what_dashboards_and_clients_read() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    wire.push("jid-00001", "").await;
    wire.fetch("default").await.unwrap();
    wire.push("jid-00002", r#","at":"2999-01-01T00:00:00Z""#).await;
    let info = wire.json("INFO").await;
    assert_eq!(info["faktory"]["sets"], json!({"scheduled": 1, "retries": 0, "dead": 0, "working": 1}));
    assert!(info["server"]["faktory_version"].as_str().unwrap().starts_with("1."));
    assert_eq!(info["server"]["millpond_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["server"]["connections"], 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_command_is_refused_and_the_connection_goes_on() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    for (line, part) in [
        ("", "-ERR unknown command"),
        ("push {}", "-ERR unknown command push"),
        ("HELLO {\"v\":2}", "-ERR unknown command HELLO"),
        ("PUSH", "-ERR invalid JSON"),
        ("PUSH [1]", "-ERR invalid JSON"),
        ("PUSHB {}", "-ERR invalid JSON"),
        ("ACK", "-ERR invalid ACK"),
        ("ACK {\"jid\":7}", "-ERR invalid ACK"),
        ("FAIL {}", "-ERR invalid FAIL"),
        ("FAIL {\"jid\":\"nobodys-job\"}", "-ERR Job not found nobodys-job"),
        ("BEAT {}", "-ERR invalid BEAT"),
        ("FETCH no/good", "-ERR a queue name"),
    ] {
        let answer = wire.say(line).await;
        assert!(answer.starts_with(part), "{line:?}: {answer}");
    }
    assert_eq!(wire.say("ACK {\"jid\":\"nobodys-job\"}").await, "+OK");
    assert_eq!(wire.push("jid-00001", "").await, "+OK");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn lines_in_one_packet_and_halves_of_lines_are_answered_in_order() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    let all =
        format!("PUSH {}\r\nFETCH default\nINFO\r\nACK {{\"jid\":\"jid-00001\"}}\r\n", job("jid-00001", ""));
    let (first, second) = all.as_bytes().split_at(30);
    wire.send(first).await;
    wire.send(second).await;
    assert_eq!(wire.hear().await, "+OK");
    assert!(wire.hear().await.contains("jid-00001"));
    assert!(wire.hear().await.contains("faktory_version"));
    assert_eq!(wire.hear().await, "+OK");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn who_does_not_say_hello_is_sent_away() {
    let server = start(&[]).await;
    for line in ["INFO", "HELLO", "HELLO 7", "HELLO {", "GET / HTTP/1.1", "\u{1}\u{2}", ""] {
        let mut wire = Wire::connect(&server).await;
        let answer = wire.say(line).await;
        assert!(answer.starts_with("-ERR "), "{line:?}: {answer}");
        assert_eq!(wire.hear().await, "", "{line:?}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_line_without_an_end_is_cut_off_and_others_go_on() {
    let server = start(&[("body-max", "100KiB")]).await;
    let (mut huge, mut wire) = (Wire::client(&server).await, Wire::client(&server).await);
    huge.send(b"PUSH ").await;
    for _ in 0..200 {
        huge.send(&[b'x'; 1_024]).await;
    }
    let answer = huge.hear().await;
    assert!(answer.is_empty() || answer.starts_with("-ERR a line has at most"), "{answer}");
    assert_eq!(wire.push("jid-00001", "").await, "+OK");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = start(&[("connections-max", "2")]).await;
    let (_one, _two) = (Wire::client(&server).await, Wire::client(&server).await);
    assert_eq!(Wire::connect(&server).await.hi, "-ERR too many connections");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_password_is_a_token_and_opens_what_the_token_opens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    let (web, old) = (SecretToken::generate().unwrap(), SecretToken::generate().unwrap());
    let mut file = TokenFile::default();
    let line = format!("web producer mail.* never {} {}", web.fingerprint(), web.password());
    file.add(line.parse().unwrap());
    // As it was written before there were passwords.
    file.add(format!("old admin * never {}", Fingerprint::of(old.reveal().as_bytes())).parse().unwrap());
    file.write(&path).unwrap();
    let server = start(&[("token", TOKEN), ("tokens-file", path.to_str().unwrap())]).await;

    async fn hello(server: &Server, password: Option<&str>) -> (Wire, String) {
        let mut wire = Wire::connect(server).await;
        let hello = match password {
            Some(password) => format!(r#"HELLO {{"v":2,"pwdhash":"{}"}}"#, pwdhash(&wire.hi, password)),
            None => r#"HELLO {"v":2}"#.to_owned(),
        };
        let answer = wire.say(&hello).await;
        (wire, answer)
    }
    assert!(hello(&server, None).await.1.starts_with("-ERR this server asks for a password"));
    assert!(hello(&server, Some("wrong")).await.1.starts_with("-ERR Invalid password"));
    assert!(hello(&server, Some(old.reveal())).await.1.contains("has to be rotated"));
    let shown = format!(r#"HELLO {{"v":2,"pwdhash":"{}"}}"#, web.password());
    assert!(
        Wire::connect(&server).await.say(&shown).await.starts_with("-ERR Invalid"),
        "what is kept is no password"
    );

    let mut first_version = Wire::connect(&server).await;
    let once = pwdhash(&first_version.hi.replace("4096", "1"), TOKEN);
    assert_eq!(first_version.say(&format!(r#"HELLO {{"pwdhash":"{once}"}}"#)).await, "+OK", "it hashes once");

    let (mut own, answer) = hello(&server, Some(TOKEN)).await;
    assert_eq!(answer, "+OK");
    assert_eq!(own.push("jid-00001", "").await, "+OK");
    let (mut web, answer) = hello(&server, Some(web.reveal())).await;
    assert_eq!(answer, "+OK");
    assert_eq!(web.push("jid-00002", r#","queue":"mail.eu""#).await, "+OK");
    assert!(web.push("jid-00003", "").await.contains("is not for the queue"));
    assert!(web.say("FETCH mail.eu").await.contains("the right to work"));
    assert!(web.say("INFO").await.contains("the right to read"));
    own.fetch("default mail.eu").await.unwrap();
    assert_eq!(
        web.say(r#"FAIL {"jid":"jid-00001"}"#).await,
        "-ERR this needs the right to work, which the token has not"
    );

    file.revoke("web", None);
    file.write(&path).unwrap();
    server.reload();
    assert_eq!(web.say("PUSH").await, "", "a token that is revoked ends its connections");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn queues_are_held_counted_and_emptied() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    wire.push("jid-00001", "").await;
    wire.push("jid-00002", "").await;
    assert_eq!(wire.say("QUEUE PAUSE default never-seen").await, "+OK");
    assert_eq!(wire.say("FETCH default").await, "$-1");
    assert_eq!(wire.say("QUEUE RESUME *").await, "+OK");
    assert_eq!(wire.fetch("default").await.unwrap(), "jid-00001");
    let latency = wire.json("QUEUE LATENCY default never-seen").await;
    assert!(latency["default"].as_f64().unwrap() >= 0.0 && latency["never-seen"] == 0.0, "{latency}");
    wire.push("jid-00003", r#","at":"2999-01-01T00:00:00Z""#).await;
    wire.say(r#"ACK {"jid":"jid-00001"}"#).await;
    assert_eq!(wire.say("QUEUE REMOVE default").await, "+OK");
    assert_eq!(wire.json("INFO").await["faktory"]["queues"], json!({"default": 0}), "one is scheduled");
    assert_eq!(wire.say(r#"MUTATE {"cmd":"clear","target":"scheduled"}"#).await, "+OK");
    assert_eq!(wire.json("INFO").await["faktory"]["queues"], json!({}));
    assert_eq!(wire.say("QUEUE PAUSE").await, "-ERR name the queues, or * for all");
    assert_eq!(wire.say("QUEUE DANCE x").await, "-ERR no such QUEUE subcommand: DANCE");
    assert_eq!(wire.say("QUEUE LATENCY *").await, "-ERR QUEUE LATENCY does not support wildcards");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn jobs_that_wait_for_a_time_are_chosen_by_id_type_and_pattern() {
    let server = start(&[]).await;
    let mut wire = Wire::client(&server).await;
    let at = r#","at":"2999-01-01T00:00:00Z""#;
    for jid in ["jid-00001", "jid-00002", "jid-00003", "jid-00004"] {
        wire.push(jid, &format!(r#"{at},"custom":{{"of": "{jid}"}}"#)).await;
    }
    let mutate = async |wire: &mut Wire, cmd: &str, target: &str, filter: &str| {
        let line = format!(r#"MUTATE {{"cmd":"{cmd}","target":"{target}","filter":{filter}}}"#);
        assert_eq!(wire.say(&line).await, "+OK", "{line}");
    };
    mutate(&mut wire, "requeue", "scheduled", r#"{"jobtype":"other"}"#).await;
    mutate(&mut wire, "requeue", "scheduled", r#"{"jobtype":"other","regexp":"*"}"#).await;
    mutate(&mut wire, "requeue", "retries", r#"{"jobtype":"mail"}"#).await;
    assert_eq!(wire.json("INFO").await["faktory"]["sets"]["scheduled"], 4);
    mutate(&mut wire, "requeue", "scheduled", r#"{"jids":["jid-00002"],"jobtype":"ignored"}"#).await;
    mutate(&mut wire, "kill", "scheduled", r#"{"jobtype":"mail","regexp":"*\"of\":\"jid-0000[34]\"*"}"#)
        .await;
    let mut states = Vec::new();
    for jid in ["jid-00001", "jid-00002", "jid-00003", "jid-00004"] {
        states.push(state(&server, "default", jid).await);
    }
    assert_eq!(states, ["delayed", "waiting", "cancelled", "cancelled"]);
    mutate(&mut wire, "requeue", "dead", r#"{"jids":["jid-00003"]}"#).await;
    mutate(&mut wire, "discard", "dead", "{}").await;
    assert_eq!(state(&server, "default", "jid-00003").await, "waiting");
    assert_eq!(call(&server, "GET /v1/queues/default/jobs/jid-00004", "").await.status, 404);
    for (line, part) in [
        ("MUTATE {}", "-ERR invalid MUTATE"),
        (r#"MUTATE {"cmd":"dance","target":"dead"}"#, "-ERR unknown mutate operation"),
        (r#"MUTATE {"cmd":"clear","target":"all"}"#, "-ERR invalid target"),
    ] {
        assert!(wire.say(line).await.starts_with(part), "{line}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_tracked_job_says_how_far_it_is() {
    let server = start(&[]).await;
    let mut wire = Wire::worker(&server, "w-1").await;
    wire.push("jid-00001", r#","custom":{"track":1}"#).await;
    wire.push("jid-00002", "").await;
    assert_eq!(wire.json("TRACK GET jid-00001").await["state"], "enqueued");
    wire.fetch("default").await.unwrap();
    let set =
        r#"TRACK SET {"jid":"jid-00001","percent":42,"desc":"half","reserve_until":"2999-01-01T00:00:00Z"}"#;
    assert_eq!(wire.say(set).await, "+OK");
    let track = wire.json("TRACK GET jid-00001").await;
    assert_eq!(
        (&track["state"], &track["percent"], &track["desc"]),
        (&json!("working"), &json!(42), &json!("half"))
    );
    let job = call(&server, "GET /v1/queues/default/jobs/jid-00001", "").await.json();
    assert_eq!(job["progress"], json!({"percent": 42, "desc": "half"}));
    wire.say(r#"ACK {"jid":"jid-00001"}"#).await;
    assert_eq!(wire.json("TRACK GET jid-00001").await["state"], "success");
    assert_eq!(wire.say(set).await, "+OK", "it is over, and nobody is to blame");
    for jid in ["jid-00002", "jid-99999"] {
        let unknown = json!({"jid": jid, "state": "unknown", "updated_at": ""});
        assert_eq!(wire.json(&format!("TRACK GET {jid}")).await, unknown);
    }
    assert!(wire.say("TRACK DOWN x").await.starts_with("-ERR TRACK is followed"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn flush_empties_the_pond_only_where_that_was_allowed() {
    let (safe, open) = (start(&[]).await, start(&[("faktory-flush", "true")]).await);
    assert!(Wire::client(&safe).await.say("FLUSH").await.starts_with("-ERR FLUSH is for development"));
    let mut wire = Wire::client(&open).await;
    for jid in ["jid-00001", "jid-00002", "jid-00003"] {
        wire.push(jid, "").await;
    }
    wire.fetch("default").await.unwrap();
    wire.push("jid-00004", r#","queue":"other","at":"2999-01-01T00:00:00Z""#).await;
    assert_eq!(wire.say("FLUSH").await, "+OK");
    let info = wire.json("INFO").await;
    assert_eq!(info["faktory"]["queues"], json!({}));
    assert_eq!(wire.push("jid-00001", "").await, "+OK");
    assert_eq!(wire.fetch("default").await.unwrap(), "jid-00001");
    safe.stop().await.unwrap();
    open.stop().await.unwrap();
}
