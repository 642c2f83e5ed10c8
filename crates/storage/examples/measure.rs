//! Measures the disk and the engines below a pond: `cargo run --release -p storage --example measure [DIR]`.
//!
//! Prints the time of a flush for several sizes, and of writing, opening and scanning a large checkpoint.

use kit::Durability;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use storage::{
    Change, Checkpoints, Entry, Log, Mark, Options,
    log::segment::{self, SegmentLog},
    open_local,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let place = tempfile::tempdir_in(parent)?;
    raw(place.path())?;
    flushes(&place.path().join("a"))?;
    checkpoints(&place.path().join("b"))?;
    Ok(())
}

/// What the disk itself takes, to compare with.
fn raw(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(dir.join("raw"))?;
    file.write_all_at(&vec![1; 16 << 20], 0)?;
    file.sync_all()?;
    for size in [4 << 10, 1 << 20] {
        let bytes = vec![2; size];
        let mut times = Vec::new();
        for round in 0..200 {
            let start = Instant::now();
            file.write_all_at(&bytes, (round * size as u64) % (16 << 20))?;
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort();
        println!("bare disk, {size} bytes over written blocks: median {:?}, best {:?}", times[100], times[0]);
    }
    Ok(())
}

fn flushes(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    for (name, size, rounds, level) in [
        ("4 KiB append + flush to disk", 4 << 10, 2_000, Durability::Disk),
        ("1 MiB append + flush to disk", 1 << 20, 100, Durability::Disk),
        ("4 KiB append + hand to the system", 4 << 10, 2_000, Durability::Os),
    ] {
        let options = segment::Options { segment_bytes: 16 << 20, ..segment::Options::DEFAULT };
        let open = || -> Result<SegmentLog, Box<dyn std::error::Error>> {
            let files = storage::files::RealFiles::open(&dir.join(level.name()).join(size.to_string()))?;
            Ok(SegmentLog::open(std::sync::Arc::new(files), options.clone())?)
        };
        let mut log = open()?;
        let payload = vec![7; size];
        let mut run = |rounds: usize| -> Result<(Duration, Duration), Box<dyn std::error::Error>> {
            let mut times = Vec::new();
            for _ in 0..rounds {
                let start = Instant::now();
                log.append(&[Entry { shard: 0, payload: &payload }])?;
                log.flush(level)?;
                times.push(start.elapsed());
                log.trim(log.next() - 1)?;
            }
            times.sort();
            Ok((times[rounds / 2], times[0]))
        };
        let fresh = run(rounds)?;
        // By now the files are recycled ones.
        let recycled = run(rounds * (48 << 20) / (size * rounds).max(48 << 20) + rounds)?;
        println!("{name}: median and best {fresh:?} in new files, {recycled:?} in recycled ones");
        log.close()?;
        drop(log);
        let start = Instant::now();
        drop(open()?);
        println!("  open: {:?}", start.elapsed());
    }
    Ok(())
}

fn checkpoints(dir: &Path) -> Result<(), Box<dyn std::error::Error>> {
    const COUNT: u64 = 1_000_000;
    let start = Instant::now();
    let mut options = Options::default();
    if let Some(megabytes) = std::env::args().nth(2) {
        options.checkpoints.memtable_bytes = megabytes.parse::<u64>()? << 20;
    }
    let (_log, mut checkpoints) = open_local(dir, &options)?;
    println!("new data directory: {:?}", start.elapsed());
    let mut changes = (0..COUNT).map(|n| Change::Put {
        key: n.to_be_bytes().to_vec(),
        value: vec![n as u8; 200],
        kin: None,
    });
    let start = Instant::now();
    checkpoints.write(0, &mut changes, Mark { index: COUNT, position: COUNT })?;
    println!("checkpoint of 1 M records of 200 bytes: {:?}", start.elapsed());
    drop((_log, checkpoints));
    let start = Instant::now();
    let (_log, mut checkpoints) = open_local(dir, &Options::default())?;
    println!("  open: {:?}", start.elapsed());
    let start = Instant::now();
    let mut count = 0u64;
    checkpoints.scan(0, &[], &mut |_, _| {
        count += 1;
        Ok(())
    })?;
    println!("  scan of {count}: {:?}", start.elapsed());
    let reader = checkpoints.reader();
    let start = Instant::now();
    for n in 0..100_000u64 {
        reader.get(0, &(n * 7_919 % COUNT).to_be_bytes())?;
    }
    println!("  random read: {:?}", start.elapsed() / 100_000);
    let start = Instant::now();
    for round in 0..100u64 {
        let mut changes = (0..1_000u64).map(|n| Change::Put {
            key: ((n * 7_919 + round) % COUNT).to_be_bytes().to_vec(),
            value: vec![1; 200],
            kin: None,
        });
        checkpoints.write(0, &mut changes, Mark { index: COUNT + round, position: 0 })?;
    }
    println!("  checkpoint of 1,000 changes: {:?}", start.elapsed() / 100);
    let before = written();
    std::thread::sleep(Duration::from_secs(5));
    println!("  bytes written in 5 idle seconds: {}", written() - before);
    Ok(())
}

/// Bytes that this process has caused to be written, as the system counts them; 0 where it does not.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    field("wchar:") + field("write_bytes:")
}
