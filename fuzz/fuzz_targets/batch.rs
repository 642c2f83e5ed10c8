//! A record of the log: a batch of commands, applied to an empty shard if it can be read.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::batch(data));
