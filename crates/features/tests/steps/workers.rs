//! A connected program that an operator lets rest, and end.

use super::{SOON, World};
use cucumber::{given, then, when};
use millpond::{Connect, Job, Pond};
use rig::until;
use std::{fmt, sync::Arc};
use tokio::{runtime::Runtime, sync::Semaphore, task::JoinHandle, time::timeout};

/// A program whose jobs end when they may, and that ends when it is told to stop.
pub(super) struct Slow {
    let_go: Arc<Semaphore>,
    ended: JoinHandle<()>,
    // Last, so that what runs on it goes before.
    runtime: Runtime,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slow").finish_non_exhaustive()
    }
}

#[given(expr = "a program that is connected as {string} and works slowly on {string}")]
fn connects(world: &mut World, name: String, queue: String) {
    let runtime = Runtime::new().expect("threads");
    let url = world.server().url();
    let let_go = Arc::new(Semaphore::new(0));
    let gate = let_go.clone();
    let ended = runtime.spawn(async move {
        let options = Connect { name: Some(name), patience: SOON, ..Connect::default() };
        let pond = Pond::connect_with(&url, options).await.expect("a link");
        let handler = move |_: u64, _: Job| {
            let gate = gate.clone();
            async move { gate.acquire().await.expect("it stays open").forget() }
        };
        let queue = pond.queue::<u64>(&queue).expect("a queue");
        let mut worker = queue.worker(handler).start().expect("a worker");
        worker.closed().await;
        worker.stop().await;
        pond.close().await.expect("an end");
    });
    world.slow = Some(Slow { let_go, ended, runtime });
}

#[then(expr = "{string} has the job {string} in hand")]
fn has_in_hand(world: &mut World, name: String, id: String) {
    let path = format!("/v1/workers/{name}");
    let met = until(SOON, || {
        let jobs = world.get(&path).body["jobs"].take();
        jobs.as_array()?.iter().any(|job| job["id"] == *id).then_some(())
    });
    assert!(met.is_some(), "{}", world.get(&path).body);
}

#[when("the slow program may finish a job")]
fn finishes(world: &mut World) {
    world.slow.as_ref().expect("a slow program").let_go.add_permits(1);
}

#[then("the slow program ends")]
fn ends(world: &mut World) {
    let Slow { ended, runtime, .. } = world.slow.take().expect("a slow program");
    runtime.block_on(async { timeout(SOON, ended).await }).expect("it ends").expect("without a panic");
}
