//! A second witness for the very end of the log, left by a clean close.
//!
//! The mark behind the last record sits in the same sector as that record's end, so a disk that loses this one sector
//! loses both, and the log would look as if the last flush had never happened. The file `closed` says in another place how
//! far the log went:
//!
//! ```text
//! millpond log closed
//! next = 1234
//! checksum = 1a2b3c4d
//! ```
//!
//! It speaks of the past, so it is true for ever and need not be taken back when the log is opened again.
//! Without it, or if it is damaged, the log stands on its marks alone.

use super::space::{open, read_range};
use crate::{files::SharedFiles, identity::write_whole, log::LogError};

pub(super) const NAME: &str = "closed";
const LENGTH_MAX: u64 = 4_096;

/// The `next` of the last clean close; 0 if nobody says.
pub(super) fn read(files: &SharedFiles) -> Result<u64, LogError> {
    if !super::space::list(files)?.iter().any(|name| name == NAME) {
        return Ok(0);
    }
    let bytes = read_range(files, &*open(files, NAME)?, NAME, LENGTH_MAX)?;
    Ok(parse(&bytes).unwrap_or(0))
}

pub(super) fn write(files: &SharedFiles, next: u64) -> Result<(), LogError> {
    write_whole(files, NAME, render(next).as_bytes())
}

/// Refuses a log that ends at `next`, before where it was closed.
pub(super) fn compare(files: &SharedFiles, witnessed: u64, next: u64) -> Result<(), LogError> {
    if next >= witnessed {
        return Ok(());
    }
    Err(LogError::Corrupt {
        file: files.path(NAME).display().to_string(),
        offset: 0,
        index: next,
        reason: format!("at its last close the log went to {}, and that record is missing", witnessed - 1),
    })
}

/// Whether these are the bytes of such a file.
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    parse(bytes).is_some()
}

fn render(next: u64) -> String {
    let body = format!("millpond log closed\nnext = {next}\n");
    let checksum = crc32c::crc32c(body.as_bytes());
    format!("{body}checksum = {checksum:08x}\n")
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let next = text.lines().nth(1)?.strip_prefix("next = ")?.parse().ok()?;
    (text == render(next)).then_some(next)
}
