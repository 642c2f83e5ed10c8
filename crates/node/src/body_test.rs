use kit::json::{Scalar, find};
use model::{BodyTest, Compare};
use std::cmp::Ordering;

/// Whether a body passes every test. One that is not JSON, or lacks a value that is asked for, passes none.
pub fn passes(body: &[u8], tests: &[BodyTest]) -> bool {
    tests.iter().all(|test| holds(body, test).unwrap_or(false))
}

fn holds(body: &[u8], BodyTest { path, compare, value }: &BodyTest) -> Option<bool> {
    let found = find(body, path)?;
    let wanted = Scalar::parse(value.as_bytes())?;
    // An object or a list equals no single value.
    let Some(found) = Scalar::parse(found) else { return Some(*compare == Compare::NotEqual) };
    let order = found.compare(&wanted);
    let ordered = |holds: fn(Ordering) -> bool| order.is_some_and(holds);
    Some(match compare {
        Compare::Equal => order == Some(Ordering::Equal),
        Compare::NotEqual => order != Some(Ordering::Equal),
        Compare::Less => ordered(Ordering::is_lt),
        Compare::AtMost => ordered(Ordering::is_le),
        Compare::Greater => ordered(Ordering::is_gt),
        Compare::AtLeast => ordered(Ordering::is_ge),
        Compare::Contains => {
            matches!((&found, &wanted), (Scalar::Text(text), Scalar::Text(part)) if text.contains(part.as_str()))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_passes_what_holds_of_it() {
        let body = br#"{"customer": {"id": 42, "name": "Ada"}, "paid": false, "lines": [1, 2]}"#;
        let test = |path: &str, sign: &str, value: &str| {
            let compare = Compare::ALL.iter().find(|(_, known)| *known == sign).unwrap().0;
            passes(body, &[BodyTest { path: path.into(), compare, value: value.into() }])
        };
        for (path, sign, value) in [
            ("/customer/id", "==", "42"),
            ("/customer/id", "==", "42.0"),
            ("/customer/id", "!=", "\"42\""),
            ("/customer/id", "<", "43"),
            ("/customer/id", ">=", "42"),
            ("/customer/name", "~", "\"da\""),
            ("/customer/name", ">", "\"A\""),
            ("/paid", "==", "false"),
            ("/lines", "!=", "1"),
            ("/lines/1", "==", "2"),
        ] {
            assert!(test(path, sign, value), "{path} {sign} {value}");
        }
        for (path, sign, value) in [
            ("/customer/id", "==", "\"42\""),
            ("/customer/id", "<", "\"x\""),
            ("/customer/nothing", "!=", "1"),
            ("/paid", "<", "true"),
            ("/lines", "==", "1"),
            ("/customer/id", "~", "\"4\""),
        ] {
            assert!(!test(path, sign, value), "{path} {sign} {value}");
        }
        assert!(passes(b"not json", &[]));
    }
}
