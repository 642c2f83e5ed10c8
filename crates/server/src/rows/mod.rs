//! Rows out of bytes: what a file holds, one item at a time, in constant memory.

mod csv;
mod input;
mod ndjson;

pub use csv::Csv;
pub use input::Input;
pub use ndjson::Ndjson;

use serde::{Deserialize, Serialize};
use std::io;

/// Where the next row begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Rows before it, bad ones included.
    pub row: u64,
    /// Bytes before it.
    pub offset: u64,
    /// Its line, 1 for the first.
    pub line: u64,
}

impl Place {
    /// Before the first row.
    pub const START: Place = Place { row: 0, offset: 0, line: 1 };
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
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
pub struct Rules {
    /// Bytes of the largest row, as read and as JSON.
    pub row_bytes_max: usize,
    /// The column or key that holds the job's id.
    pub id_column: Option<String>,
    /// Cells that look like numbers, booleans or nothing become that.
    pub infer: bool,
    /// Between two cells.
    pub delimiter: u8,
}

/// A file of rows.
pub enum Rows {
    /// Comma-separated values, or with another character between them.
    Csv(Box<Csv>),
    /// One JSON value a line.
    Ndjson(Ndjson),
    /// The first so many of another's.
    Limited(Box<Rows>, u64),
}

impl Rows {
    /// The next row; `None` at the end.
    pub fn read(&mut self) -> io::Result<Option<Item>> {
        match self {
            Rows::Csv(rows) => rows.read(),
            Rows::Ndjson(rows) => rows.read(),
            Rows::Limited(rows, max) if rows.place().row >= *max => Ok(None),
            Rows::Limited(rows, _) => rows.read(),
        }
    }

    /// The same, at most `max` rows in all.
    pub fn limited(self, max: u64) -> Rows {
        Rows::Limited(Box::new(self), max)
    }

    /// Where the next row begins.
    pub fn place(&self) -> Place {
        match self {
            Rows::Csv(rows) => rows.place(),
            Rows::Ndjson(rows) => rows.place(),
            Rows::Limited(rows, _) => rows.place(),
        }
    }
}

/// A bad row; its beginning is kept as far as a person needs it to find the fault.
fn bad(line: u64, reason: impl Into<String>, raw: &[u8]) -> Item {
    let text = String::from_utf8_lossy(&raw[..raw.len().min(1_000)]).into_owned();
    Item::Bad { line, reason: reason.into(), text }
}

/// An id that the server would refuse makes its row a bad one.
fn checked_id(id: &str) -> Result<String, String> {
    model::JobId::parse(id).map(|_| id.to_owned()).map_err(|error| error.to_string())
}

/// Any bytes as a file of either kind, for fuzzers: whatever is in it, each row is a JSON value of bounded size or is said to be bad, and
/// whoever goes on in the middle reads the same rows.
pub fn fuzz(data: &[u8]) {
    const ROW_BYTES_MAX: usize = 2_000;
    let [kind, at, file @ ..] = data else { return };
    let rules = Rules {
        row_bytes_max: ROW_BYTES_MAX,
        id_column: (kind & 1 > 0).then(|| "id".to_owned()),
        infer: kind & 2 > 0,
        delimiter: if kind & 4 > 0 { b'\t' } else { b',' },
    };
    let reader = |from: usize| Box::new(io::Cursor::new(file.get(from..).unwrap_or_default().to_vec()));
    let open = |place: Place| -> io::Result<Option<Rows>> {
        let from = usize::try_from(place.offset).unwrap_or(usize::MAX);
        if kind & 8 > 0 {
            let input = Input::new(reader(from), place.offset, place.line);
            return Ndjson::new(input, rules.clone(), place.row).map(|rows| Some(Rows::Ndjson(rows)));
        }
        let csv = Csv::new(Input::new(reader(0), 0, 1), rules.clone())?.ok();
        Ok(csv
            .map(|csv| if place == Place::START { csv } else { csv.resume(reader(from), place) })
            .map(Box::new)
            .map(Rows::Csv))
    };
    let rest = |mut rows: Rows| -> io::Result<Vec<(Item, Place)>> {
        let mut items = Vec::new();
        while let Some(item) = rows.read()? {
            items.push((item, rows.place()));
        }
        Ok(items)
    };
    let Some(rows) = open(Place::START).expect("memory can be read") else { return };
    let items = rest(rows).expect("memory can be read");
    for (item, _) in &items {
        if let Item::Row { body, .. } = item {
            assert!(body.len() <= ROW_BYTES_MAX, "a row is too large");
            serde_json::from_slice::<serde::de::IgnoredAny>(body).expect("a row is JSON");
        }
    }
    let Some((_, place)) = items.get(usize::from(*at) % items.len().max(1)) else { return };
    let rows = open(*place).expect("memory can be read").expect("it could be opened before");
    let read = usize::try_from(place.row).unwrap_or(usize::MAX);
    assert_eq!(rest(rows).expect("memory can be read"), items[read..], "from {place:?}");
}
