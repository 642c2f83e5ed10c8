use super::scalar::Text;
use kit::{Backoff, Millis, time::parse_span};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::fmt;

/// `"sidekiq"`, `"fixed:5s"`, `"exponential"`, or an object with a `type`.
#[derive(Debug, Clone)]
pub(crate) struct BackoffDto(pub(crate) Backoff);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    base_ms: Option<Millis>,
    cap_ms: Option<Millis>,
    delay_ms: Option<Millis>,
    delays_ms: Option<Vec<Millis>>,
}

impl Rule<'_> {
    fn into_backoff<E: Error>(self) -> Result<Backoff, E> {
        let given = [
            ("base_ms", self.base_ms.is_some(), "exponential"),
            ("cap_ms", self.cap_ms.is_some(), "exponential"),
            ("delay_ms", self.delay_ms.is_some(), "fixed"),
            ("delays_ms", self.delays_ms.is_some(), "list"),
        ];
        if let Some((name, _, owner)) = given.iter().find(|(_, given, owner)| *given && *owner != &*self.kind)
        {
            return Err(E::custom(format_args!("{name} belongs to a backoff of type {owner}")));
        }
        let Backoff::Exponential { base, cap } = Backoff::DEFAULT else {
            return Err(E::custom("no default"));
        };
        match &*self.kind {
            "exponential" => Ok(Backoff::Exponential {
                base: self.base_ms.unwrap_or(base),
                cap: self.cap_ms.unwrap_or(cap.max(self.base_ms.unwrap_or(base))),
            }),
            "fixed" => match self.delay_ms {
                Some(delay) => Ok(Backoff::Fixed { delay }),
                None => Err(E::missing_field("delay_ms")),
            },
            "list" => match self.delays_ms {
                Some(delays) => Ok(Backoff::List { delays }),
                None => Err(E::missing_field("delays_ms")),
            },
            "sidekiq" => Ok(Backoff::Sidekiq),
            other => Err(E::unknown_variant(other, &["exponential", "fixed", "sidekiq", "list"])),
        }
    }
}

fn short<E: Error>(text: &str) -> Result<Backoff, E> {
    if let Some(span) = text.strip_prefix("fixed:") {
        return parse_span(span).map(|delay| Backoff::Fixed { delay }).map_err(E::custom);
    }
    match text {
        "exponential" => Ok(Backoff::DEFAULT),
        "sidekiq" => Ok(Backoff::Sidekiq),
        other => Err(E::custom(format_args!(
            "{other:?} is no backoff: expected \"exponential\", \"sidekiq\", \"fixed:5s\" or an object with a type"
        ))),
    }
}

impl<'de> Deserialize<'de> for BackoffDto {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = BackoffDto;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a backoff (\"exponential\", \"sidekiq\", \"fixed:5s\" or an object with a type)")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<BackoffDto, E> {
                short(text).map(BackoffDto)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BackoffDto, A::Error> {
                Rule::deserialize(MapAccessDeserializer::new(map))?.into_backoff().map(BackoffDto)
            }
        }
        input.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_backoff_is_read() {
        let cases = [
            (r#""sidekiq""#, Backoff::Sidekiq),
            (r#""fixed:5s""#, Backoff::Fixed { delay: 5_000 }),
            (r#""exponential""#, Backoff::DEFAULT),
            (r#"{"type":"exponential","base_ms":1,"cap_ms":9}"#, Backoff::Exponential { base: 1, cap: 9 }),
            (r#"{"type":"fixed","delay_ms":7}"#, Backoff::Fixed { delay: 7 }),
            (r#"{"type":"list","delays_ms":[1,2]}"#, Backoff::List { delays: vec![1, 2] }),
            (r#"{"type":"sidekiq"}"#, Backoff::Sidekiq),
        ];
        for (text, expected) in cases {
            assert_eq!(serde_json::from_str::<BackoffDto>(text).unwrap().0, expected, "{text}");
        }
        for bad in [
            "\"linear\"",
            "5",
            r#"{"type":"fixed"}"#,
            r#"{"type":"fixed","cap_ms":1,"delay_ms":1}"#,
            r#"{"type":"slow"}"#,
        ] {
            assert!(serde_json::from_str::<BackoffDto>(bad).is_err(), "{bad}");
        }
    }
}
