//! I10: a flipped bit at rest is found or does no harm; it is never served.

use crate::history::{Check, broken};
use storage::{Log, LogError};

/// A copy of the disk with one flipped bit was opened: every record must be what was appended, and none of the first
/// `durable` may be missing without a word.
pub(crate) fn found_or_harmless(
    opened: Result<&dyn Log, &LogError>,
    appended: &[Vec<u8>],
    durable: u64,
    place: &str,
) -> Check {
    let Ok(log) = opened else { return Ok(()) };
    let mut wrong = None;
    let mut last = log.first() - 1;
    let read = log.read(log.first(), &mut |record| {
        if record.index != last + 1 || appended.get(record.index as usize - 1) != Some(&record.payload) {
            wrong = Some(record.index);
            return Err(LogError::Stopped);
        }
        last = record.index;
        Ok(())
    });
    if let Some(index) = wrong {
        return broken(
            "I10",
            format!("a bit was flipped in {place}; record {index} was served with other bytes"),
        );
    }
    if read.is_ok() && last < durable {
        return broken(
            "I10",
            format!("a bit was flipped in {place}; the log ends at {last} of {durable} without a word"),
        );
    }
    Ok(())
}
