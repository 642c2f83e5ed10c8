//! Writing to a terminal: colour only where it is wanted, nothing that a job's data could do to the terminal,
//! and no panic when the reader of a pipe goes away.

use kit::{Millis, Timestamp};
use std::{
    borrow::Cow,
    io::{IsTerminal, Write},
    time::{SystemTime, UNIX_EPOCH},
};

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into pipes and files.
    Always,
    /// Nowhere.
    Never,
}

impl ColorChoice {
    fn applies(self, terminal: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                terminal
                    && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
                    && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
            }
        }
    }
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    color: bool,
}

impl Style {
    /// For what goes to standard output.
    pub(crate) fn stdout(choice: ColorChoice) -> Self {
        Self { color: choice.applies(std::io::stdout().is_terminal()) }
    }

    /// For what goes to standard error.
    pub(crate) fn stderr(choice: ColorChoice) -> Self {
        Self { color: choice.applies(std::io::stderr().is_terminal()) }
    }

    #[cfg(test)]
    pub(crate) const PLAIN: Style = Style { color: false };

    fn paint(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// The name of a state in its colour.
    pub(crate) fn state(self, state: &str) -> String {
        match state {
            "completed" => self.good(state),
            "dead" => self.bad(state),
            "retrying" | "blocked" | "expired" | "cancelled" => self.warn(state),
            "active" => self.paint("36", state),
            _ => clean(state).into_owned(),
        }
    }
}

/// Writes to standard output. If the reader has gone (`| head`) the process ends quietly, as other tools do.
pub(crate) fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// One line to standard output.
pub(crate) fn line(text: &str) {
    put(&format!("{text}\n"));
}

/// One line to standard error; nobody can be told if that fails.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn hostile(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text of a server or a file without what could steer a terminal or turn the reading direction; on one line.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(hostile) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .filter_map(|c| match c {
            '\n' | '\t' => Some(' '),
            c if hostile(c) => None,
            c => Some(c),
        })
        .collect::<String>()
        .into()
}

/// The same with line breaks kept, each line behind `indent`.
pub(crate) fn clean_block(text: &str, indent: &str) -> String {
    text.lines().map(|line| format!("{indent}{}\n", clean(&line.replace('\t', "    ")))).collect()
}

/// At most `width` characters, with an ellipsis where something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12345678` bytes as `11.8 MiB`.
pub(crate) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{number} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// What this machine's clock says; commands show spans, and a server's times are its own.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `3s ago`, `in 5m`.
pub(crate) fn relative(time: Timestamp, now: Timestamp) -> String {
    let coarse =
        |millis: Millis| kit::time::format_span(if millis < 1_000 { millis } else { millis / 1_000 * 1_000 });
    if time > now { format!("in {}", coarse(time - now)) } else { format!("{} ago", coarse(now - time)) }
}

/// Lines up cells. The first row is the heading; columns named in `right` are numbers.
pub(crate) fn table(style: Style, rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |text: &str| visible_width(text);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = " ".repeat(widths[column] - width(cell));
            let cell = if number == 0 { style.dim(cell) } else { cell.clone() };
            let last = column + 1 == row.len();
            match (right.contains(&column), last) {
                (true, _) => line.push_str(&format!("{gap}{cell}")),
                (false, true) => line.push_str(&cell),
                (false, false) => line.push_str(&format!("{cell}{gap}")),
            }
            if !last {
                line.push_str("  ");
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Characters that take room: our own colour codes do not.
fn visible_width(text: &str) -> usize {
    let mut width = 0;
    let mut escape = false;
    for c in text.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) => width += 1,
        }
    }
    width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_text_cannot_steer_the_terminal() {
        assert_eq!(clean("plain é 日本"), "plain é 日本");
        assert_eq!(clean("a\x1b[2Jb\x07\r\u{9b}31m\nc\td"), "a[2Jb31m c d");
        assert_eq!(clean("abc\u{202e}txt.exe"), "abctxt.exe");
        assert_eq!(clean_block("one\x1b]0;x\x07\n\ttwo", "  "), "  one]0;x\n      two\n");
    }

    #[test]
    fn numbers_and_spans_read_well() {
        assert_eq!(
            [count(0), count(999), count(1_000), count(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!([bytes(512), bytes(2_048), bytes(12_345_678)], ["512 B", "2.0 KiB", "11.8 MiB"]);
        assert_eq!(relative(Timestamp(1_000), Timestamp(4_500)), "3s ago");
        assert_eq!(relative(Timestamp(304_500), Timestamp(4_500)), "in 5m");
        assert_eq!(cut("abcdef", 4), "abc…");
    }

    #[test]
    fn tables_line_up_and_leave_no_blanks_at_the_end() {
        let rows = [["queue", "n"], ["mail", "12"], ["a", "1234"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(Style::PLAIN, &rows, &[1]), "queue     n\nmail     12\na      1234\n");
    }
}
