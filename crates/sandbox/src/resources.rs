//! What a program may use up, by resource limits.

use crate::{Limits, Missing};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};
use std::{fs, os::unix::fs::MetadataExt};

pub(crate) fn limit(limits: &Limits, missing: &mut Vec<Missing>) -> Result<(), String> {
    // Not the address space: Go, Java and JavaScript reserve far more of it than they use.
    let processes = limits.processes.map(|more| user_tasks().saturating_add(more));
    for (resource, what, most) in [
        (Resource::Core, "core files", Some(0)),
        (Resource::Data, "memory", limits.memory),
        (Resource::Cpu, "processor time", limits.cpu_seconds),
        (Resource::Nproc, "processes", processes),
        (Resource::Fsize, "size of files", limits.file_bytes),
        (Resource::Nofile, "open files", limits.open_files),
    ] {
        let Some(most) = most else { continue };
        // Nobody may raise what is already lower.
        let already = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let most = most.min(already);
        // At the first of the two the program hears SIGXCPU, which says what it was; at the second it is killed.
        let last = if resource == Resource::Cpu { most.saturating_add(1).min(already) } else { most };
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(last) })
            .map_err(|error| format!("limit of {what}: {error}"))?;
    }
    if limits.processes.is_some() && getuid().is_root() {
        missing.push(Missing::new(
            "the number of processes",
            "root is not held to it; run the worker as another user",
        ));
    }
    Ok(())
}

/// Processes and threads of this user now: the kernel counts them all together.
fn user_tasks() -> u64 {
    let user = getuid().as_raw();
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let tasks = processes.flatten().filter_map(|process| {
        process.file_name().to_str()?.parse::<u32>().ok()?;
        // Two links of that directory are not threads.
        (process.metadata().ok()?.uid() == user).then(|| fs::metadata(process.path().join("task")).ok())?
    });
    tasks.map(|threads| threads.nlink().saturating_sub(2)).sum()
}
