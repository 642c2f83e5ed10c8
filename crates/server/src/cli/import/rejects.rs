//! The rows that could not be read, one JSON object a line.

use crate::cli::failure::Failure;
use serde_json::json;
use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// A file that is made when the first row is rejected.
pub(super) struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    bytes: u64,
}

impl Rejects {
    /// Goes on after the first `bytes` of the file; what follows belongs to rows that will be read again.
    pub(super) fn resume(path: &Path, bytes: u64) -> Result<Self, Failure> {
        let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len().min(bytes));
        let mut rejects = Self { path: path.to_owned(), file: None, bytes };
        if bytes > 0 {
            rejects.open()?;
        } else if path.exists() {
            std::fs::remove_file(path).map_err(|error| Failure::file(path, "remove old", &error))?;
        }
        Ok(rejects)
    }

    pub(super) fn write(&mut self, line: u64, row: u64, reason: &str, text: &str) -> Result<(), Failure> {
        let entry = json!({"line": line, "row": row, "reason": reason, "text": text}).to_string();
        let file = match &mut self.file {
            Some(file) => file,
            None => self.open()?,
        };
        let written = writeln!(file, "{entry}");
        written.map_err(|error| Failure::file(&self.path, "write rejected rows to", &error))?;
        self.bytes += entry.len() as u64 + 1;
        Ok(())
    }

    /// Hands everything to the system; answers with the size of the file.
    pub(super) fn flush(&mut self) -> Result<u64, Failure> {
        if let Some(file) = &mut self.file {
            file.flush().map_err(|error| Failure::file(&self.path, "write rejected rows to", &error))?;
        }
        Ok(self.bytes)
    }

    fn open(&mut self) -> Result<&mut BufWriter<File>, Failure> {
        let opened = || -> std::io::Result<File> {
            let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
            file.set_len(self.bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = opened().map_err(|error| {
            Failure::file(&self.path, "write rejected rows (choose a place with --rejects) to", &error)
        })?;
        Ok(self.file.insert(BufWriter::new(file)))
    }
}
