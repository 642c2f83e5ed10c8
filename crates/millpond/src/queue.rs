use crate::{
    Batches, Error, Explanation, IntoOutcome, IntoOutcomes, Job, Pond, Push, Receipt, Signal, WorkerBuilder,
};
use model::{
    BulkAction, BulkView, Command, Filter, HistoryEntry, JobId, JobRef, JobView, LogLine, NewBulk, NewJob,
    QueueName, QueuePatch, QueueSettings, QueueView, Reply, State, Step,
};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, marker::PhantomData};

/// A queue with bodies of type `T`. Cheap to clone.
pub struct Queue<T> {
    pub(crate) pond: Pond,
    pub(crate) name: QueueName,
    pub(crate) body: PhantomData<fn(T) -> T>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { pond: self.pond.clone(), name: self.name.clone(), body: PhantomData }
    }
}

impl<T: Serialize> Queue<T> {
    /// Begins a push; `.await` it, or set options before.
    pub fn push(&self, body: &T) -> Push {
        Push::new(self.pond.clone(), self.new_job(body))
    }

    /// Pushes many jobs as one change: all or none. At most 10,000 at once.
    pub async fn push_many<'a>(&self, bodies: impl IntoIterator<Item = &'a T>) -> Result<Vec<Receipt>, Error>
    where
        T: 'a,
    {
        let jobs = bodies.into_iter().map(|body| self.new_job(body)).collect::<Result<_, _>>()?;
        self.pond.push_all(jobs).await
    }

    fn new_job(&self, body: &T) -> Result<NewJob, Error> {
        Ok(NewJob::new(self.name.clone(), serde_json::to_vec(body)?))
    }
}

impl<T: DeserializeOwned + Send + 'static> Queue<T> {
    /// A worker that runs `handler` for each job. It may return anything that is [`IntoOutcome`].
    pub fn worker<H, F>(&self, handler: H) -> WorkerBuilder<T, H>
    where
        H: Fn(T, Job) -> F + Send + Sync + 'static,
        F: Future + Send,
        F::Output: IntoOutcome,
    {
        WorkerBuilder::new(self.clone(), handler)
    }

    /// A worker that runs `handler` for several jobs in one call, which has [`size`](WorkerBuilder::size) jobs or those that came within
    /// [`wait`](WorkerBuilder::wait). It may return anything that is [`IntoOutcomes`]. Each job has its own outcome, attempts,
    /// signal and lease; a panic is a failed attempt of all.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), millpond::Error> {
    /// use millpond::{Job, Outcome, Pond, State};
    /// use std::time::Duration;
    ///
    /// async fn index(pages: Vec<(String, Job)>) -> Vec<Outcome> {
    ///     let take = |url: &str| if url.starts_with("https://") { Outcome::done(url.len()) } else { Outcome::fail("not a page") };
    ///     pages.iter().map(|(url, _job)| take(url)).collect()
    /// }
    ///
    /// let pond = Pond::test();
    /// let pages = pond.queue::<String>("pages")?;
    /// let worker = pages.batch_worker(index).size(50).wait(Duration::from_millis(200)).concurrency(2).start()?;
    /// pages.push_many(&["https://example.org".into(), "nonsense".into()]).await?;
    /// pond.advance(Duration::from_millis(200)).await;
    /// let states: Vec<State> = pond.ran().iter().map(|ran| ran.state).collect();
    /// assert_eq!((states, worker.totals().calls), (vec![State::Completed, State::Dead], 1));
    /// # Ok(()) }
    /// ```
    pub fn batch_worker<H, F>(&self, handler: H) -> WorkerBuilder<T, Batches<H>>
    where
        H: Fn(Vec<(T, Job)>) -> F + Send + Sync + 'static,
        F: Future + Send,
        F::Output: IntoOutcomes,
    {
        WorkerBuilder::new(self.clone(), Batches::new(handler))
    }
}

impl<T> Queue<T> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Stops handing out jobs.
    pub async fn pause(&self) -> Result<(), Error> {
        self.pond.inner.command(Command::Pause { queue: self.name.clone() }).await.map(drop)
    }

    /// Undoes [`Queue::pause`].
    pub async fn resume(&self) -> Result<(), Error> {
        self.pond.inner.command(Command::Resume { queue: self.name.clone() }).await.map(drop)
    }

    /// Changes a group's share (`weight`, 1 to 1,000; at first 1), holds its jobs or lets them go. `None` leaves a part as it is.
    pub async fn set_group(
        &self,
        group: &str,
        weight: Option<u32>,
        paused: Option<bool>,
    ) -> Result<(), Error> {
        let command = Command::SetGroup { queue: self.name.clone(), group: group.into(), weight, paused };
        self.pond.inner.command(command).await.map(drop)
    }

    /// Counts by state, settings, totals; `None` if nothing was ever pushed.
    pub async fn stats(&self) -> Result<Option<QueueView>, Error> {
        self.pond.inner.backend.queue(self.name.clone()).await
    }

    /// How many pushes wait for room, if a full queue lets its producers wait ([`crate::OnFull::Block`]).
    pub async fn producers_waiting(&self) -> Result<u64, Error> {
        self.pond.inner.backend.producers(self.name.clone()).await
    }

    /// Changes settings; returns all of them.
    pub async fn configure(&self, patch: QueuePatch) -> Result<QueueSettings, Error> {
        match self.pond.inner.command(Command::Configure { queue: self.name.clone(), patch }).await? {
            Reply::Configured(settings) => Ok(*settings),
            _ => Err(Error::Mismatch),
        }
    }

    /// Gives the dead jobs that match another life, in the background.
    pub async fn redrive(&self, filter: Filter) -> Result<BulkView, Error> {
        self.bulk(BulkAction::Redrive, filter).await
    }

    /// Forgets waiting, delayed and retrying jobs, in the background; none of them starts from now on.
    pub async fn purge(&self) -> Result<BulkView, Error> {
        self.bulk(BulkAction::Purge, Filter::default()).await
    }

    /// Starts an operation over the jobs that match, in the background: see [`Pond::operation`] for how far it is.
    ///
    /// ```no_run
    /// # async fn example(mail: millpond::Queue<String>) -> Result<(), millpond::Error> {
    /// use millpond::{BulkAction, Filter, State};
    /// let filter = Filter { states: vec![State::Delayed], tags_all: vec!["news".into()], ..Filter::default() };
    /// let started = mail.bulk(BulkAction::Promote, filter).await?;
    /// println!("operation {} looks at about {} jobs", started.id, started.total);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// [`Pond::operation`]: crate::Pond::operation
    pub async fn bulk(&self, action: BulkAction, filter: Filter) -> Result<BulkView, Error> {
        self.bulk_at_rate(action, filter, 0).await
    }

    /// The same at so many jobs per second, at most 100,000; 0 for as fast as dispatch allows.
    pub async fn bulk_at_rate(
        &self,
        action: BulkAction,
        filter: Filter,
        rate: u32,
    ) -> Result<BulkView, Error> {
        let asked = NewBulk { rate, ..NewBulk::new(self.name.clone(), action, filter) };
        self.pond.inner.operation(Command::Bulk(Box::new(asked))).await
    }

    /// A job of this queue.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobView>, Error> {
        self.pond.inner.backend.job(self.at(id)).await
    }

    /// Everything that happened to a job of this queue.
    pub async fn history(&self, id: &JobId) -> Result<Option<Vec<HistoryEntry>>, Error> {
        self.pond.inner.backend.history(self.at(id)).await
    }

    /// What its handlers wrote to the log of a job of this queue.
    pub async fn log_lines(&self, id: &JobId) -> Result<Option<Vec<LogLine>>, Error> {
        self.pond.inner.backend.log_lines(self.at(id)).await
    }

    /// What a job of this queue has stored, in the order in which it began.
    pub async fn steps(&self, id: &JobId) -> Result<Option<Vec<Step>>, Error> {
        self.pond.inner.backend.steps(self.at(id)).await
    }

    /// Hands a job of this queue what it waits for, or will wait for; `.await` the call, or give it an idempotency key before.
    pub fn signal(&self, id: &JobId, name: &str, body: impl Serialize) -> Signal {
        Signal::new(self.pond.clone(), self.at(id), name, body)
    }

    /// Gives a final job of this queue another life from the very beginning: its steps and signals are forgotten. A redriven job
    /// keeps them.
    pub async fn restart(&self, id: &JobId) -> Result<(), Error> {
        self.pond.inner.command(Command::Restart { jobs: vec![self.at(id)] }).await.map(drop)
    }

    /// Why a job of this queue is where it is.
    pub async fn explain(&self, id: &JobId) -> Result<Option<Explanation>, Error> {
        self.pond.inner.backend.explain(self.at(id)).await
    }

    /// Calls a job of this queue off. Returns its state.
    pub async fn cancel(&self, id: &JobId, reason: &str) -> Result<State, Error> {
        self.pond.inner.cancel(self.at(id), reason).await
    }

    pub(crate) fn at(&self, id: &JobId) -> JobRef {
        JobRef { queue: Some(self.name.clone()), id: id.clone() }
    }
}
