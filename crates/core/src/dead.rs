//! What kills the jobs of a queue, by class of error.
//!
//! A class is found by the *fingerprint* of an error: XXH3-64 over its kind, its message and three lines of its stack, each made general:
//!
//! 1. at most [`limits::ERROR_CLASS_BYTES_MAX`] bytes are looked at, cut at a character;
//! 2. what stands in `"…"`, `'…'` or `` `…` `` on one line becomes `"…"`; an apostrophe within a word opens nothing;
//! 3. a word (letters, digits, `_`) with a digit in it becomes `#`, and so does a UUID; words joined by one of `-.,:/` to a `#`
//!    that stands before them become part of it if they have a digit, too;
//! 4. white space becomes one space.
//!
//! The lines of the stack are its first three that are not empty; of one that begins with `Traceback`, as Python writes it, and of the
//! stderr of a crash, its last three. So line numbers, addresses, ids and times make no new class, and where it happened does.

use crate::shard::Shard;
use compact_str::CompactString;
use kit::{Millis, Timestamp};
use model::{Alert, Crash, ErrorInfo, JobId, QueueName, limits};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
/// Lines of a stack that a class looks at.
const FRAMES: usize = 3;

/// Errors that killed jobs, by queue and fingerprint.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    by_print: BTreeMap<(u32, u64), Class>,
    /// Those to write with the next checkpoint. Not part of the state.
    pub(crate) dirty: BTreeSet<(u32, u64)>,
}

/// One class of errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) kind: CompactString,
    /// Made general.
    pub(crate) message: CompactString,
    pub(crate) count: u64,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
    /// The newest job that died of it.
    pub(crate) sample: JobId,
    pub(crate) minute: Window,
    pub(crate) hour: Window,
}

/// Counts of a span of time and of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Window {
    /// When the present span began: a multiple of it.
    pub(crate) from: Timestamp,
    pub(crate) now: u64,
    pub(crate) before: u64,
}

impl Window {
    fn roll(&mut self, at: Timestamp, span: Millis) {
        let from = Timestamp(at.0 - at.0 % span);
        if from != self.from {
            self.before = if from - self.from == span { self.now } else { 0 };
            (self.from, self.now) = (from, 0);
        }
    }

    pub(crate) fn add(&mut self, at: Timestamp, span: Millis) {
        self.roll(at, span);
        self.now += 1;
    }

    /// How many in the span that ends at `at`, if those of the span before came evenly.
    pub(crate) fn rate(mut self, at: Timestamp, span: Millis) -> u64 {
        self.roll(at, span);
        self.now + self.before.saturating_mul(span - (at - self.from)) / span
    }
}

/// One class of errors as people and tools see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorClass {
    /// Names the class, the same on every machine.
    pub fingerprint: u64,
    /// The error's kind.
    pub kind: CompactString,
    /// Its message, made general.
    pub message: CompactString,
    /// Jobs that died of it since it is known.
    pub count: u64,
    /// When the first of them died.
    pub first_at: Timestamp,
    /// When the newest died.
    pub last_at: Timestamp,
    /// The newest; it may be redriven or forgotten by now.
    pub sample: JobId,
    /// Deaths in the last minute, about.
    pub per_minute: u64,
    /// Deaths in the last hour, about.
    pub per_hour: u64,
}

/// The dead letters of a queue, by class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// Dead jobs that are kept now.
    pub dead: u64,
    /// When the oldest of them died.
    pub oldest_at: Option<Timestamp>,
    /// The classes, most recent first.
    pub classes: Vec<ErrorClass>,
    /// Deaths of classes that are no longer remembered.
    pub others: u64,
    /// The queue that those who die now go on to.
    pub target: Option<QueueName>,
    /// From when on they are an alert.
    pub alert: Alert,
    /// Since when they are one.
    pub alert_since: Option<Timestamp>,
}

impl Classes {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u64, &Class)> {
        self.by_print.iter().map(|((queue, print), class)| (*queue, *print, class))
    }

    pub(crate) fn get(&self, key: (u32, u64)) -> Option<&Class> {
        self.by_print.get(&key)
    }

    pub(crate) fn insert(&mut self, key: (u32, u64), class: Class) {
        self.by_print.insert(key, class);
    }

    /// Those of one queue.
    pub(crate) fn of(&self, queue: u32) -> impl Iterator<Item = (u64, &Class)> {
        self.by_print.range((queue, 0)..=(queue, u64::MAX)).map(|((_, print), class)| (*print, class))
    }

    /// A job of that queue died. Returns the fingerprint of its class.
    fn add(&mut self, queue: u32, error: &ErrorInfo, sample: JobId, now: Timestamp) -> u64 {
        let message = general(&error.message);
        let key = (queue, fingerprint(&error.kind, &message, &error.stack));
        if !self.by_print.contains_key(&key) && self.of(queue).count() >= limits::ERROR_CLASSES_MAX {
            let oldest = self.of(queue).min_by_key(|(print, class)| (class.last_at, *print));
            if let Some((print, _)) = oldest {
                self.by_print.remove(&(queue, print));
                self.dirty.insert((queue, print));
            }
        }
        self.dirty.insert(key);
        let class = self.by_print.entry(key).or_insert_with(|| Class {
            kind: error.kind.clone(),
            message,
            count: 0,
            first_at: now,
            last_at: now,
            sample: sample.clone(),
            minute: Window::default(),
            hour: Window::default(),
        });
        #[cfg(feature = "plant")]
        if crate::plant::is(crate::plant::Bug::CountErrorClassOnce) && class.count > 0 {
            return key.1;
        }
        class.count += 1;
        class.last_at = now;
        class.sample = sample;
        class.minute.add(now, MINUTE);
        class.hour.add(now, HOUR);
        key.1
    }
}

impl Shard {
    /// Counts a death in the class of its error, and returns the class.
    pub(crate) fn count_death(&mut self, slot: u32, error: &ErrorInfo, now: Timestamp) -> u64 {
        let job = &self.jobs[slot];
        self.classes.add(job.queue, error, job.id(self.id), now)
    }

    /// The dead letters of a queue; `None` if there is no such queue.
    pub fn dead_letters(&self, name: &QueueName) -> Option<DeadLetters> {
        let index = *self.queue_index.get(name)?;
        let (queue, now) = (&self.queues[index as usize], self.counters.time);
        let mut classes: Vec<_> = self
            .classes
            .of(index)
            .map(|(fingerprint, class)| ErrorClass {
                fingerprint,
                kind: class.kind.clone(),
                message: class.message.clone(),
                count: class.count,
                first_at: class.first_at,
                last_at: class.last_at,
                sample: class.sample.clone(),
                per_minute: class.minute.rate(now, MINUTE),
                per_hour: class.hour.rate(now, HOUR),
            })
            .collect();
        classes.sort_by_key(|class| (std::cmp::Reverse(class.last_at), class.fingerprint));
        let counted: u64 = classes.iter().map(|class| class.count).sum();
        let oldest = queue.lane(model::State::Dead, model::Priority::NORMAL).and_then(|lane| lane.first());
        Some(DeadLetters {
            dead: queue.counts.of(model::State::Dead),
            oldest_at: oldest.map(|(_, slot)| self.jobs[slot].finished_at()),
            classes,
            others: queue.totals.dead.saturating_sub(counted),
            target: queue.settings.dead_letter.queue.clone(),
            alert: queue.settings.dead_letter.alert,
            alert_since: self.alert_since(index),
        })
    }
}

fn fingerprint(kind: &str, message: &str, stack: &str) -> u64 {
    let mut text = format!("{kind}\0{message}");
    let lines = || stack.lines().filter(|line| !line.trim().is_empty());
    let frames: Vec<&str> = if stack.starts_with("Traceback") || kind == Crash::KIND {
        lines().rev().take(FRAMES).collect()
    } else {
        lines().take(FRAMES).collect()
    };
    for frame in frames {
        text.push('\0');
        text.push_str(&general(frame));
    }
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}

/// At most so many bytes of a text, cut at a character.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=text.len().min(bytes)).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// A text without what differs from one time to the next.
fn general(text: &str) -> CompactString {
    let text = cut(text, limits::ERROR_CLASS_BYTES_MAX);
    let mut out = CompactString::default();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let after_word = out.ends_with(|last: char| last.is_alphanumeric() || last == '#');
        if first.is_whitespace() {
            rest = rest.trim_start();
            out.push(' ');
        } else if let Some(quoted) = quoted(rest).filter(|_| first != '\'' || !after_word) {
            out.push_str("\"…\"");
            rest = &rest[quoted..];
        } else if is_uuid(rest) {
            push_number(&mut out);
            rest = &rest[36..];
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            if rest[..end].contains(|c: char| c.is_numeric()) {
                push_number(&mut out);
            } else {
                out.push_str(&rest[..end]);
            }
            rest = &rest[end..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

/// Adds a `#`, or makes it part of the one that stands before.
fn push_number(out: &mut CompactString) {
    if let Some(joined) = out.strip_suffix(['-', '.', ',', ':', '/'])
        && joined.ends_with('#')
    {
        let length = joined.len();
        out.truncate(length);
    } else {
        out.push('#');
    }
}

/// How long the quoted text is that begins here.
fn quoted(text: &str) -> Option<usize> {
    let mark = text.chars().next().filter(|mark| matches!(mark, '"' | '\'' | '`'))?;
    let line = text[1..].lines().next()?;
    line.find(mark).map(|end| end + 2)
}

fn is_uuid(text: &str) -> bool {
    text.as_bytes().get(..36).is_some_and(|bytes| {
        bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::check;

    #[test]
    fn what_differs_from_one_time_to_the_next_makes_no_new_class() {
        for (text, wanted) in [
            ("order 4711 not found", "order # not found"),
            ("no user user_8f3a at 10.0.0.1:8080", "no user # at #"),
            ("took 12.5ms, limit  10ms", "took #, limit #"),
            ("can't read 'a b.txt': don't", "can't read \"…\": don't"),
            ("key \"x\" and `y`", "key \"…\" and \"…\""),
            ("job 0192f7a1-7b3c-7def-8123-456789abcdef gone", "job # gone"),
            ("at 2026-11-21T07:18:05Z\n\tfailed", "at # failed"),
            ("0xdeadbeef1 != 0x7", "# != #"),
            ("an open \" quote", "an open \" quote"),
            ("decade of café", "decade of café"),
            ("", ""),
        ] {
            assert_eq!(general(text), wanted, "{text}");
        }
        let long = "é".repeat(limits::ERROR_CLASS_BYTES_MAX);
        assert_eq!(general(&long).len(), limits::ERROR_CLASS_BYTES_MAX);
    }

    #[test]
    fn where_it_happened_makes_a_class_but_not_in_which_line() {
        let of = |stack: &str| fingerprint("E", "m", stack);
        assert_eq!(of("at f (a.js:1:2)\nat g (b.js:3)"), of("at f (a.js:7:9)\n\nat g (b.js:8)"));
        assert_ne!(of("at f (a.js:1:2)"), of("at g (a.js:1:2)"));
        assert_eq!(of("1\n2\n3\nfour"), of("1\n2\n3\nfive"));
        let python = |last: &str| {
            of(&format!("Traceback (most recent call last):\n File x\n a()\n File y\n b()\n{last}"))
        };
        assert_ne!(python("KeyError"), python("ValueError"));
        assert_eq!(of("at f"), 8_003_096_769_609_103_572, "documented, so it does not change");
    }

    #[test]
    fn deaths_are_counted_by_class() {
        check(
            "
            0s   push mail id=a ; mail id=b ; mail id=c
            0s   fetch mail max=3         -> a 1/5 t1, b 1/5 t2, c 1/5 t3
            1s   fail a t1 E:id-17        -> dead
            2s   fail b t2 E:id-18        -> dead
            3s   fail c t3 F              -> dead
            3s   classes mail             -> 3 dead since 1s: F 1 (3s to 3s, c, 1/min), id-# 2 (1s to 2s, b, 2/min)
            4s   redrive b                -> waiting
            90s  tick
            90s  classes mail             -> 2 dead since 1s: F 1 (3s to 3s, c, 0/min), id-# 2 (1s to 2s, b, 0/min)
            91s  fetch mail               -> b 1/5 t4
            92s  fail b t4 E:id-20        -> dead
            92s  classes mail             -> 3 dead since 1s: id-# 3 (1s to 92s, b, 1/min), F 1 (3s to 3s, c, 0/min)
            92s  list mail kind=F         -> c
        ",
        );
    }

    #[test]
    fn the_least_recent_class_goes_when_there_are_too_many() {
        let mut script = check("0s push mail attempts=1 x103");
        for n in 0..103u32 {
            let word: String =
                n.to_string().chars().map(|digit| (b'a' + digit as u8 - b'0') as char).collect();
            script.line(&format!("{n}s fetch mail"));
            assert_eq!(script.line(&format!("{n}s retry #{} t{} kind-{word}", n + 1, n + 1)), "dead");
        }
        let letters = script.shard.dead_letters(&model::QueueName::new("mail").unwrap()).unwrap();
        assert_eq!((letters.classes.len(), letters.others, letters.dead), (100, 3, 103));
        assert_eq!(letters.classes[99].kind, "kind-d");
    }
}
