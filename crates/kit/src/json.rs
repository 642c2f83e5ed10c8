//! One value out of a JSON text, found without building the rest: for conditions on bodies that nobody else looks into.
//!
//! The text is read once, from the front, and only as far as needed; nothing recurses and nothing is kept. Of a text that is
//! not JSON some value may be found all the same; it is never more than a value that stands there.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::cmp::Ordering;

/// A value that can be compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number without fraction and exponent, exactly.
    Integer(i128),
    /// Any other number.
    Float(f64),
    /// A string, without its quotes and escapes.
    Text(String),
}

impl Scalar {
    /// Reads a JSON string, number, `true`, `false` or `null`; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Scalar> {
        let text = text.trim_ascii();
        match text.first()? {
            b'"' => {
                let inner = text.get(1..text.len().checked_sub(1)?)?;
                let whole = skip_string(text, 0)? == text.len();
                whole.then(|| unescape(inner).map(|text| Scalar::Text(text.into_owned()))).flatten()
            }
            b'-' | b'0'..=b'9' => number(text),
            _ => match text {
                b"null" => Some(Scalar::Null),
                b"true" => Some(Scalar::Bool(true)),
                b"false" => Some(Scalar::Bool(false)),
                _ => None,
            },
        }
    }

    /// How two values stand to each other: numbers by size, text by its bytes, the rest only if equal.
    pub fn compare(&self, other: &Scalar) -> Option<Ordering> {
        match (self, other) {
            (Scalar::Integer(one), Scalar::Integer(other)) => Some(one.cmp(other)),
            (Scalar::Integer(one), Scalar::Float(other)) => (*one as f64).partial_cmp(other),
            (Scalar::Float(one), Scalar::Integer(other)) => one.partial_cmp(&(*other as f64)),
            (Scalar::Float(one), Scalar::Float(other)) => one.partial_cmp(other),
            (Scalar::Text(one), Scalar::Text(other)) => Some(one.cmp(other)),
            _ => (self == other).then_some(Ordering::Equal),
        }
    }
}

/// Finds the value that a JSON pointer (RFC 6901) leads to, as it is written. Of equal names the first counts.
///
/// ```
/// let body = br#"{"customer": {"id": 42, "tags": ["a", "b"]}}"#;
/// assert_eq!(kit::json::find(body, "/customer/id"), Some(&b"42"[..]));
/// assert_eq!(kit::json::find(body, "/customer/tags/1"), Some(&br#""b""#[..]));
/// assert_eq!(kit::json::find(body, "/customer/name"), None);
/// ```
pub fn find<'a>(text: &'a [u8], pointer: &str) -> Option<&'a [u8]> {
    let mut at = skip_space(text, 0);
    if !pointer.is_empty() {
        for step in pointer.strip_prefix('/')?.split('/') {
            at = match text.get(at)? {
                b'{' => member(text, at + 1, &name_of(step))?,
                b'[' => element(text, at + 1, step)?,
                _ => return None,
            };
        }
    }
    let end = skip_value(text, at)?;
    text.get(at..end)
}

/// Whether this is a JSON pointer.
pub fn is_pointer(text: &str) -> bool {
    text.is_empty() || text.starts_with('/')
}

fn name_of(step: &str) -> Cow<'_, str> {
    if step.contains('~') {
        Cow::Owned(step.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(step)
    }
}

/// Where the value of a member begins.
fn member(text: &[u8], mut at: usize, name: &str) -> Option<usize> {
    loop {
        at = skip_space(text, at);
        if *text.get(at)? != b'"' {
            return None;
        }
        let end = skip_string(text, at)?;
        let found = unescape(text.get(at + 1..end - 1)?)? == name;
        at = skip_space(text, end);
        if *text.get(at)? != b':' {
            return None;
        }
        at = skip_space(text, at + 1);
        if found {
            return Some(at);
        }
        at = next(text, skip_value(text, at)?)?;
    }
}

/// Where an element begins.
fn element(text: &[u8], mut at: usize, index: &str) -> Option<usize> {
    let leading_zero = index.len() > 1 && index.starts_with('0');
    let mut left: usize = index.parse().ok().filter(|_| !leading_zero && !index.starts_with('+'))?;
    loop {
        at = skip_space(text, at);
        if *text.get(at)? == b']' {
            return None;
        }
        if left == 0 {
            return Some(at);
        }
        left -= 1;
        at = next(text, skip_value(text, at)?)?;
    }
}

/// Behind the comma after a value; `None` at the end.
fn next(text: &[u8], at: usize) -> Option<usize> {
    let at = skip_space(text, at);
    (*text.get(at)? == b',').then_some(at + 1)
}

fn skip_space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the string that begins here.
fn skip_string(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that begins here. Brackets are counted, not matched by kind: this is a search, not a check.
fn skip_value(text: &[u8], at: usize) -> Option<usize> {
    let (mut at, mut depth) = (at, 0u32);
    loop {
        match text.get(at)? {
            b'"' => at = skip_string(text, at)?,
            b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
            b'}' | b']' => (depth, at) = (depth.checked_sub(1)?, at + 1),
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => at += 1,
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => return None,
            _ => {
                while text.get(at).is_some_and(|byte| !b",:]} \t\n\r\"[{".contains(byte)) {
                    at += 1;
                }
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

fn number(text: &[u8]) -> Option<Scalar> {
    let text = core::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    let shaped = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
        && !digits.ends_with('.')
        && !digits.contains(".e")
        && !digits.contains(".E");
    if leading_zero || !shaped {
        return None;
    }
    match text.parse() {
        Ok(whole) => Some(Scalar::Integer(whole)),
        Err(_) => text.parse().ok().map(Scalar::Float),
    }
}

fn unescape(inner: &[u8]) -> Option<Cow<'_, str>> {
    if !inner.contains(&b'\\') {
        return core::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    let (mut out, mut at) = (Vec::with_capacity(inner.len()), 0);
    while let Some(byte) = inner.get(at) {
        at += 1;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let escape = *inner.get(at)?;
        at += 1;
        match escape {
            b'"' | b'\\' | b'/' => out.push(escape),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut unit = hex(inner, at)?;
                at += 4;
                if (0xd800..0xdc00).contains(&unit) && inner.get(at..at + 2) == Some(b"\\u") {
                    let low = hex(inner, at + 2)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
                    unit = 0x1_0000 + ((unit - 0xd800) << 10) + low;
                    at += 6;
                }
                let mut bytes = [0; 4];
                out.extend_from_slice(char::from_u32(unit)?.encode_utf8(&mut bytes).as_bytes());
            }
            _ => return None,
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

fn hex(text: &[u8], at: usize) -> Option<u32> {
    let digits = core::str::from_utf8(text.get(at..at + 4)?).ok()?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn found(body: &str, pointer: &str) -> Option<Scalar> {
        find(body.as_bytes(), pointer).and_then(Scalar::parse)
    }

    #[test]
    fn a_pointer_leads_to_its_value() {
        let body =
            r#" { "a" : [ 1 , {"b": "x\"y"} , [ ] ] , "a/b": null, "m~n": -1.5e2, "ü": true, "": {"": 7} } "#;
        assert_eq!(found(body, "/a/0"), Some(Scalar::Integer(1)));
        assert_eq!(found(body, "/a/1/b"), Some(Scalar::Text("x\"y".into())));
        assert_eq!(found(body, "/a~1b"), Some(Scalar::Null));
        assert_eq!(found(body, "/m~0n"), Some(Scalar::Float(-150.0)));
        assert_eq!(found(body, "/ü"), Some(Scalar::Bool(true)));
        assert_eq!(found(body, "//"), Some(Scalar::Integer(7)));
        assert_eq!(found("\"whole\"", ""), Some(Scalar::Text("whole".into())));
        assert_eq!(find(body.as_bytes(), "/a/2"), Some(&b"[ ]"[..]));
        for nowhere in ["/b", "/a/3", "/a/01", "/a/+1", "/a/-1", "/a/0/x", "a", "/a/1/b/c"] {
            assert_eq!(find(body.as_bytes(), nowhere), None, "{nowhere}");
        }
    }

    #[test]
    fn names_and_text_may_be_escaped() {
        assert_eq!(found(r#"{"\u0061\n": "\ud83d\ude00\/"}"#, "/a\n"), Some(Scalar::Text("😀/".into())));
        assert_eq!(found(r#"{"a": "\ud83d"}"#, "/a"), None, "half a pair is no text");
    }

    #[test]
    fn numbers_that_no_float_can_hold_are_compared_exactly() {
        let parse = |text: &str| Scalar::parse(text.as_bytes()).unwrap();
        let [big, bigger] = ["9007199254740993", "9007199254740992"].map(parse);
        assert_eq!(big.compare(&bigger), Some(Ordering::Greater));
        assert_eq!(parse("1.0").compare(&parse("1")), Some(Ordering::Equal));
        assert_eq!(parse("\"a\"").compare(&parse("\"b\"")), Some(Ordering::Less));
        assert_eq!(parse("null").compare(&parse("false")), None);
        for bad in ["01", "1.", "-", "+1", "1.e3", "nan", "inf", "\"a", "\"a\"b\"", "tru", "", "{}", "[]"] {
            assert_eq!(Scalar::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = Random::new(5);
        let alphabet = b"{}[]\",:\\u0aA1.e- \x80";
        for _ in 0..50_000 {
            let length = random.below(24);
            let text: Vec<u8> =
                (0..length).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]).collect();
            for pointer in ["", "/a", "/0", "/a/0/1", "//"] {
                let _ = find(&text, pointer).map(Scalar::parse);
            }
            let _ = Scalar::parse(&text);
        }
    }
}
