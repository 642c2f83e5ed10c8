use crate::driver::Packed;
use kit::{Durability, Timestamp};
use model::{Command, QueueName};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A call that waits, or would wait: a fetch for jobs, a push for room.
#[derive(Debug)]
pub struct Waiter<T> {
    /// Its place in the line: lower numbers are served first. Unique.
    pub number: u64,
    /// Who hears the answer.
    pub ticket: T,
    /// The command, ready for the log.
    pub packed: Packed,
    /// The durability it wants.
    pub level: Durability,
    /// Then a fetch is answered with nothing, a push with its refusal.
    pub until: Timestamp,
}

impl<T> Waiter<T> {
    /// The queues it would take from.
    pub fn queues(&self) -> &[QueueName] {
        fetch_of(&self.packed).0
    }

    /// How many jobs it would take.
    pub fn max(&self) -> u64 {
        u64::from(fetch_of(&self.packed).1)
    }
}

/// Queues and maximum of a fetch; nothing for other commands.
pub(crate) fn fetch_of(packed: &Packed) -> (&[QueueName], u32) {
    match &packed.envelope.command {
        Command::Fetch { queues, max, .. } => (queues, *max),
        _ => (&[], 0),
    }
}

/// Fetches that wait outside the state, first come first served in each queue, and what those under way may take.
///
/// A fetch that became a command *claims* up to its maximum from each queue it names until its answer is known, so that one job
/// wakes one waiter and not all of them.
#[derive(Debug)]
pub(crate) struct Waiters<T> {
    parked: BTreeMap<u64, Waiter<T>>,
    lines: HashMap<QueueName, BTreeSet<u64>>,
    deadlines: BTreeSet<(Timestamp, u64)>,
    claims: HashMap<QueueName, u64>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self {
            parked: BTreeMap::new(),
            lines: HashMap::new(),
            deadlines: BTreeSet::new(),
            claims: HashMap::new(),
        }
    }
}

impl<T> Waiters<T> {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.parked.len()
    }

    /// Lets a fetch wait, in the place that its number gives it.
    pub(crate) fn park(&mut self, waiter: Waiter<T>) {
        for queue in waiter.queues() {
            // Looked up first, because the name is cloned only for a new line.
            if let Some(line) = self.lines.get_mut(queue) {
                line.insert(waiter.number);
            } else {
                self.lines.insert(queue.clone(), BTreeSet::from([waiter.number]));
            }
        }
        self.deadlines.insert((waiter.until, waiter.number));
        self.parked.insert(waiter.number, waiter);
    }

    /// Takes one out of every line.
    pub(crate) fn remove(&mut self, number: u64) -> Option<Waiter<T>> {
        let waiter = self.parked.remove(&number)?;
        self.deadlines.remove(&(waiter.until, number));
        for queue in waiter.queues() {
            if let Some(line) = self.lines.get_mut(queue) {
                line.remove(&number);
                if line.is_empty() {
                    self.lines.remove(queue);
                }
            }
        }
        Some(waiter)
    }

    /// The first in line for a queue.
    pub(crate) fn first(&self, queue: &QueueName) -> Option<u64> {
        self.lines.get(queue)?.first().copied()
    }

    /// When the next one has waited long enough.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(until, _)| *until)
    }

    /// Takes one that has waited long enough.
    pub(crate) fn expired(&mut self, now: Timestamp) -> Option<Waiter<T>> {
        let (until, number) = *self.deadlines.first()?;
        if until > now { None } else { self.remove(number) }
    }

    /// Takes any one.
    pub(crate) fn pop(&mut self) -> Option<Waiter<T>> {
        let number = *self.parked.keys().next()?;
        self.remove(number)
    }

    /// What fetches under way may take from a queue.
    pub(crate) fn claimed(&self, queue: &QueueName) -> u64 {
        self.claims.get(queue).copied().unwrap_or(0)
    }

    /// A fetch is on its way.
    pub(crate) fn claim(&mut self, queues: &[QueueName], max: u64) {
        for queue in queues {
            if let Some(claimed) = self.claims.get_mut(queue) {
                *claimed += max;
            } else {
                self.claims.insert(queue.clone(), max);
            }
        }
    }

    /// It has its answer.
    pub(crate) fn release(&mut self, queues: &[QueueName], max: u64) {
        for queue in queues {
            if let Some(claimed) = self.claims.get_mut(queue) {
                *claimed = claimed.saturating_sub(max);
                if *claimed == 0 {
                    self.claims.remove(queue);
                }
            }
        }
    }
}
