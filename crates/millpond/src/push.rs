use crate::{Error, Pond};
use compact_str::CompactString;
use kit::{Backoff, Durability, Millis, Timestamp};
use model::{JobId, LimitUse, NewJob, OnConflict, Priority, Route, State, Unique};
use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

/// What a push brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The job's id.
    pub id: JobId,
    /// Its state.
    pub state: State,
    /// True if a job of that id or unique key existed already: this is its receipt.
    pub deduplicated: bool,
    /// True if that job is no longer kept: its unique key is throttled for longer than the queue keeps its jobs.
    pub forgotten: bool,
    /// Where the push stands in the log.
    pub position: u64,
    /// How safe it is.
    pub durability: Durability,
}

impl Receipt {
    pub(crate) fn of(pushed: model::Pushed, position: u64, durability: Durability) -> Self {
        let model::Pushed { id, state, deduplicated, forgotten } = pushed;
        Self { id, state, deduplicated, forgotten, position, durability }
    }
}

/// A push being put together; `.await` carries it out.
#[must_use = "a push does nothing until it is awaited"]
pub struct Push {
    pond: Pond,
    job: Result<NewJob, Error>,
    level: Durability,
    idempotency_key: Option<String>,
    wait: Option<Duration>,
}

impl Push {
    pub(crate) fn new(pond: Pond, job: Result<NewJob, Error>) -> Self {
        let level = pond.inner.level;
        Self { pond, job, level, idempotency_key: None, wait: None }
    }

    fn with(mut self, change: impl FnOnce(&mut NewJob)) -> Self {
        if let Ok(job) = &mut self.job {
            change(job);
        }
        self
    }

    /// Not before this span has passed.
    pub fn delay(self, delay: Duration) -> Self {
        self.with(|job| job.delay_ms = millis(delay))
    }

    /// Not before this instant.
    pub fn run_at(self, at: Timestamp) -> Self {
        self.with(|job| job.run_at = Some(at))
    }

    /// How urgent; lower starts first. Default [`Priority::NORMAL`].
    pub fn priority(self, priority: Priority) -> Self {
        self.with(|job| job.priority = priority)
    }

    /// How many attempts, 1 to 10,000. Default: the queue's, which is 5.
    pub fn attempts(self, attempts: u32) -> Self {
        self.with(|job| job.attempts = Some(attempts))
    }

    /// How long to wait between attempts. Default: the queue's.
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.with(|job| job.backoff = Some(backoff))
    }

    /// How long one attempt may take. Default: the queue's, which is 5 minutes.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|job| job.timeout_ms = Some(millis(timeout)))
    }

    /// The job expires if it has not started within this span.
    pub fn expires(self, span: Duration) -> Self {
        self.with(|job| job.expires_ms = Some(millis(span)))
    }

    /// At most one live job of the queue has this key; a second push returns the first.
    pub fn unique(self, key: impl Into<String>) -> Self {
        self.unique_for(key, Duration::ZERO, OnConflict::Return)
    }

    /// The same; the key is free again after `span` (zero: when the job ends), and a second push meets `on_conflict`.
    pub fn unique_for(self, key: impl Into<String>, span: Duration, on_conflict: OnConflict) -> Self {
        let key = CompactString::from(key.into());
        self.with(|job| job.unique = Some(Unique { key, ttl_ms: millis(span), on_conflict }))
    }

    /// Debounces by a unique key: a job of this key that has not begun takes this body and these options and waits anew, `wait` from
    /// now, but no longer than `longest` from the first push. A push while it runs starts one more when it ends.
    pub fn debounce(self, key: impl Into<String>, wait: Duration, longest: Duration) -> Self {
        let rule = OnConflict::Debounce { max_wait_ms: millis(longest) };
        self.delay(wait).unique_for(key, Duration::ZERO, rule)
    }

    /// Throttles by a unique key: at most one job in `span`, also if it ends earlier. Later pushes get the first one's receipt.
    pub fn throttle(self, key: impl Into<String>, span: Duration) -> Self {
        self.unique_for(key, span, OnConflict::Throttle)
    }

    /// Keeps the newest of a unique key: a job of this key that has not begun takes this body; while one runs, the newest push
    /// stands by and starts when it ends.
    pub fn keep_last(self, key: impl Into<String>) -> Self {
        self.unique_for(key, Duration::ZERO, OnConflict::KeepLast)
    }

    /// Groups of a queue share it fairly, in proportion to their weights; see [`crate::Queue::set_group`].
    pub fn group(self, group: impl Into<String>) -> Self {
        let group = CompactString::from(group.into());
        self.routed(|route| route.group = Some(group))
    }

    /// At most one job of this key is under way in the queue; the next starts when the one before is final.
    pub fn ordering_key(self, key: impl Into<String>) -> Self {
        let key = CompactString::from(key.into());
        self.routed(|route| route.ordering_key = Some(key))
    }

    /// Counts against the limit of this key, if one is set; see [`crate::Pond::set_limit`].
    pub fn limit(self, key: impl Into<String>) -> Self {
        self.limit_cost(key, 1)
    }

    /// The same, at a cost of so many slots and units of the rate, 1 to 1,000,000.
    pub fn limit_cost(self, key: impl Into<String>, cost: u32) -> Self {
        let key = CompactString::from(key.into());
        self.routed(|route| route.limits.push(LimitUse { key, cost }))
    }

    /// Where the queue is ordered by deadline, earlier ones start first within a priority. It does not end the job: see [`Push::expires`].
    pub fn deadline(self, at: Timestamp) -> Self {
        self.routed(|route| route.deadline = Some(at))
    }

    fn routed(self, change: impl FnOnce(&mut Route)) -> Self {
        self.with(|job| change(job.route.get_or_insert_default()))
    }

    /// Gives the job an id of your own: 1 to 255 bytes, unique within its queue for as long as the job is kept.
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        match JobId::parse(id.as_ref()) {
            Ok(id) => self.with(|job| job.id = Some(id)),
            Err(bad) => {
                self.job = self.job.and(Err(bad.into()));
                self
            }
        }
    }

    /// Adds a searchable word.
    pub fn tag(self, tag: impl Into<String>) -> Self {
        let tag = CompactString::from(tag.into());
        self.with(|job| job.tags.push(tag))
    }

    /// Adds a header that the handler sees.
    pub fn meta(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let entry = (CompactString::from(key.into()), CompactString::from(value.into()));
        self.with(|job| job.meta.push(entry))
    }

    /// How safe the push must be before it is acknowledged. Default [`Durability::Disk`].
    pub fn durability(mut self, level: Durability) -> Self {
        self.level = level;
        self
    }

    /// For 24 hours a push with the same key and content gets the first receipt again: repeat it after a doubtful answer.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// How long to wait for room, where a full queue lets its producers wait ([`crate::OnFull::Block`]); then the push is refused. Default: until
    /// there is room, or the future is dropped.
    pub fn wait(mut self, longest: Duration) -> Self {
        self.wait = Some(longest);
        self
    }

    /// The job without pushing it, for [`Pond::push_all`] and [`crate::Outcome::push`].
    pub fn job(self) -> Result<NewJob, Error> {
        self.job
    }
}

impl IntoFuture for Push {
    type Output = Result<Receipt, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { pond, job, level, idempotency_key, wait } = self;
            let receipts = pond.inner.push(vec![job?], idempotency_key.as_deref(), wait, level).await?;
            receipts.into_iter().next().ok_or(Error::Mismatch)
        })
    }
}

pub(crate) fn millis(span: Duration) -> Millis {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
