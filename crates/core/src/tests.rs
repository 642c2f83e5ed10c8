//! The shard as a whole, and the means to test it. What one command does is tested beside it.

mod play;
mod script;

pub(crate) use script::{EPOCH, Script, check};
