use core::{fmt, str::FromStr};

/// How much a change must survive before its caller hears "OK". Stronger levels compare greater.
///
/// ```
/// use kit::Durability;
/// assert!(Durability::Disk > Durability::Os);
/// assert_eq!("disk".parse(), Ok(Durability::Disk));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// Nothing is promised: a crash of the process may lose it.
    Memory,
    /// Handed to the operating system: survives a crash of the process, not of the machine.
    Os,
    /// Flushed to the disk: survives power loss, as far as the disk honours flushes.
    #[default]
    Disk,
    /// On the disks of a majority: survives the loss of a machine.
    Quorum,
}

impl Durability {
    /// Every level, weakest first.
    pub const ALL: [Durability; 4] =
        [Durability::Memory, Durability::Os, Durability::Disk, Durability::Quorum];

    /// The name used on every surface: `memory`, `os`, `disk`, `quorum`.
    pub const fn name(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Os => "os",
            Durability::Disk => "disk",
            Durability::Quorum => "quorum",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no durability level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownDurability;

impl fmt::Display for UnknownDurability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a durability is one of memory, os, disk, quorum")
    }
}

impl core::error::Error for UnknownDurability {}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or(UnknownDurability)
    }
}
