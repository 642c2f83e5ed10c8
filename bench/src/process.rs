//! What the system says of a process.

use crate::report::Result;
use std::fs;

/// Clock ticks in a second, fixed on Linux.
const TICKS: f64 = 100.0;

/// CPU seconds used so far, all threads, user and system.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything; the fields after it are numbers.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS)
}

/// CPU seconds used so far by the threads that are there now, to the nanosecond: for a process that hardly uses any.
pub(crate) fn scheduled_seconds(pid: u32) -> Result<f64> {
    let mut nanos = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += text.split(' ').next().and_then(|first| first.parse::<f64>().ok()).unwrap_or(0.0);
    }
    Ok(nanos / 1e9)
}

/// Bytes of memory in use.
pub(crate) fn memory_bytes(pid: u32) -> Result<f64> {
    named(&format!("/proc/{pid}/status"), "VmRSS:").map(|kibibytes| kibibytes * 1024.0)
}

/// Bytes sent to the disk so far.
pub(crate) fn written_bytes(pid: u32) -> Result<f64> {
    named(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn named(path: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    Ok(value.ok_or_else(|| format!("{path} has no {name}"))?)
}
