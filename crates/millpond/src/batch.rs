//! Handlers that take several jobs in one call.

use crate::{Error, IntoOutcome, Job, Outcome, Worker, WorkerBuilder};
use serde::de::DeserializeOwned;
use std::{fmt::Display, future::Future, marker::PhantomData, sync::Arc, time::Duration};
use workers::{Attempt, BatchHandler, BatchOptions, Context, Runtime, Verdict};

/// The guide's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/handlers.md")]
struct Guide;

/// The handler of [`crate::Queue::batch_worker`], and how its calls are put together.
pub struct Batches<H> {
    handler: H,
    options: BatchOptions,
}

impl<H> Batches<H> {
    pub(crate) fn new(handler: H) -> Self {
        Self { handler, options: BatchOptions::default() }
    }
}

impl<T, H> WorkerBuilder<T, Batches<H>> {
    /// Jobs in one call at most, 1 to 1,000. Default 100.
    pub fn size(mut self, size: usize) -> Self {
        self.handler.options.size = size;
        self
    }

    /// The call is made as soon as so many are together; 1 takes what is there. Default: a full call.
    pub fn min_size(mut self, min_size: usize) -> Self {
        self.handler.options.min_size = Some(min_size);
        self
    }

    /// The call is made so long after the first job came, however few there are. Default 1 s.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.handler.options.wait = wait;
        self
    }

    /// Jobs of different groups ([`crate::Push::group`]) do not share a call; those without one are a group, too.
    pub fn by_group(mut self) -> Self {
        self.handler.options.by_group = true;
        self
    }
}

impl<T, H, F> WorkerBuilder<T, Batches<H>>
where
    T: DeserializeOwned + Send + 'static,
    H: Fn(Vec<(T, Job)>) -> F + Send + Sync + 'static,
    F: Future + Send,
    F::Output: IntoOutcomes,
{
    /// Starts taking jobs. Must be called inside a tokio runtime.
    pub fn start(self) -> Result<Worker, Error> {
        let (source, actor) = self.source(self.options.concurrency.saturating_mul(self.handler.options.size));
        let Self { queue, handler: Batches { handler, options: batches }, options, .. } = self;
        let handler = Typed { handler, body: PhantomData };
        if let Some(bench) = &queue.pond.inner.test {
            let (source, handler) = (Arc::new(source), Arc::new(handler));
            let begin = move |jobs| vec![Attempt::of_batch(&source, &handler, jobs)];
            return Ok(Worker::on(bench, actor, queue.name, options.concurrency, Some(&batches), begin));
        }
        Ok(Worker::of(Runtime::start_batches(source, handler, &batches, options).map_err(Error::Start)?))
    }
}

/// A closure over typed bodies as a handler.
struct Typed<T, H> {
    handler: H,
    body: PhantomData<fn() -> T>,
}

impl<T, H, F> BatchHandler for Typed<T, H>
where
    T: DeserializeOwned + Send + 'static,
    H: Fn(Vec<(T, Job)>) -> F + Send + Sync + 'static,
    F: Future + Send,
    F::Output: IntoOutcomes,
{
    async fn run(&self, jobs: Vec<Context>) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(jobs.len());
        let mut typed = Vec::with_capacity(jobs.len());
        for context in jobs {
            // A body that is not what the handler takes is that job's own failure.
            verdicts.push(match serde_json::from_slice(context.job().body.as_deref().unwrap_or_default()) {
                Ok(body) => {
                    typed.push((body, Job(context)));
                    None
                }
                Err(why) => Some(Outcome::decode(&why).into_verdict()),
            });
        }
        let count = typed.len();
        if count == 0 {
            return verdicts.into_iter().flatten().collect();
        }
        let outcomes = (self.handler)(typed).await.into_outcomes(count);
        let outcomes = outcomes.into_iter().map(Outcome::into_verdict).collect();
        let mut outcomes = workers::one_each(outcomes, count).into_iter();
        verdicts.into_iter().filter_map(|verdict| verdict.or_else(|| outcomes.next())).collect()
    }
}

/// What a handler of several jobs may return: an outcome for each, in their order, or one for all.
pub trait IntoOutcomes {
    /// An outcome for each of so many jobs. If there are more or fewer, every attempt has failed.
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome>;
}

/// One for each.
impl<O: IntoOutcome> IntoOutcomes for Vec<O> {
    fn into_outcomes(self, _: usize) -> Vec<Outcome> {
        self.into_iter().map(O::into_outcome).collect()
    }
}

/// All are done.
impl IntoOutcomes for () {
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        vec![Outcome::done(()); jobs]
    }
}

/// The same for all.
impl IntoOutcomes for Outcome {
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        vec![self; jobs]
    }
}

/// An error is a retry of all.
impl<O: IntoOutcomes, E: Display> IntoOutcomes for Result<O, E> {
    fn into_outcomes(self, jobs: usize) -> Vec<Outcome> {
        match self {
            Ok(outcomes) => outcomes.into_outcomes(jobs),
            Err(error) => vec![Outcome::retry(error); jobs],
        }
    }
}
