//! What a program that does jobs may do, and the process that becomes the program once it has confined itself.
//!
//! That process is this binary again, with words that no command has, looked at before any command line is read: it runs
//! once per job.

use super::{Failure, options::span, print};
use clap::{Args, ValueEnum};
use kit::Millis;
use sandbox::{Files, Limits, Missing, Network, Profile};
use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};
use workers::process::{Explained, Launcher};

/// The first argument of the process that confines itself; the profile follows, then the program.
const WORD: &str = "__confine";
/// This binary, also if another one has taken its place in the folder since.
const OURSELVES: &str = "/proc/self/exe";
/// How what it writes begins if it cannot become the program.
const CANNOT_START: &str = "millpond: not started: ";
/// Its exit status then, that of shells for a program that cannot be executed.
const NOT_EXECUTABLE: u8 = 126;

/// How much is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Nothing
    Off,
    /// What no ordinary program notices, and what the other options say
    Default,
    /// Only what the options allow, and nothing starts where a measure is missing
    Strict,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct SandboxOptions {
    /// How much programs are confined: `off`; `default`: no new privileges, no dangerous system calls, and what the other
    /// options say; `strict`: no files, network or resources but those allowed, and no start where a measure is missing
    #[arg(long, value_enum, default_value = "default", hide_possible_values = true, value_name = "LEVEL")]
    sandbox: Level,
    /// Let programs read and execute this file or folder, and nothing else but the system's programs; may be repeated
    #[arg(long, value_name = "PATH")]
    allow_read: Vec<PathBuf>,
    /// Let programs read, write, make and remove what is in this file or folder; may be repeated
    #[arg(long, value_name = "PATH")]
    allow_write: Vec<PathBuf>,
    /// Let programs connect to this TCP port, or use `udp` (which names are asked for over) or `unix` sockets, and nothing
    /// else; `none` for no network; may be repeated
    #[arg(long, value_name = "PORT", value_parser = door)]
    allow_connect: Vec<Door>,
    /// Let programs listen on this TCP port, and use nothing else; may be repeated
    #[arg(long, value_name = "PORT")]
    allow_bind: Vec<u16>,
    /// Memory of one process (`512MiB`), without what is shared; 1GiB if strict
    #[arg(long, value_name = "SIZE", value_parser = size)]
    limit_memory: Option<u64>,
    /// Processor time of one process; with --pool, over all of its jobs
    #[arg(long, value_name = "SPAN", value_parser = span)]
    limit_cpu: Option<Millis>,
    /// Processes and threads, on top of those that the user has when a program starts; 64 if strict
    #[arg(long, value_name = "N")]
    limit_procs: Option<u64>,
    /// Open files of one process; 256 if strict
    #[arg(long, value_name = "N")]
    limit_files: Option<u64>,
    /// Bytes of one file that is written (`100MiB`); 1GiB if strict
    #[arg(long, value_name = "SIZE", value_parser = size)]
    limit_file_size: Option<u64>,
}

/// What `--allow-connect` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Port(u16),
    Udp,
    Unix,
    None,
}

fn door(text: &str) -> Result<Door, String> {
    match text {
        "none" => Ok(Door::None),
        "udp" => Ok(Door::Udp),
        "unix" => Ok(Door::Unix),
        port => port.parse().map(Door::Port).map_err(|_| "expected a port, udp, unix or none".to_owned()),
    }
}

/// Reads `4096`, `64KiB`, `512MiB` or `2GiB`.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write 512MiB, 64KiB, 2GiB or a number of bytes");
    let (digits, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .unwrap_or((text, 0));
    let count: u64 = digits.trim_end().parse().map_err(|_| wrong())?;
    count.checked_mul(1 << shift).ok_or_else(wrong)
}

impl SandboxOptions {
    /// What to start the program through; `None` if it is not confined. What this system cannot do is said once, here.
    pub(crate) fn launcher(&self) -> Result<Option<Launcher>, Failure> {
        let Some(profile) = self.profile()? else { return Ok(None) };
        let missing = probe(&profile)?;
        if profile.strict && !missing.is_empty() {
            let missing: Vec<_> = missing.iter().map(Missing::to_string).collect();
            return Err(Failure::Usage(format!(
                "--sandbox strict is not possible here: {}",
                missing.join("; ")
            )));
        }
        for missing in missing {
            print::note(&format!("the sandbox does not cover {missing}"));
        }
        Ok(Some(Launcher { path: OURSELVES.into(), args: words(&profile)?, explain }))
    }

    /// What the options say; `None` for no confinement.
    fn profile(&self) -> Result<Option<Profile>, Failure> {
        let strict = self.sandbox == Level::Strict;
        let files = !self.allow_read.is_empty() || !self.allow_write.is_empty();
        let network = !self.allow_connect.is_empty() || !self.allow_bind.is_empty();
        if self.sandbox == Level::Off {
            if files || network || self.limits(false) != Limits::default() {
                return Err(Failure::Usage("--sandbox off confines nothing: leave it out".to_owned()));
            }
            return Ok(None);
        }
        let allows = |door| self.allow_connect.contains(&door);
        if allows(Door::None) && self.allow_connect.len() > 1 {
            return Err(Failure::Usage("--allow-connect none stands alone".to_owned()));
        }
        let port = |door: &Door| if let Door::Port(port) = door { Some(*port) } else { None };
        Ok(Some(Profile {
            strict,
            files: (files || strict)
                .then(|| Files { read: self.allow_read.clone(), write: self.allow_write.clone() }),
            network: (network || strict).then(|| Network {
                connect: self.allow_connect.iter().filter_map(port).collect(),
                bind: self.allow_bind.clone(),
                udp: allows(Door::Udp),
                unix: allows(Door::Unix),
            }),
            limits: self.limits(strict),
        }))
    }

    fn limits(&self, strict: bool) -> Limits {
        let of = |given: Option<u64>, if_strict: u64| given.or(strict.then_some(if_strict));
        Limits {
            memory: of(self.limit_memory, 1 << 30),
            // The kernel counts whole seconds.
            cpu_seconds: self.limit_cpu.map(|limit| limit.div_ceil(1_000)),
            processes: of(self.limit_procs, 64),
            open_files: of(self.limit_files, 256),
            file_bytes: of(self.limit_file_size, 1 << 30),
        }
    }
}

fn words(profile: &Profile) -> Result<Vec<OsString>, Failure> {
    let text = serde_json::to_string(profile)
        .map_err(|_| Failure::Usage("the paths of a sandbox are to be UTF-8".to_owned()))?;
    Ok(vec![WORD.into(), text.into()])
}

/// Confines a process that then only says what was missing.
fn probe(profile: &Profile) -> Result<Vec<Missing>, Failure> {
    let failed = |why: String| Failure::Usage(format!("the sandbox does not work: {why}"));
    let mut command = Command::new(OURSELVES);
    command.args(words(profile)?).stdin(Stdio::null()).stderr(Stdio::piped());
    let out = command.output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&out.stderr);
    serde_json::from_slice(&out.stdout)
        .map_err(|_| failed(said.trim().trim_start_matches(CANNOT_START).to_owned()))
}

/// What the end of a confined program may be owed to.
fn explain(signal: Option<i32>, stderr: &str) -> Option<Explained> {
    if let Some(why) = stderr.strip_prefix(CANNOT_START) {
        return Some(Explained::NotStarted(why.to_owned()));
    }
    sandbox::hint(signal, stderr).map(|what| Explained::Hint(format!("(sandbox: this may be {what})")))
}

/// If this process is the one between a worker and a program: its end. It has none if it becomes the program.
pub(crate) fn confined() -> Option<ExitCode> {
    let mut words = env::args_os().skip(1);
    if words.next()? != WORD {
        return None;
    }
    let why = match become_program(words) {
        Ok(missing) => {
            print::line(&missing);
            return Some(ExitCode::SUCCESS);
        }
        Err(why) => why,
    };
    eprintln!("{CANNOT_START}{why}");
    Some(ExitCode::from(NOT_EXECUTABLE))
}

/// Answers with what is missing if there is no program to become.
fn become_program(mut words: impl Iterator<Item = OsString>) -> Result<String, String> {
    let profile = words.next().and_then(|text| text.into_string().ok()).unwrap_or_default();
    let profile: Profile = serde_json::from_str(&profile).map_err(|error| error.to_string())?;
    let program = words.next();
    let missing = sandbox::confine(&profile, program.as_deref())?;
    match program {
        None => serde_json::to_string(&missing).map_err(|error| error.to_string()),
        Some(_) if profile.strict && !missing.is_empty() => Err(missing[0].to_string()),
        Some(program) => Err(Command::new(program).args(words).exec().to_string()),
    }
}
