//! A data directory that is looked at and never changed: what is in each of its files, and what is wrong with it.

use crate::{
    at_rest::{EncodedCheckpoints, EncodedLog},
    checkpoints::{
        CheckpointError, Checkpoints as _, Mark,
        fjall::{self, FjallCheckpoints},
        mirror::{self, Mirror},
    },
    directory::{CHECKPOINTS, FORMER, FRESH, KIND, LocalCheckpoints, Options, failure},
    files::{ReadOnlyFiles, SharedFiles},
    identity::{self, IDENTITY},
    log::{
        LogError,
        segment::{self, Found, ReadOnlyLog},
    },
};
use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The log and the checkpoints of a data directory, to read. Its server stays stopped as long as this lives.
pub struct ReadOnly {
    /// The log.
    pub log: EncodedLog<ReadOnlyLog>,
    /// The checkpoints, in a mirror: what is written to them is gone with it, and never reaches the directory.
    pub checkpoints: LocalCheckpoints,
    /// Lives as long as they do.
    pub mirror: Scratch,
}

/// Files that are gone when this is dropped.
pub struct Scratch(#[expect(dead_code, reason = "its end is what counts")] Mirror);

/// Opens the data directory at `path` without changing it. Damage that would stop a server stops this too; so does a server.
pub fn open_read_only(path: &Path, options: &Options) -> Result<ReadOnly, CheckpointError> {
    let (_, id) = identity_of(path)?;
    let log = ReadOnlyLog::open(part(path, "log")?, id)?;
    let log = EncodedLog::new(log, options.at_rest.clone(), id);
    let mirror = Mirror::make(&checkpoints_of(path))?;
    let engine = fjall::Options { directory: id, ..options.checkpoints.clone() };
    let store = FjallCheckpoints::open_mirror(mirror.path(), engine, true)?;
    let checkpoints = EncodedCheckpoints::open(store, options.at_rest.clone(), id, options.shards)?;
    Ok(ReadOnly { log, checkpoints, mirror: Scratch(mirror) })
}

/// One file of a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name, relative to the directory.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// What is in it, in words.
    pub holds: String,
}

/// Something in a data directory that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which file, relative to the directory; the whole directory if it is empty.
    pub file: String,
    /// Where in the file, in bytes, if there is one place.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// What that means to whoever owns the data.
    pub means: String,
}

/// What was found in a data directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Every file.
    pub files: Vec<Part>,
    /// Everything that is wrong. Empty for a directory that is whole.
    pub damage: Vec<Damage>,
    /// Records of the log that were read.
    pub records: u64,
    /// Values of the checkpoints that were read.
    pub values: u64,
    /// The first damaged record of the log, if there is one behind the checkpoint.
    pub log_ends: Option<u64>,
}

/// What [`inspect_local`] calls for each key and value of a shard.
pub(crate) type Visit<'a> = dyn FnMut(u16, &[u8], &[u8]) + 'a;

const GONE: &str = "a server does not start here; restore the directory from a backup";
const KEY_LOST: &str = "what is stored under this key is lost";
const NOTHING_LOST: &str = "nothing is lost";

/// Reads every byte of the data directory at `path` that counts for something, and changes none.
///
/// # Errors
/// Only what keeps it from looking: there is no data directory, a server has it open, the system does not let it, a key is missing.
/// Damage is what it returns.
pub fn inspect_local(
    path: &Path,
    options: &Options,
    visit: &mut Visit<'_>,
) -> Result<Inspection, CheckpointError> {
    let (files, id) = identity_of(path)?;
    let mut found = Inspection::default();
    let bytes = files.open(IDENTITY).and_then(|file| file.len());
    let bytes = bytes.map_err(|source| failure("measure", &files.path(IDENTITY), source))?;
    found.part(IDENTITY.to_owned(), bytes, "what this directory is");

    let log = part(path, "log")?;
    let _lock = segment::lock(&log)?;
    let marks = found.checkpoints(path, id, options, visit)?;
    let covered = marks.into_iter().map(|mark| mark.map_or(0, |mark| mark.index)).min().unwrap_or(0);
    for file in segment::inspect(&log, id)? {
        found.log_file(file, covered);
    }
    found.rest(path)?;
    Ok(found)
}

impl Inspection {
    fn part(&mut self, file: String, bytes: u64, holds: &str) {
        self.files.push(Part { file, bytes, holds: holds.to_owned() });
    }

    fn damage(&mut self, file: String, offset: Option<u64>, reason: &str, means: String) {
        self.damage.push(Damage { file, offset, reason: reason.to_owned(), means });
    }

    fn log_file(&mut self, found: Found, covered: u64) {
        let file = format!("log/{}", found.name);
        self.records += found.records;
        self.part(file.clone(), found.bytes, &found.holds);
        let Some(wrong) = found.wrong else { return };
        let means = match wrong.lost {
            None if found.name == IDENTITY => GONE.to_owned(),
            None => format!("{NOTHING_LOST}: it is written again"),
            Some((_, Some(last))) if last <= covered => {
                format!(
                    "{NOTHING_LOST}: the checkpoint holds what these records said; make a backup, and check the disk"
                )
            }
            Some((first, last)) => {
                let first = first.max(covered + 1);
                self.log_ends = Some(self.log_ends.map_or(first, |before| before.min(first)));
                let last = last.map_or("the end".to_owned(), |last| last.to_string());
                format!(
                    "what happened in the records {first} to {last} of the log cannot be told from here; {GONE}"
                )
            }
        };
        self.damage(file, wrong.offset, &wrong.reason, means);
    }

    fn checkpoints(
        &mut self,
        path: &Path,
        id: u64,
        options: &Options,
        visit: &mut Visit<'_>,
    ) -> Result<Vec<Option<Mark>>, CheckpointError> {
        let place = checkpoints_of(path);
        let name = place.file_name().and_then(|name| name.to_str()).unwrap_or(CHECKPOINTS).to_owned();
        if !place.is_dir() {
            let means = format!("everything before the oldest record of the log is lost; {GONE}");
            self.damage(name, None, "the checkpoints are missing", means);
            return Ok(Vec::new());
        }
        let mirror = Mirror::make(&place)?;
        let engine = fjall::Options { directory: id, ..options.checkpoints.clone() };
        let unusable = format!("everything before the oldest record of the log is lost; {GONE}");
        let store = match FjallCheckpoints::open_mirror(mirror.path(), engine, false) {
            Ok(store) => store,
            Err(CheckpointError::Corrupt { reason, .. }) => {
                self.damage(name.clone(), None, &reason, unusable);
                self.other_checkpoint_files(&place, &name, &[])?;
                return Ok(Vec::new());
            }
            Err(CheckpointError::Files(LogError::Foreign { reason, .. })) => {
                self.damage(format!("{name}/{IDENTITY}"), Some(0), &reason, GONE.to_owned());
                self.other_checkpoint_files(&place, &name, &[])?;
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let tables = store.tables();
        let before = self.damage.len();
        for (table, checksum) in &tables {
            self.table(&place, &name, table, *checksum)?;
        }
        let tables: Vec<PathBuf> = tables.into_iter().map(|(table, _)| table).collect();
        self.other_checkpoint_files(&place, &name, &tables)?;
        if self.damage.len() > before {
            self.damaged_values(&store, &name, options.shards);
            return Ok(options.shards.iter().map(|shard| store.mark(*shard).ok().flatten()).collect());
        }
        let checkpoints = match EncodedCheckpoints::open(store, options.at_rest.clone(), id, options.shards) {
            Ok(checkpoints) => checkpoints,
            Err(error @ CheckpointError::Corrupt { .. }) => {
                self.damage(name, None, &error.to_string(), format!("no value can be read; {GONE}"));
                return Ok(vec![None; options.shards.len()]);
            }
            Err(error) => return Err(error),
        };
        let mut marks = Vec::new();
        for shard in options.shards {
            let read = checkpoints.scan(*shard, &[], &mut |key, value| {
                self.values += 1;
                visit(*shard, key, value);
                Ok(())
            });
            match read {
                Ok(()) => {}
                Err(error @ (CheckpointError::Corrupt { .. } | CheckpointError::Engine { .. })) => {
                    let before = self.damage.len();
                    self.damaged_values(checkpoints.inner(), &name, &[*shard]);
                    if self.damage.len() == before {
                        self.damage(name.clone(), None, &error.to_string(), format!("{KEY_LOST}; {GONE}"));
                    }
                }
                Err(error) => return Err(error),
            }
            marks.push(checkpoints.mark(*shard).ok().flatten());
        }
        Ok(marks)
    }

    /// Names the values that are not what was written.
    fn damaged_values(&mut self, store: &FjallCheckpoints, name: &str, shards: &[u16]) {
        let mut named = 0;
        for shard in shards {
            store.visit_all(*shard, &mut |read| {
                if let Err(error) = read
                    && named < DAMAGE_MAX
                {
                    named += 1;
                    self.damage(name.to_owned(), None, &error.to_string(), format!("{KEY_LOST}; {GONE}"));
                }
            });
        }
    }

    /// Reads one of the engine's files and compares it with what the engine says of it.
    fn table(
        &mut self,
        place: &Path,
        name: &str,
        table: &Path,
        checksum: u128,
    ) -> Result<(), CheckpointError> {
        let path = place.join(table);
        let file = format!("{name}/{}", table.display());
        let io = |source| failure("read", &path, source);
        let mut opened = match fs::File::open(&path) {
            Ok(opened) => opened,
            // Made in the mirror, when a write was completed there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io(error)),
        };
        let (mut hasher, mut buffer, mut bytes) = (xxhash_rust::xxh3::Xxh3Default::new(), vec![0; BUFFER], 0);
        loop {
            match opened.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    hasher.update(&buffer[..count]);
                    bytes += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
        self.part(file.clone(), bytes, "values of the checkpoint");
        if hasher.digest128() != checksum {
            let means = format!("some of what the checkpoint holds may be lost; {GONE}");
            self.damage(file, None, "the file is not what was written: its checksum is wrong", means);
        }
        Ok(())
    }

    fn other_checkpoint_files(
        &mut self,
        place: &Path,
        name: &str,
        tables: &[PathBuf],
    ) -> Result<(), CheckpointError> {
        for (file, bytes, forever) in mirror::files(place)? {
            if !tables.contains(&file) {
                let holds = if forever {
                    "an index of the store, or values that it no longer needs"
                } else {
                    "what the store needs to find its values, or its newest ones"
                };
                self.part(format!("{name}/{}", file.display()), bytes, holds);
            }
        }
        Ok(())
    }

    /// What is in the directory beside log and checkpoints.
    fn rest(&mut self, path: &Path) -> Result<(), CheckpointError> {
        for entry in fs::read_dir(path).map_err(|source| failure("list", path, source))? {
            let entry = entry.map_err(|source| failure("list", path, source))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if ["log", CHECKPOINTS, IDENTITY].contains(&&*name) {
                continue;
            }
            let holds = match &*name {
                FRESH | FORMER => "checkpoints in the making, or former ones; the next start tidies up",
                _ => "nothing that this release knows; it is left alone",
            };
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            self.part(name, bytes, holds);
        }
        Ok(())
    }
}

/// Damaged values that are named.
const DAMAGE_MAX: usize = 100;
const BUFFER: usize = 1 << 20;

/// The files at `path` and the id of the data directory that they are.
fn identity_of(path: &Path) -> Result<(SharedFiles, u64), CheckpointError> {
    let missing = |reason: &str| LogError::Foreign {
        file: path.join(IDENTITY).display().to_string(),
        reason: reason.to_owned(),
    };
    if !path.is_dir() {
        return Err(missing("there is no such directory; name the one that the server has as `data`").into());
    }
    let files: SharedFiles =
        Arc::new(ReadOnlyFiles::open(path).map_err(|source| failure("open", path, source))?);
    let none = "there is no data directory here; name the one that the server has as `data`";
    let id = identity::read(&files, KIND)?.ok_or_else(|| missing(none))?;
    Ok((files, id))
}

fn part(path: &Path, name: &str) -> Result<SharedFiles, CheckpointError> {
    let place = path.join(name);
    if !place.is_dir() {
        return Err(LogError::Corrupt {
            file: place.display().to_string(),
            offset: 0,
            index: 0,
            reason: format!("the {name} is missing"),
        }
        .into());
    }
    Ok(Arc::new(ReadOnlyFiles::open(&place).map_err(|source| failure("open", &place, source))?))
}

/// Where the checkpoints are that count: a rewriting may have been cut short.
pub(crate) fn checkpoints_of(path: &Path) -> PathBuf {
    let names = [CHECKPOINTS, FRESH, FORMER];
    let place = names.iter().map(|name| path.join(name)).find(|place| place.is_dir());
    place.unwrap_or_else(|| path.join(CHECKPOINTS))
}
