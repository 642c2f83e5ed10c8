//! Children that take many jobs in turn.

use super::{
    child::{Child, Turn},
    program::{Program, snooze},
};
use crate::{Context, Handler, Verdict};
use kit::Backoff;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

/// How long a new child waits after the n-th breakdown in a row.
const RESTART: Backoff = Backoff::Exponential { base: 200, cap: 30_000 };

/// How a [`Pool`] treats its children. Start from [`PoolOptions::default`].
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Children at most; they start when they are needed. Give [`crate::Options::concurrency`] the same number. Default 4.
    pub children: usize,
    /// A child is replaced after so many jobs; `None` (default) for never.
    pub jobs_per_child: Option<u64>,
    /// A child says hello within this. Default 10 s.
    pub hello_within: Duration,
    /// Bytes of one line from a child. Default 2 MiB, which holds the largest result.
    pub line_bytes_max: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            children: 4,
            jobs_per_child: None,
            hello_within: Duration::from_secs(10),
            line_bytes_max: 2 << 20,
        }
    }
}

/// What a pool's children went through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolTotals {
    /// Children started that said hello.
    pub started: u64,
    /// Children that ended in the middle of a job, broke the protocol, or could not be started.
    pub broken: u64,
}

/// A pool of children that speak the line protocol.
pub struct Pool {
    program: Program,
    options: PoolOptions,
    free: Semaphore,
    idle: Mutex<Vec<Child>>,
    restart: Mutex<Restart>,
    started: AtomicU64,
    broken: AtomicU64,
}

/// When the next child may start.
struct Restart {
    failures: u32,
    not_before: Instant,
    seed: u64,
}

impl Pool {
    /// A pool of `program`. Nothing is started before the first job comes.
    pub fn new(program: Program, options: PoolOptions) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self {
            program,
            free: Semaphore::new(options.children.clamp(1, model::limits::BATCH_MAX)),
            options,
            idle: Mutex::default(),
            restart: Mutex::new(Restart { failures: 0, not_before: Instant::now(), seed }),
            started: AtomicU64::new(0),
            broken: AtomicU64::new(0),
        }
    }

    /// What happened so far.
    pub fn totals(&self) -> PoolTotals {
        PoolTotals {
            started: self.started.load(Ordering::Relaxed),
            broken: self.broken.load(Ordering::Relaxed),
        }
    }

    /// Lets idle children end by themselves, within the program's grace. Jobs that come later start new ones.
    pub async fn close(&self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        let mut ends = tokio::task::JoinSet::new();
        for child in idle {
            ends.spawn(child.retire());
        }
        while ends.join_next().await.is_some() {}
    }

    /// An idle child, or a new one. The error is what becomes of the job when there is none.
    async fn child(&self, context: &Context) -> Result<Child, Verdict> {
        while let Some(mut child) = { lock(&self.idle).pop() } {
            if child.is_alive() {
                return Ok(child);
            }
        }
        let not_before = lock(&self.restart).not_before;
        tokio::select! {
            () = sleep_until(not_before) => {}
            _ = context.cancelled().wait() => return Err(snooze(Duration::ZERO)),
        }
        match Child::start(&self.program, self.options.hello_within, self.options.line_bytes_max).await {
            Ok(child) => {
                self.started.fetch_add(1, Ordering::Relaxed);
                Ok(child)
            }
            Err(why) => {
                let after = self.broke().max(Duration::from_secs(1));
                Err(self.program.cannot_start(context, &why, after).await)
            }
        }
    }

    /// Notes a breakdown; how long no child is started now.
    fn broke(&self) -> Duration {
        self.broken.fetch_add(1, Ordering::Relaxed);
        let mut restart = lock(&self.restart);
        restart.failures = restart.failures.saturating_add(1);
        let wait = Duration::from_millis(RESTART.delay(restart.failures, restart.seed));
        restart.not_before = Instant::now() + wait;
        wait
    }

    fn keep(&self, child: Child) {
        lock(&self.restart).failures = 0;
        if self.options.jobs_per_child.is_some_and(|most| child.jobs >= most) {
            tokio::spawn(child.retire());
        } else {
            lock(&self.idle).push(child);
        }
    }
}

impl Handler for Pool {
    async fn run(&self, context: Context) -> Verdict {
        // The semaphore is never closed, so this always yields a permit.
        let _permit = self.free.acquire().await;
        let mut child = match self.child(&context).await {
            Ok(child) => child,
            Err(verdict) => return verdict,
        };
        match child.take(&context).await {
            Turn::Ready(verdict) => {
                self.keep(child);
                verdict
            }
            Turn::Stopped(verdict) => verdict,
            Turn::Broken(verdict) => {
                self.broke();
                verdict
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
