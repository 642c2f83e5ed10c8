//! What the machine can do at all.

use crate::{
    Plan,
    report::{Report, Result},
};
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    time::Instant,
};

const FLUSHES: u64 = 200;
const BLOCK: usize = 4 << 10;
const BANDWIDTH_BYTES: usize = 256 << 20;
const ROUND_TRIPS: u32 = 20_000;

pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut rounds = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        rounds.0.push(flush_us(&folder.path().join("flush"))?);
        rounds.1.push(bandwidth_mib(&folder.path().join("bandwidth"))?);
        rounds.2.push(round_trips()?);
    }
    report.add("flush of 4 KiB", "over written blocks, fdatasync", "µs", rounds.0);
    report.add("write bandwidth", "1 MiB writes, one flush at the end", "MiB/s", rounds.1);
    report.add("loopback round trips", "100 bytes, one connection, two threads", "/s", rounds.2);
    Ok(())
}

/// Microseconds of one small write and its flush.
pub(crate) fn flush_us(path: &std::path::Path) -> Result<f64> {
    let file = File::create(path)?;
    let block = [7_u8; BLOCK];
    for index in 0..FLUSHES {
        file.write_all_at(&block, index * BLOCK as u64)?;
    }
    file.sync_all()?;
    let started = Instant::now();
    for index in 0..FLUSHES {
        file.write_all_at(&block, index * BLOCK as u64)?;
        file.sync_data()?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / FLUSHES as f64)
}

fn bandwidth_mib(path: &std::path::Path) -> Result<f64> {
    let mut file = File::create(path)?;
    let block = vec![7_u8; 1 << 20];
    let started = Instant::now();
    for _ in 0..BANDWIDTH_BYTES / block.len() {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    Ok((BANDWIDTH_BYTES >> 20) as f64 / started.elapsed().as_secs_f64())
}

fn round_trips() -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; 100];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut bytes = [1; 100];
    let started = Instant::now();
    for _ in 0..ROUND_TRIPS {
        stream.write_all(&bytes)?;
        stream.read_exact(&mut bytes)?;
    }
    let rate = f64::from(ROUND_TRIPS) / started.elapsed().as_secs_f64();
    drop(stream);
    echo.join().map_err(|_| "the echo thread panicked")??;
    Ok(rate)
}
