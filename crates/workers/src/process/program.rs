//! What to start, and what it may see.

use super::tail::Tail;
use crate::{Context, Verdict};
use model::Outcome;
use std::{
    ffi::{OsStr, OsString},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

/// What a child sees of our environment unless more is allowed.
const ENVIRONMENT: [&str; 3] = ["PATH", "HOME", "LANG"];

/// What a program is started through: it prepares itself, then becomes the program. `millpond work` has its sandbox there.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// What is executed in the program's place.
    pub path: OsString,
    /// Its arguments; the program and its own follow.
    pub args: Vec<OsString>,
    /// What it knows about an end, by the signal that killed the program and the end of stderr.
    pub explain: fn(Option<i32>, &str) -> Option<Explained>,
}

/// What a [`Launcher`] knows about an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explained {
    /// The program was never started, and why: the job is put off.
    NotStarted(String),
    /// What may be behind it, for the error text.
    Hint(String),
}

/// A program with its arguments and its surroundings.
///
/// ```
/// let program = workers::process::Program::new("python3").arg("resize.py").allow_env("AWS_REGION");
/// ```
#[derive(Debug, Clone)]
pub struct Program {
    path: OsString,
    args: Vec<OsString>,
    allowed: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    launcher: Option<Arc<Launcher>>,
    pub(super) echo_stderr: bool,
    pub(super) grace: Duration,
}

impl Program {
    /// A program by path, or by name to be found in `PATH`.
    pub fn new(path: impl Into<OsString>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            allowed: Vec::new(),
            env: Vec::new(),
            dir: None,
            launcher: None,
            echo_stderr: false,
            grace: Duration::from_secs(4),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Passes on a variable of our own environment. `PATH`, `HOME` and `LANG` always pass.
    #[must_use]
    pub fn allow_env(mut self, name: impl Into<OsString>) -> Self {
        self.allowed.push(name.into());
        self
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Starts it in this directory; ours by default.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Starts it through another program.
    #[must_use]
    pub fn through(mut self, launcher: Launcher) -> Self {
        self.launcher = Some(Arc::new(launcher));
        self
    }

    /// Copies what it writes to stderr to our own stderr as well.
    #[must_use]
    pub const fn echo_stderr(mut self, echo: bool) -> Self {
        self.echo_stderr = echo;
        self
    }

    /// How long it may live between SIGTERM and SIGKILL. Default 4 s; keep it below [`crate::Options::grace`].
    #[must_use]
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Starts it as the leader of a group of its own, all three streams piped.
    pub(super) fn spawn(&self, extra: &[(&str, String)]) -> std::io::Result<Child> {
        let mut command = match &self.launcher {
            None => Command::new(&self.path),
            Some(launcher) => {
                let mut command = Command::new(&launcher.path);
                command.args(&launcher.args).arg(&self.path);
                command
            }
        };
        command.args(&self.args).env_clear();
        let inherited =
            ENVIRONMENT.iter().map(OsStr::new).chain(self.allowed.iter().map(OsString::as_os_str));
        command.envs(inherited.filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.envs(extra.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true).spawn()
    }

    /// Reads stderr to its end; keeps the tail.
    pub(super) async fn watch_stderr(&self, stderr: Option<impl AsyncRead + Unpin>, tail: Arc<Mutex<Tail>>) {
        let Some(mut stderr) = stderr else { return };
        let mut chunk = [0; 4_096];
        while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
            tail.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(&chunk[..read]);
            if self.echo_stderr {
                // Our own stderr being closed is no reason to stop reading the child's.
                let _ = tokio::io::stderr().write_all(&chunk[..read]).await;
            }
        }
    }

    /// What the launcher knows about an end; nothing without one.
    pub(super) fn explain(&self, status: Option<ExitStatus>, stderr: &str) -> Option<Explained> {
        let signal = status.and_then(|status| status.signal());
        self.launcher.as_ref().and_then(|launcher| (launcher.explain)(signal, stderr))
    }

    /// A program that does not start is not the job's fault: the job is put off, and its log says why.
    pub(super) async fn cannot_start(&self, context: &Context, why: &str, after: Duration) -> Verdict {
        let line = format!("cannot start {}: {why}; put off for {after:.1?}", self.path.to_string_lossy());
        // Without its line the job is still put off.
        let _ = context.log([line]).await;
        snooze(after)
    }
}

pub(super) fn snooze(after: Duration) -> Verdict {
    Outcome::Snooze { after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX) }.into()
}
