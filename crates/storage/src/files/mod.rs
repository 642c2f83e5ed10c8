//! The seam to the file system: one flat directory of files.
//!
//! Everything the segment log does to a disk goes through [`Files`] and [`File`], so that a test can stand where the
//! operating system does ([`FakeFiles`]) and fail, tear, lose or reorder what a real disk may.

mod fake;
mod read_only;
mod real;

pub use fake::{Damage, FakeFiles, Operation};
pub use read_only::ReadOnlyFiles;
pub use real::RealFiles;

use std::{io, path::PathBuf, sync::Arc};

/// One flat directory. Names are plain file names, without separators.
///
/// Nothing about an entry (its creation, new name or removal) is durable before [`Files::sync_dir`] returns.
pub trait Files: Send + Sync {
    /// Opens an existing file for reading and writing. `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Makes an empty file, emptying one that is there.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Gives `from` the name `to`, replacing a file of that name, in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes every creation, renaming and removal so far durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// Takes the advisory lock `name`, which lasts until the guard is dropped or the process ends.
    /// `WouldBlock` if somebody else holds it.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>>;
    /// Where `name` is, for messages to people.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file, used by position. Calls may be short or interrupted, as the system's are: see [`write_all_at`].
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes up to `bytes.len()` bytes at `offset` and says how many.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    /// Makes the written bytes durable, and the length needed to read them back.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes bytes and all attributes durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True if the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) to `length`.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Extends to `length` and claims the space, so that writing below `length` cannot run out of it. `StorageFull` if there is not enough.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Forgets cached clean pages, so that the next read comes from the disk itself.
    fn drop_cache(&self) -> io::Result<()>;
}

/// Holds a lock until dropped.
pub trait Lock: Send + Sync {}

/// Shared ownership of a directory.
pub type SharedFiles = Arc<dyn Files>;

/// Writes all of `bytes`: goes on after short and interrupted writes, and takes a write of nothing for an error.
pub fn write_all_at(file: &dyn File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write_at(bytes, offset) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::WriteZero, "the system wrote nothing"));
            }
            Ok(count) => {
                bytes = &bytes[count.min(bytes.len())..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads from `offset` until `buffer` is full or the file ends, and says how many bytes were read.
pub fn read_full_at(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Repeats `sync` while a signal interrupts it. No other failure of a flush is ever repeated: the system may have
/// dropped the pages it could not write and would then report success for nothing.
pub fn uninterrupted(mut sync: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match sync() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
