//! What the core needs to know of a payload, whatever its codec: where a key frame begins, its size, its picture ids.

use crate::h264::{self, KeyFrame};
use crate::types::Codec;
use crate::vp8::{self, Descriptor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyStart {
    No,
    Yes,
    /// Only if no packet of the same picture came before.
    IfFirstOfPicture,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub key_start: KeyStart,
    pub size: Option<(u16, u16)>,
    pub vp8: Option<Descriptor>,
}

pub(crate) fn inspect(codec: Codec, payload: &[u8]) -> Seen {
    let mut seen = Seen {
        key_start: KeyStart::No,
        size: None,
        vp8: None,
    };
    match codec {
        Codec::Vp8 => {
            seen.vp8 = vp8::parse(payload);
            seen.size = seen.vp8.as_ref().and_then(|d| vp8::key_frame_size(payload, d));
            if seen.size.is_some() {
                seen.key_start = KeyStart::Yes;
            }
        }
        Codec::H264 => match h264::key_frame(payload) {
            KeyFrame::None => {}
            KeyFrame::Slice => seen.key_start = KeyStart::IfFirstOfPicture,
            KeyFrame::ParameterSet { size } => {
                seen.key_start = KeyStart::Yes;
                seen.size = size;
            }
        },
        Codec::Opus => {}
    }
    seen
}
