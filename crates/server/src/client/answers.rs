//! What the server answers, as far as the commands look at it. Unknown fields are ignored, so that a newer
//! server can say more.

use kit::{Millis, Timestamp};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, value::RawValue};
use std::{collections::BTreeMap, fmt};

/// A refusal in the form of RFC 9457.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
    pub(crate) help: String,
    pub(crate) retry_after_ms: Option<Millis>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        if !self.code.is_empty() {
            write!(f, " ({})", self.code)?;
        }
        Ok(())
    }
}

/// An instant, written as RFC 3339 or as Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match Value::deserialize(input)? {
            Value::String(text) => text.parse().map(Time).map_err(D::Error::custom),
            Value::Number(millis) => millis
                .as_u64()
                .map(|millis| Time(Timestamp(millis)))
                .ok_or_else(|| D::Error::custom("a time is not negative")),
            _ => Err(D::Error::custom("expected a time")),
        }
    }
}

/// A priority, written as a number or by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Urgency(pub(crate) model::Priority);

impl Default for Urgency {
    fn default() -> Self {
        Self(model::Priority::NORMAL)
    }
}

impl<'de> Deserialize<'de> for Urgency {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(input)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        text.parse().map(Urgency).map_err(D::Error::custom)
    }
}

/// The answer to a push.
#[derive(Debug, Deserialize)]
pub(crate) struct PushAnswer {
    pub(crate) jobs: Vec<PushedJob>,
    #[serde(default)]
    pub(crate) durability: String,
}

/// What became of one pushed job.
#[derive(Debug, Deserialize)]
pub(crate) struct PushedJob {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) deduplicated: bool,
    #[serde(default)]
    pub(crate) forgotten: bool,
}

/// The answer to a fetch.
#[derive(Debug, Deserialize)]
pub(crate) struct FetchAnswer {
    pub(crate) jobs: Vec<FetchedJob>,
    /// What an operator asked of the worker, if anything.
    pub(crate) state: Option<String>,
}

/// A job as a worker receives it.
#[derive(Debug, Deserialize)]
pub(crate) struct FetchedJob {
    pub(crate) id: String,
    pub(crate) queue: String,
    #[serde(default)]
    pub(crate) body: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) body_base64: Option<String>,
    #[serde(default)]
    pub(crate) content_type: String,
    pub(crate) attempt: u32,
    #[serde(default)]
    pub(crate) attempts: u32,
    #[serde(default)]
    pub(crate) crashes: u32,
    pub(crate) lease_token: u64,
    pub(crate) lease_until: Time,
    #[serde(default)]
    pub(crate) timeout_at: Option<Time>,
    #[serde(default)]
    pub(crate) created_at: Option<Time>,
    #[serde(default)]
    pub(crate) priority: Urgency,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) children: Option<JoinAnswer>,
    #[serde(default)]
    pub(crate) steps: u32,
    #[serde(default)]
    pub(crate) group: Option<String>,
}

/// The answer to a batch in which each item is judged by itself.
#[derive(Debug, Deserialize)]
pub(crate) struct ResultsAnswer {
    pub(crate) results: Vec<ItemResult>,
}

/// What became of one outcome or one renewal.
#[derive(Debug, Deserialize)]
pub(crate) struct ItemResult {
    pub(crate) ok: bool,
    #[serde(default)]
    pub(crate) code: Option<String>,
    #[serde(default)]
    pub(crate) lease_until: Option<Time>,
    #[serde(default)]
    pub(crate) cancelled: bool,
}

/// `GET /v1/workers/{worker}/revoked`
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RevokedAnswer {
    pub(crate) revoked: Vec<RevokedLease>,
    pub(crate) position: u64,
    pub(crate) missed: bool,
}

/// A lease that was taken away.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RevokedLease {
    pub(crate) queue: String,
    pub(crate) id: String,
    pub(crate) lease_token: u64,
    pub(crate) reason: String,
}

/// What went wrong in an attempt.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ErrorText {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) stack: String,
}

/// All there is to say of a job.
#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) queue: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) priority: Urgency,
    #[serde(default)]
    pub(crate) attempt: u32,
    #[serde(default)]
    pub(crate) attempts: u32,
    #[serde(default)]
    pub(crate) crashes: u32,
    #[serde(default)]
    pub(crate) created_at: Option<Time>,
    #[serde(default)]
    pub(crate) due_at: Option<Time>,
    #[serde(default)]
    pub(crate) started_at: Option<Time>,
    #[serde(default)]
    pub(crate) finished_at: Option<Time>,
    #[serde(default)]
    pub(crate) expires_at: Option<Time>,
    #[serde(default)]
    pub(crate) worker: Option<String>,
    #[serde(default)]
    pub(crate) body: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) body_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) content_type: String,
    #[serde(default)]
    pub(crate) result: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) progress: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) error: Option<ErrorText>,
    #[serde(default)]
    pub(crate) tags: Vec<String>,
    #[serde(default)]
    pub(crate) meta: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) unique_key: Option<String>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
}

/// A join with its members.
#[derive(Debug, Deserialize)]
pub(crate) struct JoinAnswer {
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) policy: String,
    #[serde(default)]
    pub(crate) k: Option<u32>,
    #[serde(default)]
    pub(crate) on_failure: String,
    #[serde(default)]
    pub(crate) rest: String,
    #[serde(default)]
    pub(crate) ignore: Vec<String>,
    #[serde(default)]
    pub(crate) created_at: Option<Time>,
    #[serde(default)]
    pub(crate) ended_at: Option<Time>,
    #[serde(default)]
    pub(crate) sealed: bool,
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) counts: BTreeMap<String, u64>,
    #[serde(default)]
    pub(crate) then: Option<JobName>,
    #[serde(default)]
    pub(crate) members: Vec<MemberAnswer>,
    #[serde(default)]
    pub(crate) cursor: Option<Value>,
}

/// A job by queue and id.
#[derive(Debug, Deserialize)]
pub(crate) struct JobName {
    pub(crate) queue: String,
    pub(crate) id: String,
}

/// A member of a join.
#[derive(Debug, Deserialize)]
pub(crate) struct MemberAnswer {
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) queue: Option<String>,
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) join: Option<JoinAnswer>,
    #[serde(default)]
    pub(crate) result: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) result_bytes: Option<u32>,
    #[serde(default)]
    pub(crate) error: Option<ErrorText>,
}

/// A page of jobs.
#[derive(Debug, Deserialize)]
pub(crate) struct JobsPage {
    pub(crate) jobs: Vec<Job>,
    /// Where the next page begins; absent on the last.
    #[serde(default, alias = "next", alias = "next_cursor")]
    pub(crate) cursor: Option<Value>,
}

/// One durable step. Its value is there only where steps were asked for.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) at: Time,
    #[serde(default)]
    pub(crate) attempt: u32,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) value: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) until: Option<Time>,
    #[serde(default)]
    pub(crate) child_queue: Option<String>,
    #[serde(default)]
    pub(crate) child_id: Option<String>,
    #[serde(default)]
    pub(crate) ended: Option<String>,
    #[serde(default)]
    pub(crate) error: Option<ErrorText>,
}

/// The steps of a job.
#[derive(Debug, Deserialize)]
pub(crate) struct StepsAnswer {
    pub(crate) steps: Vec<Step>,
}

/// The answer to a step: what the job had, if it was not stored.
#[derive(Debug, Deserialize)]
pub(crate) struct StepAnswer {
    #[serde(default)]
    pub(crate) step: Option<Step>,
}

/// One change of a job.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    #[serde(default)]
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) at: Time,
    pub(crate) cause: String,
    #[serde(default)]
    pub(crate) attempt: u32,
    #[serde(default)]
    pub(crate) actor: Option<String>,
    #[serde(default)]
    pub(crate) position: u64,
    #[serde(default)]
    pub(crate) error: Option<ErrorText>,
}

/// A job's history, oldest change first.
#[derive(Debug, Deserialize)]
pub(crate) struct History {
    #[serde(alias = "changes", alias = "entries")]
    pub(crate) history: Vec<Change>,
}

/// Why a job is where it is.
#[derive(Debug, Deserialize)]
pub(crate) struct Explanation {
    pub(crate) summary: String,
    #[serde(default)]
    pub(crate) expected_at: Option<Time>,
}

/// A queue and its counts.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Queue {
    #[serde(alias = "queue")]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) paused: bool,
    #[serde(default)]
    pub(crate) counts: BTreeMap<String, u64>,
    #[serde(default)]
    pub(crate) oldest_waiting_at: Option<Time>,
    #[serde(default)]
    pub(crate) pushed_total: u64,
    #[serde(default)]
    pub(crate) started_total: u64,
    #[serde(default)]
    pub(crate) completed_total: u64,
    #[serde(default)]
    pub(crate) failed_total: u64,
    #[serde(default)]
    pub(crate) dead_total: u64,
}

impl Queue {
    /// A queue in which nothing ever was.
    pub(crate) fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            paused: false,
            counts: BTreeMap::new(),
            oldest_waiting_at: None,
            pushed_total: 0,
            started_total: 0,
            completed_total: 0,
            failed_total: 0,
            dead_total: 0,
        }
    }

    /// Jobs in one state.
    pub(crate) fn count(&self, state: model::State) -> u64 {
        self.counts.get(state.name()).copied().unwrap_or(0)
    }

    /// Jobs that are not final.
    pub(crate) fn live(&self) -> u64 {
        model::State::ALL.into_iter().filter(|state| !state.is_final()).map(|state| self.count(state)).sum()
    }
}

/// A page of queues.
#[derive(Debug, Deserialize)]
pub(crate) struct QueuesPage {
    pub(crate) queues: Vec<Queue>,
    #[serde(default, alias = "next", alias = "next_cursor")]
    pub(crate) cursor: Option<Value>,
}

/// A schedule, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Schedule {
    pub(crate) id: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) summary: String,
    #[serde(default)]
    pub(crate) next_at: Option<Time>,
    #[serde(default)]
    cron: Option<String>,
    #[serde(default)]
    zone: Option<String>,
    #[serde(default)]
    every_ms: Option<Millis>,
    pub(crate) job: ScheduledJob,
    #[serde(default)]
    pub(crate) overlap: String,
    #[serde(default)]
    pub(crate) fired: u64,
    #[serde(default)]
    pub(crate) skipped: u64,
    #[serde(default)]
    pub(crate) missed: u64,
    #[serde(default)]
    pub(crate) refused: u64,
    #[serde(default)]
    pub(crate) firings: Vec<Firing>,
}

impl Schedule {
    /// Its times in one phrase.
    pub(crate) fn when(&self) -> String {
        match (&self.cron, &self.zone, self.every_ms) {
            (Some(cron), Some(zone), _) if zone != "UTC" => format!("{cron} ({zone})"),
            (Some(cron), ..) => cron.clone(),
            (None, _, Some(every)) => format!("every {}", kit::time::format_span(every)),
            (None, _, None) => String::new(),
        }
    }
}

/// What a schedule pushes.
#[derive(Debug, Deserialize)]
pub(crate) struct ScheduledJob {
    pub(crate) queue: String,
}

/// What became of a slot.
#[derive(Debug, Deserialize)]
pub(crate) struct Firing {
    pub(crate) slot: Time,
    pub(crate) result: String,
    #[serde(default)]
    pub(crate) job: Option<String>,
    #[serde(default)]
    pub(crate) until: Option<Time>,
    #[serde(default)]
    pub(crate) code: Option<String>,
}

/// The answer to a change of a schedule.
#[derive(Debug, Deserialize)]
pub(crate) struct Scheduled {
    pub(crate) id: String,
    pub(crate) change: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) next_slot: Option<Time>,
}

/// Slots to come.
#[derive(Debug, Deserialize)]
pub(crate) struct Slots {
    pub(crate) slots: Vec<Time>,
}
