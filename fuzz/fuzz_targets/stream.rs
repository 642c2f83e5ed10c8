//! Messages of the worker stream, as a server and as a client hear them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stream(data));
