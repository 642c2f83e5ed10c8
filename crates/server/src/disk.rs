//! Watches the space that is left for the data directory, so that somebody hears of it before the disk is full.

use rustix::fs::statvfs;
use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(10);
/// What was low is no longer low with this many hundredths more, so that the log does not flicker.
const RISE_PERCENT: u64 = 110;

/// The space on the disk of the data directory, as it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    free: AtomicU64,
    total: AtomicU64,
}

/// What a look changed.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Low,
    Better,
}

impl Disk {
    /// Bytes that are free for us, and bytes in all; `None` before the first look, and without a directory.
    pub(crate) fn space(&self) -> Option<(u64, u64)> {
        let total = self.total.load(Relaxed);
        (total > 0).then(|| (self.free.load(Relaxed), total))
    }

    /// Looks again and again, and says in the log when less than `low` bytes are left.
    pub(crate) async fn watch(&self, folder: PathBuf, low: u64) {
        let mut is_low = false;
        loop {
            match look(&folder) {
                Ok((free, total)) => {
                    self.free.store(free, Relaxed);
                    self.total.store(total, Relaxed);
                    let mib = free >> 20;
                    match turn(&mut is_low, free, low) {
                        Some(Turn::Low) => tracing::warn!(
                            "{mib} MiB are left on the disk of the data directory: free some space; when it is full, new work is refused"
                        ),
                        Some(Turn::Better) => {
                            tracing::info!("the disk of the data directory has room again: {mib} MiB")
                        }
                        None => {}
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot ask for the space on the disk"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}

fn look(folder: &Path) -> io::Result<(u64, u64)> {
    let space = statvfs(folder)?;
    // What root alone may use is not free for us.
    Ok((space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize)))
}

fn turn(is_low: &mut bool, free: u64, low: u64) -> Option<Turn> {
    if !*is_low && free < low {
        *is_low = true;
        return Some(Turn::Low);
    }
    if *is_low && free / 100 >= low / 100 * RISE_PERCENT / 100 {
        *is_low = false;
        return Some(Turn::Better);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_runs_low_is_told_once_and_so_is_its_recovery() {
        let mut is_low = false;
        let mut look = |free| turn(&mut is_low, free, 1_000);
        assert_eq!([look(5_000), look(1_000)], [None, None]);
        assert_eq!([look(999), look(500), look(1_099)], [Some(Turn::Low), None, None]);
        assert_eq!([look(1_100), look(1_050)], [Some(Turn::Better), None]);
        let mut never = false;
        assert_eq!(turn(&mut never, 0, 0), None, "0 turns it off");
    }

    #[test]
    fn the_space_of_a_folder_is_known() {
        let (free, total) = look(Path::new("/")).unwrap();
        assert!(total > 0 && free <= total);
    }
}
