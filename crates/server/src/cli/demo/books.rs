//! The books: every job that was pushed must be somewhere at the end, and the numbers must be those that the file says.

use super::{
    or_empty,
    pipeline::{Order, STEPS},
};
use crate::{
    cli::{
        failure::Failure,
        print::{self, Style},
        queues::overview,
    },
    client::{Client, Queue, segment},
};
use serde_json::{Value, json};

/// What must come out, reckoned from the file alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    orders: u64,
    undeliverable: u64,
    followups: u64,
    /// Attempts that fail and are tried again, or were the last.
    failures: u64,
}

impl Plan {
    pub(super) fn of(places: &str, rows: u64) -> Self {
        let mut plan = Self { orders: 0, undeliverable: 0, followups: 0, failures: 0 };
        for row in places.lines().skip(1).take(rows as usize) {
            let mut cells = row.split(',');
            let zip_code = cells.next().unwrap_or_default();
            let state = cells.nth(3).unwrap_or_default();
            plan.orders += 1;
            if Order::undeliverable(state) {
                plan.undeliverable += 1;
                plan.failures += 3;
                continue;
            }
            plan.followups += u64::from(Order::wants_followup(zip_code));
            plan.failures += u64::from(Order::failures(zip_code));
        }
        plan
    }
}

/// All queues at one moment, in the order of the steps.
pub(super) struct Books {
    pub(super) queues: Vec<Queue>,
}

impl Books {
    pub(super) async fn read(client: &Client) -> Result<Self, Failure> {
        let mut queues = Vec::new();
        for step in STEPS {
            let found = client.get(&format!("/v1/queues/{}", segment(step.queue))).await;
            queues.push(or_empty(found, step.queue)?);
        }
        Ok(Self { queues })
    }

    /// Whether all orders have come and nothing is on its way. The queues are read one after the other in the order of
    /// the steps, so a job that moves on between two readings is seen at least once.
    pub(super) fn at_rest(&self, orders: u64) -> bool {
        self.queues[0].pushed_total >= orders && self.queues.iter().all(|queue| queue.live() == 0)
    }

    /// What differs from the plan; nothing if all is well.
    pub(super) fn compare(&self, plan: &Plan, imported: u64) -> Vec<String> {
        let delivered = plan.orders - plan.undeliverable;
        let expected = [
            (plan.orders, plan.undeliverable),
            (delivered, 0),
            (delivered, 0),
            (delivered, 0),
            (plan.followups, 0),
        ];
        let mut mistakes = Vec::new();
        let mut check = |what: String, found: u64, wanted: u64| {
            if found != wanted {
                mistakes.push(format!("{what}: {found}, expected {wanted}"));
            }
        };
        check("orders imported".to_owned(), imported, plan.orders);
        for (queue, (pushed, dead)) in self.queues.iter().zip(expected) {
            check(format!("{} pushed", queue.name), queue.pushed_total, pushed);
            check(format!("{} dead", queue.name), queue.dead_total, dead);
            check(format!("{} completed", queue.name), queue.completed_total, pushed - dead);
        }
        let failures = self.queues.iter().map(|queue| queue.failed_total).sum();
        check("failed attempts".to_owned(), failures, plan.failures);
        mistakes
    }

    fn completed(&self) -> u64 {
        self.queues.iter().map(|queue| queue.completed_total).sum()
    }

    fn failed(&self) -> u64 {
        self.queues.iter().map(|queue| queue.failed_total).sum()
    }

    fn dead(&self) -> u64 {
        self.queues.iter().map(|queue| queue.dead_total).sum()
    }

    fn lost(&self) -> u64 {
        let lost =
            |queue: &Queue| queue.pushed_total.saturating_sub(queue.completed_total + queue.dead_total);
        self.queues.iter().map(lost).sum()
    }

    pub(super) fn to_json(&self, seconds: f64, mistakes: &[String]) -> Value {
        let queues: Vec<Value> = self
            .queues
            .iter()
            .map(|queue| {
                json!({
                    "name": queue.name, "pushed": queue.pushed_total, "completed": queue.completed_total,
                    "failed_attempts": queue.failed_total, "dead": queue.dead_total,
                })
            })
            .collect();
        json!({
            "ok": mistakes.is_empty(), "mistakes": mistakes, "seconds": seconds, "jobs_completed": self.completed(),
            "jobs_per_second": self.completed() as f64 / seconds.max(0.001), "failed_attempts": self.failed(),
            "dead": self.dead(), "lost": self.lost(), "queues": queues,
        })
    }

    pub(super) fn summary(&self, style: Style, seconds: f64, url: &str) -> String {
        let millpond = program(url);
        let rate = self.completed() as f64 / seconds.max(0.001);
        let dead_in = self.queues.iter().find(|queue| queue.dead_total > 0);
        let mut out = overview(style, &self.queues, print::now(), None);
        out.push_str(&format!(
            "\n{} {} jobs done in {seconds:.1}s ({}/s, each on the disk before its answer)\n",
            style.good("✓"),
            print::count(self.completed()),
            print::count(rate as u64),
        ));
        out.push_str(&format!(
            "  {} attempts failed and were tried again · {} dead · {} lost\n\n",
            print::count(self.failed() - self.dead()),
            print::count(self.dead()),
            print::count(self.lost()),
        ));
        let mut suggest = |command: String, why: &str| {
            out.push_str(&format!("  {command}  {}\n", style.dim(why)));
        };
        if let Some(queue) = dead_in {
            suggest(format!("{millpond} dead {}", queue.name), "the order that no carrier takes");
            suggest(format!("{millpond} dead {} redrive --all", queue.name), "another life for it");
        }
        suggest(format!("{millpond} jobs notify --limit 5"), "some of its jobs, with their ids");
        suggest(format!("{millpond} top"), "all queues, live");
        out
    }
}

/// What is remarkable about a queue, for its bar.
pub(super) fn remarks(queue: &Queue) -> String {
    let mut remarks = Vec::new();
    let delayed = queue.count(model::State::Delayed);
    for (count, what) in
        [(queue.failed_total, "attempts failed"), (delayed, "due later"), (queue.dead_total, "dead")]
    {
        if count > 0 {
            remarks.push(format!("{} {what}", print::count(count)));
        }
    }
    remarks.join(" · ")
}

/// How the reader started us, so that the commands we show work when they are typed.
fn program(url: &str) -> String {
    let path = std::env::args().next().unwrap_or_default();
    let name = if std::env::var_os("CARGO").is_some() {
        "cargo run --release --".to_owned()
    } else if path.is_empty() {
        "millpond".to_owned()
    } else {
        path
    };
    if url == crate::cli::DEFAULT_URL { name } else { format!("{name} --url {url}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_knows_the_file_that_is_kept() {
        let plan = Plan::of(super::super::PLACES, super::super::PLACES_ROWS);
        assert_eq!((plan.orders, plan.undeliverable), (2_000, 1));
        assert!((80..120).contains(&plan.followups), "{plan:?}");
        assert!((200..350).contains(&plan.failures), "{plan:?}");
    }
}
