//! A cron expression and its next slots around a change of clocks.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::cron(data));
