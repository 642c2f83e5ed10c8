//! Checkpoints that are looked at and never changed.
//!
//! The engine has no opening without writing: it repairs, tidies and compacts. So it gets a directory of its own, made for this and
//! thrown away: the small files that it writes to are copied, and the large ones, which it writes once and only reads afterwards, are
//! linked by name. What it removes there is a link.

use super::CheckpointError;
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// The folders of the engine whose files never change.
const FOREVER: &str = "tables";

/// A directory in the system's place for temporary files, which only its owner can enter. Gone when dropped.
pub(crate) struct Mirror {
    scratch: TempDir,
}

impl Mirror {
    /// Mirrors the checkpoints in the directory `from`.
    pub(crate) fn make(from: &Path) -> Result<Self, CheckpointError> {
        let scratch = tempfile::Builder::new().prefix("millpond-").tempdir();
        let scratch =
            scratch.map_err(failure("make a directory for temporary files in", &std::env::temp_dir()))?;
        let from = fs::canonicalize(from).map_err(failure("open", from))?;
        mirror(&from, scratch.path(), false)?;
        Ok(Self { scratch })
    }

    /// Where the mirror is.
    pub(crate) fn path(&self) -> &Path {
        self.scratch.path()
    }
}

fn failure(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> CheckpointError {
    let path = path.to_path_buf();
    move |source| CheckpointError::Io { operation, path: path.clone(), source }
}

fn mirror(from: &Path, to: &Path, forever: bool) -> Result<(), CheckpointError> {
    for entry in fs::read_dir(from).map_err(failure("list", from))? {
        let entry = entry.map_err(failure("list", from))?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(failure("look at", &path))?;
        if kind.is_dir() {
            fs::create_dir(&to).map_err(failure("make", &to))?;
            mirror(&path, &to, entry.file_name() == FOREVER)?;
        } else if forever {
            std::os::unix::fs::symlink(&path, &to).map_err(failure("link", &to))?;
        } else {
            fs::copy(&path, &to).map_err(failure("copy", &path))?;
            // A copy of a file that may not be written must be.
            make_writable(&to).map_err(failure("open", &to))?;
        }
    }
    Ok(())
}

fn make_writable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
}

/// The files of checkpoints, as they are on the disk, with their lengths; `true` for those that the engine never changes.
pub(crate) fn files(of: &Path) -> Result<Vec<(PathBuf, u64, bool)>, CheckpointError> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let path = of.join(&folder);
        for entry in fs::read_dir(&path).map_err(failure("list", &path))? {
            let entry = entry.map_err(failure("list", &path))?;
            let name = folder.join(entry.file_name());
            let metadata = entry.metadata().map_err(failure("look at", &entry.path()))?;
            if metadata.is_dir() {
                folders.push(name);
            } else {
                let forever = folder.file_name().is_some_and(|folder| folder == FOREVER);
                found.push((name, metadata.len(), forever));
            }
        }
    }
    found.sort();
    Ok(found)
}
