use super::{
    BackupError, ChunkId, Manifest, chunk,
    folder::{chunk_name, read_chunk, read_manifest},
};
use crate::{
    checkpoints::{Change, CheckpointError, CheckpointReader, Checkpoints, Mark, Visit},
    files::SharedFiles,
};
use std::sync::Arc;

/// A backup that is whole, behind the seam of checkpoints: to be read, not to be written.
///
/// Its mark has record 0: a log that begins with record 1 continues it.
#[derive(Clone)]
pub struct Backup(Arc<Inner>);

struct Inner {
    files: SharedFiles,
    manifest: Manifest,
    /// The first key of each chunk.
    first: Vec<Vec<u8>>,
}

impl Backup {
    /// Reads the manifest and every chunk, and checks them.
    pub fn open(files: SharedFiles) -> Result<Self, BackupError> {
        let manifest = read_manifest(&files)?;
        let mut first = Vec::new();
        let mut last: Option<Vec<u8>> = None;
        for (id, bytes, values) in &manifest.chunks {
            let content = read_chunk(&files, id)?;
            let damaged = |reason: &str| BackupError::Damaged {
                file: files.path(&chunk_name(id)).display().to_string(),
                reason: reason.to_owned(),
            };
            let mut begins = true;
            let read = chunk::read(&content, |key, _| {
                if last.as_deref().is_some_and(|last| last >= key) {
                    return Err("its keys are not in order");
                }
                if std::mem::take(&mut begins) {
                    first.push(key.to_vec());
                }
                last = Some(key.to_vec());
                Ok(())
            });
            match read {
                Ok(Ok(count)) if count == *values && content.len() as u64 == *bytes && count > 0 => {}
                Ok(Ok(_)) => return Err(damaged("it is not what the manifest says")),
                Ok(Err(reason)) => return Err(damaged(reason)),
                Err(malformed) => return Err(damaged(&malformed.to_string())),
            }
        }
        Ok(Self(Arc::new(Inner { files, manifest, first })))
    }

    /// What it is.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }
}

impl Inner {
    fn visit(&self, id: &ChunkId, visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        let name = || chunk_name(id);
        let bytes = read_chunk(&self.files, id).map_err(|error| match error {
            BackupError::Source(error) => error,
            error => CheckpointError::Corrupt { place: name(), reason: error.to_string() },
        })?;
        match chunk::read(&bytes, visit) {
            Ok(read) => read.map(drop),
            Err(error) => Err(CheckpointError::Corrupt { place: name(), reason: error.to_string() }),
        }
    }

    /// Visits the keys that begin with `prefix`.
    fn scan(&self, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        // The chunk before the first that begins behind the prefix may end with it.
        let from = self.first.partition_point(|first| first.as_slice() <= prefix).saturating_sub(1);
        for (at, (id, ..)) in self.manifest.chunks.iter().enumerate().skip(from) {
            if !self.first[at].starts_with(prefix) && self.first[at].as_slice() > prefix {
                break;
            }
            self.visit(id, &mut |key, value| {
                if key.starts_with(prefix) { visit(key, value) } else { Ok(()) }
            })?;
        }
        Ok(())
    }
}

fn refuse<T>() -> Result<T, CheckpointError> {
    Err(CheckpointError::Engine { operation: "write", reason: "a backup is only read".to_owned() })
}

impl Checkpoints for Backup {
    fn mark(&self, _: u16) -> Result<Option<Mark>, CheckpointError> {
        let mark = Mark { index: 0, position: self.0.manifest.position };
        Ok((!self.0.manifest.chunks.is_empty()).then_some(mark))
    }

    fn write(&mut self, _: u16, _: &mut dyn Iterator<Item = Change>, _: Mark) -> Result<(), CheckpointError> {
        refuse()
    }

    fn scan(&self, _: u16, prefix: &[u8], visit: &mut Visit<'_>) -> Result<(), CheckpointError> {
        self.0.scan(prefix, visit)
    }

    fn reader(&self) -> Arc<dyn CheckpointReader> {
        self.0.clone()
    }

    fn clear(&mut self, _: u16) -> Result<(), CheckpointError> {
        refuse()
    }
}

impl CheckpointReader for Inner {
    fn get(&self, _: u16, key: &[u8]) -> Result<Option<Vec<u8>>, CheckpointError> {
        let mut found = None;
        self.scan(key, &mut |other, value| {
            if other == key {
                found = Some(value.to_vec());
            }
            Ok(())
        })?;
        Ok(found)
    }
}
