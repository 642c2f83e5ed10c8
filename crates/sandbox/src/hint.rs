/// What a program says or how it dies, and which measure that looks like.
const SIGNS: &[(&[&str], &str)] = &[
    (
        &["Permission denied", "EACCES"],
        "files or ports that are not allowed (--allow-read, --allow-write, --allow-connect)",
    ),
    (&["Operation not permitted", "EPERM"], "a system call that is refused"),
    (
        &["Cannot allocate memory", "MemoryError", "ENOMEM", "out of memory"],
        "the limit of memory (--limit-memory)",
    ),
    (
        &["Resource temporarily unavailable", "EAGAIN", "Cannot fork"],
        "the limit of processes (--limit-procs)",
    ),
    (&["Too many open files", "EMFILE"], "the limit of open files (--limit-files)"),
    (&["File too large", "EFBIG"], "the limit of a file's size (--limit-file-size)"),
];

/// Which measure may have ended a confined program, by the signal that killed it and what it wrote to stderr.
pub fn hint(signal: Option<i32>, stderr: &str) -> Option<&'static str> {
    #[cfg(target_os = "linux")]
    match signal {
        Some(libc::SIGXCPU) => return Some("the limit of processor time (--limit-cpu)"),
        Some(libc::SIGXFSZ) => return Some("the limit of a file's size (--limit-file-size)"),
        Some(libc::SIGSYS) => return Some("a system call of another processor's kind"),
        _ => {}
    }
    let _ = signal;
    SIGNS.iter().find(|(signs, _)| signs.iter().any(|sign| stderr.contains(sign))).map(|(_, what)| *what)
}
