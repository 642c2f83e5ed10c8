//! What a pond stands on: a node in this process, or a server. Nothing above knows which.

use crate::{
    Error, Explanation,
    remote::{Link, RemoteEvents, RemoteSource},
    source::{Mailbox, NodeSource, Source},
};
use kit::{Durability, Timestamp};
use model::{
    Actor, BulkView, Command, DispatchedJob, Envelope, Event, HistoryEntry, JobId, JobRef, JobView, JoinView,
    LogLine, QueueName, QueueView, Reply, ScheduleId, ScheduleView, State, Step,
};
use std::time::Duration;
use tokio::time::timeout;

/// How long a waiter relies on events alone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(crate) enum Backend {
    /// In this process.
    Node(node::Handle),
    /// Somewhere else.
    Remote(Link),
}

/// What happens in a pond.
pub(crate) enum Events {
    Node(node::Events),
    Remote(Box<RemoteEvents>),
}

impl Events {
    /// The next event; `None` when the pond has closed.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, node::Gone>> {
        match self {
            Self::Node(events) => events.next().await,
            Self::Remote(events) => events.next().await,
        }
    }
}

/// What a command brought back.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) position: u64,
    pub(crate) durability: Durability,
}

impl Backend {
    pub(crate) async fn call(&self, envelope: Envelope, level: Durability) -> Result<Answer, Error> {
        match self {
            Self::Node(handle) => {
                let node::Answer { reply, position, durability } = handle.call(envelope, level).await?;
                Ok(Answer { reply, position, durability })
            }
            Self::Remote(link) => link.call(envelope, level).await,
        }
    }

    /// A push, which waits where a full queue lets its producers wait: up to `wait`, or as long as the future lives.
    pub(crate) async fn push(
        &self,
        envelope: Envelope,
        wait: Option<Duration>,
        level: Durability,
    ) -> Result<Answer, Error> {
        match self {
            Self::Node(handle) => {
                let node::Answer { reply, position, durability } = handle.push(envelope, wait, level).await?;
                Ok(Answer { reply, position, durability })
            }
            Self::Remote(link) => link.push(envelope, wait, level).await,
        }
    }

    pub(crate) async fn command(
        &self,
        actor: &Actor,
        command: Command,
        level: Durability,
    ) -> Result<Reply, Error> {
        let envelope = Envelope { actor: actor.clone(), idempotency_key: None, command };
        Ok(self.call(envelope, level).await?.reply)
    }

    pub(crate) async fn job(&self, job: JobRef) -> Result<Option<JobView>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.job(job).await?),
            Self::Remote(link) => link.job(job).await,
        }
    }

    /// The job once it is final; `None` if there is none.
    pub(crate) async fn wait(&self, job: JobRef) -> Result<Option<JobView>, Error> {
        let mut events = match self.events() {
            Events::Node(events) => Events::Node(events.briefly()),
            remote => remote,
        };
        loop {
            match self.job(job.clone()).await? {
                Some(view) if !view.state.is_final() => ended(&mut events, &job).await,
                view => return Ok(view),
            }
        }
    }

    /// The jobs of a queue in a state, at most 1,000.
    pub(crate) async fn jobs(&self, queue: QueueName, state: State) -> Result<Vec<JobView>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.jobs(queue, state).await?),
            Self::Remote(link) => link.jobs(queue, state).await,
        }
    }

    /// What happens from now on.
    pub(crate) fn events(&self) -> Events {
        match self {
            Self::Node(handle) => Events::Node(handle.events(None)),
            Self::Remote(link) => Events::Remote(Box::new(RemoteEvents::new(link))),
        }
    }

    pub(crate) async fn history(&self, job: JobRef) -> Result<Option<Vec<HistoryEntry>>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(move |shard| shard.history(&job)).await?),
            Self::Remote(link) => link.history(job).await,
        }
    }

    pub(crate) async fn log_lines(&self, job: JobRef) -> Result<Option<Vec<LogLine>>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(move |shard| shard.log_lines(&job)).await?),
            Self::Remote(link) => link.log_lines(job).await,
        }
    }

    pub(crate) async fn steps(&self, job: JobRef) -> Result<Option<Vec<Step>>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(move |shard| shard.job_steps(&job)).await?),
            Self::Remote(link) => link.steps(job).await,
        }
    }

    pub(crate) async fn explain(&self, job: JobRef) -> Result<Option<Explanation>, Error> {
        match self {
            Self::Node(handle) => Ok(handle
                .read(move |shard| {
                    let why = shard.explain(&job)?;
                    Some(Explanation { state: why.state, summary: why.summary, expected_at: why.expected_at })
                })
                .await?),
            Self::Remote(link) => link.explain(job).await,
        }
    }

    pub(crate) async fn schedule(&self, id: ScheduleId) -> Result<Option<ScheduleView>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(move |shard| shard.schedule(&id)).await?),
            Self::Remote(link) => link.schedule(&id).await,
        }
    }

    pub(crate) async fn schedules(
        &self,
        after: Option<ScheduleId>,
        limit: usize,
    ) -> Result<Vec<ScheduleView>, Error> {
        match self {
            Self::Node(handle) => {
                Ok(handle.read(move |shard| shard.schedules(after.as_ref(), limit)).await?)
            }
            Self::Remote(link) => link.schedules(after.as_ref(), limit).await,
        }
    }
    pub(crate) async fn join(&self, id: JobId) -> Result<Option<JoinView>, Error> {
        match self {
            Self::Node(handle) => {
                Ok(handle.read(move |shard| shard.join_view(&id, Default::default())).await?)
            }
            Self::Remote(link) => link.join(id).await,
        }
    }

    pub(crate) async fn schedule_slots(
        &self,
        id: ScheduleId,
        limit: usize,
    ) -> Result<Option<Vec<Timestamp>>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(move |shard| shard.schedule_slots(&id, limit)).await?),
            Self::Remote(link) => link.schedule_slots(&id, limit).await,
        }
    }

    pub(crate) async fn queue(&self, name: QueueName) -> Result<Option<QueueView>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(move |shard| shard.queue(&name)).await?),
            Self::Remote(link) => link.queue(name).await,
        }
    }

    pub(crate) async fn producers(&self, name: QueueName) -> Result<u64, Error> {
        match self {
            Self::Node(handle) => Ok(handle.producers(name).await?),
            Self::Remote(link) => link.producers(name).await,
        }
    }

    pub(crate) async fn dead_letters(&self, name: QueueName) -> Result<Option<node::DeadLetters>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(move |shard| shard.dead_letters(&name)).await?),
            Self::Remote(link) => link.dead_letters(name).await,
        }
    }

    pub(crate) async fn operations(&self) -> Result<Vec<BulkView>, Error> {
        match self {
            Self::Node(handle) => Ok(handle.read(|shard| shard.bulks()).await?),
            Self::Remote(link) => link.operations().await,
        }
    }

    pub(crate) fn source(
        &self,
        actor: Actor,
        queues: Vec<QueueName>,
        lease: Duration,
        level: Durability,
        concurrency: usize,
    ) -> Source {
        match self {
            Self::Node(handle) => {
                let revoked = Mailbox::default();
                Source::Node(NodeSource { handle: handle.clone(), actor, queues, lease, level, revoked })
            }
            Self::Remote(link) => {
                Source::Remote(RemoteSource::new(link.clone(), actor, queues, lease, level, concurrency))
            }
        }
    }

    pub(crate) async fn close(&self, deadline: Duration) -> Result<(), Error> {
        match self {
            Self::Node(handle) => Ok(handle.stop(deadline).await?),
            Self::Remote(link) => link.close(deadline).await,
        }
    }
}

/// Waits for a hint that the job may be final. A listener who is late, or too slow, looks again by itself.
async fn ended(events: &mut Events, job: &JobRef) {
    let is_end = |event: &Event| {
        event.job.as_ref().is_some_and(|of| of.id == job.id && of.to.is_none_or(State::is_final))
    };
    while let Ok(Some(Ok(event))) = timeout(LOOK_AGAIN, events.next()).await {
        if is_end(&event) {
            return;
        }
    }
}

/// The jobs of a dispatch are never without their bodies here: [`node::Handle::fetch`] promises it.
pub(crate) type Jobs = Vec<DispatchedJob>;
