//! A job source in memory, with a memory of what it was told.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use model::{
    DispatchedJob, JobId, JobRef, LeaseRef, Outcome, Priority, QueueName, Reject, Renewed, Settled,
    Settlement, State, Step, StepValue,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{Notify, mpsc};
use workers::{JobSource, Reason, Revoked, SourceError};

#[derive(Clone)]
pub struct Pit(Arc<Inner>);

pub struct Inner {
    pub jobs: Mutex<VecDeque<DispatchedJob>>,
    arrived: Notify,
    pub lease: Duration,
    pub fetches: Mutex<Vec<(usize, usize)>>,
    pub renewals: Mutex<Vec<Vec<u64>>>,
    renewed: Notify,
    pub stale: Mutex<Vec<u64>>,
    pub reject_next: Mutex<Option<Reject>>,
    pub failures: Mutex<u32>,
    pub progress: Mutex<Vec<Bytes>>,
    pub lines: Mutex<Vec<CompactString>>,
    /// By the token of the job; for another attempt of it, push a job with the same token.
    pub steps: Mutex<Vec<(u64, Step)>>,
    settled: mpsc::UnboundedSender<Settlement>,
    pub batches: Mutex<Vec<usize>>,
    pub revoke: Mutex<Option<Revoked>>,
    pub revoked: Notify,
}

pub type Told = mpsc::UnboundedReceiver<Settlement>;

impl std::ops::Deref for Pit {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Pit {
    pub fn new(lease: Duration) -> (Pit, Told) {
        let (settled, told) = mpsc::unbounded_channel();
        let inner = Inner {
            jobs: Mutex::default(),
            arrived: Notify::new(),
            lease,
            fetches: Mutex::default(),
            renewals: Mutex::default(),
            renewed: Notify::new(),
            stale: Mutex::default(),
            reject_next: Mutex::default(),
            failures: Mutex::default(),
            progress: Mutex::default(),
            lines: Mutex::default(),
            steps: Mutex::default(),
            settled,
            batches: Mutex::default(),
            revoke: Mutex::default(),
            revoked: Notify::new(),
        };
        (Pit(Arc::new(inner)), told)
    }

    pub fn push(&self, jobs: impl IntoIterator<Item = DispatchedJob>) {
        self.jobs.lock().unwrap().extend(jobs);
        self.arrived.notify_one();
    }

    /// Says that a job of [`job`] was cancelled.
    pub fn cancel(&self, token: u64) {
        let id = JobId::parse(&format!("job-{token}")).unwrap();
        let job = JobRef { queue: Some(QueueName::new("q").unwrap()), id };
        self.tell(Revoked::Lease(LeaseRef { job, token }, Reason::Cancelled));
    }

    pub fn tell(&self, revoked: Revoked) {
        *self.revoke.lock().unwrap() = Some(revoked);
        self.revoked.notify_one();
    }

    /// Whether what was told last has been heard.
    pub fn heard(&self) -> bool {
        self.revoke.lock().unwrap().is_none()
    }

    pub async fn renewal(&self) {
        self.renewed.notified().await;
    }

    fn fails(&self) -> Result<(), SourceError> {
        let mut failures = self.failures.lock().unwrap();
        if *failures == 0 {
            return Ok(());
        }
        *failures -= 1;
        Err(SourceError::Unavailable { reason: "test".into(), retry_after_ms: None })
    }
}

pub fn job(token: u64, body: &str) -> DispatchedJob {
    DispatchedJob {
        sequence: token,
        id: JobId::parse(&format!("job-{token}")).unwrap(),
        queue: QueueName::new("q").unwrap(),
        body: Some(Bytes::copy_from_slice(body.as_bytes())),
        content_type: CompactString::default(),
        attempt: 1,
        attempts: 5,
        crashes: 0,
        lease_token: token,
        lease_until: Timestamp(1_030_000),
        timeout_at: Timestamp(1_300_000),
        priority: Priority::NORMAL,
        created_at: Timestamp(1_000_000),
        tags: Vec::new(),
        meta: vec![("k".into(), "v".into())],
        children: None,
        steps: 0,
        group: None,
    }
}

/// A job whose attempt times out `after` the moment it is handed out by a source with `lease`.
pub fn job_with_timeout(token: u64, body: &str, lease: Duration, after: Duration) -> DispatchedJob {
    let mut job = job(token, body);
    let start = 1_000_000;
    job.lease_until = Timestamp(start + lease.as_millis() as u64);
    job.timeout_at = Timestamp(start + after.as_millis() as u64);
    job
}

pub async fn next(told: &mut Told) -> (u64, Outcome) {
    let settlement = tokio::time::timeout(Duration::from_secs(60), told.recv())
        .await
        .expect("an outcome in time")
        .unwrap();
    (settlement.lease.token, settlement.outcome)
}

impl JobSource for Pit {
    fn lease(&self) -> Duration {
        self.0.lease
    }

    async fn fetch(&self, max: usize, wait: Duration) -> Result<Vec<DispatchedJob>, SourceError> {
        self.fails()?;
        let until = tokio::time::Instant::now() + wait;
        loop {
            let arrived = self.arrived.notified();
            let jobs: Vec<_> = {
                let mut jobs = self.jobs.lock().unwrap();
                let count = jobs.len().min(max);
                jobs.drain(..count).collect()
            };
            if !jobs.is_empty() {
                self.fetches.lock().unwrap().push((max, jobs.len()));
                return Ok(jobs);
            }
            if tokio::time::timeout_at(until, arrived).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn settle(
        &self,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<Result<Settled, Reject>>, SourceError> {
        self.fails()?;
        self.batches.lock().unwrap().push(settlements.len());
        let answers = settlements.into_iter().map(|settlement| {
            if let Some(reject) = self.reject_next.lock().unwrap().take() {
                return Err(reject);
            }
            let _ = self.settled.send(settlement);
            Ok(Settled { state: State::Completed, pushed: Vec::new() })
        });
        Ok(answers.collect())
    }

    async fn renew(&self, leases: Vec<LeaseRef>) -> Result<Vec<Result<Renewed, Reject>>, SourceError> {
        self.fails()?;
        self.renewals.lock().unwrap().push(leases.iter().map(|lease| lease.token).collect());
        self.renewed.notify_one();
        let stale = self.stale.lock().unwrap();
        let answers = leases.into_iter().map(|lease| {
            if stale.contains(&lease.token) {
                return Err(Reject::StaleLease { id: "x".into(), token: lease.token });
            }
            Ok(Renewed { lease_until: Timestamp(0) })
        });
        Ok(answers.collect())
    }

    async fn progress(&self, _: LeaseRef, value: Bytes) -> Result<(), SourceError> {
        self.progress.lock().unwrap().push(value);
        Ok(())
    }

    async fn store_step(
        &self,
        lease: LeaseRef,
        name: CompactString,
        result: Bytes,
    ) -> Result<Option<Step>, SourceError> {
        self.fails()?;
        let mut steps = self.steps.lock().unwrap();
        let mut stored = steps.iter().filter(|(token, _)| *token == lease.token).map(|(_, step)| step);
        if let Some(had) = stored.find(|step| step.name == name) {
            return Ok(Some(had.clone()));
        }
        let step = Step { name, at: Timestamp(0), attempt: 1, value: StepValue::Result(result) };
        steps.push((lease.token, step));
        Ok(None)
    }

    async fn steps(&self, job: JobRef) -> Result<Vec<Step>, SourceError> {
        self.fails()?;
        let steps = self.steps.lock().unwrap();
        let of = |token: &u64| job.id == JobId::parse(&format!("job-{token}")).unwrap();
        Ok(steps.iter().filter(|(token, _)| of(token)).map(|(_, step)| step.clone()).collect())
    }

    async fn log(&self, _: LeaseRef, lines: Vec<CompactString>) -> Result<(), SourceError> {
        self.lines.lock().unwrap().extend(lines);
        Ok(())
    }

    async fn next_revoked(&self) -> Revoked {
        loop {
            self.revoked.notified().await;
            if let Some(revoked) = self.revoke.lock().unwrap().take() {
                return revoked;
            }
        }
    }
}
