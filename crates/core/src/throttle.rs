use crate::split::SplitMap;
use compact_str::CompactString;
use kit::Timestamp;
use model::{JobId, State};
use std::collections::BTreeSet;

/// Keys that stay taken for a span, whatever becomes of their jobs.
#[derive(Debug)]
pub(crate) struct Throttles {
    by_key: SplitMap<(u32, CompactString), Throttle>,
    expiry: BTreeSet<(Timestamp, u32, CompactString)>,
    /// Those to write with the next checkpoint. Not part of the state.
    pub(crate) dirty: BTreeSet<(u32, CompactString)>,
}

/// One throttled key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Throttle {
    pub(crate) until: Timestamp,
    /// The first job.
    pub(crate) sequence: u64,
    pub(crate) id: JobId,
    /// The last state of the first job, once it is no longer kept.
    pub(crate) gone: Option<State>,
}

impl Throttles {
    pub(crate) fn new() -> Self {
        Self { by_key: SplitMap::new(), expiry: BTreeSet::new(), dirty: BTreeSet::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// The key's throttle, if its span is not over.
    pub(crate) fn get(&self, queue: u32, key: &CompactString, now: Timestamp) -> Option<&Throttle> {
        if self.len() == 0 {
            return None;
        }
        self.by_key.get(&(queue, key.clone())).filter(|throttle| throttle.until > now)
    }

    /// Whatever the time, for a checkpoint.
    pub(crate) fn stored(&self, key: &(u32, CompactString)) -> Option<&Throttle> {
        self.by_key.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &CompactString, &Throttle)> {
        self.expiry
            .iter()
            .filter_map(|(_, queue, key)| Some((*queue, key, self.by_key.get(&(*queue, key.clone()))?)))
    }

    pub(crate) fn insert(&mut self, queue: u32, key: CompactString, throttle: Throttle) {
        let until = throttle.until;
        if let Some(former) = self.by_key.insert((queue, key.clone()), throttle) {
            self.expiry.remove(&(former.until, queue, key.clone()));
        }
        self.expiry.insert((until, queue, key));
    }

    /// Throttles a key; its first job is this one.
    pub(crate) fn begin(&mut self, queue: u32, key: CompactString, throttle: Throttle, now: Timestamp) {
        // Each that comes lets two go, so that what has expired never piles up.
        self.expire(now, 2);
        self.dirty.insert((queue, key.clone()));
        self.insert(queue, key, throttle);
    }

    /// The first job of a throttled key is no longer kept.
    pub(crate) fn outlive(&mut self, queue: u32, key: &CompactString, sequence: u64, state: State) {
        if self.len() == 0 {
            return;
        }
        let key = (queue, key.clone());
        let Some(throttle) = self.by_key.get(&key).filter(|throttle| throttle.sequence == sequence) else {
            return;
        };
        let gone = Throttle { gone: Some(state), ..throttle.clone() };
        self.by_key.insert(key.clone(), gone);
        self.dirty.insert(key);
    }

    /// Forgets at most `count` whose span is over.
    pub(crate) fn expire(&mut self, now: Timestamp, count: usize) {
        for _ in 0..count {
            match self.expiry.first() {
                Some((until, ..)) if *until <= now => {}
                _ => return,
            }
            if let Some((_, queue, key)) = self.expiry.pop_first() {
                self.by_key.remove(&(queue, key.clone()));
                self.dirty.insert((queue, key));
            }
        }
    }
}
