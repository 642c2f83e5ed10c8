//! One attempt without a runtime: for whoever polls handlers by hand, as a test does.

use crate::{
    Cancelled, Context, Handler, JobSource, Reason, Verdict,
    handler::{Taken, lease_of},
    runtime::{panic_text, retry, settlement},
};
use model::{DispatchedJob, LeaseRef, Settlement, limits};
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};
use tokio::time::Instant;

/// An attempt under way. It runs only while it is polled, and no clock of its own ends it.
pub struct Attempt {
    taken: Arc<Taken>,
    lease: LeaseRef,
    cancelled: Cancelled,
    run: Pin<Box<dyn Future<Output = Verdict> + Send>>,
}

impl Attempt {
    /// Prepares an attempt; the handler begins with the first poll.
    pub fn new<S: JobSource, H: Handler>(source: &Arc<S>, handler: &Arc<H>, job: DispatchedJob) -> Self {
        let (cancelled, lease) = (Cancelled::new(), lease_of(&job));
        let timeout = job.timeout_at.0.saturating_sub(job.created_at.0).min(limits::LEASE_MS_MAX);
        let deadline = Instant::now() + Duration::from_millis(timeout);
        let context = Context::new(job, deadline, cancelled.clone(), source.clone());
        let taken = context.taken().clone();
        let handler = handler.clone();
        let run = Box::pin(async move { handler.run(context).await });
        Self { taken, lease, cancelled, run }
    }

    /// The job.
    pub fn job(&self) -> &DispatchedJob {
        &self.taken.job
    }

    /// Its lease.
    pub fn lease(&self) -> &LeaseRef {
        &self.lease
    }

    /// Tells the handler to stop.
    pub fn call_off(&self, reason: Reason) {
        self.cancelled.fire(reason);
    }

    /// Why the handler was told to stop, if it was.
    pub fn called_off(&self) -> Option<Reason> {
        self.cancelled.reason()
    }

    /// Whether the handler waits to be told to stop, perhaps among other things.
    pub fn waits_for_its_signal(&self) -> bool {
        self.cancelled.is_awaited()
    }

    /// Lets the handler go on. A panic is an outcome like any other.
    pub fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<Settlement> {
        match catch_unwind(AssertUnwindSafe(|| self.run.as_mut().poll(context))) {
            // A suspension counts, whatever the handler made of it.
            Ok(poll) => poll.map(|verdict| {
                let verdict = self.taken.durable.suspended().map_or(verdict, Verdict::from);
                settlement(self.lease.clone(), verdict)
            }),
            Err(panic) => {
                let verdict = retry("panic", &panic_text(&*panic));
                Poll::Ready(settlement(self.lease.clone(), verdict))
            }
        }
    }
}
