//! A server as a source of jobs.

use super::link::{Failure, Link, Repeat, State, millis};
use crate::backend::Jobs;
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Durability, Millis};
use model::{Actor, DispatchedJob, JobRef, LeaseRef, QueueName, Reject, Renewed, Settled, Settlement, Step};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};
use wire::{FromServer, Input, Pack, Refused, Unsubscribe};
use workers::{JobSource, Revoked, SourceError};

/// How often a worker whose window is open says again that it asks.
const SHOW: Duration = Duration::from_secs(5);

/// A worker's subscription.
pub(super) struct Feed {
    pub(super) queues: Vec<QueueName>,
    pub(super) worker: Actor,
    pub(super) lease_ms: Millis,
    pub(super) level: Durability,
    /// Jobs that the worker runs at once.
    pub(super) concurrency: u64,
    inner: Mutex<Inner>,
    arrived: Notify,
    news: Notify,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<DispatchedJob>,
    /// Jobs that have come since the subscription began, and how many may have.
    received: u64,
    credit: u64,
    /// What the worker asks for now; `None` if it does not ask.
    wanted: Option<usize>,
    /// When it asked the last time.
    asked: Option<Instant>,
    /// It has gone, or goes: jobs that still come are given back.
    left: bool,
    /// When the server heard the last time that it asks.
    shown: Option<Instant>,
    /// The server wants the worker to end.
    is_stopped: bool,
    revoked: VecDeque<Revoked>,
    refused: Option<Refused>,
}

impl Feed {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn received(&self) -> u64 {
        self.inner().received
    }

    /// The subscription begins anew, with what the worker asks for now.
    pub(super) fn begin(&self) -> u64 {
        let mut inner = self.inner();
        inner.received = 0;
        inner.credit = inner.wanted.unwrap_or(0) as u64;
        inner.credit
    }

    /// Jobs have come; returns those that nobody waits for.
    pub(super) fn receive(&self, jobs: Vec<DispatchedJob>) -> Vec<DispatchedJob> {
        let mut inner = self.inner();
        inner.received += jobs.len() as u64;
        if inner.left {
            return jobs;
        }
        inner.jobs.extend(jobs);
        drop(inner);
        self.arrived.notify_one();
        Vec::new()
    }

    pub(super) fn tell_revoked(&self, revoked: &wire::Revoked) {
        let mut inner = self.inner();
        inner.revoked.extend(revoked.missed.then_some(Revoked::Missed));
        let leases = revoked.leases.iter().map(|lost| Revoked::Lease(lost.lease.clone(), lost.reason.into()));
        inner.revoked.extend(leases);
        drop(inner);
        self.news.notify_one();
    }

    pub(super) fn stop(&self) {
        self.inner().is_stopped = true;
        self.arrived.notify_one();
    }

    pub(super) fn refuse(&self, why: Refused) {
        self.inner().refused = Some(why);
        self.arrived.notify_one();
    }
}

impl State {
    /// Gives back what came and was not fetched for a third of its lease.
    pub(super) fn give_back_stale(&mut self) {
        let stale = |feed: &&Arc<Feed>| {
            let inner = feed.inner();
            let patience = Duration::from_millis(feed.lease_ms / 3);
            !inner.jobs.is_empty() && inner.asked.is_none_or(|asked| asked.elapsed() > patience)
        };
        let feeds: Vec<Arc<Feed>> = self.feeds.values().filter(stale).cloned().collect();
        for feed in feeds {
            let jobs = std::mem::take(&mut feed.inner().jobs);
            self.give_back(jobs);
        }
    }
}

pub(crate) struct RemoteSource {
    link: Link,
    feed: Arc<Feed>,
    lease: Duration,
}

impl RemoteSource {
    pub(crate) fn new(
        link: Link,
        worker: Actor,
        queues: Vec<QueueName>,
        lease: Duration,
        level: Durability,
        concurrency: usize,
    ) -> Self {
        let feed = Arc::new(Feed {
            queues,
            worker,
            lease_ms: millis(lease),
            level,
            concurrency: concurrency as u64,
            inner: Mutex::default(),
            arrived: Notify::new(),
            news: Notify::new(),
        });
        link.shared.state().subscribe(feed.clone());
        link.shared.wake.notify_one();
        Self { link, feed, lease }
    }

    fn worker(&self) -> Option<Actor> {
        Some(self.feed.worker.clone())
    }

    async fn ask(&self, name: &'static str, fields: &impl Pack) -> Result<FromServer, SourceError> {
        self.link.send(name, fields, Repeat::Safe).await.map_err(source_error)
    }
}

impl Drop for RemoteSource {
    fn drop(&mut self) {
        let mut state = self.link.shared.state();
        let Some(sub) = state.number(&self.feed) else { return };
        state.feeds.remove(&sub);
        let mut inner = self.feed.inner();
        let jobs = std::mem::take(&mut inner.jobs);
        let received = inner.received;
        drop(inner);
        state.give_back(jobs);
        if state.up {
            let gone = Unsubscribe { sub, received };
            state.write(|out| wire::put_message(out, 0, &wire::FromClient::Unsubscribe(gone)));
        }
        drop(state);
        self.link.shared.wake.notify_one();
    }
}

/// A worker that asks for jobs. If it stops asking before any came, none are to come.
struct Asking<'a>(&'a RemoteSource, bool);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Self(source, answered) = self;
        let mut state = source.link.shared.state();
        let mut inner = source.feed.inner();
        inner.wanted = None;
        inner.asked = Some(Instant::now());
        if *answered {
            return;
        }
        inner.left = true;
        inner.credit = inner.received;
        let (jobs, credit) = (std::mem::take(&mut inner.jobs), inner.credit);
        drop(inner);
        state.give_back(jobs);
        state.credit(&source.feed, credit);
        drop(state);
        source.link.shared.wake.notify_one();
    }
}

impl RemoteSource {
    /// Sees to it that so many jobs may come.
    fn want(&self, max: usize) {
        let mut state = self.link.shared.state();
        let mut inner = self.feed.inner();
        (inner.left, inner.wanted, inner.asked) = (false, Some(max), Some(Instant::now()));
        let missing = (max as u64).saturating_sub(inner.jobs.len() as u64);
        let credit = inner.received + missing;
        // A worker that waits shows that it does.
        let is_due = inner.shown.is_none_or(|shown| shown.elapsed() >= SHOW);
        if credit <= inner.credit && !is_due {
            return;
        }
        inner.credit = inner.credit.max(credit);
        inner.shown = Some(Instant::now());
        let credit = inner.credit;
        drop(inner);
        state.credit(&self.feed, credit);
        drop(state);
        self.link.shared.wake.notify_one();
    }

    fn take(&self, max: usize) -> Result<Jobs, SourceError> {
        let mut inner = self.feed.inner();
        if let Some(refused) = &inner.refused {
            return Err(source_error(Failure::Refused(refused.clone())));
        }
        let count = inner.jobs.len().min(max);
        if count == 0 && inner.is_stopped {
            return Err(SourceError::Closed);
        }
        Ok(inner.jobs.drain(..count).collect())
    }

    /// Whether the server has been away for longer than calls wait.
    fn away(&self) -> Option<SourceError> {
        let state = self.link.shared.state();
        if state.closing {
            return Some(SourceError::Closed);
        }
        let late = !state.up && state.down_since.elapsed() > self.link.shared.options.patience;
        late.then(|| source_error(Failure::Away(state.trouble.clone())))
    }
}

impl JobSource for RemoteSource {
    fn lease(&self) -> Duration {
        self.lease
    }

    async fn fetch(&self, max: usize, wait: Duration) -> Result<Jobs, SourceError> {
        let until = Instant::now() + wait;
        self.want(max);
        let mut asking = Asking(self, false);
        loop {
            let jobs = self.take(max)?;
            let left = until.saturating_duration_since(Instant::now());
            if !jobs.is_empty() || left.is_zero() {
                asking.1 = true;
                return Ok(jobs);
            }
            if let Some(error) = self.away() {
                asking.1 = true;
                return Err(error);
            }
            // Looks up now and then, so that a server that is away shows.
            let _ = timeout(left.min(Duration::from_secs(1)), self.feed.arrived.notified()).await;
        }
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Result<Settled, Reject>>, SourceError> {
        let told = wire::Outcomes {
            outcomes: settlements,
            worker: self.worker(),
            durability: Some(self.feed.level),
        };
        match self.ask("outcomes", &told).await? {
            FromServer::Settled(settled) => {
                Ok(settled.results.into_iter().map(|result| result.map_err(reject)).collect())
            }
            _ => Err(mismatch()),
        }
    }

    async fn renew(&self, leases: Vec<LeaseRef>) -> Result<Vec<Result<Renewed, Reject>>, SourceError> {
        let renew = wire::Renew {
            leases,
            lease_ms: self.feed.lease_ms,
            worker: self.worker(),
            durability: Some(self.feed.level),
        };
        match self.ask("renew", &renew).await? {
            FromServer::Renewed(renewed) => {
                Ok(renewed.results.into_iter().map(|result| result.map_err(reject)).collect())
            }
            _ => Err(mismatch()),
        }
    }

    async fn progress(&self, lease: LeaseRef, value: Bytes) -> Result<(), SourceError> {
        self.ask("progress", &wire::Progress { lease, value, worker: self.worker() }).await.map(drop)
    }

    async fn log(&self, lease: LeaseRef, lines: Vec<CompactString>) -> Result<(), SourceError> {
        let log = wire::Log { lease, lines, worker: self.worker() };
        // Lines are not written twice.
        self.link.send("log", &log, Repeat::Never).await.map(drop).map_err(source_error)
    }

    async fn store_step(
        &self,
        lease: LeaseRef,
        name: CompactString,
        result: Bytes,
    ) -> Result<Option<Step>, SourceError> {
        let (worker, durability) = (self.worker(), Some(self.feed.level));
        let step = wire::StoreStep { lease, name, result, worker, durability };
        self.view(self.ask("step", &step).await?)
    }

    async fn steps(&self, job: JobRef) -> Result<Vec<Step>, SourceError> {
        let answer = self.ask("read", &super::of_job(wire::What::Steps, job)).await?;
        self.view::<Option<Vec<Step>>>(answer).map(Option::unwrap_or_default)
    }

    async fn next_revoked(&self) -> Revoked {
        loop {
            let news = self.feed.news.notified();
            if let Some(revoked) = self.feed.inner().revoked.pop_front() {
                return revoked;
            }
            news.await;
        }
    }
}

impl RemoteSource {
    fn view<T: Pack>(&self, answer: FromServer) -> Result<T, SourceError> {
        let FromServer::View(view) = answer else { return Err(mismatch()) };
        T::unpack(&mut Input::new(&view.0)).map_err(|_| mismatch())
    }
}

/// A refusal of one item.
fn reject(refused: Refused) -> Reject {
    refused.reject().unwrap_or(Reject::Invalid { field: "item", reason: refused.detail })
}

fn source_error(failure: Failure) -> SourceError {
    match failure {
        Failure::Closed => SourceError::Closed,
        Failure::Away(reason) | Failure::Unknown(reason) => {
            SourceError::Unavailable { reason, retry_after_ms: None }
        }
        Failure::TooLarge { limit } => {
            SourceError::Refused(Reject::TooMany { what: "the size of a message in bytes", limit })
        }
        Failure::Refused(refused) => match refused.reject() {
            Some(reject) => SourceError::Refused(reject),
            None => SourceError::Unavailable {
                reason: format!("{}: {}", refused.code, refused.detail),
                retry_after_ms: refused.retry_after_ms,
            },
        },
    }
}

fn mismatch() -> SourceError {
    SourceError::Unavailable { reason: "an answer of the wrong kind".into(), retry_after_ms: None }
}
