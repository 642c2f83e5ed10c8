use crate::http::problem::{self, Problem};
use serde::Deserialize;
use serde_json::error::Category;

/// How deep values may nest.
pub(crate) const DEPTH_MAX: usize = 128;

/// Characters of a name that is not known, as it is compared and shown.
const NAME_SHOWN: usize = 100;

/// Reads one JSON document. What is wrong with a bad one is found out on a second pass, so a good one pays nothing.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| explain::<T>(bytes, error))
}

fn explain<'a, T: Deserialize<'a>>(bytes: &'a [u8], error: serde_json::Error) -> Problem {
    let (line, column) = (error.line(), error.column());
    let offset = if error.is_eof() { bytes.len() } else { offset_of(bytes, line, column) };
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let place = |problem: Problem| {
        problem.with("offset", offset as u64).with("line", line as u64).with("column", column as u64)
    };
    if error.classify() != Category::Data {
        let detail = format!("invalid JSON at byte {offset} (line {line}, column {column}): {reason}");
        return place(Problem::new(&problem::INVALID_JSON, detail));
    }
    let path = path_of::<T>(bytes);
    if let Some((name, known)) = unknown_field(reason) {
        return place(unknown("field", name, known, &path));
    }
    if let Some(name) = reason.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        let detail =
            format!("the field `{name}` is there twice (byte {offset}, line {line}, column {column})");
        return place(Problem::new(&problem::INVALID_JSON, detail)).with("field", path);
    }
    let detail = if path.is_empty() { reason.to_owned() } else { format!("{path}: {reason}") };
    place(Problem::new(&problem::INVALID, detail)).with("field", path)
}

/// A refusal of a name nobody knows, with the known one that it most resembles.
pub(crate) fn unknown<'k>(
    what: &'static str,
    name: &str,
    known: impl IntoIterator<Item = &'k str>,
    path: &str,
) -> Problem {
    // A name may be as long as a body, and comparing takes room for its length times that of each known one.
    let name: String = name.chars().take(NAME_SHOWN).collect();
    let nearest = known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(&name, known), known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(2))
        .min_by_key(|(distance, _)| *distance);
    let inside = path.rsplit_once('.').map_or(String::new(), |(parent, _)| format!(" in {parent}"));
    let problem = match nearest {
        Some((_, meant)) => {
            let detail = format!("unknown {what} `{name}`{inside}: did you mean `{meant}`?");
            Problem::new(&problem::UNKNOWN_FIELD, detail).with("did_you_mean", meant)
        }
        None => Problem::new(&problem::UNKNOWN_FIELD, format!("unknown {what} `{name}`{inside}")),
    };
    problem.with("field", name)
}

/// Takes apart what the derived readers say: ``unknown field `x`, expected one of `a`, `b` ``.
fn unknown_field(reason: &str) -> Option<(&str, Vec<&str>)> {
    let rest = reason.strip_prefix("unknown field `")?;
    let (name, known) =
        rest.split_once("`, expected ").or_else(|| rest.split_once("`, there are no fields"))?;
    Some((name, known.split('`').skip(1).step_by(2).collect()))
}

fn path_of<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> String {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut input) {
        Err(error) => error.path().to_string().trim_start_matches('.').replace('?', ""),
        Ok(_) => String::new(),
    }
}

/// Lines and columns count from 1, and a column is the number of bytes taken from its line.
fn offset_of(bytes: &[u8], line: usize, column: usize) -> usize {
    let start = match line.checked_sub(2) {
        None => 0,
        Some(nth) => bytes
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .nth(nth)
            .map_or(bytes.len(), |(at, _)| at + 1),
    };
    (start + column.saturating_sub(1)).min(bytes.len())
}

/// Where `part` begins in `whole`, if it is a slice of it.
pub(crate) fn offset_in(whole: &[u8], part: &[u8]) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize).filter(|at| *at <= whole.len())
}

/// Refuses a well-formed value that nests deeper than [`DEPTH_MAX`]; answers the offset of the bracket too many.
pub(crate) fn check_depth(value: &[u8]) -> Result<(), usize> {
    // Every level takes two brackets: a short value cannot be deep, and most are short.
    if value.len() <= 2 * DEPTH_MAX {
        return Ok(());
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for (at, byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(at);
                }
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a document is an object whose first key is `key`: decides between one job and a batch without reading either.
pub(crate) fn first_key(bytes: &[u8], key: &str) -> bool {
    let bytes = bytes.trim_ascii_start();
    let Some(rest) = bytes.strip_prefix(b"{") else { return false };
    let Some(rest) = rest.trim_ascii_start().strip_prefix(b"\"") else { return false };
    rest.strip_prefix(key.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        #[serde(default)]
        _backoff: Option<u32>,
        #[serde(default, rename = "delay_ms")]
        _delay: Option<u32>,
    }

    fn refused(text: &str) -> Problem {
        parse::<Vec<Thing>>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_misspelt_field_is_answered_with_the_one_meant() {
        let problem = refused(r#"[{"delay_m":1}]"#);
        assert_eq!(problem.code(), "unknown_field");
        assert!(problem.detail().contains("did you mean `delay_ms`?"), "{}", problem.detail());
        assert!(!refused(r#"[{"zzzzzzzz":1}]"#).detail().contains("mean"));
    }

    #[test]
    fn a_wrong_type_is_named_with_its_path() {
        let problem = refused(r#"[{},{"delay_ms":"x"}]"#);
        assert_eq!(problem.code(), "invalid");
        assert!(problem.detail().starts_with("[1].delay_ms: invalid type"), "{}", problem.detail());
    }

    #[test]
    fn broken_json_is_refused_at_its_byte() {
        for (text, offset) in [("[{},,]", 4), ("[\n{}\n;", 5), ("", 0), ("[", 1)] {
            let problem = refused(text);
            assert_eq!(problem.code(), "invalid_json", "{text}");
            assert_eq!(problem.number("offset"), Some(offset), "{text}: {}", problem.detail());
        }
        assert_eq!(refused(r#"[{"delay_ms":1,"delay_ms":2}]"#).code(), "invalid_json");
    }

    #[test]
    fn depth_counts_brackets_outside_of_text_only() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check_depth(nested(DEPTH_MAX).as_bytes()), Ok(()));
        assert_eq!(check_depth(nested(DEPTH_MAX + 1).as_bytes()), Err(DEPTH_MAX));
        assert_eq!(check_depth(format!("\"\\\"{}\"", "[".repeat(999)).as_bytes()), Ok(()));
    }
}
