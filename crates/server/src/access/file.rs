//! The file of tokens: one a line, comments kept.
//!
//! ```text
//! # name  roles      queues      expires                sha256  password
//! web     producer   mail,sms.*  never                  ba78…   9d1f…
//! web     producer   mail,sms.*  2026-12-01T00:00:00Z   cb81…   e002…
//! ```

use super::{
    secret::SecretToken,
    token::{BadToken, Token},
};
use kit::Timestamp;
use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

/// Tokens of one file. Each call is compared with all of them.
pub(super) const TOKENS_MAX: usize = 1_000;
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 4 << 20;
const HEAD: &str = "# Tokens of a Millpond server, one a line; of each only its SHA-256 is kept. Change it with `millpond token`.\n\
                    # name roles queues expires sha256 password";

/// A file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A line is no token.
    #[error("{path}, line {line}: {source}")]
    BadLine {
        /// Of which file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        source: BadToken,
    },
    /// It is not what a file of tokens may be.
    #[error("{path}: {reason}")]
    Unfit {
        /// Which.
        path: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

#[derive(Debug, Clone)]
struct Line {
    text: String,
    token: Option<Token>,
}

impl Line {
    fn of(token: Token) -> Self {
        Self { text: token.to_string(), token: Some(token) }
    }
}

/// What a file of tokens holds.
#[derive(Debug, Clone, Default)]
pub struct TokenFile {
    lines: Vec<Line>,
}

impl TokenFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It is not there, too large, open to changes by everybody, or has a line that is no token.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let shown = path.display().to_string();
        let io = |source| TokenFileError::Io { path: shown.clone(), source };
        let unfit = |reason: &str| TokenFileError::Unfit { path: shown.clone(), reason: reason.to_owned() };
        let metadata = fs::metadata(path).map_err(io)?;
        if metadata.len() > FILE_BYTES_MAX {
            return Err(unfit("is larger than 4 MiB: that is no file of tokens"));
        }
        #[cfg(unix)]
        if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o002 != 0 {
            return Err(unfit("everybody on this machine may change it; say `chmod o-w`"));
        }
        let text = fs::read_to_string(path).map_err(io)?;
        let file = Self::parse(&text).map_err(|(line, source)| TokenFileError::BadLine {
            path: shown.clone(),
            line,
            source,
        })?;
        if file.tokens().count() > TOKENS_MAX {
            return Err(unfit(&format!("holds more than {TOKENS_MAX} tokens")));
        }
        Ok(file)
    }

    fn parse(text: &str) -> Result<Self, (usize, BadToken)> {
        let mut lines = Vec::new();
        for (at, text) in text.lines().enumerate() {
            let content = text.trim();
            let token = match content.is_empty() || content.starts_with('#') {
                true => None,
                false => Some(content.parse().map_err(|error| (at + 1, error))?),
            };
            lines.push(Line { text: text.to_owned(), token });
        }
        Ok(Self { lines })
    }

    /// Its tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = &Token> {
        self.lines.iter().filter_map(|line| line.token.as_ref())
    }

    /// Adds one at the end.
    pub fn add(&mut self, token: Token) {
        if self.lines.is_empty() {
            self.lines.extend(HEAD.lines().map(|line| Line { text: line.to_owned(), token: None }));
        }
        self.lines.push(Line::of(token));
    }

    /// Takes the tokens of this name away, or only the one whose id begins so. How many were there.
    pub fn revoke(&mut self, name: &str, id: Option<&str>) -> usize {
        let before = self.lines.len();
        self.lines.retain(|line| {
            !line.token.as_ref().is_some_and(|token| {
                token.name == name && id.is_none_or(|id| token.fingerprint.to_string().starts_with(id))
            })
        });
        before - self.lines.len()
    }

    /// Gives the holder of a name a new token like the newest one. The older ones count until `until`, or less long if they would have
    /// ended before. `None` if nobody has this name.
    pub fn rotate(
        &mut self,
        name: &str,
        secret: &SecretToken,
        expires: Option<Timestamp>,
        until: Timestamp,
    ) -> Option<&Token> {
        let newest = self.tokens().filter(|token| token.name == name).last()?.clone();
        for line in &mut self.lines {
            if let Some(token) = line.token.as_mut().filter(|token| token.name == name) {
                token.expires = Some(token.expires.map_or(until, |expires| expires.min(until)));
                line.text = token.to_string();
            }
        }
        let (fingerprint, password) = (secret.fingerprint(), Some(secret.password()));
        self.add(Token { expires, fingerprint, password, ..newest });
        self.lines.last()?.token.as_ref()
    }

    /// Writes the file whole or not at all; only its owner can read a new one.
    ///
    /// # Errors
    /// It cannot be written, or somebody else is writing it.
    pub fn write(&self, path: &Path) -> Result<(), TokenFileError> {
        let io = |path: &Path| {
            let path = path.display().to_string();
            move |source| TokenFileError::Io { path, source }
        };
        // Its being there keeps others out.
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => TokenFileError::Unfit {
                path: draft.display().to_string(),
                reason: "another `millpond token` is writing, or was cut off; if none is, remove this file"
                    .to_owned(),
            },
            _ => io(&draft)(source),
        })?;
        let written = self.write_to(&mut file).and_then(|()| {
            // Who may read the file is its owner's choice, not ours.
            if let Ok(metadata) = fs::metadata(path) {
                file.set_permissions(metadata.permissions())?;
            }
            file.sync_all()?;
            fs::rename(&draft, path)
        });
        written.map_err(|source| {
            // The draft is of no use to anybody.
            let _ = fs::remove_file(&draft);
            io(path)(source)
        })
    }

    fn write_to(&self, file: &mut fs::File) -> io::Result<()> {
        let text: String = self.lines.iter().map(|line| format!("{}\n", line.text)).collect();
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Fingerprint;

    fn token(line: &str, secret: &[u8]) -> Token {
        format!("{line} {}", Fingerprint::of(secret)).parse().unwrap()
    }

    #[test]
    fn a_file_keeps_its_comments_and_says_which_line_is_wrong() {
        let text = format!("# ours\n\n{}\n# theirs\n", token("web producer mail never", b"1"));
        let mut file = TokenFile::parse(&text).unwrap();
        file.add(token("ops admin * never", b"2"));
        assert_eq!(file.revoke("web", Some("ffff")), 0);
        assert_eq!(file.revoke("web", None), 1);
        let rest: Vec<_> = file.lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(rest[..3], ["# ours", "", "# theirs"]);
        assert_eq!(file.tokens().count(), 1);
        assert_eq!(TokenFile::parse("# a\nb\n").unwrap_err().0, 2);
    }

    #[test]
    fn a_rotation_leaves_the_older_token_its_overlap_and_never_more() {
        let mut file = TokenFile::default();
        file.add(token("web producer,worker mail never", b"1"));
        let (first, second) = (SecretToken::generate().unwrap(), SecretToken::generate().unwrap());
        assert!(file.rotate("nobody", &first, None, Timestamp(1_000)).is_none());
        file.rotate("web", &first, None, Timestamp(5_000)).unwrap();
        let newest = file.rotate("web", &second, Some(Timestamp(90_000)), Timestamp(7_000)).unwrap().clone();
        let ends: Vec<_> = file.tokens().map(|token| token.expires).collect();
        assert_eq!(ends, [Some(Timestamp(5_000)), Some(Timestamp(7_000)), Some(Timestamp(90_000))]);
        assert_eq!(
            (newest.roles_text().as_str(), newest.queues_text().as_str()),
            ("producer,worker", "mail")
        );
        assert!(newest.fingerprint.matches(&second.fingerprint()));
    }

    #[test]
    fn a_file_is_written_whole_and_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let mut file = TokenFile::default();
        file.add(token("web producer mail never", b"1"));
        file.write(&path).unwrap();
        assert_eq!(TokenFile::read(&path).unwrap().tokens().count(), 1);
        fs::write(folder.path().join("tokens.new"), "").unwrap();
        assert!(file.write(&path).unwrap_err().to_string().contains("is writing"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o606)).unwrap();
            assert!(TokenFile::read(&path).unwrap_err().to_string().contains("chmod"));
        }
    }
}
