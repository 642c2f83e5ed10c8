//! Small pure tools. Time and randomness are arguments here, never read from the machine.
//!
//! Nothing in this crate knows what a job is, and nothing in it touches a clock, a thread or a file:
//! it compiles without `std`, so it could not.
#![no_std]

extern crate alloc;

pub mod backoff;
pub mod codec;
pub mod cron;
mod durability;
pub mod json;
pub mod random;
pub mod time;
pub mod zone;

pub use backoff::Backoff;
pub use cron::Cron;
pub use durability::Durability;
pub use time::{Millis, Timestamp};
pub use zone::Zone;
