//! L1. What clients were told about a job, by everything that can be asked of it, has an order that explains it: over a
//! kill, with calls under way whose outcome nobody knows.

use crate::{Breach, Plan, Ran, pond::Pond};
use kit::random::Random;
use rig::{
    Answer, Client, Server,
    linear::{Model, Span, Verdict, linearizable},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

const CLIENTS: usize = 4;
/// Jobs of a cycle: few, so that their calls meet.
const JOBS: u64 = 5;
const LOAD_MS: std::ops::Range<u64> = 10..120;
/// Beyond the run: no lease ends by itself.
const LEASE_MS: u64 = 3_600_000;
/// States of the search for one job.
const STEPS_MAX: usize = 300_000;

/// Calls of a broken history that are shown, before and after the place.
const SHOWN: usize = 12;

/// What a job is, between two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Absent,
    Waiting,
    /// With the token of its lease; `None` if nobody heard of it.
    Active(Option<u64>),
    Completed,
    Dead,
    Cancelled,
}

/// A call, with its answer if there was one.
#[derive(Debug, Clone, PartialEq)]
enum Op {
    /// Answered with the state of a job that was there.
    Push(Option<Result<(), String>>),
    /// Handed out under a token, if that is known.
    Lease(Option<u64>),
    /// A fetch that brought nothing.
    Nothing,
    /// With a token, to a state, and whether it was taken.
    Settle(u64, State, Option<bool>),
    Cancel(Option<bool>),
    Redrive(Option<bool>),
    Remove(Option<bool>),
    /// Looked at; `None` if it was not there.
    Read(Option<String>),
}

/// A job, and the highest token that anybody got for it.
struct Job;

impl Model for Job {
    type State = (State, u64);
    type Op = Op;

    fn next(&(state, highest): &(State, u64), op: &Op) -> Vec<(State, u64)> {
        use State::*;
        let is = |allowed: bool, next: State| if allowed { vec![(next, highest)] } else { Vec::new() };
        // A call is taken, refused, or nobody knows, and then only being taken makes a difference.
        let judged = |answer: &Option<bool>, allowed: bool, next: State| match answer {
            Some(false) => is(!allowed, state),
            _ => is(allowed, next),
        };
        let is_final = matches!(state, Completed | Dead | Cancelled);
        match op {
            Op::Push(Some(Err(there))) => is(state != Absent && *there == named(state), state),
            Op::Push(_) => is(state == Absent, Waiting),
            Op::Lease(Some(token)) if state == Waiting && *token > highest => {
                vec![(Active(Some(*token)), *token)]
            }
            Op::Lease(Some(_)) => Vec::new(),
            Op::Lease(None) => is(state == Waiting, Active(None)),
            Op::Nothing => is(state != Waiting, state),
            Op::Settle(token, to, answer) => judged(answer, state == Active(Some(*token)), *to),
            // Again is as good as once.
            Op::Cancel(answer) => judged(answer, matches!(state, Waiting | Active(_) | Cancelled), Cancelled),
            Op::Redrive(answer) => judged(answer, is_final, Waiting),
            Op::Remove(answer) => judged(answer, is_final || state == Waiting, Absent),
            Op::Read(seen) => is(seen.as_deref() == (state != Absent).then(|| named(state)), state),
        }
    }
}

fn named(state: State) -> &'static str {
    match state {
        State::Absent => "absent",
        State::Waiting => "waiting",
        State::Active(_) => "active",
        State::Completed => "completed",
        State::Dead => "dead",
        State::Cancelled => "cancelled",
    }
}

type History = BTreeMap<u64, Vec<Span<Op>>>;

/// What the clients of a cycle share.
struct Shared {
    queue: String,
    clock: AtomicU64,
    stop: AtomicBool,
    history: Mutex<History>,
    /// Leases that somebody was given: job and token.
    leases: Mutex<Vec<(u64, u64)>>,
}

impl Shared {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    /// Writes a call down; without an answer its end is open.
    fn note(&self, job: u64, began: u64, answered: bool, op: Op) {
        let ended = answered.then(|| self.tick());
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.entry(job).or_default().push(Span { op, began, ended });
    }

    fn path(&self, job: u64, rest: &str) -> String {
        format!("/v1/queues/{}/jobs/{job}{rest}", self.queue)
    }
}

pub(crate) fn run(plan: &Plan) -> Result<Ran, Breach> {
    let pond = Pond::new(plan)?;
    let mut random = Random::new(plan.seed);
    let (mut calls, mut open) = (0, 0);
    for cycle in 0..plan.count {
        let shared = Arc::new(Shared {
            queue: format!("linear-{cycle}"),
            clock: AtomicU64::new(1),
            stop: AtomicBool::new(false),
            history: Mutex::default(),
            leases: Mutex::default(),
        });
        let server = pond.start()?;
        let wait = LOAD_MS.start + random.below(LOAD_MS.end - LOAD_MS.start);
        load(&shared, server, &mut random, Duration::from_millis(wait))?;
        plan.tally.fault();
        // The next life says what became of each job; there may be work left for the workers of that life.
        let server = pond.start()?;
        for job in 0..JOBS {
            read(&mut server.client(), &shared, job);
        }
        server.terminate().map_err(|error| error.to_string())?;
        let history = std::mem::take(&mut *shared.history.lock().unwrap_or_else(PoisonError::into_inner));
        for (job, spans) in history {
            calls += spans.len();
            open += spans.iter().filter(|span| span.ended.is_none()).count();
            explained(&spans).map_err(|breach| format!("cycle {cycle}, job {job}: {breach}"))?;
        }
    }
    Ok(Ran::Passed(plan.count, format!("{calls} calls have an order, {open} of them without an answer")))
}

fn explained(spans: &[Span<Op>]) -> Result<(), Breach> {
    match linearizable::<Job>((State::Absent, 0), spans, STEPS_MAX) {
        Verdict::Linearizable => Ok(()),
        Verdict::Undecided => {
            Err(format!("no order was found in {STEPS_MAX} states, for {} calls", spans.len()))
        }
        Verdict::Broken(longest) => {
            let mut text = format!(
                "no order explains what was answered. {} calls have one, which ends:\n",
                longest.len()
            );
            longest.iter().rev().take(SHOWN).rev().for_each(|at| text += &format!("  {:?}\n", spans[*at]));
            text += "and then none of:\n";
            let left = (0..spans.len()).filter(|at| !longest.contains(at));
            left.take(SHOWN).for_each(|at| text += &format!("  {:?}\n", spans[at]));
            Err(text)
        }
    }
}

/// Clients call until the server is killed under them.
fn load(shared: &Arc<Shared>, server: Server, random: &mut Random, span: Duration) -> Result<(), Breach> {
    let mut threads = Vec::new();
    for _ in 0..CLIENTS {
        let (client, shared, random) = (server.client(), shared.clone(), random.split());
        threads.push(std::thread::spawn(move || client_of(client, &shared, random)));
    }
    let moment = Instant::now() + span;
    rig::until(span, || (Instant::now() >= moment).then_some(()));
    server.kill().map_err(|error| error.to_string())?;
    shared.stop.store(true, Ordering::Relaxed);
    threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a client panicked".to_owned()))
}

fn client_of(mut client: Client, shared: &Shared, mut random: Random) {
    while !shared.stop.load(Ordering::Relaxed) {
        let job = random.below(JOBS);
        let went_on = match random.below(10) {
            0..3 => push(&mut client, shared, job),
            3..5 => fetch(&mut client, shared),
            5..7 => settle(&mut client, shared, &mut random),
            7 => {
                let (path, op): (_, fn(_) -> Op) = match random.below(2) {
                    0 => ("/cancel", Op::Cancel),
                    _ => ("/redrive", Op::Redrive),
                };
                change(&mut client, shared, job, "POST", path, op)
            }
            8 => change(&mut client, shared, job, "DELETE", "", Op::Remove),
            _ => read(&mut client, shared, job),
        };
        if !went_on {
            return;
        }
    }
}

/// Whether the client goes on: not without an answer, since the server is gone.
fn push(client: &mut Client, shared: &Shared, job: u64) -> bool {
    let began = shared.tick();
    let call = json!({"id": job.to_string(), "body": {}});
    let answer = client.post(&format!("/v1/queues/{}/jobs", shared.queue), &call);
    let told = answer.as_ref().ok().map(|answer| {
        let pushed = &answer.body["jobs"][0];
        match pushed["deduplicated"] == true {
            true => Err(pushed["state"].as_str().unwrap_or("?").to_owned()),
            false => Ok(()),
        }
    });
    heard(&answer, |known| shared.note(job, began, known, Op::Push(told)))
}

fn fetch(client: &mut Client, shared: &Shared) -> bool {
    let began = shared.tick();
    let call = json!({"worker": "w", "queues": [shared.queue], "max": 1, "wait_ms": 0, "lease_ms": LEASE_MS});
    let answer = client.post("/v1/fetch", &call);
    let given = answer.as_ref().ok().map(|answer| {
        let given = answer.body["jobs"].as_array().and_then(|jobs| jobs.first()).map(leased);
        shared.leases.lock().unwrap_or_else(PoisonError::into_inner).extend(given);
        given
    });
    heard(&answer, |known| match given {
        Some(Some((job, token))) => shared.note(job, began, known, Op::Lease(Some(token))),
        Some(None) => (0..JOBS).for_each(|job| shared.note(job, began, known, Op::Nothing)),
        // It may have been any of them.
        None => (0..JOBS).for_each(|job| shared.note(job, began, known, Op::Lease(None))),
    })
}

fn leased(job: &Value) -> (u64, u64) {
    let id = job["id"].as_str().and_then(|id| id.parse().ok()).unwrap_or(u64::MAX);
    (id, job["lease_token"].as_u64().unwrap_or(0))
}

/// Reports on one of the newest leases, whoever holds it, and whether or not it still counts.
fn settle(client: &mut Client, shared: &Shared, random: &mut Random) -> bool {
    let lease = {
        let leases = shared.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = leases.len().min(4) as u64;
        leases.iter().rev().nth(random.below(newest) as usize).copied()
    };
    let Some((job, token)) = lease else { return true };
    let (outcome, to) = if random.chance(1, 3) { ("fail", State::Dead) } else { ("done", State::Completed) };
    let mut told =
        json!({"queue": shared.queue, "id": job.to_string(), "lease_token": token, "outcome": outcome});
    if to == State::Dead {
        told["error"] = json!({"kind": "Wrong", "message": "for once"});
    }
    let began = shared.tick();
    let answer = client.post("/v1/outcomes", &json!({"worker": "w", "outcomes": [told]}));
    let taken = answer.as_ref().ok().map(|answer| answer.body["results"][0]["ok"] == true);
    heard(&answer, |known| shared.note(job, began, known, Op::Settle(token, to, taken)))
}

fn change(
    client: &mut Client,
    shared: &Shared,
    job: u64,
    method: &str,
    path: &str,
    op: fn(Option<bool>) -> Op,
) -> bool {
    let began = shared.tick();
    let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
    let answer = client.call(method, &shared.path(job, path), &[], body);
    let taken = answer.as_ref().ok().map(Answer::ok);
    heard(&answer, |known| shared.note(job, began, known, op(taken)))
}

fn read(client: &mut Client, shared: &Shared, job: u64) -> bool {
    let began = shared.tick();
    let answer = client.get(&shared.path(job, ""));
    let seen = answer.as_ref().ok().and_then(|answer| answer.body["state"].as_str().map(str::to_owned));
    // Without an answer a look changes nothing.
    heard(&answer, |known| {
        if known {
            shared.note(job, began, true, Op::Read(seen));
        }
    })
}

/// Writes down a call that may have reached the server.
fn heard(answer: &io::Result<Answer>, note: impl FnOnce(bool)) -> bool {
    match answer {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        answer => note(answer.is_ok()),
    }
    answer.is_ok()
}
