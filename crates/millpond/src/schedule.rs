use crate::{Error, Pond, Push, Receipt, push::millis};
use bytes::Bytes;
use kit::Timestamp;
use model::{
    CatchUp, Command, Envelope, Overlap, Reject, Reply, ScheduleId, ScheduleSpec, ScheduleView, Scheduled,
    When,
};
use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

/// One schedule of a pond, by its id. It need not exist yet.
#[derive(Clone)]
pub struct Schedule {
    pond: Pond,
    id: ScheduleId,
}

/// A schedule being put together. [`ScheduleBuilder::push`] says what it pushes.
#[must_use = "a schedule does nothing until it pushes a job and is awaited"]
pub struct ScheduleBuilder {
    schedule: Schedule,
    when: Result<When, Error>,
    options: Options,
}

#[derive(Default)]
struct Options {
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    limit: u64,
    jitter: Duration,
    overlap: Overlap,
    catch_up: CatchUp,
}

/// A schedule that only needs to be awaited.
#[must_use = "a schedule is not kept until it is awaited"]
pub struct PutSchedule {
    builder: ScheduleBuilder,
    push: Push,
}

impl Pond {
    /// The schedule `id`: 1 to 128 letters, digits and `. _ -`.
    ///
    /// ```
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), millpond::Error> {
    /// let pond = millpond::Pond::in_memory().await?;
    /// let reports = pond.queue::<String>("reports")?;
    /// pond.schedule("nightly")?
    ///     .cron("0 3 * * *")
    ///     .zone("Europe/Berlin")
    ///     .push(reports.push(&"yesterday".into()).attempts(3))
    ///     .await?;
    /// # pond.close().await
    /// # }
    /// ```
    pub fn schedule(&self, id: &str) -> Result<Schedule, Error> {
        Ok(Schedule { pond: self.clone(), id: ScheduleId::new(id)? })
    }

    /// Up to 1,000 schedules in the order of their ids, those after `after`.
    pub async fn schedules(&self, after: Option<&str>) -> Result<Vec<ScheduleView>, Error> {
        let after = after.map(ScheduleId::new).transpose()?;
        self.inner.backend.schedules(after, 1_000).await
    }
}

impl Schedule {
    /// Slots by a cron expression: five fields, six with seconds first, or `@daily` and the like. In UTC unless a zone is given.
    pub fn cron(&self, expression: &str) -> ScheduleBuilder {
        let (expression, zone) = (expression.into(), "UTC".into());
        self.builder(When::Cron { expression, zone, rules: Bytes::new() })
    }

    /// Slots at whole multiples of an interval, counted from the start, or else from 1970.
    pub fn every(&self, interval: Duration) -> ScheduleBuilder {
        self.builder(When::Every { interval_ms: millis(interval) })
    }

    fn builder(&self, when: When) -> ScheduleBuilder {
        ScheduleBuilder { schedule: self.clone(), when: Ok(when), options: Options::default() }
    }

    /// What it is and how it goes; `None` if there is none.
    pub async fn get(&self) -> Result<Option<ScheduleView>, Error> {
        self.pond.inner.backend.schedule(self.id.clone()).await
    }

    /// Its next slots, at most `n`; `None` if there is no such schedule.
    pub async fn next(&self, n: usize) -> Result<Option<Vec<Timestamp>>, Error> {
        self.pond.inner.backend.schedule_slots(self.id.clone(), n).await
    }

    /// Slots fire nothing until it is resumed.
    pub async fn pause(&self) -> Result<Scheduled, Error> {
        self.change(Command::PauseSchedule { id: self.id.clone() }).await
    }

    /// It goes on with the next slot from now.
    pub async fn resume(&self) -> Result<Scheduled, Error> {
        self.change(Command::ResumeSchedule { id: self.id.clone() }).await
    }

    /// Pushes its job now, beside the slots.
    pub async fn run(&self) -> Result<Receipt, Error> {
        let inner = &self.pond.inner;
        let command = Command::RunSchedule { id: self.id.clone() };
        let envelope = Envelope { actor: inner.actor.clone(), idempotency_key: None, command };
        let receipts = inner.pushing(envelope, inner.level).await?;
        receipts.into_iter().next().ok_or(Error::Mismatch)
    }

    /// Forgets it. Jobs that it made stay.
    pub async fn remove(&self) -> Result<(), Error> {
        self.pond.inner.command(Command::RemoveSchedule { id: self.id.clone() }).await.map(drop)
    }

    async fn change(&self, command: Command) -> Result<Scheduled, Error> {
        match self.pond.inner.command(command).await? {
            Reply::Scheduled(scheduled) => Ok(scheduled),
            _ => Err(Error::Mismatch),
        }
    }
}

impl ScheduleBuilder {
    /// The IANA time zone whose clocks count, such as `Europe/Berlin`. Its rules are kept with the schedule; put the schedule again
    /// with a newer release of this library to refresh them.
    pub fn zone(mut self, name: &str) -> Self {
        self.when = self.when.and_then(|when| in_zone(when, name));
        self
    }

    /// No slot before.
    pub fn start(mut self, at: Timestamp) -> Self {
        self.options.start = Some(at);
        self
    }

    /// No slot after.
    pub fn end(mut self, at: Timestamp) -> Self {
        self.options.end = Some(at);
        self
    }

    /// It ends after so many jobs.
    pub fn limit(mut self, jobs: u64) -> Self {
        self.options.limit = jobs;
        self
    }

    /// Each slot fires up to so much later, by chance, so that not all schedules start at once.
    pub fn jitter(mut self, most: Duration) -> Self {
        self.options.jitter = most;
        self
    }

    /// What a slot does while a job of an earlier one has not ended. Default [`Overlap::Allow`].
    pub fn overlap(mut self, overlap: Overlap) -> Self {
        self.options.overlap = overlap;
        self
    }

    /// What becomes of the slots of an outage. Default [`CatchUp::One`].
    pub fn catch_up(mut self, catch_up: CatchUp) -> Self {
        self.options.catch_up = catch_up;
        self
    }

    /// The job that each slot pushes: a push that is not awaited. Await the result to keep the schedule; the same again touches
    /// nothing, so every node of a deployment may do it.
    pub fn push(self, push: Push) -> PutSchedule {
        PutSchedule { builder: self, push }
    }
}

fn in_zone(when: When, name: &str) -> Result<When, Error> {
    let When::Cron { expression, .. } = when else {
        let reason = "belongs to a cron expression; an interval is the same in every zone".into();
        return Err(Reject::Invalid { field: "zone", reason }.into());
    };
    let Some((zone, rules)) = kit::zone::find(name) else {
        let help = "is not known; zones have IANA names, such as Europe/Berlin".into();
        return Err(Reject::BadZone { zone: name.into(), help }.into());
    };
    Ok(When::Cron { expression, zone: zone.into(), rules: Bytes::from_static(rules) })
}

impl IntoFuture for PutSchedule {
    type Output = Result<Scheduled, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { builder: ScheduleBuilder { schedule, when, options }, push } = self;
            let spec = ScheduleSpec {
                when: when?,
                start: options.start,
                end: options.end,
                limit: options.limit,
                jitter_ms: millis(options.jitter),
                overlap: options.overlap,
                catch_up: options.catch_up,
                job: push.job()?,
            };
            schedule.change(Command::PutSchedule { id: schedule.id.clone(), spec: Box::new(spec) }).await
        })
    }
}
