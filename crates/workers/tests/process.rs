//! Programs as handlers, with `sh`, and with `python3` and `node` where they are installed.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Pit, Told, job, job_with_timeout, next};
use model::{
    ChildEnd, DispatchedJob, Ignore, JobId, JoinState, JoinView, MemberOf, MemberState, MemberView, NewJob,
    OnFailure, Outcome, Policy, QueueName, Rest, State, Step, StepValue, Until,
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use workers::{
    Options, Runtime,
    process::{OneShot, Pool, PoolOptions, Program},
};

const LEASE: Duration = Duration::from_secs(30);

fn sh(script: &str) -> Program {
    Program::new("sh").arg("-c").arg(script).grace(Duration::from_millis(300))
}

fn one_shot(script: &str) -> OneShot {
    OneShot::new(sh(script))
}

async fn outcome(handler: OneShot, job: DispatchedJob) -> Outcome {
    let (pit, mut told) = Pit::new(LEASE);
    let _runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job]);
    next(&mut told).await.1
}

fn pool_of(program: Program, children: usize) -> (Pit, Told, Arc<Pool>, Runtime) {
    let (pit, told) = Pit::new(LEASE);
    let pool = Arc::new(Pool::new(program, PoolOptions { children, ..PoolOptions::default() }));
    let options = Options { concurrency: children, ..Options::default() };
    let runtime = Runtime::start(pit.clone(), pool.clone(), options).unwrap();
    (pit, told, pool, runtime)
}

/// `kind: message` of an error.
fn error(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Retry { error, .. } => format!("retry {}: {}", error.kind, error.message),
        Outcome::Fail { error } => format!("fail {}: {}", error.kind, error.message),
        Outcome::Crash(crash) => format!("crash, {crash}: {}", crash.stderr),
        other => format!("{other:?}"),
    }
}

fn result(outcome: Outcome) -> serde_json::Value {
    match outcome {
        Outcome::Done { result } => serde_json::from_slice(&result.unwrap_or_else(|| "null".into())).unwrap(),
        other => panic!("not done: {}", error(&other)),
    }
}

fn installed(program: &str) -> bool {
    let found =
        std::process::Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

#[tokio::test]
async fn the_body_comes_on_stdin_and_stdout_is_the_result() {
    for (script, expected) in [
        ("cat", serde_json::json!({"to": "a@b.c"})),
        ("echo hello there", serde_json::json!("hello there")),
        (":", serde_json::Value::Null),
        (
            "echo $MILLPOND_JOB_ID $MILLPOND_QUEUE $MILLPOND_ATTEMPT $MILLPOND_ATTEMPTS $MILLPOND_LEASE_TOKEN $MILLPOND_DEADLINE_MS",
            serde_json::json!("job-7 q 1 5 7 1300000"),
        ),
    ] {
        let outcome = outcome(one_shot(script), job(7, r#"{"to":"a@b.c"}"#)).await;
        assert_eq!(result(outcome), expected, "{script}");
    }
}

#[tokio::test]
async fn the_exit_status_is_the_outcome() {
    for (script, expected) in [
        ("echo oops >&2; exit 3", "retry exit: exit status 3: oops"),
        ("echo bad data >&2; exit 65", "fail exit: exit status 65: bad data"),
        ("exit 75", "Snooze { after_ms: 30000 }"),
        ("echo oops >&2; kill -SEGV $$", "crash, killed by SIGSEGV: oops"),
        ("kill -KILL $$", "crash, killed by SIGKILL: "),
        ("exit 134", "crash, killed by SIGABRT: "),
        ("exit 143", "retry exit: exit status 143"),
    ] {
        assert_eq!(error(&outcome(one_shot(script), job(1, "")).await), expected, "{script}");
    }
}

#[tokio::test]
async fn a_program_that_ends_with_75_may_say_its_outcome() {
    let suspend = |until| Outcome::Suspend { step: "s".into(), until };
    let job_of = |queue| NewJob::new(QueueName::new(queue).unwrap(), "null");
    for (stdout, expected) in [
        ("not now", Outcome::Snooze { after_ms: 30_000 }),
        (r#"{"type":"snooze","after_ms":5}"#, Outcome::Snooze { after_ms: 5 }),
        (r#"{"type":"rate_limited","after_ms":9}"#, Outcome::RateLimited { key: None, after_ms: 9 }),
        (
            r#"{"type":"rate_limited","limit":"api"}"#,
            Outcome::RateLimited { key: Some("api".into()), after_ms: 1_000 },
        ),
        (r#"{"type":"sleep","name":"s","after_ms":7}"#, suspend(Until::Time { after_ms: 7 })),
        (
            r#"{"type":"wait_for_signal","name":"s","signal":"go"}"#,
            suspend(Until::Signal { name: "go".into(), timeout_ms: 0 }),
        ),
        (
            r#"{"type":"wait_for_child","name":"s","child":{"queue":"kids"}}"#,
            suspend(Until::Child { job: Box::new(job_of("kids")) }),
        ),
    ] {
        let script = format!("echo working; echo '{stdout}'; exit 75");
        assert_eq!(outcome(one_shot(&script), job(1, "")).await, expected, "{stdout}");
    }
    let told = error(&outcome(one_shot(r#"echo '{"type":"later"}'; exit 75"#), job(1, "")).await);
    assert!(told.starts_with("retry protocol: the child wrote a frame of type \"later\""), "{told}");
}

#[tokio::test]
async fn a_program_finds_what_it_waited_for() {
    let (pit, mut told) = Pit::new(LEASE);
    let _runtime =
        Runtime::start(pit.clone(), one_shot(r#"printf %s "$MILLPOND_STEPS""#), Options::default()).unwrap();
    pit.push([job(7, "")]);
    assert_eq!(result(next(&mut told).await.1), serde_json::json!({}));
    let end = ChildEnd { state: Some(State::Completed), result: Some("[1]".into()), error: None };
    let (queue, id) = (QueueName::new("kids").unwrap(), JobId::parse("kid").unwrap());
    let value = StepValue::Child { queue, id, end: Some(end) };
    let step = |name: &str, value| Step { name: name.into(), at: kit::Timestamp(1), attempt: 0, value };
    pit.steps.lock().unwrap().push((7, step("child", value)));
    pit.push([DispatchedJob { steps: 1, ..job(7, "") }]);
    let expected =
        serde_json::json!({"child": {"kind": "child", "id": "kid", "state": "completed", "value": [1]}});
    assert_eq!(result(next(&mut told).await.1), expected);

    pit.steps
        .lock()
        .unwrap()
        .push((7, step("big", StepValue::Signal(format!("{:?}", "x".repeat(1 << 17)).into()))));
    pit.push([DispatchedJob { steps: 2, ..job(7, "") }]);
    assert!(error(&next(&mut told).await.1).starts_with("fail steps_too_large"));
}

#[tokio::test]
async fn the_environment_is_clean_but_for_what_is_allowed() {
    let program = sh("env").allow_env("CARGO_MANIFEST_DIR").env("GIVEN", "yes");
    let text = result(outcome(OneShot::new(program), job(1, "")).await);
    let text = text.as_str().unwrap();
    let names: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert!(names.contains(&"PATH") && names.contains(&"GIVEN") && names.contains(&"CARGO_MANIFEST_DIR"));
    assert!(!names.contains(&"CARGO_PKG_NAME"), "{names:?}");
}

#[tokio::test]
async fn floods_on_both_streams_are_read_and_not_kept() {
    let script = "head -c 30000000 /dev/zero >&2; head -c 30000000 /dev/zero";
    assert!(matches!(outcome(one_shot(script), job(1, "")).await, Outcome::Done { result: None }));
    let script = "head -c 30000000 /dev/zero | tr '\\0' x >&2; echo end >&2; exit 1";
    let told = error(&outcome(one_shot(script), job(1, "")).await);
    assert!(told.len() < 17_000 && told.starts_with("retry exit: exit status 1: … xxx"));
}

#[tokio::test]
async fn a_program_that_ignores_its_body_or_sigterm_does_not_hold_the_worker() {
    let large = "x".repeat(1 << 20);
    assert!(matches!(outcome(one_shot("exit 0"), job(1, &large)).await, Outcome::Done { .. }));
    let stubborn = "trap '' TERM; while :; do sleep 1; done";
    let slow = job_with_timeout(1, "", LEASE, Duration::from_millis(200));
    assert!(error(&outcome(one_shot(stubborn), slow).await).starts_with("retry timeout"));
}

#[tokio::test]
async fn the_whole_group_is_killed_on_timeout() {
    let dir = std::env::temp_dir().join(format!("millpond-group-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let script = "sleep 1000 & echo $! > grandchild; wait";
    let slow = job_with_timeout(1, "", LEASE, Duration::from_millis(300));
    let told = outcome(OneShot::new(sh(script).dir(&dir)), slow).await;
    assert!(error(&told).starts_with("retry timeout"), "{told:?}");
    let grandchild: i32 = std::fs::read_to_string(dir.join("grandchild")).unwrap().trim().parse().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    // An orphan that was killed may stay as a zombie until init reaps it.
    let state = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
    assert!(state.is_err() || state.unwrap().contains(") Z "), "the grandchild {grandchild} still runs");
}

#[tokio::test]
async fn a_program_that_cannot_start_puts_the_job_off_and_says_so_in_its_log() {
    let (pit, mut told) = Pit::new(LEASE);
    let missing = OneShot::new(Program::new("no-such-program-here"));
    let _runtime = Runtime::start(pit.clone(), missing, Options::default()).unwrap();
    pit.push([job(1, "")]);
    assert!(matches!(next(&mut told).await.1, Outcome::Snooze { .. }));
    assert!(pit.lines.lock().unwrap()[0].contains("cannot start no-such-program-here"));
}

/// A child in `sh` that says hello and then does `turn` for each line, with `$token` set.
fn child(turn: &str) -> Program {
    sh(&format!(
        r#"echo '{{"type":"hello","protocol":1}}'
        while read -r line; do
            token=$(printf %s "$line" | sed 's/.*"lease_token":\([0-9]*\).*/\1/')
            {turn}
        done"#
    ))
}

#[tokio::test]
async fn a_child_takes_many_jobs_in_turn() {
    let turn = r#"echo "{\"type\":\"done\",\"lease_token\":$token,\"result\":$$}""#;
    let (pit, mut told, pool, runtime) = pool_of(child(turn), 1);
    pit.push((1..=20).map(|token| job(token, "{}")));
    let mut pids = std::collections::BTreeSet::new();
    for _ in 0..20 {
        pids.insert(result(next(&mut told).await.1).as_u64().unwrap());
    }
    assert_eq!((pids.len(), pool.totals().started), (1, 1));
    runtime.stop(LEASE).await;
    pool.close().await;
}

#[tokio::test]
async fn a_child_is_replaced_after_its_share_of_jobs() {
    let (pit, mut told) = Pit::new(LEASE);
    let turn = r#"echo "{\"type\":\"done\",\"lease_token\":$token}""#;
    let options = PoolOptions { children: 1, jobs_per_child: Some(5), ..PoolOptions::default() };
    let pool = Arc::new(Pool::new(child(turn), options));
    let _runtime =
        Runtime::start(pit.clone(), pool.clone(), Options { concurrency: 1, ..Options::default() }).unwrap();
    pit.push((1..=15).map(|token| job(token, "{}")));
    for _ in 0..15 {
        result(next(&mut told).await.1);
    }
    assert_eq!(pool.totals().started, 3);
}

#[tokio::test]
async fn a_child_that_breaks_fails_its_job_and_is_replaced() {
    let turn = r#"case $token in
        1) echo garbage;;
        2) echo dying >&2; kill -SEGV $$;;
        3) echo '{"type":"done","lease_token":99}';;
        4) head -c 3000000 /dev/zero | tr '\0' x;;
        *) echo "{\"type\":\"done\",\"lease_token\":$token,\"result\":\"well\"}";;
    esac"#;
    let (pit, mut told, pool, _runtime) = pool_of(child(turn), 1);
    pit.push((1..=5).map(|token| job(token, "{}")));
    for expected in [
        "retry protocol: the child wrote a line that is not a frame",
        "crash, killed by SIGSEGV: dying",
        "retry protocol: the child ended lease 99 but has lease 3",
        "retry protocol: the child wrote a line that is too long",
    ] {
        let (_, outcome) = next(&mut told).await;
        assert!(error(&outcome).starts_with(expected), "{expected}: {}", error(&outcome));
    }
    assert_eq!(result(next(&mut told).await.1), "well");
    assert_eq!((pool.totals().started, pool.totals().broken), (5, 4));
}

#[tokio::test]
async fn a_child_that_never_starts_does_not_cost_attempts() {
    let (pit, mut told, pool, _runtime) = pool_of(sh("echo missing module >&2; exit 1"), 1);
    pit.push([job(1, "{}")]);
    assert!(matches!(next(&mut told).await.1, Outcome::Snooze { .. }));
    let line = pit.lines.lock().unwrap()[0].clone();
    assert!(line.contains("exit status 1") && line.contains("missing module"), "{line}");
    assert_eq!(pool.totals().broken, 1);
}

#[tokio::test]
async fn a_job_that_takes_too_long_ends_its_child_only() {
    let turn = r#"[ "$token" = 1 ] && sleep 1000; echo "{\"type\":\"done\",\"lease_token\":$token}""#;
    let (pit, mut told, _pool, _runtime) = pool_of(child(turn), 1);
    pit.push([job_with_timeout(1, "{}", LEASE, Duration::from_millis(300)), job(2, "{}")]);
    assert!(error(&next(&mut told).await.1).starts_with("retry timeout"));
    assert_eq!(next(&mut told).await, (2, Outcome::Done { result: None }));
}

async fn shim(program: &str, example: &str) {
    if !installed(program) {
        return;
    }
    let example = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../sdk").join(example);
    let (pit, mut told, pool, runtime) = pool_of(Program::new(program).arg(example), 1);
    let body = |subject: &str| format!("{{\"to\":\"a@b.c\",\n\"subject\":\"{subject}\"}}");
    pit.push([job(1, &body("hi")), job(2, &body("hi"))]);
    assert_eq!(result(next(&mut told).await.1)["messages"], 1);
    assert_eq!(result(next(&mut told).await.1)["messages"], 2);
    assert_eq!(pit.lines.lock().unwrap()[0], "sending to a@b.c");
    let progress: serde_json::Value = serde_json::from_slice(&pit.progress.lock().unwrap()[0]).unwrap();
    assert_eq!(progress["percent"], 50);
    pit.push([job(3, &body("flaky")), job(4, r#"{"to":"nobody"}"#), job(5, &body("later"))]);
    let flaky = error(&next(&mut told).await.1);
    assert!(flaky.starts_with("retry ") && flaky.contains("the mail server is busy"), "{flaky}");
    let dead = error(&next(&mut told).await.1);
    assert!(dead.starts_with("fail ") && dead.contains("not an address"), "{dead}");
    assert_eq!(next(&mut told).await, (5, Outcome::Snooze { after_ms: 60_000 }));
    assert_eq!(pool.totals().started, 1);
    runtime.stop(LEASE).await;
    pool.close().await;
}

#[tokio::test]
async fn the_python_shim_speaks_the_protocol() {
    shim("python3", "python/example.py").await;
}

#[tokio::test]
async fn the_node_shim_speaks_the_protocol() {
    shim("node", "node/example.js").await;
}

/// Those of the two that are installed, with a program that uses its shim.
fn shims(python: &str, node: &str) -> impl Iterator<Item = (&'static str, Program)> {
    let sdk = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
    let python = Program::new("python3").arg("-c").arg(python).arg(&sdk);
    let node = Program::new("node").arg("--input-type=module").arg("-e").arg(node).arg(&sdk);
    [("python3", python), ("node", node)].into_iter().filter(|(name, _)| installed(name))
}

const LIMITED_PYTHON: &str = "
import sys
sys.path.insert(0, sys.argv[1] + '/python')
from millpond_handler import RateLimited, run
def work(job):
    raise RateLimited(500, limit=job.body)
run(work)
";

const LIMITED_NODE: &str = "
const [sdk] = process.argv.slice(1);
const { handle, RateLimited } = await import(sdk + '/node/millpond-handler.js');
await handle((job) => { throw new RateLimited(500, { limit: job.body ?? undefined }); });
";

#[tokio::test]
async fn the_shims_report_what_is_rate_limited() {
    for (name, program) in shims(LIMITED_PYTHON, LIMITED_NODE) {
        let (pit, mut told, _pool, _runtime) = pool_of(program, 1);
        pit.push([job(1, r#""api""#), job(2, "null")]);
        for key in [Some("api".into()), None] {
            assert_eq!(next(&mut told).await.1, Outcome::RateLimited { key, after_ms: 500 }, "{name}");
        }
    }
}

const STEPS_PYTHON: &str = "
import sys
sys.path.insert(0, sys.argv[1] + '/python')
from millpond_handler import run
def work(job):
    charge = job.step('charge', lambda: {'of': job.body})
    job.step('charge', lambda: 2)
    by = job.wait_for_signal('approved', 60000)
    return [charge, by]
run(work)
";

const STEPS_NODE: &str = "
const [sdk] = process.argv.slice(1);
const { handle } = await import(sdk + '/node/millpond-handler.js');
await handle(async (job) => {
  const [charge] = await Promise.all([job.step('charge', () => ({ of: job.body })), job.step('charge', () => 2)]);
  const by = await job.waitForSignal('approved', { timeoutMs: 60000 });
  return [charge, by];
});
";

#[tokio::test]
async fn the_shims_store_steps_and_wait_for_signals() {
    for (name, program) in shims(STEPS_PYTHON, STEPS_NODE) {
        let (pit, mut told, _pool, _runtime) = pool_of(program, 1);
        pit.push([job(7, "42")]);
        let (_, suspended) = next(&mut told).await;
        let expected = Outcome::Suspend {
            step: "approved".into(),
            until: Until::Signal { name: "approved".into(), timeout_ms: 60_000 },
        };
        assert_eq!(suspended, expected, "{name}");
        let mut names: Vec<_> = pit.steps.lock().unwrap().iter().map(|(_, step)| step.name.clone()).collect();
        names.sort();
        assert_eq!(names, ["charge", "charge#2"], "{name}");

        let value = StepValue::Signal("\"ada\"".into());
        let signal = Step { name: "approved".into(), at: kit::Timestamp(1), attempt: 0, value };
        pit.steps.lock().unwrap().push((7, signal));
        pit.push([DispatchedJob { steps: 3, ..job(7, "42") }]);
        let (_, done) = next(&mut told).await;
        assert_eq!(result(done), serde_json::json!([{"of": 42}, "ada"]), "{name}");
        assert_eq!(pit.steps.lock().unwrap().len(), 3, "{name} stored nothing twice");
    }
}

const CHILDREN_PYTHON: &str = "
import sys
sys.path.insert(0, sys.argv[1] + '/python')
from millpond_handler import Wait, run
def work(job):
    if job.children is None:
        raise Wait({'jobs': {'b': {'queue': 'parts', 'body': job.body}, 'a': {'queue': 'parts', 'id': 'a'}}, 'join': {'on_failure': 'run'}})
    return [[child['name'], child['state'], child.get('result')] for child in job.children['members']]
run(work)
";

const CHILDREN_NODE: &str = "
const [sdk] = process.argv.slice(1);
const { handle, Wait } = await import(sdk + '/node/millpond-handler.js');
await handle((job) => {
  if (!job.children) {
    throw new Wait({ jobs: { b: { queue: 'parts', body: job.body }, a: { queue: 'parts', id: 'a' } }, join: { on_failure: 'run' } });
  }
  return job.children.members.map((child) => [child.name, child.state, child.result ?? null]);
});
";

/// Two children that have ended.
fn ended_join() -> JoinView {
    let member = |name: &str, state, result: Option<&'static str>| MemberView {
        name: name.into(),
        state,
        what: MemberOf::Job(QueueName::new("parts").unwrap(), JobId::Text(name.into())),
        result: result.map(Into::into),
        result_bytes: 0,
        error: None,
    };
    JoinView {
        id: JobId::Text("j".into()),
        name: "join".into(),
        state: JoinState::Failed,
        policy: Policy::All,
        on_failure: OnFailure::Run,
        rest: Rest::Cancel,
        ignore: Ignore::NONE,
        sealed: true,
        created_at: kit::Timestamp(1),
        ended_at: None,
        then: None,
        counts: [0, 1, 1, 0, 0, 0],
        members: vec![
            member("b", MemberState::Completed, Some("{\n\"n\": 1.50}")),
            member("a", MemberState::Failed, None),
        ],
        next: None,
    }
}

#[tokio::test]
async fn the_shims_wait_for_children_and_see_their_results() {
    for (name, program) in shims(CHILDREN_PYTHON, CHILDREN_NODE) {
        let (pit, mut told, _pool, _runtime) = pool_of(program, 1);
        pit.push([job(7, "42")]);
        let (_, Outcome::Wait { children }) = next(&mut told).await else { panic!("{name} did not wait") };
        let jobs: Vec<_> =
            children.jobs.iter().map(|named| (named.name.as_str(), named.job.body.clone())).collect();
        assert_eq!(jobs, [("b", "42".into()), ("a", "null".into())], "{name}");
        assert_eq!(children.joins[0].members, ["b", "a"], "{name}");
        assert_eq!(children.joins[0].on_failure, OnFailure::Run, "{name}");
        pit.push([DispatchedJob { children: Some(Box::new(ended_join())), ..job(7, "42") }]);
        let expected = serde_json::json!([["b", "completed", {"n": 1.5}], ["a", "failed", null]]);
        assert_eq!(result(next(&mut told).await.1), expected, "{name}");
    }
}

#[tokio::test]
async fn a_program_that_runs_once_sees_its_children_up_to_a_size() {
    let (pit, mut told) = Pit::new(LEASE);
    let handler = one_shot(r#"printf %s "${MILLPOND_CHILDREN:-none}""#);
    let _runtime = Runtime::start(pit.clone(), handler, Options::default()).unwrap();
    pit.push([job(7, "")]);
    assert_eq!(result(next(&mut told).await.1), "none");
    pit.push([DispatchedJob { children: Some(Box::new(ended_join())), ..job(7, "") }]);
    let expected = serde_json::json!({"id": "j", "name": "join", "state": "failed", "total": 2, "members": [
        {"name": "b", "state": "completed", "queue": "parts", "id": "b", "result": {"n": 1.5}},
        {"name": "a", "state": "failed", "queue": "parts", "id": "a"}]});
    assert_eq!(result(next(&mut told).await.1), expected);
    let mut large = ended_join();
    large.members[0].result = Some(format!("{:?}", "x".repeat(1 << 17)).into());
    pit.push([DispatchedJob { children: Some(Box::new(large)), ..job(7, "") }]);
    let told = error(&next(&mut told).await.1);
    assert!(told.starts_with("fail children_too_large") && told.contains("use a pool"), "{told}");
}
