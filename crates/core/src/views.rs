//! Reads: what people and tools see of a shard. Nothing here changes anything.

use crate::{job::Job, queue::Queue, shard::Shard};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use model::{
    BulkView, Cause, HistoryEntry, JobId, JobRef, JobView, LogLine, Priority, QueueName, QueueView, Reject,
    State, Step,
};

/// Jobs that one listing looks at, at most; a filter that matches few gives short pages and a cursor to go on.
pub(crate) const EXAMINED_MAX: usize = 10_000;
/// Jobs on one page, at most.
pub(crate) const PAGE_MAX: usize = 1_000;

/// Which jobs of a queue to list.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only this state; `blocked` means waiting jobs of a paused queue.
    pub state: Option<State>,
    /// Only jobs with this tag.
    pub tag: Option<CompactString>,
    /// Only jobs whose newest error is of this kind.
    pub error_kind: Option<CompactString>,
    /// At most so many, 1 to 1,000.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<u64>,
}

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct Page {
    /// Without bodies that are not in memory.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<u64>,
}

/// Sizes of a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Jobs in all states.
    pub jobs: u64,
    /// Queues.
    pub queues: u64,
    /// Bytes of bodies in memory.
    pub resident_body_bytes: u64,
    /// Calls remembered by their keys.
    pub idempotency_keys: u64,
    /// Commands ever applied.
    pub commands_total: u64,
    /// The position of the newest command.
    pub position: u64,
}

/// A place in a listing: which state, for waiting jobs which priority, and the order within the lane.
#[derive(Clone, Copy)]
struct Cursor {
    state: usize,
    priority: u8,
    order: u64,
}

const ORDER_BITS: u32 = 52;

impl Cursor {
    fn decode(bits: u64) -> Option<Self> {
        let state = (bits >> 60) as usize;
        let cursor =
            Self { state, priority: (bits >> ORDER_BITS) as u8, order: bits & ((1 << ORDER_BITS) - 1) };
        (state < State::ALL.len()).then_some(cursor)
    }

    fn encode(self) -> u64 {
        (self.state as u64) << 60 | u64::from(self.priority) << ORDER_BITS | self.order
    }
}

/// Why it is in the state it is in; the push is not told.
pub(crate) fn last_cause(job: &Job) -> Option<Cause> {
    let entries = job.run.as_ref()?.history.entries((job.created_at, job.position)).ok()?;
    entries.last().map(|entry| entry.cause)
}

fn some_time(time: Timestamp) -> Option<Timestamp> {
    (time != Timestamp::ZERO).then_some(time)
}

impl Shard {
    pub(crate) fn shown_state(&self, job: &Job) -> State {
        match job.state {
            State::Waiting if self.queues[job.queue as usize].paused || self.is_blocked(job) => {
                State::Blocked
            }
            state => state,
        }
    }

    /// Whether a limit, an order or a paused group holds a waiting job.
    fn is_blocked(&self, job: &Job) -> bool {
        let queue = &self.queues[job.queue as usize];
        (queue.lineup.is_some() || !queue.gates.is_empty())
            && self.slot_of(job.sequence).is_some_and(|slot| !self.may_start(slot))
    }

    pub(crate) fn view(&self, job: &Job) -> JobView {
        let asked = job.asked.as_deref();
        let run = job.run.as_deref();
        let steps = run.and_then(|run| run.steps.as_deref());
        let due_at = match job.state {
            // Its timer is that of its expiry.
            State::Delayed if job.stands_by() => None,
            State::Delayed | State::Retrying | State::Active | State::WaitingChildren | State::Suspended => {
                some_time(job.due)
            }
            _ => None,
        };
        JobView {
            sequence: job.sequence,
            id: job.id(self.id),
            queue: self.queues[job.queue as usize].name.clone(),
            state: self.shown_state(job),
            priority: job.priority,
            attempt: job.attempt,
            attempts: u32::from(job.attempts),
            crashes: u32::from(job.crashes),
            max_crashes: u32::from(job.max_crashes),
            created_at: job.created_at,
            due_at,
            started_at: run.and_then(|run| some_time(run.started_at)),
            finished_at: run.and_then(|run| some_time(run.finished_at)),
            expires_at: job.expires_at(),
            worker: run.filter(|_| job.state == State::Active).map(|run| run.worker.clone()),
            lease_token: job.token(),
            body_bytes: job.body_len,
            body_crc: job.body_crc,
            body: job.body.as_deref().map(Bytes::copy_from_slice),
            content_type: asked.map(|asked| asked.content_type.clone()).unwrap_or_default(),
            result: run.and_then(|run| run.result.clone()),
            progress: run.and_then(|run| run.progress.clone()),
            error: run.and_then(|run| run.error.as_deref().cloned()),
            tags: asked.map(|asked| asked.tags.clone()).unwrap_or_default(),
            meta: asked.map(|asked| asked.meta.clone()).unwrap_or_default(),
            unique_key: asked.and_then(|asked| asked.unique_key.clone()),
            timeout_ms: u64::from(job.timeout_ms),
            waits_for: job.ties().and_then(|ties| self.public_join_id(ties.waits_for)),
            joins: job.ties().map_or(Vec::new(), |ties| self.joins_of(ties)),
            steps: job.step_count(),
            signals: steps.map_or(0, |steps| steps.signals.len() as u32),
            awaits: steps.and_then(|steps| steps.awaited(job.due)),
        }
    }

    /// One job.
    pub fn job(&self, job: &JobRef) -> Option<JobView> {
        self.find(job).map(|slot| self.view(&self.jobs[slot]))
    }

    /// Every change of a job, the push first.
    pub fn history(&self, job: &JobRef) -> Option<Vec<HistoryEntry>> {
        let job = &self.jobs[self.find(job)?];
        let base = (job.created_at, job.position);
        let later =
            job.run.as_ref().map(|run| run.history.entries(base).unwrap_or_default()).unwrap_or_default();
        let began_as = later.first().and_then(|entry| entry.from).unwrap_or(job.state);
        let push = HistoryEntry {
            from: None,
            to: began_as,
            at: job.created_at,
            cause: Cause::Push,
            attempt: 0,
            actor: job.asked.as_ref().map(|asked| asked.pusher.clone()).unwrap_or_default(),
            position: job.position,
            error: None,
        };
        Some(std::iter::once(push).chain(later).collect())
    }

    /// A job's durable steps, in the order in which they began.
    pub fn job_steps(&self, job: &JobRef) -> Option<Vec<Step>> {
        let steps = self.steps(self.find(job)?);
        Some(steps.into_iter().flat_map(|steps| &steps.entries).map(|entry| entry.step.clone()).collect())
    }

    /// What a job's handlers wrote.
    pub fn log_lines(&self, job: &JobRef) -> Option<Vec<LogLine>> {
        let run = self.jobs[self.find(job)?].run.as_ref();
        Some(
            run.and_then(|run| run.log.as_ref())
                .map(|log| log.lines.iter().cloned().collect())
                .unwrap_or_default(),
        )
    }

    /// One queue.
    pub fn queue(&self, name: &QueueName) -> Option<QueueView> {
        self.queue_by_name(name).map(|queue| self.queue_view(queue))
    }

    fn queue_view(&self, queue: &Queue) -> QueueView {
        let mut counts = queue.counts;
        let index = self.queue_index[&queue.name];
        let free = self.free_count(index);
        counts.by_state[State::Blocked as usize] = counts.by_state[State::Waiting as usize] - free;
        counts.by_state[State::Waiting as usize] = free;
        let oldest = queue.head().map(|slot| &self.jobs[slot]).map(|job| {
            let run = job.run.as_ref();
            let entered = run.and_then(|run| {
                run.history.entries((job.created_at, job.position)).ok()?.last().map(|entry| entry.at)
            });
            entered.unwrap_or(job.created_at)
        });
        QueueView {
            name: queue.name.clone(),
            paused: queue.paused,
            settings: queue.settings.clone(),
            counts,
            live_bytes: queue.live_bytes,
            oldest_waiting_at: oldest,
            pushed_total: queue.totals.pushed,
            started_total: queue.totals.started,
            completed_total: queue.totals.completed,
            failed_total: queue.totals.failed,
            dead_total: queue.totals.dead,
        }
    }

    /// The first job of this id for which `wanted` holds, in whatever queue. A given id may be there once in each, so all of them are
    /// asked: for who does not know the queue and cannot find out.
    pub fn job_anywhere(&self, id: &JobId, wanted: impl Fn(&JobView) -> bool) -> Option<JobView> {
        let own = self.find(&JobRef { queue: None, id: id.clone() });
        let mut key = (0, id.clone());
        let given = (0..self.queues.len() as u32).filter_map(|queue| {
            key.0 = queue;
            self.slot_of(*self.by_given_id.get(&key)?)
        });
        own.into_iter().chain(given).map(|slot| self.view(&self.jobs[slot])).find(wanted)
    }

    /// The queue that a job is in.
    pub fn queue_of(&self, job: &JobRef) -> Option<QueueName> {
        let job = &self.jobs[self.find(job)?];
        Some(self.queues[job.queue as usize].name.clone())
    }

    /// Queues in the order of their names, from the first after `after`, at most `limit`.
    pub fn queues(&self, after: Option<&QueueName>, limit: usize) -> Vec<QueueView> {
        self.queues_among(after, limit, |_| true)
    }

    /// The same of those for which `among` holds.
    pub fn queues_among(
        &self,
        after: Option<&QueueName>,
        limit: usize,
        among: impl Fn(&QueueName) -> bool,
    ) -> Vec<QueueView> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let range = self.queue_index.range::<QueueName, _>(range).filter(|(name, _)| among(name));
        let indexes = range.take(limit.min(PAGE_MAX));
        indexes.map(|(_, index)| self.queue_view(&self.queues[*index as usize])).collect()
    }

    /// Jobs of a queue: state by state, each in the order in which jobs entered it (waiting ones in the order of their starts).
    ///
    /// # Errors
    /// An unknown queue, or a cursor that no page gave.
    pub fn list(&self, name: &QueueName, query: &ListQuery) -> Result<Page, Reject> {
        let queue = &self.queues[self.known_queue(name)? as usize];
        let bad_cursor = || Reject::Invalid { field: "cursor", reason: "is not one that a page gave".into() };
        let mut cursor = match query.cursor {
            Some(bits) => Cursor::decode(bits).ok_or_else(bad_cursor)?,
            None => Cursor { state: 0, priority: 0, order: 0 },
        };
        let wanted = |state: State| match query.state {
            None => state != State::Blocked,
            Some(State::Blocked) => state == State::Waiting,
            Some(only) => state == only,
        };
        let limit = query.limit.clamp(1, PAGE_MAX);
        let mut page = Page { jobs: Vec::new(), next: None };
        let mut examined = 0;
        while let Some(&state) = State::ALL.get(cursor.state) {
            let lanes: Vec<_> = match state {
                _ if !wanted(state) => Vec::new(),
                State::Waiting => queue.waiting_lanes().collect(),
                _ => {
                    queue.lane(state, Priority::NORMAL).map(|lane| (Priority(0), lane)).into_iter().collect()
                }
            };
            for (priority, lane) in lanes.into_iter().filter(|(priority, _)| priority.0 >= cursor.priority) {
                let from = if priority.0 == cursor.priority { cursor.order } else { 0 };
                for (order, slot) in lane.iter_from(from) {
                    if page.jobs.len() == limit || examined == EXAMINED_MAX {
                        page.next =
                            Some(Cursor { state: cursor.state, priority: priority.0, order }.encode());
                        return Ok(page);
                    }
                    examined += 1;
                    let job = &self.jobs[slot];
                    let held = state == State::Waiting
                        && query.state.is_some_and(|only| only != self.shown_state(job));
                    let error = job.run.as_ref().and_then(|run| run.error.as_ref());
                    let of_kind = |kind: &CompactString| error.is_some_and(|error| error.kind == *kind);
                    if !held
                        && query.tag.as_ref().is_none_or(|tag| job.has_tag(tag))
                        && query.error_kind.as_ref().is_none_or(of_kind)
                    {
                        page.jobs.push(self.view(job));
                    }
                }
            }
            cursor = Cursor { state: cursor.state + 1, priority: 0, order: 0 };
        }
        Ok(page)
    }

    /// Limits that were set, by key or pattern.
    pub fn limits(&self) -> Vec<(CompactString, model::Limit)> {
        self.flow.rules.iter().collect()
    }

    /// Bulk operations, those that ended not long ago included.
    pub fn bulks(&self) -> Vec<BulkView> {
        self.bulks.values().map(|bulk| bulk.view(&self.queues[bulk.queue as usize].name)).collect()
    }

    /// Sizes and totals.
    pub fn stats(&self) -> ShardStats {
        ShardStats {
            jobs: self.jobs.len() as u64,
            queues: self.queues.len() as u64,
            resident_body_bytes: self.resident_bytes(),
            idempotency_keys: self.idempotency.len() as u64,
            commands_total: self.counters.position,
            position: self.counters.position,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::check;

    #[test]
    fn a_listing_goes_on_where_the_page_before_ended() {
        check(
            "
            0s push mail id=a p=low ; mail id=b ; mail id=c delay=1h ; mail id=d tag=red ; mail id=e
            1s cancel e                          -> cancelled
            1s list mail                         -> b d a c e
            1s list mail limit=2                 -> b d ...
            2s push mail id=f p=0 ; mail id=g    -> f waiting, g waiting
            2s remove d                          -> ok
            2s list mail limit=2 more            -> a c ...
            2s list mail limit=2 more            -> e
            2s list mail state=waiting           -> f b g a
            2s list mail state=blocked           ->
            2s pause mail                        -> ok
            2s list mail state=blocked limit=3   -> f b g ...
            2s list mail state=blocked limit=3 more -> a
            2s list mail state=waiting           ->
            2s list nowhere                      -> ! unknown_queue
        ",
        );
    }

    #[test]
    fn a_listing_by_tag_finds_every_job_that_has_it() {
        check(
            "
            0s push mail id=a tag=red ; mail id=b tag=blue ; mail id=c tag=blue,red delay=1s ; mail id=d
            0s list mail tag=red                 -> a c
            0s list mail tag=blue limit=1        -> b ...
            0s list mail tag=blue limit=1 more   -> c
            0s list mail tag=green               ->
        ",
        );
    }

    #[test]
    fn a_cursor_that_no_page_gave_is_refused() {
        let script = check("0s push mail id=a");
        let query = super::ListQuery { cursor: Some(u64::MAX), ..super::ListQuery::default() };
        let refused = script.shard.list(&super::QueueName::new("mail").unwrap(), &query);
        assert_eq!(refused.unwrap_err().code(), "invalid");
    }
}
