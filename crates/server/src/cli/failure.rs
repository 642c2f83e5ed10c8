//! How a command ends when it does not end well, and the exit code of each way.

use crate::client::{BadUrl, ClientError};
use std::process::ExitCode;

/// Why a command did not do all that it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server said no, or nothing sensible.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The command line, or a file that it names, makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Some of it was done; the rest is named.
    #[error("{0}")]
    Partial(String),
    /// Ctrl-C.
    #[error("{0}")]
    Interrupted(String),
    /// A check of ours found something wrong.
    #[error("{0}")]
    Check(String),
    /// Data on a disk is not what was written.
    #[error("{0}")]
    Damaged(String),
}

impl Failure {
    /// A file could not be used.
    pub(crate) fn file(path: &std::path::Path, what: &str, error: &std::io::Error) -> Self {
        Self::Usage(format!("cannot {what} {}: {error}", path.display()))
    }

    /// What a script sees; documented in `docs/cli.md`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Client(ClientError::Unreachable { .. } | ClientError::NoAnswer { .. }) => 3,
            Self::Client(_) | Self::Check(_) => 1,
            Self::Usage(_) => 2,
            Self::Partial(_) => 4,
            Self::Damaged(_) => 5,
            Self::Interrupted(_) => 130,
        })
    }

    /// What to do about it, if there is something to say.
    pub(crate) fn help(&self) -> Option<String> {
        match self {
            Self::Client(ClientError::Unreachable { .. }) => {
                Some("start one with `millpond serve`, or name another with --url or MILLPOND_URL".to_owned())
            }
            Self::Client(ClientError::Refused(problem)) if !problem.help.is_empty() => {
                Some(problem.help.clone())
            }
            Self::Client(ClientError::Refused(problem)) if matches!(problem.status, 401 | 403) => {
                Some("give a token with --token, MILLPOND_TOKEN or MILLPOND_TOKEN_FILE".to_owned())
            }
            _ => None,
        }
    }
}

impl From<BadUrl> for Failure {
    fn from(error: BadUrl) -> Self {
        Self::Usage(error.to_string())
    }
}
