//! Where a pond keeps what it must not lose.
#![doc = include_str!("../README.md")]

pub mod files;
mod identity;
pub mod log;

pub use log::{Entry, Log, LogError, Record};
