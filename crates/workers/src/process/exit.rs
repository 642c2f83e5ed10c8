use super::tail;
use model::{Crash, limits};
use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

/// Whether a program died instead of ending: a signal killed it, or the shell or the container it ran in says that one did (status
/// 128 and the number of a signal that nobody sends by design).
pub(super) fn is_crash(status: ExitStatus) -> bool {
    signal_of(status).is_some()
}

/// What a handler reports, with [`model::Outcome::Crash`], of a process of its own that died; the end of `stderr` is kept.
pub fn crash_of(status: ExitStatus, stderr: &str) -> Crash {
    crash(Some(status), stderr)
}

/// What to report of a process that died; `None` for how, if that is not known.
pub(super) fn crash(status: Option<ExitStatus>, stderr: &str) -> Crash {
    let signal = status.and_then(signal_of).map(|number| signal_name(number).into());
    let exit = status.filter(|_| signal.is_none()).and_then(|status| u32::try_from(status.code()?).ok());
    Crash { signal, exit, stderr: tail::end_of(stderr, limits::CRASH_STDERR_BYTES_MAX).into() }
}

fn signal_of(status: ExitStatus) -> Option<i32> {
    use rustix::process::Signal;
    const FATAL: [Signal; 8] = [
        Signal::ILL,
        Signal::TRAP,
        Signal::ABORT,
        Signal::BUS,
        Signal::FPE,
        Signal::KILL,
        Signal::SEGV,
        Signal::SYS,
    ];
    let by_shell = || {
        let number = status.code()? - 128;
        FATAL.iter().any(|signal| signal.as_raw() == number).then_some(number)
    };
    status.signal().or_else(by_shell)
}

/// How a process ended, in words: `exit status 3`, `killed by SIGSEGV`.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => format!("killed by {}", signal_name(number)),
        (None, None) => "ended in an unknown way".to_string(),
    }
}

/// The signals that end programs, by their Linux and BSD numbers.
fn signal_name(number: i32) -> String {
    use rustix::process::Signal;
    let known = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::SYS, "SIGSYS"),
    ];
    known
        .iter()
        .find(|(signal, _)| signal.as_raw() == number)
        .map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_string())
}
