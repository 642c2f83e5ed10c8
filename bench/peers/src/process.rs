//! What the system says of a process and of those below it.

use crate::error::{Error, Result};
use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// Clock ticks in a second, fixed on Linux.
const TICKS: f64 = 100.0;

/// The process and all its descendants that run at present.
pub(crate) fn tree(pid: u32) -> Result<Vec<u32>> {
    let mut running = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(other) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // One that ended meanwhile has been reaped by its parent.
        let Ok(stat) = stat(other) else { continue };
        running.push((other, stat.parent));
    }
    Ok(descendants(pid, &running))
}

/// CPU seconds used so far by these processes, all threads, and by their children that have ended.
pub(crate) fn cpu_seconds(tree: &[u32]) -> f64 {
    tree.iter().filter_map(|pid| stat(*pid).ok()).map(|stat| stat.own + stat.reaped).sum()
}

/// What a disk was sent so far, by everybody.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Disk {
    pub(crate) bytes: f64,
    pub(crate) flushes: f64,
}

/// What the disk below a folder was sent. What the system says of a process is no use here: to a write
/// into a file that was prepared in large pieces it counts a whole piece, up to 1 MiB, of which the disk gets a page.
pub(crate) fn disk(folder: &Path) -> Result<Disk> {
    let device = fs::metadata(folder)?.dev();
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    parse_disk(&text)
        .ok_or_else(|| Error::client(format!("device {major}:{minor} does not say what it wrote")))
}

/// What `/sys/dev/block/…/stat` says; sectors have 512 bytes whatever the disk's are.
fn parse_disk(text: &str) -> Option<Disk> {
    let fields: Vec<f64> = text.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // Linux before 5.5 does not count flushes.
    Some(Disk { bytes: fields.get(6)? * 512.0, flushes: fields.get(15).copied().unwrap_or(f64::NAN) })
}

/// Bytes of memory in use; what several processes share counts once.
pub(crate) fn memory_bytes(tree: &[u32]) -> f64 {
    let of = |pid: &u32| named(&format!("/proc/{pid}/smaps_rollup"), "Pss:").ok();
    tree.iter().filter_map(of).map(|kibibytes| kibibytes * 1024.0).sum()
}

/// Whether it runs; one that has ended and was not yet asked for its status does not.
pub(crate) fn runs(pid: u32) -> bool {
    stat(pid).is_ok_and(|stat| !stat.ended)
}

/// `pid` first, then those below it. `running` holds each process with its parent.
fn descendants(pid: u32, running: &[(u32, u32)]) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(running.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    found
}

/// What `/proc/PID/stat` says.
struct Stat {
    parent: u32,
    ended: bool,
    /// CPU seconds of the process.
    own: f64,
    /// CPU seconds of children that ended, and of theirs.
    reaped: f64,
}

fn stat(pid: u32) -> Result<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
}

fn parse_stat(text: &str) -> Result<Stat> {
    // The name in brackets may hold anything; the fields after it are numbers.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    let parent = fields.get(1).and_then(|field| field.parse().ok());
    let parent = parent.ok_or_else(|| Error::client("a process without a parent"))?;
    let ended = fields.first().is_none_or(|state| ["Z", "X"].contains(state));
    Ok(Stat { parent, ended, own: (ticks(11) + ticks(12)) / TICKS, reaped: (ticks(13) + ticks(14)) / TICKS })
}

fn named(path: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    value.ok_or_else(|| Error::client(format!("{path} has no {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_does_not_shift_the_numbers() {
        let stat = parse_stat("7 (a) b (c)) S 3 7 7 0 -1 0 1 2 3 4 250 50 100 25 20 0 1 0").unwrap();
        assert_eq!((stat.parent, stat.ended, stat.own, stat.reaped), (3, false, 3.0, 1.25));
        assert!(parse_stat("7 (a) Z 3 7").unwrap().ended);
    }

    #[test]
    fn a_disk_counts_sectors_and_flushes() {
        let text = " 1 2 3 4 5 6 100 8 0 10 11 12 13 14 15 77 17";
        assert_eq!(parse_disk(text), Some(Disk { bytes: 51_200.0, flushes: 77.0 }));
        assert!(parse_disk("1 2 3 4 5 6 100").is_some_and(|disk| disk.flushes.is_nan()));
        assert_eq!(parse_disk("1 2 3"), None);
    }

    #[test]
    fn a_tree_has_grandchildren_and_no_strangers() {
        let running = [(2, 1), (5, 4), (4, 2), (3, 1), (6, 2)];
        assert_eq!(descendants(2, &running), [2, 4, 6, 5]);
        assert_eq!(descendants(9, &running), [9]);
    }

    #[test]
    fn this_process_uses_memory_and_is_the_root_of_its_tree() {
        let tree = tree(std::process::id()).unwrap();
        assert_eq!(tree[0], std::process::id());
        assert!(memory_bytes(&tree) > 0.0);
    }
}
