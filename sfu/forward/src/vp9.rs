//! The VP9 payload descriptor (RFC 9628 section 4.2) and the size of a key frame.
//!
//! Bytes are from the network: nothing is read or written out of bounds, and what is malformed is `None`, never a
//! panic. Frames are not decoded.

use crate::bits::Bits;
pub use crate::spatial::Sizes;
use crate::vp8::PictureId;

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The B bit: first packet of a layer's frame.
    pub begins: bool,
    /// The E bit: last packet of a layer's frame.
    pub ends: bool,
    /// The P bit: the frame needs earlier pictures.
    pub inter_picture: bool,
    pub picture_id: Option<PictureId>,
    /// Temporal layer, 0..=7; 0 where there are no layers.
    pub tid: u8,
    /// Spatial layer, 0..=7; 0 where there are no layers.
    pub sid: u8,
    /// The U bit: from this frame on a viewer can step up to its temporal layer.
    pub switching_up: bool,
    /// Only in the non-flexible mode.
    pub tl0_pic_idx: Option<u8>,
    /// Of the spatial layers, where the packet tells the structure.
    pub sizes: Sizes,
    /// Length of the descriptor in bytes.
    pub len: usize,
    picture_id_at: usize,
    tl0_at: usize,
}

/// Parses the descriptor at the start of an RTP payload; `None` if it is cut short.
pub fn parse(payload: &[u8]) -> Option<Descriptor> {
    let first = *payload.first()?;
    let flexible = first & 0x10 != 0;
    let mut d = Descriptor {
        begins: first & 0x08 != 0,
        ends: first & 0x04 != 0,
        inter_picture: first & 0x40 != 0,
        picture_id: None,
        tid: 0,
        sid: 0,
        switching_up: false,
        tl0_pic_idx: None,
        sizes: Sizes::default(),
        len: 1,
        picture_id_at: 0,
        tl0_at: 0,
    };
    if first & 0x80 != 0 {
        d.picture_id_at = d.len;
        let high = *payload.get(d.len)?;
        let (value, bits) = if high & 0x80 != 0 {
            let low = *payload.get(d.len + 1)?;
            (u16::from(high & 0x7f) << 8 | u16::from(low), 15)
        } else {
            (u16::from(high), 7)
        };
        d.picture_id = Some(PictureId { value, bits });
        d.len += usize::from(bits / 7);
    }
    if first & 0x20 != 0 {
        let layers = *payload.get(d.len)?;
        d.tid = layers >> 5;
        d.switching_up = layers & 0x10 != 0;
        d.sid = layers >> 1 & 0x07;
        d.len += 1;
        if !flexible {
            d.tl0_at = d.len;
            d.tl0_pic_idx = Some(*payload.get(d.len)?);
            d.len += 1;
        }
    }
    if flexible && d.inter_picture {
        // At most three references, each says whether another follows.
        for _ in 0..3 {
            let reference = *payload.get(d.len)?;
            d.len += 1;
            if reference & 1 == 0 {
                break;
            }
        }
    }
    if first & 0x02 != 0 {
        structure(payload, &mut d)?;
    }
    (d.len <= payload.len()).then_some(d)
}

/// The scalability structure.
fn structure(payload: &[u8], d: &mut Descriptor) -> Option<()> {
    let head = *payload.get(d.len)?;
    d.len += 1;
    let layers = usize::from(head >> 5) + 1;
    if head & 0x10 != 0 {
        let bytes = payload.get(d.len..d.len + 4 * layers)?;
        d.len += 4 * layers;
        let mut sizes = [(0, 0); 8];
        for (size, bytes) in sizes.iter_mut().zip(bytes.chunks_exact(4)) {
            let side = |at| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            *size = (side(0), side(2));
        }
        d.sizes = Sizes::of(&sizes[..layers]);
    }
    if head & 0x08 != 0 {
        let pictures = *payload.get(d.len)?;
        d.len += 1;
        for _ in 0..pictures {
            let references = usize::from(*payload.get(d.len)? >> 2 & 0x03);
            d.len += 1 + references;
        }
    }
    Some(())
}

/// Whether a key picture begins in this payload: the base layer of a picture that needs no other.
pub fn key_frame_begins(descriptor: &Descriptor) -> bool {
    descriptor.begins && !descriptor.inter_picture && descriptor.sid == 0
}

/// Width and height of the key frame that begins in this payload, by the structure or by the frame's own header
/// (VP9 bitstream specification section 6.2, profile 0).
pub fn key_frame_size(payload: &[u8], descriptor: &Descriptor) -> Option<(u16, u16)> {
    if !key_frame_begins(descriptor) {
        return None;
    }
    if let Some(size) = descriptor.sizes.largest() {
        return Some(size);
    }
    let mut bits = Bits::new(payload.get(descriptor.len..)?);
    let marker = bits.take(2)?;
    let profile = bits.take(2)?;
    let existing = bits.take(1)?;
    let inter = bits.take(1)?;
    bits.take(2)?; // show_frame, error_resilient_mode
    let sync = bits.take(24)?;
    if marker != 2 || profile != 0 || existing != 0 || inter != 0 || sync != 0x49_83_42 {
        return None;
    }
    // RGB is not in profile 0.
    let space = bits.take(3)?;
    if space == 7 {
        return None;
    }
    bits.take(1)?; // colour range
    let width = u16::try_from(bits.take(16)? + 1).ok()?;
    let height = u16::try_from(bits.take(16)? + 1).ok()?;
    Some((width, height))
}

/// Writes the viewer's picture numbers into those fields that the descriptor has; a malformed payload is left as it is.
pub(crate) fn renumber(payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) {
    let Some(d) = parse(payload) else { return };
    match d.picture_id {
        Some(PictureId { bits: 15, .. }) => {
            let [high, low] = (picture_id & 0x7fff).to_be_bytes();
            payload[d.picture_id_at] = 0x80 | high;
            payload[d.picture_id_at + 1] = low;
        }
        Some(_) => payload[d.picture_id_at] = (picture_id & 0x7f) as u8,
        None => {}
    }
    if d.tl0_pic_idx.is_some() {
        payload[d.tl0_at] = tl0_pic_idx;
    }
}
