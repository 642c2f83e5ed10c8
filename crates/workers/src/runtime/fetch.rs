//! Fills the buffer.

use super::shared::{Held, Shared, lock};
use crate::{JobSource, SourceError};
use model::DispatchedJob;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// The buffer holds what the handlers finish in this span at their present pace.
const AHEAD: Duration = Duration::from_millis(20);

pub(super) async fn run<S: JobSource, H>(shared: Arc<Shared<S, H>>) {
    let mut pace = Pace::new();
    let mut failures = 0;
    while !shared.closed.is_up() {
        let wanted = shared.wanted(pace.ahead(&shared));
        if wanted == 0 {
            tokio::select! {
                () = shared.room.notified() => {}
                () = shared.closed.raised() => {}
            }
            continue;
        }
        let answer = tokio::select! {
            biased;
            () = shared.closed.raised() => break,
            answer = shared.source.fetch(wanted, shared.options.wait) => answer,
        };
        match answer {
            Ok(jobs) => {
                failures = 0;
                shared.source_answered();
                if jobs.is_empty() {
                    // A source that answers "none" at once must not be asked in a tight loop.
                    tokio::task::yield_now().await;
                }
                shared.receive(jobs);
            }
            Err(SourceError::Closed) => break,
            Err(error) => {
                failures += 1;
                let wait = shared.source_failed(&error, failures);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = shared.closed.raised() => {}
                }
            }
        }
    }
}

impl<S: JobSource, H> Shared<S, H> {
    /// How many jobs to ask for now; 0 until asking is worth a call.
    fn wanted(&self, ahead: usize) -> usize {
        let buffered = self.buffered.load(Ordering::Relaxed);
        let running = self.counters.running.get() as usize;
        let free = self.places.load(Ordering::Relaxed).min(self.slots.len().saturating_sub(running));
        self.low_water.store(ahead / 2, Ordering::Relaxed);
        if buffered > ahead / 2 {
            return 0;
        }
        // Outcomes that cannot be told bound what is fetched, whatever the handlers' pace.
        let in_hand = self.in_hand.load(Ordering::Relaxed) as usize;
        let in_hand_max = 4 * (self.slots.len() + self.options.prefetch);
        (free + ahead)
            .saturating_sub(buffered)
            .min(in_hand_max.saturating_sub(in_hand))
            .min(model::limits::BATCH_MAX)
    }

    fn receive(&self, jobs: Vec<DispatchedJob>) {
        let count = jobs.len();
        let now = Instant::now();
        // The answer was under way for an unknown while: a tenth of the lease is given up for it.
        let lease = self.source.lease();
        let lease_end = now + lease * 9 / 10;
        self.counters.fetched.add(count as u64);
        self.in_hand.fetch_add(count as u64, Ordering::Relaxed);
        let mut buffer = lock(&self.buffer);
        for job in jobs {
            // Both are the source's times, so their difference holds whatever its clock says.
            let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
            let timeout_ms = lease_ms.saturating_add(job.timeout_at.0).saturating_sub(job.lease_until.0);
            let timeout = Duration::from_millis(timeout_ms.min(model::limits::LEASE_MS_MAX));
            buffer.push_back(Held { job, since: now, lease_end, deadline: now + timeout });
        }
        self.buffered.store(buffer.len(), Ordering::Relaxed);
        drop(buffer);
        self.ready.add_permits(count);
    }
}

/// How fast the handlers take jobs.
struct Pace {
    since: Instant,
    started: u64,
    ahead: usize,
}

impl Pace {
    fn new() -> Self {
        Self { since: Instant::now(), started: 0, ahead: 0 }
    }

    /// How many jobs may wait. Measured over at least a millisecond.
    fn ahead<S: JobSource, H>(&mut self, shared: &Shared<S, H>) -> usize {
        if shared.options.prefetch == 0 {
            return 0;
        }
        let span = self.since.elapsed();
        if span >= Duration::from_millis(1) {
            let started = shared.counters.started.get();
            let pace = u128::from(started - self.started) * AHEAD.as_micros() / span.as_micros();
            self.ahead = usize::try_from(pace).unwrap_or(usize::MAX).min(shared.options.prefetch);
            self.started = started;
            self.since = Instant::now();
        }
        self.ahead
    }
}
