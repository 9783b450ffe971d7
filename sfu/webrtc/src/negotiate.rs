//! Choosing what to accept of an offer: sources, slots, codecs, payload types, extension ids.
//!
//! Values in, values out; `answer` writes them down, `receive` and `send` work by them.

use crate::media::{Codec, OfferedSlot, OfferedSource, SourceKind};
use crate::offer::{Direction, Media, MediaKind, Offer, OfferError, Payload, TRANSPORT_CC};

pub(crate) const URI_MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
pub(crate) const URI_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
pub(crate) const URI_REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
pub(crate) const URI_AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
pub(crate) const URI_TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
pub(crate) const URI_DEPENDENCY: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// The most simulcast layers of a source.
const MAX_LAYERS: usize = 4;

/// What becomes of one m-line.
pub(crate) enum Role {
    /// Port 0.
    Rejected,
    /// Accepted, with no media either way.
    Inactive,
    /// Index into the plan's sources.
    Publishes(usize),
    /// Index into the plan's slots.
    Shows(usize),
}

/// A codec with the payload type that the offerer gave it.
#[derive(Clone, Debug)]
pub(crate) struct Coding {
    pub codec: Codec,
    pub pt: u8,
    pub fmtp: String,
    /// Retransmission of this coding (RFC 4588).
    pub rtx_pt: Option<u8>,
    /// This coding with redundancy in front of it (RFC 2198).
    pub red: Option<Red>,
}

/// Redundant audio as it was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Red {
    pub pt: u8,
    /// Listed before the plain coding: the offerer's choice, which the answer repeats.
    pub first: bool,
}

impl Coding {
    /// Packets of this payload type carry it, plain or with redundancy.
    pub(crate) fn carried_by(&self, pt: u8) -> bool {
        self.pt == pt || self.red.is_some_and(|red| red.pt == pt)
    }
}

pub(crate) struct SourcePlan {
    pub offered: OfferedSource,
    pub coding: Coding,
    /// Of `a=ssrc`, those of repeats left out.
    pub ssrcs: Vec<u32>,
    /// An SSRC, and the one that repeats it.
    pub repairs: Vec<(u32, u32)>,
    /// Packets of this source carry a transport-wide sequence number.
    pub twcc_extension: Option<u8>,
    /// Packets of this source carry a dependency descriptor.
    pub dependency_extension: Option<u8>,
}

pub(crate) struct SlotPlan {
    pub offered: OfferedSlot,
    pub codings: Vec<Coding>,
    pub mid_extension: Option<u8>,
    pub level_extension: Option<u8>,
    /// Packets of this slot carry a transport-wide sequence number.
    pub twcc_extension: Option<u8>,
    /// AV1 of this slot carries a dependency descriptor.
    pub dependency_extension: Option<u8>,
}

impl SlotPlan {
    /// A coding of the slot has retransmissions, and so the slot has an SSRC for them.
    pub(crate) fn has_rtx(&self) -> bool {
        self.codings.iter().any(|c| c.rtx_pt.is_some())
    }
}

/// The whole choice, one role per m-line.
pub(crate) struct Plan {
    pub roles: Vec<Role>,
    pub sources: Vec<SourcePlan>,
    pub slots: Vec<SlotPlan>,
}

/// Chooses. Errors: a missing rtcp-mux, or nothing acceptable at all.
pub(crate) fn negotiate(offer: &Offer) -> Result<Plan, OfferError> {
    let mut plan = Plan {
        roles: Vec::with_capacity(offer.media.len()),
        sources: Vec::new(),
        slots: Vec::new(),
    };
    for media in &offer.media {
        let role = plan.role(media, offer.extmap_allow_mixed || media.extmap_allow_mixed);
        if !matches!(role, Role::Rejected) && !media.rtcp_mux {
            return Err(OfferError::new(
                media.line,
                "a=rtcp-mux in every audio and video m-line",
            ));
        }
        plan.roles.push(role);
    }
    if plan.sources.is_empty() && plan.slots.is_empty() {
        return Err(OfferError::new(
            0,
            "a sendonly or recvonly m-line in the BUNDLE group with VP8, \
             H264 (packetization-mode=1) or opus",
        ));
    }
    Ok(plan)
}

impl Plan {
    /// `mixed`: the offerer takes header extensions in both forms in this m-line.
    fn role(&mut self, media: &Media, mixed: bool) -> Role {
        let rtp = matches!(
            media.proto.as_str(),
            "UDP/TLS/RTP/SAVPF" | "TCP/TLS/RTP/SAVPF" | "RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "RTP/SAVP"
        );
        if media.kind == MediaKind::Other || media.disabled || !media.bundled || !rtp {
            return Role::Rejected;
        }
        let codings = codings(media);
        if codings.is_empty() {
            return Role::Rejected;
        }
        match media.direction {
            Direction::Inactive => Role::Inactive,
            Direction::SendOnly | Direction::SendRecv => self.source(media, codings, mixed),
            Direction::RecvOnly => self.slot(media, codings, mixed),
        }
    }

    fn source(&mut self, media: &Media, codings: Vec<Coding>, mixed: bool) -> Role {
        let has = |kind| self.sources.iter().any(|s| s.offered.kind == kind);
        let kind = match media.kind {
            MediaKind::Audio => SourceKind::Audio,
            _ if media.slides || has(SourceKind::Camera) => SourceKind::Content,
            _ => SourceKind::Camera,
        };
        let Some(coding) = codings.into_iter().next().filter(|_| !has(kind)) else {
            return Role::Rejected;
        };
        let mut rids = smallest_first(&media.simulcast);
        rids.truncate(MAX_LAYERS);
        if rids.len() < 2 || kind == SourceKind::Audio {
            rids.clear();
        }
        self.sources.push(SourcePlan {
            offered: OfferedSource {
                mid: media.mid.clone(),
                kind,
                codec: coding.codec,
                rids,
            },
            twcc_extension: transport_cc(media, std::slice::from_ref(&coding)),
            dependency_extension: dependency(media, std::slice::from_ref(&coding), mixed),
            coding,
            ssrcs: media.ssrcs.clone(),
            repairs: media.repairs.clone(),
        });
        Role::Publishes(self.sources.len() - 1)
    }

    fn slot(&mut self, media: &Media, codings: Vec<Coding>, mixed: bool) -> Role {
        let dependency_extension = dependency(media, &codings, mixed);
        self.slots.push(SlotPlan {
            offered: OfferedSlot {
                descriptors: dependency_extension.is_some(),
                mid: media.mid.clone(),
                audio: media.kind == MediaKind::Audio,
                codecs: codings.iter().map(|c| c.codec).collect(),
            },
            twcc_extension: transport_cc(media, &codings).filter(|id| *id <= 14),
            dependency_extension,
            codings,
            mid_extension: extension(media, URI_MID),
            level_extension: extension(media, URI_AUDIO_LEVEL),
        });
        Role::Shows(self.slots.len() - 1)
    }
}

/// The id that the offerer gave an extension.
pub(crate) fn extension(media: &Media, uri: &str) -> Option<u8> {
    let found = media.extensions.iter().find(|(_, u)| u == uri)?;
    Some(found.0)
}

/// The id of the transport-wide sequence number, where it and its feedback are offered for all of
/// `codings`.
fn transport_cc(media: &Media, codings: &[Coding]) -> Option<u8> {
    let fed_back = |c: &Coding| media.feedback(c.pt).any(|kind| kind == TRANSPORT_CC);
    extension(media, URI_TRANSPORT_CC).filter(|_| codings.iter().all(fed_back))
}

/// The id of the dependency descriptor, where one of `codings` is AV1: the other codecs say what they have to in their
/// payloads. A structure does not fit the one-byte form that the rest is written in, so both must be taken.
fn dependency(media: &Media, codings: &[Coding], mixed: bool) -> Option<u8> {
    let av1 = codings.iter().any(|c| c.codec == Codec::Av1);
    extension(media, URI_DEPENDENCY).filter(|_| av1 && mixed)
}

/// What of an m-line's payload types we can carry, best first, each codec once.
fn codings(media: &Media) -> Vec<Coding> {
    let payloads = media.listed();
    if media.kind == MediaKind::Audio {
        return opus(&payloads).into_iter().collect();
    }
    let mut repeats = [None; 128];
    for p in payloads.iter().filter(|p| p.name == "RTX" && p.clock == 90_000) {
        let of = p.parameter("apt").and_then(|apt| apt.parse::<usize>().ok());
        if let Some(repeated @ None) = of.and_then(|apt| repeats.get_mut(apt)) {
            *repeated = Some(p.pt);
        }
    }
    let video = |codec, p: &Payload, fmtp: String| Coding {
        codec,
        pt: p.pt,
        fmtp,
        rtx_pt: repeats[usize::from(p.pt)],
        red: None,
    };
    let vp8 = payloads
        .iter()
        .find(|p| p.name == "VP8" && p.clock == 90_000)
        .map(|p| video(Codec::Vp8, p, String::new()));
    let h264 = payloads
        .iter()
        .filter(|p| p.name == "H264" && p.clock == 90_000)
        .filter(|p| p.parameter("packetization-mode") == Some("1"))
        .min_by_key(|p| profile_rank(p.parameter("profile-level-id")))
        .map(|p| {
            let profile = p
                .parameter("profile-level-id")
                .filter(|v| v.len() == 6 && v.bytes().all(|b| b.is_ascii_hexdigit()))
                .unwrap_or("42e01f");
            let fmtp = format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}");
            video(Codec::H264, p, fmtp)
        });
    // Profile 0 alone, 4:2:0 with 8 bits; it is meant where none is named (RFC 9628, 6.1).
    let of_profile_0 = |name, key| {
        let first = |p: &Payload| p.parameter(key).is_none_or(|profile| profile == "0");
        let mut named = payloads
            .iter()
            .filter(move |p| p.name == name && p.clock == 90_000);
        named.find(|p| first(p))
    };
    let vp9 = of_profile_0("VP9", "profile-id").map(|p| video(Codec::Vp9, p, "profile-id=0".to_owned()));
    let av1 = of_profile_0("AV1", "profile").map(|p| video(Codec::Av1, p, av1_parameters(p)));
    vp8.into_iter().chain(h264).chain(vp9).chain(av1).collect()
}

/// What was offered of level and tier, where it is a number, and profile 0.
fn av1_parameters(offered: &Payload) -> String {
    let mut parameters = "profile=0".to_owned();
    for key in ["level-idx", "tier"] {
        if let Some(value) = offered.parameter(key).and_then(|value| value.parse::<u8>().ok()) {
            parameters.push_str(&format!(";{key}={value}"));
        }
    }
    parameters
}

fn opus(payloads: &[&Payload]) -> Option<Coding> {
    let audio = |name: &str, p: &Payload| p.name == name && p.clock == 48_000 && p.channels == 2;
    let at = payloads.iter().position(|p| audio("OPUS", p))?;
    let opus = payloads[at];
    let of_opus = |p: &Payload| {
        let mut blocks = p.fmtp.split('/').map(|pt| pt.trim().parse().ok());
        blocks.all(|pt: Option<u8>| pt == Some(opus.pt))
    };
    let red = payloads.iter().position(|p| audio("RED", p) && of_opus(p));
    Some(Coding {
        codec: Codec::Opus,
        pt: opus.pt,
        fmtp: "minptime=10;useinbandfec=1".to_owned(),
        rtx_pt: None,
        red: red.map(|red| Red {
            pt: payloads[red].pt,
            first: red < at,
        }),
    })
}

/// Constrained baseline first (42e0..), other baselines next, the rest last (RFC 6184, 8.1).
fn profile_rank(profile: Option<&str>) -> u8 {
    let profile = profile.unwrap_or("42e01f").to_ascii_lowercase();
    match () {
        () if profile.starts_with("42e0") => 0,
        () if profile.starts_with("42") => 1,
        () => 2,
    }
}

/// Orders simulcast rids from small to large.
///
/// SDP does not say sizes. Where every rid has a customary name (q, h, f; l, m, h; low, mid, hi;
/// ...) these decide; else the listed order is taken as smallest first.
fn smallest_first(listed: &[String]) -> Vec<String> {
    let has = |name: &str| listed.iter().any(|r| r == name);
    // "h" is half in q-h-f and high in l-m-h.
    let h_is_half = has("f") || has("q");
    let rank = |rid: &str| match rid {
        "q" | "quarter" | "l" | "lo" | "low" => Some(0),
        "half" | "m" | "mid" | "medium" => Some(1),
        "h" => Some(if h_is_half { 1 } else { 2 }),
        "f" | "full" | "hi" | "high" => Some(2),
        _ => None,
    };
    let mut rids = listed.to_vec();
    if listed.iter().all(|r| rank(r).is_some()) {
        rids.sort_by_key(|r| rank(r)); // stable: equal names keep the listed order
    }
    rids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listed: &str, expected: &str) {
        let listed: Vec<String> = listed.split(' ').map(str::to_owned).collect();
        assert_eq!(smallest_first(&listed).join(" "), expected);
    }

    #[test]
    fn simulcast_layers_are_ordered_by_customary_names() {
        check("f h q", "q h f");
        check("q h f", "q h f");
        check("h m l", "l m h");
        check("hi mid lo", "lo mid hi");
        check("high low", "low high");
        check("h f", "h f");
    }

    #[test]
    fn unknown_names_keep_the_listed_order() {
        check("2 1 0", "2 1 0");
        check("a q", "a q");
    }
}
