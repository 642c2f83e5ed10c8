//! Tells the source how attempts ended.

use super::shared::{Posted, Shared, lock, weight};
use crate::{JobSource, handler::error};
use model::{Outcome, Reject, Settled, Settlement};
use std::sync::Arc;
use tokio::time::Instant;

/// Outcomes in one call, and their bytes: a quarter of what one command may have.
const SETTLE_MAX: usize = 1_000;
const SETTLE_BYTES_MAX: usize = model::limits::COMMAND_BYTES_MAX / 4;

pub(super) async fn run<S: JobSource, H>(shared: Arc<Shared<S, H>>) {
    let mut failures = 0;
    loop {
        let batch = shared.collect();
        if batch.is_empty() {
            if shared.sealed.is_up() {
                return;
            }
            tokio::select! {
                () = shared.posted.notified() => {}
                () = shared.sealed.raised() => {}
            }
            continue;
        }
        let settlements: Vec<Settlement> = batch.iter().map(|posted| posted.settlement.clone()).collect();
        match shared.source.settle(settlements).await {
            Ok(answers) => {
                failures = 0;
                shared.source_answered();
                shared.conclude(batch, answers);
            }
            Err(error) => {
                failures += 1;
                let wait = shared.source_failed(&error, failures);
                shared.put_back(batch);
                tokio::time::sleep(wait).await;
            }
        }
    }
}

impl<S: JobSource, H> Shared<S, H> {
    /// Takes what one call can carry, and drops what came too late: the job may be with another worker by now.
    fn collect(&self) -> Vec<Posted> {
        let now = Instant::now();
        let mut late = 0;
        let mut bytes = 0;
        let mut batch = Vec::new();
        let mut outbox = lock(&self.outbox);
        while batch.len() < SETTLE_MAX && bytes < SETTLE_BYTES_MAX {
            let Some(posted) = outbox.posted.pop_front() else { break };
            let weight = weight(&posted.settlement);
            outbox.bytes -= weight;
            if posted.lease_end <= now {
                late += 1;
            } else {
                bytes += weight;
                batch.push(posted);
            }
        }
        drop(outbox);
        if late > 0 {
            self.counters.dropped.add(late as u64);
            self.let_go(late);
        }
        self.settled.notify_waiters();
        batch
    }

    fn put_back(&self, batch: Vec<Posted>) {
        let mut outbox = lock(&self.outbox);
        for posted in batch.into_iter().rev() {
            outbox.bytes += weight(&posted.settlement);
            outbox.posted.push_front(posted);
        }
    }

    fn conclude(&self, batch: Vec<Posted>, answers: Vec<Result<Settled, Reject>>) {
        let mut answers = answers.into_iter();
        let mut over = 0;
        let mut again = Vec::new();
        for posted in batch {
            match answers.next() {
                Some(Ok(_)) => {
                    self.count(&posted.settlement.outcome);
                    over += 1;
                }
                Some(Err(reject)) => match replacement(posted, &reject) {
                    Some(posted) => again.push(posted),
                    None => {
                        self.counters.dropped.add(1);
                        over += 1;
                    }
                },
                // An answer that is too short says nothing of the rest.
                None => again.push(posted),
            }
        }
        self.put_back(again);
        self.let_go(over);
    }

    fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Done { .. } => &self.counters.done,
            Outcome::Retry { .. } => &self.counters.retried,
            Outcome::Fail { .. } => &self.counters.failed,
            Outcome::Snooze { .. } | Outcome::Wait { .. } | Outcome::RateLimited { .. } => {
                &self.counters.snoozed
            }
            Outcome::Cancel { .. } => &self.counters.cancelled,
            Outcome::Suspend { .. } => &self.counters.suspended,
            Outcome::Crash(_) => &self.counters.crashed,
        };
        counter.add(1);
    }
}

/// What to say instead of a refused outcome, so that the refusal is seen in the job's history and not as a lost lease.
fn replacement(mut posted: Posted, reject: &Reject) -> Option<Posted> {
    if posted.replaced {
        return None;
    }
    let why = error(reject.code(), &format!("the outcome was refused: {reject}"), "");
    posted.settlement.outcome = match reject {
        Reject::StaleLease { .. }
        | Reject::Cancelled { .. }
        | Reject::UnknownJob { .. }
        | Reject::WrongState { .. } => {
            return None;
        }
        Reject::QueueFull { .. } | Reject::PondFull { .. } => Outcome::Retry { error: why, after_ms: None },
        Reject::Invalid { .. }
        | Reject::TooMany { .. }
        | Reject::BodyTooLarge { .. }
        | Reject::UnknownQueue { .. }
        | Reject::UniqueConflict { .. }
        | Reject::UnknownJoin { .. }
        | Reject::BadGraph { .. }
        | Reject::JoinClosed { .. }
        | Reject::IdempotencyConflict { .. }
        | Reject::BadCron { .. }
        | Reject::BadZone { .. }
        | Reject::UnknownSchedule { .. }
        | Reject::StepsFull { .. }
        | Reject::SignalsFull { .. }
        | Reject::ChildExists { .. }
        | Reject::BodyChanged { .. }
        | Reject::DeadLetterCycle { .. } => Outcome::Fail { error: why },
        Reject::UnknownOperation { .. } | Reject::OperationEnded { .. } | Reject::StaleChoice { .. } => {
            Outcome::Fail { error: why }
        }
    };
    posted.settlement.push = Vec::new();
    posted.replaced = true;
    Some(posted)
}
