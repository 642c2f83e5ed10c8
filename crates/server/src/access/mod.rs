//! Who may do what: rights of routes, roles of callers.

mod role;

pub use role::{Right, Role};
