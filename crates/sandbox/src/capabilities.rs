//! A worker that runs as root gives its programs the files of root, but no power over the machine and other processes.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// What only the refused system calls need, or what opens other processes' memory beside them (the kernel lets CAP_PERFMON read it,
/// and with it the worker's token).
const OF_MACHINE: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::CHECKPOINT_RESTORE)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::SYS_MODULE)
    .union(CapabilitySet::SYS_RAWIO)
    .union(CapabilitySet::SYS_BOOT)
    .union(CapabilitySet::SYS_TIME)
    .union(CapabilitySet::SYSLOG)
    .union(CapabilitySet::MKNOD);

/// Without new privileges `exec` gives none of them back, not even to root.
pub(crate) fn drop(every: bool) -> Result<(), String> {
    let gone = if every { CapabilitySet::all() } else { OF_MACHINE };
    let dropped = capabilities(None).and_then(|now| {
        let [effective, permitted, inheritable] =
            [now.effective, now.permitted, now.inheritable].map(|set| set.difference(gone));
        set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
    });
    dropped.map_err(|error| format!("capabilities: {error}"))
}
