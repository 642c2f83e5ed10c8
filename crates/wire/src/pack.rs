//! MessagePack: what is written, what is read, and how a struct becomes a map.
//!
//! A field whose value is empty (0, false, no text, no list, nothing) is left out, and a field that is left out is empty. A reader
//! passes over what it does not know, allocates no more than the input could fill, and never goes deeper than its own types.

use bytes::Bytes;
use compact_str::CompactString;
use kit::codec::Malformed;

/// A value with a MessagePack form.
pub trait Pack: Sized {
    /// Appends it.
    fn pack(&self, out: &mut Vec<u8>);

    /// Reads it back.
    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed>;

    /// Whether a field of this value is left out.
    fn is_empty(&self) -> bool {
        false
    }

    /// The value of a field that was left out; `None` if it must be there.
    fn empty() -> Option<Self> {
        None
    }
}

/// A place in a message.
#[derive(Debug, Clone)]
pub struct Input<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Input<'a> {
    /// The beginning of a message.
    pub fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether everything was read.
    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What was not read yet.
    pub fn rest(&self) -> Bytes {
        self.bytes.slice(self.at..)
    }

    /// The refusal that names this place.
    pub fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, offset: self.at }
    }

    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or(self.malformed(what))?;
        self.at += count;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, Malformed> {
        let byte = *self.bytes.get(self.at).ok_or(self.malformed(what))?;
        self.at += 1;
        Ok(byte)
    }

    /// A number of so many bytes, the highest first.
    fn big_endian(&mut self, count: usize, what: &'static str) -> Result<u64, Malformed> {
        Ok(self.take(count, what)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize, what: &'static str) -> Result<usize, Malformed> {
        let start = self.malformed(what);
        usize::try_from(self.big_endian(bytes, what)?).map_err(|_| start)
    }

    /// A number from 0 on, in whatever form: also as a float, which is how some writers put large ones.
    pub fn number(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let start = self.malformed(what);
        let signed = |value: u64, bits: u32| {
            let shift = 64 - bits;
            u64::try_from(((value << shift) as i64) >> shift).map_err(|_| start)
        };
        match self.byte(what)? {
            small @ ..0x80 => Ok(small.into()),
            0xcc => self.big_endian(1, what),
            0xcd => self.big_endian(2, what),
            0xce => self.big_endian(4, what),
            0xcf => self.big_endian(8, what),
            0xd0 => signed(self.big_endian(1, what)?, 8),
            0xd1 => signed(self.big_endian(2, what)?, 16),
            0xd2 => signed(self.big_endian(4, what)?, 32),
            0xd3 => signed(self.big_endian(8, what)?, 64),
            0xcb => {
                let value = f64::from_bits(self.big_endian(8, what)?);
                let whole = value as u64;
                // Beyond 2^53 a float no longer says which number was meant.
                if whole as f64 == value && whole < 1 << 53 { Ok(whole) } else { Err(start) }
            }
            _ => Err(start),
        }
    }

    /// Text.
    pub fn text(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let start = self.malformed(what);
        std::str::from_utf8(self.text_bytes(what)?).map_err(|_| start)
    }

    fn text_bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let start = self.malformed(what);
        let length = match self.byte(what)? {
            fixed @ 0xa0..=0xbf => usize::from(fixed & 0x1f),
            0xd9 => self.length(1, what)?,
            0xda => self.length(2, what)?,
            0xdb => self.length(4, what)?,
            _ => return Err(start),
        };
        self.take(length, what)
    }

    /// Bytes, which may also be written as text. They are not copied.
    pub fn blob(&mut self, what: &'static str) -> Result<Bytes, Malformed> {
        let length = match self.bytes.get(self.at) {
            Some(0xc4) => 1,
            Some(0xc5) => 2,
            Some(0xc6) => 4,
            _ => return Ok(self.bytes.slice_ref(self.text(what)?.as_bytes())),
        };
        self.at += 1;
        let length = self.length(length, what)?;
        let start = self.at;
        self.take(length, what)?;
        Ok(self.bytes.slice(start..self.at))
    }

    /// The count of an array. One that the rest cannot hold is refused.
    pub fn array(&mut self, what: &'static str) -> Result<usize, Malformed> {
        let start = self.malformed(what);
        let count = match self.byte(what)? {
            fixed @ 0x90..=0x9f => usize::from(fixed & 0x0f),
            0xdc => self.length(2, what)?,
            0xdd => self.length(4, what)?,
            _ => return Err(start),
        };
        if count > self.bytes.len() - self.at { Err(start) } else { Ok(count) }
    }

    /// The fields of a map: `read` gets each name, and says whether it read the value. What it did not is passed over.
    /// Names are bytes: those we know are compared, and what is not text is none of them.
    pub fn map(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(&'a [u8], &mut Self) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let start = self.malformed(what);
        let count = match self.byte(what)? {
            fixed @ 0x80..=0x8f => usize::from(fixed & 0x0f),
            0xde => self.length(2, what)?,
            0xdf => self.length(4, what)?,
            _ => return Err(start),
        };
        for _ in 0..count {
            let name = self.text_bytes("the name of a field")?;
            if !read(name, self)? {
                self.skip()?;
            }
        }
        Ok(())
    }

    /// Passes over nothing if it comes next.
    pub fn nil(&mut self) -> bool {
        let nil = self.bytes.get(self.at) == Some(&0xc0);
        self.at += usize::from(nil);
        nil
    }

    /// Passes over one value of any kind; without recursion, so that depth costs nothing.
    pub fn skip(&mut self) -> Result<(), Malformed> {
        let what = "a value";
        let mut left = 1u64;
        while left > 0 {
            left -= 1;
            let start = self.malformed(what);
            let bytes = match self.byte(what)? {
                0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => 0,
                fixed @ 0x80..=0x8f => {
                    left += 2 * u64::from(fixed & 0x0f);
                    0
                }
                fixed @ 0x90..=0x9f => {
                    left += u64::from(fixed & 0x0f);
                    0
                }
                fixed @ 0xa0..=0xbf => usize::from(fixed & 0x1f),
                0xc4 | 0xd9 => self.length(1, what)?,
                0xc5 | 0xda => self.length(2, what)?,
                0xc6 | 0xdb => self.length(4, what)?,
                0xc7 => self.length(1, what)? + 1,
                0xc8 => self.length(2, what)? + 1,
                0xc9 => self.length(4, what)? + 1,
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 => 2,
                0xca | 0xce | 0xd2 => 4,
                0xcb | 0xcf | 0xd3 => 8,
                fixed @ 0xd4..=0xd8 => (1 << (fixed - 0xd4)) + 1,
                0xdc => {
                    left += self.big_endian(2, what)?;
                    0
                }
                0xdd => {
                    left += self.big_endian(4, what)?;
                    0
                }
                0xde => {
                    left += 2 * self.big_endian(2, what)?;
                    0
                }
                0xdf => {
                    left += 2 * self.big_endian(4, what)?;
                    0
                }
                0xc1 => return Err(start),
            };
            self.take(bytes, what)?;
        }
        Ok(())
    }

    /// One value of any kind as its bytes.
    pub fn raw(&mut self) -> Result<Bytes, Malformed> {
        let start = self.at;
        self.skip()?;
        Ok(self.bytes.slice(start..self.at))
    }
}

/// Appends a number in its shortest form.
pub fn put_number(out: &mut Vec<u8>, value: u64) {
    match value {
        ..0x80 => out.push(value as u8),
        0x80..0x100 => out.extend_from_slice(&[0xcc, value as u8]),
        0x100..0x1_0000 => {
            out.push(0xcd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.push(0xce);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xcf);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn put_length(out: &mut Vec<u8>, length: usize, byte: u8, word: u8, long: u8) {
    match length {
        ..0x100 if byte != 0 => out.extend_from_slice(&[byte, length as u8]),
        ..0x1_0000 => {
            out.push(word);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            // Nothing that is sent reaches 4 GiB: limits stand before it.
            out.push(long);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

/// Appends text.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    match text.len() {
        short @ ..32 => out.push(0xa0 | short as u8),
        long => put_length(out, long, 0xd9, 0xda, 0xdb),
    }
    out.extend_from_slice(text.as_bytes());
}

/// Appends bytes.
pub fn put_blob(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len(), 0xc4, 0xc5, 0xc6);
    out.extend_from_slice(bytes);
}

/// Appends the head of an array; its items follow.
pub fn put_array(out: &mut Vec<u8>, count: usize) {
    match count {
        few @ ..16 => out.push(0x90 | few as u8),
        many => put_length(out, many, 0, 0xdc, 0xdd),
    }
}

/// Appends nothing, as a value.
pub fn put_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

/// A map being written.
pub struct Fields<'a> {
    out: &'a mut Vec<u8>,
    head: usize,
    count: u16,
}

impl<'a> Fields<'a> {
    /// Begins a map at the end of `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let head = out.len();
        out.push(0x80);
        Self { out, head, count: 0 }
    }

    /// Adds a field, unless it is empty.
    pub fn add<T: Pack>(&mut self, name: &str, value: &T) -> &mut Self {
        if !value.is_empty() {
            self.with(name, |out| value.pack(out));
        }
        self
    }

    /// Adds a field of text, also if there is none.
    pub fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.with(name, |out| put_text(out, text))
    }

    /// Adds a field as `put` writes it.
    pub fn with(&mut self, name: &str, put: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        self.count += 1;
        put_text(self.out, name);
        put(self.out);
        self
    }
}

impl Drop for Fields<'_> {
    /// The count stands before what it counts. Mostly it fits the byte kept for it.
    fn drop(&mut self) {
        match self.count {
            few @ ..16 => self.out[self.head] = 0x80 | few as u8,
            many => {
                let [high, low] = many.to_be_bytes();
                self.out.splice(self.head..=self.head, [0xde, high, low]);
            }
        }
    }
}

/// The value of a field after its map was read.
pub(crate) fn present<T: Pack>(value: Option<T>, name: &'static str, at: &Input<'_>) -> Result<T, Malformed> {
    value.or_else(T::empty).ok_or_else(|| at.malformed(name))
}

/// Reads a map into variables of its fields' names.
macro_rules! read_fields {
    ($input:ident, $what:expr, $($field:ident),* $(,)?) => {
        $(let mut $field = None;)*
        $input.map($what, |name, input| {
            $(if name == stringify!($field).as_bytes() {
                $field = Some($crate::pack::Pack::unpack(input)?);
                return Ok(true);
            })*
            Ok(false)
        })?;
        $(let $field = $crate::pack::present($field, stringify!($field), $input)?;)*
    };
}

/// Makes a struct a map of its fields.
macro_rules! map {
    ($type:ident { $($field:ident),* $(,)? }) => {
        impl $crate::pack::Pack for $type {
            fn pack(&self, out: &mut Vec<u8>) {
                let mut fields = $crate::pack::Fields::new(out);
                $(fields.add(stringify!($field), &self.$field);)*
            }

            fn unpack(input: &mut $crate::pack::Input<'_>) -> Result<Self, kit::codec::Malformed> {
                $crate::pack::read_fields!(input, stringify!($type), $($field),*);
                Ok(Self { $($field),* })
            }
        }
    };
}

/// Writes a value as its name. One that has a usual value may be left out.
macro_rules! names {
    ($($type:ty: $all:expr $(, usually $usual:expr)?;)*) => {
        $(impl $crate::pack::Pack for $type {
            fn pack(&self, out: &mut Vec<u8>) {
                $crate::pack::put_text(out, self.name());
            }

            fn unpack(input: &mut $crate::pack::Input<'_>) -> Result<Self, kit::codec::Malformed> {
                let start = input.malformed(stringify!($type));
                let name = input.text(stringify!($type))?;
                $all.into_iter().find(|value| value.name() == name).ok_or(start)
            }

            $(
                fn is_empty(&self) -> bool {
                    *self == $usual
                }

                fn empty() -> Option<Self> {
                    Some($usual)
                }
            )?
        })*
    };
}

pub(crate) use {map, names, read_fields};

impl Pack for u64 {
    fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, *self);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        input.number("a number")
    }

    fn is_empty(&self) -> bool {
        *self == 0
    }

    fn empty() -> Option<Self> {
        Some(0)
    }
}

impl Pack for u32 {
    fn pack(&self, out: &mut Vec<u8>) {
        put_number(out, (*self).into());
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("a number of 32 bits");
        u32::try_from(input.number("a number")?).map_err(|_| start)
    }

    fn is_empty(&self) -> bool {
        *self == 0
    }

    fn empty() -> Option<Self> {
        Some(0)
    }
}

impl Pack for bool {
    fn pack(&self, out: &mut Vec<u8>) {
        out.push(if *self { 0xc3 } else { 0xc2 });
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("true or false");
        match input.byte("true or false")? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err(start),
        }
    }

    fn is_empty(&self) -> bool {
        !self
    }

    fn empty() -> Option<Self> {
        Some(false)
    }
}

impl Pack for CompactString {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        input.text("text").map(CompactString::from)
    }

    fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }

    fn empty() -> Option<Self> {
        Some(CompactString::default())
    }
}

impl Pack for String {
    fn pack(&self, out: &mut Vec<u8>) {
        put_text(out, self);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        input.text("text").map(String::from)
    }

    fn is_empty(&self) -> bool {
        self.as_str().is_empty()
    }

    fn empty() -> Option<Self> {
        Some(String::new())
    }
}

impl Pack for Bytes {
    fn pack(&self, out: &mut Vec<u8>) {
        put_blob(out, self);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        input.blob("bytes")
    }
}

impl<T: Pack> Pack for Option<T> {
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.pack(out),
            None => put_nil(out),
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        if input.nil() { Ok(None) } else { T::unpack(input).map(Some) }
    }

    fn is_empty(&self) -> bool {
        self.is_none()
    }

    fn empty() -> Option<Self> {
        Some(None)
    }
}

impl<T: Pack> Pack for Box<T> {
    fn pack(&self, out: &mut Vec<u8>) {
        (**self).pack(out);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        T::unpack(input).map(Box::new)
    }

    fn is_empty(&self) -> bool {
        (**self).is_empty()
    }

    fn empty() -> Option<Self> {
        T::empty().map(Box::new)
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn pack(&self, out: &mut Vec<u8>) {
        put_array(out, self.len());
        for item in self {
            item.pack(out);
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let count = input.array("a list")?;
        let mut items = Vec::with_capacity(count.min(1_024));
        for _ in 0..count {
            items.push(T::unpack(input)?);
        }
        Ok(items)
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    fn empty() -> Option<Self> {
        Some(Vec::new())
    }
}

impl<A: Pack, B: Pack> Pack for (A, B) {
    fn pack(&self, out: &mut Vec<u8>) {
        put_array(out, 2);
        self.0.pack(out);
        self.1.pack(out);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        let start = input.malformed("a pair");
        match input.array("a pair")? {
            2 => Ok((A::unpack(input)?, B::unpack(input)?)),
            _ => Err(start),
        }
    }
}
