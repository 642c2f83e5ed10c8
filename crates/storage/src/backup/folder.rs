use super::{
    BackupError, ChunkId, Manifest,
    chunk::READ_MAX,
    manifest::{self, LENGTH_MAX},
};
use crate::{
    files::{Lock, SharedFiles, uninterrupted, write_all_at},
    identity::write_whole,
    log::{
        LogError,
        segment::space::{failure, list, read_range, rename, sync_dir},
    },
};
use std::collections::BTreeMap;

const LOCK: &str = "lock";
const TEMPORARY: &str = "chunk.tmp";

pub(super) fn chunk_name(id: &ChunkId) -> String {
    format!("chunk-{id}")
}

/// A folder into which a backup is being written.
///
/// First [`BackupFolder::open`] and [`BackupFolder::belongs_to`], then each chunk in order with [`BackupFolder::put`] or [`BackupFolder::keep`], then
/// [`BackupFolder::finish`]. Dropped before that, it leaves the backup that was there before.
pub struct BackupFolder {
    files: SharedFiles,
    _lock: Box<dyn Lock>,
    /// The data directory that the backup before is of.
    of: Option<u64>,
    /// The whole chunks that are there, and their bytes.
    there: BTreeMap<ChunkId, u64>,
    /// Those of this backup, as its manifest must name them.
    chunks: Vec<(ChunkId, u64, u64)>,
    saved: Saved,
}

/// What a backup took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Saved {
    /// Values in it.
    pub values: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Chunks that were written.
    pub chunks_written: u64,
    /// Their bytes.
    pub bytes_written: u64,
    /// Chunks that were there already.
    pub chunks_kept: u64,
}

impl BackupFolder {
    /// Takes the folder for a backup; reads and checks every chunk that is there.
    ///
    /// # Errors
    /// [`BackupError::Foreign`] if it holds other things; the lock, if another backup is at work.
    pub fn open(files: SharedFiles) -> Result<Self, BackupError> {
        let names = list(&files)?;
        let foreign =
            |reason: String| BackupError::Foreign { folder: files.path("").display().to_string(), reason };
        let ours = |name: &str| {
            [LOCK, TEMPORARY, manifest::NAME].contains(&name)
                || name == "manifest.tmp"
                || id_of(name).is_some()
        };
        if let Some(other) = names.iter().find(|name| !ours(name)) {
            return Err(foreign(format!("it holds other things (`{other}`)")));
        }
        let lock = files.lock(LOCK).map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => LogError::Locked { path: files.path(LOCK) },
            _ => failure(&files, "lock", LOCK, source),
        })?;
        let of = match read_manifest(&files) {
            Ok(before) => Some(before.directory),
            // What is damaged is replaced.
            Err(BackupError::Unfinished { .. } | BackupError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut there = BTreeMap::new();
        for id in names.iter().filter_map(|name| id_of(name)) {
            if let Ok(bytes) = read_chunk(&files, &id) {
                there.insert(id, bytes.len() as u64);
            }
        }
        Ok(Self { files, _lock: lock, of, there, chunks: Vec::new(), saved: Saved::default() })
    }

    /// Refuses to replace the backup of another data directory: [`BackupError::Foreign`].
    pub fn belongs_to(&self, directory: u64) -> Result<(), BackupError> {
        match self.of {
            Some(other) if other != directory => Err(BackupError::Foreign {
                folder: self.files.path("").display().to_string(),
                reason: format!("it holds a backup of data directory {other:016x}, not of {directory:016x}"),
            }),
            _ => Ok(()),
        }
    }

    /// The chunks that are there and whole: they need not come again.
    pub fn there(&self) -> impl Iterator<Item = &ChunkId> {
        self.there.keys()
    }

    /// Takes the next chunk of the backup. Durable and read back on return, except for its name.
    pub fn put(&mut self, bytes: &[u8], values: u64) -> Result<(), BackupError> {
        let id = ChunkId::of(bytes);
        if self.there.contains_key(&id) {
            return self.keep(id, values);
        }
        let files = &self.files;
        let io = |operation| move |source| failure(files, operation, TEMPORARY, source);
        let file = files.create(TEMPORARY).map_err(io("create"))?;
        write_all_at(&*file, bytes, 0).map_err(io("write"))?;
        uninterrupted(|| file.sync_all()).map_err(io("flush"))?;
        file.drop_cache().map_err(io("drop the cache of"))?;
        if read_range(files, &*file, TEMPORARY, READ_MAX)? != bytes {
            return Err(BackupError::Damaged {
                file: files.path(TEMPORARY).display().to_string(),
                reason: "the disk does not give back what was just written".to_owned(),
            });
        }
        rename(files, TEMPORARY, &chunk_name(&id))?;
        self.there.insert(id, bytes.len() as u64);
        self.chunks.push((id, bytes.len() as u64, values));
        self.saved.chunks_written += 1;
        self.saved.bytes_written += bytes.len() as u64;
        Ok(())
    }

    /// The next chunk of the backup is one of those that are there.
    pub fn keep(&mut self, id: ChunkId, values: u64) -> Result<(), BackupError> {
        let Some(bytes) = self.there.get(&id) else {
            return Err(BackupError::Damaged {
                file: self.files.path(&chunk_name(&id)).display().to_string(),
                reason: "it is missing".to_owned(),
            });
        };
        self.chunks.push((id, *bytes, values));
        self.saved.chunks_kept += 1;
        Ok(())
    }

    /// Makes the backup count. The manifest must name the chunks that were put and kept, in their order. Durable on return, together
    /// with everything before.
    pub fn finish(self, manifest: &Manifest) -> Result<Saved, BackupError> {
        self.belongs_to(manifest.directory)?;
        let Self { files, _lock: lock, chunks, mut saved, .. } = self;
        if chunks != manifest.chunks {
            return Err(BackupError::Damaged {
                file: files.path(manifest::NAME).display().to_string(),
                reason: "it does not name the chunks that came".to_owned(),
            });
        }
        sync_dir(&files)?;
        write_whole(&files, manifest::NAME, manifest.render().as_bytes())?;
        if read_manifest(&files)? != *manifest {
            return Err(BackupError::Damaged {
                file: files.path(manifest::NAME).display().to_string(),
                reason: "the disk does not give back what was just written".to_owned(),
            });
        }
        // From here on the backup is there, whatever becomes of what is left over.
        let named: std::collections::BTreeSet<_> = manifest.chunks.iter().map(|(id, ..)| *id).collect();
        for name in list(&files)? {
            if name == TEMPORARY || id_of(&name).is_some_and(|id| !named.contains(&id)) {
                files.remove(&name).map_err(|source| failure(&files, "remove", &name, source))?;
            }
        }
        sync_dir(&files)?;
        drop(lock);
        (saved.values, saved.bytes) = (manifest.values(), manifest.bytes());
        Ok(saved)
    }
}

fn id_of(name: &str) -> Option<ChunkId> {
    ChunkId::parse(name.strip_prefix("chunk-")?)
}

pub(super) fn read_manifest(files: &SharedFiles) -> Result<Manifest, BackupError> {
    let file = match files.open(manifest::NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(BackupError::Unfinished { folder: files.path("").display().to_string() });
        }
        Err(source) => return Err(failure(files, "open", manifest::NAME, source).into()),
    };
    let bytes = read_range(files, &*file, manifest::NAME, LENGTH_MAX)?;
    Manifest::parse(&bytes).map_err(|reason| BackupError::Damaged {
        file: files.path(manifest::NAME).display().to_string(),
        reason,
    })
}

pub(super) fn read_chunk(files: &SharedFiles, id: &ChunkId) -> Result<Vec<u8>, BackupError> {
    let name = chunk_name(id);
    let damaged = |reason: &str| BackupError::Damaged {
        file: files.path(&name).display().to_string(),
        reason: reason.to_owned(),
    };
    let file = match files.open(&name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(damaged("it is missing")),
        opened => opened.map_err(|source| failure(files, "open", &name, source))?,
    };
    let bytes = read_range(files, &*file, &name, READ_MAX)?;
    if ChunkId::of(&bytes) == *id { Ok(bytes) } else { Err(damaged("its checksum is wrong")) }
}
