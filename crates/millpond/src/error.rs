use model::{BadName, Reject};

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pond could not be opened.
    #[error(transparent)]
    Open(#[from] node::OpenError),
    /// The pond did not take the call; the text says whether it may have happened.
    #[error(transparent)]
    Call(node::CallError),
    /// A refusal: it changed nothing.
    #[error(transparent)]
    Refused(#[from] Reject),
    /// A name is not allowed.
    #[error(transparent)]
    Name(#[from] BadName),
    /// A value could not be written as JSON.
    #[error("a value could not be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// A worker could not be started.
    #[error("the worker could not be started: {0}")]
    Start(std::io::Error),
    /// The job is no longer this attempt's, or the pond is away.
    #[error(transparent)]
    Report(#[from] workers::SourceError),
    /// The address of a server is none.
    #[error("{url}: {reason}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it, and what is right.
        reason: String,
    },
    /// Nobody can be believed to be the server: the certificates that it is judged by cannot be read.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Trust(#[from] crate::remote::TrustError),
    /// The server is away. Nothing was changed; the link is made again by itself.
    #[error("the server does not answer ({0}); nothing was changed")]
    Away(String),
    /// The server refused; nothing was changed.
    #[error("the server refused ({code}): {detail}")]
    Server {
        /// Stable; see the page of errors.
        code: String,
        /// For people.
        detail: String,
    },
    /// A mistake of ours: the pond answered another question.
    #[error("the pond gave an answer of the wrong kind; please report this")]
    Mismatch,
    /// The thread that opened the pond ended.
    #[error("opening the pond was interrupted; try again")]
    Interrupted,
}

impl From<node::CallError> for Error {
    fn from(error: node::CallError) -> Self {
        match error {
            node::CallError::Refused(reject) => Self::Refused(reject),
            other => Self::Call(other),
        }
    }
}
