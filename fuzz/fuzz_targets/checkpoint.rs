//! Records of a checkpoint: each is refused, or they make a state that fits together.
#![no_main]

use millpond_core::Restore;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut restore = Restore::new(0);
    let mut rest = data;
    // Two lengths of a byte each, the key, the value.
    while let [key, value, behind @ ..] = rest {
        let (key, value) = (usize::from(*key), usize::from(*value));
        if behind.len() < key + value {
            break;
        }
        if restore.record(&behind[..key], &behind[key..key + value]).is_err() {
            return;
        }
        rest = &behind[key + value..];
    }
    let _ = restore.finish();
});
