use hashbrown::{HashMap, HashTable};
use std::hash::{BuildHasher, Hash};

/// Growing one table of ten million entries would stop the shard for a third of a second; growing one of 256 stops it for a millisecond.
const PARTS: usize = 256;

/// A hash map in 256 parts, each of which grows by itself. It is never iterated: hash order must not reach the state.
#[derive(Debug)]
pub(crate) struct SplitMap<K, V> {
    hasher: foldhash::fast::FixedState,
    parts: Vec<HashMap<K, V, foldhash::fast::FixedState>>,
    len: usize,
}

impl<K: Hash + Eq, V> SplitMap<K, V> {
    pub(crate) fn new() -> Self {
        let hasher = foldhash::fast::FixedState::with_seed(0x706f_6e64);
        let parts = (0..PARTS).map(|_| HashMap::with_hasher(hasher.clone())).collect();
        Self { hasher, parts, len: 0 }
    }

    fn part(&self, key: &K) -> usize {
        (self.hasher.hash_one(key) >> 32) as usize % PARTS
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.parts[self.part(key)].get(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let part = self.part(&key);
        let old = self.parts[part].insert(key, value);
        self.len += usize::from(old.is_none());
        old
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let part = self.part(key);
        let old = self.parts[part].remove(key);
        self.len -= usize::from(old.is_some());
        old
    }
}

/// Finds a job's slot by its sequence number in four bytes an entry: the number itself stands in the slot.
#[derive(Debug)]
pub(crate) struct SequenceIndex {
    parts: Vec<HashTable<u32>>,
}

fn hash_of(sequence: u64) -> u64 {
    kit::random::mix(sequence, 0)
}

impl SequenceIndex {
    pub(crate) fn new() -> Self {
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect() }
    }

    pub(crate) fn find(&self, sequence: u64, sequence_of: impl Fn(u32) -> u64) -> Option<u32> {
        let part = &self.parts[sequence as usize % PARTS];
        part.find(hash_of(sequence), |slot| sequence_of(*slot) == sequence).copied()
    }

    pub(crate) fn insert(&mut self, sequence: u64, slot: u32, sequence_of: impl Fn(u32) -> u64) {
        let part = &mut self.parts[sequence as usize % PARTS];
        part.insert_unique(hash_of(sequence), slot, |other| hash_of(sequence_of(*other)));
    }

    pub(crate) fn remove(&mut self, sequence: u64, slot: u32) {
        let part = &mut self.parts[sequence as usize % PARTS];
        if let Ok(found) = part.find_entry(hash_of(sequence), |other| *other == slot) {
            found.remove();
        }
    }
}
