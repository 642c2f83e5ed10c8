use crate::shard::Shard;
use model::{QueueName, QueuePatch, Reject, Reply, State, limits};

impl Shard {
    /// Changes settings of a queue, made if new. Jobs keep what they were pushed with.
    pub(crate) fn configure(&mut self, name: &QueueName, patch: &QueuePatch) -> Result<Reply, Reject> {
        check_patch(patch)?;
        if !self.queue_index.contains_key(name) && self.queues.len() >= limits::QUEUES_MAX {
            return Err(Reject::TooMany { what: "queues", limit: limits::QUEUES_MAX as u64 });
        }
        let index = self.ensure_queue(name);
        let queue = &mut self.queues[index as usize];
        let QueuePatch {
            attempts,
            max_crashes,
            timeout_ms,
            lease_ms,
            backoff,
            capacity,
            keep_completed,
            keep_dead,
        } = patch;
        let settings = &mut queue.settings;
        set(&mut settings.attempts, attempts);
        set(&mut settings.max_crashes, max_crashes);
        set(&mut settings.timeout_ms, timeout_ms);
        set(&mut settings.lease_ms, lease_ms);
        set(&mut settings.backoff, backoff);
        set(&mut settings.capacity, capacity);
        set(&mut settings.keep_completed, keep_completed);
        set(&mut settings.keep_dead, keep_dead);
        let settings = settings.clone();
        for state in State::ALL.into_iter().filter(|state| state.is_final()) {
            self.schedule_retention(index, state);
        }
        self.touch_queue(index);
        Ok(Reply::Configured(settings))
    }
}

fn set<T: Clone>(setting: &mut T, value: &Option<T>) {
    if let Some(value) = value {
        *setting = value.clone();
    }
}

fn check_patch(patch: &QueuePatch) -> Result<(), Reject> {
    let invalid = |field, reason: &str| Err(Reject::Invalid { field, reason: reason.into() });
    let spans = limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX;
    let counts = 1..=limits::ATTEMPTS_MAX;
    if patch.attempts.is_some_and(|value| !counts.contains(&value)) {
        return invalid("attempts", "is 1 to 10000");
    }
    if patch.max_crashes.is_some_and(|value| !counts.contains(&value)) {
        return invalid("max_crashes", "is 1 to 10000");
    }
    if patch.timeout_ms.is_some_and(|value| !spans.contains(&value)) {
        return invalid("timeout_ms", "is 100 ms to 24 h");
    }
    if patch.lease_ms.is_some_and(|value| !spans.contains(&value)) {
        return invalid("lease_ms", "is 100 ms to 24 h");
    }
    patch.backoff.as_ref().map_or(Ok(()), super::push::check_backoff)
}
