//! What a client asks for, as calls of the node.

use super::check;
use crate::{
    access::{Caller, Right},
    http::{
        app::App,
        problem::{self, Problem},
        reach,
    },
};
use compact_str::CompactString;
use kit::{Durability, Millis};
use model::{Actor, Command, Envelope, EventId, JobId, JobRef, QueueName, Reject, Reply, ScheduleId, State};
use node::{CallError, Handle};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use wire::{Dead, DeadClass, EventPage, Explained, FromClient, Pack, Read, Refused, What, put_answer};

/// Events in one answer.
const EVENTS_MAX: usize = 512;

/// An answered request.
pub(super) struct Done {
    pub(super) id: u64,
    /// The answer as it is sent.
    pub(super) bytes: Vec<u8>,
    /// Tokens of leases that are no longer the client's.
    pub(super) over: Vec<u64>,
}

impl Done {
    fn new(id: u64, name: &str, answer: &impl Pack) -> Self {
        let mut bytes = Vec::new();
        put_answer(&mut bytes, name, id, |out| answer.pack(out));
        Self { id, bytes, over: Vec::new() }
    }

    pub(super) fn refused(id: u64, refused: &Refused) -> Self {
        Self::new(id, "refused", refused)
    }
}

/// Why a call brought nothing, in the words of the HTTP routes.
pub(super) fn refused(error: CallError) -> Refused {
    if let CallError::Refused(reject) = &error {
        return reject.into();
    }
    worded(&Problem::from(error))
}

fn worded(problem: &Problem) -> Refused {
    Refused { retry_after_ms: problem.retry_after_ms(), ..Refused::new(problem.code(), problem.detail()) }
}

fn mismatch() -> Refused {
    Refused::new("unknown_outcome", "the pond gave an answer of the wrong kind; please report this")
}

/// Who asks, and what counts where a request says nothing.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) app: App,
    pub(super) caller: Caller,
    pub(super) actor: Actor,
}

impl Asker {
    fn level(&self, asked: Option<Durability>) -> Durability {
        asked.unwrap_or(self.app.rules.durability)
    }

    /// Refuses what the caller's token is not for.
    pub(super) fn check(&self, right: Right) -> Result<(), Refused> {
        if self.caller.may(right) {
            return Ok(());
        }
        let detail = format!("this needs the right to {}, which the token has not", right.name());
        Err(worded(&Problem::new(&problem::FORBIDDEN, detail)))
    }

    /// The same for a queue.
    pub(super) fn check_queue(&self, queue: &QueueName) -> Result<(), Refused> {
        reach::check(&self.caller, queue).map_err(|problem| worded(&problem))
    }

    /// A command that stays within the caller's reach, in its name.
    async fn envelope(
        &self,
        worker: Option<Actor>,
        key: Option<CompactString>,
        command: Command,
    ) -> Result<Envelope, Refused> {
        let confined = reach::confine(&self.caller, &self.app.node, command).await;
        let command = confined.map_err(|problem| worded(&problem))?;
        let actor = worker.map_or_else(|| self.actor.clone(), |worker| self.caller.worker(&worker));
        Ok(Envelope { actor, idempotency_key: key.map(|key| self.caller.scoped(key)), command })
    }

    async fn call(
        &self,
        worker: Option<Actor>,
        key: Option<CompactString>,
        command: Command,
        level: Option<Durability>,
    ) -> Result<node::Answer, Refused> {
        let envelope = self.envelope(worker, key, command).await?;
        self.app.node.call(envelope, self.level(level)).await.map_err(refused)
    }

    /// Carries out one request. Its first poll hands it to the node, so requests arrive there in their order.
    pub(super) async fn carry_out(self, id: u64, request: FromClient) -> Done {
        self.answer(id, request).await.unwrap_or_else(|refused| Done::refused(id, &refused))
    }

    async fn answer(&self, id: u64, request: FromClient) -> Result<Done, Refused> {
        let checked = |checked: Result<(), Reject>| checked.map_err(|reject| Refused::from(&reject));
        self.check(needed(&request))?;
        match request {
            FromClient::Push(push) => {
                checked(check::jobs(&push.jobs))?;
                let wait = Duration::from_millis(push.wait_ms.min(self.app.rules.wait_ms_max));
                let command = Command::Push { jobs: push.jobs };
                let envelope = self.envelope(None, push.key, command).await?;
                let level = self.level(push.durability);
                let answer = self.app.node.push(envelope, Some(wait), level).await.map_err(refused)?;
                let Reply::Pushed(jobs) = answer.reply else { return Err(mismatch()) };
                let (position, durability) = (answer.position, answer.durability);
                Ok(Done::new(id, "pushed", &wire::Pushed { position, durability, jobs }))
            }
            FromClient::Outcomes(told) => {
                checked(check::settlements(&told.outcomes))?;
                let tokens: Vec<u64> = told.outcomes.iter().map(|outcome| outcome.lease.token).collect();
                let command = Command::Settle { settlements: told.outcomes };
                let answer = self.call(told.worker, None, command, told.durability).await?;
                let Reply::Settled(results) = answer.reply else { return Err(mismatch()) };
                let is_over =
                    |result: &Result<_, Reject>| !matches!(result, Err(reject) if !ends_the_lease(reject));
                let over = tokens.iter().zip(&results).filter(|(_, result)| is_over(result));
                let over = over.map(|(token, _)| *token).collect();
                let results = results.into_iter().map(|result| result.map_err(|reject| (&reject).into()));
                let settled = wire::Settled { results: results.collect() };
                Ok(Done { over, ..Done::new(id, "settled", &settled) })
            }
            FromClient::Renew(renew) => {
                let command = Command::Renew { leases: renew.leases, lease_ms: renew.lease_ms };
                let answer = self.call(renew.worker, None, command, renew.durability).await?;
                let Reply::Renewed(results) = answer.reply else { return Err(mismatch()) };
                let results = results.into_iter().map(|result| result.map_err(|reject| (&reject).into()));
                Ok(Done::new(id, "renewed", &wire::Renewed { results: results.collect() }))
            }
            FromClient::Progress(progress) => {
                checked(check::json("value", &progress.value))?;
                let command = Command::Progress { lease: progress.lease, value: progress.value };
                self.call(progress.worker, None, command, None).await?;
                Ok(Done::new(id, "done", &wire::Empty {}))
            }
            FromClient::Log(log) => {
                let command = Command::Log { lease: log.lease, lines: log.lines };
                self.call(log.worker, None, command, None).await?;
                Ok(Done::new(id, "done", &wire::Empty {}))
            }
            FromClient::StoreStep(step) => {
                checked(check::json("result", &step.result))?;
                let command = Command::Step { lease: step.lease, name: step.name, result: step.result };
                let answer = self.call(step.worker, None, command, step.durability).await?;
                let Reply::Step(had) = answer.reply else { return Err(mismatch()) };
                Ok(Done::new(id, "view", &had))
            }
            FromClient::Command(asked) => {
                let command = asked.open().map_err(|error| Refused::new("bad_request", error.to_string()))?;
                checked(check::command(&command))?;
                self.check(check::needed(&command))?;
                let answer = self.call(None, asked.key, command, asked.durability).await?;
                let mut reply = Vec::new();
                model::codec::encode_reply(&answer.reply, &mut reply);
                let (position, durability) = (answer.position, answer.durability);
                Ok(Done::new(id, "reply", &wire::Reply { reply: reply.into(), position, durability }))
            }
            FromClient::Read(read) => {
                let mut bytes = Vec::new();
                put_answer(&mut bytes, "view", id, |_| {});
                self.look(read, &mut bytes).await?;
                Ok(Done { id, bytes, over: Vec::new() })
            }
            FromClient::Hello(_)
            | FromClient::Subscribe(_)
            | FromClient::Credit(_)
            | FromClient::Unsubscribe(_)
            | FromClient::Withdraw(_)
            | FromClient::Ping(_)
            | FromClient::Bye(_)
            | FromClient::Unknown => Err(Refused::new("bad_request", "this message is not known here")),
        }
    }
}

/// Whether a refused outcome says that the lease is gone.
fn ends_the_lease(reject: &Reject) -> bool {
    matches!(
        reject,
        Reject::StaleLease { .. }
            | Reject::Cancelled { .. }
            | Reject::UnknownJob { .. }
            | Reject::WrongState { .. }
    )
}

impl Asker {
    /// Keeps a look within the caller's reach.
    async fn confine(&self, read: &mut Read) -> Result<(), Refused> {
        if !self.caller.is_confined() {
            return Ok(());
        }
        match read.what {
            What::Job | What::History | What::Log | What::Steps | What::Explain => {
                let Ok(id) = JobId::parse(&read.id) else { return Ok(()) };
                let (caller, job) = (self.caller.clone(), JobRef { queue: read.queue.clone(), id });
                let found = self.app.node.read(move |shard| reach::tied(&caller, shard, job)).await;
                let tied = found.map_err(refused)?;
                // A job out of reach is answered like one that there is not.
                read.queue = tied.map_or_else(|| QueueName::new("-").ok(), |job| job.queue);
                Ok(())
            }
            What::Jobs | What::Queue | What::Producers | What::Dead => {
                read.queue.as_ref().map_or(Ok(()), |queue| self.check_queue(queue))
            }
            What::Join | What::Schedule | What::Schedules | What::Slots | What::Operations | What::Events => {
                reach::check_whole(&self.caller).map_err(|problem| worded(&problem))
            }
        }
    }

    /// Appends what is to be seen, or nothing.
    async fn look(&self, mut read: Read, out: &mut Vec<u8>) -> Result<(), Refused> {
        let (app, node) = (&self.app, &self.app.node);
        self.confine(&mut read).await?;
        let read = read;
        let bad = |error: model::BadName| Refused::new("invalid", error.to_string());
        let limit = usize::try_from(read.limit).unwrap_or(usize::MAX).clamp(1, 1_000);
        let job = || JobId::parse(&read.id).map(|id| JobRef { queue: read.queue.clone(), id }).map_err(bad);
        let queue = || read.queue.clone().ok_or_else(|| Refused::new("invalid", "queue: is missing"));
        let schedule = || ScheduleId::new(&read.id).map_err(bad);
        match read.what {
            What::Job => node.job(job()?).await.map_err(refused)?.pack(out),
            What::Jobs => {
                let state = read.state.unwrap_or(State::Waiting);
                node.jobs(queue()?, state).await.map_err(refused)?.pack(out);
            }
            What::History => {
                let job = job()?;
                node.read(move |shard| shard.history(&job)).await.map_err(refused)?.pack(out);
            }
            What::Log => {
                let job = job()?;
                node.read(move |shard| shard.log_lines(&job)).await.map_err(refused)?.pack(out);
            }
            What::Steps => {
                let job = job()?;
                node.read(move |shard| shard.job_steps(&job)).await.map_err(refused)?.pack(out);
            }
            What::Explain => {
                let job = job()?;
                let why = node.read(move |shard| shard.explain(&job)).await.map_err(refused)?;
                why.map(|why| Explained {
                    state: why.state,
                    summary: why.summary,
                    expected_at: why.expected_at,
                })
                .pack(out);
            }
            What::Schedule => {
                let id = schedule()?;
                node.read(move |shard| shard.schedule(&id)).await.map_err(refused)?.pack(out);
            }
            What::Schedules => {
                let after = read.after.as_deref().map(ScheduleId::new).transpose().map_err(bad)?;
                let found = node.read(move |shard| shard.schedules(after.as_ref(), limit)).await;
                found.map_err(refused)?.pack(out);
            }
            What::Slots => {
                let id = schedule()?;
                node.read(move |shard| shard.schedule_slots(&id, limit)).await.map_err(refused)?.pack(out);
            }
            What::Join => {
                let id = job()?.id;
                let found = node.read(move |shard| shard.join_view(&id, Default::default())).await;
                found.map_err(refused)?.pack(out);
            }
            What::Queue => {
                let name = queue()?;
                node.read(move |shard| shard.queue(&name)).await.map_err(refused)?.pack(out);
            }
            What::Producers => node.producers(queue()?).await.map_err(refused)?.pack(out),
            What::Dead => {
                let name = queue()?;
                let found = node.read(move |shard| shard.dead_letters(&name)).await.map_err(refused)?;
                found.map(dead).pack(out);
            }
            What::Operations => node.read(|shard| shard.bulks()).await.map_err(refused)?.pack(out),
            What::Events => {
                let after = read.after.as_deref().map(str::parse::<EventId>).transpose();
                let after = after.map_err(|error| Refused::new("invalid", error.to_string()))?;
                events(node, after, read.wait_ms.min(app.rules.wait_ms_max)).await.pack(out);
            }
        }
        Ok(())
    }
}

/// What a message needs of its caller.
fn needed(request: &FromClient) -> Right {
    match request {
        FromClient::Push(_) => Right::Produce,
        FromClient::Outcomes(_)
        | FromClient::Renew(_)
        | FromClient::Progress(_)
        | FromClient::Log(_)
        | FromClient::StoreStep(_) => Right::Work,
        FromClient::Read(read) => match read.what {
            What::Job | What::History | What::Log | What::Steps | What::Explain | What::Join => Right::Look,
            What::Jobs
            | What::Schedule
            | What::Schedules
            | What::Slots
            | What::Queue
            | What::Producers
            | What::Operations
            | What::Dead
            | What::Events => Right::Read,
        },
        // Each command has its own.
        FromClient::Command(_)
        | FromClient::Hello(_)
        | FromClient::Subscribe(_)
        | FromClient::Credit(_)
        | FromClient::Unsubscribe(_)
        | FromClient::Withdraw(_)
        | FromClient::Ping(_)
        | FromClient::Bye(_)
        | FromClient::Unknown => Right::Known,
    }
}

fn dead(found: node::DeadLetters) -> Dead {
    let node::DeadLetters { dead, oldest_at, classes, others, target, alert, alert_since } = found;
    let class = |class| {
        let node::ErrorClass {
            fingerprint,
            kind,
            message,
            count,
            first_at,
            last_at,
            sample,
            per_minute,
            per_hour,
        } = class;
        DeadClass { fingerprint, kind, message, count, first_at, last_at, sample, per_minute, per_hour }
    };
    let (classes, alert) = (classes.into_iter().map(class).collect(), (alert.count, alert.per_minute));
    Dead { dead, oldest_at, classes, others, target, alert, alert_since }
}

/// Waits for the first event behind a place, and takes those that are there.
async fn events(node: &Handle, after: Option<EventId>, wait_ms: Millis) -> EventPage {
    let mut source = node.events(after);
    let until = Instant::now() + Duration::from_millis(wait_ms);
    let mut page = EventPage::default();
    let mut next = timeout_at(until, source.next()).await.ok();
    loop {
        match next {
            Some(Some(Ok(event))) => page.events.push(event),
            Some(Some(Err(gone))) => page.gone = Some(gone.since),
            Some(None) => page.closed = true,
            None => break,
        }
        if page.closed || page.gone.is_some() || page.events.len() >= EVENTS_MAX {
            break;
        }
        next = source.try_next().map(Some);
    }
    page.position = source.position();
    page
}
