use std::{fmt::Display, io, process::ExitStatus, time::Duration};

/// What keeps a peer, or one of its cells, from being measured. The others go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A package, or the tool that fetches it, is missing.
    #[error("cannot get {what}: {why}")]
    NotObtainable { what: String, why: String },
    /// A server gave up, such as for a port that another took first.
    #[error("{program} ended with {status} before it was ready; it wrote: {output}")]
    Ended { program: String, status: ExitStatus, output: String },
    /// A server neither ended nor answered.
    #[error("{program} took no connection within {within:?}; it wrote: {output}")]
    NotReady { program: String, within: Duration, output: String },
    /// The work did not end.
    #[error("{done} of {jobs} jobs were done within {within:?}")]
    Stuck { done: u64, jobs: u64, within: Duration },
    /// The peer counts another number of jobs than there should be.
    #[error("{waiting} jobs wait at the peer, where {expected} should")]
    Count { waiting: u64, expected: u64 },
    /// Jobs became due while they were still being pushed.
    #[error("pushing took until after the jobs were due")]
    DueTooSoon,
    /// What the peer's client says, or the peer itself.
    #[error("{0}")]
    Client(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Any client's own error.
    pub(crate) fn client(error: impl Display) -> Self {
        Self::Client(error.to_string())
    }
}
