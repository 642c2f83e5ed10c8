//! `millpond work` of the binary under test, with a shell script as its program.

use rig::{Server, until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::Read,
    process::{Child, Stdio},
    time::Duration,
};

/// A worker that was told to stop has nothing left to do by then.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A worker that runs. Dropping it kills it.
pub(crate) struct Worker(Child);

impl Worker {
    /// One job at a time of the queue, by `sh -c script`.
    pub(crate) fn start(
        server: &Server,
        queue: &str,
        options: &[&str],
        script: &str,
    ) -> Result<Self, String> {
        let mut command = rig::command().map_err(|error| error.to_string())?;
        command
            .args(["--url", &server.url(), "work", queue, "--concurrency", "1"])
            .args(options)
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command.spawn().map(Self).map_err(|error| format!("a worker does not start: {error}"))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
        kill_process(pid, signal).map_err(|error| format!("a worker cannot be signalled: {error}"))
    }

    pub(crate) fn running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Lets it finish what it has begun; returns what it says at its end.
    pub(crate) fn stop(mut self) -> Result<String, String> {
        self.signal(Signal::TERM)?;
        until(STOP_MAX, || (!self.running()).then_some(())).ok_or("a worker did not stop")?;
        let mut said = String::new();
        if let Some(mut out) = self.0.stdout.take() {
            out.read_to_string(&mut said).map_err(|error| error.to_string())?;
        }
        Ok(said)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what was wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
