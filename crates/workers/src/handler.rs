//! What runs jobs.

use crate::{Cancelled, JobSource, SourceError, durable::Durable};
use bytes::Bytes;
use compact_str::CompactString;
use model::{DispatchedJob, ErrorInfo, JobRef, LeaseRef, NewJob, Outcome, Step, limits};
use std::{future::Future, pin::Pin, sync::Arc};
use tokio::time::Instant;

/// Runs one attempt at a time of many jobs at once.
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt. The future is dropped if it does not end within the grace after its signal was set.
    fn run(&self, context: Context) -> impl Future<Output = Verdict> + Send;
}

impl<H: Handler> Handler for Arc<H> {
    fn run(&self, context: Context) -> impl Future<Output = Verdict> + Send {
        (**self).run(context)
    }
}

/// Runs attempts of several jobs in one call.
pub trait BatchHandler: Send + Sync + 'static {
    /// Runs them, and returns how each ended, in their order. Each has its own signal and deadline; the future is dropped when none of
    /// them is waited for any more.
    fn run(&self, jobs: Vec<Context>) -> impl Future<Output = Vec<Verdict>> + Send;
}

/// The verdicts of a call with so many jobs. If there are more or fewer, nobody knows which is whose, and every attempt has failed.
pub fn one_each(verdicts: Vec<Verdict>, jobs: usize) -> Vec<Verdict> {
    if verdicts.len() == jobs {
        return verdicts;
    }
    let message = format!("the handler returned {} outcomes for {jobs} jobs", verdicts.len());
    let verdict = Verdict::from(Outcome::Retry { error: error("outcomes", &message, ""), after_ms: None });
    vec![verdict; jobs]
}

/// How an attempt ended, and the jobs to add in the same atomic change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How.
    pub outcome: Outcome,
    /// Further jobs.
    pub push: Vec<NewJob>,
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, push: Vec::new() }
    }
}

/// An error text for the history, cut to what the log keeps: kind 128 bytes, message and stack the rest.
pub fn error(kind: &str, message: &str, stack: &str) -> ErrorInfo {
    let kind = cut(kind, limits::TAG_BYTES_MAX);
    let message = cut(message, limits::ERROR_BYTES_MAX - kind.len());
    let stack = cut(stack, limits::ERROR_BYTES_MAX - kind.len() - message.len());
    ErrorInfo { kind: kind.into(), message: message.into(), stack: stack.into() }
}

/// What somebody wrote, as a result: JSON as it is, other text as a JSON string; none if there is nothing, or too much.
pub(crate) fn result_of(text: &[u8]) -> Option<Bytes> {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    if text.is_empty() {
        return None;
    }
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Some(text.to_string().into());
    }
    serde_json::to_vec(text).ok().filter(|json| json.len() <= limits::RESULT_BYTES_MAX).map(Into::into)
}

/// The start of `text`, at most `bytes` long, cut at a character.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What all clones of a context share.
pub(crate) struct Taken {
    pub(crate) job: DispatchedJob,
    pub(crate) durable: Durable,
}

/// One attempt as its handler sees it.
#[derive(Clone)]
pub struct Context {
    attempt: Arc<Taken>,
    lease: LeaseRef,
    deadline: Instant,
    cancelled: Cancelled,
    reporter: Arc<dyn Reporter>,
}

impl Context {
    pub(crate) fn new(
        job: DispatchedJob,
        deadline: Instant,
        cancelled: Cancelled,
        reporter: Arc<dyn Reporter>,
    ) -> Self {
        let lease = lease_of(&job);
        Self {
            attempt: Arc::new(Taken { job, durable: Durable::default() }),
            lease,
            deadline,
            cancelled,
            reporter,
        }
    }

    pub(crate) fn taken(&self) -> &Arc<Taken> {
        &self.attempt
    }

    pub(crate) fn durable(&self) -> &Durable {
        &self.attempt.durable
    }

    pub(crate) fn lease(&self) -> &LeaseRef {
        &self.lease
    }

    pub(crate) fn reporter(&self) -> &dyn Reporter {
        &*self.reporter
    }

    /// The job: id, body, attempt, lease token (larger than all before: pass it to what must refuse old writers), meta.
    pub fn job(&self) -> &DispatchedJob {
        &self.attempt.job
    }

    /// The body.
    pub fn body(&self) -> Bytes {
        self.attempt.job.body.clone().unwrap_or_default()
    }

    /// When the attempt is called off.
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The signal to stop early.
    pub const fn cancelled(&self) -> &Cancelled {
        &self.cancelled
    }

    /// Stores progress: one JSON value of at most 16 KiB. Fails if the lease is gone or the source is away.
    pub async fn progress(&self, value: impl Into<Bytes>) -> Result<(), SourceError> {
        self.reporter.progress(self.lease.clone(), value.into()).await
    }

    /// Appends lines to the job's log; each is cut to 4 KiB. Fails if the lease is gone or the source is away.
    pub async fn log<L: AsRef<str>>(&self, lines: impl IntoIterator<Item = L>) -> Result<(), SourceError> {
        let lines = lines
            .into_iter()
            .map(|line| CompactString::from(cut(line.as_ref(), limits::LOG_LINE_BYTES_MAX)))
            .collect();
        self.reporter.log(self.lease.clone(), lines).await
    }
}

pub(crate) fn lease_of(job: &DispatchedJob) -> LeaseRef {
    LeaseRef { job: JobRef { queue: Some(job.queue.clone()), id: job.id.clone() }, token: job.lease_token }
}

type Report<'a, T = ()> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

/// The part of a source that a handler may use, behind a pointer so that [`Context`] needs no type parameter.
pub(crate) trait Reporter: Send + Sync {
    fn progress(&self, lease: LeaseRef, value: Bytes) -> Report<'_>;
    fn log(&self, lease: LeaseRef, lines: Vec<CompactString>) -> Report<'_>;
    fn store_step(&self, lease: LeaseRef, name: CompactString, result: Bytes) -> Report<'_, Option<Step>>;
    fn steps(&self, job: JobRef) -> Report<'_, Vec<Step>>;
}

impl<S: JobSource> Reporter for S {
    fn progress(&self, lease: LeaseRef, value: Bytes) -> Report<'_> {
        Box::pin(JobSource::progress(self, lease, value))
    }

    fn log(&self, lease: LeaseRef, lines: Vec<CompactString>) -> Report<'_> {
        Box::pin(JobSource::log(self, lease, lines))
    }

    fn store_step(&self, lease: LeaseRef, name: CompactString, result: Bytes) -> Report<'_, Option<Step>> {
        Box::pin(JobSource::store_step(self, lease, name, result))
    }

    fn steps(&self, job: JobRef) -> Report<'_, Vec<Step>> {
        Box::pin(JobSource::steps(self, job))
    }
}
