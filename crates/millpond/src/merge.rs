//! JSON merge patch (RFC 7396) on the text itself: what the patch does not name stays byte for byte as it was.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// Levels of a patch, at most; as deep as bodies may be over HTTP.
const DEPTH_MAX: usize = 128;

/// An object's members in their order; a key may be there twice.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Reader)
    }
}

/// A key without a copy, unless it has escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Key<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        from.deserialize_str(Reader)
    }
}

/// The JSON document that a JSON merge patch (RFC 7396) makes of `target`: members that the patch names are set, `null` removes one,
/// all others stay byte for byte. [`crate::Queue::patch_body`] does it to the body of a job.
///
/// # Errors
/// One of the two is not JSON, or the patch is nested deeper than 128 levels.
pub fn merge_patch(target: &str, patch: &str) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(target.len() + patch.len());
    merge_into(Some(serde_json::from_str(target)?), serde_json::from_str(patch)?, DEPTH_MAX, &mut out)?;
    Ok(out)
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

fn merge_into(
    target: Option<&RawValue>,
    patch: &RawValue,
    depth: usize,
    out: &mut String,
) -> Result<(), serde_json::Error> {
    if !is_object(patch) {
        out.push_str(patch.get());
        return Ok(());
    }
    let deeper = depth
        .checked_sub(1)
        .ok_or_else(|| serde_json::Error::custom("the patch is nested deeper than 128 levels"))?;
    let Members(patch) = serde_json::from_str(patch.get())?;
    let Members(target) = match target.filter(|target| is_object(target)) {
        Some(target) => serde_json::from_str(target.get())?,
        None => Members(Vec::new()),
    };
    let mut changes: BTreeMap<&str, (&RawValue, bool)> = BTreeMap::new();
    for (key, value) in &patch {
        changes.insert(key, (value, false));
    }
    let start = out.len();
    for (key, value) in &target {
        match changes.get_mut(&**key) {
            None => {
                put_key(key, start, out)?;
                out.push_str(value.get());
            }
            Some((change, met)) => {
                *met = true;
                if change.get() != "null" {
                    put_key(key, start, out)?;
                    merge_into(Some(value), change, deeper, out)?;
                }
            }
        }
    }
    for (key, _) in &patch {
        let Some((change, met)) = changes.get_mut(&**key) else { continue };
        if !std::mem::replace(met, true) && change.get() != "null" {
            put_key(key, start, out)?;
            merge_into(None, change, deeper, out)?;
        }
    }
    out.push_str(if out.len() == start { "{}" } else { "}" });
    Ok(())
}

fn put_key(key: &str, start: usize, out: &mut String) -> Result<(), serde_json::Error> {
    out.push(if out.len() == start { '{' } else { ',' });
    out.push_str(&serde_json::to_string(key)?);
    out.push(':');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, merge_patch};

    /// The cases of RFC 7396, appendix A.
    #[test]
    fn it_does_what_the_standard_says() {
        for (target, patch, wanted) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merge_patch(target, patch).unwrap(), wanted, "{target} + {patch}");
        }
    }

    #[test]
    fn what_is_not_named_stays_as_it_was_written() {
        assert_eq!(merge_patch(r#"{"n":1.50e400,"b":1}"#, r#"{"b":2}"#).unwrap(), r#"{"n":1.50e400,"b":2}"#);
        assert_eq!(
            merge_patch(r#"{"b":{"z":-0},"a":1}"#, r#"{"b":{"y":2}}"#).unwrap(),
            r#"{"b":{"z":-0,"y":2},"a":1}"#
        );
        assert!(merge_patch("{", "{}").is_err());
    }

    #[test]
    fn keys_with_escapes_are_met_and_a_key_that_is_there_twice_is_changed_twice() {
        assert_eq!(merge_patch(r#"{"\u0061":1,"b":2}"#, r#"{"a":3}"#).unwrap(), r#"{"a":3,"b":2}"#);
        assert_eq!(merge_patch(r#"{"a":1,"a":2}"#, r#"{"a":null}"#).unwrap(), "{}");
        assert_eq!(merge_patch("{}", r#"{"a":1,"a":2}"#).unwrap(), r#"{"a":2}"#);
    }

    #[test]
    fn a_patch_without_end_is_an_error_and_not_the_end_of_the_stack() {
        let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert_eq!(merge_patch("{}", &nested(DEPTH_MAX)).unwrap(), nested(DEPTH_MAX));
        assert!(merge_patch("{}", &nested(DEPTH_MAX + 1)).is_err());
        assert!(merge_patch("{}", &nested(100_000)).is_err());
    }
}
