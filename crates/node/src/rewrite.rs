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
