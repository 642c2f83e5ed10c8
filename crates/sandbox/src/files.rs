//! Which files, by Landlock.

use crate::{Files, Missing};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// What programs of any language read before their first line runs. What is not there is left out.
const SYSTEM: [&str; 27] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/mime.types",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];
const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

pub(crate) fn restrict(
    files: Option<&Files>,
    program: Option<&OsStr>,
    missing: &mut Vec<Missing>,
) -> Result<(), String> {
    let done = match files {
        Some(files) => only(files, program, missing),
        None => domain(missing),
    };
    done.map_err(|error| format!("files: {error}"))
}

fn only(files: &Files, program: Option<&OsStr>, missing: &mut Vec<Missing>) -> Result<(), String> {
    for path in files.read.iter().chain(&files.write) {
        path.metadata().map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let every = AccessFs::from_all(ABI::V3);
    let read = AccessFs::from_read(ABI::V3);
    let write = every & !(AccessFs::MakeBlock | AccessFs::MakeChar);
    let handle = |level| Ruleset::default().set_compatibility(level).handle_access(every);
    let whole = handle(CompatLevel::HardRequirement).is_ok();
    let ruleset = handle(CompatLevel::BestEffort).and_then(Ruleset::create).map_err(text)?;
    let program = program.and_then(found);
    let status = ruleset
        .add_rules(path_beneath_rules(SYSTEM, read))
        .and_then(|rules| {
            rules.add_rules(path_beneath_rules(DEVICES, AccessFs::ReadFile | AccessFs::WriteFile))
        })
        .and_then(|rules| rules.add_rules(path_beneath_rules(program, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&files.read, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(&files.write, write)))
        .and_then(|rules| rules.restrict_self())
        .map_err(text)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => {
            missing.push(Missing::new(
                "files",
                "this kernel has no Landlock (Linux 5.13), or it is not enabled",
            ));
        }
        _ if !whole => missing.push(Missing::new("cutting files short", "needs Linux 6.2")),
        _ => signals(missing)?,
    }
    Ok(())
}

/// Programs that have few files do not signal others, either.
fn signals(missing: &mut Vec<Missing>) -> Result<(), String> {
    let scope = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal | Scope::AbstractUnixSocket);
    match scope {
        Ok(ruleset) => {
            ruleset.create().and_then(|rules| rules.restrict_self()).map_err(text)?;
        }
        Err(_) => missing.push(Missing::new("signals to other programs", "needs Linux 6.12")),
    }
    Ok(())
}

/// Every file stays within reach, but no process outside can be looked into: its environment has the worker's token.
fn domain(missing: &mut Vec<Missing>) -> Result<(), String> {
    let handled = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(BitFlags::from(AccessFs::Refer));
    let Ok(ruleset) = handled else {
        missing.push(Missing::new("a look into the worker's process", "needs Landlock (Linux 5.19)"));
        return Ok(());
    };
    let root = PathFd::new("/").map_err(|error| error.to_string())?;
    ruleset
        .create()
        .and_then(|rules| rules.add_rule(PathBeneath::new(root, AccessFs::Refer)))
        .and_then(|rules| rules.restrict_self())
        .map_err(text)?;
    Ok(())
}

/// The file of a program, as `exec` finds it.
fn found(program: &OsStr) -> Option<PathBuf> {
    let path = Path::new(program);
    if path.components().count() > 1 || program.as_encoded_bytes().contains(&b'/') {
        return Some(path.to_owned());
    }
    let paths = env::var_os("PATH")?;
    env::split_paths(&paths).map(|folder| folder.join(path)).find(|file| file.is_file())
}

fn text(error: RulesetError) -> String {
    error.to_string()
}
