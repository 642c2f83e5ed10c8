//! Programs that tests run. Missing ones are installed where that is possible, otherwise their tests say that they skip.

use crate::{Done, Outcome};
use std::process::{Command, Stdio};

/// Program, and the Debian package that has it.
const TOOLS: [(&str, &str); 6] = [
    ("python3", "python3"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("strace", "strace"),
    ("valgrind", "valgrind"),
    ("faketime", "faketime"),
];

/// Whether a program is on the path.
pub(crate) fn present(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(name).is_file())
}

/// Installs what is missing, if `apt-get` is there and we may.
pub(crate) fn install() -> Outcome {
    let missing = || TOOLS.iter().filter(|(program, _)| !present(program));
    if missing().next().is_none() {
        return Ok(Done::Passed);
    }
    if present("apt-get") {
        let packages: Vec<&str> = missing().map(|(_, package)| *package).collect();
        // A failure is no error: what is missing is said below, and the tests that need it skip.
        let mut install = Command::new("apt-get");
        let _ = install
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .status();
    }
    let names: Vec<&str> = missing().map(|(program, _)| *program).collect();
    if names.is_empty() {
        return Ok(Done::Passed);
    }
    Ok(Done::Skipped(format!("{} cannot be installed here; tests that need them skip", names.join(", "))))
}
