//! From rows to batches: one request body each, cut by count and by size, the same at every run.

use super::rejects::Rejects;
use crate::cli::failure::Failure;
use bytes::Bytes;
use serde_json::{Map, Value};
use server::rows::{Item, Place, Rows};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A batch is closed when its request has this many bytes, so that a few large rows do not make a request that the
/// server refuses.
const REQUEST_BYTES: usize = 2 << 20;

/// Rows that travel together.
pub(super) struct Batch {
    /// Its number in this run.
    pub(super) number: u64,
    /// `{"jobs":[…]}`, or empty if all its rows are bad.
    pub(super) request: Bytes,
    pub(super) jobs: u64,
    /// Where it ends.
    pub(super) end: Place,
    /// Bad rows since the start of this run.
    pub(super) rejected: u64,
    /// Bytes of the file of rejects after it.
    pub(super) rejects_bytes: u64,
    /// Repeating the call with this key changes nothing.
    pub(super) idempotency_key: String,
}

/// Cuts rows into batches.
pub(super) struct Batcher {
    rows: Rows,
    rejects: Rejects,
    rows_max: usize,
    /// Names this import: part of every id and key.
    import: u64,
    /// `,"priority":50,…}`
    tail: String,
    number: u64,
    rejected: u64,
}

impl Batcher {
    pub(super) fn new(
        rows: Rows,
        rejects: Rejects,
        rows_max: usize,
        import: u64,
        options: &Map<String, Value>,
    ) -> Self {
        let mut tail = String::new();
        for (name, value) in options {
            tail.push_str(&format!(",{}:{value}", Value::from(name.as_str())));
        }
        tail.push('}');
        Self { rows, rejects, rows_max, import, tail, number: 0, rejected: 0 }
    }

    /// The next batch; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Batch>, Failure> {
        let start = self.rows.place().row;
        let mut request = Vec::new();
        let mut jobs: u64 = 0;
        let mut seen = 0;
        while seen < self.rows_max && request.len() < REQUEST_BYTES {
            let row = self.rows.place().row + 1;
            let item = self
                .rows
                .read()
                .map_err(|error| Failure::Usage(format!("reading stopped at row {row}: {error}")))?;
            match item {
                None => break,
                Some(Item::Bad { line, reason, text }) => {
                    self.rejected += 1;
                    self.rejects.write(line, row, &reason, &text)?;
                }
                Some(Item::Row { body, id }) => {
                    let id = id.unwrap_or_else(|| self.id_of(row, &body));
                    request.extend_from_slice(if jobs == 0 { b"{\"jobs\":[{\"id\":" } else { b",{\"id\":" });
                    request.extend_from_slice(Value::from(id).to_string().as_bytes());
                    request.extend_from_slice(b",\"body\":");
                    request.extend_from_slice(&body);
                    request.extend_from_slice(self.tail.as_bytes());
                    jobs += 1;
                }
            }
            seen += 1;
        }
        if seen == 0 {
            return Ok(None);
        }
        if jobs > 0 {
            request.extend_from_slice(b"]}");
        }
        // The rejects are in the file before anybody can say that their rows are done.
        let rejects_bytes = self.rejects.flush()?;
        let number = self.number;
        self.number += 1;
        Ok(Some(Batch {
            number,
            idempotency_key: format!("import-{:016x}-{start}-{:016x}", self.import, xxh3_64(&request)),
            request: request.into(),
            jobs,
            end: self.rows.place(),
            rejected: self.rejected,
            rejects_bytes,
        }))
    }

    /// The id of a row that has none of its own: which import, which row, and what it says. A row that comes again
    /// gets the same id; another file, or a row that was changed, does not.
    fn id_of(&self, row: u64, body: &[u8]) -> String {
        format!("{:016x}-{row}-{:08x}", self.import, xxh3_64_with_seed(body, self.import) as u32)
    }
}
