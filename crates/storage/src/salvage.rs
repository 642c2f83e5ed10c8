//! What can still be read of a damaged data directory. Nothing in it is changed.

use crate::{
    at_rest::{EncodedCheckpoints, EncodedLog},
    checkpoints::{
        CheckpointError, CheckpointReader, Checkpoints as _, Mark,
        fjall::{self, FjallCheckpoints},
        mirror::Mirror,
    },
    directory::{KIND, LocalCheckpoints, Options, failure},
    files::{ReadOnlyFiles, RealFiles, SharedFiles},
    identity,
    inspect::checkpoints_of,
    log::{
        Log as _, LogError,
        segment::{self, Remains, Stretch},
    },
};
use std::{path::Path, sync::Arc};

/// What is left of a data directory. Its server stays stopped as long as this lives.
pub struct Wreck {
    /// The log, in stretches without a hole, in order.
    pub stretches: Vec<EncodedLog<Stretch>>,
    /// Behind the last record that the log is known to have had.
    pub log_end: u64,
    /// A file that came behind it is missing: there was more, and nothing tells how much.
    pub log_open: bool,
    /// The checkpoints, or why nothing of them can be read.
    pub checkpoints: Result<Values, String>,
    /// What is wrong with the small files that say what this is; they are made anew.
    pub notes: Vec<String>,
}

/// The values of damaged checkpoints that can be read.
pub struct Values {
    checkpoints: LocalCheckpoints,
    _mirror: Mirror,
}

/// What [`Values::visit`] calls for each key with its value, or with what is wrong with it.
pub type Saved<'a> = dyn FnMut(&[u8], Result<&[u8], CheckpointError>) + 'a;

impl Values {
    /// How far the shard's checkpoint has come; `None` if it has none.
    pub fn mark(&self, shard: u16) -> Result<Option<Mark>, CheckpointError> {
        self.checkpoints.mark(shard)
    }

    /// Every key of the shard with its value, or with what is wrong with it. A key that comes with an error may be only what the keys
    /// begin with that are lost there.
    pub fn visit(&self, shard: u16, visit: &mut Saved<'_>) -> Result<(), CheckpointError> {
        self.checkpoints.visit_each(shard, visit)
    }

    /// Reads single values.
    pub fn reader(&self) -> Arc<dyn CheckpointReader> {
        self.checkpoints.reader()
    }
}

/// Looks at the data directory at `path` and takes what is whole.
///
/// # Errors
/// Only what keeps it from looking: there is nothing of a data directory, a server has it open, a key is missing, the system does not let it.
pub fn salvage_local(path: &Path, options: &Options) -> Result<Wreck, CheckpointError> {
    let mut notes = Vec::new();
    let id = id_of(path, &mut notes)?;
    let mut wreck =
        Wreck { stretches: Vec::new(), log_end: 1, log_open: false, checkpoints: Err(String::new()), notes };
    let log = path.join("log");
    if log.is_dir() {
        let remains = Remains::find(look(&log)?, id)?;
        (wreck.log_end, wreck.log_open) = (remains.end(), remains.open());
        wreck.stretches = remains
            .stretches()
            .map(|stretch| EncodedLog::new(stretch, options.at_rest.clone(), id))
            .collect();
        for stretch in &wreck.stretches {
            // A missing key is no damage.
            let read = stretch.read(stretch.next().saturating_sub(1), &mut |_| Ok(()));
            if let Err(error @ LogError::Key(_)) = read {
                return Err(error.into());
            }
        }
    } else {
        wreck.log_open = true;
        wreck.notes.push("the log is missing".to_owned());
    }
    wreck.checkpoints = match values(path, id, options) {
        Ok(values) => Ok(values),
        Err(CheckpointError::Corrupt { reason, .. } | CheckpointError::Engine { reason, .. }) => Err(reason),
        Err(CheckpointError::Files(LogError::Corrupt { reason, .. } | LogError::Foreign { reason, .. })) => {
            Err(reason)
        }
        Err(error) => return Err(error),
    };
    Ok(wreck)
}

fn values(path: &Path, id: u64, options: &Options) -> Result<Values, CheckpointError> {
    let place = checkpoints_of(path);
    if !place.is_dir() {
        let reason = "the checkpoints are missing".to_owned();
        return Err(CheckpointError::Corrupt { place: place.display().to_string(), reason });
    }
    let mirror = Mirror::make(&place)?;
    let files: SharedFiles =
        Arc::new(RealFiles::open(mirror.path()).map_err(|source| failure("open", mirror.path(), source))?);
    if !matches!(identity::read(&files, fjall::KIND), Ok(Some(_))) {
        // It lies where the directory's own checkpoints lie, and nothing says that it is of another one.
        identity::write(&files, fjall::KIND, id)?;
    }
    let engine = fjall::Options { directory: id, ..options.checkpoints.clone() };
    let store = FjallCheckpoints::open_mirror(mirror.path(), engine, false)?;
    let checkpoints = EncodedCheckpoints::open(store, options.at_rest.clone(), id, options.shards)?;
    for shard in options.shards {
        checkpoints.encryption(*shard)?;
    }
    Ok(Values { checkpoints, _mirror: mirror })
}

fn look(path: &Path) -> Result<SharedFiles, CheckpointError> {
    Ok(Arc::new(ReadOnlyFiles::open(path).map_err(|source| failure("open", path, source))?))
}

/// The id of the directory, from whichever of its parts still says it.
fn id_of(path: &Path, notes: &mut Vec<String>) -> Result<u64, CheckpointError> {
    let places =
        [(path.to_path_buf(), KIND), (path.join("log"), segment::KIND), (checkpoints_of(path), fjall::KIND)];
    let mut found = None;
    for (place, kind) in places {
        let said = if place.is_dir() { identity::read(&look(&place)?, kind) } else { continue };
        match said {
            Ok(Some(id)) => {
                found.get_or_insert(id);
            }
            Ok(None) => notes.push(format!("the identity in {} is missing", place.display())),
            Err(error @ LogError::Foreign { .. }) => notes.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    let log = path.join("log");
    if found.is_none() && log.is_dir() {
        found = segment::any_directory(&look(&log)?)?;
    }
    found.ok_or_else(|| {
        let reason = "there is nothing of a data directory here; name the one that the server had as `data`";
        LogError::Foreign { file: path.display().to_string(), reason: reason.to_owned() }.into()
    })
}
