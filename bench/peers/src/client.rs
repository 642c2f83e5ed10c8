//! The verbs that a peer must know, whatever the language of its client.

use crate::error::Result;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// Producers of cells that enqueue in bulk or at a pace.
pub(crate) const PRODUCERS: usize = 8;

/// When a job is handed in, and when it may start.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    /// As fast as it goes.
    Now,
    /// So many a second, each with the time at which it should be handed in.
    Paced { per_second: u32 },
    /// As fast as it goes, each delayed: job `i` of `n` is due `i/n` of a second after `at_us`, and carries that time.
    Due { at_us: u64 },
}

/// Enqueue.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Push {
    pub(crate) queue: String,
    pub(crate) jobs: usize,
    /// Jobs a call.
    pub(crate) batch: usize,
    /// Callers at once.
    pub(crate) producers: usize,
    pub(crate) bytes: usize,
    pub(crate) when: When,
}

/// Handle and acknowledge.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Work {
    pub(crate) queue: String,
    pub(crate) jobs: usize,
    pub(crate) handlers: usize,
    /// Whether bodies carry the time from which to count.
    pub(crate) stamped: bool,
}

/// What came of [`Work`].
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Worked {
    /// From the first handler, so that starting a worker is not counted, to the last acknowledgement.
    pub(crate) seconds: f64,
    /// Of each job, from its stamp to its handler, in the order of their start.
    pub(crate) late_us: Vec<u64>,
}

/// One peer's client, connected. All calls may run at once.
pub(crate) trait Client: Send + Sync {
    /// Seconds from the first call to the last acknowledgement; connecting is not counted.
    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Result<f64>>;

    /// Works until so many jobs are acknowledged.
    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<Worked>>;

    /// How many jobs the peer itself counts: waiting, delayed, or out without an acknowledgement.
    fn waiting<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<u64>>;

    /// Forgets a queue, where its jobs would be in the way of others.
    fn clear<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// Digits of a stamp at the beginning of a body.
const STAMP: usize = 16;

/// Microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A body of this many bytes that begins with a time.
pub(crate) fn body(bytes: usize, stamp_us: u64) -> String {
    format!("{stamp_us:0STAMP$}{}", "x".repeat(bytes.saturating_sub(STAMP)))
}

/// The time that a body begins with.
pub(crate) fn stamp_us(body: &[u8]) -> Option<u64> {
    str::from_utf8(body.get(..STAMP)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_size_and_gives_its_time_back() {
        let body = body(100, 1_763_000_000_000_000);
        assert_eq!((body.len(), stamp_us(body.as_bytes())), (100, Some(1_763_000_000_000_000)));
        assert_eq!(stamp_us(b"short"), None);
    }
}
