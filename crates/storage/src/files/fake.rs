//! A disk in memory that behaves as badly as a real one may, and the same way each time.

use super::{File, Files, Lock};
use kit::random::Random;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Kinds of calls that can be made to fail. Each kind is counted on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`File::read_at`].
    Read,
    /// [`File::write_at`].
    Write,
    /// [`File::sync_data`] and [`File::sync_all`].
    Sync,
    /// [`File::allocate`] and [`File::set_len`].
    Allocate,
    /// [`Files::open`] and [`Files::create`].
    Open,
    /// [`Files::rename`] and [`Files::remove`].
    Rename,
    /// [`Files::sync_dir`].
    SyncDir,
}

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The device reports an error (EIO). A failed sync also forgets the pages it could not write: the cache goes on
    /// showing them, the disk never gets them, and the next sync says all is well.
    Device,
    /// No space is left (ENOSPC).
    Full,
    /// A signal came first (EINTR); nothing was done.
    Interrupted,
    /// Only the first of the bytes are read or written.
    Short,
    /// Success is reported and nothing is done.
    Phantom,
    /// A write lands this many bytes away from where it belongs.
    Misdirected(i64),
    /// The power goes: this call and every later one fails until [`FakeFiles::crash`].
    PowerCut,
}

/// A directory on a fake disk. Clones share it.
///
/// Written bytes stay in a cache until a sync; entries stay there until [`Files::sync_dir`]. [`FakeFiles::crash`] keeps
/// an arbitrary part of what was not synced. Everything random comes from the caller.
#[derive(Clone, Default)]
pub struct FakeFiles {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending: Vec<Entry>,
    locks: BTreeSet<String>,
    /// Handles of an earlier life are dead: their process ended with the crash.
    life: u64,
    powered_off: bool,
    capacity: Option<u64>,
    counts: BTreeMap<Operation, u64>,
    total: u64,
    cut_at: Option<u64>,
    faults: Vec<(Operation, u64, Damage)>,
    recurring: Vec<(Operation, u64, Damage)>,
}

#[derive(Clone, Default)]
struct Inode {
    cache: Vec<u8>,
    disk: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone)]
enum Entry {
    Create { name: String, inode: u64 },
    Rename { from: String, to: String, inode: u64 },
    Remove { name: String, inode: u64 },
}

impl FakeFiles {
    /// An empty directory on a disk without limits or faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of the disk as it is, with its unsynced state, to try several futures of one past.
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.locks.clear();
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Makes the `nth` call of this kind from now on (1 is the next) go wrong.
    pub fn inject(&self, operation: Operation, nth: u64, damage: Damage) {
        let mut state = self.state();
        let at = state.counts.get(&operation).copied().unwrap_or(0) + nth;
        state.faults.push((operation, at, damage));
    }

    /// Makes every `period`th call of this kind go wrong.
    pub fn inject_every(&self, operation: Operation, period: u64, damage: Damage) {
        self.state().recurring.push((operation, period.max(2), damage));
    }

    /// Cuts the power at the `nth` call of any kind but reading from now on (1 is the next).
    pub fn cut_power_after(&self, nth: u64) {
        let mut state = self.state();
        state.cut_at = Some(state.total + nth);
    }

    /// Forgets injected faults that did not come to pass.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.recurring.clear();
        state.cut_at = None;
    }

    /// Limits the sum of all file lengths, in bytes; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// How many calls of this kind were made.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// How many calls of any kind but reading were made.
    pub fn total(&self) -> u64 {
        self.state().total
    }

    /// Ends the process but not the machine: handles and locks go, the cache stays.
    pub fn kill(&self) {
        let mut state = self.state();
        state.life += 1;
        state.locks.clear();
        state.powered_off = false;
        state.cut_at = None;
    }

    /// Cuts the power and turns it on again: of everything unsynced an arbitrary part survives, page by page or sector
    /// by sector, sectors sometimes torn in the middle, directory entries in any subset.
    pub fn crash(&self, random: &mut Random) {
        let unit = if random.chance(1, 2) { SECTOR } else { PAGE };
        let tear = random.chance(1, 4);
        // 0: keep nothing, 1: keep all, else: each on its own. The extremes are likely enough to be met often.
        let mode = random.below(6);
        let mut random = random.split();
        self.crash_with(unit, tear, &mut |versions| match mode {
            0 => 0,
            1 => versions - 1,
            _ => random.below(versions as u64) as usize,
        });
    }

    /// [`FakeFiles::crash`] with each decision made by `choose(n)`, a number below `n`: which of `n` versions of a unit
    /// (`unit` bytes) survives, oldest first. So all outcomes of a small crash can be counted through.
    pub fn crash_with(&self, unit: usize, tear: bool, choose: &mut dyn FnMut(usize) -> usize) {
        let mut state = self.state();
        state.survive_entries(choose);
        for inode in state.inodes.values_mut() {
            inode.survive(unit, tear, choose);
        }
        state.life += 1;
        state.locks.clear();
        state.powered_off = false;
        state.cut_at = None;
    }

    /// Flips one bit of a file, on the disk and in the cache. False if there is no such bit.
    pub fn flip(&self, name: &str, bit: u64) -> bool {
        self.alter(name, |bytes| {
            let Some(byte) = bytes.get_mut((bit / 8) as usize) else { return false };
            *byte ^= 1 << (bit % 8);
            true
        })
    }

    /// Changes the bytes of a file behind everybody's back. False if there is no such file or `change` says so.
    pub fn alter(&self, name: &str, change: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(name).copied().and_then(|id| state.inodes.get_mut(&id)) else {
            return false;
        };
        let changed = change(&mut inode.cache);
        inode.disk = inode.cache.clone();
        inode.pending.clear();
        changed
    }

    /// The bytes of a file as a reader sees them.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).and_then(|id| state.inodes.get(id)).map(|inode| inode.cache.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, inode: u64, life: u64) -> Box<dyn File> {
        Box::new(FakeFile { files: self.clone(), inode, life })
    }
}

const SECTOR: usize = 512;
const PAGE: usize = 4_096;

fn device_error() -> io::Error {
    // EIO.
    io::Error::from_raw_os_error(5)
}

impl State {
    /// Counts a call and says how it goes wrong: `Err` for a failure, `Ok(Some)` for damage that looks like success.
    fn enter(&mut self, operation: Operation) -> io::Result<Option<Damage>> {
        let count = self.counts.entry(operation).or_insert(0);
        *count += 1;
        let count = *count;
        if operation != Operation::Read {
            self.total += 1;
            if self.cut_at.is_some_and(|at| self.total >= at) {
                self.powered_off = true;
            }
        }
        if self.powered_off {
            return Err(io::Error::other("the power is off"));
        }
        let once = self.faults.iter().position(|(kind, at, _)| *kind == operation && *at == count);
        let damage = match once {
            Some(at) => Some(self.faults.swap_remove(at).2),
            None => self
                .recurring
                .iter()
                .find(|(kind, period, _)| *kind == operation && count.is_multiple_of(*period))
                .map(|(_, _, damage)| *damage),
        };
        match damage {
            Some(Damage::Device) if operation != Operation::Sync => Err(device_error()),
            Some(Damage::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Damage::Interrupted) => Err(io::ErrorKind::Interrupted.into()),
            Some(Damage::PowerCut) => {
                self.powered_off = true;
                Err(io::Error::other("the power is off"))
            }
            other => Ok(other),
        }
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|id| self.inodes.get(id)).map(|inode| inode.cache.len() as u64).sum()
    }

    fn grow_to(&self, inode: u64, length: u64) -> io::Result<()> {
        let Some(capacity) = self.capacity else { return Ok(()) };
        let now = self.inodes.get(&inode).map_or(0, |inode| inode.cache.len() as u64);
        if length > now && self.used() + (length - now) > capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn survive_entries(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        let mut names = std::mem::take(&mut self.durable_names);
        for entry in std::mem::take(&mut self.pending) {
            if choose(2) == 1 {
                entry.apply(&mut names);
            }
        }
        self.names = names.clone();
        self.durable_names = names;
        self.forget_unnamed();
    }

    fn forget_unnamed(&mut self) {
        let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        self.inodes.retain(|id, _| named.contains(id));
    }

    fn record(&mut self, entry: Entry) {
        entry.apply(&mut self.names);
        self.pending.push(entry);
    }
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Entry::Create { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Entry::Rename { from, to, inode } => {
                // An earlier entry may have been lost, so the old name may be none or stand for another file.
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Entry::Remove { name, inode } => {
                if names.get(name) == Some(inode) {
                    names.remove(name);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes: new } => {
                let end = offset + new.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(new);
            }
            Change::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.cache);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            change.apply(&mut self.disk);
        }
    }

    fn drop_cache(&mut self) {
        self.cache.clone_from(&self.disk);
        for change in &self.pending {
            change.apply(&mut self.cache);
        }
    }

    fn survive(&mut self, unit: usize, tear: bool, choose: &mut dyn FnMut(usize) -> usize) {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.survive_length(&pending, choose);
            self.survive_content(&pending, unit, tear, choose);
        }
        self.cache.clone_from(&self.disk);
    }

    fn survive_length(&mut self, pending: &[Change], choose: &mut dyn FnMut(usize) -> usize) {
        let mut lengths = vec![self.disk.len()];
        for change in pending {
            let last = lengths.last().copied().unwrap_or(0);
            let length = match change {
                Change::Write { offset, bytes } => last.max(offset + bytes.len()),
                Change::Length(length) => *length,
            };
            if length != last {
                lengths.push(length);
            }
        }
        if lengths.len() > 1 {
            let length = lengths[choose(lengths.len())];
            self.disk.resize(length, 0);
        }
    }

    /// Each unit keeps the content it had after some number of the writes to it: a cache writes a unit back as it is at
    /// that moment, and different units at different moments.
    fn survive_content(
        &mut self,
        pending: &[Change],
        unit: usize,
        tear: bool,
        choose: &mut dyn FnMut(usize) -> usize,
    ) {
        let mut writes: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
        for change in pending {
            let Change::Write { offset, bytes } = change else { continue };
            let mut at = *offset;
            let end = offset + bytes.len();
            while at < end {
                let stop = end.min((at / unit + 1) * unit);
                writes.entry(at / unit).or_default().push((at, &bytes[at - offset..stop - offset]));
                at = stop;
            }
        }
        for parts in writes.values() {
            let kept = choose(parts.len() + 1);
            for (at, bytes) in &parts[..kept] {
                self.overwrite(*at, bytes);
            }
            if let Some((at, bytes)) = parts.get(kept).filter(|_| tear) {
                self.overwrite(*at, &bytes[..choose(bytes.len() + 1)]);
            }
        }
    }

    fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        let end = (at + bytes.len()).min(self.disk.len());
        if at < end {
            self.disk[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }
}

impl Files for FakeFiles {
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.enter(Operation::Open)?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(inode, state.life))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        state.enter(Operation::Open)?;
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.record(Entry::Create { name: name.to_string(), inode });
        Ok(self.handle(inode, state.life))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::Rename)?;
        let inode = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.record(Entry::Rename { from: from.to_string(), to: to.to_string(), inode });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.enter(Operation::Rename)?;
        let inode = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        state.record(Entry::Remove { name: name.to_string(), inode });
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        match state.enter(Operation::SyncDir)? {
            Some(Damage::Phantom) => {}
            _ => {
                state.pending.clear();
                state.durable_names = state.names.clone();
                // Open handles of unnamed files are of no use to anybody here.
                state.forget_unnamed();
            }
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>> {
        let mut state = self.state();
        if !state.locks.insert(name.to_string()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(FakeLock { files: self.clone(), name: name.to_string(), life: state.life }))
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/fake").join(name)
    }
}

struct FakeLock {
    files: FakeFiles,
    name: String,
    life: u64,
}

impl Lock for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut state = self.files.state();
        if state.life == self.life {
            state.locks.remove(&self.name);
        }
    }
}

struct FakeFile {
    files: FakeFiles,
    inode: u64,
    life: u64,
}

impl FakeFile {
    /// Runs `work` on the file, unless the call is to fail or the handle is of an earlier life.
    fn enter<T>(
        &self,
        operation: Operation,
        work: impl FnOnce(&mut State, Option<Damage>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.files.state();
        if state.life != self.life {
            return Err(io::Error::other("the process that opened this file has ended"));
        }
        let damage = state.enter(operation)?;
        work(&mut state, damage)
    }

    fn sync(&self) -> io::Result<()> {
        self.enter(Operation::Sync, |state, damage| {
            let inode = state.inode(self.inode)?;
            match damage {
                Some(Damage::Device) => {
                    inode.pending.clear();
                    return Err(device_error());
                }
                Some(Damage::Phantom) => {}
                _ => inode.sync(),
            }
            Ok(())
        })
    }
}

impl State {
    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl File for FakeFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.enter(Operation::Read, |state, damage| {
            let bytes = &state.inode(self.inode)?.cache;
            let from = (offset as usize).min(bytes.len());
            let mut count = buffer.len().min(bytes.len() - from);
            if damage == Some(Damage::Short) && count > 1 {
                count = count.div_ceil(3);
            }
            buffer[..count].copy_from_slice(&bytes[from..from + count]);
            Ok(count)
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.enter(Operation::Write, |state, damage| {
            let (count, offset) = match damage {
                Some(Damage::Phantom) => return Ok(bytes.len()),
                Some(Damage::Short) if bytes.len() > 1 => (bytes.len().div_ceil(3), offset),
                Some(Damage::Misdirected(by)) => (bytes.len(), offset.saturating_add_signed(by)),
                _ => (bytes.len(), offset),
            };
            state.grow_to(self.inode, offset + count as u64)?;
            let change = Change::Write { offset: offset as usize, bytes: bytes[..count].to_vec() };
            state.inode(self.inode)?.change(change);
            Ok(count)
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.files.state().inode(self.inode)?.cache.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.enter(Operation::Allocate, |state, _| {
            state.inode(self.inode)?.change(Change::Length(length as usize));
            Ok(())
        })
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.enter(Operation::Allocate, |state, _| {
            state.grow_to(self.inode, length)?;
            let inode = state.inode(self.inode)?;
            if (inode.cache.len() as u64) < length {
                inode.change(Change::Length(length as usize));
            }
            Ok(())
        })
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.files.state().inode(self.inode)?.drop_cache();
        Ok(())
    }
}
