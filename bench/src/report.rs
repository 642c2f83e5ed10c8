/// Anything that can go wrong while measuring.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// One number with the circumstances that it depends on.
struct Row {
    what: String,
    setting: String,
    unit: &'static str,
    median: f64,
    low: f64,
    high: f64,
}

/// All rows, printed at the end.
pub(crate) struct Report {
    markdown: bool,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(markdown: bool) -> Self {
        Self { markdown, rows: Vec::new() }
    }

    /// Adds what the rounds gave, and returns their median; `setting` names durability, payload, clients and batch.
    pub(crate) fn add(&mut self, what: &str, setting: &str, unit: &'static str, mut rounds: Vec<f64>) -> f64 {
        rounds.sort_by(f64::total_cmp);
        let (Some(low), Some(high)) = (rounds.first(), rounds.last()) else { return 0.0 };
        let median = rounds[rounds.len() / 2];
        eprintln!("  {what} ({setting}): {} {unit}", number(median));
        self.rows.push(Row {
            what: what.to_owned(),
            setting: setting.to_owned(),
            unit,
            median,
            low: *low,
            high: *high,
        });
        median
    }

    pub(crate) fn print(&self) {
        if self.markdown {
            println!("| measured | setting | median | low – high | unit |\n|---|---|--:|--:|---|");
        }
        for row in &self.rows {
            let (median, spread) =
                (number(row.median), format!("{} – {}", number(row.low), number(row.high)));
            if self.markdown {
                println!("| {} | {} | {median} | {spread} | {} |", row.what, row.setting, row.unit);
            } else {
                println!("{:<34} {:<44} {median:>12} {:<10} ({spread})", row.what, row.setting, row.unit);
            }
        }
    }
}

/// Three digits for small numbers, groups of three for large ones.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_spread_are_those_of_the_rounds() {
        let mut report = Report::new(true);
        report.add("x", "", "jobs/s", vec![3.0, 1.0, 2.0]);
        let row = &report.rows[0];
        assert_eq!((row.low, row.median, row.high), (1.0, 2.0, 3.0));
        assert_eq!(number(1_234_567.0), "1,234,567");
    }
}
