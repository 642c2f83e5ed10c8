//! While an endpoint cannot be reached, one job at a time tries, and the others wait: they would only use it up.

use kit::Backoff;
use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// How long nobody tries after the n-th failure in a row.
const AGAIN: Backoff = Backoff::Exponential { base: 200, cap: 30_000 };
/// A job that could not be delivered is put off for at least so long.
const LEAST: Duration = Duration::from_secs(1);

/// That a job may try, and how many had failed before it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass(u32);

pub(super) struct Gate {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    /// Attempts to connect that failed in a row.
    failures: u32,
    /// Not before then tries the next one.
    next: Instant,
    seed: u64,
}

impl Default for Gate {
    fn default() -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self { state: Mutex::new(State { failures: 0, next: Instant::now(), seed }), changed: Notify::new() }
    }
}

impl Gate {
    /// Returns when a job may try.
    pub(super) async fn enter(&self) -> Pass {
        loop {
            let changed = self.changed.notified();
            let next = {
                let mut state = self.state();
                if state.failures == 0 {
                    return Pass(0);
                }
                let now = Instant::now();
                if now >= state.next {
                    // Whoever comes behind waits at least for what becomes of this one, or for as long again.
                    state.next = now + state.wait();
                    return Pass(state.failures);
                }
                state.next
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = changed => {}
            }
        }
    }

    /// It answered: everybody may.
    pub(super) fn worked(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            state.failures = 0;
            self.changed.notify_waiters();
        }
    }

    /// There was no connection; how long the job is put off.
    pub(super) fn failed(&self, pass: Pass) -> Duration {
        let mut state = self.state();
        // Jobs that tried at the same time found out the same thing.
        if state.failures == pass.0 {
            state.failures = state.failures.saturating_add(1);
            state.next = Instant::now() + state.wait();
        }
        state.wait().max(LEAST)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&self) -> Duration {
        Duration::from_millis(AGAIN.delay(self.failures, self.seed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    };
    use tokio::task::JoinSet;

    #[tokio::test(start_paused = true)]
    async fn while_nothing_gets_through_one_at_a_time_tries_and_then_all_go() {
        let gate = Arc::new(Gate::default());
        // The first find it open, and fail together: that counts once.
        let passes = [gate.enter().await, gate.enter().await, gate.enter().await];
        for pass in passes {
            gate.failed(pass);
        }
        assert_eq!(gate.state().failures, 1);
        let tries = Arc::new(AtomicU32::new(0));
        let mut jobs = JoinSet::new();
        for _ in 0..50 {
            let (gate, tries) = (gate.clone(), tries.clone());
            jobs.spawn(async move {
                let pass = gate.enter().await;
                // Ten times there is nobody; then it answers.
                if tries.fetch_add(1, SeqCst) < 10 {
                    gate.failed(pass)
                } else {
                    gate.worked();
                    Duration::ZERO
                }
            });
        }
        let began = Instant::now();
        let waits = jobs.join_all().await;
        assert_eq!(waits.iter().filter(|wait| **wait >= LEAST).count(), 10);
        assert!(
            began.elapsed() > Duration::from_secs(2),
            "each try waited for the one before: {:?}",
            began.elapsed()
        );
    }
}
