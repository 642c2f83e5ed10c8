//! The jobs of both sides: what a Faktory producer pushes as a job of the pond, and any job of the pond as a Faktory worker gets it.
//!
//! The body of a job that came from here is the JSON object that its producer sent, untouched. So a worker of any other kind sees
//! `jobtype` and `args` in it, and nothing has to be put together again but what the server knows better: the state of its attempts.

use super::answer::Refusal;
use crate::http::json;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use compact_str::{CompactString, format_compact};
use kit::{Backoff, Millis, Timestamp};
use model::{
    DispatchedJob, ErrorInfo, JobId, JobView, NewJob, OnConflict, Priority, QueueName, Unique, limits,
};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The queue of a job, or of a fetch, that names none.
pub(super) const DEFAULT_QUEUE: &str = "default";
/// Retries of a job that does not say.
const RETRIES: i64 = 25;
/// How long a worker may keep a job that does not say.
pub(super) const RESERVE_MS: Millis = 1_800_000;
const RESERVE_MS_MIN: Millis = 60_000;
const JID_BYTES_MIN: usize = 8;
/// The key in a job's meta that says what becomes of it when it fails for the last time. A job whose `retry` is 0 is not wanted then.
const LAST_FAILURE: &str = "faktory-last-failure";
const DISCARD: &str = "discard";
/// The key in a job's meta that says how long its unique key counts.
const UNIQUE_UNTIL: &str = "faktory-unique-until";
const START: &str = "start";
/// The key in the meta of a job whose producer wants to follow it.
const TRACK: &str = "faktory-track";
/// The key in the meta of a job that was pushed elsewhere and names what a Faktory worker knows it by.
const JOBTYPE: &str = "jobtype";

/// A job as its producer sends it: what means something here. The rest goes with it.
#[derive(Debug, Deserialize)]
struct Sent<'a> {
    jid: Option<String>,
    jobtype: Option<String>,
    #[serde(borrow)]
    args: Option<&'a RawValue>,
    queue: Option<String>,
    reserve_for: Option<i64>,
    at: Option<String>,
    retry: Option<i64>,
    priority: Option<i64>,
    custom: Option<Custom>,
}

/// The part of `custom` that is for the server.
#[derive(Debug, Default, Deserialize)]
struct Custom {
    unique_for: Option<Value>,
    unique_until: Option<String>,
    expires_at: Option<String>,
    expires_in: Option<Value>,
    bid: Option<String>,
    track: Option<Value>,
}

/// A job to be pushed.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) job: NewJob,
    /// The batch that it belongs to.
    pub(super) batch: Option<String>,
}

/// The id that a job gives itself, whatever else is wrong with it.
pub(super) fn jid_of(sent: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Named {
        jid: Option<String>,
    }
    serde_json::from_slice(sent).ok().and_then(|Named { jid }| jid).unwrap_or_default()
}

/// Reads a job that a producer sent.
pub(super) fn read(sent: &Bytes, now: Timestamp) -> Result<Push, Refusal> {
    let bad = |text: String| Err(Refusal::new(text));
    if let Err(at) = json::check_depth(sent) {
        return bad(format!("invalid JSON: it nests too deeply at byte {at}"));
    }
    let job: Sent<'_> =
        serde_json::from_slice(sent).map_err(|error| Refusal::new(format!("invalid JSON: {error}")))?;
    let jid = job.jid.unwrap_or_default();
    if jid.len() < JID_BYTES_MIN {
        // Clients compare this text.
        return bad("jobs must have a reasonable jid parameter".to_owned());
    }
    let Some(jobtype) = job.jobtype.filter(|name| !name.is_empty()) else {
        return bad("jobs must have a jobtype parameter".to_owned());
    };
    let Some(args) = job.args.filter(|args| args.get().starts_with('[')) else {
        return bad("jobs must have an args parameter: a list".to_owned());
    };
    let queue = job.queue.filter(|name| !name.is_empty());
    let queue = QueueName::new(queue.as_deref().unwrap_or(DEFAULT_QUEUE))?;
    if job.reserve_for.is_some_and(|seconds| seconds > (limits::LEASE_MS_MAX / 1_000) as i64) {
        return bad("jobs cannot be reserved for more than one day".to_owned());
    }
    let priority = match job.priority.unwrap_or(0) {
        0 => Priority::NORMAL,
        // 5 is what every job has that does not say, here as there.
        level @ 1..=9 => Priority((200 - 20 * level) as u8),
        other => return bad(format!("priority: {other} is not 1 to 9")),
    };
    let time = |field: &str, text: &str| {
        text.parse::<Timestamp>()
            .map_err(|error| Refusal::new(format!("invalid timestamp for '{field}': {error}")))
    };
    let run_at = job.at.filter(|text| !text.is_empty()).map(|text| time("at", &text)).transpose()?;
    let custom = job.custom.unwrap_or_default();
    let expires_at = custom.expires_at.filter(|text| !text.is_empty());
    let expires_at = expires_at.map(|text| time("expires_at", &text)).transpose()?;
    let expires_in = custom.expires_in.as_ref().map(|value| seconds("expires_in", value)).transpose()?;
    // What has expired already is kept for a moment rather than refused: its producer is not to blame.
    let expires_at = expires_at.map(|at| at.0.saturating_sub(now.0).max(1));
    let unique_for = custom.unique_for.as_ref().map(|value| seconds("unique_for", value)).transpose()?;
    let unique = unique_for.filter(|ttl_ms| *ttl_ms > 0).map(|ttl_ms| Unique {
        key: unique_key(&jobtype, args),
        ttl_ms,
        on_conflict: OnConflict::Reject,
    });
    let retry = job.retry.unwrap_or(RETRIES);
    let attempts = retry.saturating_add(1).clamp(1, i64::from(limits::ATTEMPTS_MAX)) as u32;
    let tag = CompactString::from(jobtype);
    let mut meta = Vec::new();
    if retry == 0 {
        meta.push((LAST_FAILURE.into(), DISCARD.into()));
    }
    if unique.is_some() && custom.unique_until.as_deref() == Some(START) {
        meta.push((UNIQUE_UNTIL.into(), START.into()));
    }
    let untracked = [Value::Null, Value::from(0), Value::from(false)];
    if custom.track.is_some_and(|track| !untracked.contains(&track)) {
        meta.push((TRACK.into(), "1".into()));
    }
    let job = NewJob {
        id: Some(JobId::parse(&jid)?),
        priority,
        run_at,
        attempts: Some(attempts),
        backoff: Some(Backoff::Sidekiq),
        // The reservation is the lease; an attempt has no other end.
        timeout_ms: Some(limits::LEASE_MS_MAX),
        expires_ms: expires_at.into_iter().chain(expires_in.map(|span| span.max(1))).min(),
        unique,
        tags: if tag.len() <= limits::TAG_BYTES_MAX { vec![tag] } else { Vec::new() },
        meta,
        ..NewJob::new(queue, sent.clone())
    };
    Ok(Push { job, batch: custom.bid.filter(|bid| !bid.is_empty()) })
}

/// Seconds as a number or as text, in milliseconds.
fn seconds(field: &str, value: &Value) -> Result<Millis, Refusal> {
    let seconds = match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(|number| number as u64)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let seconds = seconds.ok_or_else(|| Refusal::new(format!("{field}: is not a number of seconds")))?;
    Ok(seconds.saturating_mul(1_000).min(limits::SPAN_MS_MAX))
}

/// Jobs of a queue are the same if they have the same type and arguments.
fn unique_key(jobtype: &str, args: &RawValue) -> CompactString {
    let mut hash = Sha256::new();
    hash.update(jobtype);
    hash.update([0]);
    // However a client writes it.
    match serde_json::from_str::<Value>(args.get()) {
        Ok(args) => hash.update(args.to_string()),
        Err(_) => hash.update(args.get()),
    }
    let digits: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format_compact!("faktory:{digits}")
}

/// Whether a job with this meta is not wanted any more when it fails for the last time.
pub(super) fn is_discarded(meta: &[(CompactString, CompactString)]) -> bool {
    meta.iter().any(|(key, value)| key == LAST_FAILURE && value == DISCARD)
}

/// Whether the unique key of a job with this meta is free again when it has started.
pub(super) fn gives_key_up(meta: &[(CompactString, CompactString)]) -> bool {
    meta.iter().any(|(key, value)| key == UNIQUE_UNTIL && value == START)
}

/// Whether the producer of a job with this meta wants to follow it.
pub(super) fn is_tracked(meta: &[(CompactString, CompactString)]) -> bool {
    meta.iter().any(|(key, _)| key == TRACK)
}

/// What is read of a body to see whether it is a Faktory job, and of the options that count for its attempts.
#[derive(Debug, Deserialize)]
struct Known<'a> {
    jobtype: String,
    #[serde(borrow)]
    args: &'a RawValue,
    reserve_for: Option<i64>,
}

/// How long the worker may keep the job.
pub(super) fn reservation(body: &[u8]) -> Millis {
    let known: Option<Known<'_>> = serde_json::from_slice(body).ok();
    let seconds = known.and_then(|known| known.reserve_for).and_then(|seconds| u64::try_from(seconds).ok());
    match seconds {
        None | Some(0) => RESERVE_MS,
        Some(seconds) => seconds.saturating_mul(1_000).clamp(RESERVE_MS_MIN, limits::LEASE_MS_MAX),
    }
}

/// The newest failure of a job.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    retry_count: u32,
    remaining: u32,
    failed_at: String,
    next_at: String,
    message: String,
    errtype: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backtrace: Vec<String>,
}

impl Failure {
    /// Of a job whose newest attempt before this one failed so.
    pub(super) fn new(view: &JobView, error: &ErrorInfo, failed_at: Timestamp) -> Self {
        // Those before this attempt; the first one is no retry.
        let failures = view.attempt.saturating_sub(1);
        let retry_count = failures.saturating_sub(1);
        Self {
            retry_count,
            remaining: view.attempts.saturating_sub(1).saturating_sub(retry_count),
            failed_at: failed_at.to_string(),
            next_at: view.started_at.unwrap_or(failed_at).to_string(),
            message: error.message.to_string(),
            errtype: error.kind.to_string(),
            backtrace: error.stack.lines().map(str::to_owned).collect(),
        }
    }
}

/// The fields of a job as a worker gets it.
type Fields = BTreeMap<String, Box<RawValue>>;

fn set(fields: &mut Fields, key: &str, value: &(impl Serialize + ?Sized)) {
    // Texts, numbers and lists of them are always JSON.
    if let Ok(value) = to_raw_value(value) {
        fields.insert(key.to_owned(), value);
    }
}

/// The job as a Faktory worker gets it.
pub(super) fn write(job: &DispatchedJob, failure: Option<&Failure>, now: Timestamp) -> Vec<u8> {
    let body = job.body.as_deref().unwrap_or_default();
    let mut fields = if is_known(body, &job.content_type) {
        serde_json::from_slice(body).unwrap_or_default()
    } else {
        foreign(job, body)
    };
    set(&mut fields, "jid", &job.id.to_string());
    set(&mut fields, "queue", job.queue.as_str());
    set(&mut fields, "enqueued_at", &now.to_string());
    if !fields.contains_key("created_at") {
        set(&mut fields, "created_at", &job.created_at.to_string());
    }
    if let Some(failure) = failure {
        set(&mut fields, "failure", failure);
    }
    serde_json::to_vec(&fields).unwrap_or_default()
}

/// Whether a body is a job as Faktory knows it.
fn is_known(body: &[u8], content_type: &CompactString) -> bool {
    content_type.is_empty()
        && serde_json::from_slice::<Known<'_>>(body)
            .is_ok_and(|known| !known.jobtype.is_empty() && known.args.get().starts_with('['))
}

/// A job that was pushed by other means: its body is the only argument.
fn foreign(job: &DispatchedJob, body: &[u8]) -> Fields {
    let mut fields = Fields::new();
    let jobtype = job.meta.iter().find(|(key, _)| key == JOBTYPE).map(|(_, value)| value.as_str());
    set(&mut fields, "jobtype", jobtype.unwrap_or(job.queue.as_str()));
    let json: Option<&RawValue> =
        if job.content_type.is_empty() { serde_json::from_slice(body).ok() } else { None };
    match json {
        Some(value) => set(&mut fields, "args", &[value]),
        None => set(&mut fields, "args", &[BASE64_STANDARD.encode(body)]),
    }
    set(&mut fields, "retry", &job.attempts.saturating_sub(1));
    let mut custom: BTreeMap<&str, &str> =
        job.meta.iter().filter(|(key, _)| key != JOBTYPE).map(|(key, value)| (&**key, &**value)).collect();
    if json.is_none() {
        custom.insert("content_type", &job.content_type);
    }
    if !custom.is_empty() {
        set(&mut fields, "custom", &custom);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pushed(text: &str) -> Result<Push, String> {
        read(&Bytes::from(text.to_owned()), Timestamp(1_000_000)).map_err(|refusal| refusal.line())
    }

    fn job(more: &str) -> NewJob {
        let text = format!(r#"{{"jid":"12345678","jobtype":"mail","args":[1]{more}}}"#);
        pushed(&text).unwrap().job
    }

    fn dispatched(body: &str) -> DispatchedJob {
        DispatchedJob {
            sequence: 1,
            id: JobId::parse("12345678").unwrap(),
            queue: QueueName::new("mail").unwrap(),
            body: Some(Bytes::from(body.to_owned())),
            content_type: CompactString::default(),
            attempt: 1,
            attempts: 6,
            crashes: 0,
            lease_token: 1,
            lease_until: Timestamp(0),
            timeout_at: Timestamp(0),
            priority: Priority::NORMAL,
            created_at: Timestamp(0),
            tags: Vec::new(),
            meta: Vec::new(),
            children: None,
            steps: 0,
            group: None,
        }
    }

    fn written(job: &DispatchedJob) -> Value {
        serde_json::from_slice(&write(job, None, Timestamp(2_000))).unwrap()
    }

    #[test]
    fn a_job_that_says_nothing_has_what_faktory_gives_it() {
        let job = job("");
        assert_eq!((job.queue.as_str(), job.attempts, job.priority), ("default", Some(26), Priority::NORMAL));
        assert_eq!((job.run_at, job.expires_ms, job.unique, job.meta.len()), (None, None, None, 0));
        assert_eq!(job.tags, ["mail"]);
    }

    #[test]
    fn each_option_becomes_the_one_of_the_pond() {
        for (retry, attempts, discarded) in
            [(0, 1, true), (-1, 1, false), (3, 4, false), (99_999, limits::ATTEMPTS_MAX, false)]
        {
            let job = job(&format!(r#","retry":{retry}"#));
            assert_eq!((job.attempts, is_discarded(&job.meta)), (Some(attempts), discarded), "{retry}");
        }
        for (level, priority) in [(1, 180), (5, 100), (9, 20)] {
            assert_eq!(job(&format!(r#","priority":{level}"#)).priority, Priority(priority));
        }
        let at = job(r#","at":"1970-01-01T01:00:00.5+01:00","queue":"bulk""#);
        assert_eq!((at.run_at, at.queue.as_str()), (Some(Timestamp(500)), "bulk"));
        let at = |custom: &str| job(&format!(r#","custom":{custom}"#)).expires_ms;
        assert_eq!(at(r#"{"expires_at":"1970-01-01T00:16:45Z"}"#), Some(5_000));
        assert_eq!(at(r#"{"expires_at":"1970-01-01T00:00:00Z"}"#), Some(1), "past");
        assert_eq!(at(r#"{"expires_in":7}"#), Some(7_000));
        assert_eq!(job(r#","custom":null,"at":"","retry":null"#).attempts, Some(26));
    }

    #[test]
    fn what_makes_jobs_the_same_is_their_type_and_arguments() {
        let key = |jobtype: &str, args: &str| {
            let custom = r#"{"unique_for":60}"#;
            let text =
                format!(r#"{{"jid":"12345678","jobtype":"{jobtype}","args":{args},"custom":{custom}}}"#);
            pushed(&text).unwrap().job.unique.unwrap().key
        };
        assert_eq!(key("a", "[1, 2]"), key("a", "[1,2]"));
        assert_ne!(key("a", "[1,2]"), key("b", "[1,2]"));
        assert_ne!(key("a", "[1,2]"), key("a", "[2,1]"));
    }

    #[test]
    fn what_is_no_job_is_refused_by_name() {
        for (text, part) in [
            ("", "invalid JSON"),
            ("[]", "invalid JSON"),
            (r#"{"jid":"short","jobtype":"a","args":[]}"#, "jobs must have a reasonable jid parameter"),
            (r#"{"jid":"12345678","args":[]}"#, "jobtype"),
            (r#"{"jid":"12345678","jobtype":"a"}"#, "args"),
            (r#"{"jid":"12345678","jobtype":"a","args":{}}"#, "args"),
            (r#"{"jid":"12345678","jobtype":"a","args":[],"at":"soon"}"#, "'at'"),
            (r#"{"jid":"12345678","jobtype":"a","args":[],"priority":10}"#, "priority"),
            (r#"{"jid":"12345678","jobtype":"a","args":[],"reserve_for":86401}"#, "one day"),
            (r#"{"jid":"12345678","jobtype":"a","args":[],"queue":"a b"}"#, "queue name"),
            (r#"{"jid":"12345678","jobtype":"a","args":[],"custom":{"unique_for":"x"}}"#, "unique_for"),
        ] {
            let refusal = pushed(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
        let deep =
            format!(r#"{{"jid":"12345678","jobtype":"a","args":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(pushed(&deep).unwrap_err().contains("deeply"));
    }

    #[test]
    fn a_worker_gets_back_what_was_pushed_to_the_last_digit() {
        let body = r#"{"jid":"other","jobtype":"a","args":[12345678901234567890123.50],"custom":{"x":1}}"#;
        let bytes = write(&dispatched(body), None, Timestamp(2_000));
        assert!(String::from_utf8(bytes).unwrap().contains("[12345678901234567890123.50]"));
        let job = written(&dispatched(body));
        assert_eq!((&job["jid"], &job["queue"]), (&json!("12345678"), &json!("mail")));
        assert_eq!(job["created_at"], "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn a_job_of_another_producer_has_its_body_as_its_argument() {
        let mut job = dispatched(r#"{"to":"ada"}"#);
        assert_eq!(
            written(&job),
            json!({
                "jid": "12345678", "queue": "mail", "jobtype": "mail", "args": [{"to": "ada"}], "retry": 5,
                "created_at": "1970-01-01T00:00:00.000Z", "enqueued_at": "1970-01-01T00:00:02.000Z",
            })
        );
        job.meta = vec![("jobtype".into(), "Send".into()), ("trace".into(), "7".into())];
        job.content_type = "image/png".into();
        let seen = written(&job);
        assert_eq!((&seen["jobtype"], &seen["args"]), (&json!("Send"), &json!(["eyJ0byI6ImFkYSJ9"])));
        assert_eq!(seen["custom"], json!({"trace": "7", "content_type": "image/png"}));
    }

    #[test]
    fn a_reservation_is_between_a_minute_and_a_day() {
        for (seconds, span) in [("0", 1_800_000), ("1", 60_000), ("90", 90_000), ("-5", 1_800_000)] {
            let body = format!(r#"{{"jobtype":"a","args":[],"reserve_for":{seconds}}}"#);
            assert_eq!(reservation(body.as_bytes()), span, "{seconds}");
        }
        assert_eq!(reservation(b"7"), RESERVE_MS);
    }
}
