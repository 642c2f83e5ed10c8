//! System calls that are made to fail: `strace -D` puts itself behind the server, which stays our child.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

/// Why strace cannot be used here; `None` if it can.
pub(crate) fn missing() -> Option<String> {
    let trial = Command::new("strace")
        .args(["-D", "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match trial {
        Ok(status) if status.success() => None,
        Ok(_) => Some("strace may not trace here (ptrace is forbidden)".to_owned()),
        Err(_) => Some("strace is not installed".to_owned()),
    }
}

/// Runs a server so that its calls are written to a file.
pub(crate) fn watching(calls: &[&str], into: &Path) -> Vec<String> {
    let trace = format!("trace={}", calls.join(","));
    ["strace", "-D", "-f", "-qq", "-o", &into.display().to_string(), "-e", &trace].map(str::to_owned).into()
}

/// Runs a server in which `call` meets `what` (such as `error=EIO`) at its `nth` time in any one thread.
pub(crate) fn injecting(call: &str, what: &str, nth: u64) -> Vec<String> {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}:when={nth}"));
    ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).into()
}

/// Runs a server in which each `call` takes so many milliseconds more.
pub(crate) fn delaying(call: &str, ms: u64) -> Vec<String> {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:delay_enter={}", ms * 1_000));
    ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).into()
}

/// How often each call was made, by the thread that made it most: `when=` counts each thread by itself.
pub(crate) fn counts(trace: &str) -> BTreeMap<String, u64> {
    let mut by_thread: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            *by_thread.entry((thread, call)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, call), count) in by_thread {
        let entry: &mut u64 = most.entry(call.to_owned()).or_default();
        *entry = count.max(*entry);
    }
    most
}

/// At most `points` of the numbers 1 to `count`, spread evenly, first and last included.
pub(crate) fn spread(count: u64, points: u64) -> Vec<u64> {
    if count <= points || points < 2 {
        return (1..=count.min(points.max(1))).collect();
    }
    (0..points).map(|point| 1 + point * (count - 1) / (points - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_the_busiest_thread() {
        let trace = "7  write(1, \"x\", 1) = 1\n8  write(1, \"x\", 1) = 1\n8 write(1) = 1\n8  +++ exited with 0 +++\n8 <... write resumed>) = 1\n";
        assert_eq!(counts(trace), BTreeMap::from([("write".to_owned(), 2)]));
    }

    #[test]
    fn points_are_spread_with_both_ends() {
        assert_eq!(spread(3, 10), [1, 2, 3]);
        assert_eq!(spread(100, 4), [1, 34, 67, 100]);
        assert_eq!(spread(0, 4), Vec::<u64>::new());
    }
}
