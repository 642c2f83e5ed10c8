use kit::{
    Timestamp,
    codec::{Malformed, Reader, put_option, put_str, put_u64},
};
use model::{Actor, Cause, ErrorInfo, HistoryEntry, State, limits};

/// The changes of one job after its push, packed: an ordinary one takes about ten bytes and its actor's name.
///
/// Times and positions are stored as the distance from the entry before, or from the push.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct History {
    bytes: Vec<u8>,
    count: u32,
    last_at: u64,
    last_position: u64,
}

/// Bytes that a start and an end mostly take.
const SIZE_OF_ONE_RUN: usize = 48;

/// How many of the oldest entries survive when the middle has to go.
const KEEP_FIRST: usize = 16;

impl History {
    pub(crate) fn push(&mut self, base: (Timestamp, u64), entry: &HistoryEntry) {
        if self.count as usize >= limits::HISTORY_MAX {
            self.thin(base);
        }
        if self.count == 0 {
            (self.last_at, self.last_position) = (base.0.0, base.1);
            self.bytes.reserve(SIZE_OF_ONE_RUN);
        }
        let out = &mut self.bytes;
        out.push(entry.from.map_or(u8::MAX, |state| state as u8));
        out.push(entry.to as u8);
        out.push(entry.cause as u8);
        put_u64(out, u64::from(entry.attempt));
        put_u64(out, entry.at.0 - self.last_at);
        put_u64(out, entry.position - self.last_position);
        put_str(out, entry.actor.as_str());
        put_option(out, entry.error.as_ref(), model::codec::put_error_info);
        (self.last_at, self.last_position) = (entry.at.0, entry.position);
        self.count += 1;
    }

    /// Drops a quarter from the middle, so that the beginning and the present stay, at a cost that is paid rarely.
    fn thin(&mut self, base: (Timestamp, u64)) {
        let mut entries = self.entries(base).unwrap_or_default();
        entries.drain(KEEP_FIRST..KEEP_FIRST + limits::HISTORY_MAX / 4);
        *self = History::default();
        for entry in &entries {
            self.push(base, entry);
        }
    }

    pub(crate) fn entries(&self, base: (Timestamp, u64)) -> Result<Vec<HistoryEntry>, Malformed> {
        let mut reader = Reader::new(&self.bytes);
        let (mut at, mut position) = (base.0.0, base.1);
        let mut entries = Vec::with_capacity(self.count as usize);
        while reader.remaining() > 0 {
            let from = reader.u8("from")?;
            let to = State::from_u8(reader.u8("to")?).ok_or(reader.malformed("state"))?;
            let cause = *Cause::ALL.get(usize::from(reader.u8("cause")?)).ok_or(reader.malformed("cause"))?;
            let attempt = reader.u32("attempt")?;
            at += reader.u64("time")?;
            position += reader.u64("position")?;
            let actor = Actor::new(reader.str("actor")?);
            let error: Option<ErrorInfo> = reader.option("error", model::codec::read_error_info)?;
            let at = Timestamp(at);
            entries.push(HistoryEntry {
                from: State::from_u8(from),
                to,
                at,
                cause,
                attempt,
                actor,
                position,
                error,
            });
        }
        Ok(entries)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        kit::codec::put_bytes(out, &self.bytes);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, base: (Timestamp, u64)) -> Result<Self, Malformed> {
        let mut history = History { bytes: reader.bytes("history")?.to_vec(), ..History::default() };
        let entries = history.entries(base)?;
        history.count = entries.len() as u32;
        if let Some(last) = entries.last() {
            (history.last_at, history.last_position) = (last.at.0, last.position);
        }
        Ok(history)
    }
}
