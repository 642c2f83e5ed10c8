//! Bytes of a file or a pipe, with the offset and the line that were reached.

use std::io::{self, BufRead, BufReader, Read};

const BUFFER_BYTES: usize = 256 << 10;
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// A buffered reader that knows where it is.
pub struct Input {
    reader: BufReader<Box<dyn Read + Send>>,
    /// Bytes consumed.
    pub(super) offset: u64,
    /// The line of the next byte, 1 for the first.
    pub(super) line: u64,
}

impl Input {
    /// Reads on from `offset`, which is on line `line`.
    pub fn new(reader: Box<dyn Read + Send>, offset: u64, line: u64) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER_BYTES, reader), offset, line }
    }

    /// The next bytes; none at the end.
    pub(super) fn peek(&mut self) -> io::Result<&[u8]> {
        loop {
            match self.reader.fill_buf() {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.reader.buffer())
    }

    /// Moves on by `count` of the bytes shown by [`Input::peek`].
    pub(super) fn consume(&mut self, count: usize) {
        let lines = self.reader.buffer()[..count].iter().filter(|byte| **byte == b'\n').count();
        self.line += lines as u64;
        self.offset += count as u64;
        self.reader.consume(count);
    }

    /// Passes over a byte order mark, if it comes next.
    pub(super) fn skip_bom(&mut self) -> io::Result<()> {
        if self.peek()?.starts_with(BOM) {
            self.consume(BOM.len());
        }
        Ok(())
    }

    /// Passes over line ends.
    pub(super) fn skip_line_ends(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.peek()?;
            let count = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let all = count == bytes.len();
            self.consume(count);
            if !all || count == 0 {
                return Ok(());
            }
        }
    }

    /// Reads up to the next line end into `out`, and past it. What exceeds `max` bytes is passed over, not kept;
    /// then the answer is `Some(false)`. `None` at the end of the input.
    pub(super) fn read_line(&mut self, out: &mut Vec<u8>, max: usize) -> io::Result<Option<bool>> {
        out.clear();
        let mut whole = true;
        let mut any = false;
        loop {
            let bytes = self.peek()?;
            if bytes.is_empty() {
                return Ok(any.then_some(whole));
            }
            any = true;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = max - out.len();
            whole &= part.len() <= room;
            out.extend_from_slice(&part[..part.len().min(room)]);
            let consumed = part.len() + usize::from(end.is_some());
            self.consume(consumed);
            if end.is_some() {
                return Ok(Some(whole));
            }
        }
    }
}
