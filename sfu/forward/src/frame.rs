//! What the core needs to know of a payload, whatever its codec: where a key frame begins, its size, its picture ids,
//! its temporal layer.

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
    pub picture: Picture,
}

/// What a slot must know of the picture that a packet belongs to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Picture {
    /// The first packet of the picture, as far as the codec tells.
    pub start: bool,
    /// Temporal layer, 0 if there is only one.
    pub tid: u8,
    /// A viewer of the layers below can step up to `tid` here.
    pub sync: bool,
    /// No temporal layer is above `tid`.
    pub top: bool,
    pub vp8: Option<Descriptor>,
}

pub(crate) fn inspect(codec: Codec, payload: &[u8]) -> Seen {
    let mut seen = Seen {
        key_start: KeyStart::No,
        size: None,
        picture: Picture::default(),
    };
    match codec {
        Codec::Vp8 => {
            let Some(descriptor) = vp8::parse(payload) else {
                return seen;
            };
            seen.size = vp8::key_frame_size(payload, &descriptor);
            if seen.size.is_some() {
                seen.key_start = KeyStart::Yes;
            }
            seen.picture = Picture {
                start: descriptor.frame_start,
                tid: descriptor.tid.unwrap_or(0),
                sync: descriptor.layer_sync,
                top: false,
                vp8: Some(descriptor),
            };
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
