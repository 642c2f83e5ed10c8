//! The records of a checkpoint: a key, a value, and how to read them back.
//!
//! ```text
//! b | sequence (8 bytes, big endian)   the body, as it was pushed
//! g | gate                             what a gate remembers
//! h | queue (4 bytes, big endian), group   a group's time and settings
//! e | sequence, number (8 bytes each)  a durable step of a job
//! d | queue (4), fingerprint (8)        a class of errors
//! i | idempotency key                  a remembered call and its reply
//! j | sequence (8 bytes, big endian)   a job without its body
//! l | key or pattern                   a limit
//! m                                    the counters
//! n | number (8 bytes, big endian)     a join; with a place (4 bytes, big endian) behind it, a member
//! o | number (8 bytes, big endian)     a bulk operation
//! q | index (4 bytes, big endian)      a queue
//! s | = | schedule id                  what a schedule is
//! s | + | schedule id                  how far it has come
//! s | / | hash (16 bytes, big endian)  the rules of a time zone
//! u | queue (4 bytes, big endian), key a throttled unique key
//! ```
//!
//! Every value begins with the version of its layout; old versions are read for ever. A new field takes the next free tag in the
//! list of tagged fields at the end of its value (see [`kit::codec::put_field`]): absent means the default.

mod bulk;
mod flow;
mod job;
mod join;
mod queue;
mod schedule;
mod shard;

pub(crate) use bulk::*;
pub(crate) use flow::*;
pub(crate) use job::*;
pub(crate) use join::*;
pub(crate) use queue::*;
pub(crate) use schedule::*;
pub(crate) use shard::*;

use bytes::Bytes;
use compact_str::CompactString;
use kit::codec::{Malformed, Reader, put_bytes, put_str};

/// Version 2 ends jobs, their two boxes, queues and counters with a list of tagged fields. Version 1 had none.
const VERSION: u8 = 2;

/// The key of a job's body in the checkpoint store.
pub fn body_key(sequence: u64) -> Vec<u8> {
    key(b'b', &sequence.to_be_bytes())
}

fn key(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(kind);
    key.extend_from_slice(rest);
    key
}

fn version(reader: &mut Reader<'_>) -> Result<u8, Malformed> {
    match reader.u8("record version")? {
        version @ 1..=VERSION => Ok(version),
        _ => Err(reader.malformed("record version")),
    }
}

/// The tagged fields at the end of a value, of which version 1 has none.
fn fields(
    reader: &mut Reader<'_>,
    version: u8,
    what: &'static str,
    read: impl FnMut(u8, &mut Reader<'_>) -> Result<bool, Malformed>,
) -> Result<(), Malformed> {
    if version == 1 { Ok(()) } else { reader.fields(what, read) }
}

fn put_opaque(out: &mut Vec<u8>, bytes: &Bytes) {
    put_bytes(out, bytes);
}

fn read_opaque(reader: &mut Reader<'_>) -> Result<Bytes, Malformed> {
    reader.bytes("bytes").map(Bytes::copy_from_slice)
}

fn put_text(out: &mut Vec<u8>, text: &CompactString) {
    put_str(out, text);
}

fn read_text(reader: &mut Reader<'_>) -> Result<CompactString, Malformed> {
    reader.str("text").map(CompactString::from)
}

fn read_u16(reader: &mut Reader<'_>) -> Result<u16, Malformed> {
    u16::try_from(reader.u64("count")?).map_err(|_| reader.malformed("count"))
}
