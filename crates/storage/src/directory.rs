//! A data directory of this machine: identity, log and checkpoints, which belong together.
//!
//! ```text
//! DIR/identity      what this directory is, and its id
//! DIR/log/          the segment log
//! DIR/checkpoints/  the checkpoints
//! ```
//!
//! While [`rewrite_local`] is at work there are `checkpoints.new`, which counts for nothing until it is whole, and for a moment
//! `checkpoints.old`, which counts for nothing once `checkpoints` is there. Whoever opens the directory next tidies up.

use crate::{
    at_rest::{AtRest, EncodedCheckpoints, EncodedLog, KeyId, copy},
    backup::Backup,
    checkpoints::{CheckpointError, Checkpoints as _, fjall, fjall::FjallCheckpoints},
    files::{RealFiles, SharedFiles},
    identity,
    log::{Log as _, LogError, segment, segment::SegmentLog},
};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::Path,
    sync::Arc,
};

/// How log and checkpoints are set up. The `directory` of both is filled in from the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The log.
    pub log: segment::Options,
    /// The checkpoints.
    pub checkpoints: fjall::Options,
    /// How values are compressed and encrypted.
    pub at_rest: AtRest,
    /// The shards that are there. Default: 0.
    pub shards: &'static [u16],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log: segment::Options::DEFAULT,
            checkpoints: fjall::Options::DEFAULT,
            at_rest: AtRest::default(),
            shards: &[0],
        }
    }
}

/// The log of a data directory.
pub type LocalLog = EncodedLog<SegmentLog>;
/// The checkpoints of a data directory.
pub type LocalCheckpoints = EncodedCheckpoints<FjallCheckpoints>;

pub(crate) const KIND: &str = "data directory";
/// Names that an unfinished first opening may have left.
const OURS: [&str; 6] = ["log", CHECKPOINTS, FRESH, FORMER, "identity.tmp", "lock"];
pub(crate) const CHECKPOINTS: &str = "checkpoints";
/// Rewritten checkpoints that are not yet whole.
pub(crate) const FRESH: &str = "checkpoints.new";
/// The identity of a directory into which a backup is being restored.
const RESTORING: &str = "restoring";
/// Checkpoints that rewritten ones have replaced.
pub(crate) const FORMER: &str = "checkpoints.old";

/// Opens the data directory at `path`, or starts one in a directory that is empty or missing.
///
/// A directory with other content is refused as [`LogError::Foreign`], damaged or missing parts are named.
pub fn open_local(path: &Path, options: &Options) -> Result<(LocalLog, LocalCheckpoints), CheckpointError> {
    let directory = Directory::open(path)?;
    let log = directory.log(options)?;
    // The log's lock is ours from here on, so nobody else is at work on the checkpoints.
    directory.settle()?;
    let mut checkpoints = directory.checkpoints(CHECKPOINTS, options)?;
    let mut marks = options.shards.iter().map(|shard| checkpoints.mark(*shard));
    if marks.all(|mark| matches!(mark, Ok(None)))
        && let Some(encryption) = log.encryption()?
    {
        checkpoints.follow(encryption);
    }
    Ok((log, checkpoints))
}

/// A data directory into which a backup was restored, and which does not count yet.
pub struct Unfinished {
    files: SharedFiles,
}

/// Puts a backup into a new data directory at `path`, which must be empty or missing. Its values are encoded as `options` say, and bound
/// to a new id, so that nothing of another directory ever passes for part of it.
///
/// The directory does not open before [`Unfinished::finish`]; log and checkpoints must be durable by then.
pub fn restore_local(
    path: &Path,
    options: &Options,
    backup: &Backup,
) -> Result<(LocalLog, LocalCheckpoints, Unfinished), CheckpointError> {
    refuse_used(path)?;
    let source = backup.manifest().directory;
    let from = EncodedCheckpoints::open(backup.clone(), options.at_rest.clone(), source, options.shards)?;
    let (log, mut checkpoints, unfinished) = begin_local(path, options)?;
    for shard in options.shards {
        copy(&from, &mut checkpoints, *shard)?;
    }
    Ok((log, checkpoints, unfinished))
}

fn refuse_used(path: &Path) -> Result<(), CheckpointError> {
    if path.exists() {
        let mut entries = std::fs::read_dir(path).map_err(|source| failure("list", path, source))?;
        if entries.next().is_some() {
            let reason = "this takes a new or an empty directory, and this one is not empty".to_owned();
            return Err(LogError::Foreign { file: path.display().to_string(), reason }.into());
        }
    }
    Ok(())
}

/// Makes a data directory with an id of its own at `path`, which must be empty or missing. It does not open before
/// [`Unfinished::finish`].
pub fn begin_local(
    path: &Path,
    options: &Options,
) -> Result<(LocalLog, LocalCheckpoints, Unfinished), CheckpointError> {
    refuse_used(path)?;
    let files: SharedFiles = Arc::new(RealFiles::open(path).map_err(|source| failure("open", path, source))?);
    let id = new_id();
    identity::write_as(&files, RESTORING, KIND, id)?;
    let directory = Directory { path, files, id };
    let log = directory.log(options)?;
    let checkpoints = directory.checkpoints(CHECKPOINTS, options)?;
    Ok((log, checkpoints, Unfinished { files: directory.files }))
}

impl Unfinished {
    /// From now on it counts. Durable on return.
    pub fn finish(self) -> Result<(), CheckpointError> {
        crate::log::segment::space::rename(&self.files, RESTORING, identity::IDENTITY)?;
        Ok(crate::log::segment::space::sync_dir(&self.files)?)
    }
}

fn new_id() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// What [`rewrite_local`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// Values that were written again.
    pub values: u64,
    /// Keys that the directory needed before and needs no more.
    pub retired: Vec<KeyId>,
}

/// Writes everything in the data directory at `path` again as `to` says, so that nothing of it depends on former keys, and
/// throws the former files away. `options` must be able to read it. Every shard's checkpoint must reach to the end of the log, else [`CheckpointError::Behind`].
///
/// Takes the space of a second set of checkpoints for a while. May be cut short at any moment and begun again: until the new
/// checkpoints are whole, the former ones count.
pub fn rewrite_local(path: &Path, options: &Options, to: &AtRest) -> Result<Rewritten, CheckpointError> {
    let directory = Directory::open(path)?;
    let mut log = directory.log(options)?;
    directory.settle()?;
    let former = directory.checkpoints(CHECKPOINTS, options)?;
    let mut fresh = directory.checkpoints(FRESH, &Options { at_rest: to.clone(), ..options.clone() })?;
    let (mut values, mut before, mut after) = (0, Vec::new(), Vec::new());
    for shard in options.shards {
        let reached = former.mark(*shard)?.map_or(0, |mark| mark.index);
        if reached + 1 != log.next() {
            return Err(CheckpointError::Behind { checkpoint: reached, log: log.next() - 1 });
        }
        values += copy(&former, &mut fresh, *shard)?;
        before.extend(former.encryption(*shard)?.map(|encryption| encryption.keys).unwrap_or_default());
        after.extend(fresh.encryption(*shard)?.map(|encryption| encryption.keys).unwrap_or_default());
    }
    drop((former, fresh));
    directory.rename(CHECKPOINTS, FORMER)?;
    directory.rename(FRESH, CHECKPOINTS)?;
    directory.settle()?;
    log.inner_mut().renew()?;
    log.close()?;
    before.retain(|id| !after.contains(id));
    before.sort_unstable();
    before.dedup();
    Ok(Rewritten { values, retired: before })
}

struct Directory<'a> {
    path: &'a Path,
    files: SharedFiles,
    id: u64,
}

impl<'a> Directory<'a> {
    fn open(path: &'a Path) -> Result<Self, CheckpointError> {
        let files: SharedFiles =
            Arc::new(RealFiles::open(path).map_err(|source| failure("open", path, source))?);
        let id = match identity::read(&files, KIND)? {
            Some(id) => id,
            None => {
                refuse_foreign(&files)?;
                let id = new_id();
                identity::write(&files, KIND, id)?;
                id
            }
        };
        refuse_lost_log(&files)?;
        Ok(Self { path, files, id })
    }

    fn log(&self, options: &Options) -> Result<LocalLog, CheckpointError> {
        let path = self.path.join("log");
        let files = RealFiles::open(&path).map_err(|source| failure("open the log of", self.path, source))?;
        let layout = segment::Options { directory: self.id, ..options.log.clone() };
        let log = SegmentLog::open(Arc::new(files), layout)?;
        Ok(EncodedLog::new(log, options.at_rest.clone(), self.id))
    }

    fn checkpoints(&self, name: &str, options: &Options) -> Result<LocalCheckpoints, CheckpointError> {
        let engine = fjall::Options { directory: self.id, ..options.checkpoints.clone() };
        let checkpoints = FjallCheckpoints::open(&self.path.join(name), engine)?;
        EncodedCheckpoints::open(checkpoints, options.at_rest.clone(), self.id, options.shards)
    }

    /// Tidies up after a rewriting, wherever it ended. Only with the log's lock.
    fn settle(&self) -> Result<(), CheckpointError> {
        if !self.has(CHECKPOINTS) && self.has(FORMER) {
            // The former ones leave their place only to new ones that are whole.
            self.rename(if self.has(FRESH) { FRESH } else { FORMER }, CHECKPOINTS)?;
        }
        for name in [FRESH, FORMER] {
            if self.has(name) {
                let path = self.path.join(name);
                std::fs::remove_dir_all(&path).map_err(|source| failure("remove", &path, source))?;
            }
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).is_dir()
    }

    /// Durable on return.
    fn rename(&self, from: &str, to: &str) -> Result<(), CheckpointError> {
        crate::log::segment::space::rename(&self.files, from, to)?;
        Ok(crate::log::segment::space::sync_dir(&self.files)?)
    }
}

pub(crate) fn failure(operation: &'static str, path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Io { operation, path: path.to_path_buf(), source }
}

fn refuse_foreign(files: &SharedFiles) -> Result<(), LogError> {
    let names = crate::log::segment::space::list(files)?;
    let begun = ["log", "checkpoints"].iter().any(|name| files.path(name).join(identity::IDENTITY).is_file());
    let foreign = names.iter().find(|name| !OURS.contains(&name.as_str()));
    let reason = match foreign {
        Some(name) if name == RESTORING => {
            "a restore or a salvage into this directory was cut short; remove it, and begin again".to_string()
        }
        Some(name) => format!(
            "the directory holds other things (`{name}`) and no identity; choose an empty or a new directory"
        ),
        None if begun => {
            "the identity is missing although log or checkpoints are there; restore it from a backup"
                .to_string()
        }
        None => return Ok(()),
    };
    Err(LogError::Foreign { file: files.path(identity::IDENTITY).display().to_string(), reason })
}

/// Checkpoints are made after the log, so that where they are it must be: else everything since the newest of them is lost, and
/// a fresh log in its place would hide it.
fn refuse_lost_log(files: &SharedFiles) -> Result<(), LogError> {
    let begun = |name| files.path(name).join(identity::IDENTITY).is_file();
    if begun("log") || !begun("checkpoints") {
        return Ok(());
    }
    Err(LogError::Corrupt {
        file: files.path("log").display().to_string(),
        offset: 0,
        index: 0,
        reason: "the log is missing although checkpoints are there".to_string(),
    })
}
