//! What a client sees, over a real connection to a pond in memory.

mod support;

use serde_json::{Value, json};
use server::http::{KINDS, openapi_document, routes};
use std::collections::BTreeSet;
use support::{Answer, TOKEN, call, concrete, read_answer, send, start};
use tokio::{io::AsyncWriteExt, net::TcpStream};

#[tokio::test]
async fn a_job_goes_from_push_to_done_and_tells_its_story() {
    let server = start(&[]).await;
    let pushed =
        call(&server, "POST /v1/queues/mail/jobs", r#"{"body": {"to" : "a"}, "tags":["x"], "id":"m/1"}"#)
            .await;
    assert_eq!((pushed.status, pushed.json()["jobs"][0]["id"].clone()), (201, json!("m/1")));
    assert!(pushed.head.contains("millpond-durability: memory"), "{}", pushed.head);
    let again = call(&server, "POST /v1/queues/mail/jobs", r#"{"body": 2, "id":"m/1"}"#).await.json();
    assert_eq!(again["jobs"][0]["deduplicated"], true);

    let fetched = call(&server, "POST /v1/fetch", r#"{"worker":"w1","queues":["mail"],"max":5}"#).await;
    assert!(fetched.text.contains(r#""body":{"to" : "a"}"#), "{}", fetched.text);
    let token = fetched.json()["jobs"][0]["lease_token"].clone();
    let lease = json!({"worker":"w1","leases":[{"queue":"mail","id":"m/1","lease_token":token}]});
    let renewed = call(&server, "POST /v1/renew", &lease.to_string()).await.json();
    assert_eq!(renewed["results"][0]["ok"], true);
    let progress = json!({"lease_token":token,"progress":{"percent":50}}).to_string();
    assert_eq!(call(&server, "POST /v1/queues/mail/jobs/m%2F1/progress", &progress).await.status, 200);
    let lines = json!({"lease_token":token,"lines":["one","two"]}).to_string();
    assert_eq!(call(&server, "POST /v1/queues/mail/jobs/m%2F1/log", &lines).await.status, 200);

    let outcome = json!({"worker":"w1","outcomes":[
        {"queue":"mail","id":"m/1","lease_token":token,"outcome":"done","result":[1],"push":[{"queue":"next","body":1}]},
        {"queue":"mail","id":"m/1","lease_token":token,"outcome":"done"}]});
    let settled = call(&server, "POST /v1/outcomes", &outcome.to_string()).await.json();
    assert_eq!((&settled["results"][0]["ok"], &settled["results"][1]["ok"]), (&json!(true), &json!(false)));
    assert_eq!(settled["results"][0]["pushed"][0]["state"], "waiting");

    let job = call(&server, "GET /v1/queues/mail/jobs/m%2F1", "").await.json();
    assert_eq!(
        (&job["state"], &job["result"], &job["progress"]["percent"]),
        (&json!("completed"), &json!([1]), &json!(50))
    );
    let history = call(&server, "GET /v1/queues/mail/jobs/m%2F1/history", "").await.json();
    let causes: Vec<_> =
        history["history"].as_array().unwrap().iter().map(|entry| entry["cause"].clone()).collect();
    assert_eq!(causes, ["push", "fetch", "complete"]);
    let log = call(&server, "GET /v1/queues/mail/jobs/m%2F1/log", "").await.json();
    assert_eq!(log["lines"][1]["text"], "two");
    let explained = call(&server, "GET /v1/queues/mail/jobs/m%2F1/explain", "").await.json();
    assert_eq!(explained["reasons"][0]["kind"], "final");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_worker_hears_what_it_lost_as_often_as_it_asks() {
    let server = start(&[]).await;
    let first = call(&server, "GET /v1/workers/w1/revoked?wait_ms=60000", "").await.json();
    assert_eq!((&first["missed"], &first["revoked"]), (&json!(true), &json!([])));
    call(&server, "POST /v1/queues/mail/jobs", r#"{"body": 1, "id": "a"}"#).await;
    let fetched = call(&server, "POST /v1/fetch", r#"{"worker":"w1","queues":["mail"]}"#).await.json();
    let path = format!("GET /v1/workers/w1/revoked?wait_ms=60000&after={}", first["position"]);
    let waiting = call(&server, &path, "");
    let cancel = call(&server, "POST /v1/queues/mail/jobs/a/cancel", r#"{"reason":"no"}"#);
    let (heard, _) = tokio::join!(waiting, cancel);
    let token = &fetched["jobs"][0]["lease_token"];
    let lost = json!([{"queue": "mail", "id": "a", "lease_token": token, "reason": "cancelled"}]);
    assert_eq!((&heard.json()["revoked"], &heard.json()["missed"]), (&lost, &json!(false)));
    assert_eq!(call(&server, &path, "").await.json()["revoked"], lost, "reading takes nothing away");
    let after = format!("GET /v1/workers/w1/revoked?after={}", heard.json()["position"]);
    assert_eq!(call(&server, &after, "").await.json()["revoked"], json!([]));
    assert_eq!(call(&server, "GET /v1/workers/w2/revoked?after=0", "").await.json()["revoked"], json!([]));
    assert_eq!(call(&server, "GET /v1/workers/w1/revoked?after=x", "").await.status, 422);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_bulk_operation_is_tried_paused_resumed_and_cancelled() {
    let server = start(&[]).await;
    let jobs: Vec<_> =
        (0..30).map(|n| json!({"queue":"q","body":{"n":n},"tags":["t"],"priority":n})).collect();
    call(&server, "POST /v1/push", &json!({"jobs":jobs}).to_string()).await;
    let path = "POST /v1/queues/q/operations";
    let order = json!({"action":"retag","add":["seen"],"tags_any":["t","u"],"priority_max":19,"rate":1,
        "body":[{"path":"/n","compare":">=","value":10}]});
    let mut dry = order.clone();
    dry["dry_run"] = json!(true);
    let dry = call(&server, path, &dry.to_string()).await;
    let found = &dry.json()["dry_run"];
    assert_eq!(
        (dry.status, &found["matched"], &found["complete"]),
        (200, &json!(10), &json!(true)),
        "{found}"
    );
    assert_eq!(found["sample"].as_array().unwrap().len(), 10);

    let started = call(&server, path, &order.to_string()).await;
    let operation = started.json()["operation"].clone();
    assert_eq!(
        (started.status, &operation["status"], &operation["rate"]),
        (202, &json!("running"), &json!(1))
    );
    let id = operation["id"].clone();
    for (verb, status) in [("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")] {
        let now = call(&server, &format!("POST /v1/operations/{id}/{verb}"), "").await;
        assert_eq!((now.status, &now.json()["operation"]["status"]), (200, &json!(status)));
    }
    assert_eq!(
        call(&server, &format!("POST /v1/operations/{id}/resume"), "").await.json()["code"],
        "operation_ended"
    );
    for (bad, code) in [
        (json!({"action":"erase"}), "invalid"),
        (json!({"action":"move"}), "invalid"),
        (json!({"action":"move","to":"q"}), "invalid"),
        (json!({"action":"retag"}), "invalid"),
        (json!({"action":"purge","state":"active"}), "invalid"),
        (json!({"action":"purge","body":[{"path":"n","value":1}]}), "invalid"),
    ] {
        assert_eq!(call(&server, path, &bad.to_string()).await.json()["code"], code, "{bad}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_listing_is_paged_and_a_bulk_operation_is_tracked() {
    let server = start(&[]).await;
    let jobs: Vec<_> = (0..25).map(|n| json!({"queue":"q","body":n,"tags":["t"]})).collect();
    assert_eq!(call(&server, "POST /v1/push", &json!({"jobs":jobs}).to_string()).await.status, 201);
    let (mut seen, mut cursor) = (BTreeSet::new(), String::new());
    loop {
        let page = call(&server, &format!("GET /v1/queues/q/jobs?tag=t&limit=10{cursor}"), "").await.json();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].to_string()));
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen.len(), 25);
    let upcoming = call(&server, "GET /v1/queues/q/upcoming?limit=3", "").await.json();
    assert_eq!(upcoming["jobs"].as_array().unwrap().len(), 3);
    let purge = call(&server, "POST /v1/queues/q/purge", "").await;
    let id = purge.json()["operation"]["id"].clone();
    assert_eq!((purge.status, id.is_u64()), (202, true));
    loop {
        let operation =
            call(&server, &format!("GET /v1/operations/{id}"), "").await.json()["operation"].clone();
        if operation["finished"] == true {
            assert_eq!(operation["changed"], 25);
            break;
        }
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_push_waits_for_room_and_gets_through_when_a_job_ends() {
    let server = start(&[]).await;
    let patch = r#"{"capacity":{"jobs":1,"on_full":"block"}}"#;
    let settings = call(&server, "PATCH /v1/queues/q", patch).await.json();
    assert_eq!(settings["settings"]["capacity"]["on_full"], "block");
    assert_eq!(call(&server, "POST /v1/queues/q/jobs", r#"{"body":1}"#).await.status, 201);
    let impatient = call(&server, "POST /v1/queues/q/jobs?wait_ms=0", r#"{"body":2}"#).await;
    assert_eq!((impatient.status, impatient.code().as_str()), (429, "queue_full"));
    assert!(impatient.head.contains("retry-after: 1"), "{}", impatient.head);
    let finish = async {
        while call(&server, "GET /v1/queues/q", "").await.json()["producers_waiting"] != 1 {
            tokio::task::yield_now().await;
        }
        assert!(call(&server, "GET /metrics", "").await.text.contains("millpond_pushes_waiting 1"));
        let jobs = call(&server, "POST /v1/fetch", r#"{"worker":"w","queues":["q"]}"#).await.json();
        let done = json!({"worker":"w","outcomes":[{"queue":"q","id":jobs["jobs"][0]["id"],
            "lease_token":jobs["jobs"][0]["lease_token"],"outcome":"done"}]});
        assert_eq!(
            call(&server, "POST /v1/outcomes", &done.to_string()).await.json()["results"][0]["ok"],
            true
        );
    };
    let (patient, ()) = tokio::join!(call(&server, "POST /v1/queues/q/jobs", r#"{"body":3}"#), finish);
    assert_eq!((patient.status, patient.json()["jobs"][0]["state"].clone()), (201, json!("waiting")));
    assert_eq!(call(&server, "GET /v1/queues/q", "").await.json()["producers_waiting"], 0);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_push_that_waits_is_told_when_the_server_stops() {
    let server = start(&[]).await;
    let patch = r#"{"capacity":{"jobs":1,"on_full":"block"}}"#;
    call(&server, "PATCH /v1/queues/q", patch).await;
    assert_eq!(call(&server, "POST /v1/queues/q/jobs", r#"{"body":1}"#).await.status, 201);
    let body = r#"{"jobs":[{"queue":"q","body":2}]}"#;
    let head = "POST /v1/push?wait_ms=60000 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer";
    let mut waiting = TcpStream::connect(server.addr()).await.unwrap();
    let request = format!("{head} {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    waiting.write_all(request.as_bytes()).await.unwrap();
    while call(&server, "GET /v1/queues/q/upcoming", "").await.json()["producers_waiting"] != 1 {
        tokio::task::yield_now().await;
    }
    server.stop().await.unwrap();
    let told = read_answer(&mut waiting).await;
    assert_eq!((told.status, told.code().as_str()), (503, "stopping"));
}

#[tokio::test]
async fn settings_change_and_a_pause_holds() {
    let server = start(&[]).await;
    let patch = r#"{"attempts":9,"backoff":"fixed:5s","capacity":{"jobs":1}}"#;
    let settings = call(&server, "PATCH /v1/queues/q", patch).await.json();
    assert_eq!(settings["settings"]["backoff"], json!({"type":"fixed","delay_ms":5000}));
    assert_eq!(call(&server, "POST /v1/queues/q/jobs", r#"{"body":1}"#).await.status, 201);
    let full = call(&server, "POST /v1/queues/q/jobs", r#"{"body":2}"#).await;
    assert_eq!((full.status, full.code().as_str()), (429, "queue_full"));
    assert!(full.head.contains("retry-after: 1"), "{}", full.head);
    assert_eq!(call(&server, "POST /v1/queues/q/pause", "").await.json()["paused"], true);
    let held = call(&server, "POST /v1/fetch", r#"{"worker":"w","queues":["q"]}"#).await.json();
    assert_eq!(held["jobs"], json!([]));
    assert_eq!(call(&server, "POST /v1/queues/q/resume", "{}").await.json()["paused"], false);
    let freed = call(&server, "POST /v1/fetch", r#"{"worker":"w","queues":["q"]}"#).await.json();
    assert_eq!(freed["jobs"][0]["attempts"], 9);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_limit_holds_what_names_it_and_tells_so() {
    let server = start(&[]).await;
    let limit = r#"{"concurrency":1,"rate":{"units":10,"per_ms":1000,"burst":20}}"#;
    let set = call(&server, "PUT /v1/limits/user:%2A", limit).await.json();
    assert_eq!(
        (&set["key"], &set["concurrency"], &set["breaker"]),
        (&json!("user:*"), &json!(1), &json!(null))
    );
    let jobs = json!({"jobs": [
        {"id":"a","body":1,"limits":["user:7"]},
        {"id":"b","body":1,"limits":[{"key":"user:7","cost":2}],"group":"g","ordering_key":"k","deadline":"2030-01-01T00:00:00Z"},
        {"id":"c","body":1},
    ]});
    assert_eq!(call(&server, "POST /v1/queues/q/jobs", &jobs.to_string()).await.status, 201);
    let fetched = call(&server, "POST /v1/fetch", r#"{"worker":"w","queues":["q"],"max":9}"#).await.json();
    let ids: Vec<_> = fetched["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()).collect();
    assert_eq!(ids, ["a", "c"]);
    let next = call(&server, "GET /v1/queues/q/upcoming", "").await.json();
    assert_eq!((&next["jobs"][0]["id"], &next["jobs"][0]["state"]), (&json!("b"), &json!("blocked")));
    assert_eq!(
        next["jobs"][0]["explain"]["reasons"],
        json!([{"kind":"no_slot","limit":"user:7","in_use":1,"slots":1}])
    );
    let listed = call(&server, "GET /v1/limits", "").await.json();
    assert_eq!(listed["limits"][0]["rate"], json!({"units":10,"per_ms":1000,"burst":20}));
    let told = json!({"worker":"w","outcomes":[{"queue":"q","id":"a","lease_token":fetched["jobs"][0]["lease_token"],
        "outcome":"rate_limited","limit":"user:7","after_ms":3_600_000}]});
    assert_eq!(
        call(&server, "POST /v1/outcomes", &told.to_string()).await.json()["results"][0]["state"],
        "waiting"
    );
    let why = call(&server, "GET /v1/queues/q/jobs/b/explain", "").await.json();
    assert_eq!(why["reasons"][0]["kind"], "told_to_wait");
    assert_eq!(call(&server, "DELETE /v1/limits/user:%2A", "").await.status, 200);
    assert_eq!(call(&server, "GET /v1/limits/user:%2A", "").await.code(), "unknown_limit");
    for (line, body) in [
        ("PUT /v1/limits/a%2Ab", r#"{"concurrency":1}"#),
        ("PUT /v1/limits/a", r#"{"rate":{"units":1,"per_ms":0}}"#),
        ("PATCH /v1/queues/q", r#"{"order":{"aging_ms":0}}"#),
        ("PATCH /v1/queues/q/groups/g", r#"{"weight":0}"#),
        ("POST /v1/queues/q/jobs", r#"{"body":1,"limits":["a","a"]}"#),
    ] {
        assert_eq!(call(&server, line, body).await.code(), "invalid", "{line} {body}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_paused_group_waits_alone_and_weights_share() {
    let server = start(&[]).await;
    let jobs: Vec<_> =
        (0..4).map(|n| json!({"id":n.to_string(),"body":n,"group":if n < 2 {"a"} else {"b"}})).collect();
    call(&server, "POST /v1/queues/q/jobs", &json!({"jobs":jobs}).to_string()).await;
    let group = call(&server, "PATCH /v1/queues/q/groups/a", r#"{"weight":2,"paused":true}"#).await;
    assert_eq!((group.status, group.json()["paused"].clone()), (200, json!(true)));
    let next = call(&server, "GET /v1/queues/q/upcoming", "").await.json();
    let ids = |next: &Value| -> Vec<_> {
        next["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&next), ["2", "3", "0", "1"]);
    assert_eq!(next["jobs"][2]["explain"]["summary"], "group a is paused");
    call(&server, "PATCH /v1/queues/q/groups/a", r#"{"paused":false}"#).await;
    let settings = r#"{"limit":{"concurrency":3},"order":"deadline","retry_budget":{"percent":20}}"#;
    let settings = call(&server, "PATCH /v1/queues/q", settings).await.json();
    assert_eq!(settings["settings"]["limit"]["concurrency"], 3);
    let fetched = call(&server, "POST /v1/fetch", r#"{"worker":"w","queues":["q"],"max":9}"#).await.json();
    assert_eq!(ids(&fetched), ["0", "2", "1"]);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn bad_input_is_refused_by_name_and_changes_nothing() {
    let server = start(&[]).await;
    let push = "POST /v1/queues/q/jobs";
    for (line, body, status, code) in [
        (push, r#"{"body":1,"bakoff":"sidekiq"}"#, 400, "unknown_field"),
        (push, r#"{"body":1,"body":2}"#, 400, "invalid_json"),
        (push, r#"{"body":01}"#, 400, "invalid_json"),
        (push, "", 400, "invalid_json"),
        (push, r#"{"id":"x"}"#, 422, "invalid"),
        (push, r#"{"body":1,"priority":256}"#, 422, "invalid"),
        (push, r#"{"body":1,"priority":"urgent"}"#, 422, "invalid"),
        (push, r#"{"body":1,"run_at":"tomorrow"}"#, 422, "invalid"),
        (push, r#"{"body":1,"delay_ms":-1}"#, 422, "invalid"),
        (push, r#"{"body":1,"attempts":0}"#, 422, "invalid"),
        (push, r#"{"body":1,"queue":"other"}"#, 422, "invalid"),
        (push, r#"{"body":1,"backoff":"linear"}"#, 422, "invalid"),
        (push, r#"{"body":1,"unique":{"key":"k","on_conflict":"explode"}}"#, 422, "invalid"),
        ("POST /v1/queues/no%20spaces/jobs", r#"{"body":1}"#, 422, "invalid"),
        ("POST /v1/queues/%ff/jobs", r#"{"body":1}"#, 400, "bad_request"),
        ("POST /v1/push", r#"{"jobs":[{"body":1}]}"#, 422, "invalid"),
        ("POST /v1/fetch", r#"{"worker":"w","queues":[]}"#, 422, "invalid"),
        ("POST /v1/fetch", r#"{"worker":"","queues":["q"]}"#, 422, "invalid"),
        ("POST /v1/fetch", r#"{"worker":"w","queue":"q"}"#, 400, "unknown_field"),
        (
            "POST /v1/outcomes",
            r#"{"worker":"w","outcomes":[{"id":"a","lease_token":1,"outcome":"done","after_ms":1}]}"#,
            422,
            "invalid",
        ),
        (
            "POST /v1/outcomes",
            r#"{"worker":"w","outcomes":[{"id":"a","lease_token":1,"outcome":"won"}]}"#,
            422,
            "invalid",
        ),
        ("GET /v1/queues/q", "", 404, "unknown_queue"),
        ("GET /v1/queues/q/jobs/none", "", 404, "unknown_job"),
        ("GET /v1/jobs/none", "", 404, "unknown_job"),
        ("POST /v1/queues/q/jobs/none/cancel", "", 404, "unknown_job"),
        ("GET /v1/operations/5", "", 404, "unknown_operation"),
        ("GET /v1/queues?limit=x", "", 422, "invalid"),
        ("GET /v1/queues?cursor=00ff", "", 400, "bad_cursor"),
        ("GET /v1/queues?limt=5", "", 400, "unknown_field"),
        ("GET /v1/queues/q/jobs?state=gone", "", 422, "invalid"),
        ("PATCH /v1/queues/q", r#"{"atempts":1}"#, 400, "unknown_field"),
        ("POST /v1/queues/q/purge", r#"{"stat":"waiting"}"#, 400, "unknown_field"),
        ("GET /v2", "", 404, "unknown_route"),
        ("PUT /v1/queues/q", "", 405, "method_not_allowed"),
    ] {
        let answer = call(&server, line, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{line} {body}: {}", answer.text);
        assert!(answer.head.contains("application/problem+json"));
        assert!(answer.json()["help"].as_str().is_some_and(|help| !help.is_empty()));
    }
    assert_eq!(call(&server, "GET /v1/queues", "").await.json()["queues"], json!([]));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn headers_are_checked_and_an_idempotency_key_answers_twice_the_same() {
    let server = start(&[]).await;
    let push = |headers: &'static [&'static str], body: &'static str| {
        send(&server, "POST /v1/queues/q/jobs", headers, body.as_bytes())
    };
    let first = push(&["idempotency-key: k"], r#"{"body":1}"#).await.json();
    assert_eq!(push(&["idempotency-key: k"], r#"{"body":1}"#).await.json()["jobs"], first["jobs"]);
    assert_eq!(push(&["idempotency-key: k"], r#"{"body":2}"#).await.code(), "idempotency_conflict");
    assert_eq!(push(&["idempotency-key: "], r#"{"body":1}"#).await.code(), "invalid");
    assert_eq!(push(&["millpond-durability: hard"], r#"{"body":1}"#).await.code(), "invalid");
    assert_eq!(push(&["millpond-durability: quorum"], r#"{"body":1}"#).await.code(), "too_durable");
    assert_eq!(push(&["content-encoding: gzip"], "x").await.code(), "unsupported_encoding");
    let lines = push(&["content-type: application/x-ndjson"], "{\"body\":1}\n{\"body\":2}\n").await;
    assert_eq!(lines.json()["jobs"].as_array().unwrap().len(), 2);
    let named = push(&["millpond-actor: importer"], r#"{"body":1,"id":"n"}"#).await;
    assert_eq!(named.status, 201);
    let history = call(&server, "GET /v1/queues/q/jobs/n/history", "").await.json();
    assert_eq!(history["history"][0]["actor"], "importer");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn every_answer_says_what_the_log_calls_its_request() {
    let server = start(&[]).await;
    let id_of = |answer: &Answer| {
        let line = answer.head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        line.unwrap_or_else(|| panic!("{}", answer.head)).to_owned()
    };
    let own = send(&server, "GET /v1/queues/none", &["x-request-id: order-17"], b"").await;
    assert_eq!((own.status, id_of(&own).as_str()), (404, "order-17"));
    let [first, second] = [call(&server, "GET /livez", "").await, call(&server, "GET /nowhere", "").await];
    assert_ne!(id_of(&first), id_of(&second));
    let odd = send(&server, "GET /livez", &["x-request-id: a \\x1b[31m b"], b"").await;
    assert!(!id_of(&odd).contains('['), "{}", odd.head);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_name_as_long_as_a_body_is_refused_without_being_compared() {
    let server = start(&[]).await;
    let long = "n".repeat(8 << 20);
    // Comparing all of it would take gigabytes for each name that is known.
    for (line, body, code) in [
        ("POST /v1/queues/q/jobs", format!(r#"{{"body":1,"{long}":2}}"#), "unknown_field"),
        ("POST /v1/schedules/preview", format!(r#"{{"cron":"@daily","zone":"{long}"}}"#), "bad_zone"),
        ("POST /v1/schedules/preview", format!(r#"{{"cron":"{long}"}}"#), "bad_cron"),
        ("POST /v1/push", format!(r#"{{"jobs":[{{"queue":"{long}","body":1}}]}}"#), "invalid"),
    ] {
        let answer = call(&server, line, &body).await;
        assert_eq!(answer.code(), code, "{line}: {:.300}", answer.text);
        assert!(answer.text.len() < 4_096, "{line}: {} bytes", answer.text.len());
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn foreign_hosts_and_pages_of_other_sites_are_turned_away() {
    let server = start(&[("hosts", "pond.example")]).await;
    for (host, status) in [
        ("host: localhost", 200),
        ("host: [::1]:7077", 200),
        ("host: pond.example:80", 200),
        ("host: evil.example", 421),
        ("host: 127.0.0.1.evil.example", 421),
        ("host: ", 421),
    ] {
        assert_eq!(send(&server, "GET /livez", &[host], b"").await.status, status, "{host}");
    }
    assert_eq!(call(&server, "GET http://evil.example/livez", "").await.status, 421);
    let own = format!("origin: http://{}", server.addr());
    for (headers, status) in [
        // Let in, and told that there is no such queue.
        (&[own.as_str(), "sec-fetch-site: same-origin"][..], 404),
        (&["origin: http://evil.example"], 403),
        (&["origin: null"], 403),
        (&["sec-fetch-site: cross-site"], 403),
        (&["sec-fetch-site: same-site"], 403),
    ] {
        let answer = send(&server, "POST /v1/queues/q/pause", headers, b"").await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.text);
    }
    assert_eq!(send(&server, "GET /v1/events", &["origin: http://evil.example"], b"").await.status, 403);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn bodies_and_heads_have_limits_of_size_and_time() {
    let settings = [
        ("body-max", "1KiB"),
        ("body-timeout", "100ms"),
        ("header-timeout", "200ms"),
        ("connections-max", "2"),
    ];
    let server = start(&settings).await;
    let large = "x".repeat(2_000);
    assert_eq!(call(&server, "POST /v1/queues/q/jobs", &large).await.code(), "body_too_large");

    let open = |bytes: &'static str| {
        let addr = server.addr();
        async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream
        }
    };
    let head = "POST /v1/queues/q/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let mut chunked = TcpStream::connect(server.addr()).await.unwrap();
    let body = format!("{head}transfer-encoding: chunked\r\n\r\n7d0\r\n{large}\r\n0\r\n\r\n");
    chunked.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut chunked).await.code(), "body_too_large");

    let mut slow = TcpStream::connect(server.addr()).await.unwrap();
    slow.write_all(format!("{head}content-length: 10\r\n\r\n{{").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut slow).await.code(), "timeout");

    // Neither silence, nor half a head, nor half of HTTP/2's first words keep a connection open.
    for bytes in ["", "GET / HT", "PRI * HTTP/2.0\r\n"] {
        let mut stream = open(bytes).await;
        assert_ne!(read_answer(&mut stream).await.status, 200, "{bytes:?}");
    }
    let (_first, _second) = (open("GET").await, open("GET").await);
    let mut third = open("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(read_answer(&mut third).await.status, 503);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_fetch_whose_client_goes_away_takes_no_job() {
    let server = start(&[]).await;
    let mut gone = TcpStream::connect(server.addr()).await.unwrap();
    let body = r#"{"worker":"gone","queues":["q"],"wait_ms":60000}"#;
    let head =
        format!("POST /v1/fetch HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    gone.write_all(head.as_bytes()).await.unwrap();
    while server.handle().stats().waiting_fetches == 0 {
        tokio::task::yield_now().await;
    }
    drop(gone);
    while server.handle().stats().waiting_fetches > 0 {
        tokio::task::yield_now().await;
    }
    call(&server, "POST /v1/queues/q/jobs", r#"{"body":1}"#).await;
    let here =
        call(&server, "POST /v1/fetch", r#"{"worker":"here","queues":["q"],"wait_ms":60000}"#).await.json();
    assert_eq!(here["jobs"][0]["attempt"], 1);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_stop_ends_long_polls_with_nothing_and_closes_streams() {
    let server = start(&[]).await;
    let mut poll = TcpStream::connect(server.addr()).await.unwrap();
    let body = r#"{"worker":"w","queues":["q"],"wait_ms":60000}"#;
    let head =
        format!("POST /v1/fetch HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    poll.write_all(head.as_bytes()).await.unwrap();
    let mut events = TcpStream::connect(server.addr()).await.unwrap();
    events.write_all(b"GET /v1/events?queue=q HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    events.readable().await.unwrap();
    while server.handle().stats().waiting_fetches == 0 {
        tokio::task::yield_now().await;
    }
    let (ended, poll, events) =
        tokio::join!(server.stop(), async move { read_answer(&mut poll).await }, async move {
            read_answer(&mut events).await
        });
    assert_eq!(ended.unwrap(), server::serve::ExitReason::Drained);
    assert_eq!(poll.json()["jobs"], json!([]));
    assert!(events.head.contains("text/event-stream"), "{}", events.head);
}

#[tokio::test]
async fn a_stop_is_heard_before_the_directory_is_open() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = server::config::Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        data: file.path().to_path_buf(),
        ..server::config::Config::default()
    };
    // Opening it would fail, and nobody waits to see that.
    let stopped = server::serve::serve(&config, || std::future::ready(())).await;
    assert_eq!(stopped.unwrap(), server::serve::ExitReason::Drained);
    let opened = server::serve::serve(&config, std::future::pending::<()>).await;
    assert!(matches!(opened, Err(server::serve::ServeError::Open { .. })), "{opened:?}");
}

#[tokio::test]
async fn the_description_the_table_and_the_router_are_the_same_routes() {
    let server = start(&[]).await;
    let document: Value = serde_json::from_str(openapi_document()).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        described.extend(
            methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())),
        );
    }
    let table: Vec<_> = routes().iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(table.len(), described.len(), "a route is there twice");
    assert_eq!(table.into_iter().collect::<BTreeSet<_>>(), described);
    for route in routes().iter().filter(|route| route.path != "/v1/events") {
        let line = format!("{} {}", route.method, concrete(route.path));
        let answer = call(&server, &line, "").await;
        let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let code = body["code"].as_str().unwrap_or_default();
        assert!(!matches!(code, "unknown_route" | "method_not_allowed"), "{line}: {}", answer.text);
        if !route.request.is_empty() {
            assert!(document["components"]["schemas"][route.request].is_object(), "{line}");
        }
    }
    server.stop().await.unwrap();
}

#[test]
fn the_documents_list_every_code_every_setting_and_every_route() {
    let errors = include_str!("../../../docs/errors.md");
    let table: Vec<_> = errors.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<_> = KINDS
        .iter()
        .map(|kind| format!("| `{}` | {} | {}. | {} |", kind.code, kind.status, kind.title, kind.help))
        .collect();
    assert_eq!(table, expected, "docs/errors.md should hold:\n{}", expected.join("\n"));
    let settings = include_str!("../../../docs/configuration.md");
    let table: Vec<_> = settings.lines().filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<_> = server::config::KEYS
        .iter()
        .map(|key| {
            let default =
                if key.default.is_empty() { "none".to_owned() } else { format!("`{}`", key.default) };
            format!("| `{}` | {default} | {} |", key.name, key.help)
        })
        .collect();
    assert_eq!(table, expected, "docs/configuration.md should hold:\n{}", expected.join("\n"));
    let http = include_str!("../../../docs/http.md");
    let table: Vec<_> = http.lines().skip_while(|line| *line != "## All routes").collect();
    let table: Vec<_> = table.into_iter().filter(|line| line.starts_with("| `")).collect();
    // Those of `/v1/jobs/{id}` are the same ones by a generated id.
    let listed = routes().iter().filter(|route| !route.path.starts_with("/v1/jobs/"));
    let expected: Vec<_> = listed
        .map(|route| {
            let query =
                if route.query.is_empty() { String::new() } else { format!("?{}=", route.query.join("=&")) };
            format!(
                "| `{} {}{query}` | {} | {} |",
                route.method,
                route.path,
                route.right.name(),
                route.summary
            )
        })
        .collect();
    assert_eq!(table, expected, "docs/http.md should hold:\n{}", expected.join("\n"));
}

#[tokio::test]
async fn steps_are_stored_shown_and_signalled() {
    let server = start(&[]).await;
    call(&server, "POST /v1/queues/orders/jobs", r#"{"body":1,"id":"o"}"#).await;
    let fetch = r#"{"worker":"w1","queues":["orders"]}"#;
    let token = call(&server, "POST /v1/fetch", fetch).await.json()["jobs"][0]["lease_token"].clone();
    let path = "/v1/queues/orders/jobs/o";
    let step = |token: &Value, result: &str| {
        format!(r#"{{"worker":"w1","lease_token":{token},"name":"charge","result":{result}}}"#)
    };
    let stored = call(&server, &format!("POST {path}/steps"), &step(&token, r#"{"n" : 1.0}"#)).await;
    assert_eq!((stored.status, stored.json()["stored"].clone()), (200, json!(true)));
    let again = call(&server, &format!("POST {path}/steps"), &step(&token, "2")).await;
    assert!(
        again.text.contains(r#""stored":false"#) && again.text.contains(r#""value":{"n" : 1.0}"#),
        "{}",
        again.text
    );
    let stale = call(&server, &format!("POST {path}/steps"), &step(&json!(99), "2")).await;
    assert_eq!((stale.status, stale.code()), (409, "stale_lease".into()));

    let outcome = |fields: Value| {
        let mut outcome = json!({"queue":"orders","id":"o","lease_token":token});
        outcome.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"worker":"w1","outcomes":[outcome]}).to_string()
    };
    for (fields, code) in [
        (json!({"outcome":"sleep","after_ms":5}), "invalid"),
        (json!({"outcome":"wait_for_child","step":"kid"}), "invalid"),
        (json!({"outcome":"done","signal":"go"}), "invalid"),
    ] {
        let refused = call(&server, "POST /v1/outcomes", &outcome(fields)).await;
        assert_eq!((refused.status, refused.code()), (422, code.into()), "{}", refused.text);
    }
    let waits = outcome(json!({"outcome":"wait_for_signal","signal":"go","timeout_ms":60_000}));
    let settled = call(&server, "POST /v1/outcomes", &waits).await.json();
    assert_eq!(settled["results"][0]["state"], "suspended", "{settled}");
    let job = call(&server, &format!("GET {path}"), "").await.json();
    assert_eq!((&job["awaits"]["signal"], &job["steps"][0]["bytes"]), (&json!("go"), &json!(17)));
    assert!(job["steps"][0].get("value").is_none(), "values are for those who ask");
    let why = call(&server, &format!("GET {path}/explain"), "").await.json();
    assert_eq!(why["reasons"][0]["kind"], "waits_for_signal");

    let signal = r#"{"name":"go","body":[1]}"#;
    let told = send(&server, &format!("POST {path}/signal"), &["idempotency-key: s1"], signal.as_bytes())
        .await
        .json();
    assert_eq!((&told["state"], &told["buffered"]), (&json!("waiting"), &json!(false)));
    let again = send(&server, &format!("POST {path}/signal"), &["idempotency-key: s1"], signal.as_bytes())
        .await
        .json();
    assert_eq!(again["buffered"], false, "it is one signal");
    let kept = call(&server, &format!("POST {path}/signal"), r#"{"name":"more"}"#).await.json();
    assert_eq!(kept["buffered"], true);
    let fetched = call(&server, "POST /v1/fetch", fetch).await.json();
    assert_eq!((&fetched["jobs"][0]["steps"], &fetched["jobs"][0]["attempt"]), (&json!(2), &json!(1)));
    let steps = call(&server, &format!("GET {path}/steps"), "").await.json();
    assert_eq!((&steps["steps"][1]["kind"], &steps["steps"][1]["value"]), (&json!("signal"), &json!([1])));
    server.stop().await.unwrap();
}
