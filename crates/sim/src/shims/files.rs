use crate::plant::Planted;
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use storage::files::{FakeFiles, File, Files, Lock};

/// A fake disk that remembers whether a write or a flush ever failed.
#[derive(Clone)]
pub(crate) struct WatchedFiles {
    disk: FakeFiles,
    failed: Arc<AtomicBool>,
    planted: Option<Planted>,
}

impl WatchedFiles {
    pub(crate) fn new(disk: FakeFiles, failed: Arc<AtomicBool>, planted: Option<Planted>) -> Self {
        Self { disk, failed, planted }
    }

    fn watch<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome
            && !matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::Interrupted)
        {
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }

    fn wrap(&self, file: io::Result<Box<dyn File>>) -> io::Result<Box<dyn File>> {
        file.map(|file| Box::new(WatchedFile { file, files: self.clone() }) as Box<dyn File>)
    }
}

impl Files for WatchedFiles {
    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.wrap(self.disk.open(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.wrap(self.disk.create(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.watch(self.disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.watch(self.disk.remove(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.planted == Some(Planted::SkipDirectoryFsync) {
            return Ok(());
        }
        self.watch(self.disk.sync_dir())
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn Lock>> {
        self.disk.lock(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

struct WatchedFile {
    file: Box<dyn File>,
    files: WatchedFiles,
}

impl WatchedFile {
    fn sync(&self, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let outcome = self.files.watch(sync());
        if outcome.is_err() && self.files.planted == Some(Planted::RetryFailedFsync) {
            return sync();
        }
        outcome
    }
}

impl File for WatchedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.files.watch(self.file.write_at(bytes, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(|| self.file.sync_all())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.files.watch(self.file.set_len(length))
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.files.watch(self.file.allocate(length))
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
}
