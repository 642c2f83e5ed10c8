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

    /// Whether a call with this key would be answered from memory, or refused because of it.
    pub(crate) fn holds(&self, key: &CompactString, now: Timestamp) -> bool {
        self.calls.get(key).is_some_and(|call| call.at + limits::IDEMPOTENCY_MS > now)
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

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn the_same_key_gets_the_first_reply_for_a_day() {
        check(
            "
            0s     push mail id=a key=k          -> a waiting
            1s     cancel a                      -> cancelled
            2s     push mail id=a key=k          -> a waiting
            2s     push mail id=b key=k          -> ! idempotency_conflict
            2s     cancel a key=k                -> ! idempotency_conflict
            3s     push mail key=l               -> #2 waiting
            3s     push mail key=l by=other      -> #2 waiting
            86399s push mail id=b key=k          -> ! idempotency_conflict
            86400s push mail id=b key=k          -> b waiting
            86400s push mail id=b key=k          -> b waiting
            86400s totals mail                   -> pushed 3 started 0 completed 0 failed 0 dead 0
        ",
        );
    }

    #[test]
    fn a_refusal_is_not_remembered() {
        check(
            "
            0s  pause mail key=k                 -> ! unknown_queue
            0s  push mail id=a
            1s  pause mail key=k                 -> ok
            2s  resume mail                      -> ok
            3s  pause mail key=k                 -> ok
            3s  fetch mail                       -> a 1/5 t1
            4s  tick key=                        -> ! invalid idempotency_key
        ",
        );
    }

    #[test]
    fn a_fetch_that_brought_nothing_is_not_remembered() {
        check(
            "
            0s  push mail id=a delay=5s
            1s  fetch mail key=k                 -> none
            5s  fetch mail key=k                 -> a 1/5 t1
            6s  fetch mail key=k                 -> a 1/5 t1
        ",
        );
    }

    #[test]
    fn a_fetch_made_again_hands_out_the_same_leases_with_their_bodies() {
        let mut script = check(
            "
            0s  push mail id=a body=hello group=acme ; mail id=b ; mail id=c
            1s  fetch mail max=2 key=k           -> a 1/5 t1, b 1/5 t2
            2s  fetch mail max=2 key=k           -> a 1/5 t1, b 1/5 t2
            2s  fetch mail key=l                 -> c 1/5 t3
            3s  done b t2                        -> completed
            4s  remove b                         -> ok
            5s  fetch mail max=2 key=k           -> a 1/5 t1
        ",
        );
        script.line("6s push mail id=d body=hello group=acme");
        for key in [Some("k".into()), None] {
            let envelope = model::Envelope {
                actor: model::Actor::new("w1"),
                idempotency_key: key,
                command: model::Command::Fetch {
                    queues: vec![model::QueueName::new("mail").unwrap()],
                    max: 2,
                    lease_ms: 0,
                },
            };
            let reply = script.apply(kit::Timestamp(crate::tests::EPOCH + 6_000), envelope);
            let Ok(model::Reply::Fetched(jobs)) = reply else { panic!() };
            let told = (jobs[0].body.as_deref(), jobs[0].group.as_deref());
            assert_eq!(told, (Some(&b"hello"[..]), Some("acme")));
        }
    }

    #[test]
    fn expired_keys_are_forgotten_a_few_at_a_time() {
        let mut script = check("0s push mail id=a");
        for call in 0..40 {
            script.line(&format!("1s push mail id=a key=k{call}"));
        }
        // The key has expired, though it is not yet its turn to be forgotten.
        assert_eq!(script.line("86401s push mail id=b key=k39"), "b waiting");
        assert_eq!(script.shard.stats().idempotency_keys, 24);
        script.line("3d tick");
        script.line("3d tick");
        assert_eq!(script.shard.stats().idempotency_keys, 0);
    }
}
