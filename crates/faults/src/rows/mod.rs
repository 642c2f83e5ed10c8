//! One fault, one file. The names are those of the fault table in `docs/torture.md`.

mod bit_flips;
mod clock;
mod directory;
mod disk_full;
mod few_files;
mod frozen;
mod growth;
mod herd;
mod interrupted;
mod joins;
mod kill;
mod late_worker;
mod linear;
mod little_memory;
mod lost_answer;
mod lying_cache;
mod pill;
mod poison;
mod power_cut;
mod restored;
mod retry_storm;
mod rotate;
mod slow_disk;
mod slow_reader;
mod starved;
mod system_calls;
mod terminate;

use crate::{Breach, Plan, Ran};

/// One kind of fault.
#[derive(Debug)]
pub struct Row {
    /// Its name, for ever.
    pub name: &'static str,
    /// What breaks, in a few words.
    pub about: &'static str,
    /// Trials in CI, or points per system call.
    pub count: u64,
    /// The same for a long run.
    pub soak: u64,
    /// Trials in one round of `millpond torture`; 0 if it runs only when it is asked for, as it needs root.
    pub round: u64,
    /// Runs it.
    pub run: fn(&Plan) -> Result<Ran, Breach>,
}

/// Every kind of fault.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    Row { name: "F1", about: "kill -9 at random moments under load", count: 100, soak: 2_000, round: 10, run: kill::run },
    Row { name: "F2", about: "kill at each system call of a short story", count: 8, soak: 200, round: 2, run: system_calls::run },
    Row { name: "F4", about: "the power goes: an ext4 is cut off under load", count: 20, soak: 1_000, round: 0, run: power_cut::run },
    Row { name: "F9", about: "a flush fails with EIO", count: 12, soak: 200, round: 2, run: poison::flush_fails },
    Row { name: "F10", about: "a flush fails, and the cache lies", count: 2, soak: 100, round: 0, run: lying_cache::run },
    Row { name: "F12", about: "the disk is full", count: 1, soak: 50, round: 0, run: disk_full::run },
    Row { name: "F13", about: "few files may be open, files must be short", count: 4, soak: 40, round: 2, run: few_files::run },
    Row { name: "F14", about: "writes are interrupted, or write nothing", count: 8, soak: 200, round: 2, run: interrupted::run },
    Row { name: "F16", about: "a bit of a directory at rest flips", count: 40, soak: 5_000, round: 10, run: bit_flips::run },
    Row { name: "F19", about: "a foreign, a cut and a busy directory", count: 1, soak: 20, round: 1, run: directory::run },
    Row { name: "F21", about: "every flush is slow", count: 1, soak: 20, round: 1, run: slow_disk::run },
    Row { name: "F23", about: "the wall clock jumps", count: 5, soak: 500, round: 2, run: clock::run },
    Row { name: "F24", about: "the server stands still for longer than a lease", count: 20, soak: 1_000, round: 5, run: frozen::run },
    Row { name: "F29", about: "answers get lost on their way", count: 150, soak: 5_000, round: 50, run: lost_answer::run },
    Row { name: "F37", about: "jobs kill their handlers, and their workers", count: 1, soak: 100, round: 1, run: pill::run },
    Row { name: "F38", about: "a worker hangs past its lease and answers late", count: 4, soak: 1_000, round: 2, run: late_worker::run },
    Row { name: "F39", about: "listeners of events do not read", count: 1, soak: 20, round: 1, run: slow_reader::run },
    Row { name: "F40", about: "herds of waiting fetches, and of timers", count: 2, soak: 50, round: 1, run: herd::run },
    Row { name: "F41", about: "a storm of retries while what they call is down", count: 1, soak: 50, round: 1, run: retry_storm::run },
    Row { name: "F43", about: "256 MiB of memory for more than that", count: 1, soak: 20, round: 0, run: little_memory::run },
    Row { name: "F44", about: "a twentieth of a core for the server", count: 1, soak: 50, round: 0, run: starved::run },
    Row { name: "F45", about: "SIGTERM under load", count: 10, soak: 200, round: 5, run: terminate::run },
    Row { name: "F46", about: "an older backup comes back", count: 3, soak: 50, round: 1, run: restored::run },
    Row { name: "F49", about: "kill -9 while the children of joins end", count: 20, soak: 2_000, round: 5, run: joins::run },
    Row { name: "F50", about: "one server, while its clients come and die", count: 12, soak: 1_500, round: 12, run: growth::run },
    Row { name: "L1", about: "what is answered has an order, over a kill -9", count: 40, soak: 2_000, round: 5, run: linear::run },
    Row { name: "K1", about: "kill -9 while the key is changed", count: 20, soak: 500, round: 5, run: rotate::run },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_faults_has_every_row_with_its_counts() {
        let page = include_str!("../../../../docs/torture.md");
        for row in ROWS {
            let begins = format!("| {} | {} | {} | {} |", row.name, row.about, row.count, row.soak);
            assert!(page.contains(&begins), "docs/torture.md lacks: {begins}");
        }
    }
}
