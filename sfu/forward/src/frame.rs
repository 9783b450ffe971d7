//! What the core needs to know of a payload, whatever its codec: where a key frame begins, its size, its picture ids,
//! and how far up it is among the layers of its stream.

use crate::described::Frame;
use crate::h264::{self, KeyFrame};
use crate::rate::{STEPS, TEMPORAL};
use crate::spatial::Sizes;
use crate::types::Codec;
use crate::vp8::{self, PictureId};
use crate::{av1, vp9};

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
    /// Of the spatial layers, where the packet tells them.
    pub sizes: Sizes,
    pub picture: Picture,
}

/// What a slot must know of the picture that a packet belongs to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picture {
    /// The first packet of the picture, or of its layer, as far as the codec tells.
    pub start: bool,
    /// The last packet of the picture's layer, likewise; only where there are spatial layers.
    pub end: bool,
    /// How far up it is: temporal layers of the base first, then spatial layers (see [`crate::rate`]).
    pub step: u8,
    /// A viewer of the steps below can step up here.
    pub sync: bool,
    /// The next lower step that there is.
    pub below: u8,
    /// No step is above this one.
    pub top: bool,
    /// Of a stream with dependency descriptors it is the frame's number, and each layer's frame has its own.
    pub id: Option<PictureId>,
    pub tl0: Option<u8>,
    /// What the dependency descriptor says beyond that.
    pub frame: Option<Frame>,
}

impl Picture {
    pub const PLAIN: Picture = Picture {
        start: false,
        end: false,
        step: 0,
        sync: false,
        below: 0,
        top: true,
        id: None,
        tl0: None,
        frame: None,
    };

    /// Of the base of its picture, not of a spatial layer above.
    pub fn is_base(&self) -> bool {
        usize::from(self.step) < TEMPORAL
    }
}

pub(crate) fn inspect(codec: Codec, payload: &[u8]) -> Seen {
    let mut seen = Seen::NOTHING;
    match codec {
        Codec::Vp8 => {
            if let Some(descriptor) = vp8::parse(payload) {
                seen.size = vp8::key_frame_size(payload, &descriptor);
                seen.begins_if(seen.size.is_some());
                seen.picture = of_vp8(&descriptor);
            }
        }
        Codec::Vp9 => {
            if let Some(descriptor) = vp9::parse(payload) {
                seen.size = vp9::key_frame_size(payload, &descriptor);
                seen.sizes = descriptor.sizes;
                seen.begins_if(vp9::key_frame_begins(&descriptor));
                seen.picture = of_vp9(&descriptor);
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
        Codec::Av1 => {
            let key_frame = av1::key_frame(payload);
            seen.begins_if(key_frame.is_some());
            seen.size = key_frame.flatten();
        }
        Codec::Opus => {}
    }
    seen
}

/// Whether a viewer who has seen nothing yet could begin with this payload; sound can begin anywhere.
pub fn starts_key_frame(codec: Codec, payload: &[u8]) -> bool {
    codec == Codec::Opus || inspect(codec, payload).key_start != KeyStart::No
}

impl Seen {
    pub const NOTHING: Seen = Seen {
        key_start: KeyStart::No,
        size: None,
        sizes: Sizes::NONE,
        picture: Picture::PLAIN,
    };

    fn begins_if(&mut self, key_frame: bool) {
        if key_frame {
            self.key_start = KeyStart::Yes;
        }
    }
}

fn of_vp8(descriptor: &vp8::Descriptor) -> Picture {
    Picture {
        start: descriptor.frame_start,
        step: step(0, descriptor.tid.unwrap_or(0)),
        sync: descriptor.layer_sync,
        id: descriptor.picture_id,
        tl0: descriptor.tl0_pic_idx,
        ..Picture::PLAIN
    }
}

/// A viewer steps up to a temporal layer where the publisher says so, and to a spatial layer where that needs no
/// earlier picture.
fn of_vp9(descriptor: &vp9::Descriptor) -> Picture {
    let sync = if descriptor.sid == 0 {
        descriptor.switching_up
    } else {
        !descriptor.inter_picture
    };
    Picture {
        start: descriptor.begins,
        end: descriptor.ends,
        step: step(descriptor.sid, descriptor.tid),
        sync,
        id: descriptor.picture_id,
        tl0: descriptor.tl0_pic_idx,
        ..Picture::PLAIN
    }
}

/// All frames of the base come before any spatial layer.
pub(crate) fn step(sid: u8, tid: u8) -> u8 {
    let last = TEMPORAL as u8 - 1;
    if sid == 0 {
        tid.min(last)
    } else {
        last.saturating_add(sid).min(STEPS as u8 - 1)
    }
}
