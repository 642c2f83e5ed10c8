//! The worker stream: a WebSocket over which jobs come and outcomes go. `docs/stream.md` describes it for clients.
//!
//! ```text
//!            hello                  requests                 node
//! socket ───────────► session ─────────────────► answers ◄────┐
//!   ▲                  │    ▲    (many at once)     │         │
//!   └──── out ◄────────┤    └───────────────────────┘         │
//!         (gathered)   └── one fetch for each subscription ───┘
//! ```
//!
//! A session is one task. It outlives its connection for as long as a lease lasts, so that a client that comes back finds its answers
//! and keeps its leases.

mod check;
mod open;
mod out;
mod request;
mod session;

pub(crate) use open::open;
pub(crate) use session::Streams;
