//! Control groups of a row's own, of either version. They need root.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// A control group while this lives.
pub(crate) struct Group(PathBuf);

/// Where a controller may be, and what to write where.
type Places<'a> = [(&'a str, Vec<(&'a str, String)>); 2];

impl Group {
    /// Whoever is in it may use so many bytes of memory.
    pub(crate) fn memory(bytes: u64) -> Result<Self, String> {
        Self::new(
            "memory",
            &[
                ("/sys/fs/cgroup/memory", vec![("memory.limit_in_bytes", bytes.to_string())]),
                ("/sys/fs/cgroup", vec![("memory.max", bytes.to_string())]),
            ],
        )
    }

    /// Whoever is in it may use so many percent of a core.
    pub(crate) fn processor(percent: u64) -> Result<Self, String> {
        let quota = percent * 1_000;
        Self::new(
            "processor",
            &[
                (
                    "/sys/fs/cgroup/cpu",
                    vec![("cpu.cfs_period_us", "100000".to_owned()), ("cpu.cfs_quota_us", quota.to_string())],
                ),
                ("/sys/fs/cgroup", vec![("cpu.max", format!("{quota} 100000"))]),
            ],
        )
    }

    fn new(of: &str, places: &Places<'_>) -> Result<Self, String> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("millpond-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        for (root, limits) in places {
            let path = Path::new(root).join(&name);
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = Self(path);
            if limits.iter().all(|(file, value)| fs::write(group.0.join(file), value).is_ok()) {
                return Ok(group);
            }
        }
        Err(format!("no control group for the {of} can be made here; this row needs root"))
    }

    /// Runs a server within it from its beginning.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let script = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once its processes are gone; a leftover is empty and does no harm.
        let _ = fs::remove_dir(&self.0);
    }
}
