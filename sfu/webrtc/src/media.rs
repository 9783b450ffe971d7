//! What a leg publishes and receives, in the words of the shell: codecs, sources, slots, packets.
//!
//! Plain values. Nothing here knows how they are signalled or protected.

use crate::store::Place;

/// A media coding that a leg can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// VP8, RFC 7741, 90 kHz.
    Vp8,
    /// VP9 of profile 0, RFC 9628, 90 kHz.
    Vp9,
    /// H.264 with packetization-mode 1, RFC 6184, 90 kHz.
    H264,
    /// AV1 of profile 0, by the RTP payload format of the Alliance for Open Media, 90 kHz.
    Av1,
    /// Opus, RFC 7587, 48 kHz.
    Opus,
}

impl Codec {
    /// Ticks of the RTP clock in a second.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Codec::Vp8 | Codec::Vp9 | Codec::H264 | Codec::Av1 => 90_000,
            Codec::Opus => 48_000,
        }
    }
}

/// Which of a site's sources a published m-line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// The first video m-line.
    Camera,
    /// The second video m-line, or one with `a=content:slides`.
    Content,
    /// The first audio m-line.
    Audio,
}

/// A published m-line of the offer that the answer accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedSource {
    /// The `a=mid` of its m-line.
    pub mid: String,
    /// Camera, content or audio.
    pub kind: SourceKind,
    /// The one codec chosen in the answer: what will arrive.
    pub codec: Codec,
    /// Simulcast layers, smallest first; empty when there is a single one.
    pub rids: Vec<String>,
}

impl OfferedSource {
    /// How many layers arrive: 1 without simulcast.
    pub fn layers(&self) -> usize {
        self.rids.len().max(1)
    }
}

/// A receiving m-line of the offer that the answer accepted: a place for any source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedSlot {
    /// The `a=mid` of its m-line; also the id of the media stream that the viewer sees.
    pub mid: String,
    /// An audio slot, else a video slot.
    pub audio: bool,
    /// What the viewer can decode in it; not empty.
    pub codecs: Vec<Codec>,
    /// AV1 in it carries dependency descriptors.
    pub descriptors: bool,
}

/// One RTP packet of a publisher, decrypted and told to which source and layer it belongs.
#[derive(Debug, PartialEq, Eq)]
pub struct ReceivedRtp<'a> {
    /// Index into [`crate::Leg::sources`].
    pub source: usize,
    /// Index into the source's `rids`; 0 without simulcast.
    pub layer: usize,
    /// The publisher's sequence number.
    pub seq: u16,
    /// The publisher's timestamp, in ticks of the codec's clock.
    pub timestamp: u32,
    /// Marker bit: last packet of a picture, or the start of a talk spurt.
    pub marker: bool,
    /// Payload without padding; never empty.
    pub payload: &'a [u8],
    /// The value of its dependency descriptor, at most 255 bytes; empty where it has none, or none is agreed.
    pub descriptor: &'a [u8],
    /// Bytes of it in front of the primary encoding (RED, RFC 2198); 0 for a plain packet.
    pub redundancy: u16,
    /// How long before its arrival it was sampled, in microseconds, by the publisher's sender
    /// reports: comparable between the sources of one leg. 0 where that is not known.
    pub age_us: i32,
    /// RFC 6464 level in -dBov: 0 is loudest, 127 is silence.
    pub audio_level: Option<u8>,
}

/// One RTP packet for a slot; the leg adds payload type, SSRC and header extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuedRtp {
    /// Its payload in the worker's [`crate::PacketStore`]; at most [`crate::MAX_PAYLOAD`] bytes.
    pub place: Place,
    /// Must be one of the slot's codecs.
    pub codec: Codec,
    /// Sequence number in the slot's own numbering.
    pub seq: u16,
    /// Timestamp in the slot's own time line.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// A decoder can begin with this packet.
    pub starts_key_frame: bool,
    /// RFC 6464 level in -dBov for audio slots.
    pub audio_level: Option<u8>,
    /// Bytes in front of the payload, in the same place: its dependency descriptor. A slot that takes such has it as a
    /// header extension, if `patch` is for it.
    pub descriptor: u8,
    /// VP8 and VP9: numbers to write into the payload descriptor. AV1: what to write into the dependency descriptor.
    pub patch: Option<PicturePatch>,
    /// As in [`ReceivedRtp::redundancy`]: a slot that takes no RED is sent what lies behind it.
    pub redundancy: u16,
    /// As in [`ReceivedRtp::age_us`], when it is queued. Sender reports go by it, so that what was
    /// sampled together is of the same time in all slots that show one publisher.
    pub age_us: i32,
}

/// New values for what describes a packet, so that pictures are numbered on across a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PicturePatch {
    /// For a VP8 or VP9 payload descriptor. Only fields that the descriptor has are written, so the payload's length never
    /// changes.
    Picture {
        /// 15 bits; a descriptor with a 7-bit picture id takes the low seven.
        picture_id: u16,
        /// Temporal level zero picture index.
        tl0_pic_idx: u8,
    },
    /// For a dependency descriptor.
    Frame {
        /// The frame's number.
        number: u16,
        /// The decode targets that are to be had, a bit each.
        active: u16,
        /// How many decode targets there are, at most 16; 0: nothing is written of them.
        targets: u8,
    },
}
