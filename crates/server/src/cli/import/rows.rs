//! Rows out of bytes: what a file holds, one item at a time, in constant memory.

use super::{csv::Csv, ndjson::Ndjson};
use serde::{Deserialize, Serialize};
use std::io;

/// Where the next row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Rows before it, bad ones included.
    pub(super) row: u64,
    /// Bytes before it.
    pub(super) offset: u64,
    /// Its line, 1 for the first.
    pub(super) line: u64,
}

impl Place {
    pub(super) const START: Place = Place { row: 0, offset: 0, line: 1 };
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A job's body.
    Row {
        /// JSON.
        body: Vec<u8>,
        /// The value of the id column, if one was asked for.
        id: Option<String>,
    },
    /// Not a job.
    Bad {
        /// Where it begins.
        line: u64,
        /// What is wrong with it.
        reason: String,
        /// How it begins.
        text: String,
    },
}

/// How rows are read.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Bytes of the largest row, as read and as JSON.
    pub(super) row_bytes_max: usize,
    /// The column or key that holds the job's id.
    pub(super) id_column: Option<String>,
    /// Cells that look like numbers, booleans or nothing become that.
    pub(super) infer: bool,
    /// Between two cells.
    pub(super) delimiter: u8,
}

/// A file of rows.
pub(super) enum Rows {
    Csv(Box<Csv>),
    Ndjson(Ndjson),
    /// The first so many of another's.
    Limited(Box<Rows>, u64),
}

impl Rows {
    /// The next row; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Item>> {
        match self {
            Rows::Csv(rows) => rows.next(),
            Rows::Ndjson(rows) => rows.next(),
            Rows::Limited(rows, max) if rows.place().row >= *max => Ok(None),
            Rows::Limited(rows, _) => rows.next(),
        }
    }

    /// The same, at most `max` rows in all.
    pub(super) fn limited(self, max: u64) -> Rows {
        Rows::Limited(Box::new(self), max)
    }

    /// Where the next row begins.
    pub(super) fn place(&self) -> Place {
        match self {
            Rows::Csv(rows) => rows.place(),
            Rows::Ndjson(rows) => rows.place(),
            Rows::Limited(rows, _) => rows.place(),
        }
    }
}

/// A bad row; its beginning is kept as far as a person needs it to find the fault.
pub(super) fn bad(line: u64, reason: impl Into<String>, raw: &[u8]) -> Item {
    let text = String::from_utf8_lossy(&raw[..raw.len().min(1_000)]).into_owned();
    Item::Bad { line, reason: reason.into(), text }
}

/// An id that the server would refuse makes its row a bad one.
pub(super) fn checked_id(id: &str) -> Result<String, String> {
    model::JobId::parse(id).map(|_| id.to_owned()).map_err(|error| error.to_string())
}
