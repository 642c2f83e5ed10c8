use std::{path::PathBuf, process::Command, sync::OnceLock};

/// The environment variable that names the binary to test.
pub const BINARY: &str = "MILLPOND_BIN";

/// There is nothing to run.
#[derive(Debug, thiserror::Error)]
#[error("no `millpond` binary found; build one with `cargo build --release`, or name one with {BINARY}")]
pub struct NoBinary;

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// From now on this is the binary under test, for the whole process. Only the first choice counts.
pub fn choose(path: PathBuf) {
    CHOSEN.get_or_init(|| path);
}

/// A command of the binary under test, without what the environment says to one of a user.
pub fn command() -> Result<Command, NoBinary> {
    let mut command = Command::new(binary()?);
    undisturbed(&mut command);
    Ok(command)
}

/// Takes the settings of a user's own server away.
pub(crate) fn undisturbed(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("MILLPOND_")) {
            command.env_remove(name);
        }
    }
}

/// The binary under test: the chosen one, or [`BINARY`] if set, otherwise the newest of the release and the debug build beside this program.
pub fn binary() -> Result<PathBuf, NoBinary> {
    if let Some(path) = CHOSEN.get() {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os(BINARY) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(NoBinary) };
    }
    let this = std::env::current_exe().map_err(|_| NoBinary)?;
    let built = |path: PathBuf| {
        let at = path.metadata().ok()?.modified().ok()?;
        Some((at, path))
    };
    this.ancestors()
        .skip(1)
        .take(4)
        .flat_map(|folder| ["millpond", "release/millpond", "debug/millpond"].map(|name| folder.join(name)))
        .filter_map(built)
        .max()
        .map(|(_, path)| path)
        .ok_or(NoBinary)
}
