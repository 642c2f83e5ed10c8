//! How far an import has come, in a small file: written after every confirmed batch, by rename, so that it is
//! whole whenever the process is killed. It may lag behind the server, never run ahead of it.

use crate::cli::failure::Failure;
use serde::{Deserialize, Serialize};
use server::rows::Place;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The newest form of the file.
const VERSION: u32 = 1;

/// What is known of one import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    pub(super) file: String,
    pub(super) queue: String,
    pub(super) url: String,
    /// Of the source, see `Source::fingerprint`.
    pub(super) fingerprint: u64,
    /// Makes a repeated import of the same file another one.
    pub(super) salt: u64,
    /// All rows before it are confirmed by the server or in the file of rejects.
    pub(super) place: Place,
    /// Jobs made.
    pub(super) added: u64,
    /// Rows whose job was there already.
    pub(super) present: u64,
    /// Rows in the file of rejects.
    pub(super) rejected: u64,
    /// Bytes of the file of rejects that belong to rows before `place`.
    pub(super) rejects_bytes: u64,
    /// Nothing is left to do.
    pub(super) done: bool,
}

impl Progress {
    pub(super) fn new(file: &str, queue: &str, url: &str, fingerprint: u64, salt: u64) -> Self {
        Self {
            version: VERSION,
            file: file.to_owned(),
            queue: queue.to_owned(),
            url: url.to_owned(),
            fingerprint,
            salt,
            place: Place::START,
            added: 0,
            present: 0,
            rejected: 0,
            rejects_bytes: 0,
            done: false,
        }
    }

    /// Whether this is about the same rows to the same place.
    pub(super) fn is_of(&self, fingerprint: u64, queue: &str, url: &str) -> bool {
        self.fingerprint == fingerprint && self.queue == queue && self.url == url
    }
}

/// Where an import's progress is kept.
#[derive(Debug, Clone)]
pub(super) struct StateFile(PathBuf);

impl StateFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The file for a source and a queue, in the current folder.
    pub(super) fn beside(name: &str, queue: &str) -> Self {
        Self(PathBuf::from(format!(".{name}.{}.millpond-import", queue.replace(':', "_"))))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What was written last; `None` if there is no file.
    pub(super) fn load(&self) -> Result<Option<Progress>, Failure> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::file(&self.0, "read", &error)),
        };
        match serde_json::from_slice::<Progress>(&bytes) {
            Ok(progress) if progress.version == VERSION => Ok(Some(progress)),
            _ => Err(Failure::Usage(format!(
                "{} does not hold the progress of an import; remove it, or name another with --state",
                self.0.display()
            ))),
        }
    }

    /// Replaces the file as a whole. It is not flushed to the disk: after a power cut an older progress, or none, is
    /// found, and the server recognises the rows by their ids.
    pub(super) fn save(&self, progress: &Progress) -> Result<(), Failure> {
        let failed = |error| Failure::file(&self.0, "write the progress to", &error);
        let mut beside = self.0.clone().into_os_string();
        beside.push(".new");
        let text = serde_json::to_vec(progress).map_err(|error| failed(error.into()))?;
        fs::write(&beside, text).map_err(failed)?;
        fs::rename(&beside, &self.0).map_err(failed)
    }
}
