//! A line that a handler's process writes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::child_line(data));
