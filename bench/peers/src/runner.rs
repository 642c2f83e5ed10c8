//! Measures the cells of one session, each on a queue of its own.

use crate::{
    client::{PRODUCERS, Push, When, Work, now_us},
    error::{Error, Result},
    peers::Session,
    plan::{BYTES, Cell, Durability, Plan},
    process::Disk,
    server::Usage,
    table::{Sample, Table},
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Waiting jobs of [`Cell::Backlog`], and how many of them are done.
const BACKLOG: (usize, usize) = (1_000_000, 100_000);
/// Delayed jobs of [`Cell::Due`] where the peer is fast enough, and the seconds of work that they may cost it.
const DUE: (usize, f64) = (100_000, 5.0);
/// Jobs of a cell at most, so that memory is bounded.
const JOBS_MAX: usize = 300_000;
/// Before a latency counts, so that workers have connected.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long a peer's own count may take to be right: some refresh it every few seconds.
const COUNT: Duration = Duration::from_secs(8);

/// The longest time for a cell with all that it needs; one that takes longer is the last of its session.
const CELL: Duration = Duration::from_secs(90);
/// The same for [`Cell::Backlog`], whose jobs are to be pushed first.
const BACKLOG_CELL: Duration = Duration::from_secs(300);
/// How long a server may go on by itself after a cell, such as to write a checkpoint: this is part of what the jobs cost, and must not
/// disturb the next cell.
const SETTLE: Duration = Duration::from_secs(3);
/// How often the settling server is looked at, and the CPU time at which it counts as idle.
const LOOK: (Duration, f64) = (Duration::from_millis(100), 0.015);

/// How many jobs take a peer as long as a cell shall last: found in the first round, kept for the others.
#[derive(Default)]
pub(crate) struct Sizes(HashMap<(&'static str, Durability, Cell), usize>);

/// One session of one peer.
pub(crate) struct Runner<'a> {
    pub(crate) peer: &'static str,
    pub(crate) has_delays: bool,
    pub(crate) durability: Durability,
    pub(crate) plan: &'a Plan,
    pub(crate) session: Session,
    pub(crate) sizes: &'a mut Sizes,
    queues: usize,
    /// Queues that still hold jobs.
    filled: Vec<String>,
}

/// What a cell that counts a rate gave.
struct Counted {
    seconds: f64,
    used: Usage,
    memory_bytes: Option<f64>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(
        (peer, has_delays): (&'static str, bool),
        durability: Durability,
        plan: &'a Plan,
        session: Session,
        sizes: &'a mut Sizes,
    ) -> Self {
        Self { peer, has_delays, durability, plan, session, sizes, queues: 0, filled: Vec::new() }
    }

    /// All cells. One that fails is noted, and the next goes on unless the server is gone.
    pub(crate) async fn run(mut self, table: &mut Table) {
        for cell in self.plan.cells.clone() {
            if cell == Cell::Due && !self.has_delays {
                continue;
            }
            let patience = if cell == Cell::Backlog { BACKLOG_CELL } else { CELL };
            let Ok(measured) = tokio::time::timeout(patience, self.cell(cell)).await else {
                let what = format!("{}: not over within {patience:?}", cell.title());
                table.note(self.peer, self.durability, &what);
                // What it still does would disturb the others.
                return;
            };
            match measured {
                Ok(samples) => table.add(self.peer, self.durability, cell, samples),
                Err(error) => {
                    table.note(self.peer, self.durability, &format!("{}: {error}", cell.title()));
                    if !self.session.server.running() {
                        let said = self.session.server.output();
                        table.note(
                            self.peer,
                            self.durability,
                            &format!("the server has ended; it wrote: {said}"),
                        );
                        return;
                    }
                }
            }
        }
    }

    async fn cell(&mut self, cell: Cell) -> Result<Vec<Sample>> {
        match cell {
            Cell::Latency(per_second) => self.latency(per_second).await,
            Cell::Due => self.due().await,
            _ => {
                let jobs = self.size(cell).await?;
                let counted = self.count(cell, jobs).await?;
                let done = if cell == Cell::Backlog { BACKLOG.1 } else { jobs };
                let mut sample = Sample::rate(done as f64 / counted.seconds).used(counted.used, done);
                sample.memory_per_job = counted.memory_bytes.map(|bytes| bytes / jobs as f64);
                Ok(vec![sample])
            }
        }
    }

    fn queue(&mut self, cell: Cell) -> String {
        self.queues += 1;
        format!("{}-{}", cell.name(), self.queues)
    }

    /// More jobs each time, until they last about as long as they shall: a few say little, where caches and batches are to fill.
    async fn size(&mut self, cell: Cell) -> Result<usize> {
        let key = (self.peer, self.durability, cell);
        if cell == Cell::Backlog {
            return Ok(BACKLOG.0);
        }
        if let Some(size) = self.sizes.0.get(&key) {
            return Ok(*size);
        }
        let span = self.plan.span.as_secs_f64();
        let mut jobs = match cell {
            Cell::Bulk(size) => 2 * PRODUCERS * size,
            _ => 250,
        };
        let size = loop {
            let seconds = self.count(cell, jobs).await?.seconds;
            let lacks = span / seconds;
            if lacks < 1.5 || jobs == JOBS_MAX {
                break ((jobs as f64 * lacks) as usize).clamp(100, JOBS_MAX);
            }
            jobs = ((jobs as f64 * lacks.min(8.0)) as usize).min(JOBS_MAX);
        };
        self.sizes.0.insert(key, size);
        Ok(size)
    }

    /// Does it once with so many jobs, and asks the peer afterwards whether they are there, or gone.
    async fn count(&mut self, cell: Cell, jobs: usize) -> Result<Counted> {
        let queue = self.queue(cell);
        let push = |batch, producers, bytes| Push {
            queue: queue.clone(),
            jobs,
            batch,
            producers,
            bytes,
            when: When::Now,
        };
        let fill = |bytes| push(1_000, PRODUCERS, bytes);
        let work = |handlers| Work { queue: queue.clone(), jobs, handlers, stamped: false };
        let enqueue = match cell {
            Cell::One => Some(push(1, 1, BYTES)),
            Cell::Bulk(size) => Some(push(size, PRODUCERS, BYTES)),
            Cell::Producers => Some(push(1, 64, BYTES)),
            _ => None,
        };
        if let Some(push) = enqueue {
            let memory = self.session.server.memory_bytes()?;
            let before = self.session.server.usage()?;
            let seconds = self.session.client.push(&push).await?;
            let used = self.used_since(before).await?;
            self.filled.push(queue.clone());
            self.expect(&queue, jobs).await?;
            let more = self.session.server.memory_bytes()? - memory;
            let memory_bytes = (cell == Cell::Bulk(1_000)).then_some(more);
            return Ok(Counted { seconds, used, memory_bytes });
        }
        self.clear().await?;
        self.filled.push(queue.clone());
        let mut seconds = 0.0;
        let mut before = self.session.server.usage()?;
        let (handlers, done) = match cell {
            Cell::Whole(bytes) => {
                seconds += self.session.client.push(&fill(bytes)).await?;
                (64, jobs)
            }
            _ => {
                self.session.client.push(&fill(BYTES)).await?;
                self.expect(&queue, jobs).await?;
                self.used_since(before).await?;
                before = self.session.server.usage()?;
                match cell {
                    Cell::Drain(handlers) => (handlers, jobs),
                    _ => (64, BACKLOG.1),
                }
            }
        };
        seconds += self.session.client.work(&Work { jobs: done, ..work(handlers) }).await?.seconds;
        let used = self.used_since(before).await?;
        if done == jobs {
            self.expect(&queue, 0).await?;
        }
        self.clear().await?;
        Ok(Counted { seconds, used, memory_bytes: None })
    }

    /// Until the server has nothing more to do.
    async fn used_since(&self, before: Usage) -> Result<Usage> {
        let started = Instant::now();
        let mut after = self.session.server.usage()?;
        while started.elapsed() < SETTLE {
            tokio::time::sleep(LOOK.0).await;
            let earlier = std::mem::replace(&mut after, self.session.server.usage()?);
            if after.cpu_seconds - earlier.cpu_seconds < LOOK.1 {
                break;
            }
        }
        Ok(Usage {
            cpu_seconds: after.cpu_seconds - before.cpu_seconds,
            disk: Disk {
                bytes: after.disk.bytes - before.disk.bytes,
                flushes: after.disk.flushes - before.disk.flushes,
            },
        })
    }

    async fn clear(&mut self) -> Result<()> {
        for queue in self.filled.drain(..) {
            self.session.client.clear(&queue).await?;
        }
        Ok(())
    }

    /// The peer itself counts this many jobs, at once or soon.
    async fn expect(&self, queue: &str, jobs: usize) -> Result<()> {
        let started = Instant::now();
        loop {
            let waiting = self.session.client.waiting(queue).await?;
            if waiting == jobs as u64 {
                return Ok(());
            }
            if started.elapsed() > COUNT {
                return Err(Error::Count { waiting, expected: jobs as u64 });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn latency(&mut self, per_second: u32) -> Result<Vec<Sample>> {
        self.clear().await?;
        let queue = self.queue(Cell::Latency(per_second));
        let count = |span: Duration| (span * per_second).as_secs() as usize;
        let jobs = count(WARM_UP + self.plan.watch);
        let when = When::Paced { per_second };
        let push = Push { queue: queue.clone(), jobs, batch: 1, producers: PRODUCERS, bytes: BYTES, when };
        let work = Work { queue: queue.clone(), jobs, handlers: 64, stamped: true };
        let before = self.session.server.usage()?;
        let (worked, _) = tokio::try_join!(self.session.client.work(&work), self.session.client.push(&push))?;
        let used = self.used_since(before).await?;
        self.expect(&queue, 0).await?;
        let mut late = worked.late_us;
        late.drain(..count(WARM_UP).min(late.len()));
        late.sort_unstable();
        let of = |name, share| Sample::latency(name, quantile(&late, share)).used(used, jobs);
        Ok(vec![of("p50", 0.5), of("p99", 0.99), of("p99.9", 0.999)])
    }

    async fn due(&mut self) -> Result<Vec<Sample>> {
        let rate = self.size(Cell::Whole(BYTES)).await? as f64 / self.plan.span.as_secs_f64();
        self.clear().await?;
        let jobs = DUE.0.min((rate * DUE.1) as usize).max(100);
        let queue = self.queue(Cell::Due);
        // Twice as long as pushing should take.
        let at_us = now_us() + 1_500_000 + (2e6 * jobs as f64 / rate) as u64;
        let when = When::Due { at_us };
        let push =
            Push { queue: queue.clone(), jobs, batch: 1_000, producers: PRODUCERS, bytes: BYTES, when };
        let before = self.session.server.usage()?;
        self.session.client.push(&push).await?;
        if now_us() >= at_us {
            return Err(Error::DueTooSoon);
        }
        let work = Work { queue: queue.clone(), jobs, handlers: 64, stamped: true };
        let worked = self.session.client.work(&work).await?;
        let used = self.used_since(before).await?;
        self.expect(&queue, 0).await?;
        let mut late = worked.late_us;
        late.sort_unstable();
        let of = |name, share| Sample::latency(name, quantile(&late, share)).used(used, jobs);
        Ok(vec![of("p50", 0.5), of("p99", 0.99), of("last", 1.0)])
    }
}

/// The value below which this share of them lies, of sorted ones.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).map_or(f64::NAN, |value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let sorted: Vec<u64> = (1..=1_001).collect();
        let found = [0.5, 0.99, 0.999, 1.0].map(|share| quantile(&sorted, share));
        assert_eq!(found, [501.0, 991.0, 1_000.0, 1_001.0]);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
