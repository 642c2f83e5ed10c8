use compact_str::CompactString;
use core::fmt;

/// How the process of a handler died, as its worker saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Crash {
    /// The signal that killed it, such as `SIGSEGV`; at most [`crate::limits::TAG_BYTES_MAX`].
    pub signal: Option<CompactString>,
    /// Its exit status, if it ended by itself.
    pub exit: Option<u32>,
    /// The end of what it wrote to stderr; at most [`crate::limits::CRASH_STDERR_BYTES_MAX`].
    pub stderr: CompactString,
}

impl Crash {
    /// The kind of the error that a job shows after it.
    pub const KIND: &'static str = "crash";
}

/// In words, without stderr: `killed by SIGSEGV`.
impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.signal, self.exit) {
            (Some(signal), _) => write!(f, "killed by {signal}"),
            (None, Some(status)) => write!(f, "ended without an outcome, exit status {status}"),
            (None, None) => f.write_str("its process died"),
        }
    }
}
