//! What stands between the production code and the fake disk: it watches, and where told, it betrays.

mod checkpoints;
mod files;
mod log;

pub(crate) use checkpoints::{Fault, Store};
pub(crate) use files::WatchedFiles;
pub(crate) use log::{Tee, WatchedLog};
