//! Tells workers which of their attempts were called off: a ring of the newest revocations, read by log position.
//!
//! A reader keeps its own place, so that reading takes nothing away from others, an answer that was lost on the way is asked for
//! again, and a reader that is slow or dead costs nothing. Who is further behind than the ring reaches is told to look at all of
//! its leases instead.

use model::{Actor, Effect, LeaseRef, Revocation};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Revocations that are remembered, of all workers together.
pub(crate) const REVOCATIONS_MAX: usize = 4_096;

/// What a worker lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The leases that were taken away, oldest first.
    pub leases: Vec<(LeaseRef, Revocation)>,
    /// Ask from here the next time.
    pub position: u64,
    /// There may be others that are no longer remembered: look at every lease, by renewing it.
    pub missed: bool,
}

/// The newest revocations of a node.
pub(crate) struct Revocations(Mutex<State>);

struct State {
    ring: VecDeque<Entry>,
    /// Everything behind this position is in the ring.
    since: u64,
    /// Everything up to this position has been told.
    upto: u64,
    waiting: HashMap<Actor, Arc<Notify>>,
}

struct Entry {
    position: u64,
    worker: Actor,
    lease: LeaseRef,
    why: Revocation,
}

impl Revocations {
    /// Knows nothing of what happened up to `position`.
    pub(crate) fn new(position: u64) -> Self {
        let (ring, waiting) = (VecDeque::new(), HashMap::new());
        Self(Mutex::new(State { ring, since: position, upto: position, waiting }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the revocations among `effects` and wakes whom they concern.
    pub(crate) fn publish(&self, effects: &[Effect]) {
        let mut state = None;
        for effect in effects {
            let Effect::Revoked { worker, queue, id, lease_token, why, position } = effect else { continue };
            let state = state.get_or_insert_with(|| self.state());
            if state.ring.len() >= REVOCATIONS_MAX
                && let Some(oldest) = state.ring.pop_front()
            {
                state.since = oldest.position;
            }
            let job = model::JobRef { queue: Some(queue.clone()), id: id.clone() };
            let lease = LeaseRef { job, token: *lease_token };
            state.upto = *position;
            state.ring.push_back(Entry { position: *position, worker: worker.clone(), lease, why: *why });
            if let Some(waiting) = state.waiting.get(worker) {
                waiting.notify_waiters();
            }
        }
    }

    /// The position behind which the next revocation will be.
    pub(crate) fn position(&self) -> u64 {
        self.state().upto
    }

    /// What `worker` lost behind the position `after`; waits up to `wait` for the first.
    pub(crate) async fn next(&self, worker: &Actor, after: u64, wait: Duration) -> Revoked {
        let place = Place::take(self, worker);
        let found = async {
            loop {
                // Registered before the look, so that what comes between look and wait is not missed.
                let changed = place.changed.notified();
                let revoked = self.state().look(worker, after);
                if revoked.missed || !revoked.leases.is_empty() {
                    return revoked;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(wait, found).await {
            Ok(revoked) => revoked,
            Err(_) => self.state().look(worker, after),
        }
    }
}

impl State {
    fn look(&self, worker: &Actor, after: u64) -> Revoked {
        // A place ahead of ours is of another life of this directory.
        let missed = after < self.since || after > self.upto;
        let newer = self.ring.iter().rev().take_while(|entry| missed || entry.position > after);
        let mut leases: Vec<_> = newer
            .filter(|entry| entry.worker == *worker)
            .map(|entry| (entry.lease.clone(), entry.why))
            .collect();
        leases.reverse();
        Revoked { leases, position: self.upto, missed }
    }
}

/// A worker that waits; its name is forgotten when nobody waits under it any more.
struct Place<'a> {
    home: &'a Revocations,
    worker: &'a Actor,
    changed: Arc<Notify>,
}

impl<'a> Place<'a> {
    fn take(home: &'a Revocations, worker: &'a Actor) -> Self {
        let changed = home.state().waiting.entry(worker.clone()).or_default().clone();
        Self { home, worker, changed }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.home.state();
        // The table's clone and this one.
        if Arc::strong_count(&self.changed) <= 2 {
            state.waiting.remove(self.worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{JobId, JobRef, QueueName};

    fn lost(worker: &str, token: u64) -> Effect {
        Effect::Revoked {
            worker: Actor::new(worker),
            queue: QueueName::new("mail").unwrap(),
            id: JobId::parse("a").unwrap(),
            lease_token: token,
            why: Revocation::Cancelled,
            position: 10 + token,
        }
    }

    fn tokens(revoked: &Revoked) -> Vec<u64> {
        revoked.leases.iter().map(|(lease, _)| lease.token).collect()
    }

    #[tokio::test]
    async fn a_worker_hears_of_its_own_leases_and_of_each_again_until_it_moves_on() {
        let home = Revocations::new(10);
        home.publish(&[lost("a", 1), lost("b", 2), lost("a", 3)]);
        let worker = Actor::new("a");
        for _ in 0..2 {
            let revoked = home.next(&worker, 10, Duration::ZERO).await;
            assert_eq!((tokens(&revoked), revoked.position, revoked.missed), (vec![1, 3], 13, false));
        }
        let revoked = home.next(&worker, 11, Duration::ZERO).await;
        assert_eq!(tokens(&revoked), [3]);
        let revoked = home.next(&worker, 13, Duration::ZERO).await;
        assert_eq!((tokens(&revoked), revoked.missed), (vec![], false));
        let first = &home.next(&worker, 11, Duration::ZERO).await.leases[0].0;
        let job = JobRef { queue: Some(QueueName::new("mail").unwrap()), id: JobId::parse("a").unwrap() };
        assert_eq!(*first, LeaseRef { job, token: 3 });
    }

    #[tokio::test]
    async fn who_is_too_far_behind_or_of_another_life_is_told_to_look_at_every_lease() {
        let home = Revocations::new(10);
        let worker = Actor::new("a");
        assert!(home.next(&worker, 9, Duration::MAX).await.missed, "from before this start");
        assert!(home.next(&worker, 11, Duration::MAX).await.missed, "from the future");
        let many: Vec<_> = (1..=REVOCATIONS_MAX as u64 + 2).map(|token| lost("b", token)).collect();
        home.publish(&many);
        assert_eq!(home.state().ring.len(), REVOCATIONS_MAX);
        assert!(home.next(&worker, 11, Duration::MAX).await.missed);
        assert!(!home.next(&worker, 12, Duration::ZERO).await.missed);
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_first_revocation_and_leaves_nothing_behind() {
        let home = Arc::new(Revocations::new(0));
        let (other, worker) = (home.clone(), Actor::new("a"));
        let waiting = tokio::spawn(async move { other.next(&Actor::new("a"), 0, Duration::MAX).await });
        while home.state().waiting.is_empty() {
            tokio::task::yield_now().await;
        }
        home.publish(&[lost("b", 1), lost("a", 2)]);
        assert_eq!(tokens(&waiting.await.unwrap()), [2]);
        assert!(home.state().waiting.is_empty());
        drop(home.next(&worker, 12, Duration::MAX));
        assert!(home.state().waiting.is_empty());
    }
}
