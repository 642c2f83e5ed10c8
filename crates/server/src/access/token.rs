//! A token as the server knows it: whose it is, what it is for, where, and until when. One line of text in the file of tokens.

use super::{Right, Role, secret::Fingerprint};
use compact_str::CompactString;
use kit::Timestamp;
use model::QueueName;
use std::{fmt, str::FromStr};

/// Bytes of a token's name.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// Patterns of one token.
pub(super) const PATTERNS_MAX: usize = 64;

/// A line that is no token. The text never repeats a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadToken(pub(super) String);

fn bad<T>(reason: impl Into<String>) -> Result<T, BadToken> {
    Err(BadToken(reason.into()))
}

/// Queues by name: one, or all that begin with the same text. The same patterns as those of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueuePattern {
    /// This one.
    Exactly(QueueName),
    /// All that begin so; empty for all.
    Beginning(CompactString),
}

impl QueuePattern {
    /// Whether the queue is one of them.
    pub fn matches(&self, queue: &QueueName) -> bool {
        match self {
            QueuePattern::Exactly(name) => name == queue,
            QueuePattern::Beginning(text) => queue.as_str().starts_with(text.as_str()),
        }
    }
}

impl FromStr for QueuePattern {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let name = |text: &str| {
            QueueName::new(text).map_err(|error| BadToken(format!("{text:?}, without a *: {error}")))
        };
        match text.strip_suffix('*') {
            None => name(text).map(Self::Exactly),
            Some("") => Ok(Self::Beginning(CompactString::default())),
            Some(beginning) => name(beginning).map(|name| Self::Beginning(name.as_str().into())),
        }
    }
}

impl fmt::Display for QueuePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueuePattern::Exactly(name) => write!(f, "{name}"),
            QueuePattern::Beginning(text) => write!(f, "{text}*"),
        }
    }
}

/// What the server knows of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose it is: what the history says. While a token is rotated, two have the same name. Empty for the one token of the configuration.
    pub name: CompactString,
    /// What it is for; at least one.
    pub roles: Vec<Role>,
    /// Where it counts; empty for everywhere.
    pub queues: Vec<QueuePattern>,
    /// It counts before this moment only.
    pub expires: Option<Timestamp>,
    /// What is kept of its text.
    pub fingerprint: Fingerprint,
    /// What is kept of it as a password of Faktory clients; tokens of older versions have none.
    pub password: Option<Fingerprint>,
}

impl Token {
    /// Whether one of its roles has this right.
    pub fn may(&self, right: Right) -> bool {
        self.roles.iter().any(|role| role.has(right))
    }

    /// Whether it counts for this queue.
    pub fn reaches(&self, queue: &QueueName) -> bool {
        self.queues.is_empty() || self.queues.iter().any(|pattern| pattern.matches(queue))
    }

    /// Whether its time has passed.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Checks a name: 1 to 64 letters, digits and `. _ -`.
///
/// # Errors
/// Anything else: names stand in histories, log lines and commands.
pub(super) fn checked_name(name: &str) -> Result<CompactString, BadToken> {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(known) {
        return bad(format!("the name {name:?} is not 1 to {NAME_BYTES_MAX} letters, digits and . _ -"));
    }
    Ok(name.into())
}

/// Reads words between commas, each only once.
fn words<T: FromStr<Err = BadToken> + PartialEq>(text: &str) -> Result<Vec<T>, BadToken> {
    let mut all = Vec::new();
    for word in text.split(',') {
        let one = word.parse()?;
        if !all.contains(&one) {
            all.push(one);
        }
    }
    Ok(all)
}

impl FromStr for Role {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let names = Role::ALL.map(Role::name).join(", ");
        let known = Role::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or_else(|| BadToken(format!("{text:?} is no role; there are {names}")))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    /// Reads `name roles queues expires sha256 password`, where the last may be missing.
    fn from_str(line: &str) -> Result<Self, BadToken> {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let (fields, password) = match fields[..] {
            [ref fields @ .., password] if fields.len() == 5 => (fields, Some(password)),
            ref fields => (fields, None),
        };
        let [name, roles, queues, expires, fingerprint] = fields[..] else {
            return bad(format!(
                "has {} fields; a token has 5 or 6: name, roles, queues, expires, sha256, password",
                fields.len()
            ));
        };
        let queues: Vec<QueuePattern> = words(queues)?;
        if queues.len() > PATTERNS_MAX {
            return bad(format!("a token has at most {PATTERNS_MAX} patterns of queues"));
        }
        let everywhere = queues.contains(&QueuePattern::Beginning(CompactString::default()));
        let expires = match expires {
            "never" => None,
            time => Some(time.parse().map_err(|_| {
                BadToken(format!("{time:?} is not `never` and not a time such as 2027-01-31T00:00:00Z"))
            })?),
        };
        let digits = |text: &str| {
            let digits = Fingerprint::parse(text);
            digits.ok_or_else(|| BadToken("a hash is not 64 hexadecimal digits in lower case".to_owned()))
        };
        let (fingerprint, password) = (digits(fingerprint)?, password.map(digits).transpose()?);
        Ok(Self {
            name: checked_name(name)?,
            roles: words(roles)?,
            queues: if everywhere { Vec::new() } else { queues },
            expires,
            fingerprint,
            password,
        })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {} {}",
            self.name,
            self.roles_text(),
            self.queues_text(),
            self.expires_text(),
            self.fingerprint
        )?;
        self.password.map_or(Ok(()), |password| write!(f, " {password}"))
    }
}

impl Token {
    /// Its roles, as they stand in the file.
    pub fn roles_text(&self) -> String {
        let names: Vec<_> = self.roles.iter().map(|role| role.name()).collect();
        names.join(",")
    }

    /// Its queues, as they stand in the file.
    pub fn queues_text(&self) -> String {
        let names: Vec<_> = self.queues.iter().map(QueuePattern::to_string).collect();
        if names.is_empty() { "*".to_owned() } else { names.join(",") }
    }

    /// Its end, as it stands in the file.
    pub fn expires_text(&self) -> String {
        self.expires.map_or_else(|| "never".to_owned(), |expires| expires.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rest: &str) -> String {
        format!("{rest} {}", Fingerprint::of(b"x"))
    }

    #[test]
    fn a_line_is_read_and_written_back() {
        for text in [
            "web producer mail,sms.* never",
            "ops admin * 2027-01-31T00:00:00Z",
            "both producer,worker a:b never",
        ] {
            let token: Token = line(text).parse().unwrap();
            assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
            assert!(token.to_string().starts_with(text.split_once(' ').unwrap().0));
            let with_password = Token { password: Some(Fingerprint::of_password(b"x")), ..token.clone() };
            let read: Token = with_password.to_string().parse().unwrap();
            assert!(read == with_password && read != token);
        }
    }

    #[test]
    fn what_is_no_token_is_named_and_never_repeated() {
        for (text, part) in [
            ("web producer mail", "4 fields"),
            ("w/b producer mail never", "the name"),
            ("web boss mail never", "is no role"),
            ("web producer,, mail never", "is no role"),
            ("web producer m*il never", "queue name"),
            ("web producer mail soon", "is not `never`"),
        ] {
            let error = line(text).parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains(&Fingerprint::of(b"x").to_string()), "{error}");
        }
        let secret = "web producer mail never canary-of-a-secret";
        assert!(!secret.parse::<Token>().unwrap_err().to_string().contains("canary"));
    }

    #[test]
    fn a_pattern_reaches_what_begins_like_it_and_a_name_only_itself() {
        let token: Token = line("web producer mail,sms.* never").parse().unwrap();
        for (queue, reached) in
            [("mail", true), ("mail2", false), ("sms.eu", true), ("sms.", true), ("sms", false)]
        {
            assert_eq!(token.reaches(&QueueName::new(queue).unwrap()), reached, "{queue}");
        }
        let everywhere: Token = line("web producer mail,* never").parse().unwrap();
        assert!(everywhere.queues.is_empty());
    }
}
