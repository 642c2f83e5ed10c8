use crate::{
    Connect, Error, Queue, Receipt, Signal,
    backend::{Answer, Backend},
    events::Order,
    remote::{self, Link},
    testing::Bench,
};
use kit::{Durability, Timestamp};
use model::{
    Actor, BulkControl, BulkView, Command, Envelope, HistoryEntry, JobId, JobRef, JobView, Limit, LogLine,
    NewJob, QueueName, Reply, State, Step,
};
use serde::Serialize;
use std::{fmt, marker::PhantomData, path::PathBuf, sync::Arc, time::Duration};

/// How long [`Pond::close`] waits for calls under way and the last checkpoint.
const CLOSE: Duration = Duration::from_secs(30);

/// A pond of queues. Cheap to clone; all clones are the same pond.
#[derive(Clone)]
pub struct Pond {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for Pond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pond").field("actor", &self.inner.actor).finish_non_exhaustive()
    }
}

pub(crate) struct Inner {
    pub(crate) backend: Backend,
    pub(crate) actor: Actor,
    /// What calls ask for that do not say.
    pub(crate) level: Durability,
    /// Who hears events before whom.
    pub(crate) order: Order,
    /// Where handlers run, if this is a test's pond.
    pub(crate) test: Option<Arc<Bench>>,
}

/// Why a job is where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Its state as shown.
    pub state: State,
    /// One sentence for people.
    pub summary: String,
    /// The earliest it can start, where that is known.
    pub expected_at: Option<Timestamp>,
}

impl Pond {
    /// Opens the pond in `dir`, or makes one there if the directory is empty or missing. One process at a time can have it open.
    pub async fn open(dir: impl Into<PathBuf>) -> Result<Pond, Error> {
        Self::open_with(dir, node::Options::default()).await
    }

    /// The same with limits of your own.
    pub async fn open_with(dir: impl Into<PathBuf>, options: node::Options) -> Result<Pond, Error> {
        let dir = dir.into();
        // Recovery reads the disk: not on a thread that others wait for.
        let opened = tokio::task::spawn_blocking(move || node::Handle::open(&dir, options)).await;
        Ok(Self::over(opened.map_err(|_| Error::Interrupted)??, Durability::Disk))
    }

    /// A pond that forgets everything when it is closed. For tests with a clock that is moved by hand, see [`Pond::test`].
    pub async fn in_memory() -> Result<Pond, Error> {
        Ok(Self::over(node::Handle::in_memory(node::Options::default())?, Durability::Memory))
    }

    /// Connects to a server, such as `millpond://127.0.0.1:7077`. What comes back can do what an opened pond can. A link that breaks is
    /// made again by itself: calls wait for it up to [`crate::Connect::patience`], workers keep their leases.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), millpond::Error> {
    /// let pond = millpond::Pond::connect("millpond://127.0.0.1:7077").await?;
    /// let emails = pond.queue::<String>("emails")?;
    /// emails.push(&"ada@example.org".into()).idempotency_key("welcome-ada").await?;
    /// # pond.close().await }
    /// ```
    ///
    /// # Errors
    /// [`Error::Address`], [`Error::Away`] if nobody answered in time, [`Error::Server`] for a wrong token.
    pub async fn connect(url: &str) -> Result<Pond, Error> {
        Self::connect_with(url, Connect::default()).await
    }

    /// The same with a token, a name, or times of your own.
    pub async fn connect_with(url: &str, options: Connect) -> Result<Pond, Error> {
        let own = || Actor::new(&format!("{}:{}", remote::host(), std::process::id()));
        let actor = options.name.as_deref().map_or_else(own, Actor::new);
        let link = Link::open(url, options, actor.clone()).await?;
        let level = link.durability();
        let backend = Backend::Remote(link);
        Ok(Pond { inner: Arc::new(Inner { backend, actor, level, order: Order::default(), test: None }) })
    }

    fn over(handle: node::Handle, level: Durability) -> Pond {
        Self::with(handle, level, None)
    }

    pub(crate) fn with(handle: node::Handle, level: Durability, test: Option<Arc<Bench>>) -> Pond {
        let actor = match test {
            None => of_process(),
            // The same in every run.
            Some(_) => Actor::new("test"),
        };
        let backend = Backend::Node(handle);
        Pond { inner: Arc::new(Inner { backend, actor, level, order: Order::default(), test }) }
    }

    /// The queue `name` with bodies of type `T`, written as JSON. A queue comes into being with its first push.
    pub fn queue<T>(&self, name: &str) -> Result<Queue<T>, Error> {
        Ok(Queue { pond: self.clone(), name: QueueName::new(name)?, body: PhantomData })
    }

    /// Pushes jobs of any queues as one change: all or none. At most 10,000; see [`crate::Push::job`]. Where a full queue lets its
    /// producers wait, so does this, until there is room for all or the future is dropped.
    pub async fn push_all(&self, jobs: Vec<NewJob>) -> Result<Vec<Receipt>, Error> {
        self.inner.push(jobs, None, None, self.inner.level).await
    }

    /// Sets the limit of a key, or of all keys that begin so if it ends in `*`; the most specific one counts. It counts at once,
    /// for jobs of any queue that name the key; see [`crate::Push::limit`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), millpond::Error> {
    /// use millpond::{Limit, Pond, Rate, State};
    ///
    /// let pond = Pond::in_memory().await?;
    /// let rate = Rate { units: 10, per_ms: 1_000, burst: 20 };
    /// pond.set_limit("user:*", Limit { concurrency: 5, rate, ..Limit::default() }).await?;
    /// let mail = pond.queue::<u32>("mail")?;
    /// let receipt = mail.push(&1).limit("user:7").limit_cost("api", 2).group("tenant-7").await?;
    /// assert_eq!(receipt.state, State::Waiting);
    /// pond.remove_limit("user:*").await?;
    /// # pond.close().await
    /// # }
    /// ```
    pub async fn set_limit(&self, key: &str, limit: Limit) -> Result<(), Error> {
        let command = Command::SetLimit { pattern: key.into(), limit: Some(limit) };
        self.inner.command(command).await.map(drop)
    }

    /// Removes what [`Pond::set_limit`] set under the same key; what it held may start.
    pub async fn remove_limit(&self, key: &str) -> Result<(), Error> {
        self.inner.command(Command::SetLimit { pattern: key.into(), limit: None }).await.map(drop)
    }

    /// A job by its generated id; a given id needs its queue: [`Queue::job`].
    pub async fn job(&self, id: &JobId) -> Result<Option<JobView>, Error> {
        self.inner.backend.job(any(id)).await
    }

    /// Waits until a job is final, and returns it; `None` if there is none. Wrap it in a timeout if you cannot wait for ever.
    pub async fn wait(&self, id: &JobId) -> Result<Option<JobView>, Error> {
        self.inner.backend.wait(any(id)).await
    }

    /// Everything that happened to a job.
    pub async fn history(&self, id: &JobId) -> Result<Option<Vec<HistoryEntry>>, Error> {
        self.inner.backend.history(any(id)).await
    }

    /// What its handlers wrote to its log.
    pub async fn log_lines(&self, id: &JobId) -> Result<Option<Vec<LogLine>>, Error> {
        self.inner.backend.log_lines(any(id)).await
    }

    /// What a job has stored, in the order in which it began.
    pub async fn steps(&self, id: &JobId) -> Result<Option<Vec<Step>>, Error> {
        self.inner.backend.steps(any(id)).await
    }

    /// Hands a job what it waits for, or will wait for; `.await` the call, or give it an idempotency key before.
    pub fn signal(&self, id: &JobId, name: &str, body: impl Serialize) -> Signal {
        Signal::new(self.clone(), any(id), name, body)
    }

    /// Why a job is where it is, and when it is expected to run.
    pub async fn explain(&self, id: &JobId) -> Result<Option<Explanation>, Error> {
        self.inner.backend.explain(any(id)).await
    }

    /// Calls a job off, waiting or running. Returns its state.
    pub async fn cancel(&self, id: &JobId, reason: &str) -> Result<State, Error> {
        self.inner.cancel(any(id), reason).await
    }

    /// The bulk operations under way, and the newest of those that have ended.
    pub async fn operations(&self) -> Result<Vec<BulkView>, Error> {
        self.inner.backend.operations().await
    }

    /// How far a bulk operation is; `None` if there is none of that number, or it is forgotten.
    pub async fn operation(&self, id: u64) -> Result<Option<BulkView>, Error> {
        Ok(self.operations().await?.into_iter().find(|operation| operation.id == id))
    }

    /// Pauses, resumes or cancels a bulk operation. What it has changed stays changed.
    pub async fn control_operation(&self, id: u64, control: BulkControl) -> Result<BulkView, Error> {
        self.inner.operation(Command::ControlBulk { operation: id, control }).await
    }

    /// Stops taking calls, finishes those under way, writes a checkpoint and frees the directory. Stop workers before.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.backend.close(CLOSE).await
    }
}

fn of_process() -> Actor {
    Actor::new(&format!("pid-{}", std::process::id()))
}

fn receipts(answer: Answer) -> Result<Vec<Receipt>, Error> {
    let Reply::Pushed(pushed) = answer.reply else { return Err(Error::Mismatch) };
    let receipt = |pushed| Receipt::of(pushed, answer.position, answer.durability);
    Ok(pushed.into_iter().map(receipt).collect())
}

/// The state of the one job that a command changed.
pub(crate) fn state_of(reply: &Reply) -> Result<State, Error> {
    match reply {
        Reply::Changed(states) => states.first().copied().ok_or(Error::Mismatch),
        _ => Err(Error::Mismatch),
    }
}

fn any(id: &JobId) -> JobRef {
    JobRef { queue: None, id: id.clone() }
}

impl Inner {
    pub(crate) async fn command(&self, command: Command) -> Result<Reply, Error> {
        self.backend.command(&self.actor, command, self.level).await
    }

    pub(crate) async fn operation(&self, command: Command) -> Result<BulkView, Error> {
        match self.command(command).await? {
            Reply::Operation(view) => Ok(*view),
            _ => Err(Error::Mismatch),
        }
    }

    pub(crate) async fn push(
        &self,
        jobs: Vec<NewJob>,
        idempotency_key: Option<&str>,
        wait: Option<Duration>,
        level: Durability,
    ) -> Result<Vec<Receipt>, Error> {
        let envelope = Envelope {
            actor: self.actor.clone(),
            idempotency_key: idempotency_key.map(Into::into),
            command: Command::Push { jobs },
        };
        receipts(self.backend.push(envelope, wait, level).await?)
    }

    /// A call that is answered with the jobs it pushed.
    pub(crate) async fn pushing(&self, envelope: Envelope, level: Durability) -> Result<Vec<Receipt>, Error> {
        receipts(self.backend.call(envelope, level).await?)
    }

    pub(crate) async fn cancel(&self, job: JobRef, reason: &str) -> Result<State, Error> {
        state_of(&self.command(Command::Cancel { job, reason: reason.into() }).await?)
    }
}
