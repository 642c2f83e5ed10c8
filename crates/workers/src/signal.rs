//! How a running handler learns that it should stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
};
use tokio::sync::Notify;

/// Why a running attempt is called off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It took longer than its timeout.
    Timeout = 1,
    /// The lease is gone: another worker may have the job, so the result will be dropped.
    LeaseLost = 2,
    /// Somebody cancelled the job; the result will be dropped.
    Cancelled = 3,
    /// The worker is stopping and its deadline has passed; the job is handed back.
    Stopping = 4,
}

impl Reason {
    const ALL: [Reason; 4] = [Reason::Timeout, Reason::LeaseLost, Reason::Cancelled, Reason::Stopping];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Timeout => "timeout",
            Reason::LeaseLost => "lease_lost",
            Reason::Cancelled => "cancelled",
            Reason::Stopping => "stopping",
        }
    }

    /// One sentence for people.
    pub const fn text(self) -> &'static str {
        match self {
            Reason::Timeout => "the attempt took longer than its timeout",
            Reason::LeaseLost => "the lease was lost",
            Reason::Cancelled => "the job was cancelled",
            Reason::Stopping => "the worker is stopping",
        }
    }
}

impl From<model::Revocation> for Reason {
    fn from(why: model::Revocation) -> Self {
        match why {
            model::Revocation::Cancelled => Reason::Cancelled,
            model::Revocation::Timeout => Reason::Timeout,
            model::Revocation::LeaseLost => Reason::LeaseLost,
        }
    }
}

/// The cancellation signal of one attempt. Cheap to clone; never set back.
#[derive(Debug, Clone)]
pub struct Cancelled(Arc<Signal>);

#[derive(Debug)]
struct Signal {
    reason: AtomicU8,
    abandoned: AtomicBool,
    awaited: AtomicUsize,
    changed: Notify,
}

impl Cancelled {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Signal {
            reason: AtomicU8::new(0),
            abandoned: AtomicBool::new(false),
            awaited: AtomicUsize::new(0),
            changed: Notify::new(),
        }))
    }

    /// Why the attempt is called off, or `None` while it is not.
    pub fn reason(&self) -> Option<Reason> {
        let number = self.0.reason.load(Ordering::Acquire);
        Reason::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// Waits until the attempt is called off.
    pub async fn wait(&self) -> Reason {
        let _awaited = Awaited::new(&self.0.awaited);
        self.until(|signal| signal.reason()).await
    }

    /// Whether somebody waits for it now.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.awaited.load(Ordering::Relaxed) > 0
    }

    /// Calls the attempt off. The first reason stays.
    pub(crate) fn fire(&self, reason: Reason) {
        let first = self.0.reason.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
        if first.is_ok() {
            self.0.changed.notify_waiters();
        }
    }

    /// Stops waiting for the handler: its future is dropped.
    pub(crate) fn abandon(&self) {
        self.0.abandoned.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    pub(crate) async fn abandoned(&self) {
        self.until(|signal| signal.0.abandoned.load(Ordering::Acquire).then_some(())).await;
    }

    async fn until<T>(&self, check: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            // Registered before the check, so that a change between check and wait is not missed.
            let changed = self.0.changed.notified();
            if let Some(value) = check(self) {
                return value;
            }
            changed.await;
        }
    }
}

/// Counts somebody who waits, for as long as it is there.
struct Awaited<'a>(&'a AtomicUsize);

impl<'a> Awaited<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
