use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a runtime did so far, live. Read with [`Counters::totals`].
        #[derive(Debug, Default)]
        pub struct Counters { $(pub(crate) $name: Counter),* }

        /// A reading of [`Counters`]: totals since the start, except `running`.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Totals { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// All numbers now.
            pub fn totals(&self) -> Totals {
                Totals { $($name: self.$name.get()),* }
            }
        }
    };
}

counters! {
    /// Attempts under way now.
    running,
    /// Attempts started.
    started,
    /// Calls begun of a handler that takes several jobs in one.
    calls,
    /// Attempts whose `done` was accepted.
    done,
    /// Attempts whose `retry` was accepted, panics and timeouts included.
    retried,
    /// Attempts whose `fail` was accepted.
    failed,
    /// Attempts whose handler's process died.
    crashed,
    /// Attempts put off or handed back.
    snoozed,
    /// Attempts called off by their own handler.
    cancelled,
    /// Attempts that gave their job back until something comes.
    suspended,
    /// Handlers that panicked.
    panics,
    /// Attempts that ran into their timeout here.
    timeouts,
    /// Attempts called off from outside, results refused or come too late: nothing of them was kept.
    dropped,
    /// Jobs fetched.
    fetched,
    /// Calls to the source that failed and were repeated.
    source_errors,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`; returns the value before.
    pub(crate) fn add(&self, count: u64) -> u64 {
        self.0.fetch_add(count, Ordering::Relaxed)
    }

    pub(crate) fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
