//! A run written down: what callers asked, when, and what broke. It stays the same when the workload changes.
//!
//! ```text
//! # anything for people
//! seed 17
//! step 12 at 1767000003402 call disk 0103…    level, and the envelope in its binary form, in hexadecimal
//! step 15 at 1767000003410 work
//! step 16 at 1767000003411 tend
//! step 19 at 1767000004000 fault 4
//! ```
//!
//! What the process does within a step, and how a disk loses what was not flushed, follows from the seed and the number of
//! the step.

use compact_str::CompactString;
use kit::{Durability, Timestamp, codec::Reader};
use model::{Actor, Command, Envelope, codec};
use std::{
    cell::RefCell,
    fmt::{self, Write},
    rc::Rc,
    str::FromStr,
};

/// What is done in a step.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Somebody calls.
    Call(Box<Asked>),
    /// The process takes some steps.
    Work,
    /// Its other threads take theirs.
    Tend,
    /// Something breaks.
    Break(u64),
    /// Nothing.
    Rest,
}

/// A call.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) command: Command,
    /// The idempotency key.
    pub(crate) key: Option<CompactString>,
    pub(crate) level: Durability,
}

/// One step, written down.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) step: u64,
    pub(crate) at: Timestamp,
    pub(crate) act: Act,
}

/// Which steps a run takes.
#[derive(Debug, Clone)]
pub(crate) enum Course {
    /// All, until the calls are made.
    Free,
    /// These, in rising order, as they would be with all.
    Only(Vec<u64>),
    /// What is written here.
    Script(Vec<Line>),
}

/// A run written down.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// The seed of what is not written down.
    pub seed: u64,
    pub(crate) lines: Vec<Line>,
}

/// Where a run is written down, if it is.
#[derive(Clone, Default)]
pub(crate) struct Recording(Option<Rc<RefCell<Vec<Line>>>>);

impl Recording {
    pub(crate) fn on() -> Self {
        Self(Some(Rc::default()))
    }

    pub(crate) fn note(&self, line: impl FnOnce() -> Line) {
        if let Some(lines) = &self.0 {
            lines.borrow_mut().push(line());
        }
    }

    pub(crate) fn taken(self) -> Vec<Line> {
        self.0.map(|lines| lines.take()).unwrap_or_default()
    }
}

impl Script {
    /// How many steps it has.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for Line { step, at, act } in &self.lines {
            let text = match act {
                Act::Rest => continue,
                Act::Call(asked) => {
                    let Asked { command, key, level } = asked.as_ref().clone();
                    writeln!(
                        f,
                        "# {}{command:?}",
                        key.as_ref().map_or(String::new(), |key| format!("{key}: "))
                    )?;
                    let mut bytes = Vec::new();
                    let envelope = Envelope { actor: Actor::new(""), idempotency_key: key, command };
                    codec::encode_envelope(&envelope, &mut bytes);
                    let mut text = format!("call {level} ");
                    bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))?;
                    text
                }
                Act::Work => "work".to_string(),
                Act::Tend => "tend".to_string(),
                Act::Break(what) => format!("fault {what}"),
            };
            writeln!(f, "step {step} at {} {text}", at.0)?;
        }
        Ok(())
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        for line in lines {
            let words: Vec<_> = line.split_whitespace().collect();
            let understood = match words[..] {
                ["seed", seed] => seed.parse().ok().map(|seed| script.seed = seed),
                ["step", step, "at", at, ref act @ ..] => {
                    read_line(step, at, act).map(|line| script.lines.push(line))
                }
                _ => None,
            };
            understood.ok_or_else(|| format!("not a line of a script: {line}"))?;
        }
        Ok(script)
    }
}

fn read_line(step: &str, at: &str, act: &[&str]) -> Option<Line> {
    let act = match act {
        ["call", level, bytes] => {
            let bytes =
                (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(bytes.get(at..at + 2)?, 16).ok());
            let bytes: Vec<u8> = bytes.collect::<Option<_>>()?;
            let envelope = codec::decode_envelope(&mut Reader::new(&bytes)).ok()?;
            let Envelope { idempotency_key: key, command, .. } = envelope;
            Act::Call(Box::new(Asked { command, key, level: level.parse().ok()? }))
        }
        ["work"] => Act::Work,
        ["tend"] => Act::Tend,
        ["fault", what] => Act::Break(what.parse().ok()?),
        _ => return None,
    };
    Some(Line { step: step.parse().ok()?, at: Timestamp(at.parse().ok()?), act })
}
