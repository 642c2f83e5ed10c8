//! What a dictionary makes of the bodies of a queue: bytes, and the time of one body, beside plain compression and none.

use crate::{
    Plan,
    report::{Report, Result},
};
use std::{fs, path::Path, time::Instant};
use storage::{
    AtRest, Change, Checkpoints, Mark, Options, at_rest::EncodedCheckpoints,
    checkpoints::memory::MemoryCheckpoints, open_local,
};

/// Bodies of one checkpoint.
const BODIES: usize = 20_000;
/// Before the dictionary is there; more than a trial takes.
const WARM_UP: usize = 2_000;
const SIZES: [(usize, &str); 3] = [(188, "188 B"), (1_024, "1 KiB"), (4_096, "4 KiB")];
/// Of the checkpoint that is written to the disk.
const ON_DISK: usize = 200_000;

const PEOPLE: [&str; 8] = ["ann", "bert", "carla", "dmitri", "elena", "farid", "grace", "hugo"];
const FAMILIES: [&str; 8] = ["smith", "garcia", "ivanova", "okafor", "chen", "rossi", "tanaka", "silva"];
const GOODS: [&str; 8] = [
    "garden chair",
    "desk lamp",
    "usb cable",
    "tea kettle",
    "winter coat",
    "road bike",
    "notebook",
    "yoga mat",
];
const MAILS: [&str; 4] = ["order-confirmed", "order-shipped", "payment-failed", "welcome"];
const PLACES: [&str; 4] = ["en-GB", "de-DE", "fr-FR", "pt-BR"];

/// Numbers that look random and are the same each time.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB) >> 8
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

/// A mail about an order, as JSON of about so many bytes.
fn body(draw: &mut Draw, bytes: usize) -> Vec<u8> {
    let (first, last) = (draw.of(&PEOPLE), draw.of(&FAMILIES));
    let mut text = format!(
        "{{\"order\":{},\"customer\":{{\"id\":\"c-{:08x}\",\"email\":\"{first}.{last}{}@example.com\"}},\"template\":\"{}\",\
         \"locale\":\"{}\",\"total\":{}.{:02},\"currency\":\"EUR\",\"trace\":\"{:014x}\"",
        draw.below(10_000_000),
        draw.below(1 << 32),
        draw.below(100),
        draw.of(&MAILS),
        draw.of(&PLACES),
        draw.below(900),
        draw.below(100),
        draw.next() >> 4,
    );
    let mut before = ",\"items\":[";
    while text.len() + 80 < bytes {
        text.push_str(&format!(
            "{before}{{\"sku\":\"{:05}\",\"name\":\"{}\",\"quantity\":{},\"price\":{}.{:02}}}",
            draw.below(100_000),
            draw.of(&GOODS),
            1 + draw.below(5),
            draw.below(300),
            draw.below(100),
        ));
        before = ",";
    }
    text.push_str(if before == "," { "]}" } else { "}" });
    text.into_bytes()
}

fn changes(bodies: &[Vec<u8>], first: usize) -> impl Iterator<Item = Change> {
    (first..).zip(bodies).map(|(number, body)| Change::Put {
        key: key(number),
        value: body.clone(),
        kin: Some(1),
    })
}

fn key(number: usize) -> Vec<u8> {
    [&b"b"[..], &(number as u64).to_be_bytes()].concat()
}

const MARK: Mark = Mark { index: 1, position: 1 };

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let plain = AtRest { dictionaries: false, ..AtRest::default() };
    let none = AtRest { compress_from: 0, ..AtRest::default() };
    let ways = [("no compression", none), ("plain", plain), ("with dictionary", AtRest::default())];
    for (bytes, size) in SIZES {
        let mut draw = Draw(1);
        let bodies: Vec<_> = (0..WARM_UP + BODIES).map(|_| body(&mut draw, bytes)).collect();
        let (early, rest) = bodies.split_at(WARM_UP);
        for (way, at_rest) in &ways {
            let (mut sizes, mut writing, mut reading, mut learning) = (vec![], vec![], vec![], vec![]);
            for _ in 0..plan.rounds {
                let store = MemoryCheckpoints::new();
                let mut checkpoints = EncodedCheckpoints::open(store.clone(), at_rest.clone(), 7, &[0])?;
                let started = Instant::now();
                checkpoints.write(0, &mut changes(early, 0), MARK)?;
                learning.push(started.elapsed().as_secs_f64() * 1e3);
                let started = Instant::now();
                checkpoints.write(0, &mut changes(rest, WARM_UP), MARK)?;
                writing.push(started.elapsed().as_secs_f64() * 1e6 / BODIES as f64);
                let reader = checkpoints.reader();
                let started = Instant::now();
                for number in WARM_UP..WARM_UP + BODIES {
                    std::hint::black_box(reader.get(0, &key(number))?);
                }
                reading.push(started.elapsed().as_secs_f64() * 1e6 / BODIES as f64);
                let mut stored = 0;
                for number in WARM_UP..WARM_UP + BODIES {
                    stored += store.reader().get(0, &key(number))?.map_or(0, |value| value.len());
                }
                sizes.push(stored as f64 / BODIES as f64);
            }
            let setting = format!("{size}, {way}");
            report.add("bodies: stored", &setting, "B", sizes);
            report.add("bodies: written to a store in memory", &setting, "µs each", writing);
            report.add("bodies: read from it", &setting, "µs each", reading);
            report.add("bodies: the first 2,000 of a queue", &setting, "ms", learning);
        }
    }
    let mut draw = Draw(2);
    let bodies: Vec<_> = (0..ON_DISK).map(|_| body(&mut draw, SIZES[0].0)).collect();
    for (way, at_rest) in &ways {
        let (mut times, mut sizes) = (vec![], vec![]);
        for _ in 0..plan.rounds {
            let folder = tempfile::tempdir()?;
            let options = Options { at_rest: at_rest.clone(), ..Options::default() };
            let (_log, mut checkpoints) = open_local(folder.path(), &options)?;
            let started = Instant::now();
            checkpoints.write(0, &mut changes(&bodies, 0), MARK)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
            drop(checkpoints);
            sizes.push(bytes_in(&folder.path().join("checkpoints"))? as f64 / f64::from(1 << 20));
        }
        let setting = format!("200,000 of 188 B, {way}");
        report.add("bodies: a checkpoint on the disk", &setting, "ms", times);
        report.add("bodies: its files", &setting, "MiB", sizes);
    }
    Ok(())
}

fn bytes_in(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
