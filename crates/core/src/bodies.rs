//! Bodies under a byte budget: which are in memory is not state, and no decision of the shard depends on it.

use crate::shard::Shard;
use bytes::Bytes;
use kit::Millis;
use model::{JobId, QueueName, Reply, State};

/// Bodies that one call drops at most.
const EVICT_MAX: usize = 10_000;
/// Bodies of delayed jobs are fetched this long before they are due.
const AHEAD_MS: Millis = 2_000;

/// A body that is not in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cold {
    /// Leads to its key: see [`crate::body_key`].
    pub sequence: u64,
    /// The queue of its job.
    pub queue: QueueName,
    /// The job.
    pub id: JobId,
    /// Its length.
    pub bytes: usize,
    /// Its CRC-32C.
    pub crc: u32,
}

impl Shard {
    /// Drops bodies that a checkpoint holds until at most `budget` bytes stay: the newest first, for they start last.
    /// Returns true if another call could drop more.
    pub fn evict_bodies(&mut self, budget: u64) -> bool {
        for _ in 0..EVICT_MAX {
            if self.dirty.bodies_resident <= budget {
                return false;
            }
            let Some(sequence) = self.dirty.evictable.pop_back() else { return false };
            let Some(slot) = self.slot_of(sequence) else { continue };
            // It was stored, and then replaced: it comes back here once that one is stored, too.
            if self.dirty.is_replaced(sequence) {
                continue;
            }
            let job = &mut self.jobs[slot];
            if !job.stored.body || job.body_len == 0 || job.body.take().is_none() {
                continue;
            }
            self.dirty.bodies_resident -= u64::from(job.body_len);
            if job.state == State::Waiting {
                self.queues[job.queue as usize].cold_waiting += 1;
            }
        }
        true
    }

    /// The jobs with bodies on disk that start soon: at the head of each queue, and delayed ones that are almost due.
    pub fn cold_ahead(&self, limit: usize) -> Vec<u64> {
        let mut cold = Vec::new();
        for queue in self.queues.iter().filter(|queue| queue.cold_waiting > 0 && !queue.paused) {
            let ahead = queue.waiting_lanes().flat_map(|(_, lane)| lane.iter_from(0)).take(limit);
            cold.extend(
                ahead
                    .filter(|(_, slot)| self.jobs[*slot].body.is_none())
                    .map(|(_, slot)| self.jobs[slot].sequence),
            );
            if cold.len() >= limit {
                cold.truncate(limit);
                return cold;
            }
        }
        let until = self.counters.time + AHEAD_MS;
        let due = self.timers.iter().take_while(|(due, _)| *due <= until).take(limit);
        cold.extend(due.filter_map(|(_, sequence)| {
            let job = &self.jobs[self.slot_of(*sequence)?];
            (job.body.is_none() && matches!(job.state, State::Delayed | State::Retrying | State::Suspended))
                .then_some(*sequence)
        }));
        cold.truncate(limit);
        cold
    }

    /// Puts a body back into memory. False if it is not the body of that job; a job that is gone or warm is left alone.
    pub fn warm(&mut self, sequence: u64, body: &Bytes) -> bool {
        let Some(slot) = self.slot_of(sequence) else { return true };
        let job = &mut self.jobs[slot];
        if job.body.is_some() {
            // It may even be a newer one than these bytes were.
            return true;
        }
        if body.len() != job.body_len as usize || crc32c::crc32c(body) != job.body_crc {
            return false;
        }
        job.body = Some(Box::from(&body[..]));
        self.dirty.bodies_resident += u64::from(job.body_len);
        self.dirty.evictable.push_front(sequence);
        if job.state == State::Waiting {
            self.queues[job.queue as usize].cold_waiting -= 1;
        }
        true
    }

    /// Gives the jobs of a remembered fetch their bodies back, and what else stands in the jobs. A job whose lease has ended since then is left out: it may be with
    /// another worker.
    pub(crate) fn refill(&self, mut reply: Reply) -> Reply {
        if let Reply::Fetched(jobs) = &mut reply {
            jobs.retain_mut(|job| {
                let Some(slot) = self.slot_of(job.sequence) else { return false };
                let held = &self.jobs[slot];
                job.body = held.body.as_deref().map(Bytes::copy_from_slice);
                job.children = held.ties().and_then(|ties| self.children(ties.waits_for));
                job.steps = held.step_count();
                job.group = held.group();
                held.state == State::Active && held.token() == job.lease_token
            });
        }
        reply
    }

    /// Whether these bytes are the body that job was pushed with; true for a job that is gone.
    pub fn is_body(&self, sequence: u64, body: &[u8]) -> bool {
        self.slot_of(sequence).is_none_or(|slot| {
            let job = &self.jobs[slot];
            body.len() == job.body_len as usize && crc32c::crc32c(body) == job.body_crc
        })
    }

    /// The jobs whose bodies only the checkpoint has, in no order: for a check of all of it.
    pub fn cold(&self) -> impl Iterator<Item = Cold> {
        let jobs = self.jobs.iter().map(|(_, job)| job);
        jobs.filter(|job| job.body.is_none() && job.body_len > 0).map(|job| Cold {
            sequence: job.sequence,
            queue: self.queues[job.queue as usize].name.clone(),
            id: job.id(self.id),
            bytes: job.body_len as usize,
            crc: job.body_crc,
        })
    }

    /// Bytes of bodies in memory.
    pub fn resident_bytes(&self) -> u64 {
        self.dirty.bodies_resident
    }
}

#[cfg(test)]
mod tests {
    use crate::{Effects, Shard};
    use bytes::Bytes;
    use kit::Timestamp;
    use model::{Actor, Command, Envelope, JobId, JobRef, NewJob, QueueName};

    fn apply(shard: &mut Shard, command: Command) {
        let envelope = Envelope { actor: Actor::new("test"), idempotency_key: None, command };
        let position = shard.position() + 1;
        shard.apply(position, Timestamp(1), &envelope, &mut Effects::default()).unwrap();
    }

    #[test]
    fn a_replaced_body_stays_in_memory_until_the_store_has_it() {
        let mut shard = Shard::new(0);
        let queue = QueueName::new("mail").unwrap();
        let job = JobRef { queue: Some(queue.clone()), id: JobId::Text("a".into()) };
        let new = NewJob { id: Some(job.id.clone()), ..NewJob::new(queue, "old") };
        apply(&mut shard, Command::Push { jobs: vec![new] });
        let first = shard.take_changes();
        shard.changes_stored(first.generation);

        let expected_crc = crc32c::crc32c(b"old");
        apply(&mut shard, Command::PatchBody { job, expected_crc, body: Bytes::from_static(b"newer") });
        let second = shard.take_changes();
        while shard.evict_bodies(0) {}
        assert_eq!(shard.resident_bytes(), 5, "the store has the old one only");
        shard.changes_stored(second.generation);
        while shard.evict_bodies(0) {}
        assert_eq!(shard.resident_bytes(), 0);
    }
}
