//! What waits to be written to a client, gathered into few messages.

use super::open::Socket;
use bytes::Bytes;
use futures_util::{Sink, stream::SplitSink};
use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{self, Message};

/// A client that has so much to read is asked nothing more until it reads.
const MESSAGES_MAX: usize = 1_000;
const BYTES_MAX: usize = 1 << 20;

/// The outbox of a connection.
pub(super) struct Out {
    sink: SplitSink<Socket, Message>,
    /// Each becomes one message of the WebSocket.
    pieces: VecDeque<Vec<u8>>,
    messages: usize,
    bytes: usize,
    /// Something was handed to the socket that may not have left.
    dirty: bool,
    /// When the socket took something the last time, or there was nothing to take.
    pub(super) moved: Instant,
}

impl Out {
    pub(super) fn new(sink: SplitSink<Socket, Message>) -> Self {
        let pieces = VecDeque::new();
        Self { sink, pieces, messages: 0, bytes: 0, dirty: false, moved: Instant::now() }
    }

    /// Adds a message as `put` writes it.
    pub(super) fn add(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        if self.is_idle() {
            self.moved = Instant::now();
        }
        if self.pieces.back().is_none_or(|piece| piece.len() >= wire::BATCH_BYTES) {
            self.pieces.push_back(Vec::new());
        }
        if let Some(piece) = self.pieces.back_mut() {
            let before = piece.len();
            put(piece);
            self.bytes += piece.len() - before;
            self.messages += 1;
        }
    }

    /// Whether everything has left.
    pub(super) fn is_idle(&self) -> bool {
        self.pieces.is_empty() && !self.dirty
    }

    /// Whether the client reads too slowly.
    pub(super) fn is_full(&self) -> bool {
        self.messages >= MESSAGES_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether more jobs may be fetched: those that wait already are sent first.
    pub(super) fn has_room_for_jobs(&self) -> bool {
        self.bytes < wire::BATCH_BYTES
    }

    /// Writes what there is; never ready but with an error, or once everything has left and something had to.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), tungstenite::Error>> {
        while !self.pieces.is_empty() {
            ready!(Pin::new(&mut self.sink).poll_ready(cx))?;
            if let Some(piece) = self.pieces.pop_front() {
                self.bytes -= piece.len();
                if self.pieces.is_empty() {
                    self.messages = 0;
                }
                self.moved = Instant::now();
                self.dirty = true;
                Pin::new(&mut self.sink).start_send(Message::Binary(Bytes::from(piece)))?;
            }
        }
        if !self.dirty {
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.sink).poll_flush(cx))?;
        self.dirty = false;
        self.moved = Instant::now();
        Poll::Ready(Ok(()))
    }

    /// Closes the socket as politely as it lets itself be closed.
    pub(super) async fn close(mut self) {
        use futures_util::SinkExt;
        for piece in mem::take(&mut self.pieces) {
            if self.sink.feed(Message::Binary(piece.into())).await.is_err() {
                return;
            }
        }
        // Whoever is gone hears nothing.
        let _ = self.sink.close().await;
    }
}
