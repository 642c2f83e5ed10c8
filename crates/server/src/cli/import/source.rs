//! What is imported: a file or standard input, its form, and the fingerprint that names it.

use crate::cli::failure::Failure;
use server::rows::{Csv, Input, Ndjson, Place, Rows, Rules};
use std::{
    fs::File,
    io::{Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes from the start that go into the fingerprint.
const HEAD_BYTES: u64 = 64 << 10;

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated, the first line names the columns
    Csv,
    /// The same with tabs
    Tsv,
    /// One JSON value a line
    #[value(alias = "jsonl")]
    Ndjson,
}

/// Something that can be imported.
pub(crate) struct Source {
    /// For people and for names of files beside it.
    pub(super) name: String,
    /// Its size, if that is known: then it can also be read from the middle.
    pub(super) size: Option<u64>,
    pub(super) format: Format,
    /// Of its size and its first 64 KiB; 0 for a pipe, which only its state file can name.
    pub(super) fingerprint: u64,
    head: Vec<u8>,
    path: Option<PathBuf>,
    rest: Box<dyn Read + Send>,
}

impl Source {
    /// A file, or standard input for `-`.
    pub(crate) fn open(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Self::of("stdin".to_owned(), None, None, Box::new(std::io::stdin()), format);
        }
        let file = File::open(path).map_err(|error| Failure::file(path, "open", &error))?;
        let metadata = file.metadata().map_err(|error| Failure::file(path, "look at", &error))?;
        if metadata.is_dir() {
            return Err(Failure::Usage(format!("{} is a folder, not a file", path.display())));
        }
        // A pipe has no size, and what was read from it is gone.
        let size = metadata.is_file().then_some(metadata.len());
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self::of(name, size, Some(path.to_owned()), Box::new(file), format)
    }

    /// Text that is part of the program.
    pub(crate) fn text(name: &str, text: &'static str) -> Result<Self, Failure> {
        let size = Some(text.len() as u64);
        Self::of(name.to_owned(), size, None, Box::new(Cursor::new(text)), None)
    }

    fn of(
        name: String,
        size: Option<u64>,
        path: Option<PathBuf>,
        mut rest: Box<dyn Read + Send>,
        format: Option<Format>,
    ) -> Result<Self, Failure> {
        let mut head = Vec::new();
        let read = match size {
            Some(_) => rest.by_ref().take(HEAD_BYTES).read_to_end(&mut head),
            // Nobody should wait for 64 KiB of a pipe that brings a row now and then.
            None => first_bytes(&mut rest, &mut head),
        };
        read.map_err(|error| Failure::file(Path::new(&name), "read", &error))?;
        let format = format.unwrap_or_else(|| guess(&name, &head));
        let fingerprint = size.map_or(0, |size| xxh3_64_with_seed(&head, size));
        Ok(Self { name, size, format, fingerprint, head, path, rest })
    }

    /// Its rows from `place` on.
    pub(super) fn rows(self, rules: Rules, place: Place) -> Result<Rows, Failure> {
        let name = self.name.clone();
        let failed = |error: std::io::Error| Failure::file(Path::new(&name), "read", &error);
        // What is appended while the import runs belongs to another import.
        let rest =
            self.rest.take(self.size.map_or(u64::MAX, |size| size.saturating_sub(self.head.len() as u64)));
        let whole: Box<dyn Read + Send> = Box::new(Cursor::new(self.head).chain(rest));
        let later: Option<Box<dyn Read + Send>> = match (&self.path, self.size) {
            (Some(path), Some(size)) if place != Place::START => {
                let mut file = File::open(path).map_err(failed)?;
                file.seek(SeekFrom::Start(place.offset)).map_err(failed)?;
                Some(Box::new(file.take(size.saturating_sub(place.offset))))
            }
            _ => None,
        };
        let mut rows = match self.format {
            Format::Ndjson => match later {
                Some(later) => {
                    let input = Input::new(later, place.offset, place.line);
                    return Ok(Rows::Ndjson(Ndjson::new(input, rules, place.row).map_err(failed)?));
                }
                None => Rows::Ndjson(Ndjson::new(Input::new(whole, 0, 1), rules, 0).map_err(failed)?),
            },
            Format::Csv | Format::Tsv => {
                let heading = Csv::new(Input::new(whole, 0, 1), rules).map_err(failed)?;
                let csv = heading.map_err(|reason| Failure::Usage(format!("{name}: {reason}")))?;
                match later {
                    Some(later) => return Ok(Rows::Csv(Box::new(csv.resume(later, place)))),
                    None => Rows::Csv(Box::new(csv)),
                }
            }
        };
        // A pipe must be read again from its start.
        while rows.place().row < place.row && rows.read().map_err(failed)?.is_some() {}
        Ok(rows)
    }
}

/// What one read brings.
fn first_bytes(reader: &mut dyn Read, head: &mut Vec<u8>) -> std::io::Result<usize> {
    head.resize(8 << 10, 0);
    loop {
        match reader.read(head) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            read => {
                head.truncate(*read.as_ref().unwrap_or(&0));
                return read;
            }
        }
    }
}

fn guess(name: &str, head: &[u8]) -> Format {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    match extension.as_str() {
        "csv" => Format::Csv,
        "tsv" | "tab" => Format::Tsv,
        "ndjson" | "jsonl" | "json" => Format::Ndjson,
        _ => {
            let head = head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(head);
            match head.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'{' | b'[') => Format::Ndjson,
                _ => Format::Csv,
            }
        }
    }
}
