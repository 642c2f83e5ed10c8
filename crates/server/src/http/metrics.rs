//! Prometheus text, with a bounded number of series: one per route and status class, and per-queue series for the
//! first hundred queues.

use super::{app::App, problem::Problem, routes::ROUTES_MAX};
use crate::access::Caller;
use model::{QueueName, QueueView, State};
use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Queues with series of their own.
pub(crate) const QUEUES_MAX: usize = 100;
/// Upper bounds of the latency histogram in microseconds.
const BOUNDS_US: [u64; 10] = [250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 10_000_000];

/// What the HTTP side counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By route, then by the first digit of the status, from 1. The last row is for what met no route.
    requests: Requests,
    latency: [AtomicU64; BOUNDS_US.len() + 1],
    latency_us_total: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_total: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
}

#[derive(Debug)]
struct Requests([[AtomicU64; 5]; ROUTES_MAX + 1]);

impl Default for Requests {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Default::default()))
    }
}

impl Metrics {
    /// Counts one answer; `route` is its place in the table. Long polls are left out of the latency: they wait on purpose.
    pub(crate) fn answered(&self, route: Option<usize>, status: u16, took: Option<Duration>) {
        let row = route.unwrap_or(ROUTES_MAX).min(ROUTES_MAX);
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        self.requests.0[row][class].fetch_add(1, Relaxed);
        if let Some(took) = took {
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
            self.latency[bucket].fetch_add(1, Relaxed);
            self.latency_us_total.fetch_add(us, Relaxed);
        }
    }
}

/// Writes all series; for who does not see all queues, those of its own.
pub(crate) async fn render(app: &App, caller: Caller) -> Result<String, Problem> {
    let whole = !caller.is_confined();
    let among = move |queue: &QueueName| caller.reaches(queue);
    let queues = app.node.read(move |shard| shard.queues_among(None, QUEUES_MAX, among)).await?;
    let mut page = Page(String::with_capacity(8 << 10));
    if whole {
        write_http(&mut page, &app.metrics);
        write_node(&mut page, app);
    }
    write_queues(&mut page, &queues);
    Ok(page.0)
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP millpond_{name} {help}\n# TYPE millpond_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.0, "millpond_{name}{labels} {value}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        self.line(name, "", value);
    }
}

fn write_http(page: &mut Page, metrics: &Metrics) {
    page.head("http_requests_total", "counter", "Answers by route and class of status.");
    for (row, classes) in metrics.requests.0.iter().enumerate() {
        for (class, count) in classes.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let (method, path) = super::routes::label(row);
                let labels = format!("{{method=\"{method}\",route=\"{path}\",status=\"{}xx\"}}", class + 1);
                page.line("http_requests_total", &labels, count);
            }
        }
    }
    page.head("http_request_seconds", "histogram", "Time to answer, long polls and event streams left out.");
    let mut below = 0;
    for (bound, count) in BOUNDS_US.iter().zip(&metrics.latency) {
        below += count.load(Relaxed);
        let labels = format!("{{le=\"{}\"}}", *bound as f64 / 1e6);
        page.line("http_request_seconds_bucket", &labels, below);
    }
    below += metrics.latency[BOUNDS_US.len()].load(Relaxed);
    page.line("http_request_seconds_bucket", "{le=\"+Inf\"}", below);
    page.line("http_request_seconds_sum", "", metrics.latency_us_total.load(Relaxed) as f64 / 1e6);
    page.line("http_request_seconds_count", "", below);
    for (name, kind, help, value) in [
        ("http_requests_in_flight", "gauge", "Requests being answered.", &metrics.in_flight),
        ("http_connections", "gauge", "Open connections.", &metrics.connections),
        ("http_connections_total", "counter", "Connections ever taken.", &metrics.connections_total),
        (
            "http_connections_refused_total",
            "counter",
            "Connections refused at the limit.",
            &metrics.connections_refused,
        ),
    ] {
        page.single(name, kind, help, value.load(Relaxed));
    }
}

fn write_node(page: &mut Page, app: &App) {
    let stats = app.node.stats();
    for (name, kind, help, value) in [
        ("commands_total", "counter", "Commands applied.", stats.commands),
        ("log_batches_total", "counter", "Batches appended to the log.", stats.batches),
        ("log_flushes_total", "counter", "Flushes of the log.", stats.flushes),
        ("log_bytes_total", "counter", "Bytes appended to the log.", stats.bytes_logged),
        ("commands_pending", "gauge", "Commands waiting to be logged.", stats.pending),
        ("fetches_waiting", "gauge", "Fetches waiting for work.", stats.waiting_fetches),
        ("pushes_waiting", "gauge", "Pushes waiting for room in full queues.", stats.waiting_pushes),
        ("checkpoints_total", "counter", "Checkpoints written.", stats.checkpoints),
        ("checkpoint_position", "gauge", "Log position of the newest checkpoint.", stats.checkpoint_position),
        ("log_poisoned", "gauge", "1 after a failed write or flush.", u64::from(stats.poisoned)),
        ("disk_full", "gauge", "1 while new work is refused for want of space.", u64::from(stats.disk_full)),
        ("recovered_records", "gauge", "Records replayed at the start.", stats.recovered_records),
        ("recovery_ms", "gauge", "Milliseconds that recovery took.", stats.recovery_ms),
        ("jobs", "gauge", "Jobs held, final ones included.", stats.shard.jobs),
        ("queues", "gauge", "Queues.", stats.shard.queues),
        ("body_bytes", "gauge", "Bytes of bodies in memory.", stats.shard.resident_body_bytes),
        ("held_bytes", "gauge", "Bytes that the pond holds in memory, by its own account.", stats.held_bytes),
        ("log_position", "gauge", "Position of the newest applied command.", stats.shard.position),
    ] {
        page.single(name, kind, help, value);
    }
    if let Some(resident) = crate::memory::resident() {
        page.single("resident_bytes", "gauge", "Bytes of memory that the process uses.", resident);
    }
    if let Some(limit) = app.rules.memory {
        page.single("memory_limit_bytes", "gauge", "Bytes of memory that it gets along with.", limit);
    }
    if let Some((free, total)) = app.disk.space() {
        page.single("disk_free_bytes", "gauge", "Bytes left on the disk of the data directory.", free);
        page.single("disk_total_bytes", "gauge", "Bytes of the disk of the data directory.", total);
    }
    let health = app.node.health();
    for (name, help, span) in [
        (
            "loop_seconds",
            "How long the loop that applies commands has been at its step; 0 while it waits.",
            health.turn,
        ),
        ("log_write_seconds", "How long the log has been at its write; 0 without one.", health.write),
    ] {
        page.head(name, "gauge", help);
        page.line(name, "", span.unwrap_or_default().as_secs_f64());
    }
}

fn write_queues(page: &mut Page, queues: &[QueueView]) {
    page.head("queue_jobs", "gauge", "Jobs by queue and state, of the first 100 queues by name.");
    for queue in queues {
        for state in State::ALL {
            // A queue's name has no character that a label would have to escape.
            let labels = format!("{{queue=\"{}\",state=\"{state}\"}}", queue.name);
            page.line("queue_jobs", &labels, queue.counts.of(state));
        }
    }
    type Total = fn(&QueueView) -> u64;
    let totals: [(&str, &str, Total); 5] = [
        ("queue_pushed_total", "Jobs ever pushed.", |queue| queue.pushed_total),
        ("queue_started_total", "Attempts ever started.", |queue| queue.started_total),
        ("queue_completed_total", "Jobs ever completed.", |queue| queue.completed_total),
        ("queue_failed_total", "Attempts ever failed.", |queue| queue.failed_total),
        ("queue_dead_total", "Jobs ever dead.", |queue| queue.dead_total),
    ];
    for (name, help, total) in totals {
        page.head(name, "counter", help);
        for queue in queues {
            page.line(name, &format!("{{queue=\"{}\"}}", queue.name), total(queue));
        }
    }
    page.head("queue_paused", "gauge", "1 while a queue is paused.");
    for queue in queues {
        page.line("queue_paused", &format!("{{queue=\"{}\"}}", queue.name), u8::from(queue.paused));
    }
}
