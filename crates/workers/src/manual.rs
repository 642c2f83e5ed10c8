//! One call of a handler without a runtime: for whoever polls handlers by hand, as a test does.

use crate::{
    BatchHandler, Cancelled, Context, Handler, JobSource, Reason, Verdict,
    handler::{Taken, one_each},
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

/// The attempts of one call under way. They run only while they are polled, and no clock of their own ends them.
pub struct Attempt {
    jobs: Vec<Part>,
    run: Pin<Box<dyn Future<Output = Vec<Verdict>> + Send>>,
}

struct Part {
    taken: Arc<Taken>,
    lease: LeaseRef,
    cancelled: Cancelled,
}

impl Attempt {
    /// Prepares the attempt of one job; the handler begins with the first poll.
    pub fn new<S: JobSource, H: Handler>(source: &Arc<S>, handler: &Arc<H>, job: DispatchedJob) -> Self {
        let context = context(source, job);
        let jobs = vec![Part::of(&context)];
        let handler = handler.clone();
        Self { jobs, run: Box::pin(async move { vec![handler.run(context).await] }) }
    }

    /// The same for several jobs in one call.
    pub fn of_batch<S: JobSource, H: BatchHandler>(
        source: &Arc<S>,
        handler: &Arc<H>,
        jobs: Vec<DispatchedJob>,
    ) -> Self {
        let contexts: Vec<Context> = jobs.into_iter().map(|job| context(source, job)).collect();
        let jobs = contexts.iter().map(Part::of).collect();
        let handler = handler.clone();
        Self { jobs, run: Box::pin(async move { handler.run(contexts).await }) }
    }

    /// The jobs, and why the handler was told to stop with each, if it was.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = (&DispatchedJob, Option<Reason>)> {
        self.jobs.iter().map(|part| (&part.taken.job, part.cancelled.reason()))
    }

    /// Tells the handler to stop with the job of this lease, if it has it.
    pub fn call_off(&self, lease: &LeaseRef, reason: Reason) {
        if let Some(part) = self.jobs.iter().find(|part| part.lease == *lease) {
            part.cancelled.fire(reason);
        }
    }

    /// Whether the handler was told to stop with all of them.
    pub fn is_called_off(&self) -> bool {
        self.jobs.iter().all(|part| part.cancelled.reason().is_some())
    }

    /// Whether the handler waits to be told to stop, perhaps among other things.
    pub fn waits_for_its_signal(&self) -> bool {
        self.jobs.iter().any(|part| part.cancelled.is_awaited())
    }

    /// Lets the handler go on. How each job ended, in their order; a panic is an outcome like any other.
    pub fn poll(&mut self, context: &mut task::Context<'_>) -> Poll<Vec<Settlement>> {
        let verdicts = match catch_unwind(AssertUnwindSafe(|| self.run.as_mut().poll(context))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(verdicts)) => {
                let mut verdicts = one_each(verdicts, self.jobs.len());
                for (part, verdict) in self.jobs.iter().zip(&mut verdicts) {
                    // A suspension counts, whatever the handler made of it.
                    if let Some(outcome) = part.taken.durable.suspended() {
                        *verdict = outcome.into();
                    }
                }
                verdicts
            }
            Err(panic) => vec![retry("panic", &panic_text(&*panic)); self.jobs.len()],
        };
        let leases = self.jobs.iter().map(|part| part.lease.clone());
        Poll::Ready(leases.zip(verdicts).map(|(lease, verdict)| settlement(lease, verdict)).collect())
    }
}

fn context<S: JobSource>(source: &Arc<S>, job: DispatchedJob) -> Context {
    let timeout = job.timeout_at.0.saturating_sub(job.created_at.0).min(limits::LEASE_MS_MAX);
    let deadline = Instant::now() + Duration::from_millis(timeout);
    Context::new(job, deadline, Cancelled::new(), source.clone())
}

impl Part {
    fn of(context: &Context) -> Self {
        let (taken, lease) = (context.taken().clone(), context.lease().clone());
        Self { taken, lease, cancelled: context.cancelled().clone() }
    }
}
