//! A command as the log has it: what can be read is written again as the same bytes' meaning.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::envelope(data));
