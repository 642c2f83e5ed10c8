//! Cursors of listings: opaque to clients, bound to the listing they came from, and refused when altered.

use super::problem::{self, Problem};
use kit::random::mix;
use std::fmt::Write as _;

/// Wraps `place`, a place in the listing that `scope` names.
pub(crate) fn encode(scope: &str, place: &[u8]) -> String {
    let mut out = String::with_capacity(2 * place.len() + 8);
    for byte in place {
        let _ = write!(out, "{byte:02x}");
    }
    let _ = write!(out, "{:08x}", check(scope, place));
    out
}

/// Unwraps what [`encode`] made for the same scope.
pub(crate) fn decode(scope: &str, cursor: &str) -> Result<Vec<u8>, Problem> {
    unwrap(scope, cursor)
        .ok_or_else(|| Problem::new(&problem::BAD_CURSOR, "the cursor was not made by this listing"))
}

fn unwrap(scope: &str, cursor: &str) -> Option<Vec<u8>> {
    if !cursor.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let (place, sum) = cursor.split_at_checked(cursor.len().checked_sub(8)?)?;
    let place: Option<Vec<u8>> = (0..place.len())
        .step_by(2)
        .map(|at| place.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    place.filter(|place| u32::from_str_radix(sum, 16) == Ok(check(scope, place)))
}

/// A checksum, not a signature: a forged cursor shows nothing that its listing does not.
fn check(scope: &str, place: &[u8]) -> u32 {
    let sum = scope.bytes().chain([0xff]).chain(place.iter().copied());
    sum.fold(0x6d70, |sum, byte| mix(sum, u64::from(byte))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_listing_only_and_every_change_is_noticed() {
        let cursor = encode("jobs/mail", &77u64.to_be_bytes());
        assert_eq!(decode("jobs/mail", &cursor).unwrap(), 77u64.to_be_bytes());
        assert!(decode("jobs/sms", &cursor).is_err());
        for at in 0..cursor.len() {
            let mut altered = cursor.clone().into_bytes();
            altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
            assert!(decode("jobs/mail", std::str::from_utf8(&altered).unwrap()).is_err());
        }
        for bad in ["", "0", "zz", "é", "00000000", &cursor[1..]] {
            assert_eq!(decode("jobs/mail", bad).unwrap_err().code(), "bad_cursor");
        }
    }
}
