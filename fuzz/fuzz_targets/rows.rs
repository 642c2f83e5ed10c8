//! Files of comma-separated values and of JSON lines, as `millpond import` reads them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::rows(data));
