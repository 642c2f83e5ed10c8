//! Runs handlers that take several jobs in one call.
//!
//! A job has its slot from when it begins to gather, so that the keeper renews its lease and hears of its end as if it ran.

use super::{
    shared::{Held, Shared, lock},
    slot::{Ended, Placed},
};
use crate::{BatchHandler, Context, Gather, JobSource, handler::one_each};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// A job that gathers, or is in a call.
pub(super) struct Gathered {
    held: Held,
    placed: Placed,
}

pub(super) async fn run<S: JobSource, H: BatchHandler>(shared: Arc<Shared<S, H>>, gather: Gather<Gathered>) {
    Batcher {
        free: (0..gather.capacity()).rev().collect(),
        patience: shared.source.lease() / 3,
        start: Instant::now(),
        calls: JoinSet::new(),
        gather,
        shared,
    }
    .run()
    .await;
}

struct Batcher<S, H> {
    shared: Arc<Shared<S, H>>,
    gather: Gather<Gathered>,
    /// Each ends with the slots that are free again.
    calls: JoinSet<Vec<usize>>,
    free: Vec<usize>,
    /// How long jobs wait for a call beyond their time.
    patience: Duration,
    start: Instant,
}

impl<S: JobSource, H: BatchHandler> Batcher<S, H> {
    async fn run(mut self) {
        loop {
            // All that has come joins before a call is made.
            while self.places() > 0
                && let Some(held) = self.shared.try_take()
            {
                self.add(held);
            }
            self.make_calls();
            let due = self.due();
            tokio::select! {
                biased;
                () = self.shared.closed.raised() => break,
                Some(ended) = self.calls.join_next() => self.free.extend(ended.unwrap_or_default()),
                held = self.shared.take(), if self.places() > 0 => match held {
                    Some(held) => self.add(held),
                    None => break,
                },
                () = sleep_until(due.unwrap_or(self.start)), if due.is_some() => {}
            }
        }
        for gathered in self.gather.clear() {
            self.hand_back(gathered);
        }
        while self.calls.join_next().await.is_some() {}
    }

    fn places(&self) -> usize {
        self.gather.places(self.calls.len())
    }

    fn add(&mut self, held: Held) {
        // There are as many slots as places.
        let Some(index) = self.free.pop() else { return };
        match self.shared.place(index, &held, held.deadline) {
            None => self.free.push(index),
            Some(placed) => {
                let (queue, group) = (held.job.queue.clone(), held.job.group.clone());
                let now = self.start.elapsed();
                self.gather.add(Gathered { held, placed }, &queue, group.as_ref(), now);
            }
        }
    }

    /// Makes the calls for which it is time, and parts with the jobs that need or get none.
    fn make_calls(&mut self) {
        let now = self.start.elapsed();
        for gathered in self.gather.remove(|one| one.placed.cancelled.reason().is_some()) {
            self.free.push(gathered.placed.index);
            self.shared.finish(gathered.placed, None, Ended::Abandoned);
        }
        while let Some(jobs) = self.gather.next_call(self.calls.len(), now) {
            let shared = self.shared.clone();
            self.calls.spawn(async move { shared.call(jobs).await });
        }
        if let Some(then) = now.checked_sub(self.patience) {
            for gathered in self.gather.remove_due(then) {
                self.hand_back(gathered);
            }
        }
        let gathering = self.gather.len();
        if self.shared.gathering.swap(gathering, Ordering::Relaxed) == 0 && gathering > 0 {
            self.shared.busy.notify_one();
        }
        if self.shared.places.swap(self.places(), Ordering::Relaxed) < self.places() {
            self.shared.room.notify_one();
        }
    }

    fn hand_back(&mut self, gathered: Gathered) {
        let Placed { index, lease, lease_end, .. } = gathered.placed;
        let lease_end = lock(&self.shared.slots[index]).take().map_or(lease_end, |slot| slot.lease_end);
        self.free.push(index);
        self.shared.hand_back(lease, lease_end);
    }

    /// When to look again although nothing happened: it is time for a call, or, if none is free, for giving up.
    fn due(&self) -> Option<Instant> {
        let late = if self.calls.len() < self.gather.calls() { Duration::ZERO } else { self.patience };
        self.gather.due().map(|due| self.start + due + late)
    }
}

impl<S: JobSource, H: BatchHandler> Shared<S, H> {
    /// Runs one call to its end. The slots are free again.
    async fn call(&self, jobs: Vec<Gathered>) -> Vec<usize> {
        let (mut all_placed, mut contexts) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        self.counters.calls.add(1);
        self.started(jobs.len() as u64);
        for Gathered { held, placed } in jobs {
            let deadline = self.deadline(&held);
            if let Some(attempt) = lock(&self.slots[placed.index]).as_mut() {
                attempt.deadline = deadline;
            }
            contexts.push(Context::new(held.job, deadline, placed.cancelled.clone(), self.reporter.clone()));
            all_placed.push(placed);
        }
        let taken: Vec<_> = contexts.iter().map(|context| context.taken().clone()).collect();
        let all_abandoned = async {
            for placed in &all_placed {
                placed.cancelled.abandoned().await;
            }
        };
        let run = async move { self.handler.run(contexts).await };
        let mut ended = match self.run_to_end(run, all_abandoned).await {
            Ended::Returned(verdicts) => Ended::Returned(one_each(verdicts, taken.len()).into_iter()),
            Ended::Panicked(text) => Ended::Panicked(text),
            Ended::Abandoned => Ended::Abandoned,
        };
        self.counters.running.subtract(taken.len() as u64);
        let slots = all_placed.iter().map(|placed| placed.index).collect();
        for (placed, taken) in all_placed.into_iter().zip(taken) {
            let own = match &mut ended {
                Ended::Returned(verdicts) => verdicts.next().map_or(Ended::Abandoned, Ended::Returned),
                Ended::Panicked(text) => Ended::Panicked(text.clone()),
                Ended::Abandoned => Ended::Abandoned,
            };
            self.finish(placed, Some(&taken), own);
        }
        self.outbox_has_room().await;
        slots
    }
}
