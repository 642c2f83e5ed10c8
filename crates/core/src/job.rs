use crate::join::Ties;
use crate::steps::{Parent, Steps};
use bytes::Bytes;
use compact_str::CompactString;
use kit::{Backoff, Timestamp};
use model::{Actor, ErrorInfo, JobId, LogLine, Priority, Route, State};
use std::{collections::VecDeque, sync::Arc};

/// A job as the shard holds it: what every job has, and two boxes for what many have not. About a hundred bytes.
#[derive(Debug)]
pub(crate) struct Job {
    /// Rises by one with every job of the shard: identity, and order of arrival.
    pub(crate) sequence: u64,
    pub(crate) created_at: Timestamp,
    /// The position of the push.
    pub(crate) position: u64,
    /// The place in the lane that holds the job now.
    pub(crate) order: u64,
    /// When the job's timer fires; zero for never.
    pub(crate) due: Timestamp,
    /// `None` while the body is on disk only.
    pub(crate) body: Option<Box<[u8]>>,
    pub(crate) body_len: u32,
    pub(crate) body_crc: u32,
    pub(crate) queue: u32,
    /// The line of those with the same route; see [`crate::flow`].
    pub(crate) line: u32,
    /// Attempts started, less the snoozed ones.
    pub(crate) attempt: u32,
    pub(crate) timeout_ms: u32,
    pub(crate) attempts: u16,
    pub(crate) max_crashes: u16,
    pub(crate) crashes: u16,
    pub(crate) priority: Priority,
    pub(crate) state: State,
    pub(crate) stored: Stored,
    /// What the client asked for beyond the common.
    pub(crate) asked: Option<Box<Asked>>,
    /// What happened since it first left `waiting`.
    pub(crate) run: Option<Box<Run>>,
}

/// What of a job the checkpoint store has. Not part of the state: a restored shard differs here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Stored {
    /// It is in the list of records to write.
    pub(crate) dirty: bool,
    /// Some version of its record was written.
    pub(crate) record: bool,
    /// Its body was written.
    pub(crate) body: bool,
}

/// Options of a push that most jobs do not use.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) pusher: Actor,
    pub(crate) id: Option<JobId>,
    pub(crate) content_type: CompactString,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) unique_key: Option<CompactString>,
    /// When the unique key is free again; zero for "when the job ends".
    pub(crate) unique_until: Timestamp,
    /// Beyond this, a debounced job's wait does not begin anew; zero for a job that is not debounced.
    pub(crate) unique_latest: Timestamp,
    /// It waits for the holder of its unique key to end, and starts then, but not before this time.
    pub(crate) stands_by: Option<Timestamp>,
    pub(crate) tags: Vec<CompactString>,
    pub(crate) meta: Vec<(CompactString, CompactString)>,
    /// The joins that it belongs to.
    pub(crate) ties: Option<Box<Ties>>,
    pub(crate) route: Option<Arc<Route>>,
    /// Its place among waiting jobs of its priority, where something else than arrival decides; else zero.
    pub(crate) rank: u64,
    /// Whose step it is the child of.
    pub(crate) parent: Option<Box<Parent>>,
}

/// What happened to a job.
#[derive(Debug, Default, Clone)]
pub(crate) struct Run {
    pub(crate) worker: Actor,
    /// Of the newest lease; zero before the first.
    pub(crate) token: u64,
    pub(crate) lease_until: Timestamp,
    pub(crate) started_at: Timestamp,
    pub(crate) timeout_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) result: Option<Bytes>,
    pub(crate) progress: Option<Bytes>,
    pub(crate) error: Option<Box<ErrorInfo>>,
    pub(crate) log: Option<Box<Log>>,
    pub(crate) history: crate::history::History,
    /// It has begun and holds its ordering key until it is final.
    pub(crate) holds_order: bool,
    /// It failed in a queue that budgets its retries.
    pub(crate) budgeted: bool,
    pub(crate) steps: Option<Box<Steps>>,
}

/// The lines a job's handlers wrote, bounded by count and bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Log {
    pub(crate) lines: VecDeque<LogLine>,
    pub(crate) bytes: usize,
}

impl Job {
    pub(crate) fn id(&self, shard: u16) -> JobId {
        match self.asked.as_ref().and_then(|asked| asked.id.as_ref()) {
            Some(given) => given.clone(),
            None => JobId::generated(self.created_at, shard, self.sequence),
        }
    }

    pub(crate) fn run_mut(&mut self) -> &mut Run {
        self.run.get_or_insert_default()
    }

    pub(crate) fn route(&self) -> Option<&Route> {
        self.asked.as_ref().and_then(|asked| asked.route.as_deref())
    }

    /// The fairness group of the push.
    pub(crate) fn group(&self) -> Option<CompactString> {
        self.route().and_then(|route| route.group.clone())
    }

    pub(crate) fn token(&self) -> u64 {
        self.run.as_ref().map_or(0, |run| run.token)
    }

    /// How many steps it has.
    pub(crate) fn step_count(&self) -> u32 {
        let steps = self.run.as_ref().and_then(|run| run.steps.as_ref());
        steps.map_or(0, |steps| steps.entries.len() as u32)
    }

    pub(crate) fn expires_at(&self) -> Option<Timestamp> {
        self.asked.as_ref().and_then(|asked| asked.expires_at)
    }

    /// Whether it can no longer start: its time ran out before its first attempt.
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.token() == 0 && self.expires_at().is_some_and(|at| at <= now)
    }

    pub(crate) fn finished_at(&self) -> Timestamp {
        self.run.as_ref().map_or(Timestamp::ZERO, |run| run.finished_at)
    }

    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.tags.iter().any(|other| other == tag))
    }
}

/// Slots per block of the slab. Blocks are never moved, so growth costs one allocation and no copying.
const BLOCK: usize = 1_024;

/// All jobs, by slot. A slot is an address, not an identity: it is used again, and a restored shard numbers anew.
#[derive(Debug, Default)]
pub(crate) struct Slab {
    blocks: Vec<Vec<Option<Job>>>,
    free: Vec<u32>,
    len: usize,
}

impl Slab {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, job: Job) -> u32 {
        self.len += 1;
        if let Some(slot) = self.free.pop() {
            self.blocks[slot as usize / BLOCK][slot as usize % BLOCK] = Some(job);
            return slot;
        }
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        let block = self.blocks.len() - 1;
        self.blocks[block].push(Some(job));
        (block * BLOCK + self.blocks[block].len() - 1) as u32
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Job> {
        let job = self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)?.take()?;
        self.free.push(slot);
        self.len -= 1;
        Some(job)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Job)> {
        self.blocks.iter().flatten().enumerate().filter_map(|(slot, job)| Some((slot as u32, job.as_ref()?)))
    }
}

/// Indexing says "this slot is in an index, so it is taken": anything else is a mistake of ours and must stop the shard.
impl std::ops::Index<u32> for Slab {
    type Output = Job;
    fn index(&self, slot: u32) -> &Job {
        self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
            .as_ref()
            .expect("an indexed slot holds a job")
    }
}

impl std::ops::IndexMut<u32> for Slab {
    fn index_mut(&mut self, slot: u32) -> &mut Job {
        self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
            .as_mut()
            .expect("an indexed slot holds a job")
    }
}
