//! The frames of a backup on its way from a server to whoever keeps it. Drawn in `http/handlers/backup.rs`.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// The id of the data directory.
    Head = 1,
    /// A chunk.
    Chunk = 2,
    /// A chunk that is there already.
    Kept = 3,
    /// The manifest.
    End = 4,
}

/// Bytes before the payload.
pub const HEADER: usize = 5;

impl Frame {
    /// The kind and the length of the payload.
    pub fn read(header: [u8; HEADER]) -> Option<(Frame, usize)> {
        let [kind, length @ ..] = header;
        let kind = [Frame::Head, Frame::Chunk, Frame::Kept, Frame::End]
            .into_iter()
            .find(|known| *known as u8 == kind)?;
        Some((kind, u32::from_le_bytes(length) as usize))
    }
}

/// A frame with the parts of its payload one after the other.
pub fn frame(kind: Frame, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(HEADER + length);
    out.put_u8(kind as u8);
    out.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    parts.iter().for_each(|part| out.put_slice(part));
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_says_what_it_is_and_how_long() {
        let bytes = frame(Frame::Kept, &[b"ab", b"c"]);
        let (header, payload) = bytes.split_first_chunk::<HEADER>().unwrap();
        assert_eq!((Frame::read(*header), payload), (Some((Frame::Kept, 3)), &b"abc"[..]));
        assert_eq!(Frame::read([9, 0, 0, 0, 0]), None);
    }
}
