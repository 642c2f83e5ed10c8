use crate::answer::{CallError, Scarce};
use kit::Millis;
use std::sync::atomic::{AtomicUsize, Ordering};

/// When a caller that found the inbox full should come back.
const RETRY_MS: Millis = 50;

/// Keeps the inbox bounded: counts what is in it, in calls and in bytes.
pub(crate) struct Gate {
    calls: AtomicUsize,
    bytes: AtomicUsize,
    calls_max: usize,
    bytes_max: usize,
}

impl Gate {
    pub(crate) fn new(calls_max: usize, bytes_max: usize) -> Self {
        Self { calls: AtomicUsize::new(0), bytes: AtomicUsize::new(0), calls_max, bytes_max }
    }

    /// One more call of that many bytes, or a refusal. A single call is let in whatever its size.
    pub(crate) fn enter(&self, bytes: usize) -> Result<(), CallError> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if calls < self.calls_max && (held + bytes <= self.bytes_max || held == 0) {
            return Ok(());
        }
        self.leave(1, bytes);
        Err(CallError::Overloaded { scarce: Scarce::Room, retry_after_ms: RETRY_MS })
    }

    /// The shard's thread took that much out.
    pub(crate) fn leave(&self, calls: usize, bytes: usize) {
        self.calls.fetch_sub(calls, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_lets_in_what_fits_and_one_call_of_any_size() {
        let gate = Gate::new(2, 100);
        assert!(gate.enter(1_000).is_ok());
        assert!(matches!(gate.enter(1), Err(CallError::Overloaded { .. })));
        gate.leave(1, 1_000);
        assert!(gate.enter(60).is_ok());
        assert!(gate.enter(40).is_ok());
        assert!(gate.enter(0).is_err(), "two calls are the limit");
        gate.leave(2, 100);
        assert!(gate.enter(100).is_ok());
    }
}
