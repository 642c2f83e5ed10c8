//! What a request is called in the log, in its answer, and by whoever sent it.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// In requests the caller's own name for it, in answers the one that the log has.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a caller's name.
const LENGTH_MAX: usize = 64;

/// Names for requests that have none: a few random digits of the process, and a number.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // Only to tell one process from the next: the standard library's seed is random enough.
        Self { process: RandomState::new().hash_one(0) as u32, next: AtomicU64::new(1) }
    }

    /// The caller's name if it is short and plain, else one of ours.
    pub(crate) fn of(&self, headers: &HeaderMap) -> RequestId {
        match headers.get(HEADER) {
            Some(theirs) if is_plain(theirs.as_bytes()) => RequestId(theirs.clone()),
            _ => {
                let number = self.next.fetch_add(1, Relaxed);
                let name = format!("{:08x}-{number}", self.process);
                RequestId(HeaderValue::from_str(&name).unwrap_or(HeaderValue::from_static("unnamed")))
            }
        }
    }
}

/// Nothing that a log or a header could take for something else.
fn is_plain(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    !name.is_empty() && name.len() <= LENGTH_MAX && name.iter().all(plain)
}

/// The name of one request.
pub(crate) struct RequestId(HeaderValue);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

impl From<RequestId> for HeaderValue {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_name_its_request_in_plain_words() {
        let ids = RequestIds::new();
        let named = |name: &'static [u8]| {
            let headers = HeaderMap::from_iter([(HEADER, HeaderValue::from_bytes(name).unwrap())]);
            ids.of(&headers).to_string()
        };
        assert_eq!(named(b"order-17_a.b:c"), "order-17_a.b:c");
        let long = &[b'x'; LENGTH_MAX + 1];
        for bad in [&b""[..], b"two words", b"a\tb", "ü".as_bytes(), b"a=\"1\"", long] {
            assert!(named(bad).ends_with(char::is_numeric) && named(bad).contains('-'), "{bad:?}");
        }
        let [first, second] = [(); 2].map(|()| ids.of(&HeaderMap::new()).to_string());
        assert_ne!(first, second);
    }
}
