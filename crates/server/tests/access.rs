//! Who may do what: every route with every kind of token, and what somebody with some queues sees of the others.
#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use serde_json::{Value, json};
use server::{
    access::{Fingerprint, TokenFile},
    http::{Route, routes},
    serve::Server,
};
use std::path::Path;
use support::{Answer, TOKEN, concrete, send, send_from, start};
use tempfile::TempDir;

/// In a queue that `mine` does not see.
const CANARY: &str = "canary-of-theirs";

/// The token of each line is `secret of` and its name.
const TOKENS: &[&str] = &[
    "admin admin * never",
    "operator operator * never",
    "producer producer * never",
    "worker worker * never",
    "read-only read-only * never",
    "gone admin * 2001-01-01T00:00:00Z",
    "mine admin mine,mine.* never",
    "web producer,worker mine.* never",
];

fn write(folder: &TempDir, lines: &[&str]) -> String {
    let path = folder.path().join("tokens");
    let mut file = TokenFile::default();
    for line in lines {
        let name = line.split(' ').next().unwrap();
        let fingerprint = Fingerprint::of(format!("secret of {name}").as_bytes());
        file.add(format!("{line} {fingerprint}").parse().unwrap());
    }
    file.write(&path).unwrap();
    path.display().to_string()
}

async fn guarded() -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, TOKENS);
    (start(&[("token", TOKEN), ("tokens-file", &path)]).await, folder)
}

fn shown(name: &str) -> String {
    format!("authorization: Bearer secret of {name}")
}

async fn call(server: &Server, name: &str, line: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(server, line, &[&shown(name)], body.as_bytes()).await
}

async fn get(server: &Server, name: &str, path: &str) -> Answer {
    call(server, name, &format!("GET {path}"), &Value::Null).await
}

/// Said once more, so that a slip in the program does not change the promise.
fn roles_with(right: &str) -> &'static [&'static str] {
    match right {
        "open" | "known" | "look" => &["admin", "operator", "producer", "worker", "read-only"],
        "read" => &["admin", "operator", "read-only"],
        "produce" => &["admin", "operator", "producer"],
        "work" => &["admin", "worker"],
        "operate" => &["admin", "operator"],
        "admin" => &["admin"],
        other => panic!("{other} is no right"),
    }
}

#[tokio::test]
async fn every_route_takes_the_roles_that_it_says_and_nobody_else() {
    let (server, _folder) = guarded().await;
    for (nth, route) in (1..).zip(routes()) {
        let line = format!("{} {}", route.method, concrete(route.path));
        let open = route.right.name() == "open";
        for nobody in [
            "x: y",
            "authorization: Bearer wrong",
            "authorization: Bearer secret of gone",
            "authorization: Basic YTpi",
            "authorization: Bearer",
            "cookie: token=secret of admin",
        ] {
            // Each from an address of its own, as guesses are counted.
            let answer = send_from(nth, &server, &line, &[nobody], b"").await;
            assert_eq!(answer.status, if open { 200 } else { 401 }, "{line} with {nobody}");
            assert!(open || answer.head.contains("www-authenticate: bearer"), "{line}");
        }
        let twice = [&*shown("admin"), &*shown("admin")];
        assert_eq!(send(&server, &line, &twice, b"").await.status, if open { 200 } else { 401 }, "{line}");
        for role in ["admin", "operator", "producer", "worker", "read-only"] {
            let answer = call(&server, role, &line, &Value::Null).await;
            let taken = roles_with(route.right.name()).contains(&role);
            let code = if answer.status == 403 { "forbidden" } else { "" };
            assert_eq!(code, if taken { "" } else { "forbidden" }, "{line} as {role}: {}", answer.text);
            assert_ne!(answer.status, 401, "{line} as {role}");
        }
        let own = format!("authorization: Bearer {TOKEN}");
        let answer = send(&server, &line, &[&own], b"").await;
        assert!(!matches!(answer.status, 401 | 403), "{line}: {}", answer.text);
    }
    assert_eq!(get(&server, "read-only", "/nothing").await.status, 404);
    for unknown in ["GET /nothing", "POST /v1/backups", "PUT /metrics", "OPTIONS *", "TRACE /v1/queues"] {
        assert_eq!(send(&server, unknown, &[], b"").await.status, 401, "{unknown}");
    }
    let in_query = format!("GET /v1/queues?token={}&access_token=x", TOKEN.replace(' ', "+"));
    assert_eq!(send(&server, &in_query, &[], b"").await.status, 401);
    server.stop().await.unwrap();
}

/// What `admin` did in queues of its own, by name.
struct Theirs {
    ids: Vec<(&'static str, String)>,
    lease: Value,
}

async fn furnish(server: &Server) -> Theirs {
    let job = json!({"body": CANARY, "tags": [CANARY], "meta": {"k": CANARY}});
    for _ in 0..2 {
        assert_eq!(call(server, "admin", "POST /v1/queues/theirs/jobs", &job).await.status, 201);
    }
    let fetch = json!({"worker": "w1", "queues": ["theirs"]});
    let lease = call(server, "admin", "POST /v1/fetch", &fetch).await.json()["jobs"][0].clone();
    let graph = json!({
        "jobs": {"a": {"queue": "theirs", "body": CANARY}, "b": {"queue": "mine", "body": 1}},
        "joins": {"j": {"members": ["a"], "then": "b"}}});
    let join = call(server, "admin", "POST /v1/joins", &graph).await;
    assert_eq!(join.status, 201, "{}", join.text);
    let schedule = json!({"cron": "0 0 1 1 *", "job": {"queue": "theirs", "body": CANARY}});
    let put = call(server, "admin", "PUT /v1/schedules/theirs-yearly", &schedule).await;
    assert_eq!(put.status, 200, "{}", put.text);
    let order = json!({"action": "retag", "add": [CANARY], "rate": 1});
    let operation = call(server, "admin", "POST /v1/queues/theirs/operations", &order).await;
    assert_eq!(operation.status, 202, "{}", operation.text);
    let limit = json!({"concurrency": 3});
    assert_eq!(call(server, "admin", "PUT /v1/limits/theirs-api", &limit).await.status, 200);
    let ids = vec![
        ("/v1/jobs/", lease["id"].as_str().unwrap().to_owned()),
        ("/v1/joins/", join.json()["id"].as_str().unwrap().to_owned()),
        ("/v1/schedules/", "theirs-yearly".to_owned()),
        ("/v1/operations/", operation.json()["operation"]["id"].to_string()),
    ];
    Theirs { ids, lease }
}

impl Theirs {
    /// The path of the route to something of theirs.
    fn path(&self, route: &Route) -> String {
        let by_prefix = self.ids.iter().find(|(prefix, _)| route.path.starts_with(prefix));
        let id = by_prefix.map_or(&self.ids[0].1, |(_, id)| id);
        route
            .path
            .replace("{queue}", "theirs")
            .replace("{id}", id)
            .replace("{worker}", "w1")
            .replace("{key}", "theirs-api")
            .replace("{group}", "g")
    }
}

/// A body that the route takes, and that does no harm to what is not theirs.
fn body(route: &Route) -> Value {
    match (route.request, route.path) {
        ("Push", _) => json!({"body": 1}),
        ("Schedule", _) => json!({"cron": "0 0 1 1 *", "job": {"queue": "mine", "body": 1}}),
        ("Settings", _) => json!({"attempts": 9}),
        ("Group", _) => json!({"paused": true}),
        ("Members", _) => json!({"jobs": {"x": {"queue": "mine", "body": 1}}}),
        ("Limit", _) => json!({"concurrency": 1}),
        ("LogLines", _) => json!({"lease_token": 1, "lines": ["x"]}),
        ("Progress", _) => json!({"lease_token": 1, "progress": 1}),
        ("Step", _) => json!({"lease_token": 1, "name": "s"}),
        ("Signal", _) => json!({"name": "s"}),
        ("MergePatch", _) => json!({"a": 1}),
        ("Bulk", path) if path.ends_with("/operations") => json!({"action": "purge"}),
        (_, path) if path.ends_with("/preview") => json!({"cron": "0 0 1 1 *"}),
        _ => Value::Null,
    }
}

/// All that `admin` sees of what is theirs, but for what passes with time.
async fn picture(server: &Server) -> String {
    let mut all = String::new();
    for path in ["/v1/queues/theirs/jobs", "/v1/schedules", "/v1/limits", "/v1/operations"] {
        all += &get(server, "admin", path).await.text;
    }
    let queue = get(server, "admin", "/v1/queues/theirs").await.json();
    all + &json!([queue["counts"], queue["settings"], queue["paused"], queue["pushed_total"]]).to_string()
}

#[tokio::test]
async fn who_has_some_queues_neither_sees_nor_touches_the_others_on_any_route() {
    let (server, _folder) = guarded().await;
    let theirs = furnish(&server).await;
    // A walk of operations that are worked off would change the picture.
    let path = format!("POST /v1/operations/{}/pause", theirs.ids[3].1);
    call(&server, "admin", &path, &Value::Null).await;
    let before = picture(&server).await;
    for route in routes() {
        let path = theirs.path(route);
        let line = format!("{} {path}", route.method);
        let answer = call(&server, "mine", &line, &body(route)).await;
        assert!(!answer.text.contains(CANARY), "{line} shows what is theirs: {}", answer.text);
        let code = answer.json_or_null()["code"].as_str().unwrap_or_default().to_owned();
        let expected: &[&str] = match route.path {
            path if path.contains("{queue}") => &["queue_forbidden"],
            _ if route.whole => &["forbidden"],
            "/v1/schedules/{id}" if route.method == "PUT" => &["queue_forbidden"],
            path if path.starts_with("/v1/jobs/") => &["unknown_job"],
            path if path.starts_with("/v1/joins/") => &["unknown_join"],
            path if path.starts_with("/v1/schedules/{id}") => &["unknown_schedule"],
            path if path.starts_with("/v1/operations/") => &["unknown_operation"],
            // What goes over it is looked at message by message: see the tests of the stream.
            "/v1/stream" => &["bad_request"],
            _ => &["", "invalid_json"],
        };
        assert!(expected.contains(&code.as_str()), "{line}: {}", answer.text);
        let lists = route.method == "GET" && code.is_empty();
        assert!(!lists || !answer.text.contains("theirs"), "{line}: {}", answer.text);
    }
    assert_eq!(picture(&server).await, before);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_out_of_reach_is_answered_like_what_is_not_there() {
    let (server, _folder) = guarded().await;
    let theirs = furnish(&server).await;
    let absent =
        ["019aa000-0000-7000-8000-000000000000", "019aa000-0000-7000-8000-000000000001", "no-such", "77"];
    for ((prefix, id), none) in theirs.ids.iter().zip(absent) {
        for (verb, rest) in
            [("GET", ""), ("POST", "/cancel"), ("POST", "/pause"), ("GET", "/next"), ("GET", "/history")]
        {
            let ask = async |id: &str| {
                let answer = call(&server, "mine", &format!("{verb} {prefix}{id}{rest}"), &Value::Null).await;
                (answer.status, answer.text.replace("/v1/", "/").replace(id, "ID"))
            };
            assert_eq!(ask(id).await, ask(none).await, "{verb} {prefix}{rest}");
        }
    }
    // A lease is judged by itself, with and without its queue.
    let token = &theirs.lease["lease_token"];
    let of = |id: &str| json!({"worker": "w1", "leases": [{"id": id, "lease_token": token}]});
    let settle =
        |id: &str| json!({"worker": "w1", "outcomes": [{"id": id, "lease_token": token, "outcome": "done"}]});
    let id = theirs.lease["id"].as_str().unwrap();
    for (line, body) in [("POST /v1/renew", &of as &dyn Fn(&str) -> Value), ("POST /v1/outcomes", &settle)] {
        let ask = async |id: &str| {
            let answer = call(&server, "mine", line, &body(id)).await.json();
            answer["results"].to_string().replace(id, "ID")
        };
        assert_eq!(ask(id).await, ask(absent[0]).await, "{line}");
        assert!(ask(id).await.contains("unknown_job"), "{line}");
    }
    assert_eq!(get(&server, "admin", &format!("/v1/jobs/{id}")).await.json()["state"], "active");
    // A queue that is not there is no other than one that is.
    for queue in ["theirs", "nobodys"] {
        let answer = get(&server, "mine", &format!("/v1/queues/{queue}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "queue_forbidden"));
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn no_body_names_a_queue_out_of_reach() {
    let (server, _folder) = guarded().await;
    let theirs = furnish(&server).await;
    let before = picture(&server).await;
    let mine = json!({"queue": "mine", "body": 1});
    let pushed = call(&server, "mine", "POST /v1/push", &json!({"jobs": [mine]})).await;
    assert_eq!(pushed.status, 201, "{}", pushed.text);
    let leased = json!({"worker": "w", "queues": ["mine"]});
    let leased = call(&server, "mine", "POST /v1/fetch", &leased).await.json()["jobs"][0].clone();
    let ended = |rest: Value| {
        let mut outcome =
            json!({"id": leased["id"], "lease_token": leased["lease_token"], "outcome": "done"});
        outcome.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        json!({"worker": "w", "outcomes": [outcome]})
    };
    let job = json!({"queue": "theirs", "body": 1});
    let named = json!({"a": {"queue": "theirs", "body": 1}});
    let lease =
        json!({"queue": "theirs", "id": theirs.lease["id"], "lease_token": theirs.lease["lease_token"]});
    for (line, body) in [
        ("POST /v1/push", json!({"jobs": [{"queue": "mine", "body": 1}, job]})),
        ("POST /v1/fetch", json!({"worker": "w", "queues": ["mine", "theirs"]})),
        ("POST /v1/renew", json!({"worker": "w1", "leases": [lease]})),
        ("POST /v1/outcomes", ended(json!({"push": [job]}))),
        ("POST /v1/outcomes", ended(json!({"outcome": "wait", "children": {"jobs": named}}))),
        ("POST /v1/outcomes", ended(json!({"outcome": "wait_for_child", "step": "s", "child": job}))),
        ("POST /v1/outcomes", ended(json!({"queue": "theirs"}))),
        ("POST /v1/joins", json!({"jobs": named, "joins": {"j": {"members": ["a"]}}})),
        ("PUT /v1/schedules/new", json!({"cron": "0 0 1 1 *", "job": job})),
        ("PATCH /v1/queues/mine", json!({"dead_letter": {"queue": "theirs"}})),
        ("POST /v1/queues/mine/operations", json!({"action": "move", "to": "theirs"})),
    ] {
        let answer = call(&server, "mine", line, &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "queue_forbidden"),
            "{line} {body}: {}",
            answer.text
        );
    }
    assert_eq!(picture(&server).await, before);
    let jobs = get(&server, "mine", "/v1/queues/mine/jobs?state=waiting").await.json();
    assert_eq!(jobs["jobs"], json!([]), "half of a refused call was done");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_history_says_who_and_nobody_but_an_admin_is_somebody_else() {
    let (server, _folder) = guarded().await;
    let push = async |name: &str, said: &[&str], id: &str| {
        let token = shown(name);
        let headers = [&[token.as_str()], said].concat();
        let body = json!({"body": 1, "id": id}).to_string();
        let pushed = send(&server, "POST /v1/queues/mine.a/jobs", &headers, body.as_bytes()).await;
        assert_eq!(pushed.status, 201, "{}", pushed.text);
        let path = format!("/v1/queues/mine.a/jobs/{id}/history");
        get(&server, "admin", &path).await.json()["history"][0]["actor"].as_str().unwrap().to_owned()
    };
    assert_eq!(push("web", &[], "1").await, "web");
    assert_eq!(push("web", &["millpond-actor: admin"], "2").await, "web/admin");
    assert_eq!(push("admin", &["millpond-actor: ada"], "3").await, "ada");
    let fetch = json!({"worker": "w1", "queues": ["mine.a"]});
    let job = call(&server, "web", "POST /v1/fetch", &fetch).await.json()["jobs"][0].clone();
    let path = format!("/v1/queues/mine.a/jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(get(&server, "web", &path).await.json()["worker"], "web/w1");
    // What it lost, it hears by the name that it gave itself; others do not.
    let position = get(&server, "web", "/v1/workers/w1/revoked").await.json()["position"].clone();
    call(&server, "admin", &format!("POST {path}/cancel"), &Value::Null).await;
    let heard = format!("/v1/workers/w1/revoked?after={position}");
    assert_eq!(get(&server, "web", &heard).await.json()["revoked"][0]["reason"], "cancelled");
    assert_eq!(get(&server, "worker", &heard).await.json()["revoked"], json!([]));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_same_idempotency_key_of_two_confined_tokens_is_two_keys() {
    let (server, _folder) = guarded().await;
    let push = async |name: &str, body: &str| {
        let headers = [&*shown(name), "idempotency-key: 1"];
        send(&server, "POST /v1/queues/mine.a/jobs", &headers, body.as_bytes()).await.status
    };
    assert_eq!(push("web", r#"{"body":1}"#).await, 201);
    assert_eq!(push("mine", r#"{"body":2}"#).await, 201);
    assert_eq!(push("web", r#"{"body":2}"#).await, 409);
    server.stop().await.unwrap();
}

async fn next_event(stream: &mut tokio::net::TcpStream, seen: &mut String, part: &str) {
    use tokio::io::AsyncReadExt;
    while !seen.contains(part) {
        let mut bytes = Vec::new();
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0, "the stream ended without {part}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test]
async fn a_revoked_token_ends_what_it_waits_for_and_a_stream_shows_its_queues_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (server, folder) = guarded().await;
    let mut stream = tokio::net::TcpStream::connect(server.addr()).await.unwrap();
    let head = format!("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n{}\r\n\r\n", shown("mine"));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = String::new();
    next_event(&mut stream, &mut seen, ": millpond").await;
    for queue in ["theirs", "mine"] {
        let push = format!("POST /v1/queues/{queue}/jobs");
        assert_eq!(call(&server, "admin", &push, &json!({"body": 1})).await.status, 201);
    }
    next_event(&mut stream, &mut seen, "\"queue\":\"mine\"").await;
    assert!(!seen.contains("theirs"), "{seen}");

    let wait = json!({"worker": "w", "queues": ["mine.b"], "wait_ms": 60_000});
    let waiting = call(&server, "web", "POST /v1/fetch", &wait);
    let revoke = async {
        // The fetch waits: everybody can see it.
        while !get(&server, "admin", "/metrics").await.text.contains("millpond_fetches_waiting 1") {}
        write(&folder, &TOKENS[..TOKENS.len() - 2]);
        server.reload();
    };
    let (answer, ()) = tokio::join!(waiting, revoke);
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{}", answer.text);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(get(&server, "mine", "/v1/queues").await.status, 401);
    assert_eq!(get(&server, "admin", "/v1/queues").await.status, 200);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn guesses_are_answered_429_and_shut_nobody_out_who_was_here_before() {
    let (server, _folder) = guarded().await;
    let line = "GET /v1/queues";
    assert_eq!(send_from(9, &server, line, &[&shown("admin")], b"").await.status, 200);
    let mut statuses = Vec::new();
    for guess in 0..40 {
        let token = format!("authorization: Bearer guess {guess}");
        let answer = send_from(9, &server, line, &[&token], b"").await;
        assert!(answer.status == 401 || answer.head.contains("retry-after: "), "{}", answer.head);
        statuses.push(answer.status);
    }
    assert_eq!((statuses[0], statuses[39]), (401, 429), "{statuses:?}");
    assert_eq!(send_from(9, &server, line, &[&shown("admin")], b"").await.status, 200);
    assert_eq!(send_from(9, &server, line, &[&shown("operator")], b"").await.status, 429);
    assert_eq!(send_from(10, &server, line, &[&shown("operator")], b"").await.status, 200);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_does_not_start_on_tokens_that_it_cannot_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens");
    for (text, part) in [(None, "No such file"), (Some("canary of a secret\n"), "line 1")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = refused(&path).await;
        assert!(error.contains(part) && !error.contains("canary of a secret"), "{error}");
    }
}

async fn refused(path: &Path) -> String {
    let flags = [("listen", "127.0.0.1:0"), ("memory", "true"), ("tokens-file", path.to_str().unwrap())];
    let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let sources = server::config::Sources { flags, ..Default::default() };
    let config = server::config::Config::load(&sources).unwrap();
    match Server::start(&config).await {
        Ok(_) => panic!("it started"),
        Err(error) => error.to_string(),
    }
}
