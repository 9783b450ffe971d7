//! What goes in front of a slot's payloads, written once and filled in for each packet: a copy and some stores. A dependency
//! descriptor, whose length differs, is appended to it; where it is longer than the one-byte form of header extensions
//! allows, all are written in the two-byte form.
//!
//! Invariant: what is written depends on nothing but the slot's plan and the arguments.

use crate::dependency::MAX_VALUE;
use crate::media::Codec;
use crate::negotiate::SlotPlan;
use crate::rtp::{Header, MAX_HEADER, ONE_BYTE, TWO_BYTES};

const CODECS: usize = Codec::Opus as usize + 1;

/// The headers of one slot, and its payload types.
pub(super) struct Fronts {
    plain: Template,
    with_level: Template,
    /// As `plain`, in the two-byte form.
    wide: Template,
    /// The id of the dependency descriptor.
    dependency: Option<u8>,
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
pub(super) struct Fill<'a> {
    pub marker: bool,
    pub payload_type: u8,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// RFC 6464 level, where the slot tells it.
    pub level: Option<u8>,
    /// The value of the dependency descriptor; left out where it is empty, or the slot takes none.
    pub descriptor: &'a [u8],
}

/// A header with zeros where something differs.
struct Template {
    bytes: [u8; MAX_HEADER],
    length: u8,
    /// Of it up to the end of the last extension; 16 if there is none.
    used: u8,
    /// Where the transport-wide sequence number and the audio level go; 0: nowhere.
    number_at: u8,
    level_at: u8,
}

impl Template {
    fn new(plan: &SlotPlan, level_extension: Option<u8>, two_bytes: bool) -> Self {
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
            two_bytes,
        };
        let mut written = Vec::with_capacity(MAX_HEADER);
        header.write(&mut written);
        let mut bytes = [0; MAX_HEADER];
        bytes[..written.len()].copy_from_slice(&written);
        // The values follow the fixed part, the profile word, and a head each; one that does not fit was left out.
        let (mut at, mut places) = (16, [0; 3]);
        let head = if two_bytes { 2 } else { 1 };
        for (extension, place) in extensions.iter().zip(&mut places) {
            if let Some(extension) = extension.filter(Header::fits) {
                *place = (at + head) as u8; // below MAX_HEADER
                at += head + extension.1.len();
            }
        }
        Self {
            bytes,
            length: written.len() as u8,
            used: at as u8,
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
            plain: Template::new(plan, None, false),
            with_level: Template::new(plan, plan.level_extension, false),
            wide: Template::new(plan, None, true),
            dependency: plan.dependency_extension,
            types,
        }
    }

    /// None for a codec that the slot does not take.
    pub(super) fn types(&self, codec: Codec) -> Option<Types> {
        self.types[codec as usize]
    }

    fn template(&self, fill: &Fill<'_>) -> &Template {
        match self.described(fill) {
            Some(described) if described.two_bytes() => &self.wide,
            None if fill.level.is_some() => &self.with_level,
            _ => &self.plain,
        }
    }

    /// The dependency descriptor, where there is one to be written.
    fn described<'a>(&self, fill: &Fill<'a>) -> Option<Described<'a>> {
        let id = self.dependency?;
        let some = !fill.descriptor.is_empty() && fill.descriptor.len() <= MAX_VALUE;
        some.then_some(Described(id, fill.descriptor))
    }

    /// Bytes that [`Fronts::write`] appends.
    pub(super) fn length(&self, fill: &Fill<'_>) -> usize {
        let template = self.template(fill);
        match self.described(fill) {
            Some(described) => 16 + 4 * described.words(template),
            None => template.length.into(),
        }
    }

    /// Appends the header. `number` is the transport-wide sequence number.
    pub(super) fn write(&self, fill: &Fill<'_>, number: u16, out: &mut Vec<u8>) {
        let template = self.template(fill);
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
        match self.described(fill) {
            Some(described) => described.append(template, &mut bytes, out),
            None => out.extend_from_slice(&bytes[..template.length.into()]),
        }
    }
}

/// A dependency descriptor under its id.
struct Described<'a>(u8, &'a [u8]);

impl Described<'_> {
    fn two_bytes(&self) -> bool {
        !Header::fits(&(self.0, self.1))
    }

    /// Length of all extensions in words, with this one.
    fn words(&self, template: &Template) -> usize {
        let head = if self.two_bytes() { 2 } else { 1 };
        (usize::from(template.used) - 16 + head + self.1.len()).div_ceil(4)
    }

    /// Appends the template, filled in, and this behind it.
    fn append(&self, template: &Template, bytes: &mut [u8; MAX_HEADER], out: &mut Vec<u8>) {
        let Described(id, value) = self;
        let words = self.words(template);
        let [high, low] = if self.two_bytes() { TWO_BYTES } else { ONE_BYTE };
        bytes[0] |= 0x10;
        bytes[12..16].copy_from_slice(&[high, low, 0, words as u8]); // at most 78 words
        let end = out.len() + 16 + 4 * words;
        out.extend_from_slice(&bytes[..template.used.into()]);
        if self.two_bytes() {
            out.extend_from_slice(&[*id, value.len() as u8]); // at most 255
        } else {
            out.push(id << 4 | (value.len() - 1) as u8); // at most 15
        }
        out.extend_from_slice(value);
        out.resize(end, 0);
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
                    descriptors: false,
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
                dependency_extension: None,
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
                two_bytes: false,
            }
            .write(&mut expected);
            let fill = Fill { marker, payload_type: 111, seq, timestamp, ssrc, level, descriptor: b"not agreed" };
            let (fronts, mut out) = (Fronts::new(&plan), Vec::new());
            fronts.write(&fill, number, &mut out);
            prop_assert_eq!(fronts.length(&fill), out.len());
            prop_assert_eq!(out, expected);
            prop_assert_eq!(fronts.types(Codec::Opus).map(|types| types.plain), Some(111));
            prop_assert!(fronts.types(Codec::Vp8).is_none());
        }

        #[test]
        fn a_dependency_descriptor_is_read_as_it_was_and_so_is_the_rest(
            ids in prop::array::uniform2(prop::option::of(1u8..=2)),
            id in 3u8..=255,
            mid in "[a-z]{1,16}",
            descriptor in prop::collection::vec(any::<u8>(), 1..=255),
            number in any::<u16>(),
        ) {
            let ids = if ids[0] == ids[1] { [ids[0], None] } else { ids };
            let plan = SlotPlan {
                offered: OfferedSlot {
                    descriptors: false,
                    mid: mid.clone(),
                    audio: false,
                    codecs: vec![Codec::Av1],
                },
                codings: Vec::new(),
                mid_extension: ids[0],
                twcc_extension: ids[1],
                level_extension: None,
                dependency_extension: Some(id),
            };
            let fill = Fill {
                marker: true,
                payload_type: 45,
                seq: 7,
                timestamp: 8,
                ssrc: 9,
                level: None,
                descriptor: &descriptor,
            };
            let (fronts, mut out) = (Fronts::new(&plan), Vec::new());
            fronts.write(&fill, number, &mut out);
            prop_assert_eq!(fronts.length(&fill), out.len());
            out.extend_from_slice(b"payload");
            let rtp = crate::rtp::Rtp::parse(&out).expect("well-formed");
            prop_assert_eq!(&out[rtp.payload.clone()], b"payload");
            prop_assert_eq!(rtp.extension(&out, id), Some(&descriptor[..]));
            if let Some(id) = ids[0] {
                prop_assert_eq!(rtp.extension(&out, id), Some(mid.as_bytes()));
            }
            if let Some(id) = ids[1] {
                prop_assert_eq!(rtp.extension(&out, id), Some(&number.to_be_bytes()[..]));
            }
        }
    }
}
