//! The words of the core: ids, sources, slots, wishes, packets.
//!
//! Ids are chosen by the shell and unique in a meeting across workers. Nothing here has behaviour beyond its units.

use std::sync::Arc;

use crate::vp8::Vp8Patch;

/// Microseconds since an epoch of the caller's choice. Only differences matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Micros {
    pub const fn from_millis(ms: u64) -> Self {
        Micros(ms * 1000)
    }

    /// Microseconds from `earlier` to here; 0 if `earlier` is later.
    pub const fn since(self, earlier: Micros) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub const fn plus(self, us: u64) -> Micros {
        Micros(self.0.saturating_add(us))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    Vp8,
    Vp9,
    H264,
    Av1,
    Opus,
}

impl Codec {
    /// RTP clock rate in Hz (RFC 7741 section 4.1, RFC 9628 section 4.1, RFC 6184 section 5.1, the AV1 payload format
    /// section 4.1, RFC 7587 section 4.1).
    pub const fn clock_rate(self) -> u32 {
        match self {
            Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::Av1 => 90_000,
            Codec::Opus => 48_000,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    Camera,
    Content,
    Audio,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub u64);

/// One layer of a video source. Width and height in pixels, 0 while unknown; `max_bps` 0 means not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerSpec {
    pub width: u16,
    pub height: u16,
    pub max_bps: u32,
}

/// A published track. `layers` are smallest first; an empty list means one layer of unknown size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    pub id: SourceId,
    pub leg: LegId,
    pub site: Arc<str>,
    pub kind: SourceKind,
    pub codec: Codec,
    pub layers: Vec<LayerSpec>,
}

/// A receiving place of a leg. `site` is the viewer's own, so that it never hears itself. `seed` chooses the first
/// sequence number, timestamp and picture id; any value will do, a random one is expected (RFC 3550 section 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSpec {
    pub id: SlotId,
    pub leg: LegId,
    pub site: Arc<str>,
    pub audio: bool,
    pub codecs: Vec<Codec>,
    /// It is sent the dependency descriptors of AV1. Browsers cannot put spatial layers together without them, so a
    /// viewer that does not take them is given the smallest layer alone.
    pub descriptors: bool,
    pub seed: u64,
}

/// What a viewer wants in a video slot. The size is the box that the picture is shown in, in pixels; 0 in one
/// dimension leaves it open, 0 in both asks for the largest layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub slot: SlotId,
    pub what: WishWhat,
    pub max_width: u16,
    pub max_height: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WishWhat {
    Source {
        site: Arc<str>,
        kind: SourceKind,
    },
    /// The large picture: the camera of the stage's broadcast site, else of who speaks if the stage follows the voice,
    /// else of the chair.
    Stage,
    /// What the stage's content site shows beside its camera.
    Content,
}

/// The part of the stage document that concerns packets. Versions rise; an equal or lower one is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    pub version: u64,
    pub broadcast: Option<Arc<str>>,
    /// The site of the chair, empty if the meeting has none.
    pub chair: Arc<str>,
    pub muted: Vec<Arc<str>>,
    /// The large picture follows who speaks, where nobody is broadcast.
    pub voice_switching: bool,
    /// Whose content is shown in its own place.
    pub content: Option<Arc<str>>,
}

/// A received RTP packet, decrypted and taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    /// Without padding; empty for a packet of padding only.
    pub payload: &'a [u8],
    /// The value of its dependency descriptor (header extension of AV1); empty where it has none.
    pub descriptor: &'a [u8],
    /// RFC 6464: -dBov, 0 the loudest, 127 silence.
    pub audio_level: Option<u8>,
}

/// Where the shell has kept a payload, in numbers that mean something to the shell alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored(pub u64, pub u16, pub u8);

/// A copy of a packet that was handled before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub copy: Forwarded,
    /// Its payload.
    pub stored: Stored,
    /// A viewer can begin with it.
    pub starts_key_frame: bool,
}

/// One copy to send: into `slot`, with these numbers. The payload is the packet's own but for the patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    pub slot: SlotId,
    pub codec: Codec,
    pub seq: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub patch: Option<Vp8Patch>,
    /// What is to be written into the packet's dependency descriptor; without it the descriptor must not go out.
    pub frame: Option<FramePatch>,
}

/// What a viewer is told of a frame in its dependency descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePatch {
    pub number: u16,
    /// The decode targets that the viewer is sent, a bit each. Means nothing where `targets` is 0.
    pub active: u16,
    /// How many decode targets there are; 0: the descriptor says of them what it says.
    pub targets: u8,
}
