use crate::{
    flow::NO_LINE,
    job::{Asked, Job, Stored},
    shard::{Context, Shard},
    transition::Change,
    unique::{Meeting, start_of},
};
use compact_str::{CompactString, format_compact};
use kit::Timestamp;
use model::{
    Cause, ErrorInfo, JobId, JobRef, NewJob, OnConflict, OnFull, Pushed, QueueName, Reject, Route,
    ScheduleId, State, Unique, limits,
};
use std::collections::{BTreeMap, BTreeSet};

/// What the first pass over a batch found out, so that the second can change things without a refusal.
#[derive(Default)]
pub(crate) struct Plan {
    /// What the batch adds, by queue.
    pub(crate) added: BTreeMap<QueueName, Added>,
    ids: BTreeSet<(QueueName, JobId)>,
    /// Jobs of the batch by their unique keys.
    unique: BTreeMap<(QueueName, CompactString), InBatch>,
    /// A job that is final before the batch is added: its unique key is free by then.
    ending: Option<u32>,
    queues_new: usize,
}

/// How many jobs and bytes a queue gains; a job that takes the place of another can be smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Added {
    pub(crate) jobs: i64,
    pub(crate) bytes: i64,
}

/// The job of the batch that a unique key leads to.
#[derive(Debug, Clone, Copy)]
struct InBatch {
    bytes: i64,
    /// It stands by: another job holds the key.
    stands_by: bool,
}

impl Shard {
    /// Adds jobs, all or none.
    pub(crate) fn push(&mut self, jobs: &[NewJob], context: &mut Context<'_>) -> Result<Vec<Pushed>, Reject> {
        jobs.iter().try_for_each(check_id)?;
        self.push_own(jobs, context)
    }

    /// Adds jobs that the shard itself has named, all or none.
    pub(crate) fn push_own(
        &mut self,
        jobs: &[NewJob],
        context: &mut Context<'_>,
    ) -> Result<Vec<Pushed>, Reject> {
        let mut plan = Plan::default();
        self.check_push(jobs, &mut plan, context.now)?;
        Ok(self.push_checked(jobs, context))
    }

    /// Refuses what may not be pushed; changes nothing.
    pub(crate) fn check_push(&self, jobs: &[NewJob], plan: &mut Plan, now: Timestamp) -> Result<(), Reject> {
        if jobs.len() > limits::BATCH_MAX {
            return Err(Reject::TooMany { what: "jobs in one push", limit: limits::BATCH_MAX as u64 });
        }
        if self.jobs.len() + jobs.len() > limits::JOBS_MAX {
            return Err(Reject::PondFull { limit: limits::JOBS_MAX as u64 });
        }
        let mut run: Option<(&QueueName, Added)> = None;
        for job in jobs {
            check_job(job)?;
            let more = self.added_by(job, plan, now)?;
            // Batches mostly go to one queue: the map is asked once for a run of equal names.
            match &mut run {
                Some((name, sum)) if *name == &job.queue => *sum = sum.and(more),
                _ => {
                    plan.add(self, run.take());
                    run = Some((&job.queue, more));
                }
            }
        }
        plan.add(self, run);
        if self.queues.len() + plan.queues_new > limits::QUEUES_MAX {
            return Err(Reject::TooMany { what: "queues", limit: limits::QUEUES_MAX as u64 });
        }
        plan.added.iter().try_for_each(|(name, added)| self.check_capacity(name, *added))
    }

    /// What a job adds to its queue: nothing if it is answered with an existing one. Refuses it if its unique key says so.
    fn added_by(&self, job: &NewJob, plan: &mut Plan, now: Timestamp) -> Result<Added, Reject> {
        if let Some(id) = &job.id {
            let name = (job.queue.clone(), id.clone());
            if plan.ids.contains(&name)
                || self.find(&JobRef { queue: Some(name.0.clone()), id: id.clone() }).is_some()
            {
                return Ok(Added::default());
            }
            if let Some(unique) = &job.unique {
                let (added, is_new) = self.added_for_key(job, unique, plan, now)?;
                if is_new {
                    plan.ids.insert(name);
                }
                return Ok(added);
            }
            plan.ids.insert(name);
        } else if let Some(unique) = &job.unique {
            return self.added_for_key(job, unique, plan, now).map(|(added, _)| added);
        }
        Ok(Added { jobs: 1, bytes: job.body.len() as i64 })
    }

    /// The same for a job with a unique key, and whether it is a new job.
    fn added_for_key(
        &self,
        job: &NewJob,
        unique: &Unique,
        plan: &mut Plan,
        now: Timestamp,
    ) -> Result<(Added, bool), Reject> {
        let bytes = job.body.len() as i64;
        let name = (job.queue.clone(), unique.key.clone());
        let queue = self.queue_index.get(&job.queue).copied();
        let meeting = queue.map_or(Meeting::Free, |queue| self.meet(queue, unique, plan.ending, now));
        let whole = Added { jobs: 1, bytes };
        let instead_of = |slot: u32| self.added_instead(slot, bytes);
        let (added, is_new, here) = match (plan.unique.get(&name).copied(), meeting) {
            (_, Meeting::Conflict(slot)) => {
                return Err(self.conflict(&name.1, slot));
            }
            (_, Meeting::Found(_) | Meeting::Forgotten(_)) => return Ok((Added::default(), false)),
            (None, Meeting::Free) => (whole, true, InBatch { bytes, stands_by: false }),
            (None, Meeting::StandBy) => (whole, true, InBatch { bytes, stands_by: true }),
            (None, Meeting::Replace(slot)) => (instead_of(slot), true, InBatch { bytes, stands_by: false }),
            (None, Meeting::Renew(slot)) => {
                (instead_of(slot), false, InBatch { bytes, stands_by: self.jobs[slot].stands_by() })
            }
            // It calls off the holder and who stands by: two go, one comes.
            (Some(before), Meeting::Replace(_)) if before.stands_by => {
                (whole, true, InBatch { bytes, stands_by: false })
            }
            (Some(before), _) => match unique.on_conflict {
                OnConflict::Return | OnConflict::Throttle => return Ok((Added::default(), false)),
                OnConflict::Reject => {
                    let holder = "another job of the same push".into();
                    return Err(Reject::UniqueConflict { key: name.1, holder });
                }
                rule @ (OnConflict::Replace | OnConflict::Debounce { .. } | OnConflict::KeepLast) => {
                    let more = Added { jobs: 0, bytes: bytes - before.bytes };
                    (more, rule == OnConflict::Replace, InBatch { bytes, ..before })
                }
            },
        };
        if unique.on_conflict == OnConflict::Throttle
            && self.throttles.len() + plan.unique.len() >= limits::THROTTLES_MAX
        {
            return Err(Reject::TooMany {
                what: "throttled unique keys",
                limit: limits::THROTTLES_MAX as u64,
            });
        }
        plan.unique.insert(name, here);
        Ok((added, is_new))
    }

    /// What it adds to put so many bytes in the place of a job.
    fn added_instead(&self, slot: u32, bytes: i64) -> Added {
        let job = &self.jobs[slot];
        let drops = self.queues[job.queue as usize].settings.capacity.on_full == OnFull::DropOldest;
        if drops && job.state == State::Waiting {
            // It is already counted among what dropping can free.
            return Added { jobs: 1, bytes };
        }
        Added { jobs: 0, bytes: bytes - i64::from(job.body_len) }
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
            pushed.push(self.push_one(queue, job, false, context));
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
            check_id(job)?;
            check_job(job)?;
            self.added_by(job, &mut plan, now)?;
        }
        let queues: BTreeSet<_> =
            jobs.iter().map(|job| &job.queue).filter(|name| !self.queue_index.contains_key(*name)).collect();
        if self.queues.len() + queues.len() > limits::QUEUES_MAX {
            return Err(Reject::TooMany { what: "queues", limit: limits::QUEUES_MAX as u64 });
        }
        Ok(())
    }

    /// Whether a push of this job alone would be answered with an existing one.
    pub(crate) fn would_be_answered(&self, job: &NewJob, now: Timestamp) -> Result<bool, Reject> {
        check_job(job)?;
        if let Some(id) = &job.id
            && self.find(&JobRef { queue: Some(job.queue.clone()), id: id.clone() }).is_some()
        {
            return Ok(true);
        }
        let Some((unique, queue)) = job.unique.as_ref().zip(self.queue_index.get(&job.queue)) else {
            return Ok(false);
        };
        match self.meet(*queue, unique, None, now) {
            Meeting::Conflict(slot) => Err(self.conflict(&unique.key, slot)),
            Meeting::Found(_) | Meeting::Forgotten(_) | Meeting::Renew(_) => Ok(true),
            Meeting::Free | Meeting::Replace(_) | Meeting::StandBy => Ok(false),
        }
    }

    /// Adds one checked job, or finds the one that stands for it. A job that is `held` waits for its join first.
    pub(super) fn push_one(
        &mut self,
        queue: u32,
        new: &NewJob,
        held: bool,
        context: &mut Context<'_>,
    ) -> Pushed {
        if let Some(id) = &new.id
            && let Some(slot) = self.find(&JobRef { queue: Some(new.queue.clone()), id: id.clone() })
        {
            return self.existing(slot);
        }
        if let Some(unique) = &new.unique {
            match self.meet(queue, unique, None, context.now) {
                Meeting::Free | Meeting::StandBy => {}
                Meeting::Found(slot) | Meeting::Conflict(slot) => return self.existing(slot),
                Meeting::Forgotten(pushed) => return pushed,
                Meeting::Replace(slot) => self.replace_holder(slot, context),
                Meeting::Renew(slot) => {
                    let more = (new.body.len() as u64).saturating_sub(u64::from(self.jobs[slot].body_len));
                    self.make_room(queue, (0, more), Some(slot), context);
                    self.renew_content(slot, new, unique.on_conflict, context);
                    return self.existing(slot);
                }
            }
        }
        self.make_room(queue, (1, new.body.len() as u64), None, context);
        self.counters.sequence += 1;
        let mut job = self.build(queue, new, self.counters.sequence, context);
        if let Some(unique) = &new.unique {
            self.claim(&mut job, unique, new, context.now);
        }
        if held {
            (job.state, job.due) = (State::WaitingChildren, job.expires_at().unwrap_or(Timestamp::ZERO));
        }
        let (sequence, id, state) = (job.sequence, job.id(self.id), job.state);
        let slot = self.admit(job, context);
        if let Some(given) = &new.id {
            self.by_given_id.insert((queue, given.clone()), sequence);
            self.note_schedule(slot, true);
        }
        Pushed { id, state, deduplicated: false, forgotten: false }
    }

    fn existing(&self, slot: u32) -> Pushed {
        let job = &self.jobs[slot];
        Pushed { id: job.id(self.id), state: job.state, deduplicated: true, forgotten: false }
    }

    /// A job as a push asks for it; it is in no index.
    pub(crate) fn build(&self, queue: u32, new: &NewJob, sequence: u64, context: &Context<'_>) -> Job {
        let now = context.now;
        let settings = &self.queues[queue as usize].settings;
        let asked = Asked {
            pusher: context.actor.clone(),
            id: new.id.clone(),
            content_type: new.content_type.clone(),
            backoff: new.backoff.clone(),
            expires_at: new.expires_ms.map(|span| now + span),
            unique_key: new.unique.as_ref().map(|unique| unique.key.clone()),
            unique_until: new
                .unique
                .as_ref()
                .filter(|unique| unique.ttl_ms > 0)
                .map_or(Timestamp::ZERO, |unique| now + unique.ttl_ms),
            unique_latest: Timestamp::ZERO,
            stands_by: None,
            tags: new.tags.clone(),
            meta: new.meta.clone(),
            route: new.route.as_deref().map(|route| self.share_route(queue, route)),
            rank: 0,
            parent: None,
            ties: None,
        };
        let mut job = Job {
            sequence,
            created_at: now,
            position: context.position,
            order: 0,
            due: Timestamp::ZERO,
            body: Some(Box::from(&new.body[..])),
            body_len: new.body.len() as u32,
            body_crc: crc32c::crc32c(&new.body),
            queue,
            line: NO_LINE,
            attempt: 0,
            timeout_ms: new.timeout_ms.unwrap_or(settings.timeout_ms) as u32,
            attempts: new.attempts.unwrap_or(settings.attempts) as u16,
            max_crashes: new.max_crashes.unwrap_or(settings.max_crashes) as u16,
            crashes: 0,
            priority: new.priority,
            state: State::Waiting,
            stored: Stored::default(),
            asked: (asked != Asked::default()).then(|| Box::new(asked)),
            run: None,
        };
        (job.state, job.due) = job.begins(start_of(new, now), now);
        job
    }

    /// Cancels waiting jobs, oldest of the least urgent first, until so many more jobs and bytes fit; `spare` stays. Nothing to do
    /// unless the queue drops.
    fn make_room(
        &mut self,
        queue: u32,
        (jobs, bytes): (u64, u64),
        spare: Option<u32>,
        context: &mut Context<'_>,
    ) {
        loop {
            let home = &self.queues[queue as usize];
            let capacity = home.settings.capacity;
            let over = capacity.jobs > 0 && jobs > 0 && home.counts.live() + jobs > capacity.jobs
                || capacity.bytes > 0 && bytes > 0 && home.live_bytes + bytes > capacity.bytes;
            if capacity.on_full != OnFull::DropOldest || !over {
                return;
            }
            // Jobs of this very command are at the ends of their lanes. None of them goes, or its answer would not be true.
            let older = |(_, slot): &(u64, u32)| self.jobs[*slot].position != context.position;
            let oldest = home
                .waiting_lanes()
                .rev()
                .find_map(|(_, lane)| lane.iter_from(0).find(|(_, slot)| spare != Some(*slot)).filter(older));
            let Some((_, oldest)) = oldest else { return };
            let reason = ErrorInfo {
                kind: "dropped".into(),
                message: "the queue was full".into(),
                ..ErrorInfo::default()
            };
            self.transition(oldest, Change::new(State::Cancelled, Cause::DropOldest).error(reason), context);
        }
    }
}

impl Added {
    fn and(self, more: Added) -> Added {
        Added { jobs: self.jobs + more.jobs, bytes: self.bytes + more.bytes }
    }
}

impl Plan {
    fn add(&mut self, shard: &Shard, run: Option<(&QueueName, Added)>) {
        let Some((name, more)) = run else { return };
        if let Some(sum) = self.added.get_mut(name) {
            *sum = sum.and(more);
            return;
        }
        self.queues_new += usize::from(!shard.queue_index.contains_key(name));
        self.added.insert(name.clone(), more);
    }
}

/// Refuses a group, an ordering key or limits that cannot be.
fn check_route(route: &Route) -> Result<(), Reject> {
    let invalid = |field, reason: &str| Err(Reject::Invalid { field, reason: reason.into() });
    let names = 1..=limits::ID_BYTES_MAX;
    if route.group.as_ref().is_some_and(|group| !names.contains(&group.len())) {
        return invalid("group", "has 1 to 255 bytes");
    }
    if route.ordering_key.as_ref().is_some_and(|key| !names.contains(&key.len())) {
        return invalid("ordering_key", "has 1 to 255 bytes");
    }
    if route.limits.len() > limits::JOB_LIMITS_MAX {
        return invalid("limits", "are at most 16");
    }
    let mut keys = BTreeSet::new();
    for used in &route.limits {
        if !names.contains(&used.key.len()) || !(1..=limits::COST_MAX).contains(&used.cost) {
            return invalid("limits", "have keys of 1 to 255 bytes and costs of 1 to 1000000");
        }
        if !keys.insert(&used.key) {
            return invalid("limits", "name each key once");
        }
    }
    Ok(())
}
/// Refuses an id that only a schedule may give: a slot would take the job for its own.
pub(super) fn check_id(job: &NewJob) -> Result<(), Reject> {
    match job.id.as_ref().and_then(ScheduleId::of_job) {
        Some(_) => Err(Reject::Invalid {
            field: "id",
            reason: "begins with `schedule:`, as only the jobs of schedules do".into(),
        }),
        None => Ok(()),
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
    if let Some(route) = &job.route {
        check_route(route)?;
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
    match job.unique.as_ref().map(|unique| (unique.on_conflict, unique.ttl_ms)) {
        Some((OnConflict::Throttle, 0)) => return invalid("unique", "throttle needs a ttl_ms of at least 1"),
        Some((OnConflict::Debounce { .. }, _)) if job.delay_ms == 0 && job.run_at.is_none() => {
            return invalid("unique", "debounce needs a wait: a delay_ms or a run_at");
        }
        _ => {}
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

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_push_is_all_or_none_over_its_queues() {
        check(
            "
            0s configure video jobs=1            -> configured
            0s push mail id=a ; video id=b x1    -> a waiting, b waiting
            1s push mail id=c ; video id=d       -> ! queue_full
            1s show c                            -> gone
            1s push news id=e ; mail attempts=0  -> ! invalid attempts
            1s pause news                        -> ! unknown_queue
            1s totals mail                       -> pushed 1 started 0 completed 0 failed 0 dead 0
        ",
        );
    }

    #[test]
    fn a_given_id_is_one_job_of_its_queue_for_as_long_as_it_is_kept() {
        check(
            "
            0s push mail id=a              -> a waiting
            0s push mail id=a              -> a waiting again
            0s push video id=a             -> a waiting
            0s push mail id=b ; mail id=b  -> b waiting, b waiting again
            1s fetch mail                  -> a 1/5 t1
            1s done mail/a t1              -> completed
            2s push mail id=a              -> a completed again
            3s remove mail/a               -> ok
            4s push mail id=a              -> a waiting
            4s totals mail                 -> pushed 3 started 1 completed 1 failed 0 dead 0
        ",
        );
    }

    #[test]
    fn a_generated_id_pushed_again_finds_its_job() {
        let mut script = check("0s push mail x2 -> #1 waiting, #2 waiting");
        let id = script.shard.upcoming(&model::QueueName::new("mail").unwrap(), 1).unwrap()[0].0.id.clone();
        assert_eq!(script.line(&format!("1s push mail id={id}")), "#1 waiting again");
        assert_eq!(script.line(&format!("1s push video id={id}")), "#1 waiting");
        assert_eq!(script.line(&format!("1s remove video/{id}")), "ok");
        assert_eq!(script.line(&format!("1s show mail/{id}")), "waiting 0/5");
    }

    #[test]
    fn what_is_answered_with_an_existing_job_takes_no_capacity() {
        check(
            "
            0s configure mail jobs=2                     -> configured
            0s push mail id=a ; mail id=a ; mail id=a    -> a waiting, a waiting again, a waiting again
            0s push mail id=b unique=k ; mail unique=k   -> b waiting, b waiting again
            0s push mail id=a ; mail id=b                -> a waiting again, b waiting again
            0s push mail                                 -> ! queue_full
        ",
        );
    }

    #[test]
    fn the_later_of_delay_and_instant_counts() {
        check(
            "
            0s  push mail id=a delay=10s at=5s   -> a delayed
            0s  push mail id=b delay=5s at=20s   -> b delayed
            1s  push mail id=c at=1s             -> c waiting
            1s  show a                           -> delayed 0/5 due 10s
            1s  show b                           -> delayed 0/5 due 20s
            9999ms tick
            9999ms show a                        -> delayed 0/5 due 10s
            10s tick
            10s heard                            -> 1 in mail
            10s show a                           -> waiting 0/5
        ",
        );
    }

    #[test]
    fn a_job_expires_only_before_its_first_start() {
        check(
            "
            0s  push mail id=a expires=10s ; mail id=b expires=10s backoff=fixed:1s -> a waiting, b waiting
            0s  push mail id=d delay=20s expires=10s   -> d delayed
            0s  push mail id=e delay=5s expires=10s p=0 -> e delayed
            0s  explain d                              -> delayed DelayedUntil at never
            0s  push mail id=f expires=0s              -> ! invalid expires_ms
            1s  fetch mail                             -> a 1/5 t1
            2s  snooze a t1 after=60s                  -> delayed
            5s  tick
            10s fetch mail                             -> none
            10s show b                                 -> expired 0/5
            10s show d                                 -> expired 0/5
            10s show e                                 -> expired 0/5
            10s history e -> 0s 3 w1 push delayed 0, 5s 7 - due waiting 0, 10s 8 - expire expired 0
            62s fetch mail                             -> a 1/5 t2
        ",
        );
    }

    #[test]
    fn a_full_queue_refuses_by_jobs_and_by_bytes() {
        check(
            "
            0s configure mail jobs=3 bytes=10       -> configured
            0s push mail id=a bytes=4 ; mail id=b bytes=4 delay=1s -> a waiting, b delayed
            0s push mail bytes=3                    -> ! queue_full
            0s push mail id=c bytes=2               -> c waiting
            0s push mail bytes=0                    -> ! queue_full
            0s fetch mail                           -> a 1/5 t1
            0s push mail bytes=0                    -> ! queue_full
            0s done a t1                            -> completed
            0s push mail id=d bytes=4               -> d waiting
        ",
        );
    }

    #[test]
    fn a_full_queue_drops_the_oldest_of_the_least_urgent() {
        check(
            "
            0s configure mail jobs=3 full=drop               -> configured
            0s push mail id=a p=0 ; mail id=b ; mail id=c    -> a waiting, b waiting, c waiting
            1s push mail id=d                                -> d waiting
            1s history b    -> 0s 2 w1 push waiting 0, 1s 3 w1 drop_oldest cancelled 0 dropped
            1s counts mail                                   -> 3 waiting, 1 cancelled
            2s fetch mail max=2                              -> a 1/5 t1, c 1/5 t2
            2s push mail x2                                  -> ! queue_full
            2s push mail id=e                                -> e waiting
            2s show d                                        -> cancelled 0/5
        ",
        );
    }

    #[test]
    fn a_push_does_not_drop_its_own_jobs() {
        check(
            "
            0s configure mail jobs=3 full=drop                     -> configured
            0s push mail id=a p=0 ; mail id=b p=0                  -> a waiting, b waiting
            1s push mail id=c p=low ; mail id=d p=low              -> c waiting, d waiting
            1s upcoming mail                                       -> b c d
            2s push mail id=e p=0 ; mail id=f p=0 ; mail id=g p=0  -> e waiting, f waiting, g waiting
            2s upcoming mail                                       -> e f g
        ",
        );
    }

    #[test]
    fn nothing_is_dropped_for_a_push_that_would_not_fit_anyway() {
        check(
            "
            0s configure mail bytes=100 full=drop               -> configured
            0s push mail id=a bytes=80 delay=1h ; mail id=b bytes=10 -> a delayed, b waiting
            1s push mail bytes=30                               -> ! queue_full
            1s show b                                           -> waiting 0/5
            1s push mail id=c bytes=20                          -> c waiting
            1s show b                                           -> cancelled 0/5
        ",
        );
    }

    #[test]
    fn a_value_beyond_its_limit_is_refused() {
        check(
            "
            0s push mail x10001                          -> ! too_many 10000
            0s push mail bytes=1048577                   -> ! body_too_large
            0s push mail attempts=10001                  -> ! invalid attempts
            0s push mail crashes=0                       -> ! invalid max_crashes
            0s push mail timeout=99ms                    -> ! invalid timeout_ms
            0s push mail timeout=25h                     -> ! invalid timeout_ms
            0s push mail tag=a,,b                        -> ! invalid tags
            0s push mail unique=                         -> ! invalid unique
            0s push mail backoff=list:                   -> ! invalid backoff
            0s push mail backoff=exponential:2s:1s       -> ! invalid backoff
            0s push mail bytes=1048576 attempts=10000 timeout=24h -> #1 waiting
        ",
        );
    }
}
