//! Comma-separated values: a heading, then rows that become objects with its names as keys.

use super::{Input, Item, Place, Rules, bad, checked_id};
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use std::io;

/// Cells of one row.
const COLUMNS_MAX: usize = 4_096;

/// Rows of cells.
pub struct Csv {
    input: Input,
    rules: Rules,
    row: u64,
    reader: Reader,
    cells: Vec<u8>,
    ends: Vec<usize>,
    /// Each name as the JSON that opens its member: `"city":`.
    keys: Vec<String>,
    id_column: Option<usize>,
}

/// How reading one record went.
enum Record {
    Cells { count: usize },
    Bad { reason: String },
    End,
}

impl Csv {
    /// Reads the heading from the start of `input`; the inner error says for people what is wrong with it.
    pub fn new(mut input: Input, rules: Rules) -> io::Result<Result<Self, String>> {
        input.skip_bom()?;
        let reader = ReaderBuilder::new().delimiter(rules.delimiter).build();
        let mut csv = Self {
            input,
            rules,
            row: 0,
            reader,
            cells: vec![0; 16 << 10],
            ends: vec![0; 64],
            keys: Vec::new(),
            id_column: None,
        };
        let (_, record) = csv.record()?;
        Ok(match record {
            Record::End => Err("it is empty; the first line names the columns".to_owned()),
            Record::Bad { reason } => Err(format!("its first line cannot be read: {reason}")),
            Record::Cells { count } => csv.take_heading(count).map(|()| csv),
        })
    }

    /// Goes on reading at a place reached before, from a reader that stands there.
    pub fn resume(mut self, reader: Box<dyn io::Read + Send>, place: Place) -> Self {
        self.input = Input::new(reader, place.offset, place.line);
        self.row = place.row;
        // The reader stands behind a record already. One that begins anew would pass over a byte order mark, which here is part of a cell.
        self
    }

    /// Where the next row begins.
    pub fn place(&self) -> Place {
        Place { row: self.row, offset: self.input.offset, line: self.input.line }
    }

    /// The next row; `None` at the end.
    pub fn read(&mut self) -> io::Result<Option<Item>> {
        let (line, record) = self.record()?;
        let item = match record {
            Record::End => return Ok(None),
            Record::Bad { reason } => bad(line, reason, &[]),
            Record::Cells { count } => self.item(count).unwrap_or_else(|reason| {
                let end = count.checked_sub(1).map_or(0, |last| self.ends[last]);
                bad(line, reason, &self.joined(count, end))
            }),
        };
        self.row += 1;
        Ok(Some(item))
    }

    fn take_heading(&mut self, count: usize) -> Result<(), String> {
        let mut names: Vec<String> = Vec::with_capacity(count);
        for column in 0..count {
            let cell = std::str::from_utf8(self.cell(column))
                .map_err(|_| format!("the name of column {} is not valid UTF-8", column + 1))?;
            let name = if cell.is_empty() { format!("column_{}", column + 1) } else { cell.to_owned() };
            if names.contains(&name) {
                return Err(format!("two columns are named {name:?}; every name may stand once"));
            }
            names.push(name);
        }
        if let Some(wanted) = &self.rules.id_column {
            let at = names.iter().position(|name| name == wanted);
            self.id_column = Some(
                at.ok_or_else(|| format!("no column is named {wanted:?}; it has {}", names.join(", ")))?,
            );
        }
        self.keys = names.iter().map(|name| format!("{}:", quoted(name))).collect();
        Ok(())
    }

    fn cell(&self, column: usize) -> &[u8] {
        let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.cells[start..self.ends[column]]
    }

    /// The beginning of a row for the file of rejects.
    fn joined(&self, count: usize, end: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for column in 0..count {
            if column > 0 {
                out.push(self.rules.delimiter);
            }
            out.extend_from_slice(self.cell(column));
            if out.len() > 1_000 {
                break;
            }
        }
        debug_assert!(out.len() <= end + count);
        out
    }

    fn item(&self, count: usize) -> Result<Item, String> {
        if count != self.keys.len() {
            return Err(format!("{count} cells, but {} columns are named", self.keys.len()));
        }
        let mut body = String::with_capacity(self.ends[count - 1] + count * 16);
        let mut id = None;
        for column in 0..count {
            body.push(if column == 0 { '{' } else { ',' });
            body.push_str(&self.keys[column]);
            let cell = std::str::from_utf8(self.cell(column))
                .map_err(|_| format!("cell {} is not valid UTF-8", column + 1))?;
            if self.id_column == Some(column) {
                id = Some(checked_id(cell)?);
            }
            match self.rules.infer.then(|| inferred(cell)).flatten() {
                Some(value) => body.push_str(value),
                None => body.push_str(&quoted(cell)),
            }
        }
        body.push('}');
        let max = self.rules.row_bytes_max;
        if body.len() > max {
            return Err(format!("as JSON it has {} bytes; {max} are allowed", body.len()));
        }
        Ok(Item::Row { body: body.into_bytes(), id })
    }

    /// Reads one record into `cells` and `ends`, with the line on which it begins. A record that is too large is
    /// passed over without being kept.
    fn record(&mut self) -> io::Result<(u64, Record)> {
        self.input.skip_line_ends()?;
        let line = self.input.line;
        let (mut bytes, mut count, mut quotes) = (0, 0, 0);
        let mut oversize: Option<String> = None;
        loop {
            let input = self.input.peek()?;
            let at_end = input.is_empty();
            let (result, consumed, written, ended) =
                self.reader.read_record(input, &mut self.cells[bytes..], &mut self.ends[count..]);
            quotes += input[..consumed].iter().filter(|byte| **byte == b'"').count();
            self.input.consume(consumed);
            bytes += written;
            count += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.cells.len() < self.rules.row_bytes_max => {
                    let larger = (self.cells.len() * 2).min(self.rules.row_bytes_max);
                    self.cells.resize(larger, 0);
                }
                ReadRecordResult::OutputFull => {
                    bytes = 0;
                    oversize = Some(format!("the row is longer than {} bytes", self.rules.row_bytes_max));
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() < COLUMNS_MAX => {
                    self.ends.resize(self.ends.len() * 2, 0);
                }
                ReadRecordResult::OutputEndsFull => {
                    count = 0;
                    oversize = Some(format!("the row has more than {COLUMNS_MAX} cells"));
                }
                ReadRecordResult::Record => {
                    // A quote that is never closed swallows the rest of the file, which shows as an odd
                    // number of quotes in a record that no line end has ended.
                    let unclosed = at_end && quotes % 2 == 1;
                    let reason = oversize.or_else(|| {
                        unclosed.then(|| "a quoted cell is not closed before the end".to_owned())
                    });
                    return Ok((
                        line,
                        reason.map_or(Record::Cells { count }, |reason| Record::Bad { reason }),
                    ));
                }
                ReadRecordResult::End => return Ok((line, Record::End)),
            }
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The cell as a JSON number, `true`, `false` or `null`, if it is written exactly so. Zip codes such as `00501` and
/// numbers too long to be kept exactly stay text.
fn inferred(cell: &str) -> Option<&str> {
    match cell {
        "" => Some("null"),
        "true" | "false" => Some(cell),
        _ => {
            let digits = cell.bytes().filter(u8::is_ascii_digit).count();
            let number = (1..=15).contains(&digits)
                && cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                && serde_json::from_str::<serde_json::Number>(cell).is_ok();
            number.then_some(cell)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(max: usize) -> Rules {
        Rules { row_bytes_max: max, id_column: None, infer: false, delimiter: b',' }
    }

    fn open(text: &[u8], rules: Rules) -> Result<Csv, String> {
        Csv::new(Input::new(Box::new(io::Cursor::new(text.to_vec())), 0, 1), rules).unwrap()
    }

    fn read(text: &[u8], rules: Rules) -> Vec<String> {
        let mut csv = open(text, rules).unwrap();
        std::iter::from_fn(|| csv.read().unwrap()).map(shown).collect()
    }

    fn shown(item: Item) -> String {
        match item {
            Item::Row { body, id } => {
                format!(
                    "{}{}",
                    String::from_utf8(body).unwrap(),
                    id.map(|id| format!(" id={id}")).unwrap_or_default()
                )
            }
            Item::Bad { line, reason, .. } => format!("{line}: {reason}"),
        }
    }

    #[test]
    fn quotes_line_ends_and_marks_are_understood() {
        let text = b"\xEF\xBB\xBFa,b\r\n1,\"x,\r\ny \"\"z\"\"\"\r\n\r\n2,\xC3\xA9";
        assert_eq!(
            read(text, rules(1_000)),
            [r#"{"a":"1","b":"x,\r\ny \"z\""}"#.to_owned(), "{\"a\":\"2\",\"b\":\"é\"}".to_owned()]
        );
    }

    #[test]
    fn bad_rows_are_named_by_line_and_the_rest_is_read() {
        let text = b"a,b\n1\n1,2,3\n\xff,1\n\"two\nlines\",\nlast,\"open";
        assert_eq!(
            read(text, rules(1_000)),
            [
                "2: 1 cells, but 2 columns are named",
                "3: 3 cells, but 2 columns are named",
                "4: cell 1 is not valid UTF-8",
                r#"{"a":"two\nlines","b":""}"#,
                "7: a quoted cell is not closed before the end",
            ]
        );
    }

    #[test]
    fn a_huge_cell_is_passed_over_without_being_kept() {
        let mut text = b"a,b\n1,\"".to_vec();
        text.extend(vec![b'x'; 3_000_000]);
        text.extend(b"\"\n3,4\n");
        let mut csv = open(&text, rules(100_000)).unwrap();
        assert!(matches!(csv.read().unwrap(), Some(Item::Bad { line: 2, .. })));
        assert_eq!(csv.read().unwrap().map(shown).as_deref(), Some(r#"{"a":"3","b":"4"}"#));
        assert!(csv.cells.len() <= 100_000);
    }

    #[test]
    fn types_are_inferred_only_where_nothing_is_lost() {
        let rules = Rules { infer: true, ..rules(1_000) };
        let text = b"a,b,c,d,e,f,g\n1,-2.5e3,00501,true,,12345678901234567890,1_0\n";
        assert_eq!(
            read(text, rules),
            [r#"{"a":1,"b":-2.5e3,"c":"00501","d":true,"e":null,"f":"12345678901234567890","g":"1_0"}"#]
        );
    }

    #[test]
    fn reading_goes_on_at_any_place_reached_before() {
        let text = b"a,b\r\n1,\"x\r\ny\"\r\n\r\n2\r\n3,z\r\n";
        let whole = read(text, rules(1_000));
        let mut csv = open(text, rules(1_000)).unwrap();
        for done in 0..=whole.len() {
            let place = csv.place();
            assert_eq!(place.row, done as u64);
            let rest = io::Cursor::new(text[place.offset as usize..].to_vec());
            let mut resumed = open(text, rules(1_000)).unwrap().resume(Box::new(rest), place);
            let items: Vec<_> = std::iter::from_fn(|| resumed.read().unwrap()).map(shown).collect();
            assert_eq!(items, whole[done..]);
            csv.read().unwrap();
        }
    }

    #[test]
    fn headings_must_make_sense() {
        assert!(open(b"", rules(100)).is_err());
        assert!(open(b"a,a\n", rules(100)).is_err());
        let rules = |name: &str| Rules { id_column: Some(name.to_owned()), ..rules(100) };
        assert!(open(b"a,b\n", rules("c")).is_err());
        assert_eq!(read(b"a,\nx,1\n,2\n", rules("a"))[0], r#"{"a":"x","column_2":"1"} id=x"#);
    }

    #[test]
    fn a_byte_order_mark_within_a_file_belongs_to_its_cell_wherever_reading_begins() {
        let file = "a\n1\n\u{feff}2\n";
        let open = || Csv::new(Input::new(Box::new(file.as_bytes()), 0, 1), rules(1_000)).unwrap().unwrap();
        let mut whole = open();
        whole.read().unwrap();
        let place = whole.place();
        let mut resumed = open().resume(Box::new(&file.as_bytes()[place.offset as usize..]), place);
        let row = resumed.read().unwrap();
        assert!(
            matches!(&row, Some(Item::Row { body, .. }) if body == "{\"a\":\"\u{feff}2\"}".as_bytes()),
            "{row:?}"
        );
        assert_eq!(row, whole.read().unwrap());
    }
}
