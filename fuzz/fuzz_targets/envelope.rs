//! A command as the log has it: what can be read is written again as the same bytes' meaning.
#![no_main]

use kit::codec::Reader;
use model::codec::{decode_envelope, encode_envelope};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(envelope) = decode_envelope(&mut Reader::new(data)) else { return };
    let mut bytes = Vec::new();
    encode_envelope(&envelope, &mut bytes);
    let again = decode_envelope(&mut Reader::new(&bytes)).expect("what we wrote can be read");
    assert_eq!(envelope, again);
});
