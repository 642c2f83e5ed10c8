//! The redo file: all changes of one large checkpoint, written down before any of them is applied.
//!
//! ```text
//! file    | "MPREDO1\n" | frame | frame | ... | last frame |
//! frame     0  4  length of the body, little-endian
//!           4  4  crc of the body, started from the frame's number
//!           8     body
//! body      first frame: shard, index, position (LEB128)
//!           others: changes, each 1 + key + value or 0 + key (length-prefixed)
//!           last frame: empty
//! ```
//!
//! It is written as `redo.tmp`, flushed, and renamed to `redo`: from then on the checkpoint *has happened*, and applying it,
//! any number of times and from the beginning each time, leads to the same result. Without the name it never happened.

use super::{Change, CheckpointError, Mark};
use crate::{
    files::{File, SharedFiles, read_full_at, uninterrupted, write_all_at},
    log::segment::space::{failure, is_full, rename, sync_dir},
};
use kit::codec::{Malformed, Reader, put_bytes, put_u64};

pub(super) const NAME: &str = "redo";
const TEMPORARY: &str = "redo.tmp";
const MAGIC: &[u8; 8] = b"MPREDO1\n";
const FRAME_HEADER: usize = 8;
/// A frame is written when it has this many bytes, and applied as one batch.
const FRAME_BYTES: usize = 4 << 20;

pub(super) struct Writer {
    files: SharedFiles,
    file: Box<dyn File>,
    offset: u64,
    number: u32,
    body: Vec<u8>,
}

impl Writer {
    pub(super) fn create(files: &SharedFiles, shard: u16, mark: Mark) -> Result<Self, CheckpointError> {
        let file = files.create(TEMPORARY).map_err(|source| refusal(files, "create", source))?;
        let mut writer = Self { files: files.clone(), file, offset: 0, number: 0, body: Vec::new() };
        writer.write(MAGIC)?;
        put_u64(&mut writer.body, u64::from(shard));
        put_u64(&mut writer.body, mark.index);
        put_u64(&mut writer.body, mark.position);
        writer.frame()?;
        Ok(writer)
    }

    pub(super) fn put(&mut self, change: &Change) -> Result<(), CheckpointError> {
        match change {
            Change::Put { key, value, .. } => {
                self.body.push(1);
                put_bytes(&mut self.body, key);
                put_bytes(&mut self.body, value);
            }
            Change::Delete { key } => {
                self.body.push(0);
                put_bytes(&mut self.body, key);
            }
        }
        if self.body.len() >= FRAME_BYTES { self.frame() } else { Ok(()) }
    }

    /// Makes the checkpoint happen.
    pub(super) fn commit(mut self) -> Result<(), CheckpointError> {
        if !self.body.is_empty() {
            self.frame()?;
        }
        self.frame()?;
        uninterrupted(|| self.file.sync_all()).map_err(|source| refusal(&self.files, "flush", source))?;
        rename(&self.files, TEMPORARY, NAME)?;
        Ok(sync_dir(&self.files)?)
    }

    fn frame(&mut self) -> Result<(), CheckpointError> {
        let body = std::mem::take(&mut self.body);
        let mut header = [0; FRAME_HEADER];
        header[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        header[4..].copy_from_slice(&crc32c::crc32c_append(self.number, &body).to_le_bytes());
        self.write(&header)?;
        self.write(&body)?;
        self.number += 1;
        self.body = body;
        self.body.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        write_all_at(&*self.file, bytes, self.offset)
            .map_err(|source| refusal(&self.files, "write", source))?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn refusal(files: &SharedFiles, operation: &'static str, source: std::io::Error) -> CheckpointError {
    if is_full(&source) {
        // It has no name yet, so nothing has happened; the space it took is given back if that works.
        let _ = files.remove(TEMPORARY);
        return CheckpointError::Full { free: 0, needed: FRAME_BYTES as u64 };
    }
    failure(files, operation, TEMPORARY, source).into()
}

/// Throws away a redo file that never got its name.
pub(super) fn tidy(files: &SharedFiles) -> Result<(), CheckpointError> {
    match files.remove(TEMPORARY) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(failure(files, "remove", TEMPORARY, source).into())
        }
        _ => Ok(()),
    }
}

/// Forgets the redo file: its checkpoint is applied and durable.
pub(super) fn finish(files: &SharedFiles) -> Result<(), CheckpointError> {
    files.remove(NAME).map_err(|source| failure(files, "remove", NAME, source))?;
    Ok(sync_dir(files)?)
}

/// Reads the redo file, if there is one: calls `apply` with each frame's changes, and returns whose checkpoint it is.
pub(super) fn replay(
    files: &SharedFiles,
    apply: &mut dyn FnMut(u16, Vec<Change>) -> Result<(), CheckpointError>,
) -> Result<Option<(u16, Mark)>, CheckpointError> {
    let file = match files.open(NAME) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failure(files, "open", NAME, source).into()),
    };
    let mut frames = Frames { files, file: &*file, offset: MAGIC.len() as u64, number: 0 };
    let mut magic = [0; MAGIC.len()];
    frames.read(&mut magic, 0)?;
    if &magic != MAGIC {
        return Err(frames.corrupt("it is no redo file of a version known to this release"));
    }
    let first = frames.next()?;
    let (shard, mark) = parse_mark(&first).map_err(|bad| frames.corrupt(&bad.to_string()))?;
    loop {
        let body = frames.next()?;
        if body.is_empty() {
            return Ok(Some((shard, mark)));
        }
        let changes = parse_changes(&body).map_err(|bad| frames.corrupt(&bad.to_string()))?;
        apply(shard, changes)?;
    }
}

struct Frames<'a> {
    files: &'a SharedFiles,
    file: &'a dyn File,
    offset: u64,
    number: u32,
}

impl Frames<'_> {
    fn next(&mut self) -> Result<Vec<u8>, CheckpointError> {
        let mut header = [0; FRAME_HEADER];
        self.read(&mut header, self.offset)?;
        let [a, b, c, d, e, f, g, h] = header;
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        let offset = self.offset + FRAME_HEADER as u64;
        let size = self.file.len().map_err(|source| failure(self.files, "measure", NAME, source))?;
        if length > size.saturating_sub(offset) {
            return Err(self.corrupt("a frame is longer than the file"));
        }
        let mut body = vec![0; length as usize];
        self.read(&mut body, offset)?;
        if crc32c::crc32c_append(self.number, &body) != u32::from_le_bytes([e, f, g, h]) {
            return Err(self.corrupt("a frame has a wrong checksum"));
        }
        self.offset = offset + length;
        self.number += 1;
        Ok(body)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), CheckpointError> {
        let count = read_full_at(self.file, buffer, offset)
            .map_err(|source| failure(self.files, "read", NAME, source))?;
        if count < buffer.len() { Err(self.corrupt("the file is cut short")) } else { Ok(()) }
    }

    fn corrupt(&self, reason: &str) -> CheckpointError {
        CheckpointError::Corrupt {
            place: format!("byte {} of {}", self.offset, self.files.path(NAME).display()),
            reason: reason.to_string(),
        }
    }
}

fn parse_mark(body: &[u8]) -> Result<(u16, Mark), Malformed> {
    let mut reader = Reader::new(body);
    let shard = u16::try_from(reader.u64("shard")?).map_err(|_| reader.malformed("shard"))?;
    let mark = Mark { index: reader.u64("index")?, position: reader.u64("position")? };
    reader.finish("mark")?;
    Ok((shard, mark))
}

fn parse_changes(body: &[u8]) -> Result<Vec<Change>, Malformed> {
    let mut reader = Reader::new(body);
    let mut changes = Vec::new();
    while reader.remaining() > 0 {
        let put = reader.bool("change")?;
        let key = reader.bytes("key")?.to_vec();
        changes.push(match put {
            true => Change::Put { key, value: reader.bytes("value")?.to_vec(), kin: None },
            false => Change::Delete { key },
        });
    }
    Ok(changes)
}
