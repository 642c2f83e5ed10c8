//! The messages of the worker stream and their MessagePack form. `docs/stream.md` is the description for those who write a client.
//!
//! ```text
//! WebSocket binary message = message | message | …          at least one, MessagePack values one behind the other
//! message                  = [name, id, fields]             id 0 where there is no answer; more items are passed over
//! fields                   = map, by name                   what is empty is left out, what is unknown is passed over
//! ```
//!
//! # Changing it
//! 1. A new field or message needs nothing: who does not know it passes over it.
//! 2. A change of meaning raises [`VERSION`]; both sides say theirs, and the lower one counts.
//! 3. `fixtures/v1` holds one of each message as it was written once. They are never rewritten, only added to.

mod message;
mod outcome;
mod pack;
mod value;
mod view;

pub use message::{
    Answer, Command, Credit, Drain, Empty, Ended, FromClient, FromServer, Hello, Jobs, Log, Lost, Outcomes,
    Ping, Progress, Push, Pushed, Received, Refused, Renew, Renewed, Reply, Resume, Revoked, Settled, Stop,
    StoreStep, Subscribe, Unsubscribe, View, Welcome, next, put_answer, put_message,
};
pub use pack::{Fields, Input, Pack, put_array, put_blob, put_nil, put_number, put_text};
pub use view::{Dead, DeadClass, EventPage, Explained, Read, What};

/// The version of the protocol that this program speaks. It understands all from 1 up to this one.
pub const VERSION: u32 = 1;
/// Where a server has its stream.
pub const PATH: &str = "/v1/stream";
/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "millpond.v1";
/// Requests of one session that may wait for their answers.
pub const REQUESTS_MAX: usize = 1_024;
/// Subscriptions of one session.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Jobs that one subscription may be granted beyond those it has.
pub const CREDIT_MAX: u64 = 10_000;
/// Messages are gathered into one of the WebSocket's up to this many bytes; a larger one goes alone.
pub const BATCH_BYTES: usize = 256 << 10;
/// Bytes of one of the WebSocket's messages to a client: a job with its body and all that may come with it.
pub const TO_CLIENT_BYTES_MAX: usize = 16 << 20;
/// What a client is to be heard within, in milliseconds: the least, the usual, the most.
pub const HEARTBEAT_MS: (u64, u64, u64) = (100, 400, 60_000);

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "all of it is test code")]
mod tests;
