//! The lines between a pool and its children. `docs/handlers.md` describes them for those who write a child.

use super::children::{GraphFrame, JoinFrame};
use crate::{Context, Verdict, error};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use compact_str::CompactString;
use kit::Millis;
use model::{BadName, JobId, NewJob, Outcome, QueueName, State, StepValue, Until};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap};

/// The version that a child names in its `hello`.
pub(super) const VERSION: u32 = 1;

/// How long what is rate limited is left alone if the child does not say.
const RATE_LIMITED_MS: Millis = 1_000;

#[derive(Serialize)]
struct JobFrame<'a> {
    r#type: &'static str,
    id: String,
    queue: &'a str,
    attempt: u32,
    attempts: u32,
    lease_token: u64,
    deadline_ms: u64,
    content_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    tags: Vec<&'a str>,
    meta: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    steps: BTreeMap<&'a str, StepFrame<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<JoinFrame<'a>>,
}

/// What came of a step. `kind` is result, sleep, signal, timeout or child.
#[derive(Serialize)]
struct StepFrame<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> From<&'a StepValue> for StepFrame<'a> {
    fn from(value: &'a StepValue) -> Self {
        let mut frame = Self { kind: value.kind(), value: None, id: None, state: None, error: None };
        match value {
            StepValue::Result(bytes) | StepValue::Signal(bytes) => frame.value = one_line(bytes),
            StepValue::Slept { .. } | StepValue::TimedOut => {}
            StepValue::Child { id, end, .. } => {
                frame.id = Some(id.to_string());
                if let Some(end) = end {
                    frame.state = Some(end.state.map_or("removed", State::name));
                    frame.value = end.result.as_deref().and_then(one_line);
                    frame.error = end.error.as_ref().map(|error| error.message.as_str());
                }
            }
        }
        frame
    }
}

/// JSON without line ends: it allows a raw one between values only, where a space says the same.
pub(super) fn one_line(json: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(json).ok()?.replace(['\n', '\r'], " ");
    RawValue::from_string(text).ok()
}

/// Stored steps as one JSON object, as they stand in a job line.
pub(super) fn steps_json(steps: &BTreeMap<CompactString, StepValue>) -> String {
    let steps: BTreeMap<&str, StepFrame<'_>> =
        steps.iter().map(|(name, value)| (name.as_str(), value.into())).collect();
    // Text, numbers and checked JSON always serialise.
    serde_json::to_string(&steps).unwrap_or_default()
}

/// The line that says that a step is stored, with the result that counts.
pub(super) fn stored_line(token: u64, name: &str, value: &StepValue) -> Vec<u8> {
    let step = StepFrame::from(value);
    line_of(&serde_json::json!({
        "type": "stored", "lease_token": token, "name": name, "kind": step.kind, "value": step.value,
    }))
}

/// The line that says that a step could not be stored.
pub(super) fn not_stored_line(token: u64, name: &str, why: &str) -> Vec<u8> {
    line_of(&serde_json::json!({"type": "stored", "lease_token": token, "name": name, "error": why}))
}

fn line_of(frame: &impl Serialize) -> Vec<u8> {
    // Text, numbers and checked JSON always serialise.
    let mut line = serde_json::to_vec(frame).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The line that gives a child its job. JSON bodies stand in it as they are; all others in Base64.
pub(crate) fn job_line(context: &Context, steps: &BTreeMap<CompactString, StepValue>) -> Vec<u8> {
    let job = context.job();
    let body = context.body();
    // JSON allows a raw line end between values only, where a space says the same.
    let one_line = std::str::from_utf8(&body).ok().map(|text| text.replace(['\n', '\r'], " "));
    let is_json = job.content_type.is_empty() || job.content_type.starts_with("application/json");
    let json = one_line.as_deref().filter(|_| is_json).and_then(|text| serde_json::from_str(text).ok());
    let frame = JobFrame {
        r#type: "job",
        id: job.id.to_string(),
        queue: job.queue.as_str(),
        attempt: job.attempt,
        attempts: job.attempts,
        lease_token: job.lease_token,
        deadline_ms: job.timeout_at.0,
        content_type: if job.content_type.is_empty() { "application/json" } else { &job.content_type },
        body: json,
        body_base64: json.is_none().then(|| BASE64_STANDARD.encode(&body)),
        tags: job.tags.iter().map(|tag| tag.as_str()).collect(),
        meta: job.meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        steps: steps.iter().map(|(name, value)| (name.as_str(), value.into())).collect(),
        children: job.children.as_deref().map(JoinFrame::from),
    };
    line_of(&frame)
}

#[derive(Deserialize)]
struct ChildFrame<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    protocol: Option<u32>,
    lease_token: Option<u64>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    lines: Option<Vec<String>>,
    error: Option<ErrorFrame>,
    after_ms: Option<u64>,
    reason: Option<String>,
    limit: Option<String>,
    name: Option<String>,
    signal: Option<String>,
    timeout_ms: Option<u64>,
    #[serde(borrow)]
    child: Option<ChildJob<'a>>,
    #[serde(borrow)]
    children: Option<GraphFrame<'a>>,
}

/// The child job of a step, or of a join.
#[derive(Deserialize)]
pub(super) struct ChildJob<'a> {
    queue: String,
    id: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

impl ChildJob<'_> {
    pub(super) fn job(self) -> Result<NewJob, String> {
        let bad = |why: BadName| format!("the child job: {why}");
        let queue = QueueName::new(&self.queue).map_err(bad)?;
        let body = self.body.map_or_else(|| Bytes::from_static(b"null"), json);
        let id = self.id.as_deref().map(JobId::parse).transpose().map_err(bad)?;
        Ok(NewJob { id, ..NewJob::new(queue, body) })
    }
}

#[derive(Deserialize, Default)]
struct ErrorFrame {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    stack: String,
}

/// What a child says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Hello {
        protocol: u32,
    },
    /// Of the job with this token.
    Of(u64, Word),
}

/// What a child says of a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Word {
    Progress(Bytes),
    Log(Vec<String>),
    Step { name: String, result: Bytes },
    Ended(Verdict),
}

/// Reads a child's line; the error says what is wrong with it.
pub(super) fn read(line: &[u8]) -> Result<Said, String> {
    let frame = frame(line)?;
    let token = frame.lease_token;
    match &*frame.r#type {
        "hello" => Ok(Said::Hello { protocol: frame.protocol.unwrap_or(0) }),
        "progress" => {
            let value = frame.value.map_or_else(|| Bytes::from_static(b"null"), json);
            of(token, Word::Progress(value))
        }
        "log" => of(token, Word::Log(frame.lines.unwrap_or_default())),
        "step" => {
            let name = frame.name.ok_or("the child wrote a step without its name")?;
            let result = frame.result.map_or_else(|| Bytes::from_static(b"null"), json);
            of(token, Word::Step { name, result })
        }
        _ => of(token, Word::Ended(outcome(frame)?.into())),
    }
}

/// Reads the line with which a program that runs once per job ends: an outcome, without a lease token.
pub(crate) fn read_outcome(line: &[u8]) -> Result<Outcome, String> {
    outcome(frame(line)?)
}

fn frame(line: &[u8]) -> Result<ChildFrame<'_>, String> {
    serde_json::from_slice(line).map_err(|why| {
        let start = String::from_utf8_lossy(&line[..line.len().min(200)]);
        format!("the child wrote a line that is not a frame ({why}): {start}")
    })
}

fn outcome(frame: ChildFrame<'_>) -> Result<Outcome, String> {
    let told = frame.error.unwrap_or_default();
    let told = error(if told.kind.is_empty() { "error" } else { &told.kind }, &told.message, &told.stack);
    let suspend = |name: Option<String>, until| {
        let step = name.ok_or("the child wrote a suspension without the name of its step")?;
        Ok::<_, String>(Outcome::Suspend { step: step.into(), until })
    };
    Ok(match &*frame.r#type {
        "sleep" => suspend(frame.name, Until::Time { after_ms: frame.after_ms.unwrap_or(0) })?,
        "wait_for_signal" => {
            let name = frame.signal.ok_or("the child waits for a signal without its name")?.into();
            suspend(frame.name, Until::Signal { name, timeout_ms: frame.timeout_ms.unwrap_or(0) })?
        }
        "wait_for_child" => {
            let child = frame.child.ok_or("the child waits for a child job without saying which")?;
            suspend(frame.name, Until::Child { job: Box::new(child.job()?) })?
        }
        "wait" => {
            let children = frame.children.ok_or("the child waits for children without saying which")?;
            Outcome::Wait { children: children.graph()? }
        }
        "done" => Outcome::Done { result: frame.result.map(json) },
        "retry" => Outcome::Retry { error: told, after_ms: frame.after_ms },
        "fail" => Outcome::Fail { error: told },
        "snooze" => Outcome::Snooze { after_ms: frame.after_ms.unwrap_or(0) },
        "rate_limited" => Outcome::RateLimited {
            key: frame.limit.map(Into::into),
            after_ms: frame.after_ms.unwrap_or(RATE_LIMITED_MS),
        },
        "cancel" => Outcome::Cancel { reason: frame.reason.unwrap_or_default().into() },
        other => {
            return Err(format!(
                "the child wrote a frame of type {other:?}; known are hello, progress, log, step, done, retry, fail, snooze, rate_limited, cancel, sleep, wait_for_signal, wait_for_child, wait"
            ));
        }
    })
}

fn json(value: &RawValue) -> Bytes {
    Bytes::copy_from_slice(value.get().as_bytes())
}

fn of(token: Option<u64>, word: Word) -> Result<Said, String> {
    let token = token.ok_or("the child wrote a frame without the lease_token of its job")?;
    Ok(Said::Of(token, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_frame_is_read() {
        let ended = |outcome: Outcome| Ok(Said::Of(7, Word::Ended(outcome.into())));
        for (line, said) in [
            (r#"{"type":"hello","protocol":1,"name":"node"}"#, Ok(Said::Hello { protocol: 1 })),
            (
                r#"{"type":"progress","lease_token":7,"value":{"at": 5}}"#,
                Ok(Said::Of(7, Word::Progress(Bytes::from_static(br#"{"at": 5}"#)))),
            ),
            (
                r#"{"type":"log","lease_token":7,"lines":["a","b"]}"#,
                Ok(Said::Of(7, Word::Log(vec!["a".into(), "b".into()]))),
            ),
            (r#"{"type":"done","lease_token":7}"#, ended(Outcome::Done { result: None })),
            (
                r#"{"type":"done","lease_token":7,"result":12345678901234567890123}"#,
                ended(Outcome::Done { result: Some(Bytes::from_static(b"12345678901234567890123")) }),
            ),
            (
                r#"{"type":"retry","lease_token":7,"error":{"kind":"Http","message":"503"},"after_ms":9}"#,
                ended(Outcome::Retry { error: error("Http", "503", ""), after_ms: Some(9) }),
            ),
            (
                r#"{"type":"fail","lease_token":7,"error":{"message":"no"}}"#,
                ended(Outcome::Fail { error: error("error", "no", "") }),
            ),
            (r#"{"type":"snooze","lease_token":7,"after_ms":5}"#, ended(Outcome::Snooze { after_ms: 5 })),
            (
                r#"{"type":"rate_limited","lease_token":7,"limit":"api","after_ms":5}"#,
                ended(Outcome::RateLimited { key: Some("api".into()), after_ms: 5 }),
            ),
            (
                r#"{"type":"rate_limited","lease_token":7}"#,
                ended(Outcome::RateLimited { key: None, after_ms: 1_000 }),
            ),
            (
                r#"{"type":"cancel","lease_token":7,"reason":"gone"}"#,
                ended(Outcome::Cancel { reason: "gone".into() }),
            ),
            (
                r#"{"type":"step","lease_token":7,"name":"charge","result":{"n": 1}}"#,
                Ok(Said::Of(
                    7,
                    Word::Step { name: "charge".into(), result: Bytes::from_static(br#"{"n": 1}"#) },
                )),
            ),
            (
                r#"{"type":"sleep","lease_token":7,"name":"nap","after_ms":5}"#,
                ended(Outcome::Suspend { step: "nap".into(), until: Until::Time { after_ms: 5 } }),
            ),
            (
                r#"{"type":"wait_for_signal","lease_token":7,"name":"ok","signal":"go","timeout_ms":9}"#,
                ended(Outcome::Suspend {
                    step: "ok".into(),
                    until: Until::Signal { name: "go".into(), timeout_ms: 9 },
                }),
            ),
            (
                r#"{"type":"wait_for_child","lease_token":7,"name":"kid","child":{"queue":"q","body":[1]}}"#,
                ended(Outcome::Suspend {
                    step: "kid".into(),
                    until: Until::Child {
                        job: Box::new(NewJob::new(QueueName::new("q").unwrap(), &b"[1]"[..])),
                    },
                }),
            ),
        ] {
            assert_eq!(read(line.as_bytes()), said, "{line}");
        }
    }

    #[test]
    fn what_is_no_frame_is_named() {
        for (line, part) in [
            ("hello world", "not a frame"),
            ("[]", "not a frame"),
            ("\u{0}", "not a frame"),
            (r#"{"type":"done"}"#, "without the lease_token"),
            (r#"{"type":"finished","lease_token":7}"#, "known are"),
            (r#"{"type":"sleep","lease_token":7}"#, "without the name"),
            (r#"{"type":"wait","lease_token":7}"#, "without saying which"),
            (r#"{"type":"wait","lease_token":7,"children":{"jobs":{"a":{}}}}"#, "missing field `queue`"),
            (r#"{"type":"wait_for_child","lease_token":7,"name":"k","child":{"queue":" "}}"#, "a queue name"),
        ] {
            let why = read(line.as_bytes()).unwrap_err();
            assert!(why.contains(part), "{line}: {why}");
        }
    }
}
