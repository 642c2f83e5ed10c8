//! The machine: a disk and checkpoints that outlive processes, and the process that runs on them.

use crate::{
    Plan, Planted,
    history::{Check, Violation, broken},
    invariants::{
        acked::{self, Crash},
        damage, order,
    },
    shims::{Store, Tee, WatchedFiles, WatchedLog},
};
use kit::random::Random;
use node::{Driver, Keeper, OpenError, Options, Recovered, Writer, recover};
use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use storage::{
    AtRest, Checkpoints, Keyring, Log, LogError,
    at_rest::{EncodedCheckpoints, EncodedLog},
    files::{FakeFiles, Files},
    log::segment::{self, SegmentLog},
};

/// A running process.
pub(crate) struct Pond {
    pub(crate) driver: Driver<u64>,
    pub(crate) writer: Writer,
    pub(crate) keeper: Keeper,
}

/// What outlives processes.
pub(crate) struct Machine {
    pub(crate) disk: FakeFiles,
    pub(crate) store: Store,
    pub(crate) tee: Tee,
    failed: Arc<AtomicBool>,
    options: Options,
    layout: segment::Options,
    planted: Option<Planted>,
    /// Whether this machine encrypts what it writes.
    encrypts: bool,
    lives: Cell<usize>,
}

/// The keys of machines that encrypt; each life puts another one first.
const KEYS: [&str; 2] =
    ["AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="];
/// One of so many machines encrypts.
const ENCRYPTS_ONE_IN: u64 = 4;

impl Machine {
    pub(crate) fn new(plan: Plan, random: &mut Random) -> Self {
        // Not drawn from the same numbers, so that what was found under a seed before is found there again.
        let encrypts = random.clone().split().below(ENCRYPTS_ONE_IN) == 0;
        let layout = segment::Options {
            directory: 7,
            segment_bytes: 8 << 10 << random.below(4),
            reserve: true,
            zero_ahead: [0, 4 << 10][random.below(2) as usize],
        };
        let options = Options {
            pending_max: [6, 1_024][random.below(2) as usize],
            waiters_max: 16,
            body_budget: [2_000, 1 << 20][random.below(2) as usize],
            checkpoint_bytes: 4_000 << random.below(6),
            checkpoint_ms: 200 + random.below(5_000),
            ..Options::default()
        };
        let planted = plan.planted;
        Self {
            disk: FakeFiles::new(),
            store: Store::new(planted),
            tee: Tee::default(),
            failed: Arc::default(),
            options,
            layout,
            planted,
            encrypts,
            lives: Cell::new(0),
        }
    }

    /// Whether a write or a flush failed in this life.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(crate) fn body_budget(&self) -> u64 {
        self.options.body_budget
    }

    /// Starts a process. `Ok(Err)` if it refused to start.
    pub(crate) fn start(&self, crash: Crash) -> Result<Result<Pond, OpenError>, Violation> {
        self.failed.store(false, Ordering::Relaxed);
        self.lives.set(self.lives.get() + 1);
        let log = match self.open(&self.disk) {
            Ok(log) => log,
            Err(error) => return Ok(Err(error.into())),
        };
        let log = WatchedLog::new(log, self.tee.clone(), self.planted);
        let end = match self.compare(&log)? {
            Ok(end) => end,
            Err(error) => return Ok(Err(error.into())),
        };
        let checkpoints: Box<dyn Checkpoints> = match self.at_rest() {
            None => Box::new(self.store.clone()),
            Some(at_rest) => {
                match EncodedCheckpoints::open(self.store.clone(), at_rest, self.layout.directory, &[0]) {
                    Ok(checkpoints) => Box::new(checkpoints),
                    Err(error) => return Ok(Err(error.into())),
                }
            }
        };
        match recover(Box::new(log), checkpoints, &self.options) {
            Err(error) => Ok(Err(error)),
            Ok(Recovered { driver, writer, keeper }) => {
                self.accept(end, crash)?;
                Ok(Ok(Pond { driver, writer, keeper }))
            }
        }
    }

    fn at_rest(&self) -> Option<AtRest> {
        let mut keys = KEYS;
        keys.rotate_left(self.lives.get() % KEYS.len());
        let keys = Keyring::parse(&keys.join("\n")).ok()?;
        // Compression would make sizes, and with them the simulated disk, depend on the library's version.
        self.encrypts.then(|| AtRest { keys, compress_from: 0, clear_kinds: b"bjmoq", ..AtRest::default() })
    }

    fn open(&self, disk: &FakeFiles) -> Result<Box<dyn Log>, LogError> {
        let log = self.open_segments(disk)?;
        Ok(match self.at_rest() {
            None => Box::new(log),
            Some(at_rest) => Box::new(EncodedLog::new(log, at_rest, self.layout.directory)),
        })
    }

    fn open_segments(&self, disk: &FakeFiles) -> Result<SegmentLog, LogError> {
        let files = WatchedFiles::new(disk.clone(), self.failed.clone(), self.planted);
        let open = || SegmentLog::open(Arc::new(files.clone()), self.layout.clone());
        match open() {
            Err(LogError::Corrupt { file, offset, .. })
                if self.planted == Some(Planted::TruncateAtDamage) =>
            {
                let name = file.rsplit('/').next().unwrap_or(&file);
                disk.alter(name, |bytes| {
                    let from = (offset as usize).min(bytes.len());
                    bytes[from..].fill(0);
                    true
                });
                for later in disk.list().unwrap_or_default() {
                    if later.as_str() > name || later == "closed" {
                        disk.alter(&later, |bytes| {
                            bytes.clear();
                            true
                        });
                        let _ = disk.remove(&later);
                    }
                }
                open()
            }
            other => other,
        }
    }

    /// Every record that is kept is the one that was appended. Returns the newest one.
    fn compare(&self, log: &WatchedLog) -> Result<Result<u64, LogError>, Violation> {
        let kept = self.tee.kept();
        let mut wrong = None;
        let mut last = log.first() - 1;
        let read = log.read(log.first(), &mut |record| {
            let appended = kept.payloads.get(record.index as usize - 1);
            if let Err(violation) = order::continues(last, &record, appended) {
                wrong = Some(violation);
                return Err(LogError::Stopped);
            }
            last = record.index;
            Ok(())
        });
        match wrong {
            Some(violation) => Err(violation),
            None => Ok(read.map(|()| last)),
        }
    }

    /// The log is served up to `end` from now on.
    fn accept(&self, end: u64, crash: Crash) -> Check {
        let mut kept = self.tee.kept();
        let claimed = match crash {
            Crash::Process => kept.os.max(kept.disk),
            Crash::Power => kept.disk,
        };
        acked::flushed_is_there(end, claimed, crash)?;
        kept.payloads.truncate(end as usize);
        (kept.os, kept.disk, kept.disk_before) = (end, end, end.min(kept.disk_before));
        Ok(())
    }

    /// Flips bits in copies of the disk, and looks at what is served then.
    pub(crate) fn flip_bits(&self, random: &mut Random, crash: Crash) -> Check {
        let names = self.disk.list().unwrap_or_default();
        if names.is_empty() {
            return Ok(());
        }
        let kept = self.tee.kept();
        let claimed = if crash == Crash::Process { kept.disk } else { kept.disk_before };
        for _ in 0..3 {
            let copy = self.disk.fork();
            let name = &names[random.below(names.len() as u64) as usize];
            let bits = copy.bytes(name).map_or(0, |bytes| bytes.len() as u64) * 8;
            let bit = random.below(bits);
            if bits == 0 || !copy.flip(name, bit) {
                continue;
            }
            let opened = self.open(&copy);
            let place = format!("{name}, bit {bit}");
            damage::found_or_harmless(opened.as_ref().map(|log| &**log), &kept.payloads, claimed, &place)?;
        }
        Ok(())
    }

    /// What a start that was not disturbed must not say.
    pub(crate) fn refused<T>(error: &OpenError) -> Result<T, Violation> {
        broken("I1", format!("the pond does not open: {error}"))
    }
}
