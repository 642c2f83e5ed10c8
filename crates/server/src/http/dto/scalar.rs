use crate::http::{
    json::{check_depth, offset_in},
    problem::{self, Problem},
};
use bytes::Bytes;
use kit::Timestamp;
use model::{JobId, JobRef, Priority, QueueName};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, ops::Deref};

/// Text that stays in the request's bytes unless it holds escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text<'a>(Cow<'a, str>);

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'a, T: Into<Cow<'a, str>>> From<T> for Text<'a> {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        input.deserialize_str(Words)
    }
}

/// An instant: RFC 3339 or Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Instant;
        impl Visitor<'_> for Instant {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("RFC 3339 text (\"2026-01-02T03:04:05Z\") or Unix milliseconds")
            }
            fn visit_u64<E: serde::de::Error>(self, millis: u64) -> Result<Time, E> {
                let time = Timestamp(millis);
                if time > Timestamp::MAX {
                    return Err(E::custom("the time is after the year 9999"));
                }
                Ok(Time(time))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                text.parse().map(Time).map_err(E::custom)
            }
        }
        input.deserialize_any(Instant)
    }
}

/// How urgent: a number or a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Urgency(pub(crate) Priority);

impl<'de> Deserialize<'de> for Urgency {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Level;
        const EXPECTED: &str = "a priority of 0 to 255 or one of critical, high, normal, low, background";
        impl Visitor<'_> for Level {
            type Value = Urgency;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Urgency, E> {
                u8::try_from(number)
                    .map(|number| Urgency(Priority(number)))
                    .map_err(|_| E::custom(format_args!("{number} is not {EXPECTED}")))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Urgency, E> {
                text.parse().map(Urgency).map_err(E::custom)
            }
        }
        input.deserialize_any(Level)
    }
}

/// A lease token: a number, or its digits as text for languages whose numbers are floating point.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Token(pub(crate) u64);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Token;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a lease token (a number)")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Token, E> {
                Ok(Token(number))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Token, E> {
                text.parse().map(Token).map_err(|_| E::custom("a lease token is a number"))
            }
        }
        input.deserialize_any(Digits)
    }
}

/// A raw value that tells `null` from "not there".
pub(crate) fn some_raw<'de, D: Deserializer<'de>>(input: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(input).map(Some)
}

/// Headers as an object of texts, in the order given; a key there twice is refused.
pub(crate) fn pairs<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<(Text<'de>, Text<'de>)>, D::Error> {
    struct Pairs;
    impl<'de> Visitor<'de> for Pairs {
        type Value = Vec<(Text<'de>, Text<'de>)>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object whose values are strings")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs: Vec<(Text<'de>, Text<'de>)> = Vec::new();
            while let Some(key) = map.next_key::<Text<'de>>()? {
                if pairs.len() >= model::limits::META_MAX {
                    return Err(A::Error::custom(format_args!(
                        "at most {} entries are allowed",
                        model::limits::META_MAX
                    )));
                }
                if pairs.iter().any(|(known, _)| *known == key) {
                    return Err(A::Error::custom(format_args!("the key {:?} is there twice", &*key)));
                }
                pairs.push((key, map.next_value()?));
            }
            Ok(pairs)
        }
    }
    input.deserialize_map(Pairs)
}

/// The request's bytes, from which raw values are cut without copying.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a>(pub(crate) &'a Bytes);

impl Source<'_> {
    /// The bytes of a JSON value for the model. Small ones are copied, so that they do not hold the request in memory;
    /// large ones share it.
    pub(crate) fn raw(&self, field: &str, value: &RawValue) -> Result<Bytes, Problem> {
        const SHARED_FROM: usize = 64 << 10;
        let bytes = value.get().as_bytes();
        if let Err(at) = check_depth(bytes) {
            let offset = offset_in(self.0, bytes).unwrap_or(0) + at;
            let detail = format!("{field}: values nest at most 128 deep; byte {offset} opens one more");
            return Err(Problem::new(&problem::INVALID_JSON, detail)
                .with("field", field)
                .with("offset", offset as u64));
        }
        let whole = bytes.len() >= SHARED_FROM && bytes.len() * 2 >= self.0.len();
        Ok(if whole { self.0.slice_ref(bytes) } else { Bytes::copy_from_slice(bytes) })
    }
}

pub(crate) fn queue_name(field: &str, text: &str) -> Result<QueueName, Problem> {
    QueueName::new(text).map_err(|error| Problem::invalid(field, error))
}

pub(crate) fn job_id(field: &str, text: &str) -> Result<JobId, Problem> {
    JobId::parse(text).map_err(|error| Problem::invalid(field, error))
}

/// Names a job by its id, and its queue where given.
pub(crate) fn job_ref(queue: Option<&Text<'_>>, id: &Text<'_>) -> Result<JobRef, Problem> {
    let queue = queue.map(|name| queue_name("queue", name)).transpose()?;
    Ok(JobRef { queue, id: job_id("id", id)? })
}
