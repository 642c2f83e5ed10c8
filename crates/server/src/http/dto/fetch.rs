use super::scalar::{Text, Token, job_ref, queue_name};
use crate::http::problem::{self, Problem};
use kit::Millis;
use model::{Actor, LeaseRef, QueueName, limits};
use serde::Deserialize;

/// A worker asks for jobs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FetchDto<'a> {
    #[serde(borrow)]
    worker: Text<'a>,
    #[serde(borrow)]
    queues: Vec<Text<'a>>,
    #[serde(default = "one")]
    pub(crate) max: u32,
    #[serde(default)]
    pub(crate) wait_ms: Millis,
    #[serde(default)]
    pub(crate) lease_ms: Millis,
}

fn one() -> u32 {
    1
}

impl FetchDto<'_> {
    pub(crate) fn worker(&self) -> Result<Actor, Problem> {
        worker(&self.worker)
    }

    pub(crate) fn queues(&self) -> Result<Vec<QueueName>, Problem> {
        if self.queues.is_empty() {
            return Err(Problem::invalid("queues", "names no queue"));
        }
        if self.queues.len() > limits::FETCH_QUEUES_MAX {
            let detail = format!("a fetch names at most {} queues", limits::FETCH_QUEUES_MAX);
            return Err(
                Problem::new(&problem::TOO_MANY, detail).with("limit", limits::FETCH_QUEUES_MAX as u64)
            );
        }
        self.queues.iter().map(|name| queue_name("queues", name)).collect()
    }
}

/// A worker keeps its leases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RenewDto<'a> {
    #[serde(borrow)]
    worker: Text<'a>,
    #[serde(borrow)]
    leases: Vec<LeaseDto<'a>>,
    #[serde(default)]
    pub(crate) lease_ms: Millis,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseDto<'a> {
    #[serde(borrow)]
    queue: Option<Text<'a>>,
    #[serde(borrow)]
    id: Text<'a>,
    lease_token: Token,
}

impl RenewDto<'_> {
    pub(crate) fn worker(&self) -> Result<Actor, Problem> {
        worker(&self.worker)
    }

    pub(crate) fn leases(&self) -> Result<Vec<LeaseRef>, Problem> {
        check_batch("leases", self.leases.len())?;
        self.leases
            .iter()
            .map(|lease| {
                Ok(LeaseRef { job: job_ref(lease.queue.as_ref(), &lease.id)?, token: lease.lease_token.0 })
            })
            .collect()
    }
}

pub(crate) fn worker(name: &str) -> Result<Actor, Problem> {
    if name.is_empty() {
        return Err(Problem::invalid("worker", "must not be empty: it stands in every job's history"));
    }
    Ok(Actor::new(name))
}

pub(super) fn check_batch(what: &'static str, items: usize) -> Result<(), Problem> {
    if items <= limits::BATCH_MAX {
        return Ok(());
    }
    let detail = format!("{what}: at most {} in one call", limits::BATCH_MAX);
    Err(Problem::new(&problem::TOO_MANY, detail).with("limit", limits::BATCH_MAX as u64))
}
