//! How fast queues move: differences of their totals over the last minute.

use model::{QueueName, QueueView};
use node::Handle;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Queues whose rates are kept; the others have none.
const QUEUES_MAX: usize = 1_000;
const SAMPLES_MAX: usize = 12;
const EVERY: Duration = Duration::from_secs(5);

/// Totals of one queue at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: Instant,
    totals: [u64; 4],
}

fn totals(view: &QueueView) -> [u64; 4] {
    [view.pushed_total, view.started_total, view.completed_total, view.failed_total]
}

/// The names of the rates, in the order of [`Rates::of`].
pub(crate) const NAMES: [&str; 4] = ["pushed_per_s", "started_per_s", "completed_per_s", "failed_per_s"];

/// Samples of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    samples: Mutex<HashMap<QueueName, VecDeque<Sample>>>,
}

impl Rates {
    /// Samples for ever. Reading a thousand totals takes well under a millisecond of the shard's time.
    pub(crate) async fn sample(&self, node: &Handle) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Ok(views) = node.read(|shard| shard.queues(None, QUEUES_MAX)).await {
                self.record(Instant::now(), &views);
            }
        }
    }

    fn record(&self, at: Instant, views: &[QueueView]) {
        let mut samples = self.lock();
        samples.retain(|name, _| views.binary_search_by(|view| view.name.cmp(name)).is_ok());
        for view in views {
            let of_queue = samples.entry(view.name.clone()).or_default();
            if of_queue.len() == SAMPLES_MAX {
                of_queue.pop_front();
            }
            of_queue.push_back(Sample { at, totals: totals(view) });
        }
    }

    /// The window in milliseconds and the rates per second in it; `None` before the first sample.
    pub(crate) fn of(&self, view: &QueueView) -> Option<(u64, [f64; 4])> {
        let first = *self.lock().get(&view.name)?.front()?;
        let window = first.at.elapsed();
        let now = totals(view);
        let seconds = window.as_secs_f64().max(0.001);
        let rates = std::array::from_fn(|at| now[at].saturating_sub(first.totals[at]) as f64 / seconds);
        Some((u64::try_from(window.as_millis()).unwrap_or(u64::MAX), rates))
    }

    /// A panic while sampling leaves samples that are still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<QueueName, VecDeque<Sample>>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
