//! One JSON value a line.

use super::{Input, Item, Place, Rules, bad, checked_id};
use serde_json::value::RawValue;
use std::{collections::HashMap, io};

/// Lines of JSON.
pub struct Ndjson {
    input: Input,
    rules: Rules,
    row: u64,
    line: Vec<u8>,
}

impl Ndjson {
    /// Reads rows from `input`, which has `row` rows behind it.
    pub fn new(mut input: Input, rules: Rules, row: u64) -> io::Result<Self> {
        if input.offset == 0 {
            input.skip_bom()?;
        }
        Ok(Self { input, rules, row, line: Vec::new() })
    }

    /// Where the next row begins.
    pub fn place(&self) -> Place {
        Place { row: self.row, offset: self.input.offset, line: self.input.line }
    }

    /// The next row; `None` at the end.
    pub fn read(&mut self) -> io::Result<Option<Item>> {
        loop {
            let number = self.input.line;
            let max = self.rules.row_bytes_max;
            let Some(whole) = self.input.read_line(&mut self.line, max)? else { return Ok(None) };
            let line = self.line.trim_ascii();
            if line.is_empty() && whole {
                continue;
            }
            self.row += 1;
            return Ok(Some(if whole {
                self.item(line).unwrap_or_else(|reason| bad(number, reason, line))
            } else {
                bad(number, format!("the line is longer than {max} bytes"), line)
            }));
        }
    }

    fn item(&self, line: &[u8]) -> Result<Item, String> {
        let text = std::str::from_utf8(line).map_err(|_| "the line is not valid UTF-8".to_owned())?;
        // serde_json refuses nesting beyond 128 levels by itself.
        let value: &RawValue = serde_json::from_str(text).map_err(|error| describe(&error))?;
        let id = self.rules.id_column.as_deref().map(|key| id_of(text, key)).transpose()?;
        Ok(Item::Row { body: value.get().as_bytes().to_vec(), id })
    }
}

fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("not JSON: {what} at column {}", error.column())
}

fn id_of(text: &str, key: &str) -> Result<String, String> {
    let fields: HashMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|_| format!("it is no object, so it has no {key:?}"))?;
    let value = fields.get(key).ok_or_else(|| format!("it has no {key:?} for the id"))?.get();
    if value.starts_with('"') {
        let id: String = serde_json::from_str(value).map_err(|error| error.to_string())?;
        checked_id(&id)
    } else if value.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        checked_id(value)
    } else {
        Err(format!("{key:?} is neither text nor a number, so it is no id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8], id_column: Option<&str>) -> Vec<Item> {
        let rules = Rules {
            row_bytes_max: 40,
            id_column: id_column.map(str::to_owned),
            infer: false,
            delimiter: b',',
        };
        let input = Input::new(Box::new(io::Cursor::new(text.to_vec())), 0, 1);
        let mut rows = Ndjson::new(input, rules, 0).unwrap();
        std::iter::from_fn(|| rows.read().unwrap()).collect()
    }

    fn row(body: &str, id: Option<&str>) -> Item {
        Item::Row { body: body.as_bytes().to_vec(), id: id.map(str::to_owned) }
    }

    #[test]
    fn values_stay_byte_for_byte_and_blank_lines_do_not_count() {
        let text = b"\xEF\xBB\xBF{\"a\": 1.50}\r\n\r\n \n[1,2]\n\"last\"";
        assert_eq!(read(text, None), [row("{\"a\": 1.50}", None), row("[1,2]", None), row("\"last\"", None)]);
    }

    #[test]
    fn bad_lines_are_named_and_the_next_line_is_read() {
        let mut text = b"{\"a\":\n\xff\n".to_vec();
        text.extend(vec![b'x'; 1_000_000]);
        text.extend(b"\n7\n");
        let items = read(&text, None);
        let reasons: Vec<_> = items
            .iter()
            .map(|item| match item {
                Item::Bad { line, reason, .. } => format!("{line}: {reason}"),
                Item::Row { .. } => "row".to_owned(),
            })
            .collect();
        assert_eq!(
            reasons,
            [
                "1: not JSON: EOF while parsing a value at column 5",
                "2: the line is not valid UTF-8",
                "3: the line is longer than 40 bytes",
                "row"
            ]
        );
    }

    #[test]
    fn ids_come_from_text_or_numbers() {
        let items = read(b"{\"k\":\"a\"}\n{\"k\":17}\n{\"k\":null}\n{}\n{\"k\":\"\"}\n", Some("k"));
        assert_eq!(items[0], row("{\"k\":\"a\"}", Some("a")));
        assert_eq!(items[1], row("{\"k\":17}", Some("17")));
        assert!(items[2..].iter().all(|item| matches!(item, Item::Bad { .. })), "{items:?}");
    }
}
