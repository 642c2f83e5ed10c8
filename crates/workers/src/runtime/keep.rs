//! Keeps leases alive, calls off what must stop, and drops what does not.

use super::shared::{Attempt, Shared, lock};
use crate::{JobSource, Reason, Revoked};
use model::{LeaseRef, Reject, Renewed};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Timeouts are noticed within this.
const SWEEP: Duration = Duration::from_millis(50);

pub(super) async fn keep<S: JobSource, H: Send + Sync + 'static>(shared: Arc<Shared<S, H>>) {
    tokio::select! {
        () = shared.ended.raised() => {}
        () = sweep(&shared) => {}
        () = renew(&shared) => {}
        () = heed_revocations(&shared) => {}
    }
}

async fn sweep<S: JobSource, H: Send + Sync + 'static>(shared: &Shared<S, H>) {
    let patience = shared.source.lease() / 3;
    loop {
        if shared.counters.running.get() == 0 && shared.gathering.load(Ordering::Relaxed) == 0 {
            shared.busy.notified().await;
        }
        sleep(SWEEP.min(patience / 4)).await;
        let now = Instant::now();
        for slot in &shared.slots {
            if let Some(attempt) = lock(slot).as_mut() {
                look_after(attempt, now, shared.options.grace);
            }
        }
        // A job that found no slot for so long is better off with another worker.
        if let Some(before) = now.checked_sub(patience) {
            shared.hand_back_waiting(before);
        }
    }
}

fn look_after(attempt: &mut Attempt, now: Instant, grace: Duration) {
    match attempt.abandon_at {
        Some(at) if at <= now => attempt.cancelled.abandon(),
        Some(_) => {}
        None if attempt.lease_end <= now => attempt.call_off(Reason::LeaseLost, grace),
        None if attempt.deadline <= now => attempt.call_off(Reason::Timeout, grace),
        None => {}
    }
}

/// Looks twice within a third of the lease, so that a lease is at most a third old when it is renewed.
async fn renew<S: JobSource, H: Send + Sync + 'static>(shared: &Shared<S, H>) {
    let lease = shared.source.lease();
    let mut failures = 0;
    loop {
        let age = tokio::select! {
            () = sleep(lease / 6) => lease / 6,
            () = shared.renew_all.notified() => Duration::ZERO,
        };
        loop {
            let leases = due(shared, age);
            if leases.is_empty() {
                break;
            }
            let asked = Instant::now();
            let refs = leases.iter().map(|(_, lease)| lease.clone()).collect();
            let error = match tokio::time::timeout(lease / 3, shared.source.renew(refs)).await {
                Ok(Ok(answers)) => {
                    failures = 0;
                    shared.source_answered();
                    note(shared, leases, answers, asked, lease);
                    break;
                }
                Ok(Err(error)) => error,
                Err(_) => crate::SourceError::Unavailable {
                    reason: "a renewal took longer than a third of the lease".into(),
                    retry_after_ms: None,
                },
            };
            failures += 1;
            sleep(shared.source_failed(&error, failures).min(lease / 12)).await;
        }
    }
}

/// The leases that are at least `age` old, with their slots.
fn due<S: JobSource, H: Send + Sync + 'static>(
    shared: &Shared<S, H>,
    age: Duration,
) -> Vec<(usize, LeaseRef)> {
    let now = Instant::now();
    let old = |attempt: &&Attempt| now.duration_since(attempt.renewed) >= age;
    let slots = shared.slots.iter().enumerate();
    slots.filter_map(|(index, slot)| Some((index, lock(slot).as_ref().filter(old)?.lease.clone()))).collect()
}

fn note<S: JobSource, H: Send + Sync + 'static>(
    shared: &Shared<S, H>,
    leases: Vec<(usize, LeaseRef)>,
    answers: Vec<Result<Renewed, Reject>>,
    asked: Instant,
    lease: Duration,
) {
    for ((index, renewed), answer) in leases.into_iter().zip(answers) {
        let mut slot = lock(&shared.slots[index]);
        let Some(attempt) = slot.as_mut().filter(|attempt| attempt.lease == renewed) else { continue };
        match answer {
            Ok(Renewed { .. }) => {
                attempt.renewed = asked;
                attempt.lease_end = asked + lease;
            }
            Err(Reject::Cancelled { .. }) => attempt.call_off(Reason::Cancelled, shared.options.grace),
            Err(_) => attempt.call_off(Reason::LeaseLost, shared.options.grace),
        }
    }
}

async fn heed_revocations<S: JobSource, H: Send + Sync + 'static>(shared: &Shared<S, H>) {
    loop {
        match shared.source.next_revoked().await {
            Revoked::Lease(lease, reason) => shared.revoke(lease, reason),
            Revoked::Missed => shared.renew_all.notify_one(),
        }
    }
}

impl<S: JobSource, H> Shared<S, H> {
    /// Calls off an attempt that runs, or sees to it that a job in hand does not start.
    fn revoke(&self, lease: LeaseRef, reason: Reason) {
        // Noted before the look, so that an attempt that begins meanwhile finds the note.
        self.note_early(lease.clone(), reason);
        for slot in &self.slots {
            if let Some(attempt) = lock(slot).as_mut().filter(|attempt| attempt.lease == lease) {
                attempt.call_off(reason, self.options.grace);
                self.take_early(&lease);
            }
        }
        if self.drop_held(&lease) {
            self.take_early(&lease);
        }
    }
}
