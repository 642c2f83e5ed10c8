use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// What a program may do. Beside that, it never gets new rights by what it executes, writes no core files, inherits no open
/// files, and dangerous system calls are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Without capabilities, and no process leaves the group that is killed with the attempt.
    pub strict: bool,
    /// The only files; `None` for all that the user of the worker can reach.
    pub files: Option<Files>,
    /// The only connections; `None` for all.
    pub network: Option<Network>,
    /// What it may use up.
    pub limits: Limits,
}

/// Files that may be used, beside what programs need to run at all: `/usr`, the linker's files, `/dev/null`, its own `/proc`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// To be read and executed, with all below.
    pub read: Vec<PathBuf>,
    /// To be read, executed, written, made and removed, with all below.
    pub write: Vec<PathBuf>,
}

/// Connections that may be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// TCP ports to connect to, on any host.
    pub connect: Vec<u16>,
    /// TCP ports to listen on.
    pub bind: Vec<u16>,
    /// Any UDP: names are asked for over it.
    pub udp: bool,
    /// Unix sockets.
    pub unix: bool,
}

/// What a program may use up; `None` for what the worker itself may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of private memory of one process.
    pub memory: Option<u64>,
    /// Seconds of processor time of one process.
    pub cpu_seconds: Option<u64>,
    /// Processes and threads, on top of those that the user has when the program starts.
    pub processes: Option<u64>,
    /// Files that one process has open.
    pub open_files: Option<u64>,
    /// Bytes of one file that is written.
    pub file_bytes: Option<u64>,
}

/// A measure that this system cannot take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// What is not confined.
    pub what: String,
    /// Why, and what would help.
    pub why: String,
}

impl Missing {
    pub(crate) fn new(what: &str, why: &str) -> Self {
        Self { what: what.to_owned(), why: why.to_owned() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}
