//! Backups of a shard: of a stopped directory or of a running pond, and back.

use crate::{
    driver::Packed,
    error::OpenError,
    options::Options,
    recover::{Recovered, recover},
};
use kit::{Durability, Timestamp};
use model::{Actor, Command, Envelope, limits};
use std::{path::Path, sync::Arc};
use storage::{
    CheckpointError, Frozen, LocalCheckpoints, LocalLog, LogError, ReadOnly, Unfinished,
    backup::{Backup, BackupError, BackupFolder, Chunk, ChunkId, Manifest, Saved, cut},
    files::{ReadOnlyFiles, RealFiles, SharedFiles},
};

/// Why a backup was not made or not restored. Each text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BackupFailure {
    /// The backup, or its folder.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The clock cannot vouch for the tokens of leases.
    #[error(
        "the clock says {now}, and the backup was made at {taken}: leases that are granted now could have tokens that were granted before; set the clock, and restore again"
    )]
    Clock {
        /// What the clock says.
        now: Timestamp,
        /// When the backup was made, or the newest moment that it knows.
        taken: Timestamp,
    },
}

impl From<CheckpointError> for BackupFailure {
    fn from(error: CheckpointError) -> Self {
        Self::Open(error.into())
    }
}

/// A running pond as it was at one moment: the pond goes on, this stays. Everything acknowledged before it was asked for is in it.
pub struct Moment {
    pub(crate) frozen: Box<dyn Frozen>,
    pub(crate) directory: u64,
}

impl Moment {
    /// The newest command that is in it.
    pub fn position(&self) -> u64 {
        self.frozen.mark().map_or(0, |mark| mark.position)
    }

    /// The id of the data directory.
    pub fn directory(&self) -> u64 {
        self.directory
    }

    /// Hands its chunks to `put`, one after the other, and returns the manifest that names them. Reads the disk: not for a thread that
    /// others wait for.
    pub fn chunks<E: From<CheckpointError>>(
        &self,
        now: Timestamp,
        put: &mut dyn FnMut(ChunkId, Chunk) -> Result<(), E>,
    ) -> Result<Manifest, E> {
        cut(&*self.frozen, self.directory, now, put)
    }
}

/// Makes a backup of the data directory `dir` in the folder `to`, or brings the one that is there up to date: chunks that did not change
/// are not written again. The directory is not changed; no server may have it open.
pub fn backup(
    dir: &Path,
    to: &Path,
    options: &Options,
    now: Timestamp,
) -> Result<(Manifest, Saved), BackupFailure> {
    let ReadOnly { log, checkpoints, mirror: _mirror } =
        storage::open_read_only(dir, &options.local()).map_err(OpenError::from)?;
    let directory = checkpoints.directory();
    let mut folder = open_folder(to)?;
    folder.belongs_to(directory)?;
    let Recovered { mut driver, writer, mut keeper } =
        recover::<u64>(Box::new(log), Box::new(checkpoints), options)?;
    // What the log says behind the checkpoint goes into the mirror of the checkpoint.
    let failed = |reason: Arc<str>| {
        BackupFailure::from(CheckpointError::from(LogError::Poisoned { cause: reason.to_string() }))
    };
    let needed = driver.shard().dirty_bytes();
    if let Some(snapshot) = driver.snapshot()
        && !keeper.store(&snapshot, &writer).map_err(failed)?
    {
        return Err(CheckpointError::Full { free: 0, needed }.into());
    }
    let moment = Moment { frozen: keeper.freeze()?, directory };
    let manifest =
        moment.chunks::<BackupFailure>(now, &mut |_, chunk| Ok(folder.put(&chunk.bytes, chunk.values)?))?;
    let saved = folder.finish(&manifest)?;
    Ok((manifest, saved))
}

/// Takes the folder `to`, which is made if it is missing, for a backup.
pub fn open_folder(to: &Path) -> Result<BackupFolder, BackupError> {
    let files = RealFiles::open(to).map_err(|source| io("open", to, source))?;
    BackupFolder::open(Arc::new(files))
}

/// Reads the backup in the folder `from` whole and checks it.
pub fn read_backup(from: &Path) -> Result<Backup, BackupError> {
    let files = ReadOnlyFiles::open(from).map_err(|source| io("open", from, source))?;
    let files: SharedFiles = Arc::new(files);
    Backup::open(files)
}

fn io(operation: &'static str, path: &Path, source: std::io::Error) -> BackupError {
    CheckpointError::Io { operation, path: path.to_path_buf(), source }.into()
}

/// What a restore brought back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup is.
    pub manifest: Manifest,
    /// Jobs.
    pub jobs: u64,
    /// Queues.
    pub queues: u64,
}

/// Restores the backup in the folder `from` into the directory `to`, which must be empty or missing. The backup is checked first, whole;
/// everything is durable on return. `options` must hold the keys that the backup needs; the first one encrypts the new directory.
///
/// A restored pond knows nothing of what happened after the backup. So that none of the leases that it grants has a token that was granted
/// then, it begins a new epoch of tokens: by the clock `now`, which must be right.
pub fn restore(from: &Path, to: &Path, options: &Options, now: Timestamp) -> Result<Restored, BackupFailure> {
    let backup = read_backup(from)?;
    let manifest = backup.manifest().clone();
    if now < manifest.taken {
        return Err(BackupFailure::Clock { now, taken: manifest.taken });
    }
    let (log, checkpoints, unfinished) = storage::restore_local(to, &options.local(), &backup)?;
    let (jobs, queues) = complete(log, checkpoints, unfinished, options, now)?;
    Ok(Restored { manifest, jobs, queues })
}

/// The last steps of making a data directory: what is in it is checked, tokens begin anew, and from then on it counts. Says how many jobs
/// and queues it has.
pub(crate) fn complete(
    log: LocalLog,
    checkpoints: LocalCheckpoints,
    unfinished: Unfinished,
    options: &Options,
    now: Timestamp,
) -> Result<(u64, u64), BackupFailure> {
    let Recovered { mut driver, writer, keeper } =
        recover::<u64>(Box::new(log), Box::new(checkpoints), options)?;
    let taken = driver.shard().time();
    if now < taken {
        return Err(BackupFailure::Clock { now, taken });
    }
    let refused = |reason: String| BackupFailure::Open(OpenError::BadCheckpoint { reason });
    driver.shard().check().map_err(refused)?;
    raise_tokens(&mut driver, &writer, now).map_err(refused)?;
    writer.close().map_err(|reason| refused(reason.to_string()))?;
    let stats = driver.shard().stats();
    drop((driver, writer, keeper));
    unfinished.finish()?;
    Ok((stats.jobs, stats.queues))
}

fn raise_tokens(
    driver: &mut crate::Driver<u64>,
    writer: &crate::Writer,
    now: Timestamp,
) -> Result<(), String> {
    let seconds = (now.0 / 1_000).min(limits::TOKEN_EPOCH_MAX);
    let command = Command::RaiseTokens { seconds };
    let envelope = Envelope { actor: Actor::new("restore"), idempotency_key: None, command };
    let packed = Packed::new(envelope).map_err(|refusal| refusal.to_string())?;
    let mut answers: Vec<_> = driver.offer(0, packed, Durability::Disk).into_iter().collect();
    while let Some(mut sealed) = driver.seal(now).filter(|_| answers.is_empty()) {
        writer.write(&mut sealed);
        answers.extend(driver.commit(sealed).answers);
    }
    match answers.pop() {
        Some((_, Ok(_))) => Ok(()),
        Some((_, Err(error))) => Err(error.to_string()),
        None => Err("the tokens of leases could not be raised".to_owned()),
    }
}
