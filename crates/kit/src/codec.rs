//! The byte codec under every format of ours: unsigned LEB128 numbers, length-prefixed bytes, nothing else.
//!
//! A reader never allocates more than the input could fill, never panics, and names the offset of what it refused.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// Appends `value` as an unsigned LEB128 number: 1 byte below 128, at most 10.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends the length of `bytes`, then `bytes`.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends text as [`put_bytes`] does.
pub fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Appends one byte: 1 for true.
pub fn put_bool(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Appends 0 for `None`, or 1 and the value as `put` writes it.
pub fn put_option<T: ?Sized>(out: &mut Vec<u8>, value: Option<&T>, put: impl FnOnce(&mut Vec<u8>, &T)) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            put(out, value);
        }
    }
}

/// Appends one field that older bytes do not have: its tag, the length of what `put` writes, and that. Tags are 1 to 255 and rise
/// within one value; [`end_fields`] closes the list, [`Reader::fields`] reads it.
pub fn put_field(out: &mut Vec<u8>, tag: u8, put: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&[tag, 0]);
    let start = out.len();
    put(out);
    // The length stands before what it counts. Mostly it fits the byte kept for it.
    match out.len() - start {
        short @ ..0x80 => out[start - 1] = short as u8,
        long => {
            let mut length = Vec::new();
            put_u64(&mut length, long as u64);
            out.splice(start - 1..start, length);
        }
    }
}

/// Ends a list of [`put_field`]s.
pub fn end_fields(out: &mut Vec<u8>) {
    out.push(0);
}

/// Why bytes could not be read back, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
    /// Offset in the input, in bytes.
    pub offset: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {} at byte {}", self.what, self.offset)
    }
}

impl core::error::Error for Malformed {}

/// Reads what the `put_*` functions wrote.
///
/// ```
/// use kit::codec::{Reader, put_str, put_u64};
/// let mut bytes = Vec::new();
/// put_u64(&mut bytes, 300);
/// put_str(&mut bytes, "pond");
/// let mut reader = Reader::new(&bytes);
/// assert_eq!(reader.u64("count")?, 300);
/// assert_eq!(reader.str("name")?, "pond");
/// reader.finish("record")?;
/// # Ok::<(), kit::codec::Malformed>(())
/// ```
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `input`.
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// The offset of the next byte.
    pub const fn offset(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.input.len() - self.at
    }

    /// The refusal that names this place.
    pub const fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, offset: self.at }
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        let byte = *self.input.get(self.at).ok_or(self.malformed(what))?;
        self.at += 1;
        Ok(byte)
    }

    /// One LEB128 number in its shortest form; a longer spelling is refused, so every value has one encoding.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let start = self.at;
        let mut value: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 || byte == 0 && shift > 0 {
                return Err(Malformed { what, offset: start });
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed { what, offset: start })
    }

    /// A number that must fit 32 bits.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let start = self.at;
        u32::try_from(self.u64(what)?).map_err(|_| Malformed { what, offset: start })
    }

    /// One byte that is 0 or 1.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, Malformed> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed { what, offset: self.at - 1 }),
        }
    }

    /// Exactly `count` bytes.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let end =
            self.at.checked_add(count).filter(|end| *end <= self.input.len()).ok_or(self.malformed(what))?;
        let bytes = &self.input[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    /// Length-prefixed bytes, borrowed from the input.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        let length = usize::try_from(self.u64(what)?).map_err(|_| Malformed { what, offset: start })?;
        self.take(length, what)
    }

    /// Length-prefixed UTF-8.
    pub fn str(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let start = self.at;
        core::str::from_utf8(self.bytes(what)?).map_err(|_| Malformed { what, offset: start })
    }

    /// Length-prefixed UTF-8 as an owned string.
    pub fn string(&mut self, what: &'static str) -> Result<String, Malformed> {
        self.str(what).map(String::from)
    }

    /// What [`put_option`] wrote.
    pub fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool(what)? { read(self).map(Some) } else { Ok(None) }
    }

    /// A count, then that many items. A count that the rest of the input cannot hold is refused before anything is allocated.
    pub fn list<T>(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let start = self.at;
        let count = usize::try_from(self.u64(what)?).map_err(|_| Malformed { what, offset: start })?;
        if count > self.remaining() {
            return Err(Malformed { what, offset: start });
        }
        let mut items = Vec::with_capacity(count.min(1_024));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// What [`put_field`] and [`end_fields`] wrote. `read` gets each tag with a reader of that field alone, and says whether it knows
    /// the tag. An unknown tag is refused, so that a field of a newer version is never dropped silently.
    ///
    /// ```
    /// use kit::codec::{Reader, end_fields, put_field, put_u64};
    /// let mut bytes = Vec::new();
    /// put_field(&mut bytes, 3, |out| put_u64(out, 7));
    /// end_fields(&mut bytes);
    /// let mut weight = 1;
    /// Reader::new(&bytes).fields("group", |tag, field| {
    ///     match tag {
    ///         3 => weight = field.u64("weight")?,
    ///         _ => return Ok(false),
    ///     }
    ///     Ok(true)
    /// })?;
    /// assert_eq!(weight, 7);
    /// # Ok::<(), kit::codec::Malformed>(())
    /// ```
    pub fn fields(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(u8, &mut Reader<'a>) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let mut last = 0;
        loop {
            let start = self.at;
            let tag = self.u8(what)?;
            if tag == 0 {
                return Ok(());
            }
            let length = self.bytes(what)?.len();
            let mut field = Reader { input: &self.input[..self.at], at: self.at - length };
            if tag <= last || !read(tag, &mut field)? {
                return Err(Malformed { what, offset: start });
            }
            field.finish(what)?;
            last = tag;
        }
    }

    /// Refuses bytes left over.
    pub fn finish(&self, what: &'static str) -> Result<(), Malformed> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.malformed(what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_have_one_spelling() {
        for value in [0, 1, 127, 128, 300, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_u64(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.u64("n"), Ok(value));
            assert!(reader.finish("n").is_ok());
        }
        for bad in [&[0x80, 0x00][..], &[0x80], &[0xff; 10], &[0xff; 11]] {
            assert_eq!(Reader::new(bad).u64("n").map_err(|e| e.what), Err("n"), "{bad:?}");
        }
    }

    #[test]
    fn fields_that_are_unknown_repeated_or_longer_than_read_are_refused() {
        let fields = |tags: &[u8]| {
            let mut bytes = Vec::new();
            tags.iter().for_each(|tag| put_field(&mut bytes, *tag, |out| put_u64(out, 5)));
            end_fields(&mut bytes);
            bytes
        };
        let read = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes);
            reader.fields("f", |tag, field| Ok(tag < 4 && field.u64("n")? == 5))?;
            reader.finish("f")
        };
        assert!(read(&fields(&[])).is_ok() && read(&fields(&[1, 3])).is_ok());
        for bad in [&fields(&[4])[..], &fields(&[2, 2]), &fields(&[3, 1]), &[1, 2, 5, 5, 0], &[1, 1, 5], &[]]
        {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lengths_beyond_the_input_are_refused_before_allocation() {
        let mut bytes = Vec::new();
        put_u64(&mut bytes, u64::MAX);
        assert!(Reader::new(&bytes).bytes("b").is_err());
        assert!(Reader::new(&bytes).list("l", |r| r.u8("x")).is_err());
    }
}
