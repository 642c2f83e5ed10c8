//! The five steps of an order. What goes wrong is decided by the order itself, so every run goes the same way.

use kit::{Backoff, random::mix};
use model::{NewJob, Outcome, QueueName};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use workers::{Context, Handler, Verdict, error};
use xxhash_rust::xxh3::xxh3_64;

/// How long after an order its follow-up is due.
const FOLLOWUP_MS: u64 = 3_000;

/// An order: where it goes. The columns of the file that matter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) zip_code: String,
    city: String,
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<u64>,
}

impl Order {
    /// A number that depends on the order alone.
    fn chance(zip_code: &str, purpose: u64, of: u64) -> u64 {
        mix(xxh3_64(zip_code.as_bytes()), purpose) % of
    }

    /// No carrier of ours goes there.
    pub(super) fn undeliverable(state: &str) -> bool {
        state == "GU"
    }

    /// One in twenty.
    pub(super) fn wants_followup(zip_code: &str) -> bool {
        Self::chance(zip_code, 1, 20) == 0
    }

    /// One notification in eight fails once, a few of them twice.
    pub(super) fn failures(zip_code: &str) -> u32 {
        match Self::chance(zip_code, 2, 64) {
            0 => 2,
            1..8 => 1,
            _ => 0,
        }
    }
}

/// One queue and who works on it.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) queue: &'static str,
    pub(super) concurrency: usize,
    work: fn(&Context, Order) -> Verdict,
    /// What one job takes, as if somebody else's service was called.
    takes: Duration,
}

/// All steps, in the order in which an order meets them.
pub(super) const STEPS: [Step; 5] = [
    Step { queue: "orders.validate", concurrency: 16, work: validate, takes: Duration::ZERO },
    Step { queue: "stock.reserve", concurrency: 16, work: reserve, takes: Duration::ZERO },
    Step { queue: "notify", concurrency: 64, work: notify, takes: Duration::from_millis(20) },
    Step { queue: "analytics", concurrency: 16, work: count, takes: Duration::ZERO },
    Step { queue: "followup", concurrency: 8, work: follow_up, takes: Duration::ZERO },
];

impl Handler for Step {
    async fn run(&self, context: Context) -> Verdict {
        let order = match serde_json::from_slice::<Order>(&context.body()) {
            Ok(order) => order,
            Err(wrong) => return failed("bad_order", &wrong.to_string()),
        };
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        (self.work)(&context, order)
    }
}

fn validate(_: &Context, mut order: Order) -> Verdict {
    if Order::undeliverable(&order.state) {
        // A worker that cannot know better tries again; after three attempts the order is dead.
        let message = format!("no carrier delivers to {}, {}", order.city, order.state);
        return again("no_carrier", &message, 200);
    }
    order.quantity = Some(1 + Order::chance(&order.zip_code, 3, 5));
    hand_over(&order, vec![next("stock.reserve", &order)])
}

fn reserve(_: &Context, order: Order) -> Verdict {
    let mut jobs = vec![next("notify", &order), next("analytics", &order)];
    if Order::wants_followup(&order.zip_code) {
        jobs.push(next("followup", &order).map(|job| NewJob { delay_ms: FOLLOWUP_MS, ..job }));
    }
    hand_over(&order, jobs)
}

fn notify(context: &Context, order: Order) -> Verdict {
    if context.job().attempt <= Order::failures(&order.zip_code) {
        return again("smtp", "421 the mail server is busy, try again later", 300);
    }
    hand_over(&order, Vec::new())
}

fn count(_: &Context, order: Order) -> Verdict {
    hand_over(&order, Vec::new())
}

fn follow_up(_: &Context, order: Order) -> Verdict {
    hand_over(&order, Vec::new())
}

/// The same order for the next queue.
fn next(queue: &str, order: &Order) -> Result<NewJob, String> {
    let queue = QueueName::new(queue).map_err(|error| error.to_string())?;
    let body = serde_json::to_vec(order).map_err(|error| error.to_string())?;
    let backoff = Some(Backoff::Fixed { delay: 300 });
    Ok(NewJob { tags: vec![order.state.as_str().into()], backoff, ..NewJob::new(queue, body) })
}

/// Done, and the next jobs are pushed in the same commit.
fn hand_over(order: &Order, jobs: Vec<Result<NewJob, String>>) -> Verdict {
    match jobs.into_iter().collect() {
        Ok(push) => {
            let result = serde_json::to_vec(&order.quantity).ok().map(Into::into);
            Verdict { outcome: Outcome::Done { result }, push }
        }
        Err(wrong) => failed("bad_order", &wrong),
    }
}

fn again(kind: &str, message: &str, after_ms: u64) -> Verdict {
    Outcome::Retry { error: error(kind, message, ""), after_ms: Some(after_ms) }.into()
}

fn failed(kind: &str, message: &str) -> Verdict {
    Outcome::Fail { error: error(kind, message, "") }.into()
}
