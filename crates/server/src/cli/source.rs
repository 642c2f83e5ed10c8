//! Jobs for the worker runtime, over HTTP.

mod children;

use crate::client::{
    Client, ClientError, Extras, FetchAnswer, FetchedJob, ItemResult, LeaseCall, OutcomeCall, OutcomesCall,
    ResultsAnswer, RevokedAnswer, RevokedLease, StepAnswer, StepsAnswer, raw_json, segment,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use compact_str::CompactString;
use hyper::Method;
use kit::Backoff;
use model::{
    ChildEnd, DispatchedJob, JobId, JobRef, LeaseRef, QueueName, Reject, Renewed, Revocation, Settled,
    Settlement, State, Step, StepValue,
};
use serde_json::{json, value::RawValue};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use workers::{JobSource, Revoked, SourceError};

/// The jobs of some queues of one server, for one worker.
#[derive(Clone)]
pub(crate) struct HttpSource {
    pub(crate) client: Client,
    /// The worker's name, for the history.
    pub(crate) worker: String,
    /// In order of preference.
    pub(crate) queues: Vec<String>,
    pub(crate) lease: Duration,
    /// From where the server is asked for what was taken away.
    pub(crate) revoked: Arc<Mutex<Mailbox>>,
}

/// Revocations that the runtime has not heard of yet, and the position to ask from.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    news: VecDeque<Revoked>,
    after: Option<u64>,
    failures: u32,
}

/// How long one question for revocations stays open.
const REVOKED_WAIT: Duration = Duration::from_secs(20);
/// Repeats of a question that failed wait a random time below this doubling cap.
const REVOKED_BACKOFF: Backoff = Backoff::Exponential { base: 100, cap: 5_000 };

impl HttpSource {
    /// A call on a running job, such as `progress`, with JSON fields.
    async fn on_job(
        &self,
        lease: &LeaseRef,
        verb: &str,
        fields: &[(&str, &str)],
    ) -> Result<Bytes, SourceError> {
        let worker = json!(self.worker);
        let mut call = format!("{{\"worker\":{worker},\"lease_token\":{}", lease.token);
        for (field, value) in fields {
            call.push_str(&format!(",\"{field}\":{value}"));
        }
        call.push('}');
        let path = path(&lease.job, verb);
        self.client.call(Method::POST, &path, call, Extras::default()).await.map_err(|error| of(lease, error))
    }

    async fn ask_revoked(&self, after: Option<u64>) -> Result<RevokedAnswer, ClientError> {
        let from = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let worker = segment(&self.worker);
        let path = format!("/v1/workers/{worker}/revoked?wait_ms={}{from}", millis(REVOKED_WAIT));
        let extras = Extras { patience: REVOKED_WAIT, ..Extras::default() };
        self.client.json(Method::GET, &path, Bytes::new(), extras).await
    }

    async fn results(&self, path: &str, call: String, asked: usize) -> Result<Vec<ItemResult>, SourceError> {
        let answer: ResultsAnswer =
            self.client.json(Method::POST, path, call, Extras::default()).await.map_err(refusal)?;
        if answer.results.len() != asked {
            let reason = format!("{} answers to {asked} questions", answer.results.len());
            return Err(SourceError::Unavailable { reason, retry_after_ms: None });
        }
        Ok(answer.results)
    }
}

impl JobSource for HttpSource {
    fn lease(&self) -> Duration {
        self.lease
    }

    async fn fetch(&self, max: usize, wait: Duration) -> Result<Vec<DispatchedJob>, SourceError> {
        let call = json!({
            "worker": self.worker, "queues": self.queues, "max": max.min(model::limits::BATCH_MAX),
            "wait_ms": millis(wait), "lease_ms": millis(self.lease),
        });
        let extras = Extras { patience: wait, ..Extras::default() };
        let answer: FetchAnswer =
            self.client.json(Method::POST, "/v1/fetch", call.to_string(), extras).await.map_err(refusal)?;
        if answer.jobs.is_empty() && answer.state.as_deref() == Some("stopping") {
            return Err(SourceError::Closed);
        }
        answer.jobs.into_iter().map(dispatched).collect()
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Result<Settled, Reject>>, SourceError> {
        let outcomes = settlements.iter().map(OutcomeCall::from).collect();
        let call = OutcomesCall { worker: &self.worker, outcomes };
        let text = serde_json::to_string(&call)
            .map_err(|error| SourceError::Unavailable { reason: error.to_string(), retry_after_ms: None })?;
        let results = self.results("/v1/outcomes", text, settlements.len()).await?;
        Ok(results
            .into_iter()
            .zip(&settlements)
            .map(|(result, settlement)| {
                // The state is not part of the answer, and nobody asks for it here.
                let settled = || Settled { state: State::Completed, pushed: Vec::new() };
                if result.ok { Ok(settled()) } else { Err(reject(result.code, &settlement.lease)) }
            })
            .collect())
    }

    async fn renew(&self, leases: Vec<LeaseRef>) -> Result<Vec<Result<Renewed, Reject>>, SourceError> {
        let items: Vec<LeaseCall<'_>> = leases.iter().map(LeaseCall::from).collect();
        let call = json!({"worker": self.worker, "leases": items, "lease_ms": millis(self.lease)});
        let results = self.results("/v1/renew", call.to_string(), leases.len()).await?;
        Ok(results
            .into_iter()
            .zip(&leases)
            .map(|(result, lease)| match result.lease_until {
                _ if result.cancelled => Err(Reject::Cancelled { id: id_text(lease) }),
                Some(until) if result.ok => Ok(Renewed { lease_until: until.0 }),
                _ => Err(reject(result.code, lease)),
            })
            .collect())
    }

    async fn progress(&self, lease: LeaseRef, value: Bytes) -> Result<(), SourceError> {
        self.on_job(&lease, "progress", &[("progress", raw_json(&value).get())]).await.map(drop)
    }

    async fn log(&self, lease: LeaseRef, lines: Vec<CompactString>) -> Result<(), SourceError> {
        let lines: Vec<&str> = lines.iter().map(CompactString::as_str).collect();
        self.on_job(&lease, "log", &[("lines", &json!(lines).to_string())]).await.map(drop)
    }

    async fn store_step(
        &self,
        lease: LeaseRef,
        name: CompactString,
        result: Bytes,
    ) -> Result<Option<Step>, SourceError> {
        let (name, result) = (json!(name.as_str()).to_string(), raw_json(&result));
        let fields = [("name", name.as_str()), ("result", result.get())];
        let bytes = self.on_job(&lease, "steps", &fields).await?;
        let answer: StepAnswer = self.client.parse(&bytes).map_err(refusal)?;
        answer.step.map(step).transpose()
    }

    async fn steps(&self, job: JobRef) -> Result<Vec<Step>, SourceError> {
        let answer: StepsAnswer = self.client.get(&path(&job, "steps")).await.map_err(refusal)?;
        answer.steps.into_iter().map(step).collect()
    }

    async fn next_revoked(&self) -> Revoked {
        let mut mailbox = self.revoked.lock().await;
        loop {
            if let Some(news) = mailbox.news.pop_front() {
                return news;
            }
            match self.ask_revoked(mailbox.after).await {
                Ok(answer) => {
                    (mailbox.after, mailbox.failures) = (Some(answer.position), 0);
                    mailbox.news.extend(answer.missed.then_some(Revoked::Missed));
                    mailbox.news.extend(answer.revoked.into_iter().filter_map(revoked));
                }
                // A server of an older release has no such route: the renewals tell.
                Err(error) if error.code() == Some("unknown_route") => std::future::pending().await,
                Err(_) => {
                    mailbox.failures = mailbox.failures.saturating_add(1);
                    let wait = REVOKED_BACKOFF.delay(mailbox.failures, millis(self.lease));
                    tokio::time::sleep(Duration::from_millis(100 + wait)).await;
                }
            }
        }
    }
}

/// A lease in the runtime's words; a server newer than this program may name reasons that are not known here.
fn revoked(lost: RevokedLease) -> Option<Revoked> {
    let job = JobRef { queue: Some(QueueName::new(&lost.queue).ok()?), id: JobId::parse(&lost.id).ok()? };
    let why = Revocation::of(&lost.reason).unwrap_or(Revocation::LeaseLost);
    Some(Revoked::Lease(LeaseRef { job, token: lost.lease_token }, why.into()))
}

fn path(job: &JobRef, verb: &str) -> String {
    let queue = job.queue.as_ref().map_or("", QueueName::as_str);
    format!("/v1/queues/{}/jobs/{}/{verb}", segment(queue), segment(&job.id.to_string()))
}

/// A step as the runtime knows it.
fn step(told: crate::client::Step) -> Result<Step, SourceError> {
    let foreign = |reason: String| SourceError::Unavailable { reason, retry_after_ms: None };
    let json = |raw: Box<RawValue>| Bytes::from(String::from(Box::<str>::from(raw)));
    let value = || told.value.clone().map_or_else(|| Bytes::from_static(b"null"), json);
    let value = match told.kind.as_str() {
        "result" => StepValue::Result(value()),
        "sleep" => StepValue::Slept { until: told.until.map_or(kit::Timestamp::ZERO, |time| time.0) },
        "signal" => StepValue::Signal(value()),
        "timeout" => StepValue::TimedOut,
        "child" => {
            let (queue, id) = (told.child_queue.unwrap_or_default(), told.child_id.unwrap_or_default());
            let end = told.ended.map(|state| ChildEnd {
                state: state.parse().ok(),
                result: told.value.map(json),
                error: told.error.map(|error| workers::error(&error.kind, &error.message, &error.stack)),
            });
            StepValue::Child {
                queue: QueueName::new(&queue).map_err(|error| foreign(error.to_string()))?,
                id: JobId::parse(&id).map_err(|error| foreign(error.to_string()))?,
                end,
            }
        }
        other => return Err(foreign(format!("a step of the unknown kind {other}"))),
    };
    Ok(Step { name: told.name.into(), at: told.at.0, attempt: told.attempt, value })
}

/// Why a call on a running job has no answer: the job may be somebody else's by now.
fn of(lease: &LeaseRef, error: ClientError) -> SourceError {
    match &error {
        ClientError::Refused(problem) if problem.status == 409 || problem.status == 404 => {
            SourceError::Refused(reject(Some(problem.code.clone()), lease))
        }
        _ => refusal(error),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn id_text(lease: &LeaseRef) -> CompactString {
    CompactString::from(lease.job.id.to_string())
}

/// Why a call as a whole has no answer, in the runtime's words.
fn refusal(error: ClientError) -> SourceError {
    match (error.retry_after_ms(), &error) {
        (None, ClientError::Refused(problem)) => SourceError::Refused(Reject::Invalid {
            field: "call",
            reason: CompactString::from(problem.to_string()),
        }),
        (retry_after_ms, _) => SourceError::Unavailable { reason: error.to_string(), retry_after_ms },
    }
}

/// Why one item was refused, from its stable code.
fn reject(code: Option<String>, lease: &LeaseRef) -> Reject {
    let id = id_text(lease);
    match code.as_deref() {
        Some("stale_lease") => Reject::StaleLease { id, token: lease.token },
        Some("cancelled") => Reject::Cancelled { id },
        Some("unknown_job") => Reject::UnknownJob { id },
        other => {
            Reject::Invalid { field: "outcome", reason: CompactString::from(other.unwrap_or("refused")) }
        }
    }
}

fn dispatched(job: FetchedJob) -> Result<DispatchedJob, SourceError> {
    let foreign = |reason: String| SourceError::Unavailable { reason, retry_after_ms: None };
    let body = match (job.body, job.body_base64) {
        (_, Some(text)) => BASE64_STANDARD.decode(text).map_err(|error| foreign(error.to_string()))?.into(),
        (Some(raw), None) => Bytes::from(String::from(Box::<str>::from(raw))),
        (None, None) => Bytes::from_static(b"null"),
    };
    let text = |value: &String| CompactString::from(value.as_str());
    Ok(DispatchedJob {
        sequence: 0,
        id: JobId::parse(&job.id).map_err(|error| foreign(error.to_string()))?,
        queue: QueueName::new(&job.queue).map_err(|error| foreign(error.to_string()))?,
        body: Some(body),
        content_type: if job.content_type == "application/json" {
            "".into()
        } else {
            text(&job.content_type)
        },
        attempt: job.attempt,
        attempts: job.attempts,
        crashes: job.crashes,
        lease_token: job.lease_token,
        lease_until: job.lease_until.0,
        timeout_at: job.timeout_at.map_or(kit::Timestamp::MAX, |time| time.0),
        priority: job.priority.0,
        created_at: job.created_at.map_or(kit::Timestamp::ZERO, |time| time.0),
        tags: job.tags.iter().map(text).collect(),
        meta: job.meta.iter().map(|(key, value)| (text(key), text(value))).collect(),
        children: job.children.map(children::join).transpose().map_err(foreign)?.map(Box::new),
        steps: job.steps,
        group: job.group.map(CompactString::from),
    })
}
