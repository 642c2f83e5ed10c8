//! What a client is answered: a simple text, a bulk of bytes or an error, as Redis writes them.

use crate::http::Problem;
use model::Reject;
use node::CallError;

/// An answer to one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// `+OK`
    Ok,
    /// `+` and a text.
    Text(String),
    /// A length and so many bytes.
    Bulk(Vec<u8>),
    /// Nothing to be had.
    Nothing,
    /// `-` and why.
    Error(Refusal),
}

/// Why something was refused. Clients tell by the first word what they can handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    word: &'static str,
    text: String,
}

impl Refusal {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { word: "ERR", text: text.into() }
    }

    /// Another job holds the unique key.
    pub(super) fn not_unique() -> Self {
        Self { word: "NOTUNIQUE", text: "Job not unique".to_owned() }
    }

    /// What is told of a job in a list of several.
    pub(super) fn line(&self) -> String {
        match self.word {
            "ERR" => self.text.clone(),
            word => format!("{word} {}", self.text),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::new(problem.detail())
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(Reject::UniqueConflict { .. }) => Self::not_unique(),
            other => Self::new(other.to_string()),
        }
    }
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Self {
        CallError::Refused(reject).into()
    }
}

impl From<model::BadName> for Refusal {
    fn from(error: model::BadName) -> Self {
        Self::new(error.to_string())
    }
}

impl Answer {
    /// The bytes on the wire.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Answer::Ok => b"+OK\r\n".to_vec(),
            Answer::Text(text) => format!("+{}\r\n", one_line(&text)).into_bytes(),
            Answer::Bulk(bytes) => {
                let mut all = format!("${}\r\n", bytes.len()).into_bytes();
                all.extend_from_slice(&bytes);
                all.extend_from_slice(b"\r\n");
                all
            }
            Answer::Nothing => b"$-1\r\n".to_vec(),
            Answer::Error(refusal) => {
                format!("-{} {}\r\n", refusal.word, one_line(&refusal.text)).into_bytes()
            }
        }
    }
}

/// A text may repeat what a client sent, and its line must stay one.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_written_as_redis_writes_them() {
        for (answer, bytes) in [
            (Answer::Ok, "+OK\r\n"),
            (Answer::Text("b-1".into()), "+b-1\r\n"),
            (Answer::Bulk(b"{}".to_vec()), "$2\r\n{}\r\n"),
            (Answer::Bulk(Vec::new()), "$0\r\n\r\n"),
            (Answer::Nothing, "$-1\r\n"),
            (Answer::Error(Refusal::new("no\r\n+OK")), "-ERR no  +OK\r\n"),
            (Answer::Error(Refusal::not_unique()), "-NOTUNIQUE Job not unique\r\n"),
        ] {
            assert_eq!(String::from_utf8(answer.into_bytes()).unwrap(), bytes);
        }
    }
}
