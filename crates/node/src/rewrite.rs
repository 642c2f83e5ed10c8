//! A data directory that no server has open, written again.

use crate::{
    error::OpenError,
    options::{Options, clear},
    recover::{Recovered, recover},
};
use std::path::Path;
use storage::{AtRest, CheckpointError, LogError, Rewritten};

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
