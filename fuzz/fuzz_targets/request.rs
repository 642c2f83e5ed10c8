//! Any body on any route.
#![no_main]

use server::http::fuzz::Target;
use std::cell::RefCell;

thread_local! {
    static TARGET: RefCell<Target> = RefCell::new(Target::new().expect("threads can be started"));
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET.with_borrow_mut(|target| target.ask(data)));
