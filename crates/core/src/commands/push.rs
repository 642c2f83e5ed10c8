use crate::{
    job::{Asked, Job, Stored},
    shard::{Context, Shard},
    transition::Change,
};
use compact_str::{CompactString, ToCompactString, format_compact};
use kit::Timestamp;
use model::{
    Cause, ErrorInfo, JobId, JobRef, NewJob, OnConflict, OnFull, Pushed, QueueName, Reject, State, Unique,
    limits,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the first pass over a batch found out, so that the second can change things without a refusal.
#[derive(Default)]
struct Plan {
    /// (jobs, bytes) that the batch adds, by queue.
    added: BTreeMap<QueueName, (u64, u64)>,
    ids: BTreeSet<(QueueName, JobId)>,
    unique: BTreeSet<(QueueName, CompactString)>,
    /// A job that is final before the batch is added: its unique key is free by then.
    ending: Option<u32>,
    queues_new: usize,
}

impl Shard {
    /// Adds jobs, all or none.
    pub(crate) fn push(&mut self, jobs: &[NewJob], context: &mut Context<'_>) -> Result<Vec<Pushed>, Reject> {
        let mut plan = Plan::default();
        self.check_push(jobs, &mut plan, context.now)?;
        Ok(self.push_checked(jobs, context))
    }

    /// Refuses what may not be pushed; changes nothing.
    fn check_push(&self, jobs: &[NewJob], plan: &mut Plan, now: Timestamp) -> Result<(), Reject> {
        if jobs.len() > limits::BATCH_MAX {
            return Err(Reject::TooMany { what: "jobs in one push", limit: limits::BATCH_MAX as u64 });
        }
        if self.jobs.len() + jobs.len() > limits::JOBS_MAX {
            return Err(Reject::PondFull { limit: limits::JOBS_MAX as u64 });
        }
        let mut run: Option<(&QueueName, u64, u64)> = None;
        for job in jobs {
            check_job(job)?;
            if !self.is_duplicate(job, plan, now)? {
                let bytes = job.body.len() as u64;
                // Batches mostly go to one queue: the map is asked once for a run of equal names.
                match &mut run {
                    Some((name, count, sum)) if *name == &job.queue => {
                        *count += 1;
                        *sum += bytes;
                    }
                    _ => {
                        plan.add(self, run.take());
                        run = Some((&job.queue, 1, bytes));
                    }
                }
            }
        }
        plan.add(self, run);
        if self.queues.len() + plan.queues_new > limits::QUEUES_MAX {
            return Err(Reject::TooMany { what: "queues", limit: limits::QUEUES_MAX as u64 });
        }
        plan.added.iter().try_for_each(|(name, added)| self.check_capacity(name, *added))
    }

    /// Whether a job is answered with an existing one; refuses it if its unique key says so.
    fn is_duplicate(&self, job: &NewJob, plan: &mut Plan, now: Timestamp) -> Result<bool, Reject> {
        let named = job.id.as_ref().map(|id| (job.queue.clone(), id.clone()));
        if let Some((queue, id)) = named.clone()
            && (plan.ids.contains(&(queue.clone(), id.clone()))
                || self.find(&JobRef { queue: Some(queue), id }).is_some())
        {
            return Ok(true);
        }
        let held = match &job.unique {
            None => false,
            Some(unique) => self.is_held(&job.queue, unique, plan, now)?,
        };
        if !held {
            plan.ids.extend(named);
        }
        Ok(held)
    }

    /// Whether a job is answered with the holder of its unique key.
    fn is_held(
        &self,
        queue: &QueueName,
        unique: &Unique,
        plan: &mut Plan,
        now: Timestamp,
    ) -> Result<bool, Reject> {
        let index = self.queue_index.get(queue).copied();
        let holder = index
            .and_then(|index| self.unique_holder(index, &unique.key, now))
            .filter(|slot| plan.ending != Some(*slot));
        let in_batch = !plan.unique.insert((queue.clone(), unique.key.clone()));
        match (holder, unique.on_conflict) {
            (Some(slot), OnConflict::Reject) => Err(Reject::UniqueConflict {
                key: unique.key.clone(),
                holder: self.jobs[slot].id(self.id).to_compact_string(),
            }),
            (None, OnConflict::Reject) if in_batch => Err(Reject::UniqueConflict {
                key: unique.key.clone(),
                holder: "another job of the same push".into(),
            }),
            (Some(slot), OnConflict::Replace) => Ok(self.jobs[slot].state == State::Active),
            (Some(_), _) => Ok(true),
            (None, _) => Ok(in_batch),
        }
    }

    fn check_capacity(&self, name: &QueueName, (jobs, bytes): (u64, u64)) -> Result<(), Reject> {
        let Some(queue) = self.queue_by_name(name) else { return Ok(()) };
        let capacity = queue.settings.capacity;
        let full = |limit, unit| Err(Reject::QueueFull { queue: name.clone(), limit, unit });
        let over_jobs = capacity.jobs > 0 && queue.counts.live() + jobs > capacity.jobs;
        let over_bytes = capacity.bytes > 0 && queue.live_bytes + bytes > capacity.bytes;
        match capacity.on_full {
            OnFull::Reject if over_jobs => full(capacity.jobs, "jobs"),
            OnFull::Reject if over_bytes => full(capacity.bytes, "bytes"),
            // Dropping can only make room by waiting jobs: what runs or is delayed stays.
            OnFull::DropOldest
                if over_jobs && queue.counts.live() - queue.waiting_count() + jobs > capacity.jobs =>
            {
                full(capacity.jobs, "jobs")
            }
            OnFull::DropOldest
                if over_bytes && queue.live_bytes - queue.waiting_bytes + bytes > capacity.bytes =>
            {
                full(capacity.bytes, "bytes")
            }
            OnFull::Reject | OnFull::DropOldest => Ok(()),
        }
    }

    /// Adds a checked batch.
    pub(crate) fn push_checked(&mut self, jobs: &[NewJob], context: &mut Context<'_>) -> Vec<Pushed> {
        let mut pushed = Vec::with_capacity(jobs.len());
        let mut last: Option<(&QueueName, u32)> = None;
        for job in jobs {
            let queue = match last {
                Some((name, queue)) if name == &job.queue => queue,
                _ => self.ensure_queue(&job.queue),
            };
            last = Some((&job.queue, queue));
            pushed.push(self.push_one(queue, job, context));
        }
        pushed
    }

    /// Follow-up jobs of a settlement obey every rule of a push but the queue's capacity: work that was begun may end.
    /// `ending` is the settled job, if it is final by then.
    pub(crate) fn check_follow_up(
        &self,
        jobs: &[NewJob],
        ending: Option<u32>,
        now: Timestamp,
    ) -> Result<(), Reject> {
        if jobs.len() > limits::BATCH_MAX {
            return Err(Reject::TooMany { what: "jobs in one push", limit: limits::BATCH_MAX as u64 });
        }
        let mut plan = Plan { ending, ..Plan::default() };
        for job in jobs {
            check_job(job)?;
            self.is_duplicate(job, &mut plan, now)?;
        }
        let queues: BTreeSet<_> =
            jobs.iter().map(|job| &job.queue).filter(|name| !self.queue_index.contains_key(*name)).collect();
        if self.queues.len() + queues.len() > limits::QUEUES_MAX {
            return Err(Reject::TooMany { what: "queues", limit: limits::QUEUES_MAX as u64 });
        }
        Ok(())
    }

    fn push_one(&mut self, queue: u32, new: &NewJob, context: &mut Context<'_>) -> Pushed {
        if let Some(id) = &new.id
            && let Some(slot) = self.find(&JobRef { queue: Some(new.queue.clone()), id: id.clone() })
        {
            return self.existing(slot);
        }
        if let Some(unique) = &new.unique
            && let Some(holder) = self.unique_holder(queue, &unique.key, context.now)
        {
            if unique.on_conflict != OnConflict::Replace || self.jobs[holder].state == State::Active {
                return self.existing(holder);
            }
            let reason = ErrorInfo {
                kind: "replaced".into(),
                message: "a newer job took its unique key".into(),
                ..ErrorInfo::default()
            };
            self.transition(holder, Change::new(State::Cancelled, Cause::Replace).error(reason), context);
        }
        self.make_room(queue, new.body.len() as u64, context);
        let job = self.build(queue, new, context);
        let given = job.asked.as_ref().and_then(|asked| asked.id.clone());
        let (sequence, id, state) = (job.sequence, job.id(self.id), job.state);
        if let Some(unique) = &new.unique {
            self.take_unique(queue, &unique.key, sequence);
        }
        if let Some(given) = given {
            self.by_given_id.insert((queue, given), sequence);
        }
        self.admit(job, context);
        Pushed { id, state, deduplicated: false }
    }

    fn existing(&self, slot: u32) -> Pushed {
        let job = &self.jobs[slot];
        Pushed { id: job.id(self.id), state: job.state, deduplicated: true }
    }

    fn build(&mut self, queue: u32, new: &NewJob, context: &Context<'_>) -> Job {
        let now = context.now;
        let settings = &self.queues[queue as usize].settings;
        let run_at = (now + new.delay_ms).max(new.run_at.unwrap_or(now));
        let expires_at = new.expires_ms.map(|span| now + span);
        let (state, due) = if run_at > now {
            (State::Delayed, expires_at.map_or(run_at, |expires| expires.min(run_at)))
        } else {
            (State::Waiting, expires_at.unwrap_or(Timestamp::ZERO))
        };
        self.counters.sequence += 1;
        let asked = Asked {
            pusher: context.actor.clone(),
            id: new.id.clone(),
            content_type: new.content_type.clone(),
            backoff: new.backoff.clone(),
            expires_at,
            unique_key: new.unique.as_ref().map(|unique| unique.key.clone()),
            unique_until: new
                .unique
                .as_ref()
                .filter(|unique| unique.ttl_ms > 0)
                .map_or(Timestamp::ZERO, |unique| now + unique.ttl_ms),
            tags: new.tags.clone(),
            meta: new.meta.clone(),
        };
        Job {
            sequence: self.counters.sequence,
            created_at: now,
            position: context.position,
            order: 0,
            due,
            body: Some(Box::from(&new.body[..])),
            body_len: new.body.len() as u32,
            body_crc: crc32c::crc32c(&new.body),
            queue,
            attempt: 0,
            timeout_ms: new.timeout_ms.unwrap_or(settings.timeout_ms) as u32,
            attempts: new.attempts.unwrap_or(settings.attempts) as u16,
            max_crashes: new.max_crashes.unwrap_or(settings.max_crashes) as u16,
            crashes: 0,
            priority: new.priority,
            state,
            stored: Stored::default(),
            asked: (asked != Asked::default()).then(|| Box::new(asked)),
            run: None,
        }
    }

    /// Cancels waiting jobs, oldest of the least urgent first, until one more of `bytes` fits. Nothing to do unless the queue drops.
    fn make_room(&mut self, queue: u32, bytes: u64, context: &mut Context<'_>) {
        loop {
            let home = &self.queues[queue as usize];
            let capacity = home.settings.capacity;
            let over = capacity.jobs > 0 && home.counts.live() + 1 > capacity.jobs
                || capacity.bytes > 0 && home.live_bytes + bytes > capacity.bytes;
            if capacity.on_full != OnFull::DropOldest || !over {
                return;
            }
            let Some((_, oldest)) = home.waiting_lanes().next_back().and_then(|(_, lane)| lane.first())
            else {
                return;
            };
            let reason = ErrorInfo {
                kind: "dropped".into(),
                message: "the queue was full".into(),
                ..ErrorInfo::default()
            };
            self.transition(oldest, Change::new(State::Cancelled, Cause::DropOldest).error(reason), context);
        }
    }

    /// The job that holds a unique key now.
    pub(crate) fn unique_holder(&self, queue: u32, key: &CompactString, now: Timestamp) -> Option<u32> {
        let slot = self.slot_of(*self.unique.get(&(queue, key.clone()))?)?;
        let until = self.jobs[slot].asked.as_ref()?.unique_until;
        (until == Timestamp::ZERO || until > now).then_some(slot)
    }

    /// Gives a unique key to a job. A holder whose time is over loses it for good, so a key is always with one job.
    pub(crate) fn take_unique(&mut self, queue: u32, key: &CompactString, sequence: u64) {
        let Some(former) = self.unique.insert((queue, key.clone()), sequence) else { return };
        let Some(slot) = self.slot_of(former) else { return };
        if let Some(asked) = &mut self.jobs[slot].asked {
            asked.unique_key = None;
        }
        self.touch(slot);
    }
}

impl Plan {
    fn add(&mut self, shard: &Shard, run: Option<(&QueueName, u64, u64)>) {
        let Some((name, jobs, bytes)) = run else { return };
        if let Some(sum) = self.added.get_mut(name) {
            *sum = (sum.0 + jobs, sum.1 + bytes);
            return;
        }
        self.queues_new += usize::from(!shard.queue_index.contains_key(name));
        self.added.insert(name.clone(), (jobs, bytes));
    }
}

/// Refuses what one job may not ask for.
pub(crate) fn check_job(job: &NewJob) -> Result<(), Reject> {
    let invalid = |field, reason: &str| Err(Reject::Invalid { field, reason: reason.into() });
    if job.body.len() > limits::BODY_BYTES_MAX {
        return Err(Reject::BodyTooLarge {
            bytes: job.body.len() as u64,
            limit: limits::BODY_BYTES_MAX as u64,
        });
    }
    if job.attempts.is_some_and(|attempts| attempts == 0 || attempts > limits::ATTEMPTS_MAX) {
        return invalid("attempts", "is 1 to 10000");
    }
    if job.max_crashes.is_some_and(|crashes| crashes == 0 || crashes > limits::ATTEMPTS_MAX) {
        return invalid("max_crashes", "is 1 to 10000");
    }
    if job.timeout_ms.is_some_and(|timeout| !(limits::LEASE_MS_MIN..=limits::LEASE_MS_MAX).contains(&timeout))
    {
        return invalid("timeout_ms", "is 100 ms to 24 h");
    }
    if job.expires_ms == Some(0) {
        return invalid("expires_ms", "is at least 1 ms; leave it out for no expiry");
    }
    if job.content_type.len() > limits::TAG_BYTES_MAX {
        return invalid("content_type", "has at most 128 bytes");
    }
    if job.tags.len() > limits::TAGS_MAX
        || job.tags.iter().any(|tag| tag.is_empty() || tag.len() > limits::TAG_BYTES_MAX)
    {
        return invalid("tags", "are at most 32, of 1 to 128 bytes each");
    }
    if job.meta.len() > limits::META_MAX
        || job.meta.iter().any(|(key, value)| {
            key.is_empty() || key.len() > limits::TAG_BYTES_MAX || value.len() > limits::META_VALUE_BYTES_MAX
        })
    {
        return invalid("meta", "has at most 64 entries, keys of 1 to 128 bytes and values of at most 4096");
    }
    if let Some(unique) = &job.unique
        && (unique.key.is_empty() || unique.key.len() > limits::ID_BYTES_MAX)
    {
        return invalid("unique", "has a key of 1 to 255 bytes");
    }
    if let Some(model::JobId::Text(text)) = &job.id
        && (text.is_empty() || text.len() > limits::ID_BYTES_MAX)
    {
        return invalid("id", "has 1 to 255 bytes");
    }
    job.backoff.as_ref().map_or(Ok(()), check_backoff)
}

/// Refuses a backoff that could not be stored or would wait for ever.
pub(crate) fn check_backoff(backoff: &kit::Backoff) -> Result<(), Reject> {
    let invalid = |reason: &str| Err(Reject::Invalid { field: "backoff", reason: reason.into() });
    match backoff {
        kit::Backoff::List { delays } if delays.is_empty() => invalid("a list has at least one delay"),
        kit::Backoff::List { delays } if delays.len() > limits::BACKOFF_LIST_MAX => {
            let reason = format_compact!("a list has at most {} delays", limits::BACKOFF_LIST_MAX);
            Err(Reject::Invalid { field: "backoff", reason })
        }
        kit::Backoff::Exponential { base, cap } if base > cap => invalid("the base is larger than the cap"),
        _ => Ok(()),
    }
}
