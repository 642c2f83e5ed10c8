use kit::Millis;
use storage::{AtRest, checkpoints::fjall, log::segment};

/// The limits of a node. Everything that can grow has one here.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commands that may wait for their answer before further ones are refused as overloaded. Default 65,536.
    pub pending_max: usize,
    /// Bytes of those commands, as encoded for the log. Default 128 MiB.
    pub pending_bytes_max: usize,
    /// What was acknowledged at `memory` or `os` reaches the disk within this many milliseconds. Default 50.
    pub flush_window_ms: Millis,
    /// Bytes of job bodies kept in memory; bodies beyond it live in the checkpoint. Default 512 MiB.
    pub body_budget: u64,
    /// A checkpoint is written when this many bytes of records have changed. Default 128 MiB.
    pub checkpoint_bytes: u64,
    /// A checkpoint is written this many milliseconds after the first change that the last one lacks. Default 5,000.
    pub checkpoint_ms: Millis,
    /// Memory of the checkpoint store for what it read, in bytes; what it has yet to sort takes about as much again. Default 32 MiB.
    pub cache_bytes: u64,
    /// While the node holds this many bytes by its own account ([`crate::Stats::held_bytes`]), new work is refused and all other calls are
    /// taken; 0 for any number. Default 0.
    pub held_bytes_max: u64,
    /// The longest wait of a fetch, milliseconds; longer ones are cut to it. Default 60,000.
    pub wait_ms_max: Millis,
    /// Fetches that may wait for jobs at once. Default 16,384.
    pub waiters_max: usize,
    /// Pushes that may wait for room in their queues at once; beyond it a full queue refuses at once. Default 4,096.
    pub producers_max: usize,
    /// Bytes of those pushes, as encoded for the log. Default 64 MiB.
    pub producers_bytes_max: usize,
    /// Bytes of one segment file of the log. Default 64 MiB.
    pub segment_bytes: u64,
    /// Space held back on the disk, so that running work can finish when the disk is full: 0 for none; anything else is rounded
    /// to one segment. Default 64 MiB.
    pub reserve_bytes: u64,
    /// Encryption and compression of what lies on the disk. Default: values of half a KiB and more are compressed where that pays,
    /// nothing is encrypted. (`clear_kinds` is not yours to set.)
    pub at_rest: AtRest,
}

/// The kinds of records whose keys are numbers; all others may hold what people wrote. A kind that was not here once must not come
/// in later: its keys would have two names on the disk.
const CLEAR_KINDS: &[u8] = b"bjmoq";

impl Options {
    /// The same for a process that may use `memory` bytes in all: budgets are cut to what fits, and a quarter of it is what the node may
    /// hold by its own account. The rest is for what nobody accounts for: results and logs of jobs, the checkpoint store while it sorts,
    /// connections, what the allocator keeps of memory that was freed.
    pub fn within(self, memory: u64) -> Self {
        let share = |part: u64| memory / part;
        let bytes = |most: usize, part: u64| most.min(usize::try_from(share(part)).unwrap_or(most));
        Self {
            pending_bytes_max: bytes(self.pending_bytes_max, 16),
            producers_bytes_max: bytes(self.producers_bytes_max, 32),
            body_budget: self.body_budget.min(share(8)),
            checkpoint_bytes: self.checkpoint_bytes.min(share(64)),
            cache_bytes: self.cache_bytes.min(share(32)),
            held_bytes_max: share(4),
            ..self
        }
    }

    /// How a data directory is to be opened.
    pub(crate) fn local(&self) -> storage::Options {
        storage::Options {
            log: segment::Options {
                segment_bytes: self.segment_bytes,
                reserve: self.reserve_bytes > 0,
                ..segment::Options::DEFAULT
            },
            checkpoints: fjall::Options {
                cache_bytes: self.cache_bytes,
                memtable_bytes: self.cache_bytes / 2,
                ..fjall::Options::DEFAULT
            },
            at_rest: clear(&self.at_rest),
            shards: &[crate::SHARD],
        }
    }
}

/// The same with the kinds of records that are known here.
pub(crate) fn clear(at_rest: &AtRest) -> AtRest {
    AtRest { clear_kinds: CLEAR_KINDS, ..at_rest.clone() }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pending_max: 65_536,
            pending_bytes_max: 128 << 20,
            flush_window_ms: 50,
            body_budget: 512 << 20,
            checkpoint_bytes: 128 << 20,
            checkpoint_ms: 5_000,
            cache_bytes: 32 << 20,
            held_bytes_max: 0,
            wait_ms_max: 60_000,
            waiters_max: 16_384,
            producers_max: 4_096,
            producers_bytes_max: 64 << 20,
            segment_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
            at_rest: AtRest::default(),
        }
    }
}
