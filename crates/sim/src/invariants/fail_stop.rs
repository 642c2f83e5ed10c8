//! I7: after a storage error nobody hears OK.

use crate::history::{Check, broken};

/// An OK of a batch whose write came after the first failed write or flush (`failed`).
pub(crate) fn no_ok(failed: bool, position: u64) -> Check {
    if failed {
        return broken(
            "I7",
            format!("position {position} was acknowledged after a write or a flush had failed"),
        );
    }
    Ok(())
}
