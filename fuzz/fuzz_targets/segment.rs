//! A log whose newest file holds these bytes: it opens, or says what is wrong.
#![no_main]

use std::sync::Arc;
use storage::{
    Log,
    files::{FakeFiles, Files},
    log::segment::{Options, SegmentLog},
};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let files = FakeFiles::new();
    let options = || Options { segment_bytes: 4 << 10, reserve: false, zero_ahead: 0, ..Options::DEFAULT };
    let Ok(mut log) = SegmentLog::open(Arc::new(files.clone()), options()) else { return };
    for payload in [&b"first"[..], b"second"] {
        let _ = log.append(&[storage::Entry { shard: 0, payload }]);
    }
    let _ = log.flush(kit::Durability::Disk);
    drop(log);
    let Some(newest) = files.list().ok().and_then(|names| names.into_iter().filter(|name| name.starts_with("segment")).max()) else { return };
    // The first two bytes say from where on the file is these bytes.
    let Some((at, bytes)) = data.split_first_chunk::<2>() else { return };
    files.alter(&newest, |file| {
        let from = usize::from(u16::from_be_bytes(*at)).min(file.len());
        let to = (from + bytes.len()).min(file.len());
        file[from..to].copy_from_slice(&bytes[..to - from]);
        true
    });
    if let Ok(log) = SegmentLog::open(Arc::new(files), options()) {
        let _ = log.read(log.first(), &mut |_| Ok(()));
    }
});
