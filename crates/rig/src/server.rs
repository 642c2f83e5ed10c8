use crate::{Client, binary::NoBinary, until};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader, Read},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// How long a start may take, recovery included.
const START_MAX: Duration = Duration::from_secs(60);
/// How long one call of a client may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of what the server writes, this much is kept.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Starter {
    wrapper: Vec<OsString>,
    arguments: Vec<OsString>,
    within: Duration,
}

/// A server did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing to start.
    #[error(transparent)]
    NoBinary(#[from] NoBinary),
    /// The system refused.
    #[error("cannot start the server: {0}")]
    Spawn(#[from] io::Error),
    /// It ended first.
    #[error("the server ended with {} before it was ready:\n{}", .0.status, .0.output)]
    Ended(Ended),
    /// It neither ended nor said where it listens.
    #[error("the server was not ready within {within:?}:\n{output}")]
    NotReady {
        /// How long was waited.
        within: Duration,
        /// What it wrote.
        output: String,
    },
}

/// A process that ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it wrote, both streams.
    pub output: String,
}

impl Ended {
    /// The exit code, `None` after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether a signal of this number ended it.
    pub fn by_signal(&self, number: i32) -> bool {
        self.status.signal() == Some(number)
    }
}

impl Starter {
    /// `millpond serve` on the data directory, at a port that the system chooses.
    pub fn new(data: &Path) -> Self {
        let arguments: [&OsStr; 5] =
            ["serve".as_ref(), "--data".as_ref(), data.as_ref(), "--listen".as_ref(), "127.0.0.1:0".as_ref()];
        Self { wrapper: Vec::new(), arguments: arguments.map(OsString::from).into(), within: START_MAX }
    }

    /// At this address, such as that of one before.
    pub fn at(mut self, address: SocketAddr) -> Self {
        // The last of those that every server gets.
        self.arguments[4] = address.to_string().into();
        self
    }

    /// Further flags.
    pub fn arguments<S: Into<OsString>>(mut self, more: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    /// Runs it under another program, such as `strace -D`, which must replace itself by the server: the child that is
    /// started is the one that is killed.
    pub fn under<S: Into<OsString>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrapper = wrapper.into_iter().map(Into::into).collect();
        self
    }

    /// Starts it, and returns when it takes calls.
    pub fn start(self) -> Result<Server, StartError> {
        let binary = crate::binary()?;
        let mut words = self.wrapper.into_iter().chain([binary.into()]).chain(self.arguments);
        let Some(program) = words.next() else { return Err(NoBinary.into()) };
        let mut command = Command::new(program);
        crate::binary::undisturbed(&mut command);
        let mut child = command
            .args(words)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = Output::default();
        let readers = [
            child.stdout.take().map(|stream| output.follow(stream)),
            child.stderr.take().map(|stream| output.follow(stream)),
        ];
        let readers = readers.into_iter().flatten().collect();
        let mut process = Process { child, output, readers };
        enum First {
            Listens(SocketAddr),
            Ended(ExitStatus),
        }
        let first = until(self.within, || {
            if let Some(address) = process.output.address() {
                return Some(Ok(First::Listens(address)));
            }
            process.child.try_wait().map(|status| status.map(First::Ended)).transpose()
        });
        match first {
            Some(Ok(First::Listens(address))) => Ok(Server { process, address }),
            Some(Ok(First::Ended(status))) => Err(StartError::Ended(process.ended(status))),
            Some(Err(error)) => Err(error.into()),
            None => Err(StartError::NotReady { within: self.within, output: process.output.text() }),
        }
    }
}

/// A running server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: SocketAddr,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same for programs.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client with a connection of its own.
    pub fn client(&self) -> Client {
        Client::new(self.address, PATIENCE)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// What it wrote so far, both streams.
    pub fn output(&self) -> String {
        self.process.output.text()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) -> io::Result<Ended> {
        self.process.child.kill()?;
        let status = self.process.child.wait()?;
        Ok(self.process.ended(status))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> io::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(None))
    }

    /// Waits for its end; `None` (and it is killed) if it does not come in time.
    pub fn wait(mut self, within: Duration) -> Option<Ended> {
        let status = until(within, || self.process.child.try_wait().ok().flatten())?;
        Some(self.process.ended(status))
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    output: Output,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    fn ended(&mut self, status: ExitStatus) -> Ended {
        for reader in self.readers.drain(..) {
            // A reader that panicked has read enough.
            let _ = reader.join();
        }
        Ended { status, output: self.output.text() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already, which is what was wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug, Clone, Default)]
struct Output(Arc<Mutex<String>>);

impl Output {
    fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let output = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut text = output.0.lock().unwrap_or_else(PoisonError::into_inner);
                if text.len() + line.len() < OUTPUT_BYTES_MAX {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
        })
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the server says that it listens: the first URL with a port.
    fn address(&self) -> Option<SocketAddr> {
        let text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.split("http://").skip(1).find_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').unwrap_or(rest.len());
            rest[..end].trim_end_matches(['.', ':']).parse().ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_what_the_server_writes() {
        let output = Output::default();
        output.0.lock().unwrap().push_str("starting\nmillpond listens on http://127.0.0.1:40123.\n");
        assert_eq!(output.address(), Some(([127, 0, 0, 1], 40123).into()));
    }
}
