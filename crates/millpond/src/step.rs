//! Durable steps. A handler runs from its top at every attempt; what is stored under a name is not done again.

use crate::{Error, Job};
use bytes::Bytes;
use model::{ErrorInfo, JobId, NewJob, State, StepValue, Until};
use serde::{Serialize, de::DeserializeOwned};
use std::{error::Error as StdError, future::Future, time::Duration};

/// Why a step gives nothing back. Pass it on with `?`: the runtime knows what to do.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Not a failure: the job has given its worker back and starts again when what it waits for has come. The attempt ends here,
    /// whatever the handler returns now, and is not counted.
    #[error("the job is suspended in step {0}; pass this on with `?`")]
    Suspended(String),
    /// The step itself failed, and nothing of it is stored: the attempt fails as with any error.
    #[error("step {name}: {source}")]
    Failed {
        /// Which.
        name: String,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The pond could not be asked, or refused to store the step.
    #[error(transparent)]
    Pond(#[from] Error),
    /// What is stored under the name is not what this step gives: the code changed, or two steps share a name.
    #[error(
        "step {name} is stored with another kind of value ({reason}); give changed steps new names, or restart the job"
    )]
    Mismatch {
        /// Which.
        name: String,
        /// What does not fit.
        reason: String,
    },
}

/// How a child job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Its id.
    pub id: JobId,
    /// Its final state; `None` if it was removed before it had one.
    pub state: Option<State>,
    /// What its handler returned, as JSON.
    pub result: Option<Bytes>,
    /// Why it failed or was called off.
    pub error: Option<ErrorInfo>,
}

impl Child {
    /// What its handler returned.
    ///
    /// # Errors
    /// The child did not complete, or returned something else.
    pub fn result<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        let name = || format!("child {}", self.id);
        if self.state != Some(State::Completed) {
            let how = self.state.map_or("removed", State::name);
            let why = self.error.as_ref().map_or(String::new(), |error| format!(": {}", error.message));
            return Err(StepError::Failed { name: name(), source: format!("it ended {how}{why}").into() });
        }
        decode(&name(), self.result.as_deref().unwrap_or(b"null"))
    }
}

impl Job {
    /// Does something once in the job's life. The first time `run` is called and its result stored; later attempts get the stored
    /// result and do not call it. If it fails, nothing is stored and the attempt fails.
    ///
    /// Used again under the same name in one attempt, as in a loop, the step is called `name#2`, `name#3`.
    /// `run` may still happen twice if the process dies between its end and its storing: use [`Job::id`] to make that harmless.
    ///
    /// ```
    /// # async fn charge(_: &str) -> Result<String, std::io::Error> { Ok("ch_1".into()) }
    /// # async fn handler(order: String, job: millpond::Job) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// let charge_id: String = job.step("charge", || charge(&order)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn step<T, E, F>(&self, name: &str, run: impl FnOnce() -> F) -> Result<T, StepError>
    where
        T: Serialize + DeserializeOwned,
        E: Into<Box<dyn StdError + Send + Sync>>,
        F: Future<Output = Result<T, E>>,
    {
        let (name, stored) = self.stored(name).await?;
        let value = match stored {
            Some(value) => value,
            None => {
                let value = run()
                    .await
                    .map_err(|error| StepError::Failed { name: name.clone(), source: error.into() })?;
                let result = serde_json::to_vec(&value).map_err(Error::from)?;
                self.0.store_step(&name, result.into()).await.map_err(Error::from)?
            }
        };
        match value {
            StepValue::Result(json) => decode(&name, &json),
            other => Err(mismatch(&name, other.kind())),
        }
    }

    /// Sleeps without a worker: the job is delayed and started again after `span`, at most ten years. No attempt is used.
    pub async fn sleep(&self, name: &str, span: Duration) -> Result<(), StepError> {
        let (name, stored) = self.stored(name).await?;
        match stored {
            Some(StepValue::Slept { .. }) => Ok(()),
            Some(other) => Err(mismatch(&name, other.kind())),
            None => Err(self.suspended(name, Until::Time { after_ms: crate::push::millis(span) })),
        }
    }

    /// Waits without a worker until somebody signals the job: [`crate::Queue::signal`], the command line, HTTP. `None` if it did not
    /// come within `timeout`; zero means a day, and ten years are the most. A signal that came before counts.
    pub async fn wait_for_signal<T: DeserializeOwned>(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<Option<T>, StepError> {
        let (step, stored) = self.stored(name).await?;
        match stored {
            Some(StepValue::Signal(json)) => decode(&step, &json).map(Some),
            Some(StepValue::TimedOut) => Ok(None),
            Some(other) => Err(mismatch(&step, other.kind())),
            None => {
                let timeout_ms = crate::push::millis(timeout);
                Err(self.suspended(step, Until::Signal { name: name.into(), timeout_ms }))
            }
        }
    }

    /// Pushes a job and waits without a worker until it ends, however it ends. It is pushed once, however often this job starts.
    /// See [`crate::Push::job`].
    pub async fn child(&self, name: &str, child: NewJob) -> Result<Child, StepError> {
        let (name, stored) = self.stored(name).await?;
        match stored {
            Some(StepValue::Child { id, end: Some(end), .. }) => {
                Ok(Child { id, state: end.state, result: end.result, error: end.error })
            }
            None | Some(StepValue::Child { end: None, .. }) => {
                Err(self.suspended(name, Until::Child { job: Box::new(child) }))
            }
            Some(other) => Err(mismatch(&name, other.kind())),
        }
    }

    /// The name of a step in this attempt, and what is stored under it.
    async fn stored(&self, name: &str) -> Result<(String, Option<StepValue>), StepError> {
        let name = self.0.step_name(name);
        let stored = self.0.stored_step(&name).await.map_err(Error::from)?;
        Ok((name.into(), stored))
    }

    fn suspended(&self, step: String, until: Until) -> StepError {
        self.0.suspend(step.as_str(), until);
        StepError::Suspended(step)
    }
}

fn decode<T: DeserializeOwned>(name: &str, json: &[u8]) -> Result<T, StepError> {
    serde_json::from_slice(json).map_err(|why| mismatch(name, &why.to_string()))
}

fn mismatch(name: &str, reason: &str) -> StepError {
    StepError::Mismatch { name: name.into(), reason: reason.into() }
}
