//! When the slots of a schedule are: nothing but arithmetic, so that a preview and the shard cannot disagree.

use compact_str::{CompactString, ToCompactString};
use kit::{Cron, Millis, Timestamp, Zone, cron::BadCron, random::mix};
use model::{Reject, ScheduleSpec, When, limits};

/// The slots of a schedule, in order.
///
/// ```
/// use kit::Timestamp;
/// use millpond_core::Slots;
/// use model::{NewJob, QueueName, ScheduleSpec, When};
///
/// let job = NewJob::new(QueueName::new("reports")?, &b"{}"[..]);
/// let slots = Slots::of(&ScheduleSpec::new(When::Every { interval_ms: 60_000 }, job))?;
/// let next: Vec<_> = slots.after(Timestamp(90_000)).take(2).collect();
/// assert_eq!(next, [Timestamp(120_000), Timestamp(180_000)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Slots {
    clock: Clock,
    start: Timestamp,
    end: Timestamp,
}

#[derive(Debug, Clone)]
enum Clock {
    Cron { cron: Cron, zone: Zone },
    Every { interval: Millis, anchor: Timestamp },
}

impl Slots {
    /// Reads the times of a schedule.
    ///
    /// # Errors
    /// An expression or a zone that cannot be read, an interval that is too short, an end before the start.
    pub fn of(spec: &ScheduleSpec) -> Result<Self, Reject> {
        let clock = match &spec.when {
            When::Cron { expression, zone, rules } => {
                Clock::Cron { cron: read_cron(expression)?, zone: read_zone(zone, rules)? }
            }
            When::Every { interval_ms } if *interval_ms < limits::SCHEDULE_INTERVAL_MS_MIN => {
                return Err(Reject::Invalid { field: "every_ms", reason: "is at least a second".into() });
            }
            When::Every { interval_ms } => {
                Clock::Every { interval: *interval_ms, anchor: spec.start.unwrap_or(Timestamp::ZERO) }
            }
        };
        let (start, end) = (spec.start.unwrap_or(Timestamp::ZERO), spec.end.unwrap_or(Timestamp::MAX));
        if start > end {
            return Err(Reject::Invalid { field: "end", reason: "is before the start".into() });
        }
        Ok(Self { clock, start, end: end.min(Timestamp::MAX) })
    }

    /// The first slot later than `after`.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // A slot at the very start counts.
        let after = if after < self.start { Timestamp(self.start.0 - 1) } else { after };
        let slot = match &self.clock {
            Clock::Cron { cron, zone } => cron.next(after, zone)?,
            Clock::Every { interval, anchor } => {
                let past = if after < *anchor { 0 } else { (after - *anchor) / interval + 1 };
                Timestamp(anchor.0.checked_add(past.checked_mul(*interval)?)?)
            }
        };
        (slot <= self.end).then_some(slot)
    }

    /// Every slot later than `after`, in order.
    pub fn after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next(after), |slot| self.next(*slot))
    }

    /// The newest slot earlier than `before` and later than `floor`.
    pub(crate) fn previous(&self, before: Timestamp, floor: Timestamp) -> Option<Timestamp> {
        let before = before.min(Timestamp(self.end.0 + 1));
        let floor = if floor < self.start { Timestamp(self.start.0.saturating_sub(1)) } else { floor };
        match &self.clock {
            Clock::Cron { cron, zone } => cron.previous(before, floor, zone),
            Clock::Every { interval, anchor } => {
                let whole = (before.0.checked_sub(anchor.0 + 1)?) / interval;
                let slot = Timestamp(anchor.0 + whole * interval);
                (slot > floor).then_some(slot)
            }
        }
    }

    /// When a slot fires: up to `jitter` later, by a chance that follows from `seed` and the slot, and before the next slot.
    pub(crate) fn due(&self, slot: Timestamp, jitter: Millis, seed: u64) -> Timestamp {
        if jitter == 0 {
            return slot;
        }
        let room = self.next(slot).map_or(u64::MAX, |next| next - slot);
        slot + mix(seed, slot.0) % (jitter + 1).min(room)
    }
}

fn read_cron(expression: &CompactString) -> Result<Cron, Reject> {
    let refuse = |BadCron { field, at, help }| Reject::BadCron {
        field: field.into(),
        at: u32::try_from(at).map_or(u32::MAX, |at| at.saturating_add(1)),
        help: help.into(),
    };
    if expression.len() > limits::CRON_BYTES_MAX {
        let help = "has at most 255 bytes".to_string();
        return Err(refuse(BadCron { field: "expression", at: limits::CRON_BYTES_MAX, help }));
    }
    expression.parse().map_err(refuse)
}

fn read_zone(name: &CompactString, rules: &[u8]) -> Result<Zone, Reject> {
    let refuse = |help: &str| Reject::BadZone { zone: name.clone(), help: help.into() };
    if name.len() > limits::CRON_BYTES_MAX {
        return Err(refuse("the name has at most 255 bytes"));
    }
    if rules.len() > limits::ZONE_BYTES_MAX {
        return Err(refuse("the rules have at most 16 KiB"));
    }
    Zone::read(rules).map_err(|bad| refuse(&bad.to_compact_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{NewJob, QueueName};

    fn every(interval_ms: u64) -> ScheduleSpec {
        ScheduleSpec::new(When::Every { interval_ms }, NewJob::new(QueueName::new("q").unwrap(), ""))
    }

    #[test]
    fn intervals_count_from_the_start_or_else_from_1970_and_end_at_the_end() {
        let aligned = Slots::of(&every(10_000)).unwrap();
        assert_eq!(aligned.next(Timestamp(10_000)), Some(Timestamp(20_000)));
        assert_eq!(aligned.previous(Timestamp(20_000), Timestamp::ZERO), Some(Timestamp(10_000)));
        let spec =
            ScheduleSpec { start: Some(Timestamp(3_000)), end: Some(Timestamp(23_000)), ..every(10_000) };
        let slots = Slots::of(&spec).unwrap();
        assert_eq!(slots.after(Timestamp::ZERO).collect::<Vec<_>>(), [3_000, 13_000, 23_000].map(Timestamp));
        assert_eq!(slots.previous(Timestamp::MAX, Timestamp::ZERO), Some(Timestamp(23_000)));
        assert_eq!(slots.previous(Timestamp(3_001), Timestamp::ZERO), Some(Timestamp(3_000)));
        assert_eq!(slots.previous(Timestamp(3_000), Timestamp::ZERO), None);
        assert_eq!(slots.previous(Timestamp(20_000), Timestamp(13_000)), None);
    }

    #[test]
    fn jitter_is_the_same_each_time_and_never_reaches_the_next_slot() {
        let slots = Slots::of(&every(10_000)).unwrap();
        let due: Vec<_> =
            slots.after(Timestamp::ZERO).take(200).map(|slot| slots.due(slot, 60_000, 7)).collect();
        assert!(due.is_sorted());
        assert!(due.iter().zip(slots.after(Timestamp::ZERO)).all(|(due, slot)| *due - slot < 10_000));
        assert!(due.iter().any(|due| due.0 % 10_000 > 5_000) && due.iter().any(|due| due.0 % 10_000 < 5_000));
        assert_eq!(slots.due(Timestamp(10_000), 60_000, 7), due[0]);
    }

    #[test]
    fn what_would_never_be_right_is_refused() {
        assert_eq!(Slots::of(&every(999)).unwrap_err().code(), "invalid");
        let spec = ScheduleSpec { start: Some(Timestamp(2)), end: Some(Timestamp(1)), ..every(1_000) };
        assert_eq!(Slots::of(&spec).unwrap_err().code(), "invalid");
        let cron = |expression: &str, rules: &'static [u8]| {
            let (expression, zone) = (expression.into(), "Europe/Nowhere".into());
            let when = When::Cron { expression, zone, rules: rules.into() };
            Slots::of(&ScheduleSpec { when, ..every(0) }).map(|_| ()).map_err(|reject| reject.to_string())
        };
        assert_eq!(cron("0 3 * * *", b""), Ok(()));
        assert!(cron("0 25 * * *", b"").unwrap_err().starts_with("cron: hour (character 3)"));
        assert!(cron("0 3 * * *", b"TZif").unwrap_err().starts_with("time zone Europe/Nowhere: "));
    }
}
