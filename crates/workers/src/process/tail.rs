use std::collections::VecDeque;

/// The last 16 KiB of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    pub(super) const BYTES_MAX: usize = 16 << 10;

    pub(super) fn push(&mut self, chunk: &[u8]) {
        let newest = &chunk[chunk.len().saturating_sub(Self::BYTES_MAX)..];
        let excess = (self.bytes.len() + newest.len()).saturating_sub(Self::BYTES_MAX);
        self.cut |= excess > 0 || newest.len() < chunk.len();
        self.bytes.drain(..excess);
        self.bytes.extend(newest);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// As text without the white space at its end; a cut start is marked.
    pub(super) fn text(&mut self) -> String {
        let text = String::from_utf8_lossy(self.bytes.make_contiguous());
        let mark = if self.cut { "… " } else { "" };
        format!("{mark}{}", text.trim_end())
    }
}

/// The end of a text in at most so many bytes; a cut start is marked.
pub(super) fn end_of(text: &str, bytes_max: usize) -> String {
    const MARK: &str = "… ";
    if text.len() <= bytes_max {
        return text.to_string();
    }
    let mut start = text.len() - bytes_max + MARK.len();
    while !text.is_char_boundary(start) {
        start += 1;
    }
    format!("{MARK}{}", &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept_and_the_cut_is_marked() {
        let mut tail = Tail::default();
        tail.push(b"short\n");
        assert_eq!(tail.text(), "short");
        tail.push(&vec![b'x'; Tail::BYTES_MAX * 3]);
        tail.push(b"end\n");
        assert_eq!(tail.bytes.len(), Tail::BYTES_MAX);
        assert!(tail.text().starts_with("… xxx") && tail.text().ends_with("xend"));
        tail.clear();
        assert_eq!(tail.text(), "");
        assert_eq!(end_of("whole", 5), "whole");
        assert_eq!(end_of("aaaéé", 6), "… é");
    }
}
