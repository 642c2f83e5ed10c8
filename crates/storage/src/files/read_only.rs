use super::{File, Files, Lock};
use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// A directory of the operating system that is looked at and never changed: every call that would write is refused.
#[derive(Debug)]
pub struct ReadOnlyFiles {
    path: PathBuf,
}

impl ReadOnlyFiles {
    /// Looks at the directory at `path`, which must be there.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::read_dir(path)?;
        Ok(Self { path: path.to_path_buf() })
    }
}

fn refuse<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "this directory is only looked at"))
}

impl Files for ReadOnlyFiles {
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(ReadOnlyFile(fs::File::open(self.path.join(name))?)))
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn File>> {
        refuse()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        refuse()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        refuse()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        super::real::list(&self.path)
    }

    fn sync_dir(&self) -> io::Result<()> {
        refuse()
    }

    /// Shared with others who only look. Without a lock file nobody has ever held the lock, and nothing is made to hold it.
    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>> {
        let file = match fs::File::open(self.path.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Box::new(ReadOnlyLock(None))),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(Box::new(ReadOnlyLock(Some(file)))),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

struct ReadOnlyLock(#[expect(dead_code, reason = "the open file is the lock")] Option<fs::File>);

impl Lock for ReadOnlyLock {}

struct ReadOnlyFile(fs::File);

impl File for ReadOnlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        refuse()
    }

    fn sync_data(&self) -> io::Result<()> {
        refuse()
    }

    fn sync_all(&self) -> io::Result<()> {
        refuse()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        refuse()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        refuse()
    }

    fn drop_cache(&self) -> io::Result<()> {
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }
}
