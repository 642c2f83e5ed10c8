//! A peer's processes: started for a measurement, accounted for, and always ended.

use crate::{
    error::{Error, Result},
    process::{self, Disk},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a server may take until it listens.
const READY: Duration = Duration::from_secs(60);
/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(5);
/// How often both are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Of what a server wrote, an error shows this much.
const TAIL: usize = 600;

/// A running server. Dropping it kills it and all its descendants.
pub(crate) struct Server {
    program: String,
    child: Child,
    log: PathBuf,
    /// What it needs beside it; goes after it.
    beside: Option<Box<Server>>,
}

/// What a server has used since it started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) disk: Disk,
}

/// A port that nobody had a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A command that dies with this process, and that the terminal's Ctrl-C does not reach: this process ends it itself.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    wrapped(program, &[])
}

/// The same as a user without rights, for programs that refuse to run as root.
pub(crate) fn humble(program: impl AsRef<OsStr>) -> Command {
    let root = rustix::process::geteuid().is_root();
    wrapped(program, if root { &["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"] } else { &[] })
}

fn wrapped(program: impl AsRef<OsStr>, rights: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(rights).args(["--pdeathsig", "KILL", "--"]).arg(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

impl Server {
    /// Starts it; what it writes goes to a file in `folder`.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Result<Self> {
        let arguments: Vec<String> =
            command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let program = arguments.iter().skip_while(|word| *word != "--").nth(1).cloned().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default().to_owned();
        let log = folder.join(format!("{program}.out"));
        let out = File::create(&log)?;
        let child = command.stdout(out.try_clone()?).stderr(out).spawn()?;
        Ok(Self { program, child, log, beside: None })
    }

    /// Waits until it takes connections at this port.
    pub(crate) fn listens(mut self, port: u16) -> Result<Self> {
        let started = Instant::now();
        loop {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(self);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(Error::Ended { program: self.program.clone(), status, output: self.output() });
            }
            if started.elapsed() > READY {
                return Err(Error::NotReady {
                    program: self.program.clone(),
                    within: READY,
                    output: self.output(),
                });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Lets another end with it.
    pub(crate) fn with(mut self, beside: Server) -> Self {
        self.beside = Some(Box::new(beside));
        self
    }

    pub(crate) fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it wrote.
    pub(crate) fn output(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).trim().to_owned()
    }

    /// The time of all its processes, those that have ended too, and what the disk was sent.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let tree = process::tree(self.child.id())?;
        Ok(Usage { cpu_seconds: process::cpu_seconds(&tree), disk: process::disk(&self.log)? })
    }

    /// Memory of all its processes.
    pub(crate) fn memory_bytes(&self) -> Result<f64> {
        Ok(process::memory_bytes(&process::tree(self.child.id())?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let tree = process::tree(self.child.id()).unwrap_or_default();
        // Each fails only when there is nothing left to kill, which is what was wanted.
        let _ = self.child.kill();
        for pid in tree.iter().skip(1).filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.child.wait();
        // Those below are not ours to wait for; until they are gone they may write to the folder that is removed next.
        let started = Instant::now();
        while tree.iter().skip(1).any(|pid| process::runs(*pid)) && started.elapsed() < GONE {
            std::thread::sleep(LOOK);
        }
    }
}
