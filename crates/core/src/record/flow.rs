//! Gates, groups and limits.

use super::{VERSION, fields, key, version};
use crate::flow::{Circuit, GateKey, Group, Memory};
use compact_str::CompactString;
use kit::codec::{Malformed, Reader, end_fields, put_bool, put_option, put_u64};
use model::{Limit, codec::*};

pub(crate) fn limit_key(pattern: &str) -> Vec<u8> {
    key(b'l', pattern.as_bytes())
}

pub(crate) fn group_key(queue: u32, name: &str) -> Vec<u8> {
    let mut bytes = key(b'h', &queue.to_be_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

pub(crate) fn gate_key(gate: &GateKey) -> Vec<u8> {
    let mut bytes = key(b'g', &[]);
    match gate {
        GateKey::Limit(name) => {
            bytes.push(b'l');
            bytes.extend_from_slice(name.as_bytes());
        }
        GateKey::Order(queue, name) => {
            bytes.push(b'o');
            bytes.extend_from_slice(&queue.to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        GateKey::Queue(queue) => {
            bytes.push(b'q');
            bytes.extend_from_slice(&queue.to_be_bytes());
        }
        GateKey::Retries(queue) => {
            bytes.push(b'r');
            bytes.extend_from_slice(&queue.to_be_bytes());
        }
    }
    bytes
}

/// The gate of a key that [`gate_key`] wrote, without its first byte.
pub(crate) fn read_gate_key(bytes: &[u8]) -> Option<GateKey> {
    let (kind, rest) = bytes.split_first()?;
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(CompactString::from);
    let queue = || rest.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    match kind {
        b'l' => Some(GateKey::Limit(text(rest)?)),
        b'o' => Some(GateKey::Order(queue()?, text(&rest[4..])?)),
        b'q' => Some(GateKey::Queue(queue()?)),
        b'r' => Some(GateKey::Retries(queue()?)),
        _ => None,
    }
}

/// Queue and name of a key that [`group_key`] wrote, without its first byte.
pub(crate) fn read_group_key(bytes: &[u8]) -> Option<(u32, CompactString)> {
    let (queue, name) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*queue), std::str::from_utf8(name).ok()?.into()))
}

pub(crate) fn memory(memory: &Memory) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_u64(&mut out, memory.full_at);
    put_timestamp(&mut out, memory.closed_until);
    put_option(&mut out, memory.circuit.as_deref(), |out, circuit| circuit.put(out));
    end_fields(&mut out);
    out
}

pub(crate) fn read_memory(bytes: &[u8]) -> Result<Memory, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let memory = Memory {
        full_at: reader.u64("rate")?,
        closed_until: read_timestamp(reader)?,
        circuit: reader.option("circuit", Circuit::read)?.map(Box::new),
    };
    fields(reader, version, "field of a gate", |_, _| Ok(false))?;
    reader.finish("gate")?;
    Ok(memory)
}

/// A group, by the clock of its lineup: an idle one keeps its time only while that is still ahead.
pub(crate) fn group(group: &Group, clock: u64) -> Vec<u8> {
    let (tag, seat) = match group.waiting {
        0 if group.tag <= clock => (0, 0),
        0 => (group.tag, 0),
        _ => group.at(),
    };
    let mut out = vec![VERSION];
    put_u64(&mut out, group.weight.into());
    put_bool(&mut out, group.paused);
    put_u64(&mut out, tag);
    put_u64(&mut out, seat);
    end_fields(&mut out);
    out
}

pub(crate) fn read_group(name: CompactString, bytes: &[u8]) -> Result<Group, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let group = Group {
        weight: reader.u32("weight")?,
        paused: reader.bool("paused")?,
        tag: reader.u64("virtual time")?,
        seat: reader.u64("seat")?,
        ..Group::new(name)
    };
    fields(reader, version, "field of a group", |_, _| Ok(false))?;
    reader.finish("group")?;
    Ok(group)
}

pub(crate) fn limit(limit: &Limit) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_limit(&mut out, limit);
    end_fields(&mut out);
    out
}

pub(crate) fn read_limit_record(bytes: &[u8]) -> Result<Limit, Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let limit = read_limit(reader)?;
    fields(reader, version, "field of a limit", |_, _| Ok(false))?;
    reader.finish("limit")?;
    Ok(limit)
}
