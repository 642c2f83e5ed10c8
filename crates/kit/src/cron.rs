//! Cron expressions: what they match, and when that is next in a time zone.
//!
//! Five fields (minute, hour, day of month, month, weekday) or six (with seconds first), or a name such as `@daily`.
//! A field is a list of values, ranges and steps: `0`, `1-5`, `*/10`, `8-18/2`, `mon,wed`, `5/15`. Where day of month and
//! weekday are both given, a day matches if either does, as in Vixie's cron; one that begins with `*` is not "given".
//!
//! # When clocks are moved
//! Fixed times, such as `30 2 * * *`, happen once a day: one that a spring gap leaves out comes at the first instant after
//! the gap, one that an autumn fold repeats comes the first time. Expressions with a `*` in seconds, minutes or hours
//! follow the time that passes: `*/10 * * * *` comes every ten minutes through gap and fold.

use crate::{Timestamp, Zone};
use alloc::{format, string::String};
use core::{fmt, ops::RangeInclusive};

/// A cron expression, ready to be asked.
///
/// ```
/// use kit::{Cron, Timestamp, Zone};
/// let nightly: Cron = "0 3 * * *".parse()?;
/// let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
/// assert_eq!(nightly.next(now, &Zone::UTC).unwrap().to_string(), "2026-01-03T03:00:00.000Z");
/// let refused = "0 25 * * *".parse::<Cron>().unwrap_err();
/// assert_eq!((refused.field, refused.at), ("hour", 2));
/// # Ok::<(), kit::cron::BadCron>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    /// Bit 0 stands for the last day of the month.
    days: u64,
    months: u64,
    /// Bit 0 is Sunday.
    weekdays: u64,
    /// Both day fields are given: either is enough.
    either_day: bool,
    /// A time field begins with `*`: time that passes counts, not the clock on the wall.
    elapsed: bool,
}

/// An expression was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadCron {
    /// The field that is wrong.
    pub field: &'static str,
    /// Where it is wrong: bytes from the beginning of the expression.
    pub at: usize,
    /// What is wrong, and what is right.
    pub help: String,
}

impl fmt::Display for BadCron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (character {}): {}", self.field, self.at + 1, self.help)
    }
}

impl core::error::Error for BadCron {}

struct Field {
    name: &'static str,
    range: RangeInclusive<u64>,
    names: &'static [&'static str],
}

const SECOND: Field = Field { name: "second", range: 0..=59, names: &[] };
const FIELDS: [Field; 5] = [
    Field { name: "minute", range: 0..=59, names: &[] },
    Field { name: "hour", range: 0..=23, names: &[] },
    Field { name: "day of month", range: 1..=31, names: &[] },
    Field {
        name: "month",
        range: 1..=12,
        names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    },
    // 7 is Sunday too, so that `fri-sun` and `5-7` are ranges.
    Field { name: "weekday", range: 0..=7, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] },
];

const NAMED: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const DAY: i64 = 86_400;
/// The rarest day there is, 29 February on a given weekday, comes at least once in so many years.
const YEARS_AHEAD: i64 = 41;
const LAST_YEAR: i64 = 9_999;

impl core::str::FromStr for Cron {
    type Err = BadCron;

    fn from_str(text: &str) -> Result<Cron, BadCron> {
        let trimmed = text.trim();
        if trimmed.starts_with('@') {
            let known = NAMED.iter().find(|(name, _)| name.eq_ignore_ascii_case(trimmed));
            let Some((_, meaning)) = known else {
                let at = text.find('@').unwrap_or(0);
                return Err(BadCron {
                    field: "name",
                    at,
                    help: format!(
                        "{trimmed} is not known; there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly \
                         and @annually; a plain interval is written as `every`"
                    ),
                });
            };
            return meaning.parse();
        }
        parse_fields(text)
    }
}

fn parse_fields(text: &str) -> Result<Cron, BadCron> {
    let words: alloc::vec::Vec<(usize, &str)> = text
        .split_ascii_whitespace()
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
        .collect();
    let (second, rest) = match words.len() {
        5 => ((0, "0"), &words[..]),
        6 => (words[0], &words[1..]),
        count => {
            let at = words.get(6).map_or(text.len(), |(at, _)| *at);
            let help = format!(
                "has {count} fields; write five (minute hour day-of-month month weekday) or six (seconds first)"
            );
            return Err(BadCron { field: "expression", at, help });
        }
    };
    let weekdays = FIELDS[4].read(rest[4])?;
    let cron = Cron {
        seconds: SECOND.read(second)?,
        minutes: FIELDS[0].read(rest[0])?,
        hours: FIELDS[1].read(rest[1])?,
        days: FIELDS[2].read(rest[2])?,
        months: FIELDS[3].read(rest[3])?,
        weekdays: (weekdays | weekdays >> 7) & 0x7f,
        either_day: !rest[2].1.starts_with(['*', '?']) && !rest[4].1.starts_with(['*', '?']),
        elapsed: [second.1, rest[0].1, rest[1].1].iter().any(|word| word.starts_with('*')),
    };
    if cron.next_day(0).is_none() {
        let help = format!("no month of this expression has a day {}", rest[2].1);
        return Err(BadCron { field: FIELDS[2].name, at: rest[2].0, help });
    }
    Ok(cron)
}

impl Field {
    /// The values of a comma-separated list, as bits.
    fn read(&self, (mut at, word): (usize, &str)) -> Result<u64, BadCron> {
        let mut bits = 0;
        for item in word.split(',') {
            bits |= self.item(item).map_err(|help| BadCron { field: self.name, at, help })?;
            at += item.len() + 1;
        }
        Ok(bits)
    }

    fn item(&self, item: &str) -> Result<u64, String> {
        let (lowest, highest) = (*self.range.start(), *self.range.end());
        let (values, step) = match item.split_once('/') {
            None => (item, None),
            Some((values, step)) => (values, Some(self.step(step)?)),
        };
        let (from, to) = match values {
            "*" => (lowest, highest),
            "?" if matches!(self.name, "day of month" | "weekday") => (lowest, highest),
            "L" | "l" if self.name == "day of month" && step.is_none() => return Ok(1),
            _ => match values.split_once('-') {
                None => {
                    let value = self.value(values)?;
                    (value, if step.is_some() { highest } else { value })
                }
                Some((from, to)) => {
                    let (from, mut to) = (self.value(from)?, self.value(to)?);
                    if self.name == "weekday" && to == 0 && from > 0 {
                        to = 7;
                    }
                    if from > to {
                        return Err(format!(
                            "{values} runs backwards; write {from}-{highest},{lowest}-{to} to go over the end"
                        ));
                    }
                    (from, to)
                }
            },
        };
        // A step through all weekdays counts Sunday once.
        let to = if self.name == "weekday" && from == 0 { to.min(6) } else { to };
        Ok((from..=to).step_by(step.unwrap_or(1)).fold(0, |bits, value| bits | 1 << value))
    }

    fn step(&self, text: &str) -> Result<usize, String> {
        let most = self.range.end() - self.range.start();
        match digits(text) {
            Some(step) if (1..=most).contains(&step) => Ok(step as usize),
            _ => Err(format!(
                "a step of {text:?} is not possible here; it is 1 to {most}. A longer interval is written as `every`"
            )),
        }
    }

    fn value(&self, text: &str) -> Result<u64, String> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = named.map(|place| place as u64 + self.range.start()).or_else(|| digits(text));
        value.filter(|value| self.range.contains(value)).ok_or_else(|| {
            let (low, high) = (self.range.start(), self.range.end());
            let names = match (self.names.first(), self.names.last()) {
                (Some(first), Some(last)) => format!(" or {first} to {last}"),
                _ => String::new(),
            };
            format!("{text:?} is not allowed; it is {low} to {high}{names}, a list, a range a-b, or */n")
        })
    }
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Cron {
    /// The first slot after that instant; `None` beyond the year 9999. Slots are whole seconds.
    pub fn next(&self, after: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let mut at = (after.0 / 1_000) as i64 + 1;
        loop {
            // Within one offset, the clock on the wall and the time that passes run alike.
            let offset = zone.offset_at(at);
            let mut wall = at + offset;
            if !self.elapsed
                && let Some(change) = zone.change_until(at)
            {
                // What a fold repeats has happened.
                wall = wall.max(change.at + change.before);
                // What a gap leaves out happens at its end.
                if change.at == at
                    && let Some(skipped) = self.next_wall(change.at + change.before)
                    && skipped < change.at + change.after
                {
                    return timestamp(at);
                }
            }
            let found = self.next_wall(wall)? - offset;
            match zone.change_after(at) {
                Some(change) if change.at <= found => at = change.at,
                _ => return timestamp(found),
            }
        }
    }

    /// The newest slot before that instant and after `floor`.
    ///
    /// Slots can only be asked for forwards. This one looks back twice as far each time until it meets one, then halves.
    pub fn previous(&self, before: Timestamp, floor: Timestamp, zone: &Zone) -> Option<Timestamp> {
        let earlier = |after| self.next(after, zone).filter(|slot| *slot < before);
        let mut span = 1_000;
        let mut none_after = before;
        let mut newest = loop {
            let from = Timestamp(before.0.saturating_sub(span)).max(floor);
            match earlier(from) {
                Some(slot) => break slot,
                None if from == floor => return None,
                None => (none_after, span) = (from, span * 2),
            }
        };
        while none_after.0 >= newest.0 + 1_000 {
            let middle = Timestamp(newest.0 + (none_after.0 - newest.0) / 2);
            match earlier(middle) {
                Some(slot) => newest = slot,
                None => none_after = middle,
            }
        }
        Some(newest)
    }

    /// The first match at or after a second of the clock on the wall.
    fn next_wall(&self, wall: i64) -> Option<i64> {
        let (day, second) = (wall.div_euclid(DAY), wall.rem_euclid(DAY) as u64);
        let first = self.next_day(day)?;
        let second = if first == day { second } else { 0 };
        match self.next_time(second) {
            Some(second) => Some(first * DAY + second as i64),
            None => Some(self.next_day(day + 1)? * DAY + self.next_time(0)? as i64),
        }
    }

    fn next_time(&self, second: u64) -> Option<u64> {
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let (minute_first, second_first) = (next_bit(self.minutes, 0)?, next_bit(self.seconds, 0)?);
        if self.hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = next_bit(self.seconds, second)
            {
                return Some(hour * 3_600 + minute * 60 + second);
            }
            if let Some(minute) = next_bit(self.minutes, minute + 1) {
                return Some(hour * 3_600 + minute * 60 + second_first);
            }
        }
        Some(next_bit(self.hours, hour + 1)? * 3_600 + minute_first * 60 + second_first)
    }

    /// The first matching day at or after `day`, in days since 1970.
    fn next_day(&self, day: i64) -> Option<i64> {
        let (mut year, mut month, mut date) = date_of(day);
        let last_year = LAST_YEAR.min(year + YEARS_AHEAD);
        while year <= last_year {
            if self.months >> month & 1 == 1 {
                let (first, length) = (day_of(year, month), days_in(year, month));
                let found = (date..=length).find(|date| self.is_day(*date, length, first + *date as i64 - 1));
                if let Some(date) = found {
                    return Some(first + date as i64 - 1);
                }
            }
            (year, month, date) = if month == 12 { (year + 1, 1, 1) } else { (year, month + 1, 1) };
        }
        None
    }

    fn is_day(&self, date: u64, length: u64, day: i64) -> bool {
        let by_date = self.days >> date & 1 == 1 || date == length && self.days & 1 == 1;
        // 1 January 1970 was a Thursday.
        let by_weekday = self.weekdays >> (day + 4).rem_euclid(7) & 1 == 1;
        if self.either_day { by_date || by_weekday } else { by_date && by_weekday }
    }
}

fn next_bit(bits: u64, from: u64) -> Option<u64> {
    let rest = bits.checked_shr(from as u32)?;
    (rest != 0).then(|| from + u64::from(rest.trailing_zeros()))
}

fn timestamp(second: i64) -> Option<Timestamp> {
    let at = Timestamp(u64::try_from(second).ok()?.checked_mul(1_000)?);
    (at <= Timestamp::MAX).then_some(at)
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

const fn days_in(year: i64, month: u64) -> u64 {
    match month {
        2 => 28 + is_leap(year) as u64,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The first day of a month, in days since 1970.
const fn day_of(year: i64, month: u64) -> i64 {
    const BEFORE: [i64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let past = year - 1;
    let leaps = past / 4 - past / 100 + past / 400;
    let leap_day = (month > 2 && is_leap(year)) as i64;
    past * 365 + leaps + BEFORE[month as usize - 1] + leap_day - 719_162
}

/// Year, month and day of a day since 1970.
const fn date_of(day: i64) -> (i64, u64, u64) {
    // Too early by a few years at most; from 1969 on, never too late.
    let mut year = 1970 + day.div_euclid(366);
    while day_of(year + 1, 1) <= day {
        year += 1;
    }
    let mut month = 12;
    while day_of(year, month) > day {
        month -= 1;
    }
    (year, month, (day - day_of(year, month)) as u64 + 1)
}

#[cfg(test)]
mod tests;
