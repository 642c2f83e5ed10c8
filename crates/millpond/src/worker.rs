use crate::{
    Error, IntoOutcome, Job, Next, Outcome, Queue,
    middleware::Layer,
    source::Source,
    testing::{Bench, Station},
};
use kit::Durability;
use model::{Actor, DispatchedJob, QueueName, limits};
use serde::de::DeserializeOwned;
use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};
use workers::{Attempt, BatchOptions, Context, Drained, Handler, Keeper, Options, Runtime, Totals, Verdict};

/// How long [`Worker::stop`] waits for running jobs.
const STOP: Duration = Duration::from_secs(30);

/// A worker being put together; [`WorkerBuilder::start`] lets it run.
#[must_use = "a worker does nothing until it is started"]
pub struct WorkerBuilder<T, H> {
    pub(crate) queue: Queue<T>,
    pub(crate) handler: H,
    pub(crate) options: Options,
    lease: Duration,
    level: Durability,
    name: Option<String>,
    layers: Vec<Layer>,
}

impl<T, H> WorkerBuilder<T, H> {
    pub(crate) fn new(queue: Queue<T>, handler: H) -> Self {
        let level = queue.pond.inner.level;
        let options = Options { prefetch: 1_000, keeper: Keeper::Thread, ..Options::default() };
        Self {
            queue,
            handler,
            options,
            lease: Duration::from_secs(30),
            level,
            name: None,
            layers: Vec::new(),
        }
    }

    /// Calls of the handler at once, 1 to 10,000. Default 16. With [`Queue::batch_worker`] a call has up to
    /// [`size`](WorkerBuilder::size) jobs, and all calls together have 10,000 at most.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.options.concurrency = concurrency;
        self
    }

    /// Jobs that may be taken ahead of time; only as many are as the handlers finish within 20 ms. Default 1,000; 0 for none.
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        self.options.prefetch = prefetch;
        self
    }

    /// How long the pond waits for a sign of life before it gives a job to another worker, 100 ms to 24 h. Renewed
    /// on its own while the handler runs. Default 30 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        let (shortest, longest) = (limits::LEASE_MS_MIN, limits::LEASE_MS_MAX);
        self.lease = lease.clamp(Duration::from_millis(shortest), Duration::from_millis(longest));
        self
    }

    /// The longest call here; the job's own timeout counts if it is shorter.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How long a handler may go on after it was told to stop; then it is dropped. Default 5 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }

    /// The level at which jobs are taken and settled. Default [`Durability::Disk`]; below it a crash can run jobs again.
    pub fn durability(mut self, level: Durability) -> Self {
        self.level = level;
        self
    }

    /// Its name in the histories of jobs, and in the list of workers of a server. Default: the pond's.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// A source for so many jobs at once.
    pub(crate) fn source(&self, concurrency: usize) -> (Source, Actor) {
        let inner = &self.queue.pond.inner;
        let actor = self.name.as_deref().map_or_else(|| inner.actor.clone(), Actor::new);
        let queues = vec![self.queue.name.clone()];
        let concurrency = concurrency.clamp(1, limits::BATCH_MAX);
        let source = inner.backend.source(actor.clone(), queues, self.lease, self.level, concurrency);
        (source, actor)
    }
}

impl<T, H, F> WorkerBuilder<T, H>
where
    T: DeserializeOwned + Send + 'static,
    H: Fn(T, Job) -> F + Send + Sync + 'static,
    F: Future + Send,
    F::Output: IntoOutcome,
{
    /// Runs `layer` around every attempt: spans, metrics, a transaction, what to make of an error. The first one added is the outermost. It
    /// sees the outcome that its [`Next`] gives, may give another one, and may leave the handler out. What it does counts for the timeout.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), millpond::Error> {
    /// # let pond = millpond::Pond::in_memory().await?;
    /// # let mails = pond.queue::<String>("mails")?;
    /// let worker = mails
    ///     .worker(|to: String, _job| async move { println!("to {to}") })
    ///     .wrap(|job, next| async move {
    ///         let (id, started) = (job.id().clone(), std::time::Instant::now());
    ///         let outcome = next.run(job).await;
    ///         println!("{id}: {} after {:?}", outcome.name(), started.elapsed());
    ///         outcome
    ///     })
    ///     .start()?;
    /// # mails.push(&"ada@example.org".to_owned()).await?;
    /// # worker.stop().await;
    /// # pond.close().await
    /// # }
    /// ```
    ///
    /// State that handlers share is what their closures capture; a layer is the place for what differs from job to job. Handlers of batches
    /// have no layers.
    pub fn wrap<L, G>(mut self, layer: L) -> Self
    where
        L: Fn(Job, Next) -> G + Send + Sync + 'static,
        G: Future + Send + 'static,
        G::Output: IntoOutcome,
    {
        self.layers.push(Arc::new(move |job, next| {
            let outcome = layer(job, next);
            Box::pin(async move { outcome.await.into_outcome() })
        }));
        self
    }

    /// Starts taking jobs. Must be called inside a tokio runtime.
    pub fn start(self) -> Result<Worker, Error> {
        let (source, actor) = self.source(self.options.concurrency);
        let Self { queue, handler, options, layers, .. } = self;
        let handler = Typed { handler: Arc::new(handler), layers: layers.into(), body: PhantomData };
        if let Some(bench) = &queue.pond.inner.test {
            let (source, handler) = (Arc::new(source), Arc::new(handler));
            let begin = move |jobs: Vec<DispatchedJob>| {
                jobs.into_iter().map(|job| Attempt::new(&source, &handler, job)).collect()
            };
            return Ok(Worker::on(bench, actor, queue.name, options.concurrency, None, begin));
        }
        Ok(Worker::of(Runtime::start(source, handler, options).map_err(Error::Start)?))
    }
}

/// A closure over typed bodies as a handler.
struct Typed<T, H> {
    handler: Arc<H>,
    layers: Arc<[Layer]>,
    body: PhantomData<fn() -> T>,
}

impl<T, H, F> Handler for Typed<T, H>
where
    T: DeserializeOwned + Send + 'static,
    H: Fn(T, Job) -> F + Send + Sync + 'static,
    F: Future + Send,
    F::Output: IntoOutcome,
{
    async fn run(&self, context: Context) -> Verdict {
        let job = Job(context);
        let outcome = if self.layers.is_empty() {
            handle(&*self.handler, job).await
        } else {
            let handler = self.handler.clone();
            let inner = move |job| {
                let handler = handler.clone();
                Box::pin(async move { handle(&*handler, job).await }) as _
            };
            Next::new(self.layers.clone(), Arc::new(inner)).run(job).await
        };
        outcome.into_verdict()
    }
}

async fn handle<T, H, F>(handler: &H, job: Job) -> Outcome
where
    T: DeserializeOwned,
    H: Fn(T, Job) -> F,
    F: Future,
    F::Output: IntoOutcome,
{
    match serde_json::from_slice(job.0.job().body.as_deref().unwrap_or_default()) {
        Ok(body) => handler(body, job).await.into_outcome(),
        Err(why) => Outcome::decode(&why),
    }
}

/// A running worker. Dropping it ends it at once; [`Worker::stop`] is the kind way.
pub struct Worker(Place);

/// Where a worker's handler runs.
enum Place {
    Runtime(Runtime),
    /// In a test, when the test says so.
    Bench(Seat),
}

/// A worker of a test, until it is dropped.
struct Seat {
    bench: Arc<Bench>,
    station: Arc<Station>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.bench.remove(&self.station);
    }
}

impl Worker {
    pub(crate) const fn of(runtime: Runtime) -> Self {
        Self(Place::Runtime(runtime))
    }

    /// A worker of a test.
    pub(crate) fn on(
        bench: &Arc<Bench>,
        actor: Actor,
        queue: QueueName,
        concurrency: usize,
        batches: Option<&BatchOptions>,
        begin: impl Fn(Vec<DispatchedJob>) -> Vec<Attempt> + Send + Sync + 'static,
    ) -> Self {
        let station = Station::new(actor, queue, concurrency, batches, Box::new(begin));
        bench.add(station.clone());
        Self(Place::Bench(Seat { bench: bench.clone(), station }))
    }

    /// What it did so far.
    pub fn totals(&self) -> Totals {
        match &self.0 {
            Place::Runtime(runtime) => runtime.counters().totals(),
            Place::Bench(seat) => seat.station.totals(),
        }
    }

    /// Why the pond does not answer at present, if it does not.
    pub fn source_error(&self) -> Option<String> {
        match &self.0 {
            Place::Runtime(runtime) => runtime.source_error(),
            Place::Bench(_) => None,
        }
    }

    /// Waits until no more jobs come: an operator has told this worker to stop, or the pond was closed. Those in hand still run;
    /// [`Worker::stop`] waits for them. A worker that is told to be quiet goes on waiting.
    ///
    /// ```
    /// # async fn example(mut worker: millpond::Worker, interrupted: impl Future<Output = ()>) {
    /// tokio::select! {
    ///     () = worker.closed() => {}
    ///     () = interrupted => {}
    /// }
    /// worker.stop().await;
    /// # }
    /// ```
    pub async fn closed(&mut self) {
        match &mut self.0 {
            Place::Runtime(runtime) => runtime.closed().await,
            // The test says when it ends.
            Place::Bench(_) => std::future::pending().await,
        }
    }

    /// Takes no more jobs, waits up to 30 s for running ones, and hands the rest back.
    pub async fn stop(self) -> Drained {
        self.stop_within(STOP).await
    }

    /// The same with a deadline of your own. Handlers that then still run are told so and have their grace to end.
    pub async fn stop_within(self, deadline: Duration) -> Drained {
        match self.0 {
            Place::Runtime(runtime) => runtime.stop(deadline).await,
            // Nothing runs between the steps of a test, but jobs may gather.
            Place::Bench(seat) => {
                Drained { handed_back: seat.bench.hand_back(&seat.station), ..Drained::default() }
            }
        }
    }
}
