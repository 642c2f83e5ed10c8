//! Records of a checkpoint: each is refused, or they make a state that fits together.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::checkpoint(data));
