use compact_str::CompactString;
use kit::Timestamp;
use model::{Reject, Reply, limits};
use std::collections::BTreeSet;

use crate::split::SplitMap;

/// Which calls were made within 24 hours, and what they were answered.
#[derive(Debug)]
pub(crate) struct Idempotency {
    calls: SplitMap<CompactString, Call>,
    /// By end, then by key: the order in which they go must not depend on how the shard came to be.
    expiry: BTreeSet<(Timestamp, CompactString)>,
    /// Keys that expired since the last checkpoint.
    pub(crate) expired: Vec<CompactString>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) content: u128,
    pub(crate) at: Timestamp,
    /// Encoded.
    pub(crate) reply: Vec<u8>,
}

impl Default for Idempotency {
    fn default() -> Self {
        Self { calls: SplitMap::new(), expiry: BTreeSet::new(), expired: Vec::new() }
    }
}

impl Idempotency {
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(crate) fn get(&self, key: &CompactString) -> Option<&Call> {
        self.calls.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&CompactString, &Call)> {
        self.expiry.iter().filter_map(|(_, key)| Some((key, self.calls.get(key)?)))
    }

    pub(crate) fn insert(&mut self, key: CompactString, call: Call) {
        if let Some(former) = self.calls.get(&key) {
            self.expiry.remove(&(former.at + limits::IDEMPOTENCY_MS, key.clone()));
        }
        self.expiry.insert((call.at + limits::IDEMPOTENCY_MS, key.clone()));
        self.calls.insert(key, call);
    }

    /// Forgets at most `count` expired calls.
    pub(crate) fn expire(&mut self, now: Timestamp, count: usize) {
        for _ in 0..count {
            match self.expiry.first() {
                Some((until, _)) if *until <= now => {}
                _ => return,
            }
            if let Some((_, key)) = self.expiry.pop_first() {
                self.calls.remove(&key);
                self.expired.push(key);
            }
        }
    }

    pub(crate) fn recall(
        &self,
        key: &CompactString,
        content: u128,
        now: Timestamp,
    ) -> Result<Option<Reply>, Reject> {
        match self.calls.get(key) {
            Some(call) if call.at + limits::IDEMPOTENCY_MS > now => {
                if call.content != content {
                    return Err(Reject::IdempotencyConflict { key: key.clone() });
                }
                let reply = model::codec::decode_reply(&mut kit::codec::Reader::new(&call.reply));
                Ok(Some(reply.expect("a stored reply was encoded by this codec")))
            }
            _ => Ok(None),
        }
    }

    /// Bodies are left out: they stand in the jobs, and which of them are in memory must not reach the state.
    pub(crate) fn remember(&mut self, key: CompactString, content: u128, now: Timestamp, reply: &Reply) {
        let mut reply = reply.clone();
        if let Reply::Fetched(jobs) = &mut reply {
            jobs.iter_mut().for_each(|job| job.body = None);
        }
        let mut bytes = Vec::new();
        model::codec::encode_reply(&reply, &mut bytes);
        self.insert(key, Call { content, at: now, reply: bytes });
    }
}
