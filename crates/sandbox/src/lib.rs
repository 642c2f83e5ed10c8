//! Confines a process before it becomes a program that does jobs.
//!
//! What confines is inherited: a process that gives up rights can run any program, and neither that nor its children get them
//! back. So the worker starts itself once more, that process calls [`confine`] and then is replaced by the program (`exec`).
//! The usual way, code that runs between `fork` and `exec`, needs `unsafe` and may not even allocate; this one is ordinary Rust.
//!
//! Each measure that this system cannot take is answered by name, as a [`Missing`].

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod capabilities;
#[cfg(target_os = "linux")]
mod files;
mod hint;
#[cfg(target_os = "linux")]
mod network;
mod profile;
#[cfg(target_os = "linux")]
mod resources;

pub use hint::hint;
pub use profile::{Files, Limits, Missing, Network, Profile};

use std::ffi::OsStr;

/// Gives up what the profile does not allow, for this process and all that it starts. The calling process must have one thread.
///
/// `program` is what comes next: its file may be read. What this system cannot do is in the answer, and the rest is done.
///
/// # Errors
/// A sentence about a path that is not there, or a measure that should have worked and did not. The process may be confined
/// in part: it is to end.
#[cfg(target_os = "linux")]
pub fn confine(profile: &Profile, program: Option<&OsStr>) -> Result<Vec<Missing>, String> {
    let mut missing = Vec::new();
    // Whoever started the worker may have left files open that do not close themselves.
    close_fds::set_fds_cloexec(3, &[]);
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no-new-privs: {error}"))?;
    files::restrict(profile.files.as_ref(), program, &mut missing)?;
    if let Some(network) = &profile.network {
        network::restrict(network, &mut missing)?;
    }
    capabilities::drop(profile.strict)?;
    resources::limit(&profile.limits, &mut missing)?;
    // Last: what came before needs some of these calls.
    calls::refuse(profile, &mut missing)?;
    Ok(missing)
}

/// Nothing of this is there on other systems than Linux.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn confine(_: &Profile, _: Option<&OsStr>) -> Result<Vec<Missing>, String> {
    Ok(vec![Missing::new("everything", "only Linux has what it needs")])
}
