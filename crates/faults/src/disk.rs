//! Small disks of a row's own: in memory, or an ext4 in a file whose power can be cut. Both need root.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A disk that is mounted while this lives.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// In memory; `options` such as `size=320m`.
    pub(crate) fn in_memory(at: &Path, options: &str) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(at))
            .map_err(|why| format!("a small disk cannot be mounted ({why}); this row needs root"))?;
        Ok(Self(at.to_owned()))
    }

    /// The ext4 in the file `image`, through a loop device.
    pub(crate) fn ext4(image: &Path, at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let mounted = run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(at));
        mounted.map_err(|why| {
            format!("no file can be mounted as a disk ({why}); this row needs root and loop devices")
        })?;
        Ok(Self(at.to_owned()))
    }

    /// Stops the filesystem as a power cut does: what is not on the disk by now never gets there.
    pub(crate) fn cut(&self) -> Result<(), String> {
        run(Command::new("python3").args(["-c", CUT]).arg(&self.0))
    }
}

/// Asks ext4 to go down at once, without writing its journal out (`EXT4_IOC_SHUTDOWN`, flag 2).
const CUT: &str =
    "import fcntl,os,struct,sys; fcntl.ioctl(os.open(sys.argv[1],os.O_RDONLY),0x8004587D,struct.pack('I',2))";

/// Makes an empty ext4 of so many MiB in a file, which takes only the space that is used.
pub(crate) fn format(image: &Path, mib: u64) -> Result<(), String> {
    File::create(image).and_then(|file| file.set_len(mib << 20)).map_err(|error| error.to_string())?;
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image))
        .map_err(|why| format!("no ext4 can be made ({why}); this row needs mkfs.ext4"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever has a file open there is a server that was told to go. A leftover mount goes with the machine.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
