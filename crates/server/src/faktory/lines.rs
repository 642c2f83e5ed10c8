//! The lines of a connection: read within limits of size and time, answered one by one.

use super::answer::Answer;
use bytes::{Buf, Bytes, BytesMut};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

/// Bytes of a line that need no share of the memory for bodies, and those read ahead while an answer is worked on.
const FREE_BYTES: usize = 64 << 10;
/// How long a long line waits for its share of memory.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// What a line may cost.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes of one line.
    pub(super) bytes_max: usize,
    /// A line that has begun must have arrived within this.
    pub(super) timeout: Duration,
    /// Memory for long lines, in KiB.
    pub(super) room: Arc<Semaphore>,
}

/// Why there is no next line. The text is for the client.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The other side is gone.
    #[error("the connection is gone: {0}")]
    Gone(#[from] io::Error),
    /// It is longer than allowed.
    #[error("a line has at most {0} bytes")]
    TooLong(usize),
    /// It takes too long to arrive.
    #[error("the line did not arrive in time")]
    TooSlow,
    /// Others use the memory.
    #[error("too many long lines are under way; nothing was changed: try again")]
    Overloaded,
}

/// A connection as lines.
#[derive(Debug)]
pub(super) struct Lines<S> {
    stream: S,
    limits: Limits,
    read: BytesMut,
    /// Bytes that hold no end of a line.
    searched: usize,
    /// When the line that is arriving began.
    begun: Option<Instant>,
    share: Option<OwnedSemaphorePermit>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    pub(super) fn new(stream: S, limits: Limits) -> Self {
        Self { stream, limits, read: BytesMut::new(), searched: 0, begun: None, share: None }
    }

    /// The next line without its end; `None` when the client has closed the connection. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.read.is_empty() {
            // The line before is done with.
            self.share = None;
        }
        loop {
            if let Some(at) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.read.split_to(self.searched + at).freeze();
                self.read.advance(1);
                (self.searched, self.begun) = (0, None);
                if line.ends_with(b"\r") {
                    line.truncate(line.len() - 1);
                }
                return Ok(Some(line));
            }
            self.searched = self.read.len();
            if self.read.len() > self.limits.bytes_max {
                return Err(Broken::TooLong(self.limits.bytes_max));
            }
            self.make_room().await?;
            let began = match self.read.is_empty() {
                true => None,
                false => Some(*self.begun.get_or_insert_with(Instant::now)),
            };
            let reading = self.stream.read_buf(&mut self.read);
            let count = match began {
                None => reading.await?,
                Some(began) => {
                    timeout_at(began + self.limits.timeout, reading).await.map_err(|_| Broken::TooSlow)??
                }
            };
            if count == 0 {
                return Ok(None);
            }
        }
    }

    /// Has as much of the shared memory as the line that is arriving needs.
    async fn make_room(&mut self) -> Result<(), Broken> {
        let kib = self.read.len().saturating_sub(FREE_BYTES).div_ceil(1_024);
        let has = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if kib <= has {
            return Ok(());
        }
        // Twice what is there, so that a line asks a few times only.
        let more = u32::try_from(kib.saturating_mul(2) - has).unwrap_or(u32::MAX);
        let asked = timeout(ROOM_TIMEOUT, Arc::clone(&self.limits.room).acquire_many_owned(more)).await;
        let Ok(Ok(more)) = asked else { return Err(Broken::Overloaded) };
        match &mut self.share {
            Some(share) => share.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }

    /// Resolves when the client has closed the connection. What it sends meanwhile is kept for later.
    pub(super) async fn gone(&mut self) {
        while self.read.len() < FREE_BYTES {
            match self.stream.read_buf(&mut self.read).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Sends an answer.
    pub(super) async fn answer(&mut self, answer: Answer) -> Result<(), Broken> {
        self.stream.write_all(&answer.into_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    /// Says goodbye, so that what was sent last arrives.
    pub(super) async fn close(mut self) {
        // The other side may have left first.
        let _ = self.stream.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &'static [u8], bytes_max: usize) -> Lines<tokio_test_io::Once> {
        let limits =
            Limits { bytes_max, timeout: Duration::from_secs(60), room: Arc::new(Semaphore::new(1 << 10)) };
        Lines::new(tokio_test_io::Once(bytes), limits)
    }

    /// A stream that says something and ends.
    mod tokio_test_io {
        use std::{
            io,
            pin::Pin,
            task::{Context, Poll},
        };
        use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

        pub(super) struct Once(pub(super) &'static [u8]);

        impl AsyncRead for Once {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                into: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                // Three bytes at a time, so that ends of lines are cut, too.
                let count = self.0.len().min(3);
                into.put_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Poll::Ready(Ok(()))
            }
        }

        impl AsyncWrite for Once {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Ok(bytes.len()))
            }

            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
    }

    #[tokio::test]
    async fn lines_end_with_or_without_a_carriage_return_and_half_a_line_is_none() {
        let mut lines = lines(b"INFO\r\nEND\n\r\nhalf", 100);
        for line in ["INFO", "END", ""] {
            assert_eq!(lines.next().await.unwrap().unwrap(), line);
        }
        assert!(lines.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused_before_it_is_held() {
        let mut lines = lines(b"PUSH 1\nPUSH 123456789\n", 8);
        assert_eq!(lines.next().await.unwrap().unwrap(), "PUSH 1");
        assert!(matches!(lines.next().await, Err(Broken::TooLong(8))));
    }
}
