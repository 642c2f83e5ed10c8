//! How long a failed attempt waits before the next one.

use crate::{Millis, random::mix};
use alloc::vec::Vec;

/// A rule for the wait after attempt `n` failed. "Chance" comes from a seed, so a replay waits the same time.
///
/// ```
/// use kit::Backoff;
/// let backoff = Backoff::Exponential { base: 1_000, cap: 3_600_000 };
/// assert!(backoff.delay(3, 42) <= 4_000);
/// assert_eq!(backoff.delay(3, 42), backoff.delay(3, 42));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backoff {
    /// A random time in `0..=min(cap, base * 2^(n-1))`: full jitter (Brooker, "Exponential Backoff And Jitter", AWS 2015).
    Exponential {
        /// The widest wait after the first failure, milliseconds.
        base: Millis,
        /// No wait is longer than this, milliseconds.
        cap: Millis,
    },
    /// The same wait every time.
    Fixed {
        /// Milliseconds.
        delay: Millis,
    },
    /// `n^4 + 15 + rand(10) * n` seconds, Sidekiq's published formula.
    Sidekiq,
    /// The wait after each attempt in turn; the last entry repeats.
    List {
        /// Milliseconds; at least one entry, or every wait is 0.
        delays: Vec<Millis>,
    },
}

impl Backoff {
    /// What a job gets that asks for nothing: exponential from 1 s to 1 h.
    pub const DEFAULT: Backoff = Backoff::Exponential { base: 1_000, cap: 3_600_000 };

    /// The wait after attempt `attempt` (1 for the first) failed.
    pub fn delay(&self, attempt: u32, seed: u64) -> Millis {
        let attempt = attempt.max(1);
        match self {
            Backoff::Exponential { base, cap } => {
                let doubled =
                    1u64.checked_shl(attempt - 1).map_or(u64::MAX, |factor| base.saturating_mul(factor));
                let widest = doubled.min(*cap);
                crate::random::Random::new(mix(seed, u64::from(attempt))).below(widest.saturating_add(1))
            }
            Backoff::Fixed { delay } => *delay,
            Backoff::Sidekiq => {
                let n = u64::from(attempt.min(10_000));
                let jitter = mix(seed, n) % 10;
                (n.pow(4) + 15 + jitter * n).saturating_mul(1_000)
            }
            Backoff::List { delays } => {
                let index = (attempt as usize - 1).min(delays.len().saturating_sub(1));
                delays.get(index).copied().unwrap_or(0)
            }
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_jitter_stays_below_the_doubling_cap_and_spreads() {
        let backoff = Backoff::Exponential { base: 1_000, cap: 10_000 };
        for (attempt, widest) in
            [(1, 1_000), (2, 2_000), (4, 8_000), (5, 10_000), (64, 10_000), (200, 10_000)]
        {
            let waits: Vec<_> = (0..500).map(|seed| backoff.delay(attempt, seed)).collect();
            assert!(waits.iter().all(|wait| *wait <= widest), "attempt {attempt}");
            let mean = waits.iter().sum::<u64>() / 500;
            assert!(
                mean > widest * 2 / 5 && mean < widest * 3 / 5,
                "attempt {attempt} mean {mean} of {widest}"
            );
        }
    }

    #[test]
    fn the_other_rules_are_exact() {
        assert_eq!(Backoff::Fixed { delay: 7 }.delay(9, 1), 7);
        assert_eq!(Backoff::List { delays: alloc::vec![1, 5] }.delay(1, 0), 1);
        assert_eq!(Backoff::List { delays: alloc::vec![1, 5] }.delay(9, 0), 5);
        assert_eq!(Backoff::List { delays: Vec::new() }.delay(1, 0), 0);
        let wait = Backoff::Sidekiq.delay(3, 11);
        assert!((96_000..=123_000).contains(&wait), "{wait}");
    }
}
