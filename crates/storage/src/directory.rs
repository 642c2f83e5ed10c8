//! A data directory of this machine: identity, log and checkpoints, which belong together.
//!
//! ```text
//! DIR/identity      what this directory is, and its id
//! DIR/log/          the segment log
//! DIR/checkpoints/  the checkpoints
//! ```

use crate::{
    checkpoints::{CheckpointError, fjall, fjall::FjallCheckpoints},
    files::{RealFiles, SharedFiles},
    identity,
    log::{LogError, segment, segment::SegmentLog},
};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    path::Path,
    sync::Arc,
};

/// How log and checkpoints are set up. The `directory` of both is filled in from the identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The log.
    pub log: segment::Options,
    /// The checkpoints.
    pub checkpoints: fjall::Options,
}

const KIND: &str = "data directory";
/// Names that an unfinished first opening may have left.
const OURS: [&str; 4] = ["log", "checkpoints", "identity.tmp", "lock"];

/// Opens the data directory at `path`, or starts one in a directory that is empty or missing.
///
/// A directory with other content is refused as [`LogError::Foreign`], damaged or missing parts are named.
pub fn open_local(path: &Path, options: &Options) -> Result<(SegmentLog, FjallCheckpoints), CheckpointError> {
    let io = |operation| move |source| CheckpointError::Io { operation, path: path.to_path_buf(), source };
    let files: SharedFiles = Arc::new(RealFiles::open(path).map_err(io("open"))?);
    let id = match identity::read(&files, KIND)? {
        Some(id) => id,
        None => {
            refuse_foreign(&files)?;
            let id = RandomState::new().build_hasher().finish();
            identity::write(&files, KIND, id)?;
            id
        }
    };
    refuse_lost_log(&files)?;
    let log_files = RealFiles::open(&path.join("log")).map_err(io("open the log of"))?;
    let log_options = segment::Options { directory: id, ..options.log.clone() };
    let log = SegmentLog::open(Arc::new(log_files), log_options)?;
    let checkpoint_options = fjall::Options { directory: id, ..options.checkpoints.clone() };
    let checkpoints = FjallCheckpoints::open(&path.join("checkpoints"), checkpoint_options)?;
    Ok((log, checkpoints))
}

fn refuse_foreign(files: &SharedFiles) -> Result<(), LogError> {
    let names = crate::log::segment::space::list(files)?;
    let begun = ["log", "checkpoints"].iter().any(|name| files.path(name).join(identity::IDENTITY).is_file());
    let foreign = names.iter().find(|name| !OURS.contains(&name.as_str()));
    let reason = match foreign {
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
