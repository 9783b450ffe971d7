//! Finding the start of a key frame in AV1 payloads (RTP payload format for AV1, version 1.0, section 4.4), and the
//! size in a sequence header (AV1 bitstream specification section 5.5).
//!
//! Bytes are from the network: what is malformed or cut short is no key frame, never a panic. Nothing is decoded.
//! Layers within one stream are not told apart: what comes is forwarded whole.

use crate::bits::Bits;

const SEQUENCE_HEADER: u8 = 1;

/// Whether a coded video sequence begins with this payload, and the size of its pictures where the sequence header is
/// whole: `None` if none begins.
pub fn key_frame(payload: &[u8]) -> Option<Option<(u16, u16)>> {
    let (&head, mut rest) = payload.split_first()?;
    let (continues, goes_on, count, first) = (
        head & 0x80 != 0,
        head & 0x40 != 0,
        head >> 4 & 3,
        head & 0x08 != 0,
    );
    if continues {
        return None;
    }
    let mut size = None;
    let mut found = first;
    let mut index = 0_usize;
    while !rest.is_empty() {
        index += 1;
        let (element, after) = if count != 0 && index >= usize::from(count) {
            (rest, &[][..])
        } else {
            let (length, body) = leb128(rest)?;
            body.split_at_checked(length)?
        };
        rest = after;
        let whole = !(goes_on && rest.is_empty());
        if let Some(body) = sequence_header(element) {
            found = true;
            size = picture_size(body).filter(|_| whole).or(size);
        }
    }
    found.then_some(size)
}

/// The body of the OBU, if it is a sequence header.
fn sequence_header(obu: &[u8]) -> Option<&[u8]> {
    let (&header, mut body) = obu.split_first()?;
    if header >> 3 & 0x0f != SEQUENCE_HEADER {
        return None;
    }
    if header & 0x04 != 0 {
        body = body.get(1..)?;
    }
    if header & 0x02 != 0 {
        let (length, after) = leb128(body)?;
        body = after.get(..length)?;
    }
    Some(body)
}

/// A length and what follows it; at most four bytes, more than any packet has.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (n, &byte) in bytes.iter().enumerate().take(4) {
        value |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[n + 1..]));
        }
    }
    None
}

/// Largest width and height of the sequence in pixels; `None` if the header is cut short or they do not fit 16 bits.
pub fn picture_size(sequence_header: &[u8]) -> Option<(u16, u16)> {
    let mut bits = Bits::new(sequence_header);
    bits.take(4)?; // seq_profile, still_picture
    if bits.take(1)? == 1 {
        bits.take(5)?; // seq_level_idx
    } else {
        operating_points(&mut bits)?;
    }
    let width_bits = bits.take(4)? + 1;
    let height_bits = bits.take(4)? + 1;
    let width = u16::try_from(bits.take(width_bits)? + 1).ok()?;
    let height = u16::try_from(bits.take(height_bits)? + 1).ok()?;
    Some((width, height))
}

fn operating_points(bits: &mut Bits<'_>) -> Option<()> {
    let mut delay_bits = None;
    if bits.take(1)? == 1 {
        bits.take(32)?; // num_units_in_display_tick
        bits.take(32)?; // time_scale
        if bits.take(1)? == 1 {
            bits.unsigned()?; // num_ticks_per_picture_minus_1, coded as ue(v) is
        }
        if bits.take(1)? == 1 {
            delay_bits = Some(bits.take(5)? + 1);
            bits.take(32)?; // num_units_in_decoding_tick
            bits.take(10)?; // lengths
        }
    }
    let display_delay = bits.take(1)? == 1;
    for _ in 0..=bits.take(5)? {
        bits.take(12)?; // operating_point_idc
        if bits.take(5)? > 7 {
            bits.take(1)?; // seq_tier
        }
        if let Some(length) = delay_bits
            && bits.take(1)? == 1
        {
            bits.take(length)?;
            bits.take(length)?;
            bits.take(1)?;
        }
        if display_delay && bits.take(1)? == 1 {
            bits.take(4)?;
        }
    }
    Some(())
}
