//! A log whose newest file holds these bytes: it opens, or says what is wrong.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::segment(data));
