//! Files that may change while the server runs: noticed by what the file system says of them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// When a file was written, how long it is, and which one it is.
type Stamp = (Option<SystemTime>, u64, u64);

/// A file that is read again when it changes.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    read: Mutex<Option<Stamp>>,
}

impl Watched {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: Mutex::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// To be called before reading: what is written meanwhile is then read once more.
    pub(crate) fn note(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(stamp(&self.path));
    }

    /// Whether it is another one than that which was noted.
    pub(crate) fn has_changed(&self) -> bool {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) != Some(stamp(&self.path))
    }
}

fn stamp(path: &Path) -> Stamp {
    let Ok(metadata) = fs::metadata(path) else { return (None, 0, 0) };
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
    #[cfg(not(unix))]
    let inode = 0;
    (metadata.modified().ok(), metadata.len(), inode)
}
