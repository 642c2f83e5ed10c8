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
        if let Some(bits) = parse_uuid(text.as_bytes()) {
            return Ok(Self::Uuid(bits));
        }
        if text.is_empty() {
            return bad("must not be empty");
        }
        if text.len() > limits::ID_BYTES_MAX {
            return bad("has at most 255 bytes");
        }
        if text.chars().any(char::is_control) {
            return bad("must not hold control characters");
        }
        Ok(Self::Text(CompactString::from(text)))
    }

    /// A UUID as lower-case text.
    pub fn uuid_text(bits: u128) -> [u8; UUID_CHARACTERS] {
        let mut out = [b'-'; UUID_CHARACTERS];
        for (byte, at) in bits.to_be_bytes().into_iter().zip(PLACES) {
            out[at] = HEX[usize::from(byte >> 4)];
            out[at + 1] = HEX[usize::from(byte & 0xf)];
        }
        out
    }
}

/// The value of a lower-case hexadecimal digit; 0xff for everything else.
const DIGITS: [u8; 256] = {
    let mut digits = [0xff; 256];
    let mut value = 0;
    while value < 16 {
        digits[HEX[value] as usize] = value as u8;
        value += 1;
    }
    digits
};
const HEX: &[u8; 16] = b"0123456789abcdef";
/// Where the digits of each byte of a UUID stand in its text.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
const UUID_CHARACTERS: usize = 36;

fn parse_uuid(text: &[u8]) -> Option<u128> {
    let text: &[u8; UUID_CHARACTERS] = text.try_into().ok()?;
    if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
        return None;
    }
    let (mut bytes, mut seen) = ([0; 16], 0);
    for (byte, at) in bytes.iter_mut().zip(PLACES) {
        let (high, low) = (DIGITS[usize::from(text[at])], DIGITS[usize::from(text[at + 1])]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < 16).then_some(u128::from_be_bytes(bytes))
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Uuid(bits) => {
                f.write_str(core::str::from_utf8(&Self::uuid_text(*bits)).map_err(|_| fmt::Error)?)
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

    #[test]
    fn only_thirty_two_digits_with_four_dashes_in_their_places_are_a_uuid() {
        let good = "0192f7a1-7b3c-7def-8123-456789abcdef";
        let bits = 0x0192_f7a1_7b3c_7def_8123_4567_89ab_cdef;
        assert_eq!(JobId::parse(good), Ok(JobId::Uuid(bits)));
        assert_eq!(JobId::Uuid(bits).to_string(), good);
        for at in 0..good.len() {
            for other in ["-", "g", "A", "/", ":", "`"] {
                if good[at..=at] != *other {
                    let text = format!("{}{other}{}", &good[..at], &good[at + 1..]);
                    assert_eq!(JobId::parse(&text), Ok(JobId::Text((&text).into())), "{text}");
                }
            }
        }
        for text in [&good[1..], &good[..35], "0192f7a1-7b3c-7def-8123-456789abcdé"] {
            assert_eq!(JobId::parse(text), Ok(JobId::Text(text.into())));
        }
    }
}
