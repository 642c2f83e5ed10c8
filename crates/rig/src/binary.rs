use std::path::PathBuf;

/// The environment variable that names the binary to test.
pub const BINARY: &str = "MILLPOND_BIN";

/// There is nothing to run.
#[derive(Debug, thiserror::Error)]
#[error("no `millpond` binary found; build one with `cargo build --release`, or name one with {BINARY}")]
pub struct NoBinary;

/// The binary under test: [`BINARY`] if set, otherwise the newest of the release and the debug build beside this program.
pub fn binary() -> Result<PathBuf, NoBinary> {
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
