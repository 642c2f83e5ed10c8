//! The kinds of values. Each reads text too, because flags and the environment know nothing else.

use kit::{Millis, time::parse_span};
use serde::{Deserialize, Deserializer, de::Error};
use std::{fmt, time::Duration};
use toml::Value;

/// A span of time: `30s`, or a number of milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Millis);

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        Duration::from_millis(span.0)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        parse_span(&text(input)?).map(Span).map_err(D::Error::custom)
    }
}

/// A number of bytes: `32MiB`, or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub u64);

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = text(input)?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit = match text[digits..].trim() {
            "" | "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let size = unit.and_then(|unit: u64| text[..digits].parse::<u64>().ok()?.checked_mul(unit));
        size.map(ByteSize).ok_or_else(|| {
            D::Error::custom(format_args!("{text:?} is not a size such as 512KiB, 32MiB or 2GiB"))
        })
    }
}

/// How many of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub u64);

impl Count {
    /// As an index type.
    pub fn get(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = text(input)?;
        match text.parse::<u64>() {
            // Semaphores and arrays would not take more; nobody means it.
            Ok(count) if count <= u64::from(u32::MAX) => Ok(Count(count)),
            Ok(_) | Err(_) => {
                Err(D::Error::custom(format_args!("{text:?} is not a number of 0 to {}", u32::MAX)))
            }
        }
    }
}

/// Some words: a list, or text with commas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let words = match Value::deserialize(input)? {
            Value::Array(values) => values
                .iter()
                .map(|value| {
                    value.as_str().map(str::to_owned).ok_or(D::Error::custom("expected a list of texts"))
                })
                .collect::<Result<_, _>>()?,
            Value::String(text) => text.split(',').map(|word| word.trim().to_owned()).collect(),
            _ => return Err(D::Error::custom("expected a list of texts")),
        };
        Ok(Words(Vec::into_iter(words).filter(|word| !word.is_empty()).collect()))
    }
}

/// Text that is never shown.
#[derive(Clone, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes a secret in.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Its text.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none" } else { "set" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input).map(|text| Self(text.into()))
    }
}

/// `true` or `false`; also 1 and 0, and nothing for true as a flag has it.
pub(super) fn switch<'de, D: Deserializer<'de>>(input: D) -> Result<bool, D::Error> {
    match text(input)?.as_str() {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(D::Error::custom(format_args!("{other:?} is not true or false"))),
    }
}

fn text<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    match Value::deserialize(input)? {
        Value::String(text) => Ok(text.trim().to_owned()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(value) => Ok(value.to_string()),
        _ => Err(D::Error::custom("expected text or a number")),
    }
}
