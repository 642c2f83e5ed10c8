//! A record of the log: a batch of commands, applied to an empty shard if it can be read.
#![no_main]

use millpond_core::{Effects, Shard};
use node::Batch;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(batch) = Batch::decode(data) else { return };
    if batch.first != 1 {
        return;
    }
    let (mut shard, mut effects) = (Shard::new(0), Effects::default());
    for (position, envelope) in (1..).zip(&batch.envelopes) {
        let _ = shard.apply(position, batch.time, envelope, &mut effects);
    }
    shard.check().expect("whatever is asked, the state fits together");
});
