use crate::{Error, Join};
use model::{ErrorInfo, NewJob};
use serde::Serialize;
use std::{fmt::Display, time::Duration};
use workers::Verdict;

/// What a handler wants to happen. `Ok(value)` and `Err(error)` say most of it; this says the rest.
#[derive(Debug, Clone)]
pub struct Outcome(Verdict);

impl Outcome {
    /// Done, with a result that is kept with the job.
    pub fn done(result: impl Serialize) -> Self {
        match serde_json::to_vec(&result) {
            Ok(json) => Self::of(model::Outcome::Done { result: (json != b"null").then(|| json.into()) }),
            Err(why) => {
                Self::of(model::Outcome::Fail { error: workers::error("encode", &why.to_string(), "") })
            }
        }
    }

    /// Failed; try again by the job's backoff, while attempts are left.
    pub fn retry(error: impl Display) -> Self {
        Self::of(model::Outcome::Retry { error: told(&error), after_ms: None })
    }

    /// Failed; try again after `delay`, while attempts are left.
    pub fn retry_after(error: impl Display, delay: Duration) -> Self {
        Self::of(model::Outcome::Retry { error: told(&error), after_ms: Some(crate::push::millis(delay)) })
    }

    /// Failed for good: dead now.
    pub fn fail(error: impl Display) -> Self {
        Self::of(model::Outcome::Fail { error: told(&error) })
    }

    /// Later; no attempt is used.
    pub fn snooze(delay: Duration) -> Self {
        Self::of(model::Outcome::Snooze { after_ms: crate::push::millis(delay) })
    }

    /// What it needs is busy: the whole queue is left alone for `delay`, the job waits on, and no attempt is used.
    pub fn rate_limited(delay: Duration) -> Self {
        Self::of(model::Outcome::RateLimited { key: None, after_ms: crate::push::millis(delay) })
    }

    /// The same for one of the job's limits: jobs that do not name it go on.
    pub fn rate_limited_by(key: impl Into<String>, delay: Duration) -> Self {
        let key = Some(key.into().into());
        Self::of(model::Outcome::RateLimited { key, after_ms: crate::push::millis(delay) })
    }

    /// A process that the handler ran died: counted apart from errors, no attempt is used, and after `max_crashes` the job is in
    /// quarantine. The end of `stderr` is kept with the job.
    pub fn crash(status: std::process::ExitStatus, stderr: &str) -> Self {
        Self::of(model::Outcome::Crash(workers::process::crash_of(status, stderr)))
    }

    /// Called off by its own handler.
    pub fn cancel(reason: impl Display) -> Self {
        Self::of(model::Outcome::Cancel { reason: reason.to_string().into() })
    }

    /// Adds the jobs of the join and gives the worker back; no attempt is used. When the join ends, the job is handed out again with
    /// [`crate::Job::children`].
    pub fn wait(join: Join) -> Self {
        match join.into_graph() {
            Ok(children) => Self::of(model::Outcome::Wait { children }),
            Err(why) => {
                Self::of(model::Outcome::Fail { error: workers::error("encode", &why.to_string(), "") })
            }
        }
    }

    /// Pushes a further job in the same atomic change: it exists exactly if this outcome is kept. See [`crate::Push::job`].
    #[must_use]
    pub fn push(mut self, job: NewJob) -> Self {
        self.0.push.push(job);
        self
    }

    /// What it is, in the word of the HTTP interface: `done`, `retry`, `fail`, `snooze`, …
    pub const fn name(&self) -> &'static str {
        self.0.outcome.name()
    }

    /// What a failed attempt says.
    pub fn error(&self) -> Option<&str> {
        match &self.0.outcome {
            model::Outcome::Retry { error, .. } | model::Outcome::Fail { error } => Some(&error.message),
            _ => None,
        }
    }

    pub(crate) fn decode(error: &serde_json::Error) -> Self {
        let error = workers::error("decode", &format!("the body is not what the handler takes: {error}"), "");
        Self::of(model::Outcome::Fail { error })
    }

    pub(crate) fn into_verdict(self) -> Verdict {
        self.0
    }

    fn of(outcome: model::Outcome) -> Self {
        Self(outcome.into())
    }
}

/// The error as people read it, with its causes where it knows them; its type's name is the kind.
fn told<E: Display>(error: &E) -> ErrorInfo {
    let path = std::any::type_name::<E>();
    let name = path.split('<').next().unwrap_or(path).rsplit("::").next().unwrap_or(path);
    let kind = if matches!(name, "String" | "str" | "&str" | "Box") { "error" } else { name };
    workers::error(kind, &format!("{error:#}"), "")
}

/// What a handler may return.
pub trait IntoOutcome {
    /// The outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::done(())
    }
}

/// The value is the result; an error is a retry.
impl<T: Serialize, E: Display> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(result) => Outcome::done(result),
            Err(error) => Outcome::retry(error),
        }
    }
}

impl<E: Display> IntoOutcome for Result<Outcome, E> {
    fn into_outcome(self) -> Outcome {
        self.unwrap_or_else(Outcome::retry)
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        Self::retry(error)
    }
}
