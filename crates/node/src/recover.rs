//! From what the disk holds to a running shard: the checkpoint, then the log behind it.

use crate::{
    SHARD,
    batch::Batch,
    driver::{Driver, Ticket},
    error::OpenError,
    keeper::Keeper,
    options::Options,
    writer::Writer,
};
use millpond_core::{Effects, Restore, Shard};
use storage::{CheckpointError, Checkpoints, Log, LogError, Record};

/// The three parts of a recovered node. They need each other only by argument, so each may live on a thread of its own.
pub struct Recovered<T> {
    /// State and queues of commands.
    pub driver: Driver<T>,
    /// The log.
    pub writer: Writer,
    /// The checkpoints.
    pub keeper: Keeper,
}

/// Restores the newest checkpoint and replays the log behind it. Changes nothing, so it may be cut short and repeated.
pub fn recover<T: Ticket>(
    log: Box<dyn Log>,
    checkpoints: Box<dyn Checkpoints>,
    options: &Options,
) -> Result<Recovered<T>, OpenError> {
    let (mut shard, mut index) = restore(&*checkpoints)?;
    let next = log.next();
    if index >= next {
        return Err(OpenError::LogBehind { checkpoint: index, log: next.saturating_sub(1) });
    }
    if log.first() > index + 1 {
        return Err(OpenError::Gap { checkpoint: index, log: log.first() });
    }
    let from = index;
    if next > index + 1 {
        replay(&*log, &mut shard, &mut index)?;
    }
    if index + 1 != next {
        return Err(OpenError::Unreadable { read: index, last: next - 1 });
    }
    let strongest = log.strongest();
    let writer = Writer::new(log, shard.position() + 1);
    let mut driver = Driver::new(shard, index, strongest, options);
    driver.stats_mut().recovered_records = index - from;
    Ok(Recovered { driver, writer, keeper: Keeper::new(checkpoints) })
}

/// The shard as of the newest checkpoint, and the log record that it reaches to; an empty one if there is none.
fn restore(checkpoints: &dyn Checkpoints) -> Result<(Shard, u64), OpenError> {
    let Some(mark) = checkpoints.mark(SHARD)? else {
        return Ok((Shard::new(SHARD), 0));
    };
    let mut restore = Restore::new(SHARD);
    let mut damage = None;
    // Prefix by prefix, to step over the bodies: they may be many times larger than everything else.
    for prefix in (0..=u8::MAX).filter(|prefix| *prefix != Restore::BODY_PREFIX) {
        let scanned = checkpoints.scan(SHARD, &[prefix], &mut |key, value| {
            restore.record(key, value).map_err(|error| {
                damage = Some(error);
                CheckpointError::Stopped
            })
        });
        if let Some(error) = damage {
            return Err(OpenError::BadCheckpoint { reason: error.to_string() });
        }
        scanned?;
    }
    let shard = restore.finish().map_err(|error| OpenError::BadCheckpoint { reason: error.to_string() })?;
    if shard.position() != mark.position {
        let reason =
            format!("its records end at position {}, its mark says {}", shard.position(), mark.position);
        return Err(OpenError::BadCheckpoint { reason });
    }
    Ok((shard, mark.index))
}

/// Applies every batch behind `index`. Effects are dropped: the world heard of them when they happened.
pub(crate) fn replay(log: &dyn Log, shard: &mut Shard, index: &mut u64) -> Result<(), OpenError> {
    let mut effects = Effects::default();
    let mut damage = None;
    let outcome = log.read(*index + 1, &mut |record: Record| match batch_of(&record, *index, shard) {
        Ok(batch) => {
            let positions = batch.first..;
            for (position, envelope) in positions.zip(&batch.envelopes) {
                // A refusal is part of history: it was refused then, too.
                let _ = shard.apply(position, batch.time, envelope, &mut effects);
                effects.list.clear();
            }
            *index = record.index;
            Ok(())
        }
        Err(reason) => {
            damage = Some(OpenError::BadRecord { index: record.index, reason });
            Err(LogError::Stopped)
        }
    });
    match damage {
        Some(error) => Err(error),
        None => Ok(outcome?),
    }
}

/// The batch in a record, if it is the one that must follow.
fn batch_of(record: &Record, index: u64, shard: &Shard) -> Result<Batch, String> {
    if record.index != index + 1 {
        return Err(format!("record {} was expected", index + 1));
    }
    if record.shard != SHARD {
        return Err(format!("it belongs to shard {}; this release runs shard {SHARD} only", record.shard));
    }
    let batch = Batch::decode(&record.payload).map_err(|error| error.to_string())?;
    let expected = shard.position() + 1;
    if batch.first != expected {
        return Err(format!("it begins at position {}, expected {expected}", batch.first));
    }
    Ok(batch)
}
