//! JSON at the edge: reading with exact refusals, writing without detours.

mod read;
mod write;

pub(crate) use read::{check_depth, first_key, offset_in, parse, unknown};
pub(crate) use write::{Raw, Writer};
