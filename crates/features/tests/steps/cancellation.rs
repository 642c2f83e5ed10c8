//! Calling jobs off while they run.

use super::{SOON, World, jobs_of};
use cucumber::{given, then, when};
use rig::until;
use serde_json::json;
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

/// Killed when the scenario ends.
#[derive(Debug)]
pub(crate) struct Worker(pub(super) Child);

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const SHELL: &str = "trap 'touch stopped; exit 1' TERM; touch begun; while :; do sleep 0.05; done";

const PYTHON: &str = "
import sys, time
sys.path.insert(0, sys.argv[1] + '/python')
from millpond_handler import Cancelled, run
def work(job):
    open(sys.argv[2] + '/begun', 'w').close()
    try:
        time.sleep(3600)
    except Cancelled:
        open(sys.argv[2] + '/stopped', 'w').close()
        raise
run(work)
";

const NODE: &str = "
const [sdk, folder] = process.argv.slice(1);
const { writeFileSync } = await import('node:fs');
const { handle } = await import(sdk + '/node/millpond-handler.js');
await handle((job) => new Promise((_, stop) => {
  const idle = setInterval(() => {}, 1000);
  job.signal.addEventListener('abort', () => {
    writeFileSync(folder + '/stopped', '');
    clearInterval(idle);
    stop(job.signal.reason);
  });
  writeFileSync(folder + '/begun', '');
}));
";

#[given(
    regex = r#"^a (shell program|Python handler|Node handler) that takes jobs from "(.+)" and works until it is told to stop$"#
)]
fn program(world: &mut World, kind: String, queue: String) {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
    let folder = world.folder.path().to_owned();
    let mut command = Command::new(rig::binary().expect("a binary"));
    // A lease of a day: no renewal can be what tells.
    command.args(["work", &queue, "--concurrency", "1", "--lease", "1d"]);
    match kind.as_str() {
        "shell program" => command.args(["--", "sh", "-c"]).arg(SHELL),
        "Python handler" => command.args(["--pool", "--", "python3", "-c", PYTHON]).arg(sdk).arg(&folder),
        _ => command.args(["--pool", "--", "node", "--input-type=module", "-e", NODE]).arg(sdk).arg(&folder),
    };
    command.env("MILLPOND_URL", world.server().url()).current_dir(&folder);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    world.worker = Some(Worker(child));
}

#[when("the program has begun")]
fn begun(world: &mut World) {
    appears(world, "begun");
}

#[then("the program was told to stop")]
fn told(world: &mut World) {
    appears(world, "stopped");
}

fn appears(world: &World, file: &str) {
    let path = world.folder.path().join(file);
    assert!(until(SOON, || path.exists().then_some(())).is_some(), "there is no file {file:?}");
}

#[when(expr = "I cancel the job {string} in {string}")]
fn cancel(world: &mut World, id: String, queue: String) {
    world.must(&format!("{}/{id}/cancel", jobs_of(&queue)), &json!({"reason": "not needed"}));
}

#[when("the worker begins to listen for what it loses")]
fn listens(world: &mut World) {
    let answer = world.get("/v1/workers/tester/revoked");
    assert_eq!((answer.status, &answer.body["missed"]), (200, &json!(true)), "{}", answer.body);
    world.heard_to = answer.body["position"].as_u64().expect("a position");
}

#[then(expr = "the worker hears that it lost {string} because of {string}")]
fn hears(world: &mut World, id: String, reason: String) {
    let path = format!("/v1/workers/tester/revoked?wait_ms=20000&after={}", world.heard_to);
    let answer = world.get(&path);
    let lost = &answer.body["revoked"][0];
    assert_eq!((&lost["id"], &lost["reason"]), (&json!(id), &json!(reason)), "{}", answer.body);
    assert_eq!(lost["lease_token"], world.fetched[0]["lease_token"]);
}
