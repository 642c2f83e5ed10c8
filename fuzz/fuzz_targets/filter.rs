//! A bulk operation looks for a value in a body, whatever the body is.
#![no_main]

use model::{BodyTest, Compare};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((path, body)) = data.split_first().and_then(|(at, rest)| rest.split_at_checked(usize::from(*at))) else { return };
    let Ok(path) = std::str::from_utf8(path) else { return };
    let test = BodyTest { path: path.into(), compare: Compare::Equal, value: "1".into() };
    let _ = node::passes(body, &[test]);
});
