//! Cases as tables: `time command arguments -> what comes back`, one a line.
//!
//! ```text
//!  0s push mail id=a attempts=2     -> a waiting
//!  1s fetch mail                    -> a 1/2 t1
//!  2s retry a t1 timeout after=5s   -> retrying
//! ```
//!
//! A job without an id is named by its number: `#1`; the job of a schedule's slot by both: `tick@10s`. Where one id is in two queues, it is written `queue/id`. Every command
//! takes `by=` (the actor) and `key=` (the idempotency key). A refusal is `! code`. A line without an arrow must not be
//! refused. After every line the shard is checked, and a twin that is restored from its checkpoint before every line must
//! answer the same and hash the same.

use crate::{Effects, JoinQuery, ListQuery, Reason, Restore, Shard};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Backoff, Timestamp};
use model::{
    Actor, Alert, BodyTest, Breaker, BulkAction, BulkControl, BulkStatus, BulkView, Bulkhead, Capacity,
    CatchUp, Chosen, Command, Compare, Crash, DeadLetter, DispatchedJob, Effect, Envelope, ErrorInfo, Event,
    Filter, FiringResult, Graph, Ignore, JobId, JobRef, JoinView, Keep, LeaseRef, Limit, LimitUse, MemberOf,
    MemberState, NamedJob, NewBulk, NewJob, NewJoin, OnConflict, OnFailure, OnFull, Order, Outcome, Overlap,
    Policy, Priority, Pushed, QueueName, QueuePatch, Rate, Reject, Reply, Rest, RetryBudget, Route,
    ScheduleId, ScheduleSpec, Settlement, State, StepValue, Unique, Until, When,
};
use std::collections::BTreeMap;

/// When a table begins.
pub(crate) const EPOCH: u64 = 1_700_000_000_000;

/// Runs a table and compares every line with what it promises. All lines that differ are told at once.
#[track_caller]
pub(crate) fn check(table: &str) -> Script {
    let mut script = Script::default();
    let mut wrong = Vec::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")) {
        let (input, wanted) = match line.split_once("->") {
            Some((input, wanted)) => (input.trim(), Some(wanted.trim())),
            None => (line, None),
        };
        let got = script.line(input);
        if wanted.map_or(got.starts_with('!'), |wanted| wanted != got) {
            wrong.push(format!("{line}\n       got -> {got}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    script.replay();
    script
}

/// A shard under test, with its log, its checkpoint and its twin.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) shard: Shard,
    log: Vec<(Timestamp, Envelope)>,
    store: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where each id was last pushed.
    homes: BTreeMap<String, QueueName>,
    heard: Vec<Effect>,
    cursor: Option<u64>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            shard: Shard::new(3),
            log: Vec::new(),
            store: BTreeMap::new(),
            homes: BTreeMap::new(),
            heard: Vec::new(),
            cursor: None,
        }
    }
}

/// Builds a shard from what checkpoints wrote.
pub(crate) fn restored(store: &BTreeMap<Vec<u8>, Vec<u8>>, id: u16) -> Shard {
    let mut restore = Restore::new(id);
    for (key, value) in store {
        restore.record(key, value).unwrap();
    }
    restore.finish().unwrap()
}

/// Writes a checkpoint.
pub(crate) fn save(shard: &mut Shard, store: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    let changes = shard.take_changes();
    for (key, value) in changes.records {
        match value {
            Some(value) => store.insert(key, value),
            None => store.remove(&key),
        };
    }
    store.extend(changes.bodies.into_iter().map(|body| (body.key, body.bytes)));
    shard.changes_stored(changes.generation);
}

/// A reply as it is without bodies: which of them are in memory is not state.
pub(crate) fn bodiless(mut reply: Result<Reply, Reject>) -> Result<Reply, Reject> {
    if let Ok(Reply::Fetched(jobs)) = &mut reply {
        jobs.iter_mut().for_each(|job| job.body = None);
    }
    reply
}

/// One line's words: plain ones in order, and `name=value` ones.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let (mut plain, mut named) = (Vec::new(), Vec::new());
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(pair) => named.push(pair),
                None => plain.push(word),
            }
        }
        Self { plain, named }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.named.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
    }

    fn span(&self, name: &str) -> Option<u64> {
        self.get(name).map(span)
    }
}

/// `5s` in milliseconds.
fn span(text: &str) -> u64 {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "ms" | "" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        other => panic!("{text}: no unit {other}"),
    };
    digits.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no span")) * unit
}

/// A time as the table writes it.
fn since(at: Timestamp) -> String {
    match at.0 - EPOCH {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

fn name(text: &str) -> QueueName {
    QueueName::new(text).unwrap()
}

/// `kind:message`, or one word for both.
fn error(text: &str) -> ErrorInfo {
    let (kind, message) = text.split_once(':').unwrap_or((text, text));
    ErrorInfo { kind: kind.into(), message: message.into(), ..ErrorInfo::default() }
}

fn backoff(text: &str) -> Backoff {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    match kind {
        "fixed" => Backoff::Fixed { delay: span(rest) },
        "exponential" => {
            let (base, cap) = rest.split_once(':').unwrap();
            Backoff::Exponential { base: span(base), cap: span(cap) }
        }
        "sidekiq" => Backoff::Sidekiq,
        "list" => Backoff::List { delays: rest.split(',').filter(|d| !d.is_empty()).map(span).collect() },
        other => panic!("no backoff {other}"),
    }
}

impl Script {
    /// Does one line and says what came of it.
    pub(crate) fn line(&mut self, input: &str) -> String {
        let (time, rest) = input.split_once(' ').unwrap_or((input, ""));
        let at = Timestamp(EPOCH + span(time));
        let (verb, rest) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
        if let Some(view) = self.view(verb, at, &Words::of(rest)) {
            return view;
        }
        let command = self.command(verb, rest);
        let words = Words::of(rest);
        let envelope = Envelope {
            actor: Actor::new(words.get("by").unwrap_or("w1")),
            idempotency_key: words.get("key").map(Into::into),
            command,
        };
        let reply = self.apply(at, envelope);
        self.text(&reply)
    }

    /// Applies a command to the shard and to its twin.
    pub(crate) fn apply(&mut self, at: Timestamp, envelope: Envelope) -> Result<Reply, Reject> {
        let mut twin = restored(&self.store, self.shard.id);
        let position = self.shard.position() + 1;
        let mut effects = Effects { want_changes: true, ..Effects::default() };
        let mut twin_effects = Effects { want_changes: true, ..Effects::default() };
        let twin_reply = twin.apply(position, at, &envelope, &mut twin_effects);
        let reply = self.shard.apply(position, at, &envelope, &mut effects);
        assert_eq!(bodiless(reply.clone()), bodiless(twin_reply), "a restored shard answers the same");
        assert_eq!(effects.list, twin_effects.list, "a restored shard tells the same");
        self.shard.check().unwrap();
        twin.check().unwrap();
        assert_eq!(self.shard.state_hash(), twin.state_hash(), "a restored shard hashes the same");
        save(&mut self.shard, &mut self.store);
        let bodies = self.store.keys().filter(|key| key[0] == Restore::BODY_PREFIX).count();
        assert_eq!(bodies, self.shard.jobs.len(), "the store has the body of every job and of no other");
        let steps = self.store.keys().filter(|key| key[0] == b'e').count();
        let held: u32 = self.shard.jobs.iter().map(|(_, job)| job.step_count()).sum();
        assert_eq!(steps, held as usize, "the store has every step and no other");
        self.heard = effects.list;
        self.log.push((at, envelope));
        reply
    }

    /// The log from its beginning gives the same state.
    fn replay(&self) {
        let mut shard = Shard::new(self.shard.id);
        for (index, (at, envelope)) in self.log.iter().enumerate() {
            let _ = shard.apply(index as u64 + 1, *at, envelope, &mut Effects::default());
        }
        assert_eq!(shard.state_hash(), self.shard.state_hash(), "a replay from genesis hashes the same");
    }

    fn job(&self, text: &str) -> JobRef {
        if let Some((schedule, slot)) = text.split_once('@') {
            let id = schedule_id(schedule).job_id(Timestamp(EPOCH + span(slot)));
            return JobRef { queue: self.homes.get(schedule).cloned(), id };
        }
        if let Some(sequence) = text.strip_prefix('#') {
            let slot = self.shard.slot_of(sequence.parse().unwrap());
            let id = slot.map(|slot| self.shard.jobs[slot].id(self.shard.id));
            return JobRef { queue: None, id: id.unwrap_or(JobId::Text(text.into())) };
        }
        let (queue, id) = match text.split_once('/') {
            Some((queue, id)) => (Some(name(queue)), id),
            None => (self.homes.get(text).cloned(), text),
        };
        JobRef { queue, id: JobId::parse(id).unwrap() }
    }

    fn lease(&self, words: &Words<'_>) -> LeaseRef {
        let token = words.plain[1].strip_prefix('t').unwrap().parse().unwrap();
        LeaseRef { job: self.job(words.plain[0]), token }
    }

    fn command(&mut self, verb: &str, rest: &str) -> Command {
        let words = Words::of(rest);
        let jobs = || words.plain.iter().map(|job| self.job(job)).collect::<Vec<_>>();
        match verb {
            "push" => Command::Push { jobs: self.new_jobs(rest) },
            "fetch" => Command::Fetch {
                queues: words.plain.iter().flat_map(|names| names.split(',')).map(name).collect(),
                max: words.number("max").unwrap_or(1) as u32,
                lease_ms: words.span("lease").unwrap_or(0),
            },
            "renew" => Command::Renew {
                leases: vec![self.lease(&words)],
                lease_ms: words.span("lease").unwrap_or(0),
            },
            "done" | "crash" | "retry" | "fail" | "snooze" | "giveup" | "limited" | "sleep" | "wait"
            | "wait-signal" | "wait-child" => self.settle(verb, rest),
            "cancel" => Command::Cancel { job: self.job(words.plain[0]), reason: "wrong".into() },
            "progress" => Command::Progress {
                lease: self.lease(&words),
                value: Bytes::copy_from_slice(words.plain[2].as_bytes()),
            },
            "log" => Command::Log {
                lease: self.lease(&words),
                lines: words.plain[2..].iter().map(|line| (*line).into()).collect(),
            },
            "promote" => Command::Promote { jobs: jobs() },
            "redrive" => Command::Redrive { jobs: jobs() },
            "patch" => Command::PatchBody {
                job: self.job(words.plain[0]),
                expected_crc: crc32c::crc32c(words.plain[1].as_bytes()),
                body: Bytes::copy_from_slice(words.plain[2].as_bytes()),
            },
            "remove" => Command::Remove { jobs: jobs() },
            "raise" => Command::RaiseTokens { seconds: words.plain[0].parse().unwrap() },
            "pause" => Command::Pause { queue: name(words.plain[0]) },
            "resume" => Command::Resume { queue: name(words.plain[0]) },
            "configure" => Command::Configure { queue: name(words.plain[0]), patch: patch(&words) },
            "bulk" => Command::Bulk(Box::new(new_bulk(&words))),
            "control" => Command::ControlBulk {
                operation: words.plain[1].parse().unwrap(),
                control: match words.plain[0] {
                    "pause" => BulkControl::Pause,
                    "resume" => BulkControl::Resume,
                    "cancel" => BulkControl::Cancel,
                    other => panic!("no control {other}"),
                },
            },
            "limit" => Command::SetLimit {
                pattern: words.plain[0].into(),
                limit: (words.plain.get(1) != Some(&"off")).then(|| limit(&words)),
            },
            "group" => Command::SetGroup {
                queue: name(words.plain[0]),
                group: words.plain[1].into(),
                weight: words.number("weight").map(|weight| weight as u32),
                paused: words.get("paused").map(|paused| paused == "yes"),
            },
            "choose" => Command::Choose(Box::new(Chosen {
                operation: words.plain[0].parse().unwrap(),
                stage: words.number("stage").unwrap() as u32,
                priority: Priority(255),
                order: u64::MAX,
                jobs: texts(&words, "jobs").iter().map(|job| job.parse().unwrap()).collect(),
            })),
            "tick" => Command::Tick,
            "join" => Command::Join { graph: self.graph(rest) },
            "extend" => Command::Extend {
                join: self.join(words.plain[0]),
                jobs: self.named_jobs(rest.trim().split_once(' ').map_or("", |(_, jobs)| jobs)),
                seal: words.get("seal").is_some(),
            },
            "calloff" => Command::CancelJoin { join: self.join(words.plain[0]), reason: "wrong".into() },
            "schedule" => {
                let spec = schedule_spec(&words);
                self.homes.insert(words.plain[0].to_string(), spec.job.queue.clone());
                Command::PutSchedule { id: schedule_id(words.plain[0]), spec: Box::new(spec) }
            }
            "pause_schedule" => Command::PauseSchedule { id: schedule_id(words.plain[0]) },
            "resume_schedule" => Command::ResumeSchedule { id: schedule_id(words.plain[0]) },
            "run_schedule" => Command::RunSchedule { id: schedule_id(words.plain[0]) },
            "remove_schedule" => Command::RemoveSchedule { id: schedule_id(words.plain[0]) },
            "step" => Command::Step {
                lease: self.lease(&words),
                name: words.plain[2].into(),
                result: Bytes::copy_from_slice(words.plain[3].as_bytes()),
            },
            "signal" => Command::Signal {
                job: self.job(words.plain[0]),
                name: words.plain[1].into(),
                body: Bytes::copy_from_slice(words.plain[2].as_bytes()),
            },
            "restart" => Command::Restart { jobs: jobs() },
            other => panic!("no command {other}"),
        }
    }

    fn settle(&mut self, verb: &str, rest: &str) -> Command {
        let (rest, push) = rest.split_once(" push ").unwrap_or((rest, ""));
        let push = self.new_jobs(push);
        let (rest, child) = rest.split_once(" child ").unwrap_or((rest, ""));
        let child = self.new_jobs(child).pop();
        let words = Words::of(rest);
        let kind = words.plain.get(2).copied().unwrap_or_default();
        let after_ms = words.span("after");
        let outcome = match verb {
            "done" => {
                Outcome::Done { result: words.get("result").map(|r| Bytes::copy_from_slice(r.as_bytes())) }
            }
            "retry" => Outcome::Retry { error: error(kind), after_ms },
            "fail" => Outcome::Fail { error: error(kind) },
            "crash" => Outcome::Crash(Crash {
                signal: words.get("signal").map(Into::into),
                exit: words.get("exit").map(|status| status.parse().unwrap()),
                stderr: words.get("stderr").unwrap_or_default().into(),
            }),
            "wait" => {
                let children = rest.trim().splitn(3, ' ').nth(2).unwrap_or_default();
                Outcome::Wait { children: self.graph(children) }
            }
            "limited" => Outcome::RateLimited {
                key: words.get("limit").map(Into::into),
                after_ms: after_ms.unwrap_or(0),
            },
            "snooze" => Outcome::Snooze { after_ms: after_ms.unwrap_or(0) },
            "sleep" | "wait-signal" | "wait-child" => Outcome::Suspend {
                step: kind.into(),
                until: match (verb, child) {
                    ("sleep", _) => Until::Time { after_ms: after_ms.unwrap_or(0) },
                    (_, Some(child)) => Until::Child { job: Box::new(child) },
                    _ => Until::Signal { name: words.plain[3].into(), timeout_ms: after_ms.unwrap_or(0) },
                },
            },
            _ => Outcome::Cancel { reason: kind.into() },
        };
        Command::Settle { settlements: vec![Settlement { lease: self.lease(&words), outcome, push }] }
    }

    /// Jobs are separated by `;`; `x3` pushes the same one three times.
    fn new_jobs(&mut self, text: &str) -> Vec<NewJob> {
        let mut jobs = Vec::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let words = Words::of(part);
            let times = words.plain.get(1).map_or(1, |times| times[1..].parse().unwrap());
            let job = new_job(&words);
            if let Some(id) = words.get("id") {
                self.homes.insert(id.to_string(), job.queue.clone());
            }
            jobs.extend(std::iter::repeat_n(job, times));
        }
        jobs
    }

    /// Jobs as in a push, each called by its `name` or its id; then, behind bars, joins: name, policy, members.
    fn graph(&mut self, text: &str) -> Graph {
        let mut parts = text.split('|');
        let jobs = self.named_jobs(parts.next().unwrap_or_default());
        let joins = parts.map(|part| new_join(&Words::of(part))).collect();
        Graph { jobs, joins }
    }

    fn named_jobs(&mut self, text: &str) -> Vec<NamedJob> {
        let words = text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(Words::of);
        let words: Vec<_> = words.filter(|words| !words.plain.is_empty()).collect();
        let mut jobs = Vec::new();
        for words in words {
            let name = words.get("name").or(words.get("id")).expect("a job of a graph has a name");
            let job = new_job(&words);
            if let Some(id) = words.get("id") {
                self.homes.insert(id.to_string(), job.queue.clone());
            }
            let times = words.plain.get(1).map_or(1, |times| times[1..].parse().unwrap());
            for copy in 0..times {
                let name = if times > 1 { format!("{name}{copy}") } else { name.to_string() };
                jobs.push(NamedJob { name: name.into(), job: job.clone() });
            }
        }
        jobs
    }

    /// A join by its number, `#4`.
    fn join(&self, text: &str) -> JobId {
        let number = text.strip_prefix('#').unwrap().parse().unwrap();
        let known = self.shard.public_join_id(number);
        known.unwrap_or(JobId::generated(Timestamp(EPOCH), 3, number))
    }

    fn members(&self, join: &JoinView) -> String {
        let members = join.members.iter().map(|member| {
            let result = member
                .result
                .as_ref()
                .map_or(String::new(), |result| format!(":{}", String::from_utf8_lossy(result)));
            let nested = match &member.what {
                MemberOf::Join(join) if !join.members.is_empty() => format!("({})", self.members(join)),
                MemberOf::Join(_) | MemberOf::Job(..) | MemberOf::Gone => String::new(),
            };
            format!("{}={}{result}{nested}", member.name, member.state)
        });
        let more = join.next.map(|_| "...".to_string());
        members.chain(more).collect::<Vec<_>>().join(" ")
    }

    fn id(&self, id: &JobId) -> String {
        if let Some(schedule) = ScheduleId::of_job(id) {
            let text = id.to_string();
            let at = &text["schedule:".len() + schedule.as_str().len() + 1..];
            return format!("{schedule}@{}", at.parse().map_or(at.to_string(), since));
        }
        match id.parts() {
            Some((_, sequence)) => format!("#{sequence}"),
            None => id.to_string(),
        }
    }

    fn text(&self, reply: &Result<Reply, Reject>) -> String {
        let reply = match reply {
            Err(reject) => return refusal(reject),
            Ok(reply) => reply,
        };
        match reply {
            Reply::Pushed(pushed) => self.pushed(pushed),
            Reply::Fetched(jobs) if jobs.is_empty() => "none".into(),
            Reply::Fetched(jobs) => join(jobs.iter().map(|job| self.dispatched(job))),
            Reply::Renewed(renewed) => join(renewed.iter().map(|renewed| match renewed {
                Ok(renewed) => format!("until {}", since(renewed.lease_until)),
                Err(reject) => refusal(reject),
            })),
            Reply::Settled(settled) => join(settled.iter().map(|settled| match settled {
                Ok(settled) if settled.pushed.is_empty() => settled.state.to_string(),
                Ok(settled) => format!("{} + {}", settled.state, self.pushed(&settled.pushed)),
                Err(reject) => refusal(reject),
            })),
            Reply::Changed(states) => join(states.iter().map(|state| state.to_string())),
            Reply::Configured(_) => "configured".into(),
            Reply::Joined(joined) => {
                let joins = joined.joins.iter().map(|id| self.id(id)).collect::<Vec<_>>().join(" ");
                format!("{} | {joins}", self.pushed(&joined.jobs))
            }
            Reply::Operation(view) => bulk(view),
            Reply::Done => "ok".into(),
            Reply::Scheduled(scheduled) => {
                let next = scheduled.next_slot.map_or(String::new(), |slot| format!(" next {}", since(slot)));
                format!("{} {}{next}", scheduled.change.name(), scheduled.state.name())
            }
            Reply::Step(None) => "stored".into(),
            Reply::Step(Some(had)) => format!("had {}", step_value(&had.value)),
            Reply::Signalled { state, buffered } => {
                format!("{state}{}", if *buffered { ", kept" } else { "" })
            }
        }
    }

    fn pushed(&self, pushed: &[Pushed]) -> String {
        join(pushed.iter().map(|job| {
            let mark = match (job.deduplicated, job.forgotten) {
                (false, _) => "",
                (true, false) => " again",
                (true, true) => " again, forgotten",
            };
            format!("{} {}{mark}", self.id(&job.id), job.state)
        }))
    }

    fn dispatched(&self, job: &DispatchedJob) -> String {
        let children = job
            .children
            .as_ref()
            .map_or(String::new(), |join| format!(" [{} {}]", join.state, self.members(join)));
        let steps = match job.steps {
            0 => String::new(),
            1 => ", 1 step".to_string(),
            many => format!(", {many} steps"),
        };
        format!("{} {}/{} t{}{children}{steps}", self.id(&job.id), job.attempt, job.attempts, job.lease_token)
    }

    /// The verbs that only look.
    fn view(&mut self, verb: &str, at: Timestamp, words: &Words<'_>) -> Option<String> {
        let first = words.plain.first().copied().unwrap_or_default();
        Some(match verb {
            "show" => self.shard.job(&self.job(first)).map_or("gone".into(), |job| {
                let crashes =
                    if job.crashes > 0 { format!(" crashes {}", job.crashes) } else { String::new() };
                let due = job.due_at.map_or(String::new(), |due| format!(" due {}", since(due)));
                format!("{} {}/{}{crashes}{due}", job.state, job.attempt, job.attempts)
            }),
            "history" => join(self.shard.history(&self.job(first))?.iter().map(|entry| {
                let error = entry.error.as_ref().map_or(String::new(), |error| format!(" {}", error.kind));
                let actor = if entry.actor.as_str().is_empty() { "-" } else { entry.actor.as_str() };
                let (at, position) = (since(entry.at), entry.position);
                format!(
                    "{at} {position} {actor} {} {} {}{error}",
                    entry.cause.name(),
                    entry.to,
                    entry.attempt
                )
            })),
            "explain" => {
                let explanation = self.shard.explain(&self.job(first))?;
                let at = explanation.expected_at.map_or("never".into(), since);
                let what =
                    explanation.reasons.first().map(|reason| format!("{reason:?}")).unwrap_or_default();
                let what = what.split([' ', '(']).next().unwrap_or_default().to_string();
                format!("{} {what} at {at}", explanation.state)
            }
            "counts" => {
                let queue = self.shard.queue(&name(first))?;
                join(
                    State::ALL
                        .into_iter()
                        .filter(|state| queue.counts.of(*state) > 0)
                        .map(|state| format!("{} {state}", queue.counts.of(state))),
                )
            }
            "totals" => {
                let queue = self.shard.queue(&name(first))?;
                format!(
                    "pushed {} started {} completed {} failed {} dead {}",
                    queue.pushed_total,
                    queue.started_total,
                    queue.completed_total,
                    queue.failed_total,
                    queue.dead_total
                )
            }
            "list" => self.list(first, words),
            "upcoming" => {
                let jobs = self.shard.upcoming(&name(first), 100)?;
                jobs.iter().map(|(job, _)| self.id(&job.id)).collect::<Vec<_>>().join(" ")
            }
            "steps" => self.shard.job_steps(&self.job(first)).map_or("gone".into(), |steps| {
                join(steps.iter().map(|step| {
                    let kind = match &step.value {
                        StepValue::Child { id, .. } => format!("child {} ", self.id(id)),
                        StepValue::TimedOut => String::new(),
                        other => format!("{} ", other.kind()),
                    };
                    let value = step_value(&step.value);
                    format!("{}: {kind}{value} ({}, {})", step.name, since(step.at), step.attempt)
                }))
            }),
            "body" => {
                let body = self.shard.job(&self.job(first))?.body.unwrap_or_default();
                String::from_utf8_lossy(&body).into_owned()
            }
            "lines" => {
                let lines = self.shard.log_lines(&self.job(first))?;
                join(lines.iter().map(|line| format!("{}: {}", line.attempt, line.text)))
            }
            "classes" => {
                let letters = self.shard.dead_letters(&name(first))?;
                let classes = join(letters.classes.iter().map(|class| {
                    let (first, last) = (since(class.first_at), since(class.last_at));
                    let sample = self.id(&class.sample);
                    let rate = class.per_minute;
                    format!("{} {} ({first} to {last}, {sample}, {rate}/min)", class.message, class.count)
                }));
                let oldest = letters.oldest_at.map_or("never".into(), since);
                format!("{} dead since {oldest}: {classes}", letters.dead)
            }
            "alert" => self
                .shard
                .dead_letters(&name(first))?
                .alert_since
                .map_or("none".into(), |at| format!("since {}", since(at))),
            "why" => {
                let explanation = self.shard.explain(&self.job(first))?;
                let at = explanation.expected_at.map_or("never".into(), since);
                let reasons = explanation.reasons.iter().map(|reason| {
                    let text = format!("{reason:?}");
                    match reason {
                        Reason::NoSlot { by, in_use, limit } => format!("{by} {in_use} of {limit}"),
                        Reason::NoShare { pool, in_use, most } => format!("pool {pool} {in_use} of {most}"),
                        Reason::RateSpent { by, at } => format!("{by} spent until {}", since(*at)),
                        Reason::ToldToWait { by, at } => format!("{by} told until {}", since(*at)),
                        Reason::BreakerOpen { by, at } => format!("{by} open until {}", since(*at)),
                        Reason::BreakerProbing { by, probes } => format!("{by} probing {probes}"),
                        Reason::OrderTaken { key, holder } => {
                            format!("order {key} {}", holder.as_ref().map_or("?".into(), |id| self.id(id)))
                        }
                        Reason::RetryBudgetSpent { at } => format!("budget spent until {}", since(*at)),
                        Reason::GroupPaused { group } => format!("group {group} paused"),
                        Reason::Behind { ahead, .. } => format!("behind {ahead}"),
                        _ => text.split([' ', '(']).next().unwrap_or_default().to_string(),
                    }
                });
                format!("{} {} at {at}", explanation.state, join(reasons))
            }
            "upnext" => {
                let jobs = self.shard.upcoming(&name(first), 100)?;
                let mark = |held: bool| if held { "!" } else { "" };
                jobs.iter()
                    .map(|(job, held)| format!("{}{}", mark(held.is_some()), self.id(&job.id)))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
            "gates" => {
                let flow = &self.shard.flow;
                let (lineups, now) =
                    (self.shard.queues.iter().filter(|queue| queue.lineup.is_some()), self.shard.time());
                let live: Vec<_> = flow.lines.iter().filter(|(_, line)| line.live > 0).collect();
                let used =
                    |gate| live.iter().any(|(_, line)| line.gates.iter().any(|(used, _)| *used == gate));
                let gates = flow.gates.iter().filter(|(number, gate)| {
                    used(*number) || !gate.queues.is_empty() || gate.meter.remembers(now)
                });
                format!("{} gates, {} lines", gates.count(), lineups.count() + live.len())
            }
            "bulks" => join(self.shard.bulks().iter().map(bulk)),
            "joined" => {
                let query = JoinQuery {
                    state: words.get("state").map(|state| state.parse().unwrap()),
                    limit: words.number("limit").unwrap_or(100) as usize,
                    cursor: words.number("from").unwrap_or(0) as u32,
                };
                self.shard
                    .join_view(&self.join(first), query)
                    .map_or("gone".into(), |join| format!("{} {}", join.state, self.members(&join)))
            }
            "standing" => self.shard.schedule(&schedule_id(first))?.summary,
            "summary" => self.shard.explain(&self.job(first))?.summary,
            "slots" => {
                let slots = self
                    .shard
                    .schedule_slots(&schedule_id(first), words.number("n").unwrap_or(3) as usize)?;
                join(slots.into_iter().map(since))
            }
            "course" => {
                let Some(view) = self.shard.schedule(&schedule_id(first)) else { return Some("gone".into()) };
                let next = view.next_at.map_or(String::new(), |at| format!(" at {}", since(at)));
                let counts = [
                    ("fired", view.fired),
                    ("skipped", view.skipped),
                    ("missed", view.missed),
                    ("refused", view.refused),
                    ("queued", view.queued),
                    ("live", view.live),
                ];
                let counts = counts.into_iter().filter(|(_, count)| *count > 0);
                let counts: String = counts.map(|(what, count)| format!(", {count} {what}")).collect();
                format!("{}{next}{counts}", view.state.name())
            }
            "firings" => {
                let view = self.shard.schedule(&schedule_id(first))?;
                join(view.firings.iter().map(|firing| {
                    let result = match &firing.result {
                        FiringResult::Fired { .. } => "fired".to_string(),
                        FiringResult::Ran { .. } => "ran".to_string(),
                        FiringResult::Skipped => "skipped".to_string(),
                        FiringResult::Missed { until } => format!("missed until {}", since(*until)),
                        FiringResult::Refused { code } => code.to_string(),
                    };
                    format!("{} {result}", since(firing.slot))
                }))
            }
            "unread" => match self.shard.unread(at, 100, 1 << 20) {
                None => "none".into(),
                Some(unread) => {
                    let jobs: Vec<_> = unread.jobs.iter().map(|(job, _)| format!("#{job}")).collect();
                    format!("{}: {}", unread.operation, jobs.join(" "))
                }
            },
            "tags" => self.shard.job(&self.job(first))?.tags.join(" "),
            "tagged" => {
                let query = ListQuery { limit: 100, ..ListQuery::default() };
                let jobs = self.shard.list(&name(first), &query).unwrap().jobs;
                let tagged = jobs.iter().filter(|job| job.tags.iter().any(|tag| tag == words.plain[1]));
                let mut ids: Vec<_> = tagged.map(|job| self.id(&job.id)).collect();
                ids.sort();
                ids.join(" ")
            }
            "next" => self.shard.next_due().map_or("never".into(), since),
            "told" => join(Event::of(&self.heard).iter().map(|event| match &event.job {
                Some(job) => format!("{} {} {}", event.id, event.kind.name(), self.id(&job.id)),
                None => format!("{} {} {}", event.id, event.kind.name(), event.queue),
            })),
            "brought" => join(Event::of(&self.heard).iter().filter_map(|event| {
                let job = event.job.as_ref()?;
                let values = job.values.as_deref()?;
                let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
                let result = values.result.as_ref().map(|result| format!("result {}", text(result)));
                let error = values.error.as_ref().map(|error| format!("error {}", error.message));
                let progress = values.progress.as_ref().map(text);
                let meta = values.meta.iter().map(|(key, value)| format!("{key}={value}"));
                let all: Vec<_> = meta.chain(result).chain(error).chain(progress).collect();
                Some(format!("{} {} {}", event.kind.name(), self.id(&job.id), all.join(" ")))
            })),
            "heard" => join(self.heard.iter().filter_map(|effect| match effect {
                Effect::Available { queue, jobs } => Some(format!("{jobs} in {queue}")),
                Effect::Revoked { worker, id, lease_token, why, .. } => {
                    Some(format!("{worker} lost {} t{lease_token} {}", self.id(id), why.name()))
                }
                Effect::Changed { .. }
                | Effect::Progress { .. }
                | Effect::Removed { .. }
                | Effect::Queue { .. } => None,
            })),
            _ => return None,
        })
    }

    /// `more` goes on where the listing before ended.
    fn list(&mut self, queue: &str, words: &Words<'_>) -> String {
        let query = ListQuery {
            state: words.get("state").map(|state| state.parse().unwrap()),
            tag: words.get("tag").map(Into::into),
            error_kind: words.get("kind").map(Into::into),
            limit: words.number("limit").unwrap_or(100) as usize,
            cursor: if words.plain.contains(&"more") { self.cursor } else { None },
        };
        match self.shard.list(&name(queue), &query) {
            Err(reject) => refusal(&reject),
            Ok(page) => {
                self.cursor = page.next;
                let mut ids: Vec<_> = page.jobs.iter().map(|job| self.id(&job.id)).collect();
                ids.extend(page.next.map(|_| "...".to_string()));
                ids.join(" ")
            }
        }
    }
}

fn step_value(value: &StepValue) -> String {
    match value {
        StepValue::Result(value) | StepValue::Signal(value) => String::from_utf8_lossy(value).into_owned(),
        StepValue::Slept { until } => format!("until {}", since(*until)),
        StepValue::TimedOut => "timeout".into(),
        StepValue::Child { end: None, .. } => "live".into(),
        StepValue::Child { end: Some(end), .. } => {
            let state = end.state.map_or("removed", State::name);
            let result =
                end.result.as_deref().map_or(String::new(), |r| format!(" {}", String::from_utf8_lossy(r)));
            let error = end.error.as_ref().map_or(String::new(), |error| format!(" {}", error.kind));
            format!("{state}{result}{error}")
        }
    }
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn refusal(reject: &Reject) -> String {
    match reject {
        Reject::Invalid { field, .. } => format!("! invalid {field}"),
        Reject::TooMany { limit, .. } => format!("! too_many {limit}"),
        Reject::QueueFull { waits: true, .. } => "! queue_full waits".to_owned(),
        Reject::BadGraph { name, reason } => format!("! bad_graph {name}: {reason}"),
        Reject::StepsFull { limit, .. } => format!("! steps_full {limit}"),
        Reject::SignalsFull { limit, .. } => format!("! signals_full {limit}"),
        Reject::WrongState { state, .. } => format!("! wrong_state {state}"),
        other => format!("! {}", other.code()),
    }
}

fn bulk(view: &BulkView) -> String {
    let status = match view.status {
        BulkStatus::Running => String::new(),
        status => format!(" {}", status.name()),
    };
    let skipped = if view.skipped > 0 { format!(", {} skipped", view.skipped) } else { String::new() };
    format!("bulk {}: {} of {}{skipped}{status}", view.id, view.changed, view.examined)
}

fn texts(words: &Words<'_>, name: &str) -> Vec<CompactString> {
    words.get(name).map(|texts| texts.split(',').map(Into::into).collect()).unwrap_or_default()
}

fn new_bulk(words: &Words<'_>) -> NewBulk {
    let at = |name: &str| words.span(name).map(|span| Timestamp(EPOCH + span));
    let number = |name: &str| words.number(name).map(|n| n as u32);
    let priority = |name: &str| words.get(name).map(|priority| priority.parse::<Priority>().unwrap());
    let action = match words.plain[0] {
        "purge" => BulkAction::Purge,
        "redrive" => BulkAction::Redrive,
        "remove" => BulkAction::Remove,
        "cancel" => BulkAction::Cancel,
        "promote" => BulkAction::Promote,
        "retag" => BulkAction::Retag { add: texts(words, "add"), remove: texts(words, "drop") },
        "reprioritise" => BulkAction::Reprioritise { priority: priority("p").unwrap() },
        "move" => BulkAction::Move { to: name(words.get("to").unwrap()) },
        other => panic!("no bulk action {other}"),
    };
    let filter = Filter {
        states: texts(words, "state").iter().map(|state| state.parse().unwrap()).collect(),
        tags_any: texts(words, "any"),
        tags_all: texts(words, "tag"),
        error_kind: words.get("kind").map(Into::into),
        error_contains: words.get("text").map(Into::into),
        created_before: at("before"),
        created_after: at("after"),
        finished_before: at("ended_before"),
        finished_after: at("ended_after"),
        priority_min: priority("pmin"),
        priority_max: priority("pmax"),
        attempts_min: number("amin"),
        attempts_max: number("amax"),
        id_prefix: words.get("prefix").map(Into::into),
        body: words
            .get("body")
            .map(|value| BodyTest {
                path: words.get("path").unwrap_or_default().into(),
                compare: Compare::Equal,
                value: value.into(),
            })
            .into_iter()
            .collect(),
    };
    NewBulk {
        rate: number("rate").unwrap_or(0),
        reason: words.get("why").unwrap_or_default().into(),
        ..NewBulk::new(name(words.plain[1]), action, filter)
    }
}

fn new_job(words: &Words<'_>) -> NewJob {
    let body = match words.number("bytes") {
        Some(bytes) => vec![b'x'; bytes as usize],
        None => words.get("body").unwrap_or("b").as_bytes().to_vec(),
    };
    NewJob {
        id: words.get("id").map(|id| JobId::parse(id).unwrap()),
        priority: words.get("p").map_or(Priority::NORMAL, |priority| priority.parse().unwrap()),
        delay_ms: words.span("delay").unwrap_or(0),
        run_at: words.span("at").map(|span| Timestamp(EPOCH + span)),
        attempts: words.number("attempts").map(|n| n as u32),
        max_crashes: words.number("crashes").map(|n| n as u32),
        backoff: words.get("backoff").map(backoff),
        timeout_ms: words.span("timeout"),
        expires_ms: words.span("expires"),
        unique: words.get("unique").map(|key| Unique {
            key: key.into(),
            ttl_ms: words.span("ttl").unwrap_or(0),
            on_conflict: match words.get("conflict").unwrap_or("return") {
                "return" => OnConflict::Return,
                "reject" => OnConflict::Reject,
                "replace" => OnConflict::Replace,
                "debounce" => OnConflict::Debounce { max_wait_ms: words.span("max").unwrap_or(0) },
                "throttle" => OnConflict::Throttle,
                "keep_last" => OnConflict::KeepLast,
                other => panic!("no rule {other}"),
            },
        }),
        tags: words.get("tag").map(|tags| tags.split(',').map(Into::into).collect()).unwrap_or_default(),
        route: route(words).map(Box::new),
        ..NewJob::new(name(words.plain[0]), body)
    }
}

fn new_join(words: &Words<'_>) -> NewJoin {
    let policy = match words.plain[1] {
        "all" => Policy::All,
        "settled" => Policy::AllSettled,
        "any" => Policy::Any,
        "race" => Policy::Race,
        needed => Policy::KOfN(needed.strip_suffix("_of_n").unwrap().parse().unwrap()),
    };
    let ignore: Vec<MemberState> = words
        .get("ignore")
        .map(|states| states.split(',').map(|state| state.parse().unwrap()).collect())
        .unwrap_or_default();
    NewJoin {
        name: words.plain[0].into(),
        members: words.plain[2..].iter().map(|member| (*member).into()).collect(),
        policy,
        then: words.get("then").map(Into::into),
        on_failure: match words.get("fail").unwrap_or("fail") {
            "fail" => OnFailure::Fail,
            "cancel" => OnFailure::Cancel,
            "run" => OnFailure::Run,
            other => panic!("no rule {other}"),
        },
        rest: if words.get("rest") == Some("run") { Rest::Run } else { Rest::Cancel },
        ignore: Ignore::of(&ignore),
        open: words.get("open").is_some(),
    }
}
/// `group=`, `order=`, `limit=a,b@3` (a key and what it costs), `deadline=` (since the beginning).
fn route(words: &Words<'_>) -> Option<Route> {
    let uses = words.get("limit").map(|uses| {
        let used = |text: &str| {
            let (key, cost) = text.split_once('@').unwrap_or((text, "1"));
            LimitUse { key: key.into(), cost: cost.parse().unwrap() }
        };
        uses.split(',').map(used).collect()
    });
    let route = Route {
        group: words.get("group").map(Into::into),
        ordering_key: words.get("order").map(Into::into),
        limits: uses.unwrap_or_default(),
        deadline: words.span("deadline").map(|span| Timestamp(EPOCH + span)),
    };
    (route != Route::default()).then_some(route)
}

/// `slots=`, `rate=5/1s:10` (units, span, burst), `breaker=50:4:10s:5s:2` (percent failed, calls, window, open, probes),
/// `slow=50:1s` (percent, from when).
fn limit(words: &Words<'_>) -> Limit {
    let mut limit = Limit { concurrency: words.number("slots").unwrap_or(0) as u32, ..Limit::default() };
    if let Some(text) = words.get("rate") {
        let (rate, burst) = text.split_once(':').unwrap_or((text, "0"));
        let (units, per) = rate.split_once('/').unwrap();
        limit.rate = Rate { units: units.parse().unwrap(), per_ms: span(per), burst: burst.parse().unwrap() };
    }
    if let Some(text) = words.get("breaker") {
        let parts: Vec<_> = text.split(':').collect();
        limit.breaker = Breaker {
            failed_percent: parts[0].parse().unwrap(),
            calls: parts[1].parse().unwrap(),
            window_ms: span(parts[2]),
            open_ms: span(parts[3]),
            probes: parts[4].parse().unwrap(),
            ..Breaker::default()
        };
    }
    if let Some((percent, from)) = words.get("slow").and_then(|text| text.split_once(':')) {
        (limit.breaker.slow_percent, limit.breaker.slow_ms) = (percent.parse().unwrap(), span(from));
    }
    limit
}
fn schedule_id(text: &str) -> ScheduleId {
    ScheduleId::new(text).unwrap()
}

/// `schedule tick mail every=10s`; in a cron expression, `_` stands for a space.
fn schedule_spec(words: &Words<'_>) -> ScheduleSpec {
    let when = match words.get("cron") {
        Some(expression) => {
            let zone = words.get("zone").unwrap_or("UTC");
            let rules = kit::zone::find(zone).map_or(b"nowhere".as_slice(), |(_, rules)| rules);
            When::Cron {
                expression: expression.replace('_', " ").into(),
                zone: zone.into(),
                rules: Bytes::from_static(rules),
            }
        }
        None => When::Every { interval_ms: words.span("every").unwrap() },
    };
    let job = new_job(&Words { plain: words.plain[1..].to_vec(), named: words.named.clone() });
    ScheduleSpec {
        start: words.span("start").map(|span| Timestamp(EPOCH + span)),
        end: words.span("end").map(|span| Timestamp(EPOCH + span)),
        limit: words.number("limit").unwrap_or(0),
        jitter_ms: words.span("jitter").unwrap_or(0),
        overlap: words.get("overlap").map_or(Overlap::Allow, |name| {
            Overlap::ALL.into_iter().find(|overlap| overlap.name() == name).unwrap()
        }),
        catch_up: match words.get("catch").unwrap_or("one") {
            "skip" => CatchUp::Skip,
            "one" => CatchUp::One,
            all => CatchUp::All { most: all.strip_prefix("all:").unwrap().parse().unwrap() },
        },
        ..ScheduleSpec::new(when, job)
    }
}

fn patch(words: &Words<'_>) -> QueuePatch {
    let keep = |name: &str| {
        words.get(name).map(|text| {
            let (age, count) = text.split_once(':').unwrap();
            Keep { age_ms: span(age), count: count.parse().unwrap() }
        })
    };
    let full = words.get("full").map(|full| match full {
        "drop" => OnFull::DropOldest,
        "block" => OnFull::Block,
        _ => OnFull::Reject,
    });
    let capacity = [words.get("jobs"), words.get("bytes"), words.get("full")].iter().any(Option::is_some);
    QueuePatch {
        attempts: words.number("attempts").map(|n| n as u32),
        max_crashes: words.number("crashes").map(|n| n as u32),
        timeout_ms: words.span("timeout"),
        lease_ms: words.span("lease"),
        backoff: words.get("backoff").map(backoff),
        capacity: capacity.then(|| Capacity {
            jobs: words.number("jobs").unwrap_or(0),
            bytes: words.number("bytes").unwrap_or(0),
            on_full: full.unwrap_or_default(),
        }),
        keep_completed: keep("keep"),
        keep_dead: keep("keep_dead"),
        limit: ["slots", "rate", "breaker"]
            .iter()
            .any(|word| words.get(word).is_some())
            .then(|| limit(words)),
        order: words.get("order").map(|order| match order.split_once(':') {
            None if order == "deadline" => Order::Deadline,
            None => Order::Priority,
            Some((_, step)) => Order::Aging { step_ms: span(step) },
        }),
        bulkhead: words.get("pool").map(|pool| Bulkhead {
            pool: pool.into(),
            reserved: words.number("reserved").unwrap_or(0) as u32,
            max: words.number("max").unwrap_or(0) as u32,
        }),
        dead_letter: (words.get("dead").is_some() || words.get("alert").is_some()).then(|| {
            let (count, per_minute) =
                words.get("alert").map_or(("0", "0"), |alert| alert.split_once('/').unwrap_or((alert, "0")));
            Box::new(DeadLetter {
                queue: words.get("dead").filter(|target| *target != "-").map(name),
                alert: Alert { count: count.parse().unwrap(), per_minute: per_minute.parse().unwrap() },
            })
        }),
        retry_budget: words.get("budget").map(|budget| {
            let (percent, per_minute) = budget.split_once(':').unwrap();
            RetryBudget { percent: percent.parse().unwrap(), per_minute: per_minute.parse().unwrap() }
        }),
    }
}
