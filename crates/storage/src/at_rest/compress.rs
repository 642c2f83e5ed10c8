//! Zstandard, where it makes a value smaller.

/// Level 1: on small JSON a higher one takes longer and gains nothing.
#[cfg(feature = "compression")]
const LEVEL: i32 = 1;

/// Makes values smaller; keeps its tables from one to the next.
pub(crate) struct Compressor {
    #[cfg(feature = "compression")]
    context: Option<zstd::zstd_safe::CCtx<'static>>,
}

#[cfg(feature = "compression")]
impl Compressor {
    pub(crate) fn new() -> Self {
        Self { context: None }
    }

    /// Appends the compressed value to `out`, if that takes at least a sixteenth less; else `out` is left as it was.
    pub(crate) fn append(&mut self, value: &[u8], out: &mut Vec<u8>) -> bool {
        use zstd::zstd_safe::{CCtx, CParameter};
        if self.context.is_none() {
            let Some(mut context) = CCtx::try_create() else { return false };
            let set = [
                CParameter::CompressionLevel(LEVEL),
                // The length stands in front, the checksum behind: both are ours.
                CParameter::ContentSizeFlag(false),
                CParameter::ChecksumFlag(false),
            ];
            if set.into_iter().any(|parameter| context.set_parameter(parameter).is_err()) {
                return false;
            }
            self.context = Some(context);
        }
        let Some(context) = &mut self.context else { return false };
        let (start, room) = (out.len(), value.len() - value.len() / 16);
        out.resize(start + room, 0);
        // No room is an error, and means that it does not pay.
        match context.compress2(&mut out[start..], value) {
            Ok(length) if length < room => {
                out.truncate(start + length);
                true
            }
            Ok(_) | Err(_) => {
                out.truncate(start);
                false
            }
        }
    }
}

/// The value of `length` bytes that was compressed; `None` if it is damaged.
#[cfg(feature = "compression")]
pub(crate) fn decompress(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    use std::cell::RefCell;
    use zstd::zstd_safe::DCtx;
    thread_local!(static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) });
    CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = DCtx::try_create();
        }
        let mut value = Vec::with_capacity(length);
        let written = context.as_mut()?.decompress(&mut value, bytes).ok()?;
        (written == length && value.len() == length).then_some(value)
    })
}

#[cfg(not(feature = "compression"))]
impl Compressor {
    pub(crate) fn new() -> Self {
        Self {}
    }

    pub(crate) fn append(&mut self, _value: &[u8], _out: &mut Vec<u8>) -> bool {
        false
    }
}
