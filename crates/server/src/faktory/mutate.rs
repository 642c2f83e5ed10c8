//! MUTATE: changes of the jobs that wait for a time or are dead.

use super::{
    answer::{Answer, Refusal},
    session::Session,
    sweep::{Act, Choice},
};
use crate::access::Right;
use model::{JobView, State};
use serde::Deserialize;
use serde_json::Value;

/// Why a job was called off that a client wanted dead.
const KILLED: &str = "killed by a Faktory client";

#[derive(Debug, Deserialize)]
struct Mutation {
    cmd: String,
    target: String,
    #[serde(default)]
    filter: Option<Filter>,
}

/// Which jobs are meant. Ids count alone; a pattern and a type count both.
#[derive(Debug, Default, Deserialize)]
struct Filter {
    #[serde(default)]
    jids: Option<Vec<String>>,
    #[serde(default)]
    regexp: Option<String>,
    #[serde(default)]
    jobtype: Option<String>,
}

/// The jobs of a set that a filter means.
#[derive(Debug)]
struct Meant {
    filter: Filter,
    /// Of the jobs that were called off, only those that a client wanted dead.
    of_killed: bool,
}

/// Whether a job that was called off is one that a client wanted dead: it counts as dead here.
pub(super) fn is_killed(job: &JobView) -> bool {
    job.state == State::Cancelled && job.error.as_ref().is_some_and(|error| error.message == KILLED)
}

fn some(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl Choice for Meant {
    fn wants(&self, job: &JobView) -> bool {
        if self.of_killed && !is_killed(job) {
            return false;
        }
        match self.filter.jids.as_deref() {
            None | Some([]) => true,
            Some(jids) => {
                let id = job.id.to_string();
                jids.contains(&id)
            }
        }
    }

    fn wants_body(&self, body: &[u8]) -> Option<bool> {
        let Filter { jids, regexp, jobtype } = &self.filter;
        let (pattern, jobtype) = (some(regexp).filter(|pattern| *pattern != "*"), some(jobtype));
        if jids.as_ref().is_some_and(|jids| !jids.is_empty()) || (pattern.is_none() && jobtype.is_none()) {
            return None;
        }
        // Written anew, so that a pattern meets the job as Faktory would have kept it: without spaces.
        let job: Value = serde_json::from_slice(body).unwrap_or_default();
        let of_type = jobtype.is_none_or(|jobtype| job["jobtype"] == jobtype);
        Some(of_type && pattern.is_none_or(|pattern| glob(pattern.as_bytes(), job.to_string().as_bytes())))
    }
}

impl Session<'_> {
    /// MUTATE with a command, a set and perhaps a filter.
    pub(super) async fn mutate(&self, said: &[u8]) -> Result<Answer, Refusal> {
        self.check(Right::Operate)?;
        let mutation: Mutation =
            serde_json::from_slice(said).map_err(|error| Refusal::new(format!("invalid MUTATE: {error}")))?;
        let states: &[State] = match mutation.target.as_str() {
            "scheduled" => &[State::Delayed],
            "retries" => &[State::Retrying],
            "dead" => &[State::Dead, State::Cancelled],
            _ => return Err(Refusal::new("invalid target for mutation command")),
        };
        let is_dead = mutation.target == "dead";
        let act = match mutation.cmd.as_str() {
            "clear" | "discard" => Act::Remove,
            "requeue" if is_dead => Act::Redrive,
            "requeue" => Act::Promote,
            // They are dead already.
            "kill" if is_dead => return Ok(Answer::Ok),
            "kill" => Act::Cancel(KILLED),
            _ => return Err(Refusal::new("unknown mutate operation")),
        };
        let filter = if mutation.cmd == "clear" { None } else { mutation.filter };
        let mut meant = Meant { filter: filter.unwrap_or_default(), of_killed: false };
        for queue in self.queues().await? {
            for state in states.iter().filter(|state| queue.counts.of(**state) > 0) {
                meant.of_killed = *state == State::Cancelled;
                self.sweep(&queue.name, *state, &meant, act).await?;
            }
        }
        Ok(Answer::Ok)
    }
}

/// Whether a text matches a pattern of Redis: `*`, `?`, `[a-c]`, `[^a]`, and `\` before what means itself. In time of the product of both
/// lengths at most, whatever the pattern.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut on) = (0, 0);
    // Where to go on if what comes after the newest star does not match here.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, on));
            continue;
        }
        match (one(&pattern[at..], text.get(on).copied()), star) {
            (Some(length), _) => (at, on) = (at + length, on + 1),
            _ if at == pattern.len() && on == text.len() => return true,
            (None, Some((after, from))) if from < text.len() => {
                (at, on) = (after, from + 1);
                star = Some((after, from + 1));
            }
            (None, _) => return false,
        }
    }
}

/// Bytes of the pattern that match this one byte, if they do.
fn one(pattern: &[u8], byte: Option<u8>) -> Option<usize> {
    let byte = byte?;
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [b'[', ref set @ ..] => class(set, byte).map(|length| length + 1),
        [literal, ..] => (literal == byte).then_some(1),
    }
}

/// Bytes of a set behind its bracket, if the byte is in it.
fn class(set: &[u8], byte: u8) -> Option<usize> {
    let negated = set.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match set.get(at..)? {
            [b']', ..] => return (found != negated).then_some(at + 1),
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_redis() {
        for (pattern, text, matches) in [
            ("*", "", true),
            ("*", "any", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*uid:12*", "x uid:123 y", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[a-", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*\\\"args\\\":\\[\\\"fizz\\\"\\]*", r#"{"args":["fizz"],"x":1}"#, true),
            ("*\\\"args\\\":\\[\\\"fizz\\\"\\]*", r#"{"args":["buzz"],"x":1}"#, false),
            ("*a*b*", "aXb", true),
            ("*a*b", "abab", true),
            ("**", "a", true),
        ] {
            assert_eq!(glob(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_that_is_meant_to_cost_time_does_not() {
        let (pattern, text) = ("*a".repeat(500), "a".repeat(100_000));
        assert!(glob(pattern.as_bytes(), text.as_bytes()));
        assert!(!glob(format!("{pattern}b").as_bytes(), text.as_bytes()));
    }
}
