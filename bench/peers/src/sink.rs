use crate::client::{Worked, now_us, stamp_us};
use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};
use tokio::sync::watch;

/// Where handlers and acknowledgements are counted.
pub(crate) struct Sink {
    jobs: u64,
    stamped: bool,
    /// The first handler.
    begun: OnceLock<Instant>,
    done: AtomicU64,
    late_us: Mutex<Vec<u64>>,
    /// The time at which the last acknowledgement came.
    full: watch::Sender<Option<Instant>>,
}

impl Sink {
    pub(crate) fn new(jobs: usize, stamped: bool) -> Self {
        Self {
            jobs: jobs as u64,
            stamped,
            begun: OnceLock::new(),
            done: AtomicU64::new(0),
            late_us: Mutex::default(),
            full: watch::Sender::new(None),
        }
    }

    /// The handler: what every job runs.
    pub(crate) fn handle(&self, body: &[u8]) {
        self.begun.get_or_init(Instant::now);
        if self.stamped
            && let Some(stamp) = stamp_us(body)
        {
            let late = now_us().saturating_sub(stamp);
            self.late_us.lock().unwrap_or_else(PoisonError::into_inner).push(late);
        }
    }

    /// So many more were acknowledged.
    pub(crate) fn acknowledged(&self, jobs: usize) {
        if jobs > 0 && self.done.fetch_add(jobs as u64, Relaxed) + jobs as u64 >= self.jobs {
            self.full.send_if_modified(|full| full.replace(Instant::now()).is_none());
        }
    }

    pub(crate) fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.borrow().is_some()
    }

    /// Returns when all are acknowledged.
    pub(crate) async fn full(&self) {
        // The sender is `self`: it cannot be gone.
        let _ = self.full.subscribe().wait_for(Option::is_some).await;
    }

    pub(crate) fn worked(&self) -> Worked {
        let end = self.full.borrow().unwrap_or_else(Instant::now);
        let begun = self.begun.get().copied().unwrap_or(end);
        let late_us = std::mem::take(&mut *self.late_us.lock().unwrap_or_else(PoisonError::into_inner));
        Worked { seconds: (end - begun).as_secs_f64(), late_us }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::body;

    #[tokio::test]
    async fn a_sink_is_full_with_the_last_acknowledgement_and_not_before() {
        let sink = Sink::new(3, true);
        sink.handle(body(100, now_us()).as_bytes());
        sink.acknowledged(2);
        assert!(!sink.is_full());
        sink.acknowledged(1);
        sink.full().await;
        assert_eq!((sink.done(), sink.worked().late_us.len()), (3, 1));
    }
}
