//! The small file that says what a directory is: whose, and in which format.
//!
//! ```text
//! millpond log
//! format = 1
//! id = 00c0ffee00c0ffee
//! checksum = 1a2b3c4d
//! ```
//!
//! Text, so that a person who finds the directory can tell what it is. The checksum (CRC-32C, hexadecimal) covers the
//! lines before it. A new format gets a higher number; a release refuses numbers it does not know.

use crate::{
    files::{SharedFiles, uninterrupted, write_all_at},
    log::{
        LogError,
        segment::space::{failure, read_range, rename, sync_dir},
    },
};

/// The file's name.
pub(crate) const IDENTITY: &str = "identity";
const FORMAT: u32 = 1;
/// Longer files are not ours.
const LENGTH_MAX: u64 = 4_096;

/// Reads the id of the directory; `None` if there is no identity yet. `kind` is what the directory must be, such as "log".
pub(crate) fn read(files: &SharedFiles, kind: &str) -> Result<Option<u64>, LogError> {
    let file = match files.open(IDENTITY) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failure(files, "open", IDENTITY, source)),
    };
    let bytes = read_range(files, &*file, IDENTITY, LENGTH_MAX)?;
    parse(&bytes, kind).map(Some).map_err(|reason| LogError::Foreign {
        file: files.path(IDENTITY).display().to_string(),
        reason: format!("{reason}; choose the right directory, or restore the file from a backup"),
    })
}

/// Writes the identity, durable on return.
pub(crate) fn write(files: &SharedFiles, kind: &str, id: u64) -> Result<(), LogError> {
    write_as(files, IDENTITY, kind, id)
}

/// The same under another name, for a directory that does not count yet.
pub(crate) fn write_as(files: &SharedFiles, name: &str, kind: &str, id: u64) -> Result<(), LogError> {
    write_whole(files, name, render(kind, id).as_bytes())
}

/// Writes a small file so that it is there whole or not at all, and durable on return.
pub(crate) fn write_whole(files: &SharedFiles, name: &str, bytes: &[u8]) -> Result<(), LogError> {
    let temporary = format!("{name}.tmp");
    let file = files.create(&temporary).map_err(|source| failure(files, "create", &temporary, source))?;
    write_all_at(&*file, bytes, 0)
        .and_then(|()| uninterrupted(|| file.sync_all()))
        .map_err(|source| failure(files, "write", &temporary, source))?;
    rename(files, &temporary, name)?;
    sync_dir(files)
}

fn render(kind: &str, id: u64) -> String {
    let body = format!("millpond {kind}\nformat = {FORMAT}\nid = {id:016x}\n");
    let checksum = crc32c::crc32c(body.as_bytes());
    format!("{body}checksum = {checksum:08x}\n")
}

fn parse(bytes: &[u8], kind: &str) -> Result<u64, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_string())?;
    let mut lines = text.lines();
    let what = lines.next().unwrap_or_default();
    if what != format!("millpond {kind}") {
        return Err(format!("it is not the identity of a millpond {kind}"));
    }
    let field = |line: Option<&str>, name: &str| {
        line.and_then(|line| line.strip_prefix(name)?.strip_prefix(" = "))
            .map(str::to_string)
            .ok_or_else(|| format!("the line `{name} = ...` is missing"))
    };
    let format = field(lines.next(), "format")?;
    if format != FORMAT.to_string() {
        return Err(format!(
            "it has format {format} and this release knows format {FORMAT}; use a newer release"
        ));
    }
    let id = field(lines.next(), "id")?;
    let id = u64::from_str_radix(&id, 16).map_err(|_| "its id is no hexadecimal number".to_string())?;
    if text != render(kind, id) {
        return Err("its checksum is wrong".to_string());
    }
    Ok(id)
}
