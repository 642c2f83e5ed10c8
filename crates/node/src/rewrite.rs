//! A data directory that no server has open: read it whole, or write it again.

use crate::{
    SHARD,
    error::OpenError,
    options::{Options, clear},
    recover::{Recovered, recover},
};
use std::path::Path;
use storage::{
    AtRest, CheckpointError, Checkpoints as _, Log as _, LogError, Rewritten, at_rest::Encryption,
};

/// What is in a data directory, every byte of it read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Values of the checkpoint.
    pub values: u64,
    /// Records of the log behind it.
    pub records: u64,
    /// Dictionaries that bodies are compressed with.
    pub dictionaries: usize,
    /// How it is encrypted; `None` if there is nothing.
    pub encryption: Option<Encryption>,
}

/// Reads everything that the next start of the data directory `dir` would need, bodies included.
pub fn check(dir: &Path, options: &Options) -> Result<Checked, OpenError> {
    there_is_one(dir)?;
    let (mut log, checkpoints) = storage::open_local(dir, &options.local())?;
    let (mut values, mut records) = (0, 0);
    checkpoints.scan(SHARD, &[], &mut |_, _| {
        values += 1;
        Ok(())
    })?;
    let mark = checkpoints.mark(SHARD)?.map_or(0, |mark| mark.index);
    log.read(log.first().max(mark + 1), &mut |_| {
        records += 1;
        Ok(())
    })?;
    let (dictionaries, encryption) = (checkpoints.dictionaries(SHARD)?, checkpoints.encryption(SHARD)?);
    log.close()?;
    Ok(Checked { values, records, dictionaries, encryption })
}

/// Writes everything in the data directory `dir` again as `to` says, so that it needs no other keys: for a new key, the first one, or
/// none any more. No server may have it open. `options` must hold every key that is needed to read it.
///
/// May be cut short at any moment and begun again.
pub fn rewrite(dir: &Path, options: &Options, to: &AtRest) -> Result<Rewritten, OpenError> {
    there_is_one(dir)?;
    let local = options.local();
    let (log, checkpoints) = storage::open_local(dir, &local)?;
    let Recovered { mut driver, writer, mut keeper } =
        recover::<u64>(Box::new(log), Box::new(checkpoints), options)?;
    let failed = |reason: std::sync::Arc<str>| LogError::Poisoned { cause: reason.to_string() };
    let needed = driver.shard().dirty_bytes();
    if let Some(snapshot) = driver.snapshot()
        && !keeper.store(&snapshot, &writer).map_err(failed)?
    {
        return Err(CheckpointError::Full { free: 0, needed }.into());
    }
    writer.close().map_err(failed)?;
    drop((driver, writer, keeper));
    Ok(storage::rewrite_local(dir, &local, &clear(to))?)
}

/// Opening would make one.
fn there_is_one(dir: &Path) -> Result<(), OpenError> {
    let identity = dir.join("identity");
    if identity.is_file() {
        return Ok(());
    }
    let reason = "there is no data directory here; name the one that the server has as `data`".to_owned();
    Err(OpenError::Foreign { file: identity.display().to_string(), reason })
}
