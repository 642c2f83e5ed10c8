//! A pond for the tests of those who use the library: in memory, without threads, with a clock that is moved by hand.

use crate::{Error, JobView, Pond, State};
use bytes::Bytes;
use kit::{Durability, Timestamp};
use model::{
    Actor, Command, DispatchedJob, Envelope, JobId, JobRef, LeaseRef, Outcome, QueueName, Reply, Settlement,
    limits,
};
use std::{
    fmt,
    future::poll_fn,
    mem,
    ops::Deref,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{self, Poll},
    time::Duration,
};
use tokio::task::unconstrained;
use workers::{Attempt, BatchOptions, Gather, Reason, Totals};

/// Where the clock of a test begins: 1 January 2026, 00:00 UTC.
const START: Timestamp = Timestamp(1_767_225_600_000);
/// Attempts in one call: more are jobs that keep each other busy for ever.
const ATTEMPTS_MAX: usize = 1_000_000;
/// Moments to which one call of [`TestPond::advance_to_next`] may jump without anything running.
const JUMPS_MAX: usize = 100_000;

/// The guide's example is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/testing.md")]
struct Guide;

/// A pond with a clock of its own; see [`Pond::test`]. It dereferences to [`Pond`], so that the code under test takes it as one.
pub struct TestPond {
    pond: Pond,
    bench: Arc<Bench>,
}

impl Deref for TestPond {
    type Target = Pond;

    fn deref(&self) -> &Pond {
        &self.pond
    }
}

/// An attempt that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Of which queue.
    pub queue: String,
    /// Which job.
    pub id: JobId,
    /// Which attempt, 1 for the first.
    pub attempt: u32,
    /// When it began, by the pond's clock.
    pub at: Timestamp,
    /// The job's state after it.
    pub state: State,
    /// What the handler returned, as JSON.
    pub result: Option<Bytes>,
    /// What went wrong.
    pub error: Option<String>,
}

/// `mail/0192… 1: completed`, for a look at [`TestPond::ran`] in a failing test.
impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}: {}", self.queue, self.id, self.attempt, self.state.name())?;
        self.error.as_ref().map_or(Ok(()), |error| write!(f, " ({error})"))
    }
}

impl Pond {
    /// A pond for tests: in memory, without threads, with a clock that stands still until it is moved. Workers are started as
    /// anywhere else, and run only inside [`TestPond::run_until_idle`] and its relatives, one job after the other, in the same
    /// order each time. Nothing sleeps, and no server is needed.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), millpond::Error> {
    /// use millpond::{Pond, State};
    /// use std::time::Duration;
    ///
    /// let pond = Pond::test();
    /// let reminders = pond.queue::<String>("reminders")?;
    /// let _worker = reminders.worker(|to: String, _job| async move { Ok::<_, String>(to.len()) }).start()?;
    ///
    /// reminders.push(&"ada".into()).delay(Duration::from_secs(86_400)).await?;
    /// assert_eq!(pond.run_until_idle().await, 0);
    ///
    /// pond.advance(Duration::from_secs(86_400)).await;
    /// let ran = pond.ran();
    /// assert_eq!((ran.len(), ran[0].state, ran[0].result.as_deref()), (1, State::Completed, Some(&b"3"[..])));
    /// # Ok(()) }
    /// ```
    pub fn test() -> TestPond {
        Self::test_at(START)
    }

    /// The same with a clock that begins at `start`.
    pub fn test_at(start: Timestamp) -> TestPond {
        let (handle, clock) = node::Handle::manual(&node::Options::default(), start)
            .expect("nothing is read that could be damaged, and no thread is started");
        let bench = Arc::new(Bench::new(handle.clone(), clock));
        TestPond { pond: Pond::with(handle, Durability::Memory, Some(bench.clone())), bench }
    }
}

impl TestPond {
    /// What the clock shows.
    pub fn now(&self) -> Timestamp {
        self.bench.clock.now()
    }

    /// Runs every job that may start now, and those that follow from it, without moving the clock. Returns how many attempts began.
    ///
    /// It returns when nothing can start and every handler has ended, or waits for its cancellation ([`crate::Job::cancelled`]).
    /// A handler that waits for something else, such as a socket, is really waited for.
    pub async fn run_until_idle(&self) -> usize {
        self.bench.run().await
    }

    /// Moves the clock by `span`, and runs what falls due on the way, each at its time. Returns how many attempts began.
    pub async fn advance(&self, span: Duration) -> usize {
        self.advance_to(self.now() + crate::push::millis(span)).await
    }

    /// The same up to an instant; one that has passed moves nothing.
    pub async fn advance_to(&self, until: Timestamp) -> usize {
        let mut began = self.bench.run().await;
        while let Some(due) = self.bench.next_move().filter(|due| *due <= until) {
            self.bench.clock.set(due);
            began += self.bench.run().await;
        }
        self.bench.clock.set(until);
        began + self.bench.run().await
    }

    /// Moves the clock to the next moment at which a job starts: the end of a delay, a retry, a firing. Returns how far it moved;
    /// `None`, and the clock stays where the last job changed, if nothing would ever start by itself.
    pub async fn advance_to_next(&self) -> Option<Duration> {
        let before = self.now();
        if self.bench.run().await > 0 {
            return Some(Duration::ZERO);
        }
        for _ in 0..JUMPS_MAX {
            self.bench.clock.set(self.bench.next_move()?);
            if self.bench.run().await > 0 {
                return Some(Duration::from_millis(self.now() - before));
            }
        }
        None
    }

    /// Runs, and moves the clock as far as it takes, until a job is final. `None` if there is no such job; the job as it is if it
    /// would never end by itself, because no worker takes it, for example.
    pub async fn wait(&self, id: &JobId) -> Result<Option<JobView>, Error> {
        loop {
            let job = self.pond.job(id).await?;
            if job.as_ref().is_none_or(|job| job.state.is_final()) {
                return Ok(job);
            }
            if self.advance_to_next().await.is_none() {
                return self.pond.job(id).await;
            }
        }
    }

    /// Every attempt that ended so far, in order.
    pub fn ran(&self) -> Vec<Ran> {
        lock(&self.bench.ran).clone()
    }

    /// The same, and forgets them.
    pub fn take_ran(&self) -> Vec<Ran> {
        mem::take(&mut *lock(&self.bench.ran))
    }

    /// The jobs of a queue in a state, at most 1,000 of them.
    pub async fn jobs(&self, queue: &str, state: State) -> Result<Vec<JobView>, Error> {
        self.pond.inner.backend.jobs(QueueName::new(queue)?, state).await
    }
}

/// Where the handlers of a test are run.
pub(crate) struct Bench {
    handle: node::Handle,
    clock: node::ManualClock,
    workers: Mutex<Vec<Arc<Station>>>,
    running: Mutex<Vec<Running>>,
    ran: Mutex<Vec<Ran>>,
    /// From where revocations are asked for.
    heard: Mutex<Option<u64>>,
    /// One at a time runs handlers.
    turn: tokio::sync::Mutex<()>,
}

/// Makes attempts of the jobs of one call.
type Begin = Box<dyn Fn(Vec<DispatchedJob>) -> Vec<Attempt> + Send + Sync>;

/// A worker of a test.
pub(crate) struct Station {
    actor: Actor,
    queue: QueueName,
    begin: Begin,
    /// Where a handler takes one job at a time, each is a batch.
    gather: Mutex<Gather<DispatchedJob>>,
    batches: bool,
    /// Calls under way.
    running: AtomicUsize,
    totals: Mutex<Totals>,
}

impl Station {
    pub(crate) fn new(
        actor: Actor,
        queue: QueueName,
        concurrency: usize,
        batches: Option<&BatchOptions>,
        begin: Begin,
    ) -> Arc<Self> {
        let one = BatchOptions { size: 1, ..BatchOptions::default() };
        let gather = Mutex::new(Gather::new(batches.unwrap_or(&one), concurrency));
        let (running, totals) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self { actor, queue, begin, gather, batches: batches.is_some(), running, totals })
    }

    fn busy(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    pub(crate) fn totals(&self) -> Totals {
        *lock(&self.totals)
    }
}

/// An attempt under way.
struct Running {
    station: Arc<Station>,
    attempt: Attempt,
    at: Timestamp,
}

impl Bench {
    fn new(handle: node::Handle, clock: node::ManualClock) -> Self {
        Self {
            handle,
            clock,
            workers: Mutex::default(),
            running: Mutex::default(),
            ran: Mutex::default(),
            heard: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn add(&self, station: Arc<Station>) {
        lock(&self.workers).push(station);
    }

    pub(crate) fn remove(&self, station: &Arc<Station>) {
        lock(&self.workers).retain(|other| !Arc::ptr_eq(other, station));
        lock(&station.gather).clear();
        // What it had in hand goes back when the lease ends, as with a worker that died.
        lock(&self.running).retain(|running| !Arc::ptr_eq(&running.station, station));
    }

    /// Gives back the jobs that gather; how many.
    pub(crate) fn hand_back(&self, station: &Station) -> u64 {
        let gathered = lock(&station.gather).clear();
        let count = gathered.len() as u64;
        for job in gathered {
            let job_ref = JobRef { queue: Some(job.queue), id: job.id };
            let lease = LeaseRef { job: job_ref, token: job.lease_token };
            let outcome = Outcome::Snooze { after_ms: 0 };
            self.tell(station, Settlement { lease, outcome, push: Vec::new() });
        }
        lock(&station.totals).snoozed += count;
        count
    }

    /// The next moment at which something falls due, here or in the pond.
    fn next_move(&self) -> Option<Timestamp> {
        let now = self.clock.now();
        let workers = lock(&self.workers);
        let idle = workers.iter().filter(|station| lock(&station.gather).places(station.busy()) > 0);
        let due = idle.filter_map(|station| lock(&station.gather).due());
        let due = due.map(|due| Timestamp(crate::push::millis(due))).filter(|due| *due > now);
        due.chain(self.clock.next_move()).min()
    }

    /// Runs until nothing can go on.
    async fn run(&self) -> usize {
        let _turn = self.turn.lock().await;
        let mut began = 0;
        // Tokio has answers wait once a task has had many in a row; what is there at once must stay so.
        unconstrained(poll_fn(|context| self.round(context, &mut began))).await;
        began
    }

    fn round(&self, context: &mut task::Context<'_>, began: &mut usize) -> Poll<()> {
        loop {
            self.call_off();
            let before = *began;
            let under_way = mem::take(&mut *lock(&self.running));
            let mut ended = false;
            for running in under_way {
                ended |= self.go_on(running, context);
            }
            let workers = lock(&self.workers).clone();
            for station in workers {
                if let Some(jobs) = self.gather(&station) {
                    *began += jobs.len();
                    assert!(
                        *began < ATTEMPTS_MAX,
                        "jobs keep each other busy: a million attempts without an end"
                    );
                    self.begin(&station, jobs, context);
                }
            }
            if !ended && *began == before {
                let running = lock(&self.running);
                let busy = |running: &Running| !running.attempt.waits_for_its_signal();
                return if running.iter().any(busy) { Poll::Pending } else { Poll::Ready(()) };
            }
        }
    }

    /// Fetches what a call may still have, and makes the call if it is time.
    fn gather(&self, station: &Station) -> Option<Vec<DispatchedJob>> {
        let now = Duration::from_millis(self.clock.now().0);
        let mut gather = lock(&station.gather);
        while gather.places(station.busy()) > 0
            && !gather.has_full()
            && let Some(job) = self.fetch(station)
        {
            lock(&station.totals).fetched += 1;
            let group = job.group.clone();
            gather.add(job, &station.queue, group.as_ref(), now);
        }
        gather.next_call(station.busy(), now)
    }

    fn fetch(&self, station: &Station) -> Option<DispatchedJob> {
        let queues = vec![station.queue.clone()];
        let (lease, level) = (limits::LEASE_MS_MAX, Durability::Memory);
        // Here a lease lasts as long as the attempt may: nobody would renew it while the clock stands still.
        let fetch = self.handle.fetch(station.actor.clone(), queues, 1, lease, Duration::ZERO, level);
        now(fetch)?.ok()?.pop()
    }

    fn begin(&self, station: &Arc<Station>, jobs: Vec<DispatchedJob>, context: &mut task::Context<'_>) {
        {
            let mut totals = lock(&station.totals);
            totals.calls += u64::from(station.batches);
            totals.started += jobs.len() as u64;
            totals.running += jobs.len() as u64;
        }
        for attempt in (station.begin)(jobs) {
            station.running.fetch_add(1, Ordering::Relaxed);
            self.go_on(Running { station: station.clone(), attempt, at: self.clock.now() }, context);
        }
    }

    /// Lets an attempt go on; true if it has ended.
    fn go_on(&self, mut running: Running, context: &mut task::Context<'_>) -> bool {
        match running.attempt.poll(context) {
            Poll::Ready(settlements) => self.end(&running, settlements),
            // It was told to stop and had its turn: as when the grace of a worker is over.
            Poll::Pending if running.attempt.is_called_off() => self.end(&running, Vec::new()),
            Poll::Pending => {
                lock(&self.running).push(running);
                return false;
            }
        }
        true
    }

    /// Tells handlers that their job was taken away.
    fn call_off(&self) {
        let mut heard = lock(&self.heard);
        let stations = lock(&self.workers).clone();
        let in_hand = |station: &&Arc<Station>| station.busy() > 0 || !lock(&station.gather).is_empty();
        let mut workers: Vec<Actor> =
            stations.iter().filter(in_hand).map(|station| station.actor.clone()).collect();
        workers.sort();
        workers.dedup();
        let after = heard.unwrap_or(0);
        let mut upto = after;
        for worker in workers {
            let Some(revoked) = now(self.handle.revoked(&worker, Some(after), Duration::ZERO)) else {
                continue;
            };
            upto = upto.max(revoked.position);
            for (lease, why) in revoked.leases {
                lock(&self.running).iter().for_each(|one| one.attempt.call_off(&lease, why.into()));
                let is_it = |job: &DispatchedJob| job.lease_token == lease.token && job.id == lease.job.id;
                for station in &stations {
                    let gone = lock(&station.gather).remove(is_it).len();
                    lock(&station.totals).dropped += gone as u64;
                }
            }
        }
        *heard = Some(upto);
    }

    /// Ends a call: there is a settlement for each of its jobs, or it is dropped.
    fn end(&self, running: &Running, settlements: Vec<Settlement>) {
        running.station.running.fetch_sub(1, Ordering::Relaxed);
        let mut settlements = settlements.into_iter();
        for (job, called_off) in running.attempt.jobs() {
            self.settle(running, job, called_off, settlements.next());
        }
    }

    fn settle(
        &self,
        running: &Running,
        job: &DispatchedJob,
        called_off: Option<Reason>,
        settlement: Option<Settlement>,
    ) {
        let Running { station, at, .. } = running;
        let reference = JobRef { queue: Some(job.queue.clone()), id: job.id.clone() };
        let mut ran = Ran {
            queue: job.queue.as_str().to_owned(),
            id: job.id.clone(),
            attempt: job.attempt,
            at: *at,
            state: State::Active,
            result: None,
            error: called_off.map(|reason| Reason::text(reason).to_owned()),
        };
        let mut totals = lock(&station.totals);
        totals.running -= 1;
        match settlement.filter(|_| called_off.is_none()) {
            None => totals.dropped += 1,
            Some(settlement) => {
                let outcome = settlement.outcome.clone();
                ran.error = self.tell(station, settlement);
                note(&outcome, &mut ran, &mut totals);
            }
        }
        drop(totals);
        if let Some(Ok(Some(view))) = now(self.handle.job(reference)) {
            ran.state = view.state;
        }
        lock(&self.ran).push(ran);
    }

    /// Settles an attempt; why that was refused, if it was.
    fn tell(&self, station: &Station, settlement: Settlement) -> Option<String> {
        let command = Command::Settle { settlements: vec![settlement] };
        let envelope = Envelope { actor: station.actor.clone(), idempotency_key: None, command };
        match now(self.handle.call(envelope, Durability::Memory))? {
            Ok(answer) => match answer.reply {
                Reply::Settled(mut results) => results.pop()?.err().map(|reject| reject.to_string()),
                _ => None,
            },
            Err(error) => Some(error.to_string()),
        }
    }
}

fn note(outcome: &Outcome, ran: &mut Ran, totals: &mut Totals) {
    if ran.error.is_some() {
        totals.dropped += 1;
        return;
    }
    match outcome {
        Outcome::Done { result } => {
            ran.result.clone_from(result);
            totals.done += 1;
        }
        Outcome::Retry { error, .. } => {
            ran.error = Some(error.message.to_string());
            totals.retried += 1;
        }
        Outcome::Fail { error } => {
            ran.error = Some(error.message.to_string());
            totals.failed += 1;
        }
        Outcome::Crash(crash) => {
            ran.error = Some(crash.to_string());
            totals.crashed += 1;
        }
        Outcome::Snooze { .. } | Outcome::RateLimited { .. } | Outcome::Wait { .. } => totals.snoozed += 1,
        Outcome::Cancel { reason } => {
            ran.error = Some(reason.to_string());
            totals.cancelled += 1;
        }
        Outcome::Suspend { .. } => totals.suspended += 1,
    }
}

/// The answer of a call to a node without threads, which is there at once.
fn now<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = std::pin::pin!(call);
    match call.as_mut().poll(&mut task::Context::from_waker(task::Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
