//! The counters, and remembered calls.

use super::{VERSION, fields, key, read_u16, version};
use crate::{idempotency::Call, shard::Counters};
use kit::codec::{Malformed, Reader, end_fields, put_bytes, put_u64};
use model::codec::*;

pub(crate) const META_KEY: &[u8] = b"m";

pub(crate) fn call_key(name: &str) -> Vec<u8> {
    key(b'i', name.as_bytes())
}

pub(crate) fn call(call: &Call) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&call.content.to_le_bytes());
    put_timestamp(&mut out, call.at);
    put_bytes(&mut out, &call.reply);
    out
}

pub(crate) fn read_call(bytes: &[u8]) -> Result<Call, Malformed> {
    let reader = &mut Reader::new(bytes);
    version(reader)?;
    let content =
        reader.take(16, "content hash")?.iter().rev().fold(0, |sum, byte| sum << 8 | u128::from(*byte));
    let call = Call { content, at: read_timestamp(reader)?, reply: reader.bytes("reply")?.to_vec() };
    reader.finish("call")?;
    // A reply that cannot be read is found now, not when somebody asks for it.
    decode_reply(&mut Reader::new(&call.reply))?;
    Ok(call)
}

pub(crate) fn meta(shard: u16, counters: &Counters) -> Vec<u8> {
    let mut out = vec![VERSION];
    let Counters { position, time, sequence, order, token, bulk } = counters;
    put_u64(&mut out, u64::from(shard));
    put_u64(&mut out, *position);
    put_timestamp(&mut out, *time);
    for number in [sequence, order, token, bulk] {
        put_u64(&mut out, *number);
    }
    end_fields(&mut out);
    out
}

pub(crate) fn read_meta(bytes: &[u8]) -> Result<(u16, Counters), Malformed> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let shard = read_u16(reader)?;
    let counters = Counters {
        position: reader.u64("position")?,
        time: read_timestamp(reader)?,
        sequence: reader.u64("sequence")?,
        order: reader.u64("order")?,
        token: reader.u64("token")?,
        bulk: reader.u64("bulk")?,
    };
    fields(reader, version, "counter", |_, _| Ok(false))?;
    reader.finish("counters")?;
    Ok((shard, counters))
}
