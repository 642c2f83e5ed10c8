//! What a worker tells the server: outcomes of attempts, and the jobs pushed with them. Bodies and results that are
//! JSON travel as they are.

use base64::{Engine, prelude::BASE64_STANDARD};
use kit::{Backoff, Millis};
use model::{
    Crash, ErrorInfo, Graph, LeaseRef, NewJob, NewJoin, OnConflict, Outcome, Policy, QueueName, Settlement,
    Until,
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue, value::to_raw_value};
use std::collections::BTreeMap;

/// Names a lease.
#[derive(Debug, Serialize)]
pub(crate) struct LeaseCall<'a> {
    queue: Option<&'a str>,
    id: String,
    lease_token: u64,
}

impl<'a> From<&'a LeaseRef> for LeaseCall<'a> {
    fn from(lease: &'a LeaseRef) -> Self {
        Self {
            queue: lease.job.queue.as_ref().map(QueueName::as_str),
            id: lease.job.id.to_string(),
            lease_token: lease.token,
        }
    }
}

/// `POST /v1/outcomes`
#[derive(Debug, Serialize)]
pub(crate) struct OutcomesCall<'a> {
    pub(crate) worker: &'a str,
    pub(crate) outcomes: Vec<OutcomeCall<'a>>,
}

/// How one attempt ended. A plain structure, since raw JSON does not survive serde's flattening.
#[derive(Debug, Serialize)]
pub(crate) struct OutcomeCall<'a> {
    queue: Option<&'a str>,
    id: String,
    lease_token: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    children: Option<GraphCall<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    push: Vec<JobCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<JobCall<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crash: Option<CrashCall<'a>>,
}

#[derive(Debug, Serialize)]
struct CrashCall<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<u32>,
    stderr: &'a str,
}

#[derive(Debug, Serialize)]
struct ErrorCall<'a> {
    kind: &'a str,
    message: &'a str,
    stack: &'a str,
}

impl<'a> From<&'a ErrorInfo> for ErrorCall<'a> {
    fn from(error: &'a ErrorInfo) -> Self {
        Self { kind: error.kind.as_str(), message: error.message.as_str(), stack: error.stack.as_str() }
    }
}

impl<'a> From<&'a Settlement> for OutcomeCall<'a> {
    fn from(settlement: &'a Settlement) -> Self {
        let LeaseCall { queue, id, lease_token } = LeaseCall::from(&settlement.lease);
        let mut call = Self {
            queue,
            id,
            lease_token,
            outcome: settlement.outcome.name(),
            result: None,
            error: None,
            after_ms: None,
            reason: None,
            children: None,
            push: settlement.push.iter().map(JobCall::from).collect(),
            limit: None,
            step: None,
            signal: None,
            timeout_ms: None,
            child: None,
            crash: None,
        };
        match &settlement.outcome {
            Outcome::Done { result } => call.result = result.as_ref().map(|result| raw_json(result)),
            Outcome::Retry { error, after_ms } => {
                (call.error, call.after_ms) = (Some(error.into()), *after_ms);
            }
            Outcome::Fail { error } => call.error = Some(error.into()),
            Outcome::Snooze { after_ms } => call.after_ms = Some(*after_ms),
            Outcome::RateLimited { key, after_ms } => {
                (call.limit, call.after_ms) = (key.as_deref(), Some(*after_ms));
            }
            Outcome::Cancel { reason } => call.reason = Some(reason.as_str()),
            Outcome::Crash(crash) => {
                let Crash { signal, exit, stderr } = crash;
                call.crash = Some(CrashCall { signal: signal.as_deref(), exit: *exit, stderr });
            }
            Outcome::Wait { children } => call.children = Some(GraphCall::from(children)),
            Outcome::Suspend { step, until } => {
                call.step = Some(step);
                match until {
                    Until::Time { after_ms } => call.after_ms = Some(*after_ms),
                    Until::Signal { name, timeout_ms } => {
                        call.signal = Some(name.as_str());
                        call.timeout_ms = (*timeout_ms > 0).then_some(*timeout_ms);
                    }
                    Until::Child { job } => call.child = Some((&**job).into()),
                }
            }
        }
        call
    }
}

/// Children to be waited for: the last join is what the job waits for.
#[derive(Debug, Serialize)]
pub(crate) struct GraphCall<'a> {
    jobs: BTreeMap<&'a str, JobCall<'a>>,
    joins: BTreeMap<&'a str, JoinCall<'a>>,
    join: Option<JoinCall<'a>>,
}

#[derive(Debug, Serialize)]
struct JoinCall<'a> {
    members: Vec<&'a str>,
    policy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<&'a str>,
    on_failure: &'static str,
    rest: &'static str,
    ignore: Vec<&'static str>,
    open: bool,
}

impl<'a> From<&'a Graph> for GraphCall<'a> {
    fn from(graph: &'a Graph) -> Self {
        let (last, others) = match graph.joins.split_last() {
            Some((last, others)) => (Some(last), others),
            None => (None, &[][..]),
        };
        Self {
            jobs: graph.jobs.iter().map(|named| (named.name.as_str(), JobCall::from(&named.job))).collect(),
            joins: others.iter().map(|join| (join.name.as_str(), JoinCall::from(join))).collect(),
            join: last.map(JoinCall::from),
        }
    }
}

impl<'a> From<&'a NewJoin> for JoinCall<'a> {
    fn from(join: &'a NewJoin) -> Self {
        Self {
            members: join.members.iter().map(|name| name.as_str()).collect(),
            policy: join.policy.name(),
            k: match join.policy {
                Policy::KOfN(needed) => Some(needed),
                Policy::All | Policy::AllSettled | Policy::Any | Policy::Race => None,
            },
            then: join.then.as_deref(),
            on_failure: join.on_failure.name(),
            rest: join.rest.name(),
            ignore: join.ignore.states().map(|state| state.name()).collect(),
            open: join.open,
        }
    }
}

/// A job to be pushed. What is `None` is decided by the queue.
#[derive(Debug, Serialize)]
pub(crate) struct JobCall<'a> {
    queue: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    content_type: &'a str,
    priority: u8,
    delay_ms: Millis,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_crashes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backoff: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
    tags: Vec<&'a str>,
    meta: BTreeMap<&'a str, &'a str>,
}

impl<'a> From<&'a NewJob> for JobCall<'a> {
    fn from(job: &'a NewJob) -> Self {
        let json = job.content_type.is_empty();
        let route = job.route.as_deref();
        let limits = route.map(|route| &*route.limits).unwrap_or_default();
        Self {
            queue: job.queue.as_str(),
            id: job.id.as_ref().map(ToString::to_string),
            body: json.then(|| raw_json(&job.body)),
            body_base64: (!json).then(|| BASE64_STANDARD.encode(&job.body)),
            content_type: &job.content_type,
            priority: job.priority.0,
            delay_ms: job.delay_ms,
            run_at: job.run_at.map(|time| time.to_string()),
            attempts: job.attempts,
            max_crashes: job.max_crashes,
            backoff: job.backoff.as_ref().map(backoff_json),
            timeout_ms: job.timeout_ms,
            expires_ms: job.expires_ms,
            unique: job.unique.as_ref().map(|unique| {
                let mut call = json!({
                    "key": unique.key.as_str(),
                    "ttl_ms": unique.ttl_ms,
                    "on_conflict": unique.on_conflict.name(),
                });
                if let OnConflict::Debounce { max_wait_ms } = unique.on_conflict {
                    call["max_wait_ms"] = json!(max_wait_ms);
                }
                call
            }),
            group: route.and_then(|route| route.group.as_deref()),
            ordering_key: route.and_then(|route| route.ordering_key.as_deref()),
            limits: limits.iter().map(|used| json!({"key": used.key.as_str(), "cost": used.cost})).collect(),
            deadline: route.and_then(|route| route.deadline).map(|time| time.to_string()),
            tags: job.tags.iter().map(|tag| tag.as_str()).collect(),
            meta: job.meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        }
    }
}

fn backoff_json(backoff: &Backoff) -> Value {
    match backoff {
        Backoff::Exponential { base, cap } => json!({"type": "exponential", "base_ms": base, "cap_ms": cap}),
        Backoff::Fixed { delay } => json!({"type": "fixed", "delay_ms": delay}),
        Backoff::Sidekiq => json!({"type": "sidekiq"}),
        Backoff::List { delays } => json!({"type": "list", "delays_ms": delays}),
    }
}

/// Bytes as JSON: as they are if they are JSON, otherwise as a string.
pub(crate) fn raw_json(bytes: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str::<Box<RawValue>>(&text)
        .or_else(|_| to_raw_value(&*text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{JobId, JobRef};

    #[test]
    fn an_outcome_carries_results_and_jobs_as_they_are() {
        let queue = QueueName::new("mail").unwrap();
        let job = JobRef { queue: Some(queue.clone()), id: JobId::parse("a\"b").unwrap() };
        let mut next = NewJob::new(queue, &b"{\"n\": 1.0}"[..]);
        next.backoff = Some(Backoff::Fixed { delay: 5 });
        let settlement = Settlement {
            lease: LeaseRef { job, token: 7 },
            outcome: Outcome::Done { result: Some("[1.50]".into()) },
            push: vec![next],
        };
        let text = serde_json::to_string(&OutcomeCall::from(&settlement)).unwrap();
        assert_eq!(
            text,
            r#"{"queue":"mail","id":"a\"b","lease_token":7,"outcome":"done","result":[1.50],"push":[{"queue":"mail","body":{"n": 1.0},"priority":100,"delay_ms":0,"backoff":{"delay_ms":5,"type":"fixed"},"tags":[],"meta":{}}]}"#
        );
        assert_eq!(raw_json(b"not json").get(), "\"not json\"");
    }
}
