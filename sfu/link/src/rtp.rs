//! RTP as it is spoken on a link: RFC 3550, fixed payload types, and one header extension (one-byte form,
//! RFC 8285, id 1) with the audio level of RFC 6464.
//!
//! VP8 packets carry the descriptor of RFC 7741 with a picture id of 15 bits. Clocks: 90 kHz for video, 48 kHz for
//! Opus. The SSRC has no meaning on a link (the flow id names the layer or slot) and is written as the flow's low bits.
//! This module reads and writes headers; it looks into no payload.

use bytes::{BufMut, Bytes, BytesMut};

use crate::framing::put_flow;

/// Payload type of VP8 on a link.
pub const PT_VP8: u8 = 96;
/// Payload type of H.264 on a link.
pub const PT_H264: u8 = 97;
/// Payload type of VP9 on a link.
pub const PT_VP9: u8 = 98;
/// Payload type of AV1 on a link.
pub const PT_AV1: u8 = 99;
/// Payload type of Opus on a link.
pub const PT_OPUS: u8 = 111;
/// Largest RTP payload that fits a datagram on any path, bytes.
pub const MAX_PAYLOAD: usize = 1100;
/// Id of the audio level extension on a link.
const AUDIO_LEVEL_ID: u8 = 1;

/// One RTP packet of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkRtp<'a> {
    pub payload_type: u8,
    pub marker: bool,
    pub seq: u16,
    pub timestamp: u32,
    /// -dBov: 0 loudest, 127 silence (RFC 6464).
    pub audio_level: Option<u8>,
    pub payload: &'a [u8],
}

/// Why bytes are no RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MalformedRtp {
    #[error("shorter than its header says")]
    Short,
    #[error("version {0}, expected 2")]
    Version(u8),
    #[error("padding of {0} bytes does not fit")]
    Padding(u8),
}

impl<'a> LinkRtp<'a> {
    /// Reads a packet; contributing sources, padding and other extensions are skipped.
    ///
    /// # Errors
    /// [`MalformedRtp`] for anything that RFC 3550 section 5.1 does not allow.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MalformedRtp> {
        let (fixed, mut rest) = bytes.split_first_chunk::<12>().ok_or(MalformedRtp::Short)?;
        if fixed[0] >> 6 != 2 {
            return Err(MalformedRtp::Version(fixed[0] >> 6));
        }
        let contributing = usize::from(fixed[0] & 0x0f) * 4;
        rest = rest.get(contributing..).ok_or(MalformedRtp::Short)?;
        let mut audio_level = None;
        if fixed[0] & 0x10 != 0 {
            let (head, after) = rest.split_first_chunk::<4>().ok_or(MalformedRtp::Short)?;
            let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (extensions, after) = after.split_at_checked(words * 4).ok_or(MalformedRtp::Short)?;
            if head[..2] == [0xbe, 0xde] {
                audio_level = find_audio_level(extensions);
            }
            rest = after;
        }
        if fixed[0] & 0x20 != 0 {
            let padding = *rest.last().ok_or(MalformedRtp::Short)?;
            let keep = rest.len().checked_sub(padding.into()).filter(|_| padding > 0);
            rest = &rest[..keep.ok_or(MalformedRtp::Padding(padding))?];
        }
        Ok(Self {
            payload_type: fixed[1] & 0x7f,
            marker: fixed[1] & 0x80 != 0,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            audio_level,
            payload: rest,
        })
    }

    /// Appends the datagram: flow id, header, payload. The payload is the last `self.payload.len()` bytes.
    pub fn write(&self, flow: u64, out: &mut BytesMut) {
        out.reserve(self.payload.len() + 28);
        put_flow(flow, out);
        out.put_u8(if self.audio_level.is_some() { 0x90 } else { 0x80 });
        out.put_u8(u8::from(self.marker) << 7 | self.payload_type & 0x7f);
        out.put_u16(self.seq);
        out.put_u32(self.timestamp);
        out.put_u32(flow as u32);
        if let Some(level) = self.audio_level {
            out.put_slice(&[0xbe, 0xde, 0, 1, AUDIO_LEVEL_ID << 4, level & 0x7f, 0, 0]);
        }
        out.put_slice(self.payload);
    }

    /// As [`Self::write`], split off `scratch`. With a large `scratch` kept between calls this allocates once for
    /// many packets.
    pub fn to_datagram(&self, flow: u64, scratch: &mut BytesMut) -> Bytes {
        self.write(flow, scratch);
        scratch.split().freeze()
    }
}

fn find_audio_level(mut extensions: &[u8]) -> Option<u8> {
    while let Some((&head, rest)) = extensions.split_first() {
        if head == 0 {
            extensions = rest;
            continue;
        }
        let (id, len) = (head >> 4, usize::from(head & 0x0f) + 1);
        if id == 15 {
            return None;
        }
        if id == AUDIO_LEVEL_ID {
            return rest.first().map(|level| level & 0x7f);
        }
        extensions = rest.get(len..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::framing::split_flow;

    #[test]
    fn foreign_parts_of_a_header_are_skipped() {
        let mut bytes = vec![0xb1, 0x80 | 96, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4];
        bytes.extend_from_slice(&[9, 9, 9, 9]);
        bytes.extend_from_slice(&[0xbe, 0xde, 0, 2, 0x21, 5, 5, 0, 0x10, 0x80 | 33, 0, 0]);
        bytes.extend_from_slice(&[1, 2, 3, 0, 2]);
        let rtp = LinkRtp::parse(&bytes).expect("well formed");
        assert_eq!(rtp.payload, [1, 2, 3]);
        assert_eq!(rtp.audio_level, Some(33));
        assert_eq!(
            (rtp.seq, rtp.timestamp, rtp.marker, rtp.payload_type),
            (7, 9, true, 96)
        );
    }

    #[test]
    fn the_largest_payload_fits_the_smallest_datagram() {
        let payload = [0; MAX_PAYLOAD];
        let rtp = LinkRtp {
            payload_type: 96,
            marker: false,
            seq: 0,
            timestamp: 0,
            audio_level: Some(0),
            payload: &payload,
        };
        // 1200 bytes of UDP less quinn's worst overhead: short header 13, tag 16, datagram frame 9.
        assert!(rtp.to_datagram(u64::MAX, &mut BytesMut::new()).len() <= 1200 - 38);
    }

    proptest! {
        #[test]
        fn packets_come_back(flow in 0..=crate::framing::MAX_FLOW, payload_type in 0..128u8, marker: bool, seq: u16, timestamp: u32,
                             audio_level in prop::option::of(0..128u8), payload: Vec<u8>) {
            let rtp = LinkRtp { payload_type, marker, seq, timestamp, audio_level, payload: &payload };
            let (back, bytes) = split_flow(rtp.to_datagram(flow, &mut BytesMut::new())).expect("framed");
            prop_assert_eq!(back, flow);
            prop_assert_eq!(LinkRtp::parse(&bytes), Ok(rtp));
        }

        #[test]
        fn junk_never_panics(mut junk: Vec<u8>, first: u8) {
            let _ = LinkRtp::parse(&junk);
            if let Some(byte) = junk.first_mut() {
                *byte = 0x80 | first & 0x3f;
            }
            let _ = LinkRtp::parse(&junk);
        }
    }
}
