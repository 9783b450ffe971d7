//! The VP8 payload descriptor (RFC 7741 section 4.2) and the head of a key frame (section 4.3, RFC 6386 section 9.1).
//!
//! Everything here takes bytes from the network: nothing is read or written out of bounds, and what is malformed is
//! `None`, never a panic. Frames are not decoded.

use crate::types::Codec;

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// First packet of a frame: S set and partition index 0.
    pub frame_start: bool,
    pub picture_id: Option<PictureId>,
    pub tl0_pic_idx: Option<u8>,
    /// Temporal layer index, 0..=3.
    pub tid: Option<u8>,
    /// The Y bit: this frame needs nothing but the base layer, so a viewer of it can step up here.
    pub layer_sync: bool,
    /// Temporal key frame index, 0..=31.
    pub key_idx: Option<u8>,
    /// Length of the descriptor in bytes.
    pub len: usize,
    picture_id_at: usize,
    tl0_at: usize,
}

/// A picture id and how many bits it has on the wire: 7 or 15. A frame number of AV1 is one of 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    pub value: u16,
    pub bits: u8,
}

/// The shorter way from one picture id to the other, in the bits that both have.
pub(crate) fn distance(from: PictureId, to: PictureId) -> i16 {
    let unused = 16 - u32::from(from.bits.min(to.bits));
    (to.value.wrapping_sub(from.value) << unused) as i16 >> unused
}

/// Parses the descriptor at the start of an RTP payload; `None` if it is cut short.
pub fn parse(payload: &[u8]) -> Option<Descriptor> {
    let first = *payload.first()?;
    let mut d = Descriptor {
        frame_start: first & 0x10 != 0 && first & 0x07 == 0,
        picture_id: None,
        tl0_pic_idx: None,
        tid: None,
        layer_sync: false,
        key_idx: None,
        len: 1,
        picture_id_at: 0,
        tl0_at: 0,
    };
    if first & 0x80 == 0 {
        return Some(d);
    }
    let extension = *payload.get(1)?;
    d.len = 2;
    if extension & 0x80 != 0 {
        d.picture_id_at = d.len;
        let high = *payload.get(d.len)?;
        if high & 0x80 != 0 {
            let low = *payload.get(d.len + 1)?;
            d.picture_id = Some(PictureId {
                value: u16::from(high & 0x7f) << 8 | u16::from(low),
                bits: 15,
            });
            d.len += 2;
        } else {
            d.picture_id = Some(PictureId {
                value: u16::from(high),
                bits: 7,
            });
            d.len += 1;
        }
    }
    if extension & 0x40 != 0 {
        d.tl0_at = d.len;
        d.tl0_pic_idx = Some(*payload.get(d.len)?);
        d.len += 1;
    }
    if extension & 0x30 != 0 {
        let byte = *payload.get(d.len)?;
        d.tid = (extension & 0x20 != 0).then_some(byte >> 6);
        d.layer_sync = extension & 0x20 != 0 && byte & 0x20 != 0;
        d.key_idx = (extension & 0x10 != 0).then_some(byte & 0x1f);
        d.len += 1;
    }
    Some(d)
}

/// Width and height of the key frame that begins in this payload; `None` if none begins here.
pub fn key_frame_size(payload: &[u8], descriptor: &Descriptor) -> Option<(u16, u16)> {
    if !descriptor.frame_start {
        return None;
    }
    let frame = payload.get(descriptor.len..)?.first_chunk::<10>()?;
    // Bit 0 of the frame tag is 0 for a key frame, then comes the start code.
    if frame[0] & 1 != 0 || frame[3..6] != [0x9d, 0x01, 0x2a] {
        return None;
    }
    // 14 bits each; the upper two are a scaling hint for the renderer.
    let width = u16::from_le_bytes([frame[6], frame[7]]) & 0x3fff;
    let height = u16::from_le_bytes([frame[8], frame[9]]) & 0x3fff;
    (width > 0 && height > 0).then_some((width, height))
}

/// The viewer's own picture numbers for one packet of VP8 or VP9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Patch {
    /// 15 bits; a 7-bit field gets the lower 7.
    pub picture_id: u16,
    pub tl0_pic_idx: u8,
}

impl Vp8Patch {
    /// As [`Vp8Patch::apply`], by the codec's own descriptor (VP9: RFC 9628); nothing for codecs without.
    pub fn apply_to(&self, codec: Codec, payload: &mut [u8]) {
        match codec {
            Codec::Vp8 => self.apply(payload),
            Codec::Vp9 => crate::vp9::renumber(payload, self.picture_id, self.tl0_pic_idx),
            Codec::H264 | Codec::Av1 | Codec::Opus => {}
        }
    }

    /// Writes the numbers into those fields that the descriptor of `payload` has. The length never changes; a
    /// malformed payload is left as it is.
    pub fn apply(&self, payload: &mut [u8]) {
        let Some(d) = parse(payload) else { return };
        match d.picture_id {
            Some(PictureId { bits: 15, .. }) => {
                let [high, low] = (self.picture_id & 0x7fff).to_be_bytes();
                payload[d.picture_id_at] = 0x80 | high;
                payload[d.picture_id_at + 1] = low;
            }
            Some(_) => payload[d.picture_id_at] = (self.picture_id & 0x7f) as u8,
            None => {}
        }
        if d.tl0_pic_idx.is_some() {
            payload[d.tl0_at] = self.tl0_pic_idx;
        }
    }
}
