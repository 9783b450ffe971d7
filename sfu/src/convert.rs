//! Between the words of the wire, of the forwarding core and of a WebRTC leg: the cores are strangers, and only
//! the shell knows them all.

use muster_forward as forward;
use muster_forward::quality::{Cause, Mark, Quality};
use muster_proto::media::v1 as wire;
use muster_webrtc as webrtc;

pub(crate) fn codec_of_leg(codec: webrtc::Codec) -> forward::Codec {
    match codec {
        webrtc::Codec::Vp8 => forward::Codec::Vp8,
        webrtc::Codec::Vp9 => forward::Codec::Vp9,
        webrtc::Codec::H264 => forward::Codec::H264,
        webrtc::Codec::Av1 => forward::Codec::Av1,
        webrtc::Codec::Opus => forward::Codec::Opus,
    }
}

pub(crate) fn codec_to_leg(codec: forward::Codec) -> webrtc::Codec {
    match codec {
        forward::Codec::Vp8 => webrtc::Codec::Vp8,
        forward::Codec::Vp9 => webrtc::Codec::Vp9,
        forward::Codec::H264 => webrtc::Codec::H264,
        forward::Codec::Av1 => webrtc::Codec::Av1,
        forward::Codec::Opus => webrtc::Codec::Opus,
    }
}

/// "VP8", "VP9", "H264", "AV1" or "opus", in any case.
pub(crate) fn codec_of_name(name: &str) -> Option<forward::Codec> {
    use forward::Codec::{Av1, H264, Opus, Vp8, Vp9};
    [Vp8, Vp9, H264, Av1, Opus]
        .into_iter()
        .find(|&codec| codec_name(codec).eq_ignore_ascii_case(name))
}

pub(crate) fn codec_name(codec: forward::Codec) -> &'static str {
    match codec {
        forward::Codec::Vp8 => "VP8",
        forward::Codec::Vp9 => "VP9",
        forward::Codec::H264 => "H264",
        forward::Codec::Av1 => "AV1",
        forward::Codec::Opus => "opus",
    }
}

pub(crate) fn link_payload_type(codec: forward::Codec) -> u8 {
    match codec {
        forward::Codec::Vp8 => muster_link::rtp::PT_VP8,
        forward::Codec::Vp9 => muster_link::rtp::PT_VP9,
        forward::Codec::H264 => muster_link::rtp::PT_H264,
        forward::Codec::Av1 => muster_link::rtp::PT_AV1,
        forward::Codec::Opus => muster_link::rtp::PT_OPUS,
    }
}

pub(crate) fn kind_of_leg(kind: webrtc::SourceKind) -> forward::SourceKind {
    match kind {
        webrtc::SourceKind::Camera => forward::SourceKind::Camera,
        webrtc::SourceKind::Content => forward::SourceKind::Content,
        webrtc::SourceKind::Audio => forward::SourceKind::Audio,
    }
}

/// A kind of source as join tokens name it.
pub(crate) fn track_of(kind: forward::SourceKind) -> muster_identity::Track {
    match kind {
        forward::SourceKind::Camera => muster_identity::Track::Camera,
        forward::SourceKind::Content => muster_identity::Track::Content,
        forward::SourceKind::Audio => muster_identity::Track::Audio,
    }
}

/// `None` for unspecified and for kinds of a later version.
pub(crate) fn kind_of_wire(kind: i32) -> Option<forward::SourceKind> {
    match wire::SourceKind::try_from(kind) {
        Ok(wire::SourceKind::Camera) => Some(forward::SourceKind::Camera),
        Ok(wire::SourceKind::Content) => Some(forward::SourceKind::Content),
        Ok(wire::SourceKind::Audio) => Some(forward::SourceKind::Audio),
        Ok(wire::SourceKind::Unspecified) | Err(_) => None,
    }
}

pub(crate) fn kind_to_wire(kind: forward::SourceKind) -> wire::SourceKind {
    match kind {
        forward::SourceKind::Camera => wire::SourceKind::Camera,
        forward::SourceKind::Content => wire::SourceKind::Content,
        forward::SourceKind::Audio => wire::SourceKind::Audio,
    }
}

/// A slot's state as viewers are told it.
pub(crate) fn slot_state(slot: &str, state: &forward::SlotState, bitrate_bps: u32) -> wire::SlotState {
    let status = match state.status {
        forward::SlotStatus::Empty => wire::SlotStatus::Empty,
        forward::SlotStatus::Waiting => wire::SlotStatus::Waiting,
        forward::SlotStatus::Live => wire::SlotStatus::Live,
        forward::SlotStatus::Stale => wire::SlotStatus::Stale,
        forward::SlotStatus::Absent => wire::SlotStatus::Absent,
        forward::SlotStatus::Refused => wire::SlotStatus::Refused,
        forward::SlotStatus::Paused => wire::SlotStatus::Paused,
    };
    let reason = match state.reason {
        None => wire::SlotReason::Unspecified,
        Some(forward::SlotReason::CodecNotSupported) => wire::SlotReason::CodecNotSupported,
        Some(forward::SlotReason::LegLeft) => wire::SlotReason::LegLeft,
        Some(forward::SlotReason::NoMedia) => wire::SlotReason::NoMedia,
        Some(forward::SlotReason::UnknownSource) => wire::SlotReason::UnknownSource,
        Some(forward::SlotReason::LimitedByYourLink) => wire::SlotReason::LimitedByYourLink,
        Some(forward::SlotReason::LimitedBySendersLink) => wire::SlotReason::LimitedBySendersLink,
    };
    wire::SlotState {
        slot: slot.to_owned(),
        status: status.into(),
        source: state.source.as_ref().map(|(site, kind)| wire::SourceRef {
            site: site.to_string(),
            kind: kind_to_wire(*kind).into(),
        }),
        reason: reason.into(),
        width: state.width.into(),
        height: state.height.into(),
        age_ms: state.age_ms,
        bitrate_bps,
        codec: state.codec.map(codec_name).unwrap_or_default().to_owned(),
    }
}

/// How a leg fares, in the words of the wire.
pub(crate) fn leg_quality(quality: &Quality) -> wire::LegQuality {
    let bits = |bps: u64| u32::try_from(bps).unwrap_or(u32::MAX);
    let size = |(width, height): (u16, u16)| wire::PictureSize {
        width: width.into(),
        height: height.into(),
    };
    let mark = match quality.mark {
        Mark::Good => wire::QualityMark::Good,
        Mark::Fair => wire::QualityMark::Fair,
        Mark::Poor => wire::QualityMark::Poor,
    };
    let reason = match quality.cause {
        None => wire::QualityReason::Unspecified,
        Some(Cause::NoMedia) => wire::QualityReason::NoMedia,
        Some(Cause::LossUp) => wire::QualityReason::LossUp,
        Some(Cause::LossDown) => wire::QualityReason::LossDown,
        Some(Cause::Delay) => wire::QualityReason::Delay,
        Some(Cause::LowBandwidth) => wire::QualityReason::LowBandwidth,
        Some(Cause::SendersLink) => wire::QualityReason::SendersLink,
    };
    wire::LegQuality {
        up_loss_permille: quality.up_loss,
        down_loss_permille: quality.down_loss,
        // 0 stands for unknown.
        rtt_ms: quality.round_trip.map_or(0, |millis| millis.max(1)),
        up_bps: bits(quality.up_bps),
        down_bps: bits(quality.down_bps),
        jitter_ms: quality.jitter,
        estimate_bps: bits(quality.estimate_bps.unwrap_or(0)),
        published: quality.published.map(size),
        shown: quality.shown.map(size),
        mark: mark.into(),
        reason: reason.into(),
        rung: wire::Rung::Unspecified.into(),
        by_tcp: false,
    }
}
