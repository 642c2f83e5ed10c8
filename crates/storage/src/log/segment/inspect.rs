//! Reads a log's directory whole, file by file, and goes on behind damage: an opening stops at the first.

use super::{
    format::{SegmentHeader, record_size},
    image::walk,
    recover::{Headers, LOCK, find_end, load_header, sequences},
    space::{self, RESERVE, TEMPORARY, read_range, segment_name, segment_sequence},
    witness,
};
use crate::{files::SharedFiles, identity::IDENTITY, log::LogError};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
};

/// One file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its name.
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) bytes: u64,
    /// What is in it, in words.
    pub(crate) holds: String,
    /// Records that were read whole.
    pub(crate) records: u64,
    /// What is wrong with it.
    pub(crate) wrong: Option<Wrong>,
}

/// Damage of a file of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Where it begins, if there is a place.
    pub(crate) offset: Option<u64>,
    pub(crate) reason: String,
    /// The first and the last record that are no longer to be had; the last one may be open.
    pub(crate) lost: Option<(u64, Option<u64>)>,
}

impl Wrong {
    fn at(offset: u64, reason: String) -> Self {
        Self { offset: Some(offset), reason, lost: None }
    }
}

/// Reads every file. Fails only if the system does not let it.
pub(crate) fn inspect(files: &SharedFiles, directory: u64) -> Result<Vec<Found>, LogError> {
    let mut segments = segments(files, directory)?;
    let mut found = Vec::new();
    for name in space::list(files)? {
        match segment_sequence(&name).and_then(|sequence| segments.remove(&sequence)) {
            Some(segment) => found.push(segment),
            None => found.push(other(files, name, directory)?),
        }
    }
    // Those that should be there and are not.
    found.extend(segments.into_values());
    Ok(found)
}

fn other(files: &SharedFiles, name: String, directory: u64) -> Result<Found, LogError> {
    let (holds, wrong) = match name.as_str() {
        LOCK => ("the lock, which nobody holds", None),
        IDENTITY => {
            let read = super::recover::check_identity(files, directory);
            ("what this is", read.err().map(|error| Wrong::at(0, error.to_string())))
        }
        witness::NAME => {
            let bytes = read_range(files, &*space::open(files, &name)?, &name, SMALL_MAX)?;
            let wrong =
                (!witness::is_whole(&bytes)).then(|| Wrong::at(0, "its checksum is wrong".to_owned()));
            ("how far the log went when it was last closed", wrong)
        }
        RESERVE => ("room for results when the disk is full", None),
        TEMPORARY => ("a file in the making, which counts for nothing yet", None),
        _ if name.starts_with("spare-") => ("room for later records", None),
        _ if name.ends_with(".tmp") => ("a file in the making, which counts for nothing yet", None),
        _ => ("nothing that this release knows; it is left alone", None),
    };
    let length = length_of(files, &name)?;
    Ok(Found { name, bytes: length, holds: holds.to_owned(), records: 0, wrong })
}

/// A file of words that is longer is none of ours.
const SMALL_MAX: u64 = 4_096;

fn length_of(files: &SharedFiles, name: &str) -> Result<u64, LogError> {
    space::open(files, name)?.len().map_err(|source| space::failure(files, "measure", name, source))
}

fn segments(files: &SharedFiles, directory: u64) -> Result<BTreeMap<u64, Found>, LogError> {
    let mut found = BTreeMap::new();
    let mut headers = Headers { live: VecDeque::new(), replaced: Vec::new() };
    for sequence in sequences(files)? {
        let (holds, wrong) = match load_header(files, sequence, directory) {
            Ok(header) => {
                // Whether it follows shows below, from both sides.
                headers.push(header);
                continue;
            }
            Err(LogError::Corrupt { offset, reason, .. }) => ("records", Wrong::at(offset, reason)),
            Err(LogError::Foreign { reason, .. }) => ("records of something else", Wrong::at(0, reason)),
            Err(error) => return Err(error),
        };
        found.insert(sequence, segment(files, sequence, holds, Some(wrong))?);
    }
    for sequence in headers.replaced {
        let holds = "records that a later file has as well; it counts for nothing";
        found.insert(sequence, segment(files, sequence, holds, None)?);
    }
    let live = headers.live.make_contiguous();
    let mut end = 1;
    for (at, header) in live.iter().enumerate() {
        let next = live.get(at + 1);
        let file;
        (file, end) = read(files, header, next)?;
        found.insert(header.sequence, file);
        if let Some(next) = next.filter(|next| next.previous != header.sequence) {
            let missing = Found {
                name: segment_name(next.previous),
                bytes: 0,
                holds: "records".to_owned(),
                records: 0,
                wrong: Some(Wrong { offset: None, reason: "the file is missing".to_owned(), lost: None }),
            };
            let between = found.entry(next.previous).or_insert(missing);
            if let Some(wrong) = &mut between.wrong {
                wrong.lost = Some((end, Some(next.first - 1)));
            }
        }
    }
    // Files that cannot be read before the first or behind the last that can.
    for (sequence, file) in &mut found {
        if let Some(wrong) = file.wrong.as_mut().filter(|wrong| wrong.lost.is_none()) {
            let next = live.iter().find(|header| header.sequence > *sequence);
            wrong.lost = Some((if next.is_some() { 1 } else { end }, next.map(|next| next.first - 1)));
        }
    }
    if let Some(last) = live.last()
        && let Err(LogError::Corrupt { index, reason, .. }) =
            witness::compare(files, witness::read(files)?, end)
        && let Some(file) = found.get_mut(&last.sequence)
    {
        let wrong = Wrong { offset: None, reason, lost: Some((index, None)) };
        file.wrong.get_or_insert(wrong);
    }
    Ok(found)
}

fn segment(files: &SharedFiles, sequence: u64, holds: &str, wrong: Option<Wrong>) -> Result<Found, LogError> {
    let name = segment_name(sequence);
    Ok(Found { bytes: length_of(files, &name)?, name, holds: holds.to_owned(), records: 0, wrong })
}

/// Reads a segment file up to where the next one begins, or to the end of the log; says as well where its records end.
fn read(
    files: &SharedFiles,
    header: &SegmentHeader,
    next: Option<&SegmentHeader>,
) -> Result<(Found, u64), LogError> {
    let name = segment_name(header.sequence);
    let image = read_range(files, &*space::open(files, &name)?, &name, u64::MAX)?;
    let until = next.map_or(u64::MAX, |next| next.first);
    let mut bytes = 0;
    let Ok(end) = walk(&image, header, until, |_, payload, _| {
        bytes += record_size(payload.len()) as u64;
        Ok::<_, Infallible>(())
    });
    let lost = Some((end.index, next.map(|next| next.first - 1)));
    let at = |reason: &str| Wrong { offset: Some(end.offset as u64), reason: reason.to_owned(), lost };
    let wrong = match next {
        Some(next) if next.previous != header.sequence => None,
        Some(_) if end.index < until => Some(at("a record is not whole any more")),
        Some(next) if end.chain != next.chain => Some(at("the next file does not continue this one")),
        Some(_) => None,
        None => find_end(&image, header).err().map(|broken| at(broken.reason)),
    };
    let records = end.index - header.first;
    let holds = match records {
        0 => format!("no records yet; the next is {}", header.first),
        _ => format!("records {} to {}, {bytes} bytes", header.first, end.index - 1),
    };
    Ok((Found { name, bytes: image.len() as u64, holds, records, wrong }, end.index))
}
