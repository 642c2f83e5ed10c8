use super::system_calls::STOP_MAX;
use crate::{Breach, Plan, Ran, ledger::Ledger, pond::Pond};
use rig::Server;
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

const LIMIT: u64 = 256 << 20;
/// Bytes of a body, and how many are pushed: more than fit in the memory.
const BODY_BYTES: usize = 200 << 10;
const PUSHES: u64 = 2_000;
/// SIGKILL.
const KILL: i32 = 9;

/// F43: the server may use 256 MiB of memory, and more is pushed. It keeps bodies on the disk, refuses politely, or is killed by the
/// system; then a start has everything that was acknowledged.
pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let (mut killed, mut refused, mut pushed) = (0, 0, 0);
    for trial in 0..plan.count {
        let pond = Pond::new(plan)?;
        let starter = pond.starter().arguments(["--body-budget", "64MiB", "--pending-bytes-max", "32MiB"]);
        let server = starter.start().map_err(|error| format!("trial {trial}: {error}"))?;
        let _group = match Group::confine(&server) {
            Ok(group) => group,
            Err(why) => return Ok(Ran::Skipped(why)),
        };
        let ledger = Ledger::new("memory");
        let body = "m".repeat(BODY_BYTES);
        let mut client = server.client();
        let mut refusals = 0;
        for number in 0..PUSHES {
            // Not to be compressed away.
            let ids = [number.to_string()];
            ledger.push_sent(&ids);
            let job = json!({"id": ids[0], "body": scrambled(&body, number)});
            match client.post("/v1/queues/memory/jobs", &job) {
                Ok(answer) if answer.ok() => ledger.push_acknowledged(&ids),
                Ok(answer) if matches!(answer.status, 429 | 503 | 507) => refusals += 1,
                Ok(answer) => return Err(format!("trial {trial}: {} {}", answer.status, answer.body)),
                Err(_) => break,
            }
        }
        plan.tally.fault();
        refused += refusals;
        pushed += ledger.acknowledged();
        // It may be gone already.
        let _ = server.terminate();
        killed += u64::from(server.wait(STOP_MAX).ok_or("it neither ended nor stopped")?.by_signal(KILL));
        pond.heals(&[&ledger])?;
    }
    Ok(Ran::Passed(
        plan.count,
        format!("{pushed} large jobs in 256 MiB: {refused} refused, {killed} times killed"),
    ))
}

/// Another text of the same length for each number.
fn scrambled(body: &str, number: u64) -> String {
    let mut random = kit::random::Random::new(number);
    let text: String = (0..body.len() / 16).map(|_| format!("{:016x}", random.next_u64())).collect();
    text
}

/// A memory cgroup of its own, of either version.
struct Group(PathBuf);

impl Group {
    fn confine(server: &Server) -> Result<Self, String> {
        let name = format!("millpond-{}", server.pid());
        let tried = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (root, limit) in tried {
            let path = Path::new(root).join(&name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self(path);
            let set = fs::write(group.0.join(limit), LIMIT.to_string())
                .and_then(|()| fs::write(group.0.join("cgroup.procs"), server.pid().to_string()));
            if set.is_ok() {
                return Ok(group);
            }
        }
        Err("no memory cgroup can be made here; this row needs root".to_owned())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once its process is gone; a leftover is empty and does no harm.
        let _ = fs::remove_dir(&self.0);
    }
}
