use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines of bounded length. A read that is dropped loses nothing.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    bytes_max: usize,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its end.
    Whole(Vec<u8>),
    /// A line longer than allowed; nothing after it makes sense.
    TooLong,
    /// The stream has ended; an unfinished line is dropped.
    End,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, bytes_max: usize) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), bytes_max }
    }

    pub(super) async fn next(&mut self) -> Line {
        loop {
            let chunk = match self.reader.fill_buf().await {
                Ok([]) | Err(_) => return Line::End,
                Ok(chunk) => chunk,
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > self.bytes_max {
                return Line::TooLong;
            }
            self.line.extend_from_slice(part);
            let read = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(read);
            if end.is_some() {
                return Line::Whole(std::mem::take(&mut self.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_long_ones_are_refused() {
        let mut lines = Lines::new(&b"one\n\ntwo\nfar too long\n"[..], 5);
        assert_eq!(lines.next().await, Line::Whole(b"one".to_vec()));
        assert_eq!(lines.next().await, Line::Whole(Vec::new()));
        assert_eq!(lines.next().await, Line::Whole(b"two".to_vec()));
        assert_eq!(lines.next().await, Line::TooLong);
        assert_eq!(Lines::new(&b"cut"[..], 5).next().await, Line::End);
    }
}
