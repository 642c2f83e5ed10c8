//! The payload of one log record: a batch of commands that share a time.
//!
//! ```text
//! +---------+-----------+----------------+-----------+----------------------+
//! | version | time (ms) | first position | count     | count envelopes      |
//! | 1 byte  | 8, LE     | 8, LE          | 4, LE     | as model::codec says |
//! +---------+-----------+----------------+-----------+----------------------+
//! ```
//!
//! The header has a fixed width because it is filled in last: how many commands a record holds, and from which position, is known
//! only when the disk has said whether it takes new work. A change of this layout takes a new version; versions are read for ever.

use kit::{Timestamp, codec::Malformed, codec::Reader};
use model::{Envelope, codec};

/// The layout above.
const VERSION: u8 = 1;
/// Bytes before the first envelope.
pub(crate) const HEADER: usize = 21;

/// A batch as read back from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The log's time of all its commands.
    pub time: Timestamp,
    /// The position of the first one; the others follow by one.
    pub first: u64,
    /// What was asked, in order.
    pub envelopes: Vec<Envelope>,
}

/// An empty payload with room for the header.
pub(crate) fn blank(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer.resize(HEADER, 0);
    buffer
}

/// Fills in the header of `payload`.
pub(crate) fn seal(payload: &mut [u8], time: Timestamp, first: u64, count: u32) {
    payload[0] = VERSION;
    payload[1..9].copy_from_slice(&time.0.to_le_bytes());
    payload[9..17].copy_from_slice(&first.to_le_bytes());
    payload[17..HEADER].copy_from_slice(&count.to_le_bytes());
}

impl Batch {
    /// Writes the payload of a record.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = blank(Vec::new());
        for envelope in &self.envelopes {
            codec::encode_envelope(envelope, &mut payload);
        }
        seal(&mut payload, self.time, self.first, u32::try_from(self.envelopes.len()).unwrap_or(u32::MAX));
        payload
    }

    /// Reads the payload of a record. Strict: every payload has one spelling, and nothing may be left over.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(payload);
        if reader.u8("batch version")? != VERSION {
            return Err(Malformed { what: "batch version (written by a newer release?)", offset: 0 });
        }
        let time = Timestamp(fixed(&mut reader, "batch time")?);
        let first = fixed(&mut reader, "batch position")?;
        let count = u32::from_le_bytes(array(&mut reader, "batch count")?);
        if count == 0 || count as usize > reader.remaining() {
            return Err(Malformed { what: "batch count", offset: HEADER - 4 });
        }
        if time > Timestamp::MAX || first == 0 || first.checked_add(u64::from(count)).is_none() {
            return Err(Malformed { what: "batch time or position", offset: 1 });
        }
        let mut envelopes = Vec::with_capacity((count as usize).min(1_024));
        for _ in 0..count {
            envelopes.push(codec::decode_envelope(&mut reader)?);
        }
        reader.finish("batch")?;
        Ok(Self { time, first, envelopes })
    }
}

fn fixed(reader: &mut Reader<'_>, what: &'static str) -> Result<u64, Malformed> {
    array(reader, what).map(u64::from_le_bytes)
}

fn array<const N: usize>(reader: &mut Reader<'_>, what: &'static str) -> Result<[u8; N], Malformed> {
    let refusal = reader.malformed(what);
    reader.take(N, what)?.try_into().map_err(|_| refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Actor, Command, NewJob, QueueName};

    fn sample() -> Batch {
        let push = Command::Push { jobs: vec![NewJob::new(QueueName::new("mail").unwrap(), "hello")] };
        let envelope =
            |command| Envelope { actor: Actor::new("ann"), idempotency_key: Some("k".into()), command };
        Batch {
            time: Timestamp(1_700_000_000_000),
            first: 7,
            envelopes: vec![envelope(Command::Tick), envelope(push)],
        }
    }

    #[test]
    fn a_batch_reads_back_and_nothing_shorter_or_longer_does() {
        let payload = sample().encode();
        assert_eq!(Batch::decode(&payload), Ok(sample()));
        for length in 0..payload.len() {
            assert!(Batch::decode(&payload[..length]).is_err(), "cut at {length}");
        }
        let longer = [&payload[..], &[0]].concat();
        assert!(Batch::decode(&longer).is_err());
    }

    #[test]
    fn another_version_no_commands_and_impossible_counts_are_refused_without_allocating() {
        let payload = sample().encode();
        for (at, bytes) in
            [(0, &[2][..]), (17, &[0; 4]), (17, &[0xff; 4]), (9, &[0; 8]), (9, &[0xff; 8]), (1, &[0xff; 8])]
        {
            let mut bad = payload.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            assert!(Batch::decode(&bad).is_err(), "{bytes:?} at {at}");
        }
    }
}
