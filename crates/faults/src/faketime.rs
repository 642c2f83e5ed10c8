//! A wall clock of a server's own, by the library `libfaketime`, which Debian has in the package `faketime`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where distributions put it; the variant for programs with threads.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const FOLDERS: [&str; 5] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];

/// A clock that is set while the server runs.
pub(crate) struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeClock {
    /// It is told what to show by a file.
    pub(crate) fn new(file: &Path) -> Result<Self, String> {
        let library =
            FOLDERS.iter().map(|folder| Path::new(folder).join(LIBRARY)).find(|path| path.is_file());
        let library = library.ok_or("libfaketime is not installed (package `faketime`)")?;
        Ok(Self { library, file: file.to_owned() })
    }

    /// From now on it is so many seconds ahead of the true time; below zero, behind.
    pub(crate) fn set(&self, seconds: i64) -> Result<(), String> {
        // The server never sees half a file.
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, format!("{seconds:+}s\n"))
            .and_then(|()| fs::rename(&fresh, &self.file))
            .map_err(|error| error.to_string())
    }

    /// Runs a server by this clock. How long something takes it still measures truly.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        let preload = format!("LD_PRELOAD={}", self.library.display());
        let file = format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display());
        ["env", &preload, &file, "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_NO_CACHE=1"]
            .map(str::to_owned)
            .into()
    }
}
