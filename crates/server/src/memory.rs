//! How much memory this process may use, and watches how much it does, so that new work is refused before the system ends it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// How often is looked. What comes in between is bounded by the account of the pond.
const EVERY: Duration = Duration::from_millis(100);
/// Shares of the limit, in percent: from the first on it is short, below the second it is no longer. What is left is for the checkpoint that
/// may begin just then.
const SHORT_PERCENT: u64 = 65;
const ENOUGH_PERCENT: u64 = 55;
/// What a control group without a limit says, or more.
const NO_LIMIT: u64 = 1 << 60;

/// Looks again and again, and tells `short` when too little is left of the limit, and when there is enough again.
pub(crate) async fn watch(limit: u64, short: impl Fn(bool)) {
    let mut is_short = false;
    while let Some(resident) = resident() {
        if let Some(turn) = turn(&mut is_short, resident, limit) {
            short(turn);
            let (used, limit) = (resident >> 20, limit >> 20);
            if turn {
                tracing::warn!("{used} of {limit} MiB of memory are used: new work is refused");
            } else {
                tracing::info!("{used} of {limit} MiB of memory are used: new work is taken again");
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn turn(is_short: &mut bool, resident: u64, limit: u64) -> Option<bool> {
    let percent = if *is_short { ENOUGH_PERCENT } else { SHORT_PERCENT };
    let short = resident >= limit / 100 * percent;
    (short != std::mem::replace(is_short, short)).then_some(short)
}

/// Bytes of memory that the process uses, where the system says; without the pages of files, which the system takes back by itself.
pub(crate) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().split(' ').next()?.parse().ok()?;
    Some(kib << 10)
}

/// The limit that was asked for, or else that of the control group, if it has one.
pub(crate) fn limit(asked: u64) -> Option<u64> {
    if asked > 0 {
        return Some(asked);
    }
    group_limit(&fs::read_to_string("/proc/self/cgroup").ok()?, Path::new("/sys/fs/cgroup"))
}

/// The smallest limit of the groups that a process is in, of either version: `groups` is what `/proc/self/cgroup` says.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let places = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some((root.to_owned(), path, "memory.max")),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some((root.join("memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    // A container may see its own group as the root, under a path that is not there.
    let limits = places.flat_map(|(root, path, file)| {
        let groups: Vec<PathBuf> =
            Path::new(path).ancestors().map(|group| root.join(group).join(file)).collect();
        groups.into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
    });
    limits.filter(|limit| *limit < NO_LIMIT).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_runs_short_is_told_once_and_so_is_its_recovery() {
        let mut is_short = false;
        let mut look = |resident| turn(&mut is_short, resident, 1_000);
        assert_eq!([look(10), look(649)], [None, None]);
        assert_eq!([look(650), look(990), look(560)], [Some(true), None, None]);
        assert_eq!([look(549), look(640)], [Some(false), None]);
    }

    #[test]
    fn the_smallest_limit_of_a_control_group_counts_in_either_version() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let limit = |groups| group_limit(groups, root.path());
        assert_eq!(limit("0::/app/web\n"), None);
        write("app/memory.max", "300\n");
        write("app/web/memory.max", "max\n");
        assert_eq!(limit("0::/app/web\n"), Some(300), "that of the group around it");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(limit("5:cpu,cpuacct:/\n4:memory:/not/seen\n"), None);
        write("memory/memory.limit_in_bytes", "200\n");
        assert_eq!(limit("4:memory:/not/seen\n0::/app\n"), Some(200));
    }

    #[test]
    fn a_limit_that_was_asked_for_is_the_limit() {
        assert_eq!(limit(5), Some(5));
        assert!(resident().is_some_and(|resident| resident > 64 << 10));
    }
}
