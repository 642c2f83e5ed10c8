use crate::limits;
use compact_str::CompactString;
use core::fmt;
use kit::{Timestamp, random::mix};

/// A name was refused; the text says why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {reason}")]
pub struct BadName {
    /// What kind of name it was meant to be.
    pub what: &'static str,
    /// Why it is refused.
    pub reason: &'static str,
}

/// The name of a queue: 1 to 128 bytes of letters, digits and `. _ - :`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(CompactString);

impl QueueName {
    /// Checks and takes a name.
    ///
    /// ```
    /// assert!(model::QueueName::new("mail.eu").is_ok());
    /// assert!(model::QueueName::new("no spaces").is_err());
    /// ```
    pub fn new(name: &str) -> Result<Self, BadName> {
        let bad = |reason| Err(BadName { what: "a queue name", reason });
        if name.is_empty() {
            return bad("must not be empty");
        }
        if name.len() > limits::QUEUE_NAME_BYTES_MAX {
            return bad("has at most 128 bytes");
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':')) {
            return bad("has only letters, digits and . _ - :");
        }
        Ok(Self(CompactString::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Who asked: a client's or a worker's name, for the history. At most 255 bytes; longer ones are cut.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Actor(CompactString);

impl Actor {
    /// Takes a name, cut to 255 bytes at a character boundary, control characters replaced.
    pub fn new(name: &str) -> Self {
        let mut end = name.len().min(limits::ID_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let name = &name[..end];
        if name.chars().any(char::is_control) {
            return Self(name.chars().map(|c| if c.is_control() { '?' } else { c }).collect());
        }
        Self(CompactString::from(name))
    }

    /// The name as text; empty where nobody is named.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A job's id, unique within its queue: a UUID (ours are version 7) or any text of 1 to 255 bytes that a client chose.
///
/// A generated id holds the time of the push, the shard and the job's sequence number, so it is found without an index:
///
/// ```text
///  48 bits          4    12     2   46          16
/// +----------------+---+------+---+-----------+-------+
/// | Unix ms        | 7 |shard |0b10| sequence | check |
/// +----------------+---+------+---+-----------+-------+
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobId {
    /// Written as a lower-case UUID.
    Uuid(u128),
    /// Anything else.
    Text(CompactString),
}

impl JobId {
    /// The id that shard `shard` gives its `sequence`-th job, pushed at `at`.
    pub const fn generated(at: Timestamp, shard: u16, sequence: u64) -> Self {
        let sequence = sequence & ((1 << 46) - 1);
        let check = mix(at.0 ^ sequence, shard as u64) & 0xffff;
        Self::Uuid(
            ((at.0 as u128 & 0xffff_ffff_ffff) << 80)
                | (0x7 << 76)
                | ((shard as u128 & 0xfff) << 64)
                | (0b10 << 62)
                | ((sequence as u128) << 16)
                | check as u128,
        )
    }

    /// Shard and sequence number, if this has the form of a generated id.
    pub fn parts(&self) -> Option<(u16, u64)> {
        let Self::Uuid(bits) = *self else { return None };
        let at = Timestamp((bits >> 80) as u64);
        let shard = ((bits >> 64) & 0xfff) as u16;
        let sequence = ((bits >> 16) as u64) & ((1 << 46) - 1);
        (*self == Self::generated(at, shard, sequence)).then_some((shard, sequence))
    }

    /// Reads an id: canonical lower-case UUIDs become [`JobId::Uuid`], everything else stays text.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let bad = |reason| Err(BadName { what: "a job id", reason });
        if text.is_empty() {
            return bad("must not be empty");
        }
        if text.len() > limits::ID_BYTES_MAX {
            return bad("has at most 255 bytes");
        }
        if text.chars().any(char::is_control) {
            return bad("must not hold control characters");
        }
        Ok(parse_uuid(text).map_or_else(|| Self::Text(CompactString::from(text)), Self::Uuid))
    }
}

fn parse_uuid(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut bits: u128 = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let digit = match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        bits = bits << 4 | u128::from(digit);
    }
    Some(bits)
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Uuid(bits) => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let mut out = [b'-'; 36];
                let mut shift = 128;
                for (at, slot) in out.iter_mut().enumerate() {
                    if !matches!(at, 8 | 13 | 18 | 23) {
                        shift -= 4;
                        *slot = HEX[(bits >> shift) as usize & 0xf];
                    }
                }
                f.write_str(core::str::from_utf8(&out).map_err(|_| fmt::Error)?)
            }
        }
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one job. A generated id is enough alone; a given one needs its queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobRef {
    /// The queue, if the caller named it; a job of that id in another queue is then not found.
    pub queue: Option<QueueName>,
    /// The id.
    pub id: JobId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_ids_are_version_7_uuids_that_sort_by_arrival_and_read_back() {
        let id = JobId::generated(Timestamp(1_767_323_045_678), 5, 77);
        let text = id.to_string();
        assert_eq!(JobId::parse(&text), Ok(id.clone()));
        assert_eq!(id.parts(), Some((5, 77)));
        assert_eq!(&text[14..15], "7");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        assert!(JobId::generated(Timestamp(1_767_323_045_678), 5, 78) > id);
    }

    #[test]
    fn other_uuids_and_upper_case_are_not_taken_for_ours() {
        let foreign = JobId::parse("0192f7a1-7b3c-7def-8123-456789abcdef").unwrap();
        assert!(matches!(foreign, JobId::Uuid(_)));
        assert_eq!(foreign.parts(), None);
        let upper = JobId::parse("0192F7A1-7B3C-7DEF-8123-456789ABCDEF").unwrap();
        assert_eq!(upper.to_string(), "0192F7A1-7B3C-7DEF-8123-456789ABCDEF");
        for bad in ["", "a\nb", &"x".repeat(256)] {
            assert!(JobId::parse(bad).is_err());
        }
    }
}
