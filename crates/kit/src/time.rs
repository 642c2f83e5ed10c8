//! Instants and spans in milliseconds, and their two written forms: RFC 3339 and `1h30m`.

use alloc::string::{String, ToString};
use core::{fmt, ops, str::FromStr};

/// A span of time in milliseconds.
pub type Millis = u64;

/// An instant: milliseconds since 1970-01-01T00:00:00Z.
///
/// ```
/// use kit::Timestamp;
/// let t: Timestamp = "2026-01-02T03:04:05.678Z".parse()?;
/// assert_eq!(t.to_string(), "2026-01-02T03:04:05.678Z");
/// assert_eq!(t + 1_000 - t, 1_000);
/// # Ok::<(), kit::time::BadTime>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The earliest instant.
    pub const ZERO: Timestamp = Timestamp(0);
    /// 9999-12-30T22:00:00Z, the latest instant that has a written form; later ones are refused at every edge.
    pub const MAX: Timestamp = Timestamp(253_402_207_200_000);
}

impl ops::Add<Millis> for Timestamp {
    type Output = Timestamp;
    fn add(self, span: Millis) -> Timestamp {
        Timestamp(self.0.saturating_add(span).min(Self::MAX.0))
    }
}

impl ops::Sub for Timestamp {
    type Output = Millis;
    /// The span since `earlier`; 0 if `earlier` is in fact later.
    fn sub(self, earlier: Timestamp) -> Millis {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.min(Self::MAX.0)).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{millis}ms"),
        }
    }
}

/// A time or a span could not be read; the text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTime(pub String);

impl fmt::Display for BadTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for BadTime {}

impl FromStr for Timestamp {
    type Err = BadTime;

    /// Reads RFC 3339 (`2026-01-02T03:04:05Z`, any offset) or Unix milliseconds (`1767323045000`).
    fn from_str(text: &str) -> Result<Self, BadTime> {
        if let Ok(millis) = text.parse::<u64>() {
            let instant = Timestamp(millis);
            return if instant <= Self::MAX {
                Ok(instant)
            } else {
                Err(BadTime("the time is after the year 9999".to_string()))
            };
        }
        let expected =
            || BadTime("expected RFC 3339 (2026-01-02T03:04:05Z) or Unix milliseconds".to_string());
        let instant = text.parse::<jiff::Timestamp>().map_err(|_| expected())?;
        u64::try_from(instant.as_millisecond())
            .map(Timestamp)
            .map_err(|_| BadTime("the time is before 1970".to_string()))
    }
}

/// Reads a span as people write it: `250ms`, `30s`, `5m`, `1h30m`, `2d`; a bare number is milliseconds.
///
/// ```
/// assert_eq!(kit::time::parse_span("1h30m"), Ok(5_400_000));
/// assert_eq!(kit::time::parse_span("2d"), Ok(172_800_000));
/// assert!(kit::time::parse_span("soon").is_err());
/// ```
pub fn parse_span(text: &str) -> Result<Millis, BadTime> {
    let bad = || BadTime("expected a span such as 250ms, 30s, 5m, 1h30m or 2d".to_string());
    let mut rest = text.trim();
    if let Ok(millis) = rest.parse::<u64>() {
        return Ok(millis);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let count: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit_end =
            rest[digits..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |at| digits + at);
        let unit: u64 = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(bad()),
        };
        total = count.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = rest[unit_end..].trim_start();
    }
    Ok(total)
}

/// Writes a span with its two largest units: `1h 30m`, `2.5s`, `250ms`.
pub fn format_span(millis: Millis) -> String {
    use alloc::format;
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        1_000..60_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        60_000..3_600_000 => two(millis, 60_000, "m", 1_000, "s"),
        3_600_000..86_400_000 => two(millis, 3_600_000, "h", 60_000, "m"),
        _ => two(millis, 86_400_000, "d", 3_600_000, "h"),
    }
}

fn two(millis: Millis, large: u64, large_name: &str, small: u64, small_name: &str) -> String {
    use alloc::format;
    match millis % large / small {
        0 => format!("{}{large_name}", millis / large),
        rest => format!("{}{large_name} {rest}{small_name}", millis / large),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_and_write() {
        for (text, millis) in [
            ("0", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
        ] {
            assert_eq!(parse_span(text), Ok(millis), "{text}");
        }
        for bad in ["", "s", "5 parsecs", "1h30", "-1s", "99999999999999999999s", "18446744073709551615w"] {
            assert!(parse_span(bad).is_err(), "{bad}");
        }
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (2_500, "2.5s"),
            (30_000, "30s"),
            (90_000, "1m 30s"),
            (5_400_000, "1h 30m"),
            (172_800_000, "2d"),
        ] {
            assert_eq!(format_span(millis), text);
        }
    }

    #[test]
    fn times_read_in_both_forms_and_refuse_the_impossible() {
        let expected = Timestamp(1_767_323_045_000);
        for text in ["2026-01-02T03:04:05Z", "2026-01-02T04:04:05+01:00", "1767323045000"] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["yesterday", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z", "99999999999999999", ""] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_instant_can_be_written() {
        assert_eq!((Timestamp::MAX + 5).to_string(), "9999-12-30T22:00:00.000Z");
    }
}
