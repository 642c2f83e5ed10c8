//! How much a queue may hold, and what a push meets that does not fit.

use crate::{
    commands::push::{Added, Plan},
    queue::Queue,
    shard::Shard,
};
use model::{Command, Envelope, OnFull, QueueName, Reject};

/// What a push would add to a queue where producers wait for room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growth {
    /// Which.
    pub queue: QueueName,
    /// Jobs.
    pub jobs: u64,
    /// Bytes of bodies.
    pub bytes: u64,
}

/// What a queue can still take; `u64::MAX` where nothing limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Jobs.
    pub jobs: u64,
    /// Bytes of bodies.
    pub bytes: u64,
}

impl Shard {
    pub(crate) fn check_capacity(&self, name: &QueueName, added: Added) -> Result<(), Reject> {
        let Some(queue) = self.queue_by_name(name) else { return Ok(()) };
        let capacity = queue.settings.capacity;
        let within = |limit: u64, held: u64, more: i64| {
            limit == 0 || more <= 0 || held.saturating_add_signed(more) <= limit
        };
        // Dropping can only make room by waiting jobs: what runs or is delayed stays.
        let (spare_jobs, spare_bytes) = match capacity.on_full {
            OnFull::Reject | OnFull::Block => (0, 0),
            OnFull::DropOldest => (queue.waiting_count(), queue.waiting_bytes),
        };
        let (jobs, bytes) = (queue.counts.live() - spare_jobs, queue.live_bytes - spare_bytes);
        let (limit, unit) = if !within(capacity.jobs, jobs, added.jobs) {
            (capacity.jobs, "jobs")
        } else if !within(capacity.bytes, bytes, added.bytes) {
            (capacity.bytes, "bytes")
        } else {
            return Ok(());
        };
        // What is larger than the whole queue would wait for ever.
        let waits =
            blocks(queue) && within(capacity.jobs, 0, added.jobs) && within(capacity.bytes, 0, added.bytes);
        Err(Reject::QueueFull { queue: name.clone(), limit, unit, waits })
    }

    /// What a push would add, now, to the queues where producers wait for room. Nothing for a repeated call, for what is answered with
    /// existing jobs or refused for another reason, and for every other command.
    pub fn growth(&self, envelope: &Envelope) -> Vec<Growth> {
        let Command::Push { jobs } = &envelope.command else { return Vec::new() };
        let now = self.time();
        if envelope.idempotency_key.as_ref().is_some_and(|key| self.idempotency.holds(key, now)) {
            return Vec::new();
        }
        let mut plan = Plan::default();
        match self.check_push(jobs, &mut plan, now) {
            Ok(()) | Err(Reject::QueueFull { waits: true, .. }) => {}
            Err(_) => return Vec::new(),
        }
        let size = |added: i64| u64::try_from(added).unwrap_or(0);
        let grown = plan.added.into_iter().filter(|(name, added)| {
            (added.jobs > 0 || added.bytes > 0) && self.queue_by_name(name).is_some_and(blocks)
        });
        grown.map(|(queue, by)| Growth { queue, jobs: size(by.jobs), bytes: size(by.bytes) }).collect()
    }

    /// What a queue can still take before its producers wait. A queue whose producers do not wait has no end: what it refuses, it refuses
    /// at once.
    pub fn room(&self, queue: &QueueName) -> Room {
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::HideRoom) {
            return Room { jobs: 0, bytes: 0 };
        }
        let left = |limit: u64, held: u64| if limit == 0 { u64::MAX } else { limit.saturating_sub(held) };
        match self.queue_by_name(queue).filter(|queue| blocks(queue)) {
            None => Room { jobs: u64::MAX, bytes: u64::MAX },
            Some(queue) => Room {
                jobs: left(queue.settings.capacity.jobs, queue.counts.live()),
                bytes: left(queue.settings.capacity.bytes, queue.live_bytes),
            },
        }
    }

    /// The refusal of a push that may not pass those that wait for room in this queue.
    pub fn taken(&self, queue: &QueueName) -> Reject {
        let capacity = self.queue_by_name(queue).map(|queue| queue.settings.capacity);
        let (limit, unit) = match capacity {
            Some(capacity) if capacity.jobs == 0 => (capacity.bytes, "bytes"),
            capacity => (capacity.map_or(0, |capacity| capacity.jobs), "jobs"),
        };
        Reject::QueueFull { queue: queue.clone(), limit, unit, waits: true }
    }
}

/// Whether producers wait for room.
fn blocks(queue: &Queue) -> bool {
    queue.settings.capacity.on_full == OnFull::Block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Script, check};
    use model::NewJob;

    #[test]
    fn a_queue_whose_producers_wait_refuses_what_does_not_fit_now_and_says_so() {
        check(
            "
            0s configure mail jobs=3 bytes=10 full=block -> configured
            0s push mail id=a bytes=4 ; mail id=b bytes=4 delay=1s -> a waiting, b delayed
            0s push mail bytes=3                    -> ! queue_full waits
            0s push mail bytes=0 ; mail bytes=0     -> ! queue_full waits
            0s push mail id=a                       -> a waiting again
            0s push mail id=c bytes=2               -> c waiting
            0s push mail bytes=0                    -> ! queue_full waits
            0s fetch mail                           -> a 1/5 t1
            0s push mail bytes=0                    -> ! queue_full waits
            0s done a t1                            -> completed
            0s push mail id=d bytes=4               -> d waiting
        ",
        );
    }

    #[test]
    fn what_is_larger_than_the_whole_queue_does_not_wait() {
        check(
            "
            0s configure mail jobs=2 bytes=10 full=block -> configured
            0s push mail x3                         -> ! queue_full
            0s push mail bytes=11                   -> ! queue_full
            0s push mail x2                         -> #1 waiting, #2 waiting
            0s push mail x3                         -> ! queue_full
            0s push mail x2                         -> ! queue_full waits
        ",
        );
    }

    #[test]
    fn the_first_full_queue_of_a_push_to_several_decides() {
        check(
            "
            0s configure mail jobs=1 full=block     -> configured
            0s configure post jobs=1                -> configured
            0s push mail id=a ; post id=b           -> a waiting, b waiting
            0s push mail ; post                     -> ! queue_full waits
            0s fetch mail                           -> a 1/5 t1
            0s done a t1                            -> completed
            0s push mail ; post                     -> ! queue_full
        ",
        );
    }

    fn growth(
        script: &Script,
        count: usize,
        key: Option<&str>,
        change: impl Fn(&mut NewJob),
    ) -> Vec<(u64, u64)> {
        let mut job = NewJob::new(QueueName::new("mail").unwrap(), "four");
        change(&mut job);
        let envelope = Envelope {
            actor: model::Actor::default(),
            idempotency_key: key.map(Into::into),
            command: Command::Push { jobs: vec![job; count] },
        };
        script.shard.growth(&envelope).iter().map(|by| (by.jobs, by.bytes)).collect()
    }

    #[test]
    fn growth_counts_what_is_new_where_producers_wait() {
        let mut script = Script::default();
        let name = QueueName::new("mail").unwrap();
        let none = Room { jobs: u64::MAX, bytes: u64::MAX };
        assert_eq!(growth(&script, 1, None, |_| {}), [], "the queue does not exist");
        script.line("0s configure mail jobs=3");
        assert_eq!((growth(&script, 1, None, |_| {}), script.shard.room(&name)), (vec![], none));
        script.line("0s configure mail jobs=3 bytes=100 full=block");
        script.line("0s push mail id=a bytes=7 key=k");
        assert_eq!(script.shard.room(&name), Room { jobs: 2, bytes: 93 });
        assert_eq!(growth(&script, 2, None, |_| {}), [(2, 8)]);
        assert_eq!(growth(&script, 3, None, |_| {}), [(3, 12)], "it does not fit now");
        assert_eq!(growth(&script, 4, None, |_| {}), [], "it never will");
        assert_eq!(growth(&script, 2, None, |job| job.id = Some(model::JobId::Text("a".into()))), []);
        assert_eq!(growth(&script, 2, None, |job| job.id = Some(model::JobId::Text("b".into()))), [(1, 4)]);
        assert_eq!(growth(&script, 2, Some("k"), |_| {}), [], "the call is remembered");
        assert_eq!(growth(&script, 2, None, |job| job.attempts = Some(0)), [], "it is refused anyway");
    }
}
