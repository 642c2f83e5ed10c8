//! What can be saved of a damaged data directory, and exactly what cannot.
//!
//! What is saved is a state that the pond was in, less what the damage took from it: the values of the checkpoint that are whole and fit
//! together, and the records of the log behind it up to the first that is missing. Records behind a hole are not applied: which
//! ids and tokens the server gave by then follows from what the hole swallowed, so a result could end another job than the one it was
//! for. They are read, and what they asked for is told.

use crate::{
    SHARD,
    backup::{BackupFailure, complete},
    batch::Batch,
    error::OpenError,
    options::Options,
    recover::replay,
};
use kit::Timestamp;
use millpond_core::{Restore, Shard};
use model::{Command, JobId, JobRef, QueueName};
use std::{collections::BTreeMap, path::Path};
use storage::{Change, CheckpointError, Checkpoints, Log, LogError, Mark, Values, Wreck};

/// What [`salvage`] found, and what it saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// The small files that say what the directory is, where they are not what they should be. They cost nothing.
    pub notes: Vec<String>,
    /// What is lost, or cannot be told to be there. Empty if nothing is.
    pub lost: Vec<Loss>,
    /// What there is to save; `None` if nothing can be made of what is left.
    pub state: Option<State>,
}

/// What can be saved of a damaged data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Jobs.
    pub jobs: u64,
    /// Queues.
    pub queues: u64,
    /// The newest command that is in it.
    pub position: u64,
    /// Its time.
    pub time: Timestamp,
}

/// Something that damage took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loss {
    /// Nothing of the checkpoint can be used.
    Checkpoint {
        /// Why.
        reason: String,
    },
    /// A job.
    Job {
        /// How many jobs had been pushed when it was, this one included.
        sequence: u64,
        /// Its queue and its id, if they can be told.
        name: Option<(QueueName, JobId)>,
        /// What of it is damaged.
        reason: String,
    },
    /// Something else that the checkpoint held.
    Value {
        /// What it was.
        what: String,
        /// What is wrong, and what stands in for it.
        reason: String,
    },
    /// Records of the log that are gone: what was asked of the server in this time is not known.
    Records {
        /// The first.
        first: u64,
        /// The last; `None` if nothing tells how many there were.
        last: Option<u64>,
        /// The positions of their commands: the first, and the last if that can be told.
        positions: (u64, Option<u64>),
        /// The time of the last record before them.
        after: Timestamp,
        /// The time of the first record behind them, if there is one.
        before: Option<Timestamp>,
    },
    /// A record of the log that is whole and behind lost ones, so that it cannot be applied.
    Unapplied {
        /// Which.
        record: u64,
        /// The position of its first command.
        position: u64,
        /// Its time.
        time: Timestamp,
        /// Jobs that it pushed: queue, and id if it was given with the push.
        pushed: Vec<(QueueName, Option<JobId>)>,
        /// Jobs whose attempt it ended, well or not.
        settled: Vec<JobRef>,
        /// Further commands.
        others: u64,
    },
}

/// Looks at the data directory `dir` and tells what damage took from it. With `to`, which must be empty or missing, makes a data directory of
/// what is left, which opens as any other. `dir` is not changed; no server may have it open.
///
/// As in a restore, leases begin a new epoch of tokens by the clock `now`, which must be right.
///
/// # Errors
/// What keeps it from looking or from writing. Damage is what it returns.
pub fn salvage(
    dir: &Path,
    to: Option<&Path>,
    options: &Options,
    now: Timestamp,
) -> Result<Salvaged, BackupFailure> {
    let wreck = storage::salvage_local(dir, &options.local())?;
    let mut lost = Vec::new();
    let base = match &wreck.checkpoints {
        Ok(values) => match sound(values, &wreck, &mut lost)? {
            Ok(base) => base,
            Err(reason) => {
                lost = vec![Loss::Checkpoint { reason }];
                None
            }
        },
        Err(reason) => {
            lost.push(Loss::Checkpoint { reason: reason.clone() });
            None
        }
    };
    let (mut shard, base) = match base {
        Some((shard, base)) => (shard, Some(base)),
        None => (Shard::new(SHARD), None),
    };
    let mut index = base.as_ref().map_or(0, |base| base.mark.index);
    apply(&wreck, &mut shard, &mut index)?;
    let savable = base.is_some() || index > 0 || wreck.log_end == 1 && !wreck.log_open;
    missing(&wreck, &shard, index, &mut lost)?;
    let stats = shard.stats();
    let mut state =
        State { jobs: stats.jobs, queues: stats.queues, position: shard.position(), time: shard.time() };
    if let Some(to) = to.filter(|_| savable) {
        if now < state.time {
            return Err(BackupFailure::Clock { now, taken: state.time });
        }
        let values = wreck.checkpoints.as_ref().ok();
        (state.jobs, state.queues) = write(to, options, now, base, values, shard)?;
    }
    Ok(Salvaged { notes: wreck.notes, lost, state: savable.then_some(state) })
}

/// The part of a checkpoint that is whole and fits together.
struct Base {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The numbers of the jobs whose bodies are whole.
    bodies: Vec<u64>,
    mark: Mark,
}

type Sound = Result<Option<(Shard, Base)>, String>;

/// Takes what is whole, and leaves out what does not fit without the rest, until the state can be restored; or says why it cannot.
fn sound(values: &Values, wreck: &Wreck, lost: &mut Vec<Loss>) -> Result<Sound, CheckpointError> {
    let mark = match values.mark(SHARD) {
        Ok(Some(mark)) => mark,
        Ok(None) => {
            // A log forgets its first records only once they are in a checkpoint.
            let young = wreck.stretches.first().is_none_or(|stretch| stretch.first() == 1);
            return Ok(if young { Ok(None) } else { Err("the store holds no checkpoint".to_owned()) });
        }
        Err(CheckpointError::Corrupt { reason, .. } | CheckpointError::Engine { reason, .. }) => {
            return Ok(Err(reason));
        }
        Err(error) => return Err(error),
    };
    let mut base = Base { records: BTreeMap::new(), bodies: Vec::new(), mark };
    let mut bodies = BTreeMap::new();
    let mut damaged = Vec::new();
    let mut failure = None;
    values.visit(SHARD, &mut |key, value| match (value, body_of(key)) {
        (Ok(body), Some(sequence)) => drop(bodies.insert(sequence, (body.len(), crc32c::crc32c(body)))),
        (Ok(value), None) => drop(base.records.insert(key.to_vec(), value.to_vec())),
        (Err(error @ CheckpointError::Files(LogError::Key(_))), _) => failure = Some(error),
        // Of a body it is told as of a job, below.
        (Err(error), None) => damaged.push((key.to_vec(), error.to_string())),
        (Err(_), Some(_)) => {}
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    for (key, reason) in damaged {
        base.drop_key(&key, &reason, lost);
    }
    loop {
        match restore(&base.records) {
            Err((key, reason)) => {
                if !base.drop_key(&key, &reason, lost) {
                    return Ok(Err(reason));
                }
            }
            Ok(shard) => {
                let fits =
                    |sequence: &u64, bytes: usize, crc: u32| bodies.get(sequence) == Some(&(bytes, crc));
                let bare: Vec<u64> = shard
                    .cold()
                    .filter(|cold| !fits(&cold.sequence, cold.bytes, cold.crc))
                    .map(|cold| cold.sequence)
                    .collect();
                for sequence in &bare {
                    base.drop_key(&job_key(*sequence), "its body is damaged or missing", lost);
                }
                if !bare.is_empty() {
                    continue;
                }
                if let Err(reason) = shard.check() {
                    return Ok(Err(reason));
                }
                if shard.position() != mark.position {
                    return Ok(Err("its counters and its mark do not fit together".to_owned()));
                }
                base.bodies = bodies
                    .into_keys()
                    .filter(|number| base.records.contains_key(&job_key(*number)))
                    .collect();
                return Ok(Ok(Some((shard, base))));
            }
        }
    }
}

/// The shard that the records amount to, or the key of one that does not fit.
fn restore(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Shard, (Vec<u8>, String)> {
    let mut restore = Restore::new(SHARD);
    let bad = |error: millpond_core::RestoreError| (error.record, error.reason);
    for (key, value) in records {
        restore.record(key, value).map_err(bad)?;
    }
    restore.finish().map_err(bad)
}

fn body_of(key: &[u8]) -> Option<u64> {
    let (kind, number) = key.split_first()?;
    (*kind == Restore::BODY_PREFIX).then(|| number.try_into().ok().map(u64::from_be_bytes)).flatten()
}

fn job_key(sequence: u64) -> Vec<u8> {
    [&b"j"[..], &sequence.to_be_bytes()].concat()
}

impl Base {
    /// Leaves a record out, puts one in its place, or leaves out who needs it; says no if nothing of this can be done.
    fn drop_key(&mut self, key: &[u8], reason: &str, lost: &mut Vec<Loss>) -> bool {
        let known = self.records.remove(key);
        let number = |bytes: &[u8]| bytes.get(..8)?.try_into().ok().map(u64::from_be_bytes);
        let Some((kind, rest)) = key.split_first() else { return known.is_some() };
        match (kind, number(rest)) {
            (b'j', Some(sequence)) if rest.len() == 8 => {
                let name = known.as_ref().and_then(|value| {
                    let (id, queue) = Restore::job_in(key, value, SHARD)?;
                    Some((Restore::queue_in(self.records.get(&queue)?)?, id))
                });
                // Its steps are of no use without it.
                self.records.retain(|key, _| !(key[0] == b'e' && key[1..].starts_with(rest)));
                lost.push(Loss::Job { sequence, name, reason: reason.to_owned() });
                known.is_some()
            }
            (b'q', _) if known.is_none() => {
                let stood =
                    <[u8; 4]>::try_from(rest).ok().map(u32::from_be_bytes).and_then(Restore::stand_in_queue);
                let Some((key, value)) = stood.filter(|(key, _)| !self.records.contains_key(key)) else {
                    lost.push(Loss::Value { what: describe(key), reason: reason.to_owned() });
                    return false;
                };
                let name = Restore::queue_in(&value).map(|name| name.to_string()).unwrap_or_default();
                let reason = format!("{reason}; its jobs are in the queue {name}, which is paused");
                lost.push(Loss::Value { what: describe(&key), reason });
                self.records.insert(key, value).is_none()
            }
            // A step that is gone takes its job with it: done work must not look undone.
            (b'e', Some(sequence)) if known.is_none() => {
                self.records.contains_key(&job_key(sequence))
                    && self.drop_key(&job_key(sequence), "a step of it is damaged", lost)
            }
            _ => {
                lost.push(Loss::Value { what: describe(key), reason: reason.to_owned() });
                known.is_some()
            }
        }
    }
}

/// What a record of the checkpoint is, for people.
fn describe(key: &[u8]) -> String {
    let Some((kind, rest)) = key.split_first() else { return "something of any kind".to_owned() };
    let what = match kind {
        b'b' => "the body of a job",
        b'd' => "a class of errors",
        b'e' => "a step of a job",
        b'g' => "what a limit remembers",
        b'h' => "a group of jobs",
        b'i' => "a remembered call and its answer",
        b'j' => return format!("jobs among those with the numbers {}", numbers(rest)),
        b'l' => "a limit",
        b'm' => "the counters",
        b'n' => "a join",
        b'o' => "a bulk operation",
        b'q' => "the name and the settings of a queue",
        b's' => "a schedule",
        b'u' => "a throttled key",
        _ => "something that this release does not know",
    };
    format!("{what} ({})", rest.escape_ascii())
}

/// The numbers that begin with these bytes.
fn numbers(bytes: &[u8]) -> String {
    let fill =
        |with: u8| u64::from_be_bytes(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or(with)));
    format!("{} to {}", fill(0), fill(u8::MAX))
}

/// Applies the records behind `index` that are whole, up to the first that is not.
fn apply(wreck: &Wreck, shard: &mut Shard, index: &mut u64) -> Result<(), OpenError> {
    let follows = |stretch: &&storage::EncodedLog<storage::Stretch>| {
        stretch.first() <= *index + 1 && stretch.next() > *index + 1
    };
    let Some(stretch) = wreck.stretches.iter().find(follows) else { return Ok(()) };
    match replay(stretch, shard, index) {
        // What was applied stands; what could not be is told with what lies behind.
        Ok(()) | Err(OpenError::BadRecord { .. } | OpenError::Log(LogError::Corrupt { .. })) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Tells what lies behind the record `index`, lost or not to be applied.
fn missing(wreck: &Wreck, shard: &Shard, index: u64, lost: &mut Vec<Loss>) -> Result<(), OpenError> {
    let (mut next, mut position, mut time) = (index + 1, shard.position() + 1, shard.time());
    for stretch in wreck.stretches.iter().filter(|stretch| stretch.next() > index + 1) {
        let from = stretch.first().max(index + 1);
        let read = stretch.read(from, &mut |record| {
            let Ok(batch) = Batch::decode(&record.payload) else { return Ok(()) };
            if record.index > next {
                lost.push(Loss::Records {
                    first: next,
                    last: Some(record.index - 1),
                    positions: (position, Some(batch.first - 1)),
                    after: time,
                    before: Some(batch.time),
                });
            }
            next = record.index + 1;
            position = batch.first + batch.envelopes.len() as u64;
            time = batch.time;
            lost.push(unapplied(record.index, &batch));
            Ok(())
        });
        match read {
            Ok(()) | Err(LogError::Corrupt { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if next < wreck.log_end || wreck.log_open {
        lost.push(Loss::Records {
            first: next,
            last: (!wreck.log_open).then(|| wreck.log_end - 1),
            positions: (position, None),
            after: time,
            before: None,
        });
    }
    Ok(())
}

fn unapplied(record: u64, batch: &Batch) -> Loss {
    let (mut pushed, mut settled, mut others) = (Vec::new(), Vec::new(), 0);
    for envelope in &batch.envelopes {
        match &envelope.command {
            Command::Push { jobs } => {
                pushed.extend(jobs.iter().map(|job| (job.queue.clone(), job.id.clone())))
            }
            Command::Settle { settlements } => {
                for settlement in settlements {
                    settled.push(settlement.lease.job.clone());
                    pushed.extend(settlement.push.iter().map(|job| (job.queue.clone(), job.id.clone())));
                }
            }
            _ => others += 1,
        }
    }
    Loss::Unapplied { record, position: batch.first, time: batch.time, pushed, settled, others }
}

/// Makes a data directory at `to`; says how many jobs and queues it has.
fn write(
    to: &Path,
    options: &Options,
    now: Timestamp,
    base: Option<Base>,
    values: Option<&Values>,
    mut shard: Shard,
) -> Result<(u64, u64), BackupFailure> {
    let (log, mut checkpoints, unfinished) = storage::begin_local(to, &options.local())?;
    let changed = shard.take_changes();
    let put = |key, value, kin| Change::Put { key, value, kin };
    let (records, bodies) = base.map_or_else(Default::default, |base| (base.records, base.bodies));
    let reader = values.map(Values::reader);
    let mut failure = None;
    let bodies = bodies.iter().map_while(|sequence| {
        let key = millpond_core::body_key(*sequence);
        match reader.as_ref()?.get(SHARD, &key) {
            Ok(Some(body)) => Some(put(key, body, None)),
            Ok(None) => {
                failure = Some(CheckpointError::Corrupt {
                    place: format!("the body of job number {sequence}"),
                    reason: "it was there a moment ago".to_owned(),
                });
                None
            }
            Err(error) => {
                failure = Some(error);
                None
            }
        }
    });
    let news = changed.records.into_iter().map(|(key, value)| match value {
        Some(value) => put(key, value, None),
        None => Change::Delete { key },
    });
    let new_bodies = changed.bodies.into_iter().map(|body| put(body.key, body.bytes, Some(body.queue)));
    let mut all = records
        .into_iter()
        .map(|(key, value)| put(key, value, None))
        .chain(bodies)
        .chain(news)
        .chain(new_bodies);
    checkpoints.write(SHARD, &mut all, Mark { index: 0, position: changed.position })?;
    drop(all);
    if let Some(failure) = failure {
        return Err(failure.into());
    }
    complete(log, checkpoints, unfinished, options, now)
}
