//! The front door: HTTP routes, configuration, and the process around a pond. The only crate that knows JSON.

pub mod access;
pub mod backup_stream;
pub mod config;
mod disk;
mod faktory;
pub mod http;
mod memory;
mod registry;
pub mod rows;
pub mod serve;
pub mod tls;
mod watched;

/// The time of day.
pub(crate) fn now() -> kit::Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    kit::Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX).min(kit::Timestamp::MAX.0))
}
