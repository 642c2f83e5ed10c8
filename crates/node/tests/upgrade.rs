//! Data directories that earlier releases left: each opens, and everything in it is what that release said of it.
//!
//! `upgrade/NAME.tar.zst` is a directory after a kill, `upgrade/NAME.json` what its server last answered of each job, a line each;
//! `upgrade/make.sh` makes both. A release that changes a format adds one, and none is ever taken away.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kit::Durability::Disk;
use millpond_core::{Shard, body_key};
use model::{Actor, Command, Envelope, JobId, JobRef, JobView, NewJob, QueueName};
use node::{Handle, Options, Recovered, recover};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command as Program, Stdio},
    time::Duration,
};

/// What releases before the first one left, too.
const RELEASES_MIN: usize = 1;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade")
}

fn unpack(archive: &Path, to: &Path) -> PathBuf {
    let packed = zstd::decode_all(fs::File::open(archive).unwrap()).unwrap();
    let mut tar = Program::new("tar").arg("-x").current_dir(to).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut tar.stdin.take().unwrap(), &packed).unwrap();
    assert!(tar.wait().unwrap().success());
    to.join("data")
}

/// A job as the answers of that time show it. Members that came later are not compared.
fn shown(job: &JobView, body: &[u8]) -> Value {
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    json!({
        "id": job.id.to_string(), "queue": job.queue.as_str(), "state": job.state.name(), "priority": job.priority.0,
        "attempt": job.attempt, "attempts": job.attempts, "crashes": job.crashes, "max_crashes": job.max_crashes,
        "lease_token": job.lease_token, "unique_key": job.unique_key.as_deref(), "timeout_ms": job.timeout_ms,
        "worker": job.worker.as_ref().map(Actor::as_str), "tags": job.tags.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(),
        "body": parsed(body), "result": job.result.as_deref().map(parsed),
        "error": job.error.as_ref().map(|error| json!({"kind": error.kind.as_str(), "message": error.message.as_str()})),
    })
}

fn same(ours: &Value, theirs: &Value) -> Result<(), String> {
    for (member, value) in ours.as_object().unwrap() {
        let mut told = theirs[member].clone();
        if let Some(error) = told.as_object_mut().filter(|_| member == "error") {
            error.retain(|member, _| member == "kind" || member == "message");
        }
        if *value != told {
            return Err(format!("{member}: {told} became {value}"));
        }
    }
    Ok(())
}

/// The state as the directory has it, before any time passes.
fn still(data: &Path, look: impl FnOnce(&Shard, &dyn Fn(u64) -> Vec<u8>)) {
    let (log, checkpoints) = storage::open_local(data, &storage::Options::default()).unwrap();
    let recovered: Recovered<u64> =
        recover(Box::new(log), Box::new(checkpoints), &Options::default()).unwrap();
    let reader = recovered.keeper.reader();
    look(recovered.driver.shard(), &|sequence| reader.get(0, &body_key(sequence)).unwrap().unwrap());
}

#[tokio::test]
async fn what_an_earlier_release_left_opens_and_is_what_it_was() {
    let mut archives: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|file| file.unwrap().path()).collect();
    archives.retain(|path| path.extension().is_some_and(|kind| kind == "zst"));
    assert!(archives.len() >= RELEASES_MIN);
    for archive in archives {
        let scratch = tempfile::tempdir().unwrap();
        let data = unpack(&archive, scratch.path());
        let told = fs::read_to_string(archive.with_extension("").with_extension("json")).unwrap();
        let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told.len(), 10, "{}", archive.display());
        still(&data, |shard, body_of| {
            for theirs in &told {
                let queue = QueueName::new(theirs["queue"].as_str().unwrap()).unwrap();
                let id = JobId::Text(theirs["id"].as_str().unwrap().into());
                let job = shard.job(&JobRef { queue: Some(queue), id }).unwrap();
                let body = job.body.as_deref().map_or_else(|| body_of(job.sequence), <[u8]>::to_vec);
                same(&shown(&job, &body), theirs)
                    .unwrap_or_else(|wrong| panic!("{}: job {}: {wrong}", archive.display(), job.id));
            }
            assert_eq!(shard.stats().jobs, told.len() as u64);
            assert!(
                shard.queues(None, 10).iter().any(|queue| queue.name.as_str() == "other" && queue.paused)
            );
            shard.check().unwrap();
        });

        // It goes on from there, and what it then writes is whole.
        let pond = Handle::open(&data, Options::default()).unwrap();
        let mail = QueueName::new("mail").unwrap();
        let push = Command::Push { jobs: vec![NewJob::new(mail.clone(), "7")] };
        let call = Envelope { actor: Actor::new("test"), idempotency_key: None, command: push };
        pond.call(call, Disk).await.unwrap();
        let jobs = pond.fetch(Actor::new("w"), vec![mail], 10, 0, Duration::ZERO, Disk).await.unwrap();
        assert!(jobs.iter().any(|job| job.id.to_string() == "m5"));
        assert!(jobs.iter().all(|job| job.lease_token > 4), "tokens rise for ever");
        pond.stop(Duration::from_secs(60)).await.unwrap();
        let verified = node::verify(&data, &Options::default()).unwrap();
        assert!(verified.inspection.damage.is_empty(), "{}: {verified:?}", archive.display());
    }
}
