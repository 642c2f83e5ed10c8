//! Runs one job after the other.

use super::shared::{Attempt, Held, Shared, lock};
use crate::{
    Context, Handler, JobSource, Reason, Verdict,
    handler::{Taken, cut, error, lease_of},
    signal::Cancelled,
};
use kit::Millis;
use model::{Crash, LeaseRef, Outcome, Settlement, limits};
use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, atomic::Ordering},
};
use tokio::time::Instant;

/// Slots wait while outcomes of this many bytes wait to be told.
const OUTBOX_BYTES_MAX: usize = 64 << 20;

pub(super) async fn run<S: JobSource, H: Handler>(shared: Arc<Shared<S, H>>, index: usize) {
    while let Some(held) = shared.take().await {
        shared.attempt(index, held).await;
        shared.outbox_has_room().await;
    }
}

/// How a handler's future ended.
pub(super) enum Ended<V = Verdict> {
    Returned(V),
    Panicked(String),
    Abandoned,
}

/// A job that has its slot: from here on its lease is renewed and its signal can be set.
pub(super) struct Placed {
    pub(super) index: usize,
    pub(super) lease: LeaseRef,
    pub(super) lease_end: Instant,
    pub(super) cancelled: Cancelled,
}

/// What becomes of an attempt.
enum Fate {
    Settle(Verdict),
    HandBack,
    Drop,
}

impl<S: JobSource, H: Handler> Shared<S, H> {
    async fn attempt(&self, index: usize, held: Held) {
        let deadline = self.deadline(&held);
        let Some(placed) = self.place(index, &held, deadline) else { return };
        self.started(1);
        let cancelled = placed.cancelled.clone();
        let context = Context::new(held.job, deadline, cancelled.clone(), self.reporter.clone());
        let taken = context.taken().clone();
        let run = async move { self.handler.run(context).await };
        let ended = self.run_to_end(run, cancelled.abandoned()).await;
        self.counters.running.subtract(1);
        self.finish(placed, Some(&taken), ended);
    }
}

impl<S: JobSource, H> Shared<S, H> {
    /// The next job; `None` when the worker stops.
    pub(super) async fn take(&self) -> Option<Held> {
        loop {
            self.ready.acquire().await.ok()?.forget();
            // The keeper may have handed the job back between the permit and here.
            if let Some(held) = self.pop() {
                return Some(held);
            }
        }
    }

    /// The next job if there is one now.
    pub(super) fn try_take(&self) -> Option<Held> {
        self.ready.try_acquire().ok()?.forget();
        self.pop()
    }

    fn pop(&self) -> Option<Held> {
        let mut buffer = lock(&self.buffer);
        let held = buffer.pop_front();
        let left = buffer.len();
        self.buffered.store(left, Ordering::Relaxed);
        drop(buffer);
        if left == self.low_water.load(Ordering::Relaxed) {
            self.room.notify_one();
        }
        held
    }

    /// When an attempt that begins now is called off.
    pub(super) fn deadline(&self, held: &Held) -> Instant {
        self.options.timeout.map_or(held.deadline, |own| held.deadline.min(Instant::now() + own))
    }

    /// Gives a job its slot; `None` if it was taken away meanwhile.
    pub(super) fn place(&self, index: usize, held: &Held, deadline: Instant) -> Option<Placed> {
        let cancelled = Cancelled::new();
        let lease = lease_of(&held.job);
        *lock(&self.slots[index]) = Some(Attempt {
            lease: lease.clone(),
            cancelled: cancelled.clone(),
            renewed: held.since,
            lease_end: held.lease_end,
            deadline,
            abandon_at: None,
        });
        // Looked for after the slot is filled: whoever revokes now finds either the slot, or is found here.
        if self.take_early(&lease).is_some() {
            *lock(&self.slots[index]) = None;
            self.counters.dropped.add(1);
            self.let_go(1);
            return None;
        }
        Some(Placed { index, lease, lease_end: held.lease_end, cancelled })
    }

    /// Counts attempts that begin.
    pub(super) fn started(&self, attempts: u64) {
        self.counters.started.add(attempts);
        if self.counters.running.add(attempts) == 0 {
            self.busy.notify_one();
        }
    }

    pub(super) async fn run_to_end<V>(
        &self,
        run: impl Future<Output = V>,
        abandoned: impl Future<Output = ()>,
    ) -> Ended<V> {
        let mut run = pin!(run);
        let run = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ended::Returned),
            Err(panic) => {
                self.counters.panics.add(1);
                std::task::Poll::Ready(Ended::Panicked(panic_text(&*panic)))
            }
        });
        tokio::select! {
            biased;
            ended = run => ended,
            () = abandoned => Ended::Abandoned,
        }
    }

    /// Empties a slot and sees to it that the source learns what became of the job. `taken` is what its handler had of it.
    pub(super) fn finish(&self, placed: Placed, taken: Option<&Taken>, mut ended: Ended) {
        if let Ended::Returned(verdict) = &mut ended
            && let Some(outcome) = taken.and_then(|taken| taken.durable.suspended())
        {
            *verdict = outcome.into();
        }
        let Placed { index, lease, lease_end, cancelled } = placed;
        // The lease may have been renewed meanwhile.
        let lease_end = lock(&self.slots[index]).take().map_or(lease_end, |attempt| attempt.lease_end);
        match self.fate(cancelled.reason(), ended) {
            Fate::Settle(verdict) => self.post(settlement(lease, verdict), lease_end),
            Fate::HandBack => self.hand_back(lease, lease_end),
            Fate::Drop => {
                self.counters.dropped.add(1);
                self.let_go(1);
            }
        }
        if self.buffered.load(Ordering::Relaxed) <= self.low_water.load(Ordering::Relaxed) {
            self.room.notify_one();
        }
    }

    /// Weighs how the handler ended against why it was called off. Work that is done stays done, if the lease allows.
    fn fate(&self, called_off: Option<Reason>, ended: Ended) -> Fate {
        let done = matches!(
            &ended,
            Ended::Returned(verdict) if matches!(verdict.outcome, Outcome::Done { .. } | Outcome::Suspend { .. })
        );
        match (called_off, ended) {
            (Some(Reason::LeaseLost | Reason::Cancelled), _) => Fate::Drop,
            (_, Ended::Returned(verdict)) if done => Fate::Settle(verdict),
            (Some(reason @ Reason::Timeout), _) => {
                self.counters.timeouts.add(1);
                Fate::Settle(retry("timeout", reason.text()))
            }
            (Some(Reason::Stopping), _) | (None, Ended::Abandoned) => Fate::HandBack,
            (None, Ended::Returned(verdict)) => Fate::Settle(verdict),
            (None, Ended::Panicked(text)) => Fate::Settle(retry("panic", &text)),
        }
    }

    pub(super) async fn outbox_has_room(&self) {
        while lock(&self.outbox).bytes > OUTBOX_BYTES_MAX {
            let settled = self.settled.notified();
            if lock(&self.outbox).bytes > OUTBOX_BYTES_MAX {
                settled.await;
            }
        }
    }
}

pub(crate) fn retry(kind: &str, message: &str) -> Verdict {
    Outcome::Retry { error: error(kind, message, ""), after_ms: None::<Millis> }.into()
}

/// What goes to the source. A result that no log would take is an error of the handler, told as such.
pub(crate) fn settlement(lease: LeaseRef, verdict: Verdict) -> Settlement {
    let outcome = match verdict.outcome {
        Outcome::Done { result: Some(result) } if result.len() > limits::RESULT_BYTES_MAX => {
            let message = format!(
                "the result has {} bytes; {} are allowed: store it elsewhere and return where",
                result.len(),
                limits::RESULT_BYTES_MAX
            );
            return Settlement {
                lease,
                outcome: Outcome::Fail { error: error("result_too_large", &message, "") },
                push: Vec::new(),
            };
        }
        Outcome::Retry { error: e, after_ms } => {
            Outcome::Retry { error: error(&e.kind, &e.message, &e.stack), after_ms }
        }
        Outcome::Crash(Crash { signal, exit, stderr }) => Outcome::Crash(Crash {
            signal: signal.map(|name| cut(&name, limits::TAG_BYTES_MAX).into()),
            exit,
            stderr: cut(&stderr, limits::CRASH_STDERR_BYTES_MAX).into(),
        }),
        Outcome::Fail { error: e } => Outcome::Fail { error: error(&e.kind, &e.message, &e.stack) },
        other => other,
    };
    Settlement { lease, outcome, push: verdict.push }
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "the handler panicked with something that is not text".to_string()
    }
}
