//! Durable steps as a handler uses them: what is stored is not done again, and what must be waited for ends the attempt.

use crate::{Context, SourceError};
use bytes::Bytes;
use compact_str::{CompactString, format_compact};
use kit::Backoff;
use model::{Outcome, StepValue, Until};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::sync::OnceCell;

/// How long a step that could not be stored waits before it is told again.
const TELL_AGAIN: Backoff = Backoff::Exponential { base: 100, cap: 5_000 };

/// What one attempt knows of its job's steps. Empty, and free, until a step is used.
#[derive(Default)]
pub(crate) struct Durable {
    stored: OnceCell<Mutex<BTreeMap<CompactString, StepValue>>>,
    /// How often each name was used in this attempt.
    used: Mutex<BTreeMap<CompactString, u32>>,
    /// How the attempt ends, whatever its handler returns.
    suspended: OnceLock<Box<Outcome>>,
}

impl Durable {
    /// The suspension that ends the attempt, if one was asked for.
    pub(crate) fn suspended(&self) -> Option<Outcome> {
        self.suspended.get().map(|outcome| (**outcome).clone())
    }
}

impl Context {
    /// The name of a step in this attempt: `name` the first time, then `name#2`, `name#3`. A loop that goes round in the same
    /// order at every attempt so finds its own steps again.
    pub fn step_name(&self, name: &str) -> CompactString {
        let mut used = lock(&self.durable().used);
        let times = used.entry(name.into()).or_insert(0);
        *times += 1;
        if *times == 1 { name.into() } else { format_compact!("{name}#{times}") }
    }

    /// What the job has stored under that name. The steps are asked for once in an attempt, and only if there are any.
    ///
    /// # Errors
    /// The source is away.
    pub async fn stored_step(&self, name: &str) -> Result<Option<StepValue>, SourceError> {
        Ok(lock(self.stored_steps().await?).get(name).cloned())
    }

    /// All that the job has stored, by name.
    ///
    /// # Errors
    /// The source is away.
    pub async fn all_stored_steps(&self) -> Result<BTreeMap<CompactString, StepValue>, SourceError> {
        Ok(lock(self.stored_steps().await?).clone())
    }

    async fn stored_steps(&self) -> Result<&Mutex<BTreeMap<CompactString, StepValue>>, SourceError> {
        let ask = async || {
            if self.job().steps == 0 {
                return Ok(Mutex::default());
            }
            let steps = self.reporter().steps(self.lease().job.clone()).await?;
            Ok(Mutex::new(steps.into_iter().map(|step| (step.name, step.value)).collect()))
        };
        self.durable().stored.get_or_try_init(ask).await
    }

    /// Stores the result of a step: at most 1 MiB. Comes back when it is as safe as the source keeps outcomes. While the source is
    /// away it is told again until the attempt is called off: the name makes that harmless. The result that counts is returned,
    /// which is another one if the job has the step already.
    ///
    /// # Errors
    /// It was refused, or the attempt was called off before the source had it.
    pub async fn store_step(&self, name: &str, result: Bytes) -> Result<StepValue, SourceError> {
        let stored = self.stored_steps().await?;
        let mut failures = 0;
        let had = loop {
            match self.reporter().store_step(self.lease().clone(), name.into(), result.clone()).await {
                Ok(had) => break had,
                Err(error @ SourceError::Unavailable { retry_after_ms, .. }) => {
                    failures += 1;
                    let wait =
                        TELL_AGAIN.delay(failures, self.job().lease_token) + retry_after_ms.unwrap_or(10);
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                        _ = self.cancelled().wait() => return Err(error),
                    }
                }
                Err(error) => return Err(error),
            }
        };
        let value = had.map_or(StepValue::Result(result), |step| step.value);
        lock(stored).insert(name.into(), value.clone());
        Ok(value)
    }

    /// Ends this attempt with a suspension, whatever the handler returns from now on: return soon. The first one counts. The job
    /// starts again when `until` has come, and finds it under `step`.
    pub fn suspend(&self, step: impl Into<CompactString>, until: Until) {
        let outcome = Outcome::Suspend { step: step.into(), until };
        // A second one is asked for by the next attempt again.
        let _ = self.durable().suspended.set(Box::new(outcome));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
