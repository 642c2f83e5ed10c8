//! The front door: HTTP routes, configuration, and the process around a pond. The only crate that knows JSON.

pub mod access;
pub mod backup_stream;
pub mod config;
pub mod http;
pub mod serve;
