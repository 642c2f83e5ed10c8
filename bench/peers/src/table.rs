//! What the rounds gave, side by side.

use crate::{
    peers::Language,
    plan::{Cell, Durability, Plan},
    server::Usage,
};

/// One number of one round, with what it cost.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    /// Which of a cell that gives several.
    name: &'static str,
    unit: &'static str,
    /// For times less is better, for rates more.
    less_is_better: bool,
    value: f64,
    cpu_per_million: f64,
    written_per_job: f64,
    flushes_per_thousand: f64,
    pub(crate) memory_per_job: Option<f64>,
    jobs: usize,
}

impl Sample {
    pub(crate) fn rate(value: f64) -> Self {
        Self::new("", "jobs/s", false, value)
    }

    /// Takes microseconds.
    pub(crate) fn latency(name: &'static str, value_us: f64) -> Self {
        Self::new(name, "ms", true, value_us / 1e3)
    }

    fn new(name: &'static str, unit: &'static str, less_is_better: bool, value: f64) -> Self {
        Self {
            name,
            unit,
            less_is_better,
            value,
            cpu_per_million: 0.0,
            written_per_job: 0.0,
            flushes_per_thousand: 0.0,
            memory_per_job: None,
            jobs: 0,
        }
    }

    pub(crate) fn used(mut self, used: Usage, jobs: usize) -> Self {
        self.cpu_per_million = used.cpu_seconds * 1e6 / jobs as f64;
        self.written_per_job = used.disk.bytes / jobs as f64;
        self.flushes_per_thousand = used.disk.flushes * 1e3 / jobs as f64;
        self.jobs = jobs;
        self
    }
}

/// Who is compared: a peer, and Millpond for each language.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) language: Language,
    pub(crate) ours: bool,
    pub(crate) versions: String,
}

/// One number of one side, with a sample for each round.
struct Row {
    durability: Durability,
    cell: Cell,
    name: &'static str,
    side: &'static str,
    /// By round.
    samples: Vec<(usize, Sample)>,
}

/// All that was measured.
pub(crate) struct Table {
    pub(crate) sides: Vec<Side>,
    pub(crate) round: usize,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { sides: Vec::new(), round: 0, rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn add(
        &mut self,
        side: &'static str,
        durability: Durability,
        cell: Cell,
        samples: Vec<Sample>,
    ) {
        for sample in samples {
            eprintln!(
                "  {side}, {}, {} {}: {} {} ({} jobs)",
                durability.name(),
                cell.title(),
                sample.name,
                number(sample.value),
                sample.unit,
                sample.jobs
            );
            let same = |row: &&mut Row| {
                (row.durability, row.cell, row.name, row.side) == (durability, cell, sample.name, side)
            };
            match self.rows.iter_mut().find(same) {
                Some(row) => row.samples.push((self.round, sample)),
                None => {
                    let name = sample.name;
                    let samples = vec![(self.round, sample)];
                    self.rows.push(Row { durability, cell, name, side, samples });
                }
            }
        }
    }

    /// What went wrong, said under the table.
    pub(crate) fn note(&mut self, side: &str, durability: Durability, what: &str) {
        self.skip(&format!("{side}, {}", durability.name()), what);
    }

    pub(crate) fn skip(&mut self, side: &str, why: &str) {
        let note = format!("{side}: {why}");
        eprintln!("  {note}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Rows of one cell stand together, ours first.
    pub(crate) fn print(
        &self,
        plan: &Plan,
        settings: impl Fn(&str, Durability) -> &'static str,
        markdown: bool,
    ) {
        for durability in &plan.durabilities {
            println!("\n## {}\n", durability.name());
            for side in &self.sides {
                println!("- {}: {}, {}", side.name, side.versions, settings(side.name, *durability));
            }
            println!();
            let head = [
                "measured",
                "by",
                "median",
                "low – high",
                "unit",
                "Millpond is ahead",
                "server CPU s/million",
                "disk bytes/job",
                "flushes/1,000 jobs",
                "memory/waiting job",
                "jobs",
            ];
            let mut lines = vec![head.map(str::to_owned)];
            for (cell, name) in self.kinds(*durability) {
                let of = |side: &Side| self.row(*durability, cell, name, side.name);
                lines.extend(self.sides.iter().filter_map(|side| Some(self.line(side, of(side)?))));
            }
            if markdown { print_markdown(&lines) } else { print_aligned(&lines) }
        }
        if !self.notes.is_empty() {
            println!("\nNot measured:\n");
            for note in &self.notes {
                println!("- {}", note.replace('\n', " "));
            }
        }
    }

    fn kinds(&self, durability: Durability) -> Vec<(Cell, &'static str)> {
        let mut kinds: Vec<(Cell, &'static str)> = Vec::new();
        for row in self.rows.iter().filter(|row| row.durability == durability) {
            if !kinds.contains(&(row.cell, row.name)) {
                kinds.push((row.cell, row.name));
            }
        }
        // Stable: the names of a cell keep their order.
        kinds.sort_by_key(|(cell, _)| Cell::ALL.iter().position(|known| known == cell));
        kinds
    }

    fn row(&self, durability: Durability, cell: Cell, name: &str, side: &str) -> Option<&Row> {
        self.rows
            .iter()
            .find(|row| (row.durability, row.cell, row.name, row.side) == (durability, cell, name, side))
    }

    fn line(&self, side: &Side, row: &Row) -> [String; 11] {
        let all =
            |of: fn(&Sample) -> f64| row.samples.iter().map(|(_, sample)| of(sample)).collect::<Vec<_>>();
        let values = all(|sample| sample.value);
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let unit = row.samples.first().map_or("", |(_, sample)| sample.unit);
        let memory: Vec<f64> = row.samples.iter().filter_map(|(_, sample)| sample.memory_per_job).collect();
        let ahead = if side.ours { None } else { self.ahead(side, row) };
        [
            format!("{} {}", row.cell.title(), row.name).trim_end().to_owned(),
            side.name.to_owned(),
            number(median(values)),
            format!("{} – {}", number(low), number(high)),
            unit.to_owned(),
            ahead.map_or("".into(), |ahead| format!("{}×", number(ahead))),
            number(median(all(|sample| sample.cpu_per_million))),
            number(median(all(|sample| sample.written_per_job))),
            number(median(all(|sample| sample.flushes_per_thousand))),
            if memory.is_empty() { String::new() } else { number(median(memory)) },
            number(median(all(|sample| sample.jobs as f64))).trim_end_matches(".00").to_owned(),
        ]
    }

    /// How many times better Millpond was, by a client in the same language: the median over rounds that both have.
    fn ahead(&self, side: &Side, row: &Row) -> Option<f64> {
        let ours = self.sides.iter().find(|other| other.ours && other.language == side.language)?;
        let ours = self.row(row.durability, row.cell, row.name, ours.name)?;
        let ratios = row.samples.iter().filter_map(|(round, sample)| {
            let (_, our) = ours.samples.iter().find(|(other, _)| other == round)?;
            Some(if sample.less_is_better { sample.value / our.value } else { our.value / sample.value })
        });
        let ratios: Vec<f64> = ratios.collect();
        if ratios.is_empty() { None } else { Some(median(ratios)) }
    }
}

/// The middle one; of an even number the upper of the two, as in all our reports.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Three digits for small numbers, groups of three for large ones.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{:.0}", value.abs());
    let mut out = if value < 0.0 { "-".to_owned() } else { String::new() };
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn print_markdown(lines: &[[String; 11]]) {
    for (place, line) in lines.iter().enumerate() {
        println!("| {} |", line.join(" | "));
        if place == 0 {
            println!("|---|---|--:|--:|---|--:|--:|--:|--:|--:|--:|");
        }
    }
}

fn print_aligned(lines: &[[String; 11]]) {
    let mut widths = [0; 11];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for line in lines {
        let cells = line.iter().zip(widths).enumerate().map(|(place, (cell, width))| match place {
            0 | 1 | 4 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Disk;

    fn side(name: &'static str, ours: bool) -> Side {
        Side { name, language: Language::Rust, ours, versions: String::new() }
    }

    fn of_rounds(cell: Cell, ours: &[Sample], theirs: &[Sample]) -> Table {
        let mut table = Table::new();
        table.sides = vec![side("millpond", true), side("other", false)];
        for (round, (our, their)) in ours.iter().zip(theirs).enumerate() {
            table.round = round;
            table.add("millpond", Durability::Flushed, cell, vec![our.clone()]);
            table.add("other", Durability::Flushed, cell, vec![their.clone()]);
        }
        table
    }

    #[test]
    fn the_ratio_compares_numbers_of_the_same_round() {
        // A machine that was slow in the last round was so for both.
        let table = of_rounds(
            Cell::One,
            &[1_000.0, 2_000.0, 100.0].map(Sample::rate),
            &[100.0, 400.0, 10.0].map(Sample::rate),
        );
        let row = table.row(Durability::Flushed, Cell::One, "", "other").unwrap();
        assert_eq!(table.ahead(&table.sides[1], row), Some(10.0));
        let line = table.line(&table.sides[1], row);
        assert_eq!(line[2..6], ["100", "10.00 – 400", "jobs/s", "10.00×"]);
    }

    #[test]
    fn numbers_have_as_many_digits_as_matter() {
        assert_eq!([0.123, 1_234_567.0, -745.4].map(number), ["0.12", "1,234,567", "-745"]);
    }

    #[test]
    fn for_times_less_is_ahead() {
        let latency = |us| [Sample::latency("p99", us)];
        let table = of_rounds(Cell::Latency(100), &latency(500.0), &latency(2_000.0));
        let row = table.row(Durability::Flushed, Cell::Latency(100), "p99", "other").unwrap();
        assert_eq!(table.ahead(&table.sides[1], row), Some(4.0));
        assert_eq!(table.line(&table.sides[0], row)[5], "");
    }

    #[test]
    fn costs_are_counted_by_the_job() {
        let used = Usage { cpu_seconds: 2.0, disk: Disk { bytes: 50_000.0, flushes: 3.0 } };
        let sample = Sample::rate(1.0).used(used, 1_000);
        assert_eq!((sample.cpu_per_million, sample.jobs), (2_000.0, 1_000));
        assert_eq!((sample.written_per_job, sample.flushes_per_thousand), (50.0, 3.0));
    }
}
