//! What goes in front of a slot's payloads, written once and filled in for each packet: a copy and some stores.
//!
//! Invariant: what is written depends on nothing but the slot's plan and the arguments.

use crate::media::Codec;
use crate::negotiate::SlotPlan;
use crate::rtp::{Header, MAX_HEADER};

const CODECS: usize = Codec::Opus as usize + 1;

/// The headers of one slot, and its payload types.
pub(super) struct Fronts {
    plain: Template,
    with_level: Template,
    /// By codec.
    types: [Option<Types>; CODECS],
}

/// The payload types of a codec.
#[derive(Clone, Copy)]
pub(super) struct Types {
    pub plain: u8,
    /// Of its retransmissions.
    pub rtx: Option<u8>,
    /// Of it with redundancy in front (RFC 2198).
    pub red: Option<u8>,
}

/// What differs from packet to packet.
#[derive(Clone, Copy)]
pub(super) struct Fill {
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// RFC 6464 level, where the slot tells it.
    pub level: Option<u8>,
}

/// A header with zeros where something differs.
struct Template {
    bytes: [u8; MAX_HEADER],
    length: u8,
    /// Where the transport-wide sequence number and the audio level go; 0: nowhere.
    number_at: u8,
    level_at: u8,
}

impl Template {
    fn new(plan: &SlotPlan, level_extension: Option<u8>) -> Self {
        let extensions = [
            plan.mid_extension.map(|id| (id, plan.offered.mid.as_bytes())),
            plan.twcc_extension.map(|id| (id, &[0; 2][..])),
            level_extension.map(|id| (id, &[0][..])),
        ];
        let header = Header {
            marker: false,
            pt: 0,
            seq: 0,
            timestamp: 0,
            ssrc: 0,
            extensions,
        };
        let mut written = Vec::with_capacity(MAX_HEADER);
        header.write(&mut written);
        let mut bytes = [0; MAX_HEADER];
        bytes[..written.len()].copy_from_slice(&written);
        // The values follow the fixed part, the profile word, and an id each; one that does not fit was left out.
        let (mut at, mut places) = (16, [0; 3]);
        for (extension, place) in extensions.iter().zip(&mut places) {
            if let Some(extension) = extension.filter(Header::fits) {
                *place = at as u8 + 1; // below MAX_HEADER
                at += 1 + extension.1.len();
            }
        }
        Self {
            bytes,
            length: written.len() as u8,
            number_at: places[1],
            level_at: places[2],
        }
    }
}

impl Fronts {
    pub(super) fn new(plan: &SlotPlan) -> Self {
        let mut types = [None; CODECS];
        for coding in &plan.codings {
            types[coding.codec as usize] = Some(Types {
                plain: coding.pt,
                rtx: coding.rtx_pt,
                red: coding.red.map(|red| red.pt),
            });
        }
        Self {
            plain: Template::new(plan, None),
            with_level: Template::new(plan, plan.level_extension),
            types,
        }
    }

    /// None for a codec that the slot does not take.
    pub(super) fn types(&self, codec: Codec) -> Option<Types> {
        self.types[codec as usize]
    }

    fn template(&self, level: Option<u8>) -> &Template {
        if level.is_some() {
            &self.with_level
        } else {
            &self.plain
        }
    }

    /// Bytes that [`Fronts::write`] appends.
    pub(super) fn length(&self, fill: &Fill) -> usize {
        self.template(fill.level).length.into()
    }

    /// Appends the header. `number` is the transport-wide sequence number.
    pub(super) fn write(&self, fill: &Fill, number: u16, out: &mut Vec<u8>) {
        let template = self.template(fill.level);
        let mut bytes = template.bytes;
        bytes[1] = fill.payload_type | if fill.marker { 0x80 } else { 0 };
        bytes[2..4].copy_from_slice(&fill.seq.to_be_bytes());
        bytes[4..8].copy_from_slice(&fill.timestamp.to_be_bytes());
        bytes[8..12].copy_from_slice(&fill.ssrc.to_be_bytes());
        if let at @ 1.. = usize::from(template.number_at) {
            bytes[at..at + 2].copy_from_slice(&number.to_be_bytes());
        }
        if let (at @ 1.., Some(level)) = (usize::from(template.level_at), fill.level) {
            bytes[at] = level & 0x7f;
        }
        out.extend_from_slice(&bytes[..template.length.into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::OfferedSlot;
    use crate::negotiate::Coding;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_would_be_written_at_once(
            ids in prop::array::uniform3(prop::option::of(1u8..=15)),
            mid in "[a-z]{0,20}",
            marker in any::<bool>(),
            numbers in any::<(u16, u16, u32, u32)>(),
            level in prop::option::of(0u8..128),
        ) {
            let plan = SlotPlan {
                offered: OfferedSlot {
                    mid: mid.clone(),
                    audio: true,
                    codecs: vec![Codec::Opus],
                },
                codings: vec![Coding {
                    codec: Codec::Opus,
                    pt: 111,
                    fmtp: String::new(),
                    rtx_pt: None,
                    red: None,
                }],
                mid_extension: ids[0],
                twcc_extension: ids[1],
                level_extension: ids[2],
            };
            let (number, seq, timestamp, ssrc) = numbers;
            let bytes = number.to_be_bytes();
            let level_bytes = level.map(|level| [level]);
            let mut expected = Vec::new();
            Header {
                marker,
                pt: 111,
                seq,
                timestamp,
                ssrc,
                extensions: [
                    ids[0].map(|id| (id, mid.as_bytes())),
                    ids[1].map(|id| (id, &bytes[..])),
                    ids[2].zip(level_bytes.as_ref()).map(|(id, level)| (id, &level[..])),
                ],
            }
            .write(&mut expected);
            let fill = Fill { marker, payload_type: 111, seq, timestamp, ssrc, level };
            let (fronts, mut out) = (Fronts::new(&plan), Vec::new());
            fronts.write(&fill, number, &mut out);
            prop_assert_eq!(fronts.length(&fill), out.len());
            prop_assert_eq!(out, expected);
            prop_assert_eq!(fronts.types(Codec::Opus).map(|types| types.plain), Some(111));
            prop_assert!(fronts.types(Codec::Vp8).is_none());
        }
    }
}
