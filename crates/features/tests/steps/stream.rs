//! A program that is connected by the stream.

use super::{SOON, World};
use cucumber::{given, then, when};
use millpond::{Connect, Job, Pond, Worker};
use rig::until;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinHandle};

type Runs = Arc<Mutex<BTreeMap<u64, u32>>>;

/// A pond elsewhere with a worker, and what it has run.
pub(super) struct Connected {
    pond: Pond,
    _worker: Worker,
    runs: Runs,
    pushing: Option<JoinHandle<()>>,
    pushed: usize,
    // Last, so that what runs on it goes before.
    runtime: Runtime,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("pushed", &self.pushed).finish_non_exhaustive()
    }
}

fn connected(world: &mut World) -> &mut Connected {
    world.connected.as_mut().expect("a program is connected")
}

#[given(expr = "a program that is connected and works on {string}")]
fn connects(world: &mut World, queue: String) {
    let runtime = Runtime::new().expect("threads");
    let url = world.server().url();
    // The server may take a while to come back on a busy machine.
    let options = Connect { patience: SOON, ..Connect::default() };
    let pond = runtime.block_on(Pond::connect_with(&url, options)).expect("a link");
    let runs = Runs::default();
    let noted = runs.clone();
    let handler = move |number: u64, _: Job| {
        *noted.lock().expect("the runs").entry(number).or_default() += 1;
        async {}
    };
    let _guard = runtime.enter();
    let worker = pond.queue::<u64>(&queue).expect("a queue").worker(handler);
    // Jobs that were on their way when the server was killed come again when their lease ends.
    let worker = worker.lease(Duration::from_secs(2)).start().expect("a worker");
    drop(_guard);
    world.connected = Some(Connected { pond, _worker: worker, runs, pushing: None, pushed: 0, runtime });
}

#[when(expr = "the program pushes {int} jobs to {string}")]
fn pushes(world: &mut World, count: usize, queue: String) {
    let program = connected(world);
    program.pushed = count;
    let queue = program.pond.queue::<u64>(&queue).expect("a queue");
    let numbers: Vec<u64> = (0..count as u64).collect();
    program.runtime.block_on(queue.push_many(&numbers)).expect("a push");
}

#[when(expr = "the program begins to push {int} jobs, each with a key, to {string}")]
fn begins(world: &mut World, count: usize, queue: String) {
    let program = connected(world);
    program.pushed = count;
    let queue = program.pond.queue::<u64>(&queue).expect("a queue");
    program.pushing = Some(program.runtime.spawn(async move {
        for number in 0..count as u64 {
            queue.push(&number).idempotency_key(number.to_string()).await.expect("a push");
        }
    }));
}

fn in_the_middle(world: &mut World) {
    let (runs, middle) = (connected(world).runs.clone(), connected(world).pushed / 4);
    until(SOON, || (runs.lock().expect("the runs").len() > middle).then_some(())).expect("it works");
}

#[when("the server is killed in the middle and started again at its address")]
fn killed(world: &mut World) {
    in_the_middle(world);
    let server = world.server.take().expect("a server runs");
    let address = server.address();
    server.kill().expect("it can be killed");
    world.server = Some(world.starter().at(address).start().unwrap_or_else(|error| panic!("{error}")));
}

#[when("the server is stopped in the middle and started again at its address")]
fn replaced(world: &mut World) {
    in_the_middle(world);
    let server = world.server.take().expect("a server runs");
    let address = server.address();
    server.terminate().expect("it can be asked");
    assert_eq!(server.wait(SOON).expect("it stops").code(), Some(0));
    world.server = Some(world.starter().at(address).start().unwrap_or_else(|error| panic!("{error}")));
}

#[then("every job of the program has run")]
fn all_ran(world: &mut World) {
    let program = connected(world);
    if let Some(pushing) = program.pushing.take() {
        program.runtime.block_on(pushing).expect("every push is acknowledged");
    }
    let met = until(SOON, || (program.runs.lock().expect("the runs").len() == program.pushed).then_some(()));
    assert!(met.is_some(), "{} of {} ran", program.runs.lock().expect("the runs").len(), program.pushed);
}

#[then("none of them ran twice")]
fn none_twice(world: &mut World) {
    let runs = connected(world).runs.lock().expect("the runs");
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
}

#[then(expr = "{string} has {int} completed jobs in the end")]
fn completed(world: &mut World, queue: String, count: u64) {
    let met = until(SOON, || (world.counts(&queue, "completed") == count).then_some(()));
    assert!(met.is_some(), "{} are completed", world.counts(&queue, "completed"));
}

#[then(expr = "{string} was given {int} jobs, none of them twice")]
fn given(world: &mut World, queue: String, count: u64) {
    let answer = world.get(&format!("/v1/queues/{queue}"));
    assert_eq!(answer.body["pushed_total"], count, "{}", answer.body);
}
