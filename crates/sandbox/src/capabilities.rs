//! A worker that runs as root gives its programs the files of root, but none of its other powers.

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Without new privileges `exec` gives none of them back.
pub(crate) fn drop_all() -> Result<(), String> {
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(|error| format!("capabilities: {error}"))
}
