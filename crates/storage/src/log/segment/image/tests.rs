use super::*;
use crate::log::segment::format::{put_entry, record_size};
use kit::random::Random;

const HEADER: SegmentHeader = SegmentHeader {
    directory: 1,
    sequence: 4,
    previous: 0,
    first: 1,
    epoch: 2,
    synced: 0,
    size: 0,
    chain: 0,
};

/// A file built flush by flush: `flushes` says how many records each has.
struct Built {
    image: Vec<u8>,
    /// Where each record starts, and at last where they end.
    offsets: Vec<usize>,
    chain: u32,
}

fn build(flushes: &[u64]) -> Built {
    let mut random = Random::new(9);
    let mut image = HEADER.encode().to_vec();
    let mut offsets = Vec::new();
    let (mut chain, mut index, mut synced) = (0, 1, 0);
    for count in flushes {
        for _ in 0..*count {
            offsets.push(image.len());
            let payload: Vec<u8> = (0..random.below(300)).map(|_| random.next_u64() as u8).collect();
            let header = RecordHeader {
                length: payload.len() as u32,
                shard: 1,
                ..RecordHeader::mark(Kind::Entry, index, 2, synced, chain)
            };
            chain = put_entry(&mut image, HEADER.salt(), header, &payload);
            index += 1;
        }
        synced = index - 1;
    }
    offsets.push(image.len());
    Built { image, offsets, chain }
}

impl Built {
    fn last(&self) -> u64 {
        self.offsets.len() as u64 - 1
    }

    fn mark(&mut self, kind: Kind) {
        let mark = RecordHeader::mark(kind, self.last() + 1, 2, self.last(), self.chain);
        self.image.extend_from_slice(&mark.encode(HEADER.salt()).0);
    }

    fn destroy(&mut self, record: usize) {
        self.image[self.offsets[record - 1] + 9] ^= 1;
    }

    fn verdict(&self) -> Result<u64, (u64, u64)> {
        examine(&self.image, &HEADER)
            .map(|tail| tail.end.index - 1)
            .map_err(|broken| (broken.offset, broken.index))
    }
}

#[test]
fn a_hole_in_the_last_flush_is_cut_even_if_whole_records_follow() {
    let mut built = build(&[3, 3, 4]);
    built.destroy(8);
    assert_eq!(built.verdict(), Ok(7));
}

#[test]
fn a_hole_before_the_last_flush_is_damage() {
    let mut built = build(&[3, 3, 4]);
    built.destroy(6);
    assert_eq!(built.verdict(), Err((built.offsets[5] as u64, 6)));
}

#[test]
fn a_mark_turns_a_hole_in_the_last_flush_into_damage() {
    let mut built = build(&[3, 3, 4]);
    built.mark(Kind::Mark);
    built.destroy(10);
    assert_eq!(built.verdict(), Err((built.offsets[9] as u64, 10)));
}

#[test]
fn a_header_that_vouches_for_records_turns_a_hole_among_them_into_damage() {
    let built = build(&[5]);
    let mut cut = built.image.clone();
    cut.truncate(built.offsets[4]);
    assert!(examine(&cut, &SegmentHeader { synced: 4, ..HEADER }).is_ok());
    assert!(examine(&cut, &SegmentHeader { synced: 5, ..HEADER }).is_err());
}

#[test]
fn a_mark_left_where_a_record_was_lost_is_damage_once_a_later_flush_says_so() {
    let mut built = build(&[3, 3]);
    // The second flush went nowhere, the mark behind it arrived.
    built.mark(Kind::Mark);
    let (from, to) = (built.offsets[3], built.offsets[6]);
    built.image[from..to].fill(0);
    assert_eq!(built.verdict(), Err((from as u64, 4)));
}

#[test]
fn a_seal_is_seen_behind_a_hole() {
    let mut built = build(&[3]);
    built.mark(Kind::Seal);
    assert!(examine(&built.image, &HEADER).unwrap().sealed);
}

#[test]
fn records_of_another_file_or_life_are_not_records() {
    let built = build(&[4]);
    for header in [SegmentHeader { sequence: 5, ..HEADER }, SegmentHeader { directory: 2, ..HEADER }] {
        assert_eq!(examine(&built.image, &header).unwrap().end.index, 1);
    }
}

#[test]
fn a_record_that_followed_another_one_is_not_taken() {
    let history = |first: &[u8]| {
        let mut image = HEADER.encode().to_vec();
        let mut chain = 0;
        for (index, payload) in [(1, first), (2, b"two")] {
            let header = RecordHeader {
                length: payload.len() as u32,
                ..RecordHeader::mark(Kind::Entry, index, 2, 0, chain)
            };
            chain = put_entry(&mut image, HEADER.salt(), header, payload);
        }
        image
    };
    let (mut image, other) = (history(b"one"), history(b"uno"));
    assert_eq!(examine(&image, &HEADER).unwrap().end.index, 3);
    let second = SEGMENT_HEADER + record_size(3);
    image[second..].copy_from_slice(&other[second..]);
    assert_eq!(examine(&image, &HEADER).unwrap().end.index, 2);
}

#[test]
fn an_old_copy_of_the_file_inside_a_payload_changes_nothing() {
    let old = build(&[2, 2]);
    let mut image = old.image.clone();
    let payload = old.image[SEGMENT_HEADER..].to_vec();
    let header =
        RecordHeader { length: payload.len() as u32, ..RecordHeader::mark(Kind::Entry, 5, 2, 4, old.chain) };
    put_entry(&mut image, HEADER.salt(), header, &payload);
    assert_eq!(image.len(), old.image.len() + record_size(payload.len()));
    assert_eq!(examine(&image, &HEADER).unwrap().end.index, 6);
    let last = image.len() - 1;
    image[last] ^= 1;
    assert_eq!(examine(&image, &HEADER).unwrap().end.index, 5);
}

/// Every bit of a 64 KiB log; without optimisation every third.
#[test]
fn every_flipped_bit_of_a_marked_log_is_found_where_it_is() {
    let mut built = build(&[1; 315]);
    built.mark(Kind::Mark);
    let end = *built.offsets.last().unwrap();
    assert!(end > 60 << 10 && end < 64 << 10, "{end}");
    built.image.resize(64 << 10, 0);
    let bits = built.image.len() * 8;
    let step = if cfg!(debug_assertions) { 3 } else { 1 };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (mut image, built) = (built.image.clone(), &built);
            scope.spawn(move || {
                for bit in (worker * step..bits).step_by(workers * step) {
                    let byte = bit / 8;
                    image[byte] ^= 1 << (bit % 8);
                    if byte < SEGMENT_HEADER {
                        assert!(SegmentHeader::decode(&image).is_err(), "bit {bit} of the header");
                    } else {
                        match examine(&image, &HEADER) {
                            Err(broken) => {
                                let record = built.offsets.partition_point(|offset| *offset <= byte);
                                assert_eq!(broken.index, record as u64, "bit {bit}");
                                assert_eq!(broken.offset, built.offsets[record - 1] as u64);
                            }
                            // The mark, or free space: nothing is lost.
                            Ok(tail) => {
                                assert!(byte >= end, "bit {bit} was not seen");
                                assert_eq!(tail.end.index, built.last() + 1);
                            }
                        }
                    }
                    image[byte] ^= 1 << (bit % 8);
                }
            });
        }
    });
}
