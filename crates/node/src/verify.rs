//! Reads a data directory whole and changes nothing: every file, then what they amount to.

use crate::{
    SHARD,
    error::OpenError,
    options::Options,
    recover::{Recovered, recover},
};
use kit::Timestamp;
use millpond_core::Restore;
use std::path::Path;
use storage::{Damage, Inspection, ReadOnly, at_rest::Encryption};

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// File by file, and everything that is wrong.
    pub inspection: Inspection,
    /// What it amounts to; `None` if damage keeps that from being told.
    pub state: Option<Contents>,
}

/// What a data directory amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Jobs.
    pub jobs: u64,
    /// Queues.
    pub queues: u64,
    /// The position of the newest command.
    pub position: u64,
    /// Its time.
    pub time: Timestamp,
    /// The newest position that the checkpoint knows.
    pub checkpoint: u64,
    /// How the checkpoint is encrypted; `None` if there is none.
    pub encryption: Option<Encryption>,
    /// Dictionaries that bodies are compressed with.
    pub dictionaries: usize,
}

/// Reads every byte that counts in the data directory `dir`, restores the state as a server would, and compares it with itself: its
/// indexes, and the body of every job. Writes nothing there; the checkpoint's small files are copied to the system's place for
/// temporary files.
///
/// # Errors
/// Only what keeps it from looking, such as a running server. Damage is what it returns.
pub fn verify(dir: &Path, options: &Options) -> Result<Verified, OpenError> {
    let mut bodies = Vec::new();
    let mut inspection = storage::inspect_local(dir, &options.local(), &mut |_, key, value| {
        if let Some((&Restore::BODY_PREFIX, sequence)) = key.split_first()
            && let Ok(sequence) = sequence.try_into()
        {
            bodies.push((u64::from_be_bytes(sequence), value.len(), crc32c::crc32c(value)));
        }
    })?;
    if !inspection.damage.is_empty() {
        return Ok(Verified { inspection, state: None });
    }
    bodies.sort_unstable();
    let mut damage = |reason: String, means: &str| {
        inspection.damage.push(Damage { file: String::new(), offset: None, reason, means: means.to_owned() });
    };
    let state = match contents(dir, options, &bodies, &mut damage) {
        Ok(state) => Some(state),
        Err(error @ (OpenError::InUse { .. } | OpenError::Key(_) | OpenError::Io { .. })) => {
            return Err(error);
        }
        Err(error) => {
            damage(
                error.to_string(),
                "each part is whole, but they do not fit together: a server does not start here",
            );
            None
        }
    };
    Ok(Verified { inspection, state })
}

/// The length and the checksum of each body that the checkpoint holds, by the number of its job.
type Bodies = [(u64, usize, u32)];

fn contents(
    dir: &Path,
    options: &Options,
    bodies: &Bodies,
    damage: &mut dyn FnMut(String, &str),
) -> Result<Contents, OpenError> {
    let ReadOnly { log, checkpoints, mirror: _mirror } = storage::open_read_only(dir, &options.local())?;
    let (encryption, dictionaries) = (checkpoints.encryption(SHARD)?, checkpoints.dictionaries(SHARD)?);
    let mark = storage::Checkpoints::mark(&checkpoints, SHARD)?;
    let Recovered { driver, .. } = recover::<u64>(Box::new(log), Box::new(checkpoints), options)?;
    let shard = driver.shard();
    if let Err(reason) = shard.check() {
        damage(
            reason,
            "the state contradicts itself: a mistake of the program; report it, and keep the directory",
        );
    }
    for cold in shard.cold() {
        let held = bodies.binary_search_by_key(&cold.sequence, |(sequence, ..)| *sequence);
        let held = held.ok().map(|at| (bodies[at].1, bodies[at].2));
        if held != Some((cold.bytes, cold.crc)) {
            let what = if held.is_none() { "missing" } else { "not the one that it was pushed with" };
            damage(
                format!("the body of job {} in queue {} is {what}", cold.id, cold.queue),
                "this job cannot be handed out; restore the directory from a backup",
            );
        }
    }
    let stats = shard.stats();
    Ok(Contents {
        jobs: stats.jobs,
        queues: stats.queues,
        position: shard.position(),
        time: shard.time(),
        checkpoint: mark.map_or(0, |mark| mark.position),
        encryption,
        dictionaries,
    })
}
