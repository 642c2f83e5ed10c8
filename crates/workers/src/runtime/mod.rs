//! The worker loop: jobs come in batches, run in slots, and are reported in batches.
//!
//! ```text
//!            fetch               take               post                settle
//!   source -------> buffer ---------------> slots ---------> outbox ---------------> source
//!                     |    (concurrency)      |      (what gathers while one settle
//!                     +------- keeper --------+       is under way goes with the next)
//!                 renewals, timeouts, revocations
//! ```
//!
//! A slot is one task that runs one job after the other, so a job costs no task and no timer of its own. For a handler that takes
//! several jobs in one call, one task gathers them and each call is a task.

mod batch;
mod fetch;
mod keep;
mod settle;
mod shared;
mod slot;

pub(crate) use slot::{panic_text, retry, settlement};

use crate::{BatchHandler, BatchOptions, Counters, Gather, Handler, JobSource};
use model::limits;
use shared::Shared;
use std::{sync::Arc, time::Duration};
use tokio::task::{JoinHandle, JoinSet};

/// How a [`Runtime`] works. Start from [`Options::default`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Calls of the handler at once, 1 to 10,000. Default 16. If a call takes several jobs, all calls together have 10,000 jobs at most.
    pub concurrency: usize,
    /// Jobs that may wait in this process beyond the running ones, at most 10,000; only as many are taken as the handlers
    /// finish within 20 ms at their present pace, so slow jobs are not hoarded. 0 takes no job before it can start. Default 0.
    pub prefetch: usize,
    /// How long one fetch waits for a job. Default 20 s.
    pub wait: Duration,
    /// The longest attempt here; the job's own timeout counts if it is shorter. `None` (default) for the job's own.
    pub timeout: Option<Duration>,
    /// How long a handler may go on after it was told to stop; then it is dropped. Default 5 s.
    pub grace: Duration,
    /// Who renews leases. Default [`Keeper::Task`].
    pub keeper: Keeper,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 16,
            prefetch: 0,
            wait: Duration::from_secs(20),
            timeout: None,
            grace: Duration::from_secs(5),
            keeper: Keeper::Task,
        }
    }
}

/// Who renews leases and watches timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeper {
    /// A task of the runtime that the handlers use. Handlers that block every thread of it block the renewals too.
    #[default]
    Task,
    /// A thread of its own, so that handlers which compute without a pause keep their leases.
    /// For sources whose calls do not depend on the handlers' runtime.
    Thread,
}

/// What became of the jobs in hand when a runtime stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Attempts that ended by themselves after the stop was asked for.
    pub finished: u64,
    /// Jobs handed back unfinished; no attempt was used.
    pub handed_back: u64,
    /// Jobs of which the source could not be told; it finds out when their leases end.
    pub left: u64,
}

/// A running worker. Dropping it ends its tasks at once; the leases in hand then run out. [`Runtime::stop`] is the kind way.
pub struct Runtime {
    shared: Arc<dyn Running>,
    /// They run the handler.
    tasks: JoinSet<()>,
    fetcher: JoinHandle<()>,
    settler: JoinHandle<()>,
    grace: Duration,
}

impl Runtime {
    /// Starts taking jobs. Must be called inside a tokio runtime.
    pub fn start<S: JobSource, H: Handler>(
        source: S,
        handler: H,
        options: Options,
    ) -> std::io::Result<Runtime> {
        let slots = options.concurrency.clamp(1, limits::BATCH_MAX);
        let shared = Arc::new(Shared::new(source, handler, options, slots));
        let mut tasks = JoinSet::new();
        for index in 0..slots {
            tasks.spawn(slot::run(shared.clone(), index));
        }
        Self::start_around(shared, tasks)
    }

    /// Starts taking jobs, several for one call. [`Options::concurrency`] counts calls. What free calls can hold is fetched ahead of
    /// time and gathers; its leases are renewed meanwhile. Must be called inside a tokio runtime.
    pub fn start_batches<S: JobSource, H: BatchHandler>(
        source: S,
        handler: H,
        batches: &BatchOptions,
        options: Options,
    ) -> std::io::Result<Runtime> {
        let gather = Gather::new(batches, options.concurrency);
        let shared = Arc::new(Shared::new(source, handler, options, gather.capacity()));
        let mut tasks = JoinSet::new();
        tasks.spawn(batch::run(shared.clone(), gather));
        Self::start_around(shared, tasks)
    }

    /// Starts what the tasks that run the handler need around them.
    fn start_around<S: JobSource, H: Send + Sync + 'static>(
        shared: Arc<Shared<S, H>>,
        tasks: JoinSet<()>,
    ) -> std::io::Result<Runtime> {
        let grace = shared.options.grace;
        match shared.options.keeper {
            Keeper::Task => drop(tokio::spawn(keep::keep(shared.clone()))),
            Keeper::Thread => {
                let keeper = keep::keep(shared.clone());
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                std::thread::Builder::new()
                    .name("millpond-keeper".into())
                    .spawn(move || runtime.block_on(keeper))?;
            }
        }
        let fetcher = tokio::spawn(fetch::run(shared.clone()));
        let settler = tokio::spawn(settle::run(shared.clone()));
        Ok(Runtime { shared, tasks, fetcher, settler, grace })
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        self.shared.counters()
    }

    /// The newest error of the source, if its newest call failed.
    pub fn source_error(&self) -> Option<String> {
        self.shared.source_error()
    }

    /// Waits until the source has closed. The jobs in hand still run; [`Runtime::stop`] waits for them.
    pub async fn closed(&mut self) {
        if !self.fetcher.is_finished() {
            // A fetcher that was aborted has ended as well.
            let _ = (&mut self.fetcher).await;
        }
    }

    /// Takes no more jobs, hands back those that have not started, waits up to `deadline` for running ones, tells the
    /// rest to stop, and hands them back after the grace.
    pub async fn stop(mut self, deadline: Duration) -> Drained {
        let before = self.shared.counters().totals();
        self.shared.close();
        let in_time = tokio::time::timeout(deadline, all_ended(&mut self.tasks)).await;
        if in_time.is_err() {
            self.shared.call_off();
            // The keeper drops handlers when the grace is over; should it be gone, so are they.
            let _ = tokio::time::timeout(self.grace * 2, all_ended(&mut self.tasks)).await;
            self.tasks.shutdown().await;
        }
        // A fetch that was answered at the last moment has put its jobs into the buffer by now.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.closed()).await;
        self.shared.seal();
        let last_word = self.grace.max(Duration::from_secs(1));
        if tokio::time::timeout(last_word, &mut self.settler).await.is_err() {
            self.settler.abort();
        }
        let after = self.shared.counters().totals();
        let left = self.shared.in_hand();
        let handed_back = self.shared.handed_back();
        let ended = |t: &crate::Totals| t.done + t.retried + t.failed + t.crashed + t.snoozed + t.cancelled;
        Drained { finished: (ended(&after) - ended(&before)).saturating_sub(handed_back), handed_back, left }
    }
}

async fn all_ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shared.end();
        self.fetcher.abort();
        self.settler.abort();
    }
}

/// [`Shared`] without its type parameters.
trait Running: Send + Sync {
    fn counters(&self) -> &Counters;
    fn source_error(&self) -> Option<String>;
    fn in_hand(&self) -> u64;
    fn handed_back(&self) -> u64;
    /// No more fetches; what waits in the buffer is handed back; idle slots end.
    fn close(&self);
    /// Tells every running handler to stop.
    fn call_off(&self);
    /// Nothing more will be posted: the settler ends when all is told.
    fn seal(&self);
    /// Ends keeper and settler.
    fn end(&self);
}
