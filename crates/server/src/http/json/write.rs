use bytes::Bytes;
use compact_str::CompactString;
use kit::Timestamp;
use model::{JobId, QueueName, State};
use std::io::Write as _;

/// Writes JSON into a buffer, commas included. Answers are built with it directly from the model: no tree and no
/// second set of types in between.
pub(crate) struct Writer {
    out: Vec<u8>,
    comma: bool,
}

impl Writer {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), comma: false }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    pub(crate) fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.nested(b'{', b'}', fields);
    }

    pub(crate) fn array<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.nested(b'[', b']', |out| {
            for value in items {
                item(out, value);
            }
        });
    }

    fn nested(&mut self, open: u8, close: u8, inside: impl FnOnce(&mut Self)) {
        self.separate();
        self.out.push(open);
        self.comma = false;
        inside(self);
        self.out.push(close);
        self.comma = true;
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    /// A key; one value must follow.
    pub(crate) fn key(&mut self, key: &str) -> &mut Self {
        self.separate();
        self.text(key);
        self.out.push(b':');
        self.comma = false;
        self
    }

    pub(crate) fn field(&mut self, key: &str, value: impl ToJson) {
        self.key(key).value(value);
    }

    /// A field that is left out where there is no value.
    pub(crate) fn optional(&mut self, key: &str, value: Option<impl ToJson>) {
        if let Some(value) = value {
            self.field(key, value);
        }
    }

    pub(crate) fn value(&mut self, value: impl ToJson) {
        self.separate();
        value.write(self);
    }

    fn text(&mut self, text: &str) {
        // A Vec takes every write and a &str is always representable, so this cannot fail.
        let _ = serde_json::to_writer(&mut self.out, text);
    }
}

/// A value that has one JSON form.
pub(crate) trait ToJson {
    fn write(&self, out: &mut Writer);
}

/// Bytes that are JSON already, embedded as they are.
pub(crate) struct Raw<'a>(pub(crate) &'a [u8]);

impl ToJson for Raw<'_> {
    fn write(&self, out: &mut Writer) {
        out.out.extend_from_slice(if self.0.is_empty() { b"null" } else { self.0 });
    }
}

impl ToJson for str {
    fn write(&self, out: &mut Writer) {
        out.text(self);
    }
}

impl ToJson for CompactString {
    fn write(&self, out: &mut Writer) {
        out.text(self);
    }
}

impl ToJson for QueueName {
    fn write(&self, out: &mut Writer) {
        out.text(self.as_str());
    }
}

impl ToJson for State {
    fn write(&self, out: &mut Writer) {
        out.text(self.name());
    }
}

impl ToJson for JobId {
    fn write(&self, out: &mut Writer) {
        match self {
            JobId::Text(text) => out.text(text),
            JobId::Uuid(_) => {
                let _ = write!(out.out, "\"{self}\"");
            }
        }
    }
}

impl ToJson for Timestamp {
    fn write(&self, out: &mut Writer) {
        let _ = write!(out.out, "\"{self}\"");
    }
}

impl ToJson for Bytes {
    fn write(&self, out: &mut Writer) {
        Raw(self).write(out);
    }
}

impl ToJson for bool {
    fn write(&self, out: &mut Writer) {
        out.out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

impl ToJson for f64 {
    /// Rates: three digits after the point are enough, and an infinity has no JSON form.
    fn write(&self, out: &mut Writer) {
        let value = if self.is_finite() { *self } else { 0.0 };
        let _ = write!(out.out, "{value:.3}");
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl ToJson for $number {
            fn write(&self, out: &mut Writer) {
                let _ = write!(out.out, "{self}");
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, usize);

impl<T: ToJson> ToJson for Option<T> {
    fn write(&self, out: &mut Writer) {
        match self {
            Some(value) => value.write(out),
            None => out.out.extend_from_slice(b"null"),
        }
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn write(&self, out: &mut Writer) {
        (**self).write(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json_whatever_the_text_holds() {
        let mut out = Writer::with_capacity(0);
        out.object(|out| {
            out.field("a\"b", "line\nbreak \u{1} \u{2028} é");
            out.key("list").array([1u32, 2], |out, n| out.object(|out| out.field("n", n)));
            out.field("raw", Raw(b"[1.0,{}]"));
            out.field("none", None::<u64>);
            out.optional("absent", None::<u64>);
            out.key("empty").object(|_| {});
            out.field("rate", f64::NAN);
            out.field("at", Timestamp(0));
        });
        let text = String::from_utf8(out.finish()).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["a\"b"], "line\nbreak \u{1} \u{2028} é");
        assert_eq!(read["list"][1]["n"], 2);
        assert!(text.contains(r#""raw":[1.0,{}],"none":null,"empty":{},"rate":0.000"#), "{text}");
    }
}
