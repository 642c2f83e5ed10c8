//! A bulk operation looks for a value in a body, whatever the body is.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::filter(data));
