//! What is measured: cells, durability, and how long.

use std::time::Duration;

/// How safe an acknowledged job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Durability {
    /// Flushed to the disk before the acknowledgement: beside Millpond's `disk`.
    Flushed,
    /// As the peer is delivered, or without the wait for the disk if it is delivered with it: beside Millpond's `os`.
    Default,
}

impl Durability {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Flushed => "flushed",
            Self::Default => "default",
        }
    }
}

/// One thing that is measured, on a queue of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cell {
    /// Enqueue one job a call, one call at a time.
    One,
    /// Enqueue this many jobs a call, from 8 producers.
    Bulk(usize),
    /// Enqueue one job a call, from 64 producers.
    Producers,
    /// Handle and acknowledge with this many handlers.
    Drain(usize),
    /// Enqueue in bulk of 1,000 from 8 producers, then drain with 64 handlers; bodies of this many bytes.
    Whole(usize),
    /// From the call that enqueues to the handler, with this many jobs a second.
    Latency(u32),
    /// Up to 100,000 delayed jobs, due evenly over one second: how late they start.
    Due,
    /// Drain the first 100,000 of a million waiting jobs with 64 handlers.
    Backlog,
}

impl Cell {
    /// All, in the order in which they are measured.
    pub(crate) const ALL: [Self; 13] = [
        Self::One,
        Self::Bulk(100),
        Self::Bulk(1_000),
        Self::Producers,
        Self::Drain(1),
        Self::Drain(64),
        Self::Drain(512),
        Self::Whole(100),
        Self::Whole(1_024),
        Self::Latency(100),
        Self::Latency(1_000),
        Self::Due,
        Self::Backlog,
    ];

    /// As `--cells` takes it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::One => "one".into(),
            Self::Bulk(size) => format!("bulk{size}"),
            Self::Producers => "producers64".into(),
            Self::Drain(handlers) => format!("drain{handlers}"),
            Self::Whole(BYTES) => "whole".into(),
            Self::Whole(_) => "whole1k".into(),
            Self::Latency(rate) => format!("latency{rate}"),
            Self::Due => "due".into(),
            Self::Backlog => "backlog".into(),
        }
    }

    /// As a table says it.
    pub(crate) fn title(self) -> String {
        match self {
            Self::One => "enqueue one by one, 1 producer".into(),
            Self::Bulk(size) => format!("enqueue in bulk of {size}, 8 producers"),
            Self::Producers => "enqueue one by one, 64 producers".into(),
            Self::Drain(1) => "drain, 1 handler".into(),
            Self::Drain(handlers) => format!("drain, {handlers} handlers"),
            Self::Whole(BYTES) => "end to end, 64 handlers".into(),
            Self::Whole(bytes) => format!("end to end, 64 handlers, {bytes} bytes"),
            Self::Latency(rate) => format!("enqueue to handler at {rate}/s"),
            Self::Due => "late start of jobs due in one second".into(),
            Self::Backlog => "drain 100,000 of 1,000,000, 64 handlers".into(),
        }
    }
}

/// Payload where the cell names none.
pub(crate) const BYTES: usize = 100;

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Measurements of each number.
    pub(crate) rounds: usize,
    pub(crate) durabilities: Vec<Durability>,
    pub(crate) cells: Vec<Cell>,
    /// How long a cell that counts a rate shall take.
    pub(crate) span: Duration,
    /// How long jobs come in a cell that measures latency.
    pub(crate) watch: Duration,
}
