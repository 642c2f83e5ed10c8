//! What the threads are at, and since when, as others see it: the health of the loop itself, not of a socket in front of it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// Set when a thread begins something, cleared when it has it behind it.
pub(crate) struct Pulse {
    origin: Instant,
    turn: AtomicU64,
    write: AtomicU64,
}

/// For how long the threads of a node have been at what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// The turn of the loop that applies commands; `None` while it has nothing to do.
    pub turn: Option<Duration>,
    /// The write or flush of the log; `None` while there is none.
    pub write: Option<Duration>,
}

impl Health {
    /// From here on the loop does not turn any more, and the process is of no use.
    pub const TURN_MAX: Duration = Duration::from_secs(10);
    /// From here on callers should not wait for this disk.
    pub const WRITE_MAX: Duration = Duration::from_secs(5);

    /// Why the process should be ended and started again, in words. A slow disk is no reason: the next process would meet it as well.
    pub fn stuck(&self) -> Option<String> {
        let turn = self.turn.filter(|turn| *turn >= Self::TURN_MAX && self.write.is_none())?;
        Some(format!("the loop that applies commands has been at one step for {} s", turn.as_secs()))
    }

    /// Why callers should go elsewhere for now, in words.
    pub fn slow(&self) -> Option<String> {
        let write = self.write.filter(|write| *write >= Self::WRITE_MAX)?;
        Some(format!("the disk has been at one write for {} s", write.as_secs()))
    }
}

impl Pulse {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), turn: AtomicU64::new(0), write: AtomicU64::new(0) }
    }

    /// A turn of the loop begins.
    pub(crate) fn turn(&self) {
        self.turn.store(self.now(), Relaxed);
    }

    /// The loop waits.
    pub(crate) fn rest(&self) {
        self.turn.store(0, Relaxed);
    }

    /// While the log is written.
    pub(crate) fn writing<T>(&self, write: impl FnOnce() -> T) -> T {
        self.write.store(self.now(), Relaxed);
        let written = write();
        self.write.store(0, Relaxed);
        written
    }

    pub(crate) fn health(&self) -> Health {
        let now = self.now();
        let since = |began: &AtomicU64| match began.load(Relaxed) {
            0 => None,
            began => Some(Duration::from_micros(now.saturating_sub(began))),
        };
        Health { turn: since(&self.turn), write: since(&self.write) }
    }

    /// Microseconds, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_hangs_is_stuck_and_one_that_waits_for_the_disk_is_slow() {
        let seconds = |turn: Option<u64>, write: Option<u64>| Health {
            turn: turn.map(Duration::from_secs),
            write: write.map(Duration::from_secs),
        };
        for (health, stuck, slow) in [
            (seconds(None, None), false, false),
            (seconds(Some(9), None), false, false),
            (seconds(Some(10), None), true, false),
            (seconds(Some(60), Some(60)), false, true),
            (seconds(None, Some(4)), false, false),
            (seconds(None, Some(5)), false, true),
        ] {
            assert_eq!((health.stuck().is_some(), health.slow().is_some()), (stuck, slow), "{health:?}");
        }
    }
}
