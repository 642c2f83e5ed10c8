//! Everything that reads bytes that somebody else wrote, one function each: libFuzzer calls them from `fuzz_targets`, and a test calls
//! them with the corpus and what is near it.

use bytes::Bytes;
use kit::{Timestamp, codec::Reader, cron::Cron, zone::Zone};
use millpond_core::{Effects, Restore, Shard};
use model::{
    BodyTest, Compare,
    codec::{decode_envelope, encode_envelope},
};
use node::Batch;
use server::http::fuzz::Target;
use std::{cell::RefCell, sync::Arc};
use storage::{
    Log,
    files::{FakeFiles, Files},
    log::segment::{Options, SegmentLog},
};
use wire::{FromClient, FromServer, Input, put_message};

thread_local! {
    static TARGET: RefCell<Target> = RefCell::new(Target::new().expect("threads can be started"));
}

/// A command as the log has it: what can be read is written again as the same bytes' meaning.
pub fn envelope(data: &[u8]) {
    let Ok(envelope) = decode_envelope(&mut Reader::new(data)) else { return };
    let mut bytes = Vec::new();
    encode_envelope(&envelope, &mut bytes);
    let again = decode_envelope(&mut Reader::new(&bytes)).expect("what we wrote can be read");
    assert_eq!(envelope, again);
}

/// A record of the log: a batch of commands, applied to an empty shard if it can be read.
pub fn batch(data: &[u8]) {
    let Ok(batch) = Batch::decode(data) else { return };
    if batch.first != 1 {
        return;
    }
    let (mut shard, mut effects) = (Shard::new(0), Effects::default());
    for (position, envelope) in (1..).zip(&batch.envelopes) {
        let _ = shard.apply(position, batch.time, envelope, &mut effects);
    }
    shard.check().expect("whatever is asked, the state fits together");
}

/// A log whose newest file holds these bytes: it opens, or says what is wrong.
pub fn segment(data: &[u8]) {
    let files = FakeFiles::new();
    let options = || Options { segment_bytes: 4 << 10, reserve: false, zero_ahead: 0, ..Options::DEFAULT };
    let Ok(mut log) = SegmentLog::open(Arc::new(files.clone()), options()) else { return };
    for payload in [&b"first"[..], b"second"] {
        let _ = log.append(&[storage::Entry { shard: 0, payload }]);
    }
    let _ = log.flush(kit::Durability::Disk);
    drop(log);
    let Some(newest) = files
        .list()
        .ok()
        .and_then(|names| names.into_iter().filter(|name| name.starts_with("segment")).max())
    else {
        return;
    };
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
}

/// Records of a checkpoint: each is refused, or they make a state that fits together.
pub fn checkpoint(data: &[u8]) {
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
}

/// A cron expression and its next slots around a change of clocks.
pub fn cron(data: &[u8]) {
    let Some(cron) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Cron>().ok()) else {
        return;
    };
    let Some((_, rules)) = kit::zone::find("Europe/Berlin") else { return };
    let Ok(zone) = Zone::read(rules) else { return };
    let mut at = Timestamp(1_774_742_400_000);
    for _ in 0..4 {
        let Some(next) = cron.next(at, &zone) else { return };
        assert!(next > at);
        assert_eq!(cron.previous(next + 1, Timestamp::ZERO, &zone), Some(next));
        at = next;
    }
}

/// Any body on any route.
pub fn request(data: &[u8]) {
    TARGET.with_borrow_mut(|target| target.ask(data));
}

/// A line that a handler's process writes.
pub fn child_line(data: &[u8]) {
    let _ = workers::process::fuzz_line(data);
}

/// Messages of the worker stream, as a server and as a client hear them.
pub fn stream(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let mut input = Input::new(&bytes);
    while let Ok(Some((id, message))) = wire::next::<FromClient>(&mut input) {
        let mut again = Vec::new();
        put_message(&mut again, id, &message);
        let again = Bytes::from(again);
        let (same, read) =
            wire::next(&mut Input::new(&again)).expect("what we wrote can be read").expect("one");
        assert_eq!((same, read), (id, message));
    }
    let mut input = Input::new(&bytes);
    while let Ok(Some(_)) = wire::next::<FromServer>(&mut input) {}
}

/// A file of comma-separated values or of JSON lines.
pub fn rows(data: &[u8]) {
    server::rows::fuzz(data);
}

/// A bulk operation looks for a value in a body, whatever the body is.
pub fn filter(data: &[u8]) {
    let Some((path, body)) =
        data.split_first().and_then(|(at, rest)| rest.split_at_checked(usize::from(*at)))
    else {
        return;
    };
    let Ok(path) = std::str::from_utf8(path) else { return };
    let test = BodyTest { path: path.into(), compare: Compare::Equal, value: "1".into() };
    let _ = node::passes(body, &[test]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::random::Random;
    use std::{fs, path::Path};

    type Reads = fn(&[u8]);
    const TARGETS: [(&str, Reads); 10] = [
        ("envelope", envelope),
        ("batch", batch),
        ("segment", segment),
        ("checkpoint", checkpoint),
        ("cron", cron),
        ("request", request),
        ("child_line", child_line),
        ("filter", filter),
        ("stream", stream),
        ("rows", rows),
    ];
    /// Inputs near each of the corpus.
    const NEAR: u64 = 200;

    /// Another input: some bytes changed, left out, doubled, or cut off.
    fn near(seed: &[u8], random: &mut Random) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u64 + 1) as usize;
            let end = (at + random.below(9) as usize).min(bytes.len());
            match random.below(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
                1 if at < bytes.len() => {
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'{', b'9'][random.below(8) as usize]
                }
                2 => drop(bytes.drain(at..end)),
                3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                _ if random.chance(1, 4) => bytes.truncate(at),
                _ => {}
            }
        }
        bytes
    }

    #[test]
    fn the_corpus_and_what_is_near_it_is_read_or_refused() {
        for (name, reads) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
            let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
            files.sort();
            assert!(!files.is_empty(), "{name} has no corpus");
            let mut random = Random::new(7);
            for file in files {
                let seed = fs::read(file).unwrap();
                reads(&seed);
                for _ in 0..NEAR {
                    reads(&near(&seed, &mut random));
                }
            }
        }
    }
}
