//! Zstandard, where it makes a value smaller.

#[cfg(feature = "compression")]
use super::dictionary::Dictionaries;
use super::dictionary::Dictionary;

/// Level 1: on small JSON a higher one takes longer and gains nothing.
#[cfg(feature = "compression")]
pub(crate) const LEVEL: i32 = 1;
/// What every frame of Zstandard begins with. Those of small values leave it out.
#[cfg(feature = "compression")]
const FRAME_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

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
        let Some(context) = self.context() else { return false };
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

    /// The same with a dictionary, whose number and the value's length stand in what is appended.
    pub(crate) fn append_with(&mut self, dictionary: &Dictionary, value: &[u8], out: &mut Vec<u8>) -> bool {
        let (Some(context), Some(forth)) = (self.context(), dictionary.forth()) else { return false };
        let (start, room) = (out.len(), value.len() - value.len() / 16 + FRAME_MAGIC.len());
        out.resize(start + room, 0);
        match context.compress_using_cdict(&mut out[start..], value, forth) {
            Ok(length) if length < room => {
                out.truncate(start + length);
                out.drain(start..start + FRAME_MAGIC.len());
                true
            }
            Ok(_) | Err(_) => {
                out.truncate(start);
                false
            }
        }
    }

    fn context(&mut self) -> Option<&mut zstd::zstd_safe::CCtx<'static>> {
        use zstd::zstd_safe::{CCtx, CParameter};
        if self.context.is_none() {
            let mut context = CCtx::try_create()?;
            let set = [
                CParameter::CompressionLevel(LEVEL),
                // The length stands in front, the checksum behind: both are ours.
                CParameter::ContentSizeFlag(false),
                CParameter::ChecksumFlag(false),
            ];
            if set.into_iter().any(|parameter| context.set_parameter(parameter).is_err()) {
                return None;
            }
            self.context = Some(context);
        }
        self.context.as_mut()
    }
}

/// The value of `length` bytes that was compressed; `None` if it is damaged.
#[cfg(feature = "compression")]
pub(crate) fn decompress(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(length);
    let written = with_context(|context| context.decompress(&mut value, bytes).ok())?;
    (written == length && value.len() == length).then_some(value)
}

/// The value that [`Compressor::append_with`] compressed, of at most `length_max` bytes, and its dictionary; `None` if it is damaged.
#[cfg(feature = "compression")]
pub(crate) fn decompress_with<'d>(
    dictionaries: &'d Dictionaries,
    bytes: &[u8],
    length_max: usize,
) -> Option<(Vec<u8>, &'d Dictionary)> {
    use zstd::zstd_safe::{get_dict_id_from_frame, get_frame_content_size};
    let frame = [&FRAME_MAGIC, bytes].concat();
    let length = usize::try_from(get_frame_content_size(&frame).ok()??).ok()?;
    if length > length_max {
        return None;
    }
    let number = get_dict_id_from_frame(&frame)?.get() as usize;
    let dictionary = dictionaries.get(number - 1)?;
    let back = dictionary.back()?;
    let mut value = Vec::with_capacity(length);
    let written = with_context(|context| context.decompress_using_ddict(&mut value, &frame, back).ok())?;
    (written == length && value.len() == length).then_some((value, &**dictionary))
}

/// Each thread keeps its tables from one value to the next.
#[cfg(feature = "compression")]
fn with_context<T>(run: impl FnOnce(&mut zstd::zstd_safe::DCtx<'static>) -> Option<T>) -> Option<T> {
    use std::cell::RefCell;
    use zstd::zstd_safe::DCtx;
    thread_local!(static CONTEXT: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) });
    CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = DCtx::try_create();
        }
        run(context.as_mut()?)
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

    pub(crate) fn append_with(&mut self, _with: &Dictionary, _value: &[u8], _out: &mut Vec<u8>) -> bool {
        false
    }
}
