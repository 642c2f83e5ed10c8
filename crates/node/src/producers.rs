use crate::{driver::Packed, waiters::Waiter};
use kit::{Durability, Timestamp};
use millpond_core::{Growth, Room};
use model::{Envelope, QueueName, Reject};
use std::collections::{BTreeMap, BTreeSet};

/// A push that waits for room.
#[derive(Debug)]
pub(crate) struct Parked<T> {
    pub(crate) ticket: T,
    /// Without its bytes for the log: they are made again.
    pub(crate) envelope: Envelope,
    pub(crate) level: Durability,
    /// It is refused at this time.
    pub(crate) until: Timestamp,
    /// With this.
    pub(crate) refusal: Reject,
    /// What it would add. It waits in the line of each of these queues.
    growth: Vec<Growth>,
    size: usize,
}

/// Pushes that wait outside the state until their queues have room, first come first served in each queue, and the room that those
/// under way will take.
///
/// A push that is offered to the shard again *claims* its room until its answer is known, so that one free place wakes one producer.
#[derive(Debug)]
pub(crate) struct Producers<T> {
    parked: BTreeMap<u64, Parked<T>>,
    deadlines: BTreeSet<(Timestamp, u64)>,
    /// How many wait for each queue.
    lines: BTreeMap<QueueName, u64>,
    claims: BTreeMap<QueueName, Room>,
    bytes: usize,
}

impl<T> Default for Producers<T> {
    fn default() -> Self {
        Self {
            parked: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            lines: BTreeMap::new(),
            claims: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl<T> Producers<T> {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.parked.len()
    }

    /// Bytes of the commands that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many wait for room in a queue.
    pub(crate) fn in_line(&self, queue: &QueueName) -> u64 {
        self.lines.get(queue).copied().unwrap_or(0)
    }

    /// The one that came first.
    pub(crate) fn first(&self) -> Option<&Parked<T>> {
        self.parked.values().next()
    }

    /// Lets a push wait, in the place that its number gives it.
    pub(crate) fn park(&mut self, waiter: Waiter<T>, growth: Vec<Growth>, refusal: Reject, size: usize) {
        let Waiter { number, ticket, packed: Packed { envelope, .. }, level, until } = waiter;
        for Growth { queue, .. } in &growth {
            *self.lines.entry(queue.clone()).or_default() += 1;
        }
        if until < Timestamp::MAX {
            self.deadlines.insert((until, number));
        }
        self.bytes += size;
        self.parked.insert(number, Parked { ticket, envelope, level, until, refusal, growth, size });
    }

    /// Takes one out of every line.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Parked<T>> {
        let parked = self.parked.remove(&number)?;
        self.deadlines.remove(&(parked.until, number));
        self.bytes -= parked.size;
        for Growth { queue, .. } in &parked.growth {
            if let Some(waiting) = self.lines.get_mut(queue) {
                *waiting -= 1;
                if *waiting == 0 {
                    self.lines.remove(queue);
                }
            }
        }
        Some(parked)
    }

    /// Takes the first that is at the head of all its lines and finds room there, and claims it.
    pub(crate) fn next(
        &mut self,
        room: impl Fn(&QueueName) -> Room,
    ) -> Option<(u64, Parked<T>, Vec<Growth>)> {
        let mut held: BTreeSet<&QueueName> = BTreeSet::new();
        let mut found = None;
        for (number, parked) in &self.parked {
            let fits = |by: &Growth| !held.contains(&by.queue) && self.has(by, room(&by.queue));
            if parked.growth.iter().all(fits) {
                found = Some(*number);
                break;
            }
            held.extend(parked.growth.iter().map(|by| &by.queue));
            // Whoever else waits, waits behind one that does not fit.
            if held.len() == self.lines.len() {
                break;
            }
        }
        let number = found?;
        let parked = self.remove(number)?;
        let growth = parked.growth.clone();
        for Growth { queue, jobs, bytes } in &growth {
            let claim = self.claims.entry(queue.clone()).or_insert(Room { jobs: 0, bytes: 0 });
            claim.jobs = claim.jobs.saturating_add(*jobs);
            claim.bytes = claim.bytes.saturating_add(*bytes);
        }
        Some((number, parked, growth))
    }

    /// Whether a queue has room beside what is claimed.
    fn has(&self, by: &Growth, room: Room) -> bool {
        let claimed = self.claims.get(&by.queue).copied().unwrap_or(Room { jobs: 0, bytes: 0 });
        let fits = |left: u64, claimed: u64, more: u64| more == 0 || left.saturating_sub(claimed) >= more;
        fits(room.jobs, claimed.jobs, by.jobs) && fits(room.bytes, claimed.bytes, by.bytes)
    }

    /// The answer to one that claimed is known.
    pub(crate) fn release(&mut self, claimed: &[Growth]) {
        for Growth { queue, jobs, bytes } in claimed {
            if let Some(claim) = self.claims.get_mut(queue) {
                claim.jobs = claim.jobs.saturating_sub(*jobs);
                claim.bytes = claim.bytes.saturating_sub(*bytes);
                if (claim.jobs, claim.bytes) == (0, 0) {
                    self.claims.remove(queue);
                }
            }
        }
    }

    /// Takes those that repeat a call that was just answered: they need no room.
    pub(crate) fn repeats(&mut self, key: &str) -> Vec<(u64, Parked<T>)> {
        let same = |parked: &Parked<T>| parked.envelope.idempotency_key.as_deref() == Some(key);
        let numbers: Vec<u64> =
            self.parked.iter().filter(|(_, parked)| same(parked)).map(|(number, _)| *number).collect();
        numbers.into_iter().filter_map(|number| Some((number, self.remove(number)?))).collect()
    }

    /// When the next one has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Takes one that has waited long enough.
    pub(crate) fn expired(&mut self, now: Timestamp) -> Option<Parked<T>> {
        let (until, number) = *self.deadlines.first()?;
        if until > now { None } else { self.remove(number) }
    }

    /// Takes any one.
    pub(crate) fn pop(&mut self) -> Option<Parked<T>> {
        let number = *self.parked.keys().next()?;
        self.remove(number)
    }
}
