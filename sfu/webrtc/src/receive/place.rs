//! Where an SSRC belongs that is not known yet: to a source and layer, or to the SSRC it repeats.
//!
//! What a packet says itself (mid, rid, repaired rid: RFC 9143, 8852) comes before what the offer
//! said (`a=ssrc`, `a=ssrc-group:FID`), and that before a payload type that only one m-line has.

use std::ops::Range;

use super::rtx;
use super::stream::Stream;
use crate::event::Ignored;
use crate::media::Codec;
use crate::negotiate::{Role, SourcePlan, URI_AUDIO_LEVEL, URI_MID, URI_REPAIRED_RID, URI_RID, extension};
use crate::offer::Media;
use crate::rtp::Rtp;

/// Header extension ids of the offerer.
#[derive(Default)]
pub(super) struct Extensions {
    mid: Option<u8>,
    rid: Option<u8>,
    repaired_rid: Option<u8>,
    level: Option<u8>,
    /// Transport-wide sequence number.
    pub twcc: Option<u8>,
    dependency: Option<u8>,
}

impl Extensions {
    pub(super) fn of(media: &[Media], roles: &[Role], sources: &[SourcePlan]) -> Self {
        let publishing: Vec<&Media> = media
            .iter()
            .zip(roles)
            .filter(|(_, role)| matches!(role, Role::Publishes(_)))
            .map(|(m, _)| m)
            .collect();
        // In a BUNDLE group an id means the same in every m-line (RFC 9143, 9.1).
        let find = |uri| publishing.iter().find_map(|m| extension(m, uri));
        Self {
            mid: find(URI_MID),
            rid: find(URI_RID),
            repaired_rid: find(URI_REPAIRED_RID),
            level: find(URI_AUDIO_LEVEL),
            twcc: sources.iter().find_map(|s| s.twcc_extension),
            dependency: sources.iter().find_map(|s| s.dependency_extension),
        }
    }

    /// A packet's transport-wide sequence number.
    pub(super) fn number(&self, rtp: &Rtp, data: &[u8]) -> Option<u16> {
        let value = rtp.extension(data, self.twcc?)?;
        value.first_chunk().map(|v| u16::from_be_bytes(*v))
    }

    /// Where a packet's dependency descriptor lies in the datagram; nowhere for codecs that have none.
    pub(super) fn descriptor(&self, codec: Codec, rtp: &Rtp, data: &[u8]) -> Range<usize> {
        let id = self.dependency.filter(|_| codec == Codec::Av1);
        id.and_then(|id| rtp.extension_at(data, id)).unwrap_or_default()
    }

    pub(super) fn audio_level(&self, codec: Codec, rtp: &Rtp, data: &[u8]) -> Option<u8> {
        let id = self.level.filter(|_| codec == Codec::Opus)?;
        let value = rtp.extension(data, id)?;
        value.first().map(|v| v & 0x7f)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Carries {
        source: usize,
        layer: usize,
    },
    /// This SSRC.
    Repeats(u32),
    /// It repeats an SSRC that is not known (yet).
    Nowhere,
}

/// Where a packet's SSRC belongs.
pub(super) fn of(
    sources: &[SourcePlan],
    extensions: &Extensions,
    streams: &[Stream],
    rtp: &Rtp,
    data: &[u8],
) -> Result<Place, Ignored> {
    let text = |id: Option<u8>| {
        id.and_then(|id| rtp.extension(data, id))
            .and_then(|v| std::str::from_utf8(v).ok())
    };
    let (mid, rid) = (text(extensions.mid), text(extensions.rid));
    let repeats = |s: &SourcePlan| s.coding.rtx_pt == Some(rtp.pt);
    if sources.iter().any(repeats) {
        // Some clients name the layer that they repeat by the rid of originals.
        let rid = text(extensions.repaired_rid).or(rid);
        let of = |s: &SourcePlan| repeats(s) && mid.is_none_or(|mid| s.offered.mid == mid);
        return repeated(sources, streams, &of, rid, rtp, data);
    }
    let with_rid = |s: &SourcePlan| rid.is_some_and(|r| s.offered.rids.iter().any(|x| x == r));
    let only = |matches: &dyn Fn(&SourcePlan) -> bool| {
        let mut found = sources.iter().enumerate().filter(|(_, s)| matches(s));
        found.next().filter(|_| found.next().is_none())
    };
    let found = if let Some(mid) = mid {
        only(&|s| s.offered.mid == mid)
    } else {
        only(&|s| s.ssrcs.contains(&rtp.ssrc))
            .or_else(|| only(&with_rid))
            .or_else(|| only(&|s| s.coding.carried_by(rtp.pt)))
    };
    let (index, source) = found.ok_or(Ignored::UnknownSource)?;
    if !source.coding.carried_by(rtp.pt) {
        return Err(Ignored::UnknownPayloadType);
    }
    let layer = if source.offered.rids.is_empty() {
        Some(0)
    } else {
        source.offered.rids.iter().position(|r| Some(r.as_str()) == rid)
    };
    layer
        .map(|layer| Place::Carries { source: index, layer })
        .ok_or(Ignored::UnknownSource)
}

/// Which SSRC of the sources `of` a packet of RTX repeats: by FID, by rid, by being the only one,
/// or by being the only one that misses the packet (RFC 4588, section 5.3).
fn repeated(
    sources: &[SourcePlan],
    streams: &[Stream],
    of: &dyn Fn(&SourcePlan) -> bool,
    rid: Option<&str>,
    rtp: &Rtp,
    data: &[u8],
) -> Result<Place, Ignored> {
    let candidates = || sources.iter().enumerate().filter(|(_, s)| of(s));
    if candidates().next().is_none() {
        return Err(Ignored::UnknownSource);
    }
    let mut pairs = candidates().flat_map(|(_, s)| &s.repairs);
    let paired = pairs.find(|(_, repeats)| *repeats == rtp.ssrc);
    if let Some((primary, _)) = paired {
        return Ok(Place::Repeats(*primary));
    }
    let layer_of = |s: &SourcePlan| rid.and_then(|rid| s.offered.rids.iter().position(|r| r == rid));
    let current = || {
        streams.iter().filter(|stream| {
            let mut at = candidates().filter(|(index, _)| *index == stream.source);
            stream.repeats.is_none()
                && !stream.superseded
                && at.any(|(_, s)| layer_of(s).is_none_or(|layer| layer == stream.layer))
        })
    };
    let only = |matches: &dyn Fn(&&Stream) -> bool| {
        let mut found = current().filter(matches);
        found.next().filter(|_| found.next().is_none()).map(|s| s.ssrc)
    };
    let missing = rtx::original(rtp, data).map(|(seq, _)| seq);
    let misses = |s: &&Stream| {
        let nack = s.nack.as_ref().zip(missing);
        nack.is_some_and(|(nack, seq)| nack.misses(seq))
    };
    // With simulcast and no rid, one stream known does not mean that there is only one.
    let sure = candidates().all(|(_, s)| s.offered.rids.is_empty() || layer_of(s).is_some());
    let found = only(&|_| sure).or_else(|| only(&misses));
    Ok(found.map_or(Place::Nowhere, Place::Repeats))
}
