//! The real `millpond` binary as tests and measurements meet it: a process to start, call, kill and start again.
//!
//! Everything here blocks and waits for conditions with a deadline; nothing sleeps for a guess. It knows the wire as any
//! client in any language does, and none of the server's own types.

mod binary;
mod client;
pub mod linear;
mod server;
mod wait;

pub use binary::{BINARY, NoBinary, binary, choose, command};
pub use client::{Answer, Client};
pub use server::{Ended, Server, StartError, Starter};
pub use tempfile::TempDir;
pub use wait::until;
