use crate::{Error, Pond};
use model::{Command, Envelope, JobRef, Reply, State};
use serde::Serialize;
use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

/// What became of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signalled {
    /// The job's state now.
    pub state: State,
    /// True if the job does not wait for it yet: it is kept until the job does.
    pub buffered: bool,
}

/// A signal being put together; `.await` sends it.
#[must_use = "a signal is not sent until it is awaited"]
pub struct Signal {
    pond: Pond,
    command: Result<Command, Error>,
    idempotency_key: Option<String>,
}

impl Signal {
    pub(crate) fn new(pond: Pond, job: JobRef, name: &str, body: impl Serialize) -> Self {
        let command = serde_json::to_vec(&body)
            .map(|body| Command::Signal { job, name: name.into(), body: body.into() })
            .map_err(Error::from);
        Self { pond, command, idempotency_key: None }
    }

    /// For 24 hours a signal with the same key and content is sent once: repeat it after a doubtful answer.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

impl IntoFuture for Signal {
    type Output = Result<Signalled, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let inner = &self.pond.inner;
            let envelope = Envelope {
                actor: inner.actor.clone(),
                idempotency_key: self.idempotency_key.map(Into::into),
                command: self.command?,
            };
            match inner.backend.call(envelope, inner.level).await?.reply {
                Reply::Signalled { state, buffered } => Ok(Signalled { state, buffered }),
                _ => Err(Error::Mismatch),
            }
        })
    }
}
